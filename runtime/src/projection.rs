//! Projections: folds of topics, read from all partitions outside any consumer group.
//!
//! A projection decides nothing and writes nothing; it may be discarded and folded again at any time. This module owns the record as
//! a fold receives it, and the positions of a fold. `reader` reads records from Kafka, `holds` knows the partitions that must wait, `log_bounds` names topics that were truncated
//! or recreated, `view` folds continuously on a thread of its own, and `replay` folds beside a live view up to exact offsets.

mod holds;
mod log_bounds;
mod reader;
mod replay;
mod view;

use std::{cell::RefCell, collections::BTreeMap, fmt, sync::Arc};

use rdkafka::message::{BorrowedHeaders, Headers};
use serde::de::DeserializeOwned;

pub use replay::{ReplayError, fold_to};
pub use view::{LiveView, UndecodableRecord, ViewError, ViewHealth};

use crate::{
    codec::{DecodeError, Decoded, ReadSchema, SchemaRef},
    core::Record,
    decider::TimestampMs,
    envelope::{Envelope, EnvelopeError, Position, RecordMetadata},
    kafka::headers::envelope_of,
};

/// A fold of records. It is total: it accepts every record, in any interleaving of topics and partitions, and ignores records that
/// it does not understand.
pub trait Projection: Send + Sync + 'static {
    /// Folds one record. The records of a partition arrive in order and once per run of the view; partitions interleave in any order.
    fn apply(&mut self, record: &LogRecord<'_>);

    /// Empties itself, to be folded again from the beginning: a record that it lacks can be read now, and belongs before records
    /// that it has. Returns false if it cannot be folded again.
    fn reset(&mut self) -> bool {
        false
    }
}

/// Which topics a projection reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topics {
    decoded: Vec<String>,
    raw: Vec<String>,
}

impl Topics {
    /// Topics with their complete history and decodable bodies. Records that cannot be decoded are counted and their positions kept. A
    /// truncated topic is refused, unless the settings allow it.
    #[must_use]
    pub fn decoded<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self { decoded: topics.into_iter().map(Into::into).collect(), raw: Vec::new() }
    }

    /// Adds topics with arbitrary bodies that may be truncated, such as dead-letter topics.
    #[must_use]
    pub fn and_raw<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.raw.extend(topics.into_iter().map(Into::into));
        self
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.decoded.iter().chain(&self.raw)
    }

    fn is_raw(&self, topic: &str) -> bool {
        self.raw.iter().any(|name| name == topic)
    }
}

/// How far each partition has been read: the offset of the next record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    next: BTreeMap<Arc<str>, BTreeMap<i32, i64>>,
}

impl Positions {
    /// The offset of the next record of a partition; `None` if the partition is unknown.
    #[must_use]
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.next.get(topic)?.get(&partition).copied()
    }

    /// Sets the offset of the next record of a partition.
    pub fn set(&mut self, topic: &Arc<str>, partition: i32, next: i64) {
        if let Some(partitions) = self.next.get_mut(topic) {
            partitions.insert(partition, next);
        } else {
            self.next.insert(Arc::clone(topic), BTreeMap::from([(partition, next)]));
        }
    }

    /// Every partition with the offset of its next record, ordered.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32, i64)> {
        self.next.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |(p, next)| (topic, *p, *next)))
    }

    /// True if no partition lies behind its position in `other`.
    #[must_use]
    pub fn reach(&self, other: &Self) -> bool {
        other.iter().all(|(topic, partition, next)| self.get(topic, partition).unwrap_or(0) >= next)
    }

    /// How many offsets lie between these positions and `ends`.
    #[must_use]
    pub fn behind(&self, ends: &Self) -> i64 {
        ends.iter().map(|(topic, partition, end)| (end - self.get(topic, partition).unwrap_or(0)).max(0)).sum()
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (topic, partition, next)) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { " " };
            write!(f, "{separator}{topic}/{partition}/{next}")?;
        }
        Ok(())
    }
}

/// A record as a fold receives it.
pub struct LogRecord<'a> {
    /// Its topic.
    pub topic: &'a Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp.
    pub timestamp_ms: TimestampMs,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The raw value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Option<&'a BorrowedHeaders>,
    decoded: Option<Decoded<'a>>,
    problem: RefCell<Option<String>>,
    lacks: Option<SchemaRef>,
}

impl<'a> LogRecord<'a> {
    /// A record at a position, without content.
    #[must_use]
    pub fn new(topic: &'a Arc<str>, partition: i32, offset: i64, timestamp_ms: TimestampMs) -> Self {
        let problem = RefCell::new(None);
        Self {
            topic,
            partition,
            offset,
            timestamp_ms,
            key: None,
            value: None,
            headers: None,
            decoded: None,
            problem,
            lacks: None,
        }
    }

