//! The deliveries of a transaction's records, as the producer's callback reports them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{DeliveryResult, NoCustomPartitioner, ProducerContext},
};

use crate::kafka::ClientLog;

/// The context of a worker's transactional producer.
pub(crate) struct DeliveryTracker {
    log: ClientLog,
    events_topic: String,
    deliveries: Mutex<Deliveries>,
}

/// The deliveries of a transaction's records.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// The end of what was appended to each partition of the own log.
    pub(crate) own_ends: BTreeMap<i32, i64>,
    /// The first delivery that failed.
    pub(crate) failure: Option<Undelivered>,
}

/// A record that was not appended.
#[derive(Debug)]
pub(crate) struct Undelivered {
    pub(crate) topic: String,
    pub(crate) error: KafkaError,
}

impl DeliveryTracker {
    pub(crate) fn new(log: ClientLog, events_topic: &str) -> Self {
        Self { log, events_topic: events_topic.to_owned(), deliveries: Mutex::default() }
    }

    pub(crate) fn take(&self) -> Deliveries {
        std::mem::take(&mut self.deliveries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for DeliveryTracker {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.log.stats_raw(statistics);
    }
}

impl ProducerContext<NoCustomPartitioner> for DeliveryTracker {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let mut deliveries = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        match delivery {
            Ok(message) if message.topic() == self.events_topic => {
                let end = deliveries.own_ends.entry(message.partition()).or_default();
                *end = (*end).max(message.offset() + 1);
            }
            Ok(_) => {}
            Err((error, message)) => {
                if deliveries.failure.is_none() {
                    deliveries.failure = Some(Undelivered { topic: message.topic().to_owned(), error: error.clone() });
                }
            }
        }
    }
}
