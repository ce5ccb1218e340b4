//! Parked records: failed records, and later records of the same entity, which wait behind a failed one.
//!
//! The service's parked topic has a parked record under its position as the key, with its bytes, its headers and the failure. A
//! tombstone removes it. The topic is the source of truth: the next owner of a partition folds it and has the same parked
//! records. The first record of an entity is the one that failed; the others wait behind it in the order in which they arrived. A
//! dead letter has only a tombstone: nothing waits, and its position shows how far the input was received if the group loses its
//! offsets. This module has the format of these records and the bounds; the task decides when a record is parked or retried.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use crate::{
    Record,
    decider::TimestampMs,
    envelope::{Position, header},
    time,
};

crate::produces! {
    /// An operator's command about a parked record. It enters through the inbox of the service, under the key of the entity.
    pub enum ParkingCommand in "../schemas" {
        inbox of "runtime" { RetryParked = 1, DropParked = 1 }
    }
}

/// An operator retries a parked record, and then the records that wait behind it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RetryParked {
    /// The original position of the record.
    pub position: String,
    /// The operator.
    pub by: String,
}

/// An operator drops a parked record: it is never processed, and the records behind it continue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DropParked {
    /// The original position of the record.
    pub position: String,
    /// The operator.
    pub by: String,
    /// The operator's reason, for a person.
    pub reason: String,
}

/// How much may be parked in one partition. The partition's owner keeps parked records in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkingLimits {
    /// The number of records.
    pub records: usize,
    /// The bytes of their keys, values and headers.
    pub bytes: usize,
}

impl Default for ParkingLimits {
    fn default() -> Self {
        Self { records: 10_000, bytes: 16 << 20 }
    }
}

/// How many parked records one batch processes, so that a transaction does not delay its readers for long.
pub(crate) const MAX_DRAINED: usize = 500;

/// How often a record fails before it is parked. A few failures pass after a restart or with a new state.
pub const MAX_CRASHES: u32 = 5;

/// The most bytes that the headers of a failure add to a parked record, in UTF-8. A record is parked only with room for them: each
/// record that is parked may fail when its turn comes, and must then be parked again.
pub(crate) const FAILURE_BYTES: usize = 2_048;

type Header = (String, Option<Vec<u8>>);

/// Why a record cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFailure {
    /// The kind, one word for tables.
    pub class: String,
    /// What is wrong.
    pub reason: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time of the last attempt.
    pub at_ms: TimestampMs,
}

/// A record that waits until an operator acts, or behind such a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRecord {
    /// Its original position.
    pub position: Position,
    /// The entity that it is about.
    pub entity: Arc<str>,
    /// Its rank: the record of an entity with the lowest rank is the first.
    pub number: u64,
    /// Why it cannot be processed; `None` if it waits behind a record that cannot.
    pub failure: Option<RecordFailure>,
    /// Its timestamp.
    pub timestamp_ms: TimestampMs,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}

/// A record that is no longer parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedRecord {
    /// Its original position.
    pub position: Position,
    /// True if it was dropped, false if it was processed.
    pub dropped: bool,
    /// The operator, with the reason if the record was dropped.
    pub words: String,
}

/// The meaning of a record on a parked topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkingUpdate {
    /// The record is parked. It replaces an earlier update of the same position.
    Parked(ParkedRecord),
    /// The record is no longer parked, or never was because it was dead-lettered.
    Released(ReleasedRecord),
}

/// A record on a parked topic that is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a parked record: {0}")]
pub struct MalformedParkedRecord(String);

