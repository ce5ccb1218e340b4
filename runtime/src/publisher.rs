//! Publishes typed records in batches, outside transactions: commands of HTTP APIs and operators, answers of effects, events of
//! external services, events of a service without a decider.
//!
//! A batch has one acknowledgement; no record has a future of its own. An error states for every record whether it was acknowledged,
//! refused, or has an unknown outcome. Write permissions are checked here: only its owner writes to an events topic, and a service
//! writes to no inbox but its own.

mod delivery;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    error::KafkaError,
    producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use uuid::Uuid;

use self::delivery::{BatchDelivery, DeliveryReports, RecordSlot};
use crate::{
    clock,
    codec::{CodecError, Writers},
    config::Config,
    decider::TimestampMs,
    envelope::{self, Envelope, Position},
    kafka::{
        client::{self, ClientLog},
        headers::to_headers,
    },
    message::{Channel, PARKED, Written, topic},
    unreadable::OPERATOR,
};

/// The most records of one batch.
pub const MAX_BATCH: usize = 10_000;
/// The largest body. Records carry facts, not files.
pub const MAX_BODY_BYTES: usize = 256 << 10;
/// The longest key.
pub const MAX_KEY_BYTES: usize = 512;

/// On whose behalf a publisher writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The configured service: its own events topic, its own inbox, and topics without an owner.
    Service,
    /// An operator: every inbox, the topic of operators' decisions, and topics without an owner.
    Operator,
}

/// A typed record to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing<M> {
    /// The entity it is about.
    pub key: String,
    /// The record.
    pub message: M,
    /// Its id; by default a new one. Derive it from what the record represents, so that a repeated publication is recognised as the
    /// same record.
    pub id: Option<Uuid>,
    /// The saga it belongs to; by default the key.
    pub correlation_id: Option<String>,
    /// The record that caused it.
    pub causation_id: Option<Uuid>,
    /// When it happened; by default now.
    pub time_ms: Option<TimestampMs>,
    /// The topic, if it is not the record type's own: for events that no service owns.
    pub topic: Option<String>,
}

impl<M> Outgoing<M> {
    /// A record about the entity `key`.
    pub fn new(key: impl Into<String>, message: impl Into<M>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            id: None,
            correlation_id: None,
            causation_id: None,
            time_ms: None,
            topic: None,
        }
    }

    /// Sets its id.
    #[must_use]
    pub fn with_id(self, id: Uuid) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Sets its saga.
    #[must_use]
    pub fn correlated(self, correlation_id: impl Into<String>) -> Self {
        Self { correlation_id: Some(correlation_id.into()), ..self }
    }

    /// Sets its cause.
    #[must_use]
    pub fn caused_by(self, causation_id: Uuid) -> Self {
        Self { causation_id: Some(causation_id), ..self }
    }

    /// Sets when it happened.
    #[must_use]
    pub fn at(self, time_ms: TimestampMs) -> Self {
        Self { time_ms: Some(time_ms), ..self }
    }

    /// Sets a topic that no service owns.
    #[must_use]
    pub fn on(self, topic: impl Into<String>) -> Self {
        Self { topic: Some(topic.into()), ..self }
    }
}

/// An encoded record, ready to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRecord {
    /// The topic.
    pub topic: String,
    /// The entity it is about.
    pub key: String,
    /// The framed body.
    pub value: Vec<u8>,
    /// Its envelope.
    pub envelope: Envelope,
}

/// The outcome of one record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It was written at this position.
    Acknowledged(Position),
    /// It was not written, for this reason.
    Refused(String),
    /// No acknowledgement arrived: it may have been written or not. Publish it again with the same id.
    Unknown,
}

