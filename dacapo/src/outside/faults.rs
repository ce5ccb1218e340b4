//! How badly the outside world behaves. Every mishap is drawn from the seed, the request's key and its attempt, so a run can be
//! repeated.

use std::{collections::BTreeMap, io, sync::Mutex, time::Duration};

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::idempotency_key;

/// Latency and faults of the simulated outside world.
#[derive(Debug, Default)]
pub struct Faults {
    /// Every answer takes this long, plus up to as much again.
    pub latency: Duration,
    /// Share of requests (0 to 1) that fail: half of them before anything was done, half after (the answer is lost, and the
    /// repeated request is answered with what was done the first time).
    pub failure_share: f64,
    /// Share of charges (0 to 1) that the gateway never answers: half of them are captured all the same.
    pub silent_charges: f64,
    /// Share of payments (0 to 1) whose first refund the gateway refuses.
    pub refused_refunds: f64,
    /// Share of dispatch attempts (0 to 1) that the courier refuses.
    pub refused_parcels: f64,
    /// Draws the mishaps.
    pub seed: u64,
    attempts: Mutex<BTreeMap<String, u32>>,
}

/// What befalls one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done and answered.
    Answered,
    /// It fails and nothing was done.
    FailsBefore,
    /// It is done, but the answer is lost.
    FailsAfter,
}

impl Faults {
    /// Keys whose attempts are counted at once. Beyond it the counts start again, which only makes a repeat draw the same fate.
    const MAX_COUNTED_KEYS: usize = 100_000;

    /// Faults with a given latency, share of failures and seed.
    #[must_use]
    pub fn new(latency: Duration, failure_share: f64, seed: u64) -> Self {
        Self { latency, failure_share, seed, ..Self::default() }
    }

    /// Whether what befalls a share of requests befalls the one under this key: always, or never.
    pub(super) fn falls_on(&self, share: f64, what: &str, key: &str) -> bool {
        share > 0.0 && unit(self.hash(what.bytes().chain(key.bytes()))) < share
    }

    /// Answers a request under its idempotency key: what befalls it, what is done and kept, and what of that is told.
    pub(super) async fn answer<E>(
        &self,
        headers: &HeaderMap,
        who: &str,
        act: impl FnOnce(&str) -> io::Result<E>,
        told: impl FnOnce(&E) -> Response,
    ) -> Response {
        let key = match idempotency_key(headers) {
            Ok(key) => key,
            Err(refusal) => return *refusal,
        };
        let fate = self.befall(&key).await;
        if fate == Fate::FailsBefore {
            return unavailable();
        }
        match act(&key) {
            Ok(_) if fate == Fate::FailsAfter => unavailable(),
            Ok(entry) => told(&entry),
            Err(error) => {
                tracing::error!(who, %error, "the journal cannot be written");
                unavailable()
            }
        }
    }

    /// Waits as long as this request takes, and says what befalls it.
    pub(super) async fn befall(&self, key: &str) -> Fate {
        if self.failure_share <= 0.0 && self.latency.is_zero() {
            return Fate::Answered;
        }
        let draw = self.draw(key);
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency + self.latency.mul_f64(unit(draw.rotate_left(32)))).await;
        }
        match unit(draw) {
            share if share < self.failure_share / 2.0 => Fate::FailsBefore,
            share if share < self.failure_share => Fate::FailsAfter,
            _ => Fate::Answered,
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

/// The answer to a request that failed.
pub(super) fn unavailable() -> Response {
    let body = json!({ "status": "unavailable", "reason": "simulated fault: try again with the same key" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_share_of_requests_fails_and_the_same_seed_fails_the_same_ones() {
        let fates = async |seed| {
            let faults = Faults::new(Duration::ZERO, 0.2, seed);
            let mut fates = Vec::new();
            for request in 0..2_000 {
                fates.push(faults.befall(&format!("charge-{request}")).await);
            }
            fates
        };
        let drawn = fates(7).await;
        let failed = drawn.iter().filter(|fate| **fate != Fate::Answered).count();
        assert!((300..500).contains(&failed), "a fifth of 2,000 should fail, {failed} did");
        assert!(drawn.contains(&Fate::FailsBefore) && drawn.contains(&Fate::FailsAfter));
        assert_eq!(fates(7).await, drawn);
        assert_ne!(fates(8).await, drawn);
    }

    #[test]
    fn what_befalls_a_share_of_keys_befalls_each_of_them_always() {
        let faults = Faults::new(Duration::ZERO, 0.0, 7);
        let hit = |key: u32| faults.falls_on(0.25, "refund", &format!("pay-{key}"));
        let hits = (0..2_000).filter(|key| hit(*key)).count();
        assert!((400..600).contains(&hits), "a quarter of 2,000 should be hit, {hits} were");
        assert!((0..2_000).all(|key| hit(key) == hit(key)));
        assert!((0..2_000).all(|key| !faults.falls_on(0.0, "refund", &key.to_string())));
    }
}
