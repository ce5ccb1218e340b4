//! Whether a client still finds its brokers.
//!
//! A client can lose them for good: told by one broker that the cluster has none, as a broker answers that has just started,
//! librdkafka 2.12 forgets all that it knows, the configured ones too, and looks for none again
//! (<https://github.com/confluentinc/librdkafka/issues/5301>). From outside that is a client to which nothing happens. So whoever
//! has heard nothing for a while asks, and replaces a client that finds nobody.

use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer, ConsumerContext};

/// After this long without a sign of a broker one is asked for.
const SILENCE: Duration = Duration::from_secs(5);
/// How long one question may take, and how often it is put while nobody answers.
const QUESTION: Duration = Duration::from_secs(1);
/// A client that nobody has answered for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// How a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A broker has been heard of lately.
    Connected,
    /// Nobody answers at the moment.
    Alone,
    /// Nobody has answered for so long that a fresh client is the better one.
    Lost,
}

/// What is known of a client's brokers.
#[derive(Debug)]
pub(crate) struct Contact {
    heard: Instant,
    asked: Instant,
    alone_since: Option<Instant>,
    is_doubted: bool,
}

impl Contact {
    /// Of a client that was just made.
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: now, asked: now, alone_since: None, is_doubted: false }
    }

    /// Something came from a broker.
    pub(crate) fn received(&mut self) {
        self.received_at(Instant::now());
    }

    fn received_at(&mut self, now: Instant) {
        (self.heard, self.alone_since, self.is_doubted) = (now, None, false);
    }

    /// The client says that it has lost all connections. It may find them again.
    pub(crate) fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// Asks a broker for a topic through the client, if it is time to. Answers nothing if nothing was asked.
    pub(crate) fn look<C: ConsumerContext>(&mut self, client: &impl Consumer<C>, topic: &str) -> Option<Standing> {
        let now = Instant::now();
        self.is_due(now).then(|| {
            let is_there = client.fetch_metadata(Some(topic), QUESTION).is_ok();
            self.answered(now, is_there, Instant::now())
        })
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.alone_since {
            Some(_) => now.duration_since(self.asked) >= QUESTION,
            None => self.is_doubted || now.duration_since(self.heard) >= SILENCE,
        }
    }

    fn answered(&mut self, asked: Instant, is_there: bool, now: Instant) -> Standing {
        self.asked = asked;
        if is_there {
            self.received_at(now);
            return Standing::Connected;
        }
        let since = *self.alone_since.get_or_insert(asked);
        if now.duration_since(since) >= LOST_AFTER { Standing::Lost } else { Standing::Alone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_doubt_are_asked_about_and_nothing_else() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut contact = Contact::new(start);
        assert!(!contact.is_due(after(4_999)));
        assert!(contact.is_due(after(5_000)));
        contact.received_at(after(5_000));
        assert!(!contact.is_due(after(9_999)));
        contact.doubt();
        assert!(contact.is_due(after(5_001)));
        assert_eq!(contact.answered(after(5_001), true, after(5_002)), Standing::Connected);
        assert!(!contact.is_due(after(6_000)), "an answer is a sign of life");
    }

    #[test]
    fn a_client_is_lost_once_nobody_has_answered_for_long_enough() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut contact = Contact::new(start);
        contact.doubt();
        for second in 0..4 {
            let asked = after(second * 1_000);
            assert!(contact.is_due(asked));
            assert_eq!(contact.answered(asked, false, asked + QUESTION), Standing::Alone, "{second}");
            assert!(!contact.is_due(asked + QUESTION / 2));
        }
        assert_eq!(contact.answered(after(4_000), false, after(5_000)), Standing::Lost);
        contact.received_at(after(5_100));
        contact.doubt();
        assert_eq!(contact.answered(after(5_200), false, after(6_200)), Standing::Alone, "counted anew");
    }
}