/// A batch that was not published completely.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The client cannot be created.
    #[error("cannot set up a kafka producer; hint: look at the [kafka] table")]
    Setup {
        /// The cause.
        source: Box<KafkaError>,
    },
    /// The publisher may not write to the topic. Nothing of the batch was sent.
    #[error("{who} may not write to {topic}: {rule}")]
    NotPermitted {
        /// The service or operator.
        who: String,
        /// The topic.
        topic: String,
        /// The rule.
        rule: &'static str,
    },
    /// A record cannot be sent as it is. Nothing of the batch was sent.
    #[error("record {index} of the batch cannot be sent: {problem}")]
    Unsendable {
        /// Its index in the batch.
        index: usize,
        /// The cause.
        problem: String,
    },
    /// A record does not fit its schema. Nothing of the batch was sent.
    #[error("record {index} of the batch does not fit its schema")]
    Body {
        /// Its index in the batch.
        index: usize,
        /// The cause.
        source: CodecError,
    },
    /// Some records were not acknowledged.
    #[error("{}", tally(.outcomes))]
    Incomplete {
        /// The outcome of each record, in the order of the batch.
        outcomes: Vec<DeliveryOutcome>,
    },
}

fn tally(outcomes: &[DeliveryOutcome]) -> String {
    let acknowledged = outcomes.iter().filter(|o| matches!(o, DeliveryOutcome::Acknowledged(_))).count();
    let unknown = outcomes.iter().filter(|o| matches!(o, DeliveryOutcome::Unknown)).count();
    let refused: Vec<&String> = outcomes
        .iter()
        .filter_map(|o| if let DeliveryOutcome::Refused(reason) = o { Some(reason) } else { None })
        .collect();
    let why = refused.first().map_or(String::new(), |reason| format!(", the first because: {reason}"));
    format!(
        "{acknowledged} of {} records were acknowledged, {unknown} are unknown, {} were refused{why}",
        outcomes.len(),
        refused.len()
    )
}

impl PublishError {
    /// True if publishing the other records again, with the same ids, may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Incomplete { outcomes } => !outcomes.iter().any(|o| matches!(o, DeliveryOutcome::Refused(_))),
            _ => false,
        }
    }
}

/// Publishes batches. Clones share the producer.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    authority: Authority,
    writers: Writers,
    source: Arc<str>,
    build: Arc<str>,
    producer: Mutex<Arc<Producer>>,
}

type Producer = ThreadedProducer<DeliveryReports>;

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publisher({:?} {})", self.shared.authority, self.shared.source)
    }
}

