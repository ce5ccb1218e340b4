//! Latency and faults of the stubs. Each fault is drawn from the seed, the request's key and its attempt, so a run can be repeated.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

/// Latency and faults of the stubs.
#[derive(Debug, Default)]
pub struct StubFaults {
    /// Minimum response time; the maximum is twice as long.
    pub latency: Duration,
    /// Share of requests (0 to 1) that fail: half of them before the stub acts, half after. The response to the latter is lost, and
    /// the repeated request gets it.
    pub failure_share: f64,
    /// Share of charges (0 to 1) that the gateway never answers: half of them are captured all the same.
    pub silent_charges: f64,
    /// Share of payments (0 to 1) whose first refund the gateway refuses.
    pub refused_refunds: f64,
    /// Share of dispatch attempts (0 to 1) that the courier refuses.
    pub refused_parcels: f64,
    /// The seed that faults are drawn from.
    pub seed: u64,
    attempts: Mutex<BTreeMap<String, u32>>,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFate {
    /// The stub acts and responds.
    Answered,
    /// The request fails before the stub acts.
    FailsBefore,
    /// The stub acts, but the response is lost.
    FailsAfter,
}

impl StubFaults {
    /// How many keys have their attempts counted. Beyond it the counts start again, which only repeats earlier draws.
    const MAX_COUNTED_KEYS: usize = 100_000;

    /// Faults with a given latency, share of failures and seed.
    #[must_use]
    pub fn new(latency: Duration, failure_share: f64, seed: u64) -> Self {
        Self { latency, failure_share, seed, ..Self::default() }
    }

    /// Whether a fault with this share applies to this key: always or never for one key.
    pub(super) fn applies_to(&self, share: f64, what: &str, key: &str) -> bool {
        share > 0.0 && unit(self.hash(what.bytes().chain(key.bytes()))) < share
    }

    /// Waits for the drawn response time and returns what happens to the request.
    pub(super) async fn next_fate(&self, key: &str) -> RequestFate {
        if self.failure_share <= 0.0 && self.latency.is_zero() {
            return RequestFate::Answered;
        }
        let draw = self.draw(key);
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency + self.latency.mul_f64(unit(draw.rotate_left(32)))).await;
        }
        match unit(draw) {
            share if share < self.failure_share / 2.0 => RequestFate::FailsBefore,
            share if share < self.failure_share => RequestFate::FailsAfter,
            _ => RequestFate::Answered,
        }
    }

    fn draw(&self, key: &str) -> u64 {
        let attempt = {
            let mut attempts = self.attempts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if attempts.len() >= Self::MAX_COUNTED_KEYS {
                attempts.clear();
            }
            let attempt = attempts.entry(key.to_owned()).or_default();
            *attempt += 1;
            *attempt
        };
        self.hash(key.bytes().chain(attempt.to_le_bytes()))
    }

    fn hash(&self, bytes: impl Iterator<Item = u8>) -> u64 {
        let mut hash = self.seed ^ 0x9e37_79b9_7f4a_7c15;
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            hash ^= hash >> 29;
        }
        hash.wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

/// The upper bits of a draw as a number in `0..1`.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_configured_share_of_requests_fails_and_a_seed_always_fails_the_same_ones() {
        let fates = async |seed| {
            let faults = StubFaults::new(Duration::ZERO, 0.2, seed);
            let mut fates = Vec::new();
            for request in 0..2_000 {
                fates.push(faults.next_fate(&format!("charge-{request}")).await);
            }
            fates
        };
        let drawn = fates(7).await;
        let failed = drawn.iter().filter(|fate| **fate != RequestFate::Answered).count();
        assert!((300..500).contains(&failed), "a fifth of 2,000 should fail, {failed} did");
        assert!(drawn.contains(&RequestFate::FailsBefore) && drawn.contains(&RequestFate::FailsAfter));
        assert_eq!(fates(7).await, drawn);
        assert_ne!(fates(8).await, drawn);
    }

    #[test]
    fn a_fault_applies_to_its_share_of_keys_and_always_to_the_same_ones() {
        let faults = StubFaults::new(Duration::ZERO, 0.0, 7);
        let hit = |key: u32| faults.applies_to(0.25, "refund", &format!("pay-{key}"));
        let hits = (0..2_000).filter(|key| hit(*key)).count();
        assert!((400..600).contains(&hits), "a quarter of 2,000 should be hit, {hits} were");
        assert!((0..2_000).all(|key| hit(key) == hit(key)));
        assert!((0..2_000).all(|key| !faults.applies_to(0.0, "refund", &key.to_string())));
    }
}