    /// Sets its content.
    #[must_use]
    pub fn with_content(
        self,
        key: Option<&'a [u8]>,
        headers: Option<&'a BorrowedHeaders>,
        value: Option<&'a [u8]>,
        decoded: Option<Decoded<'a>>,
    ) -> Self {
        Self { key, headers, value, decoded, ..self }
    }

    /// Its position.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(Arc::clone(self.topic), self.partition, self.offset)
    }

    /// The key, if it is text.
    #[must_use]
    pub fn key_text(&self) -> Option<&'a str> {
        self.key.and_then(|key| std::str::from_utf8(key).ok())
    }

    /// The value of a header; of several with this name, the last one's.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()?.filter(|(header, _)| *header == name).last()?.1
    }

    /// Every header, in order.
    #[must_use]
    pub fn headers(&self) -> Option<impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a>> {
        self.headers.map(|headers| headers.iter().map(|header| (header.key, header.value)))
    }

    /// The record's envelope.
    ///
    /// # Errors
    /// A header is malformed; the view counts the record as undecodable.
    pub fn envelope(&self) -> Result<Envelope, EnvelopeError> {
        let bare = RecordMetadata {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key_text(),
        };
        envelope_of(bare, self.headers).inspect_err(|e| self.note(e))
    }

    /// The schema it was written with: its full name, version and id. `None` for a tombstone, and for a body that cannot be decoded.
    #[must_use]
    pub fn schema(&self) -> Option<&'static ReadSchema> {
        self.decoded.map(|decoded| decoded.schema)
    }

    /// The Avro body, without the prefix.
    #[must_use]
    pub fn body(&self) -> Option<&'a [u8]> {
        self.decoded.map(|decoded| decoded.body)
    }

    /// The body with its schema, for readers without a struct for it.
    #[must_use]
    pub fn decoded(&self) -> Option<Decoded<'a>> {
        self.decoded
    }

    /// Reads the body into a struct that has the record's name and lists the fields it uses.
    ///
    /// # Errors
    /// There is no body, or the struct does not fit it; the view counts the record as undecodable.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let read = self.decoded.ok_or(DecodeError::NoBody).and_then(|decoded| decoded.read());
        read.inspect_err(|e| self.note(&crate::telemetry::chain(e)))
    }

    /// Passes the record to `take` in the core's form.
    pub fn with_record<T>(&self, take: impl FnOnce(&Record<'_>) -> T) -> T {
        let headers: Vec<(&str, Option<&[u8]>)> = self.headers().into_iter().flatten().collect();
        take(&Record {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key,
            value: self.value,
            headers: &headers,
        })
    }

    fn note(&self, problem: &dyn fmt::Display) {
        self.problem.borrow_mut().get_or_insert_with(|| problem.to_string());
    }

    fn take_problem(&self) -> Option<String> {
        self.problem.borrow_mut().take()
    }
}

impl fmt::Debug for LogRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.position(), self.schema())
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    fn positions(of: &[(&str, i32, i64)]) -> Positions {
        let mut positions = Positions::default();
        for (topic, partition, next) in of {
            positions.set(&Arc::from(*topic), *partition, *next);
        }
        positions
    }

    #[test]
    fn positions_compare_partition_by_partition() {
        let here = positions(&[("a", 0, 5), ("a", 1, 2)]);
        assert!(here.reach(&positions(&[("a", 0, 5)])));
        assert!(here.reach(&positions(&[("b", 0, 0)])), "an empty partition is reached");
        assert!(!here.reach(&positions(&[("a", 0, 5), ("a", 1, 3)])));
        assert_eq!(here.behind(&positions(&[("a", 0, 4), ("a", 1, 4), ("b", 7, 3)])), 5);
        assert_eq!(here.to_string(), "a/0/5 a/1/2");
    }

    #[test]
    fn a_record_returns_its_last_header_and_notes_what_cannot_be_decoded() {
        let topic: Arc<str> = "t".into();
        let header = |value| Header { key: "ce_id", value: Some(value) };
        let headers = OwnedHeaders::new().insert(header("first")).insert(header("no uuid"));
        let record =
            LogRecord::new(&topic, 1, 2, 3).with_content(Some(b"k"), Some(headers.as_borrowed()), Some(b"\x07"), None);
        assert_eq!(record.header("ce_id"), Some(b"no uuid".as_slice()));
        assert_eq!((record.key_text(), record.header("other")), (Some("k"), None));
        assert!(record.envelope().is_err());
        assert!(record.read::<()>().is_err());
        assert_eq!(record.take_problem().as_deref(), Some("header ce_id is not a UUID"));
    }
}