impl Publisher {
    /// A publisher on behalf of the configured service or of an operator.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(config: &Config, authority: Authority, writers: Writers) -> Result<Self, PublishError> {
        let producer = Mutex::new(Arc::new(create_producer(config)?));
        let source = envelope::source(&config.system, &config.service);
        let build = crate::telemetry::build();
        let config = config.clone();
        Ok(Self { shared: Arc::new(Shared { config, authority, writers, source, build, producer }) })
    }

    /// Publishes a batch and waits, at most `patience`, until all of it is acknowledged. Returns the position of each record.
    ///
    /// # Errors
    /// [`PublishError`]: either nothing was sent, or it has the outcome of each record.
    pub async fn publish<M: Written>(
        &self,
        batch: impl IntoIterator<Item = Outgoing<M>>,
        patience: Duration,
    ) -> Result<Vec<Position>, PublishError> {
        self.send(self.encode(batch)?, patience).await
    }

    /// The same, for a thread without an async runtime.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn publish_blocking<M: Written>(
        &self,
        batch: impl IntoIterator<Item = Outgoing<M>>,
        patience: Duration,
    ) -> Result<Vec<Position>, PublishError> {
        self.send_blocking(&self.encode(batch)?, patience)
    }

    /// Encodes a batch without sending it.
    ///
    /// # Errors
    /// A record cannot be sent as it is.
    pub fn encode<M: Written>(
        &self,
        batch: impl IntoIterator<Item = Outgoing<M>>,
    ) -> Result<Vec<EncodedRecord>, PublishError> {
        batch.into_iter().enumerate().map(|(index, outgoing)| self.encode_one(index, outgoing)).collect()
    }

    fn encode_one<M: Written>(&self, index: usize, outgoing: Outgoing<M>) -> Result<EncodedRecord, PublishError> {
        let mut value = Vec::new();
        let encoded = self.shared.writers.encode(&outgoing.message, &mut value);
        let full_name = encoded.map_err(|source| PublishError::Body { index, source })?;
        let record = outgoing.message.record();
        // Records of the owner `runtime` travel on the inbox of the service that requested them.
        let owner = if record.owner == "runtime" { self.shared.config.service.as_str() } else { record.owner };
        let time_ms = outgoing.time_ms.unwrap_or_else(clock::now_ms);
        let id = outgoing.id.unwrap_or_else(Uuid::now_v7);
        let mut envelope = Envelope::new(id, Arc::clone(&self.shared.source), Arc::clone(full_name), time_ms)
            .about(outgoing.key.as_str())
            .correlated(outgoing.correlation_id.unwrap_or_else(|| outgoing.key.clone()));
        envelope.causation_id = outgoing.causation_id;
        envelope.build = Some(Arc::clone(&self.shared.build));
        let topic = outgoing.topic.unwrap_or_else(|| topic(&self.shared.config.system, owner, record.channel));
        Ok(EncodedRecord { topic, key: outgoing.key, value, envelope })
    }

    /// Publishes a batch of encoded records.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn send(&self, batch: Vec<EncodedRecord>, patience: Duration) -> Result<Vec<Position>, PublishError> {
        let deadline = Instant::now() + patience;
        self.check(&batch)?;
        let (producer, delivery) = (self.producer(), BatchDelivery::of(batch.len()));
        let mut next = 0;
        while next < batch.len() {
            next = enqueue(&producer, &batch, next, &delivery);
            if next < batch.len() {
                if Instant::now() >= deadline {
                    break;
                }
                // The producer's queue is full until records of this batch or another one are delivered.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        delivery.refuse_from(next);
        let left = deadline.saturating_duration_since(Instant::now());
        let is_done = tokio::time::timeout(left, delivery.done()).await.is_ok();
        self.close(&producer, &delivery, is_done)
    }

    /// The same, for a thread without an async runtime.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn send_blocking(&self, batch: &[EncodedRecord], patience: Duration) -> Result<Vec<Position>, PublishError> {
        let deadline = Instant::now() + patience;
        self.check(batch)?;
        let (producer, delivery) = (self.producer(), BatchDelivery::of(batch.len()));
        let mut next = 0;
        while next < batch.len() {
            next = enqueue(&producer, batch, next, &delivery);
            if next < batch.len() {
                if Instant::now() >= deadline {
                    break;
                }
                delivery.wait_for_progress(Duration::from_millis(2));
            }
        }
        delivery.refuse_from(next);
        let is_done = delivery.wait_until_done(deadline);
        self.close(&producer, &delivery, is_done)
    }

    /// The producer. One that had a fatal error since the last batch is replaced first: it would refuse every record.
    fn producer(&self) -> Arc<Producer> {
        let current = || Arc::clone(&self.shared.producer.lock().unwrap_or_else(PoisonError::into_inner));
        let producer = current();
        if producer.client().fatal_error().is_none() {
            return producer;
        }
        self.replace(&producer);
        current()
    }

    /// Returns a batch's outcome. An incomplete batch discards its producer: records still in its queue must not be written after the
    /// caller has learnt that they are unknown and has published them again.
    fn close(
        &self,
        producer: &Arc<Producer>,
        delivery: &BatchDelivery,
        done: bool,
    ) -> Result<Vec<Position>, PublishError> {
        if !done {
            self.replace(producer);
        }
        let outcomes = delivery.outcomes();
        let positions: Vec<Position> = outcomes
            .iter()
            .filter_map(|o| if let DeliveryOutcome::Acknowledged(position) = o { Some(position.clone()) } else { None })
            .collect();
        if positions.len() == outcomes.len() { Ok(positions) } else { Err(PublishError::Incomplete { outcomes }) }
    }

    fn replace(&self, old: &Arc<Producer>) {
        let mut current = self.shared.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, old) {
            return;
        }
        if let Some((code, reason)) = old.client().fatal_error() {
            tracing::warn!(%code, reason, "a producer cannot continue and is replaced");
        }
        old.purge(PurgeConfig::default().queue().inflight());
        match create_producer(&self.shared.config) {
            Ok(fresh) => {
                let old = std::mem::replace(&mut *current, Arc::new(fresh));
                // Dropping it waits for its last delivery reports.
                let spawned = std::thread::Builder::new().name("producer-drop".to_owned()).spawn(move || drop(old));
                if let Err(e) = spawned {
                    tracing::warn!("no thread to drop a producer on: {e}");
                }
            }
            Err(e) => tracing::error!(error = %e, "the producer could not be replaced"),
        }
    }

    fn check(&self, batch: &[EncodedRecord]) -> Result<(), PublishError> {
        if batch.len() > MAX_BATCH {
            let problem = format!("a batch has at most {MAX_BATCH} records");
            return Err(PublishError::Unsendable { index: MAX_BATCH, problem });
        }
        for (index, record) in batch.iter().enumerate() {
            self.check_topic(&record.topic)?;
            if let Some(problem) = problem_of(record) {
                return Err(PublishError::Unsendable { index, problem });
            }
        }
        Ok(())
    }

    fn check_topic(&self, name: &str) -> Result<(), PublishError> {
        let Shared { config, authority, .. } = &*self.shared;
        let refused = |rule| {
            let who = match authority {
                Authority::Service => config.service.clone(),
                Authority::Operator => "an operator".to_owned(),
            };
            Err(PublishError::NotPermitted { who, topic: name.to_owned(), rule })
        };
        let is_of_system = name.strip_prefix(&config.system).is_some_and(|rest| rest.starts_with('.'));
        if is_of_system && name.ends_with(PARKED) {
            return refused("a parked topic is written by the worker that owns its partition only");
        }
        let Some((owner, channel)) = owner_of(&config.system, name) else { return Ok(()) };
        let is_own = *authority == Authority::Service && owner == config.service;
        match (channel, authority) {
            (Channel::Events | Channel::State, _) if is_own => Ok(()),
            (Channel::Events, Authority::Operator) if owner == OPERATOR => Ok(()),
            (Channel::Events, _) => refused("an events topic is written by its owner only"),
            (Channel::State, _) => refused("a state topic is written by its owner only"),
            (Channel::Inbox, Authority::Operator) => Ok(()),
            (Channel::Inbox, Authority::Service) if is_own => Ok(()),
            (Channel::Inbox, Authority::Service) => refused("a service writes to no inbox but its own"),
        }
    }
}

