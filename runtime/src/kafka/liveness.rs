//! Whether a client still reaches its brokers.
//!
//! A client can lose all brokers for good. A broker that has just started may return metadata without any broker, and
//! librdkafka 2.12 then forgets every broker that it knows, the configured ones included, and never looks for one again
//! (<https://github.com/confluentinc/librdkafka/issues/5301>). Such a client reports no error: it only stays silent. A caller that
//! has received nothing for a while therefore probes a broker, and replaces a client that reaches none.

use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer, ConsumerContext};

/// A client that has been silent for this long is probed.
const SILENCE: Duration = Duration::from_secs(5);
/// How long one probe may take, and the pause between probes while no broker answers.
const PROBE: Duration = Duration::from_secs(1);
/// A client that has reached no broker for this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// Whether a client reaches its brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connectivity {
    /// A broker has answered recently.
    Connected,
    /// No broker answers at the moment.
    Unreachable,
    /// No broker has answered for so long that the client should be replaced.
    Lost,
}

/// When a client last heard from a broker, and when it was last probed.
#[derive(Debug)]
pub(crate) struct BrokerLiveness {
    last_answer: Instant,
    last_probe: Instant,
    unreachable_since: Option<Instant>,
    is_suspected: bool,
}

impl BrokerLiveness {
    /// The liveness of a client created at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { last_answer: now, last_probe: now, unreachable_since: None, is_suspected: false }
    }

    /// Notes that a broker has sent something.
    pub(crate) fn received(&mut self) {
        self.received_at(Instant::now());
    }

    fn received_at(&mut self, now: Instant) {
        (self.last_answer, self.unreachable_since, self.is_suspected) = (now, None, false);
    }

    /// Notes that the client reports all connections as down. It may reconnect, so this only brings the next probe forward.
    pub(crate) fn suspect_loss(&mut self) {
        self.is_suspected = true;
    }

    /// Asks a broker for the metadata of `topic` if a probe is due; returns `None` if none is.
    pub(crate) fn probe<C: ConsumerContext>(&mut self, client: &impl Consumer<C>, topic: &str) -> Option<Connectivity> {
        let now = Instant::now();
        self.is_due(now).then(|| {
            let is_answered = client.fetch_metadata(Some(topic), PROBE).is_ok();
            self.probed(now, is_answered, Instant::now())
        })
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.unreachable_since {
            Some(_) => now.duration_since(self.last_probe) >= PROBE,
            None => self.is_suspected || now.duration_since(self.last_answer) >= SILENCE,
        }
    }

    fn probed(&mut self, started: Instant, is_answered: bool, now: Instant) -> Connectivity {
        self.last_probe = started;
        if is_answered {
            self.received_at(now);
            return Connectivity::Connected;
        }
        let since = *self.unreachable_since.get_or_insert(started);
        if now.duration_since(since) >= LOST_AFTER { Connectivity::Lost } else { Connectivity::Unreachable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silent_or_suspected_client_is_probed() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut liveness = BrokerLiveness::new(start);
        assert!(!liveness.is_due(after(4_999)));
        assert!(liveness.is_due(after(5_000)));
        liveness.received_at(after(5_000));
        assert!(!liveness.is_due(after(9_999)));
        liveness.suspect_loss();
        assert!(liveness.is_due(after(5_001)));
        assert_eq!(liveness.probed(after(5_001), true, after(5_002)), Connectivity::Connected);
        assert!(!liveness.is_due(after(6_000)), "an answered probe ends the suspicion");
    }

    #[test]
    fn a_client_is_lost_after_five_seconds_without_an_answer() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut liveness = BrokerLiveness::new(start);
        liveness.suspect_loss();
        for second in 0..4 {
            let started = after(second * 1_000);
            assert!(liveness.is_due(started));
            assert_eq!(liveness.probed(started, false, started + PROBE), Connectivity::Unreachable, "{second}");
            assert!(!liveness.is_due(started + PROBE / 2));
        }
        assert_eq!(liveness.probed(after(4_000), false, after(5_000)), Connectivity::Lost);
        liveness.received_at(after(5_100));
        liveness.suspect_loss();
        let next = liveness.probed(after(5_200), false, after(6_200));
        assert_eq!(next, Connectivity::Unreachable, "an answer restarts the count");
    }
}