impl ParkedRecord {
    /// A record to park. The rank is set when it is parked.
    pub(crate) fn of(record: &Record<'_>, entity: Arc<str>, failure: Option<RecordFailure>) -> Self {
        Self {
            position: record.position(),
            entity,
            number: 0,
            failure,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }

    /// Passes the record to `take` as it was received.
    pub fn with_record<T>(&self, take: impl FnOnce(&Record<'_>) -> T) -> T {
        let headers: Vec<(&str, Option<&[u8]>)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        take(&Record {
            topic: &self.position.topic,
            partition: self.position.partition,
            offset: self.position.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        })
    }

    /// Its headers on the parked topic, without those of its failure: the original ones, and then those of the runtime. One of the
    /// latter has the number of original headers, so that a reader can separate them.
    pub(crate) fn headers_on_topic(&self, system: &str, group: &str) -> Vec<Header> {
        let kafka = |name: &str, value: String| (format!("__dlq.errors.{name}"), Some(value.into_bytes()));
        let own = |name: &str, value: String| (format!("{system}.{name}"), Some(value.into_bytes()));
        let mut headers = self.headers.clone();
        headers.extend([
            kafka("topic", self.position.topic.to_string()),
            kafka("partition", self.position.partition.to_string()),
            kafka("offset", self.position.offset.to_string()),
            kafka("group", group.to_owned()),
            own(name::ENTITY, self.entity.to_string()),
            own(name::NUMBER, self.number.to_string()),
            own(name::HEADERS, self.headers.len().to_string()),
        ]);
        if let Some(key) = &self.key {
            headers.push((format!("{system}.{}", name::KEY), Some(key.clone())));
        }
        if self.value.is_none() {
            headers.push(own(name::NO_VALUE, "true".to_owned()));
        }
        headers
    }

    /// The headers that its failure adds on the parked topic. They take at most [`FAILURE_BYTES`].
    pub(crate) fn failure_headers(&self, system: &str) -> Vec<Header> {
        let Some(failure) = &self.failure else { return Vec::new() };
        let kafka = |name: &str, value: String| (format!("__dlq.errors.{name}"), Some(value.into_bytes()));
        let own = |name: &str, value: String| (format!("{system}.{name}"), Some(value.into_bytes()));
        vec![
            kafka("delivery.count", failure.attempts.to_string()),
            kafka("message", failure.reason.clone()),
            own(name::CLASS, failure.class.clone()),
            own(name::TIME, time::rfc3339(failure.at_ms)),
        ]
    }

    fn read(system: &str, position: Position, record: &Record<'_>) -> Result<Self, MalformedParkedRecord> {
        let own = OwnHeaders { system, headers: record.headers };
        let missing = |what: &str| MalformedParkedRecord(format!("it has no {what}"));
        let count: usize = own.number(name::HEADERS).ok_or_else(|| missing("count of headers"))?;
        let original = record.headers.get(..count).ok_or_else(|| missing("original headers"))?;
        let failure = own.text(name::CLASS).map(|class| RecordFailure {
            class: class.to_owned(),
            reason: own.kafka("message").unwrap_or_default().to_owned(),
            attempts: own.kafka("delivery.count").and_then(|count| count.parse().ok()).unwrap_or(1),
            at_ms: own.text(name::TIME).and_then(time::parse_rfc3339).unwrap_or(record.timestamp_ms),
        });
        Ok(Self {
            position,
            entity: own.text(name::ENTITY).ok_or_else(|| missing("entity"))?.into(),
            number: own.number(name::NUMBER).ok_or_else(|| missing("rank"))?,
            failure,
            timestamp_ms: record.timestamp_ms,
            key: own.bytes(name::KEY).map(<[u8]>::to_vec),
            value: record.value.filter(|_| own.text(name::NO_VALUE).is_none()).map(<[u8]>::to_vec),
            headers: original.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect(),
        })
    }

    /// The saga that it belongs to: its header, or its entity if the header is missing.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        let id = self.last_header(header::CORRELATION_ID).and_then(|value| std::str::from_utf8(value).ok());
        id.filter(|id| !id.is_empty()).unwrap_or(&self.entity)
    }

    /// Its record type, if its headers have it.
    #[must_use]
    pub fn type_name(&self) -> Option<&str> {
        self.last_header(header::TYPE).and_then(|value| std::str::from_utf8(value).ok())
    }

    fn id(&self) -> Option<Uuid> {
        self.last_header(header::ID).and_then(|value| Uuid::try_parse_ascii(value).ok())
    }

    fn last_header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(found, _)| found == name).and_then(|(_, value)| value.as_deref())
    }

    fn size(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        self.entity.len() + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

impl ParkingUpdate {
    /// Reads a record of a parked topic of `system`.
    ///
    /// # Errors
    /// It is malformed.
    pub fn read(system: &str, record: &Record<'_>) -> Result<Self, MalformedParkedRecord> {
        let position: Position = record
            .key_text()
            .and_then(|key| key.parse().ok())
            .ok_or_else(|| MalformedParkedRecord("its key is not a position".into()))?;
        if record.value.is_some() {
            return ParkedRecord::read(system, position, record).map(Self::Parked);
        }
        let own = OwnHeaders { system, headers: record.headers };
        let words = own.text(name::WORDS).unwrap_or_default().to_owned();
        Ok(Self::Released(ReleasedRecord { position, dropped: own.text(name::OUTCOME) == Some(name::DROPPED), words }))
    }
}

/// The headers of a dead letter's tombstone.
pub(crate) fn headers_of_dead_letter(system: &str, now_ms: TimestampMs) -> Vec<Header> {
    let own = |name: &str, value: String| (format!("{system}.{name}"), Some(value.into_bytes()));
    vec![own(name::OUTCOME, name::DEAD_LETTERED.to_owned()), own(name::TIME, time::rfc3339(now_ms))]
}

impl ReleasedRecord {
    pub(crate) fn headers_on_topic(
        &self,
        system: &str,
        parked: &ParkedRecord,
        command: Uuid,
        now_ms: TimestampMs,
    ) -> Vec<Header> {
        let own = |name: &str, value: String| (format!("{system}.{name}"), Some(value.into_bytes()));
        let outcome = if self.dropped { name::DROPPED } else { name::HANDLED };
        vec![
            own(name::ENTITY, parked.entity.to_string()),
            own(name::OUTCOME, outcome.to_owned()),
            own(name::WORDS, self.words.clone()),
            own(name::COMMAND, command.to_string()),
            own(name::TIME, time::rfc3339(now_ms)),
        ]
    }
}

/// The names of the runtime's own headers, behind the system's name.
mod name {
    pub(super) const ENTITY: &str = "parked.entity";
    pub(super) const NUMBER: &str = "parked.number";
    pub(super) const HEADERS: &str = "parked.headers";
    pub(super) const KEY: &str = "parked.key";
    pub(super) const NO_VALUE: &str = "parked.novalue";
    pub(super) const OUTCOME: &str = "parked.outcome";
    pub(super) const HANDLED: &str = "handled";
    pub(super) const DROPPED: &str = "dropped";
    pub(super) const DEAD_LETTERED: &str = "dead-lettered";
    pub(super) const WORDS: &str = "parked.words";
    pub(super) const COMMAND: &str = "parked.command";
    pub(super) const CLASS: &str = "errors.class";
    pub(super) const TIME: &str = "errors.time";
}

/// The runtime's own headers on a record. The original headers may have the same names, so the last one counts.
struct OwnHeaders<'a> {
    system: &'a str,
    headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> OwnHeaders<'a> {
    fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        let is_named =
            |found: &str| found.strip_prefix(self.system).and_then(|rest| rest.strip_prefix('.')) == Some(name);
        self.headers.iter().rev().find(|(found, _)| is_named(found)).and_then(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.bytes(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    fn kafka(&self, name: &str) -> Option<&'a str> {
        let is_named = |found: &str| found.strip_prefix("__dlq.errors.") == Some(name);
        let found = self.headers.iter().rev().find(|(found, _)| is_named(found));
        found.and_then(|(_, value)| std::str::from_utf8((*value)?).ok())
    }
}

/// The parked records of one partition.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    queues: BTreeMap<Arc<str>, Queue>,
    /// Entities whose first record may be processed, because the record before it is no longer parked.
    ready: BTreeSet<Arc<str>>,
    positions: BTreeMap<Position, (Arc<str>, u64)>,
    next: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    records: BTreeMap<u64, ParkedRecord>,
    ids: BTreeSet<Uuid>,
}

