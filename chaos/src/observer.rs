//! Observes the topics during a run: when each partition decided, which orders exist, what was dead-lettered, and the result of every
//! effect.
//!
//! The observer is a `read_committed` consumer that bypasses the proxies.

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

use crate::plan::FAULTED_SERVICES;

/// Services whose effect results are recorded in their inbox.
const WITH_EFFECTS: [&str; 2] = ["payment", "warehouse"];

/// What was observed so far.
#[derive(Debug, Default)]
pub struct Observations {
    /// The timestamp of the last event of each partition of each events topic, in milliseconds.
    decided: HashMap<Arc<str>, BTreeMap<i32, i64>>,
    /// How many events of each type were read.
    counts: HashMap<&'static str, u64>,
    /// Orders that were placed or rejected.
    pub orders: HashSet<String>,
    /// Dead letters: position and headers.
    pub dead_letters: Vec<String>,
    /// The results of each effect, by idempotency key.
    pub effect_results: BTreeMap<String, BTreeSet<&'static str>>,
}

macro_rules! outcomes {
    ($( $Name:ident { $( $Variant:ident = $text:literal ),* $(,)? } )*) => { $(
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        enum $Name { $( $Variant, )* #[serde(other)] Unknown }

        impl $Name {
            fn text(self) -> &'static str {
                match self { $( Self::$Variant => $text, )* Self::Unknown => "an unknown outcome" }
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

impl Observations {
    /// Whether every partition of this events topic has an event that was decided after `since_ms`.
    #[must_use]
    pub fn has_decided(&self, events: &str, partitions: usize, since_ms: i64) -> bool {
        let of_topic = self.decided.get(events);
        of_topic.is_some_and(|of| of.values().filter(|last| **last > since_ms).count() >= partitions)
    }

    /// How many events of this type were read.
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

    fn effect_result(&mut self, record: &LogRecord<'_>, name: &str) {
        let result = match name {
            "GatewayAnswered" => record.read::<GatewayAnswered>().map(|of| (of.request_key, of.outcome.text())),
            "CourierAnswer" => record.read::<CourierAnswer>().map(|of| (dispatch_key(&of), of.outcome.text())),
            "PickResult" => record.read::<PickResult>().map(|of| (format!("pick-{}", of.order_id), of.outcome.text())),
            _ => return,
        };
        match result {
            Ok((key, outcome)) => drop(self.effect_results.entry(key).or_default().insert(outcome)),
            Err(error) => tracing::warn!(%error, name, "an effect result cannot be read"),
        }
    }
}

/// The idempotency key of a dispatch attempt.
fn dispatch_key(answer: &CourierAnswer) -> String {
    match answer.attempt {
        1 => format!("dispatch-{}", answer.order_id),
        attempt => format!("dispatch-{}-{attempt}", answer.order_id),
    }
}

impl Projection for Observations {
    fn apply(&mut self, record: &LogRecord<'_>) {
        if record.topic.starts_with("dlq.") {
            let headers = record.headers().into_iter().flatten();
            let shown =
                headers.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.unwrap_or_default())));
            self.dead_letters.push(format!("{}: {}", record.position(), shown.collect::<Vec<_>>().join(" ")));
            return;
        }
        let Some(schema) = record.schema() else { return };
        if record.topic.ends_with(".events") {
            self.event(record, schema.name());
        } else {
            self.effect_result(record, schema.name());
        }
    }
}

/// Starts to observe a system.
///
/// # Errors
/// The client cannot be created.
pub fn start(config: &Config) -> anyhow::Result<LiveView<Observations>> {
    let readers = Readers::new(Arc::new(RegistryClient::new(config)?));
    let events = FAULTED_SERVICES.iter().map(|service| topic(&config.system, service, Channel::Events));
    let inboxes = WITH_EFFECTS.iter().map(|service| topic(&config.system, service, Channel::Inbox));
    let dead_letters = FAULTED_SERVICES.iter().map(|service| dead_letters(&group(&config.system, service)));
    let topics = Topics::decoded(events.chain(inboxes)).and_raw(dead_letters);
    LiveView::start(config, "chaos", readers, topics, Observations::default()).context("cannot observe the topics")
}