/// The service that owns a topic in a system, by the topic's name.
fn owner_of<'a>(system: &str, topic: &'a str) -> Option<(&'a str, Channel)> {
    let (owner, channel) = topic.strip_prefix(system)?.strip_prefix('.')?.rsplit_once('.')?;
    Some((owner, Channel::of_name(channel)?))
}

fn problem_of(record: &EncodedRecord) -> Option<String> {
    if record.key.is_empty() {
        return Some("it has no key".to_owned());
    }
    if record.key.len() > MAX_KEY_BYTES {
        return Some(format!("its key is longer than {MAX_KEY_BYTES} bytes"));
    }
    if record.key.chars().any(char::is_control) {
        return Some("its key has control characters in it".to_owned());
    }
    if record.envelope.correlation_id.len() > envelope::MAX_VALUE_BYTES {
        return Some(format!("its correlation id is longer than {} bytes", envelope::MAX_VALUE_BYTES));
    }
    if record.value.len() > MAX_BODY_BYTES {
        return Some(format!("its body has {} bytes, more than {MAX_BODY_BYTES}", record.value.len()));
    }
    None
}

fn create_producer(config: &Config) -> Result<Producer, PublishError> {
    let context = DeliveryReports(ClientLog::new(format!("publisher of {}", config.service)));
    client::idempotent_producer(config, "publisher")
        .create_with_context(context)
        .map_err(|source| PublishError::Setup { source: Box::new(source) })
}