impl Parking {
    pub(crate) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn entities(&self) -> impl Iterator<Item = &Arc<str>> {
        self.queues.keys()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &ParkedRecord> {
        self.queues.values().flat_map(|queue| queue.records.values())
    }

    pub(crate) fn holds(&self, position: &Position) -> bool {
        self.positions.contains_key(position)
    }

    pub(crate) fn has(&self, entity: &str) -> bool {
        self.queues.contains_key(entity)
    }

    /// True if a record of this entity with this id is parked already.
    pub(crate) fn has_id(&self, entity: &str, id: Uuid) -> bool {
        self.queues.get(entity).is_some_and(|queue| queue.ids.contains(&id))
    }

    pub(crate) fn get(&self, position: &Position) -> Option<&ParkedRecord> {
        let (entity, number) = self.positions.get(position)?;
        self.queues.get(entity)?.records.get(number)
    }

    /// An entity whose first record may be processed, if there is one.
    pub(crate) fn ready(&self) -> Option<&Arc<str>> {
        self.ready.first()
    }

    /// The parked records of an entity, in their order.
    pub(crate) fn queue(&self, entity: &str) -> impl Iterator<Item = &ParkedRecord> {
        self.queues.get(entity).into_iter().flat_map(|queue| queue.records.values())
    }

    /// The record that the other parked records of an entity wait behind.
    pub(crate) fn first(&self, entity: &str) -> Option<&ParkedRecord> {
        self.queues.get(entity)?.records.first_key_value().map(|(_, parked)| parked)
    }

    /// True if one more record is within the limits.
    pub(crate) fn has_room(&self, parked: &ParkedRecord, limits: ParkingLimits) -> bool {
        self.len() < limits.records && self.bytes + parked.size() <= limits.bytes
    }

    /// The rank of the record from this position. A parked record keeps its rank; a new one comes last.
    pub(crate) fn rank_of(&self, position: &Position) -> u64 {
        self.positions.get(position).map_or(self.next, |(_, number)| *number)
    }

    /// Adds a record under its rank. It replaces an earlier one from the same position.
    pub(crate) fn put(&mut self, parked: ParkedRecord) {
        self.remove(&parked.position);
        self.next = self.next.max(parked.number + 1);
        self.bytes += parked.size();
        self.positions.insert(parked.position.clone(), (Arc::clone(&parked.entity), parked.number));
        let queue = self.queues.entry(Arc::clone(&parked.entity)).or_default();
        queue.ids.extend(parked.id());
        let entity = Arc::clone(&parked.entity);
        queue.records.insert(parked.number, parked);
        self.update_ready(entity);
    }

    fn update_ready(&mut self, entity: Arc<str>) {
        if self.first(&entity).is_some_and(|first| first.failure.is_none()) {
            self.ready.insert(entity);
        } else {
            self.ready.remove(&entity);
        }
    }

    pub(crate) fn remove(&mut self, position: &Position) -> Option<ParkedRecord> {
        let (entity, number) = self.positions.remove(position)?;
        let queue = self.queues.get_mut(&entity)?;
        let parked = queue.records.remove(&number)?;
        if let Some(id) = parked.id() {
            queue.ids.remove(&id);
        }
        if queue.records.is_empty() {
            self.queues.remove(&entity);
        }
        self.bytes = self.bytes.saturating_sub(parked.size());
        self.update_ready(entity);
        Some(parked)
    }

    /// Folds one record of the parked topic.
    pub(crate) fn fold(&mut self, update: ParkingUpdate) {
        match update {
            ParkingUpdate::Parked(parked) => self.put(parked),
            ParkingUpdate::Released(released) => drop(self.remove(&released.position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(offset: i64, headers: &'a [(&'a str, Option<&'a [u8]>)], value: Option<&'a [u8]>) -> Record<'a> {
        Record { topic: "acme.x.events", partition: 2, offset, timestamp_ms: 5, key: Some(b"order-1"), value, headers }
    }

    fn parked(offset: i64) -> ParkedRecord {
        ParkedRecord::of(&record(offset, &[], Some(b"12345")), "order-1".into(), None)
    }

    fn put(parking: &mut Parking, parked: ParkedRecord) {
        let number = parking.rank_of(&parked.position);
        parking.put(ParkedRecord { number, ..parked });
    }

    fn on_topic(parked: &ParkedRecord) -> ParkingUpdate {
        let key = parked.position.to_string();
        let headers = [parked.headers_on_topic("acme", "acme.payment"), parked.failure_headers("acme")].concat();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let value = Some(parked.value.as_deref().unwrap_or_default());
        let (key, timestamp_ms) = (Some(key.as_bytes()), parked.timestamp_ms);
        let record = Record { topic: "p", partition: 2, offset: 9, timestamp_ms, key, value, headers: &headers };
        ParkingUpdate::read("acme", &record).expect("just written")
    }

    #[test]
    fn a_parked_record_survives_its_topic() {
        let failure =
            RecordFailure { class: "body".into(), reason: "too short".into(), attempts: 3, at_ms: 1_760_000_000_000 };
        // A record from a dead-letter topic has headers with the names of our own.
        let original: [(&str, Option<&[u8]>); 2] = [("__dlq.errors.offset", Some(b"77")), ("acme.parked.entity", None)];
        for (value, failure) in [(Some(&b"abc"[..]), Some(failure)), (Some(&b""[..]), None), (None, None)] {
            let mut parked = ParkedRecord::of(&record(7, &original, value), "order-1".into(), failure);
            parked.number = 12;
            assert_eq!(on_topic(&parked), ParkingUpdate::Parked(parked));
        }
    }

    #[test]
    fn compaction_does_not_change_the_order() {
        let mut parking = Parking::default();
        for offset in [4, 5, 6] {
            put(&mut parking, parked(offset));
        }
        put(&mut parking, ParkedRecord { timestamp_ms: 9, ..parked(4) });
        let (mut later, all): (Parking, Vec<ParkedRecord>) = (Parking::default(), parking.records().cloned().collect());
        // The first was written once more, so compaction leaves it behind the others.
        for parked in [&all[1], &all[2], &all[0]] {
            later.fold(on_topic(parked));
        }
        assert_eq!(later.records().map(|parked| parked.position.offset).collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!((later.first("order-1").map(|first| first.timestamp_ms), later.bytes()), (Some(9), parking.bytes()));
        assert_eq!(later.ready().map(|entity| &**entity), Some("order-1"), "it has no failure");
        assert_eq!(later.rank_of(&parked(8).position), 3);
        let released = ReleasedRecord { position: all[0].position.clone(), dropped: false, words: String::new() };
        later.fold(ParkingUpdate::Released(released));
        assert_eq!(later.first("order-1").map(|first| first.position.offset), Some(5));
    }

    #[test]
    fn parking_is_bounded_by_records_and_bytes() {
        let mut parking = Parking::default();
        let limits = ParkingLimits { records: 2, bytes: 1_000 };
        assert!(parking.has_room(&parked(0), limits));
        put(&mut parking, parked(0));
        put(&mut parking, parked(1));
        assert!(!parking.has_room(&parked(2), limits));
        assert!(!parking.has_room(&parked(2), ParkingLimits { records: 9, bytes: parking.bytes() + 3 }));
        parking.remove(&parked(0).position);
        parking.remove(&parked(1).position);
        assert!(parking.is_empty() && parking.bytes() == 0 && !parking.has("order-1"));
    }
}
