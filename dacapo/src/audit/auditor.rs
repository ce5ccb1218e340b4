//! Brings what lies on the topics into the books.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::{
    codec::{Readers, Vocabulary},
    config::Config,
    kafka::{admin::dead_letters, client::group},
    message::{Channel, topic},
    projection::{LogRecord, Projection, Topics, View},
    registry::Registry,
};

use super::{
    books::{Balance, Books, Place, Stamp},
    reads::Fact,
};
use crate::contract::SERVICES;

/// Reads everything up to the present ends.
pub(super) async fn read(config: &Config, patience: Duration) -> anyhow::Result<Balance> {
    let readers = Readers::new(Arc::new(Registry::new(config)?));
    let system = &config.system;
    let letters = SERVICES.iter().map(|service| dead_letters(&group(system, service)));
    let events = SERVICES.iter().map(|service| topic(system, service, Channel::Events));
    let topics = Topics::decoded(events).and_raw(letters);
    let auditor = Auditor { books: Arc::default(), facts: Vocabulary::new(system) };
    let books = Arc::clone(&auditor.books);
    let view = View::start(config, "audit", readers, topics, auditor)?;
    view.wait_until_caught_up(patience).await?;
    tokio::task::spawn_blocking(move || drop(view)).await?;
    let books = std::mem::take(&mut *lock(&books));
    Ok(books.balance())
}

struct Auditor {
    books: Arc<Mutex<Books>>,
    facts: Vocabulary<Fact>,
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Projection for Auditor {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let mut books = lock(&self.books);
        let place = Place { partition: record.partition, offset: record.offset };
        if record.topic.starts_with("dlq.") {
            books.unreadable(record.topic, place, "a dead letter lies here");
            return;
        }
        let (Ok(envelope), Some(decoded), Some(key)) = (record.envelope(), record.decoded(), record.key_text()) else {
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
}

/// A digest of what a record says.
fn content_of(name: &str, key: &str, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, key, body).hash(&mut hasher);
    hasher.finish()
}
