//! What is seen on the topics while everything else goes wrong: who decided when, which orders there are, what was laid aside, and
//! what every effect was answered.
//!
//! It reads as any consumer does, `read_committed`, past the proxies.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use anyhow::Context;
use runtime::{
    Channel, Config,
    codec::Readers,
    kafka::{admin::dead_letters, client::group},
    message::topic,
    projection::{LiveView, LogRecord, Projection, Topics},
    registry::RegistryClient,
};
use serde::Deserialize;

use crate::plan::STRUCK;

/// Services whose effects are answered through their inbox.
const ANSWERED: [&str; 2] = ["payment", "warehouse"];

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// The timestamp of the last event of each partition of each events topic, in milliseconds.
    decided: HashMap<Arc<str>, BTreeMap<i32, i64>>,
    /// How often each type of event was seen.
    counts: HashMap<&'static str, u64>,
    /// Orders that were placed or rejected.
    pub orders: HashSet<String>,
    /// Dead letters: where each lies, and what it says of itself.
    pub letters: Vec<String>,
    /// What each effect was answered, by its key.
    pub answers: BTreeMap<String, BTreeSet<&'static str>>,
}

macro_rules! outcomes {
    ($( $Name:ident { $( $Variant:ident = $text:literal ),* $(,)? } )*) => { $(
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        enum $Name { $( $Variant, )* #[serde(other)] Unknown }

        impl $Name {
            fn text(self) -> &'static str {
                match self { $( Self::$Variant => $text, )* Self::Unknown => "an outcome that is not known here" }
            }
        }
    )* };
}

outcomes! {
    GatewayOutcome { Captured = "captured", Declined = "declined", Voided = "voided", Refunded = "refunded", Refused = "refused" }
    CourierOutcome { Dispatched = "dispatched", Refused = "refused", Withdrawn = "withdrawn" }
    PickOutcome { Packaged = "packaged", Missing = "missing" }
}

#[derive(Debug, Deserialize)]
struct GatewayAnswered {
    request_key: String,
    outcome: GatewayOutcome,
}

#[derive(Debug, Deserialize)]
struct CourierAnswer {
    order_id: String,
    attempt: i32,
    outcome: CourierOutcome,
}

#[derive(Debug, Deserialize)]
struct PickResult {
    order_id: String,
    outcome: PickOutcome,
}

impl Seen {
    /// Whether every partition of this service has said something that was decided after `since_ms`.
    #[must_use]
    pub fn has_decided(&self, events: &str, partitions: usize, since_ms: i64) -> bool {
        let of_topic = self.decided.get(events);
        of_topic.is_some_and(|of| of.values().filter(|last| **last > since_ms).count() >= partitions)
    }

    /// How often this type of event was seen.
    #[must_use]
    pub fn count(&self, event: &str) -> u64 {
        self.counts.get(event).copied().unwrap_or_default()
    }

    fn event(&mut self, record: &LogRecord<'_>, name: &'static str) {
        let last = self.decided.entry(Arc::clone(record.topic)).or_default().entry(record.partition).or_default();
        *last = record.timestamp_ms.max(*last);
        *self.counts.entry(name).or_default() += 1;
        if let ("OrderPlaced" | "OrderRejected", Some(order)) = (name, record.key_text()) {
            self.orders.insert(order.to_owned());
        }
    }

    fn answer(&mut self, record: &LogRecord<'_>, name: &str) {
        let answer = match name {
            "GatewayAnswered" => record.read::<GatewayAnswered>().map(|of| (of.request_key, of.outcome.text())),
            "CourierAnswer" => record.read::<CourierAnswer>().map(|of| (dispatch(&of), of.outcome.text())),
            "PickResult" => record.read::<PickResult>().map(|of| (format!("pick-{}", of.order_id), of.outcome.text())),
            _ => return,
        };
        match answer {
            Ok((key, outcome)) => drop(self.answers.entry(key).or_default().insert(outcome)),
            Err(error) => tracing::warn!(%error, name, "an answer cannot be read"),
        }
    }
}

/// The idempotency key of an attempt, as the courier knows it.
fn dispatch(answer: &CourierAnswer) -> String {
    match answer.attempt {
        1 => format!("dispatch-{}", answer.order_id),
        attempt => format!("dispatch-{}-{attempt}", answer.order_id),
    }
}

impl Projection for Seen {
    fn apply(&mut self, record: &LogRecord<'_>) {
        if record.topic.starts_with("dlq.") {
            let headers = record.headers().into_iter().flatten();
            let told =
                headers.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.unwrap_or_default())));
            self.letters.push(format!("{}: {}", record.position(), told.collect::<Vec<_>>().join(" ")));
            return;
        }
        let Some(schema) = record.schema() else { return };
        if record.topic.ends_with(".events") {
            self.event(record, schema.name());
        } else {
            self.answer(record, schema.name());
        }
    }
}

/// Starts to watch a system.
///
/// # Errors
/// The client cannot be set up.
pub fn start(config: &Config) -> anyhow::Result<LiveView<Seen>> {
    let readers = Readers::new(Arc::new(RegistryClient::new(config)?));
    let events = STRUCK.iter().map(|service| topic(&config.system, service, Channel::Events));
    let inboxes = ANSWERED.iter().map(|service| topic(&config.system, service, Channel::Inbox));
    let letters = STRUCK.iter().map(|service| dead_letters(&group(&config.system, service)));
    let topics = Topics::decoded(events.chain(inboxes)).and_raw(letters);
    LiveView::start(config, "chaos", readers, topics, Seen::default()).context("cannot watch the topics")
}
