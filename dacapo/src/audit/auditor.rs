//! Feeds records to the audit: read from Kafka here, or passed in by a caller that has them already.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::{
    codec::{Decoded, Readers, Vocabulary},
    config::Config,
    envelope::Envelope,
    kafka::{admin::dead_letters, client::group},
    message::{Channel, PARKED, parked_topic, topic},
    projection::{LiveView, LogRecord, Projection, Topics},
    registry::RegistryClient,
};

use super::{
    checks::{AuditState, EventStamp, PartitionOffset},
    reads::AuditedEvent,
    report::{AuditFinding, AuditReport, AuditRule},
};
use crate::musiccorp::SERVICES;

/// Audits the topics up to their present ends.
pub(super) async fn read(config: &Config, patience: Duration) -> anyhow::Result<AuditReport> {
    let readers = Readers::new(Arc::new(RegistryClient::new(config)?));
    let system = &config.system;
    let dead_letter_topics = SERVICES.iter().map(|service| dead_letters(&group(system, service)));
    let events = SERVICES.iter().map(|service| topic(system, service, Channel::Events));
    let parked = SERVICES.iter().map(|service| parked_topic(system, service));
    let topics = Topics::decoded(events).and_raw(dead_letter_topics.chain(parked));
    let shared = Shared(Arc::new(Mutex::new(Auditor::new(system))));
    let auditor = shared.clone();
    let view = LiveView::start(config, "audit", readers, topics, shared)?;
    view.wait_until_caught_up(patience).await?;
    let held = view.health().held;
    tokio::task::spawn_blocking(move || drop(view)).await?;
    let mut report = auditor.lock().report();
    // What lies behind it was not audited.
    report
        .findings
        .extend(held.iter().map(|piece| AuditFinding { rule: AuditRule::Readable, what: piece.to_string() }));
    Ok(report)
}

/// An auditor that a view feeds on another thread.
#[derive(Clone)]
struct Shared(Arc<Mutex<Auditor>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Auditor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Projection for Shared {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let (envelope, key, decoded) = (record.envelope().ok(), record.key_text(), record.decoded());
        self.lock().read(&AuditRecord {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            envelope: envelope.as_ref(),
            key,
            decoded,
            is_deletion: record.value.is_none(),
        });
    }
}

/// One record, from whichever source.
#[derive(Debug, Clone, Copy)]
pub struct AuditRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its headers, if they can be read.
    pub envelope: Option<&'a Envelope>,
    /// Its key, if it is text.
    pub key: Option<&'a str>,
    /// Its body, if its schema is known.
    pub decoded: Option<Decoded<'a>>,
    /// Whether it has no value.
    pub is_deletion: bool,
}

/// Audits records of events, dead-letter and parked topics. The records of a partition must come in their order.
pub struct Auditor {
    state: AuditState,
    events: Vocabulary<AuditedEvent>,
    /// Parked records, by topic and key.
    parked: BTreeMap<(String, String), PartitionOffset>,
}

impl Auditor {
    /// An auditor of a system that has read nothing yet.
    #[must_use]
    pub fn new(system: &str) -> Self {
        Self { state: AuditState::default(), events: Vocabulary::new(system), parked: BTreeMap::new() }
    }

    /// Reads one record.
    pub fn read(&mut self, record: &AuditRecord<'_>) {
        let state = &mut self.state;
        let position = PartitionOffset { partition: record.partition, offset: record.offset };
        if record.topic.starts_with("dlq.") {
            state.note_unreadable(record.topic, position, "a dead-lettered record");
            return;
        }
        if record.topic.ends_with(PARKED) {
            let parked = (record.topic.to_owned(), record.key.unwrap_or_default().to_owned());
            if record.is_deletion {
                self.parked.remove(&parked);
            } else {
                self.parked.insert(parked, position);
            }
            return;
        }
        let (Some(envelope), Some(decoded), Some(key)) = (record.envelope, record.decoded, record.key) else {
            state.note_unreadable(record.topic, position, "not an event: its headers, key or body cannot be read");
            return;
        };
        let content = content_of(decoded.schema.name(), key, decoded.body);
        let (id, sequence) = (envelope.id, envelope.sequence);
        state.check_stamp(&EventStamp { topic: record.topic, position, key, id, sequence, content });
        match self.events.read(&decoded) {
            Ok(Some(event)) => state.apply(event),
            Ok(None) => {}
            Err(error) => state.note_unreadable(record.topic, position, &format!("{}: {error}", decoded.schema.name())),
        }
    }

    /// The report on what was read so far.
    #[must_use]
    pub fn report(&self) -> AuditReport {
        self.state.report(self.parked.iter().map(|((topic, _), position)| (topic.as_str(), *position)))
    }
}

/// A digest of a record's type, key and body.
fn content_of(name: &str, key: &str, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, key, body).hash(&mut hasher);
    hasher.finish()
}
