//! Brings what lies on the topics into the books: read from Kafka here, or handed in by who has the records already.

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
    books::{Balance, Books, Place, Stamp},
    reads::Fact,
};
use crate::contract::SERVICES;

/// Reads everything up to the present ends.
pub(super) async fn read(config: &Config, patience: Duration) -> anyhow::Result<Balance> {
    let readers = Readers::new(Arc::new(RegistryClient::new(config)?));
    let system = &config.system;
    let letters = SERVICES.iter().map(|service| dead_letters(&group(system, service)));
    let events = SERVICES.iter().map(|service| topic(system, service, Channel::Events));
    let parked = SERVICES.iter().map(|service| parked_topic(system, service));
    let topics = Topics::decoded(events).and_raw(letters.chain(parked));
    let shared = Shared(Arc::new(Mutex::new(Auditor::new(system))));
    let auditor = shared.clone();
    let view = LiveView::start(config, "audit", readers, topics, shared)?;
    view.wait_until_caught_up(patience).await?;
    tokio::task::spawn_blocking(move || drop(view)).await?;
    let balance = auditor.lock().balance();
    Ok(balance)
}

/// An auditor that reads on another thread.
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
        self.lock().hear(&Seen {
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

/// One record, wherever it was read.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What its headers say, if they can be read.
    pub envelope: Option<&'a Envelope>,
    /// Its key, if it is text.
    pub key: Option<&'a str>,
    /// Its body, if its schema is known.
    pub decoded: Option<Decoded<'a>>,
    /// It has no value.
    pub is_deletion: bool,
}

/// Keeps the books from records of events topics, of dead letters and of what is parked, partition by partition in their order.
pub struct Auditor {
    books: Books,
    facts: Vocabulary<Fact>,
    /// What waits, by its topic and key.
    parked: BTreeMap<(String, String), Place>,
}

impl Auditor {
    /// An auditor of a system who has read nothing yet.
    #[must_use]
    pub fn new(system: &str) -> Self {
        Self { books: Books::default(), facts: Vocabulary::new(system), parked: BTreeMap::new() }
    }

    /// Enters a record.
    pub fn hear(&mut self, record: &Seen<'_>) {
        let books = &mut self.books;
        let place = Place { partition: record.partition, offset: record.offset };
        if record.topic.starts_with("dlq.") {
            books.unreadable(record.topic, place, "a dead letter lies here");
            return;
        }
        if record.topic.ends_with(PARKED) {
            let waits = (record.topic.to_owned(), record.key.unwrap_or_default().to_owned());
            if record.is_deletion {
                self.parked.remove(&waits);
            } else {
                self.parked.insert(waits, place);
            }
            return;
        }
        let (Some(envelope), Some(decoded), Some(key)) = (record.envelope, record.decoded, record.key) else {
            books.unreadable(record.topic, place, "no event: its headers, its key or its body cannot be read");
            return;
        };
        let content = content_of(decoded.schema.name(), key, decoded.body);
        let (id, sequence) = (envelope.id, envelope.sequence);
        books.stamp(&Stamp { topic: record.topic, place, key, id, sequence, content });
        match self.facts.read(&decoded) {
            Ok(Some(fact)) => books.enter(fact),
            Ok(None) => {}
            Err(error) => books.unreadable(record.topic, place, &format!("{}: {error}", decoded.schema.name())),
        }
    }

    /// Strikes the balance of what was entered so far.
    #[must_use]
    pub fn balance(&self) -> Balance {
        self.books.balance(self.parked.iter().map(|((topic, _), place)| (topic.as_str(), *place)))
    }
}

/// A digest of what a record says.
fn content_of(name: &str, key: &str, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, key, body).hash(&mut hasher);
    hasher.finish()
}