/// Enqueues records with the producer until its queue is full. Returns the index of the first record that was not enqueued.
fn enqueue(producer: &Producer, batch: &[EncodedRecord], from: usize, delivery: &Arc<BatchDelivery>) -> usize {
    for (index, record) in batch.iter().enumerate().skip(from) {
        let opaque = Box::new(RecordSlot { delivery: Arc::clone(delivery), index });
        let message = BaseRecord::with_opaque_to(&record.topic, opaque)
            .key(&record.key)
            .payload(&record.value)
            .timestamp(record.envelope.time_ms)
            .headers(to_headers(&record.envelope));
        match producer.send(message) {
            Ok(()) => {}
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => return index,
            Err((error, _)) => delivery.settle(index, DeliveryOutcome::Refused(error.to_string())),
        }
    }
    batch.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(authority: Authority) -> Publisher {
        let config = Config::for_tests().for_service("payment");
        let writers = Writers::with_ids("musiccorp", &[], |_, _| Ok(1)).expect("no records");
        Publisher::new(&config, authority, writers).expect("a publisher")
    }

    fn ready(topic: &str, key: &str) -> EncodedRecord {
        let envelope = Envelope::new(Uuid::nil(), "/x/y", "com.x.Y", 0).about(key).correlated(key);
        EncodedRecord { topic: topic.to_owned(), key: key.to_owned(), value: vec![0, 0, 0, 0, 1], envelope }
    }

    #[test]
    fn a_service_writes_to_its_own_topics_only() {
        let service = publisher(Authority::Service);
        for ours in ["musiccorp.payment.events", "musiccorp.payment.inbox", "partner.events", "acme.payment.events"] {
            assert!(service.check(&[ready(ours, "k")]).is_ok(), "{ours}");
        }
        for theirs in [
            "musiccorp.warehouse.events",
            "musiccorp.warehouse.inbox",
            "musiccorp.projector.state",
            "musiccorp.payment.parked",
        ] {
            assert!(matches!(service.check(&[ready(theirs, "k")]), Err(PublishError::NotPermitted { .. })), "{theirs}");
        }
    }

    #[test]
    fn an_operator_writes_to_inboxes_but_to_no_events_topic() {
        let operator = publisher(Authority::Operator);
        assert!(operator.check(&[ready("musiccorp.warehouse.inbox", "k")]).is_ok());
        assert!(operator.check(&[ready("musiccorp.payment.events", "k")]).is_err());
        assert!(operator.check(&[ready("musiccorp.projector.state", "k")]).is_err());
        assert!(operator.check(&[ready("musiccorp.payment.parked", "k")]).is_err());
        assert!(operator.check(&[ready("partner.parked", "k")]).is_ok());
    }

    #[test]
    fn an_unsendable_record_is_refused_before_any_is_sent() {
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        for key in ["", "a\nb", &long] {
            let batch = [ready("musiccorp.payment.inbox", "fine"), ready("musiccorp.payment.inbox", key)];
            let error = publisher(Authority::Service).check(&batch).expect_err(key);
            assert!(matches!(error, PublishError::Unsendable { index: 1, .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn without_a_broker_every_outcome_is_unknown_at_the_deadline() {
        let batch = vec![ready("musiccorp.payment.inbox", "a"), ready("musiccorp.payment.inbox", "b")];
        let publisher = publisher(Authority::Service);
        let before = publisher.producer();
        let error = publisher.send(batch, Duration::from_millis(50)).await.expect_err("no broker");
        assert!(error.is_transient());
        assert_eq!(error.to_string(), "0 of 2 records were acknowledged, 2 are unknown, 0 were refused");
        assert!(!Arc::ptr_eq(&before, &publisher.producer()), "the producer with the unsent records was kept");
    }
}
