//! Records that wait because one of their entity cannot work: what is parked, in which order, and how it looks on its topic.
//!
//! A parked record lies on the service's parked topic under its position as the key, with its bytes, its headers and the failure; a
//! tombstone takes it away. So the topic is the truth: whoever takes the partition over folds it and knows the same. The first
//! of an entity's records is the one that failed, the others wait behind it in the order in which they came. Of a dead letter there
//! is a tombstone alone: nothing waits, and it tells how far the input was received, should the group forget that. Owns the form of
//! these records and the bounds; when a record is parked or tried again is the business of the task.

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
    /// What an operator asks of what is parked. It enters through the inbox of the service, under the key of the entity.
    pub enum ParkingCommand in "../schemas" {
        inbox of "runtime" { RetryParked = 1, DropParked = 1 }
    }
}

/// An operator wants a parked record tried again, and after it what waits behind it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RetryParked {
    /// Where the record lay when it was received.
    pub place: String,
    /// Who wants it.
    pub by: String,
}

/// An operator gives a parked record up: it is never handled, and what waits behind it goes on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DropParked {
    /// Where the record lay when it was received.
    pub place: String,
    /// Who gives it up.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// How much may wait in one partition. What is parked lies in the memory of the partition's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkingLimits {
    /// Records.
    pub records: usize,
    /// Bytes: keys, values and headers.
    pub bytes: usize,
}

impl Default for ParkingLimits {
    fn default() -> Self {
        Self { records: 10_000, bytes: 16 << 20 }
    }
}

/// How many records that waited are handled in one batch: a transaction must not take longer than its readers have patience.
pub(crate) const MAX_DRAINED: usize = 500;

/// How often a record may fail before it is parked. Some failures pass with a restart or a new state; most do not.
pub const MAX_CRASHES: u32 = 5;

type Header = (String, Option<Vec<u8>>);

/// Why a record does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFailure {
    /// The kind, in one word for tables.
    pub class: String,
    /// What is wrong.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub at_ms: TimestampMs,
}

/// A record that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRecord {
    /// Where it lay when it was received.
    pub position: Position,
    /// The entity it is about.
    pub entity: Arc<str>,
    /// Its rank: of an entity's records the one with the least is the first.
    pub number: u64,
    /// Why it does not work; `None` if it waits behind one that does not.
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

/// How a record left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedRecord {
    /// Where it lay when it was received.
    pub position: Position,
    /// True if it was given up, false if it was handled.
    pub dropped: bool,
    /// Who asked for it, and why if it was given up.
    pub words: String,
}

/// What a record of a parked topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkingUpdate {
    /// This waits; if it was there before, this is how it stands now.
    Parked(ParkedRecord),
    /// This waits no more, or never did: it was laid aside as a dead letter.
    Released(ReleasedRecord),
}

/// A record of a parked topic that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a parked record: {0}")]
pub struct MalformedParkedRecord(String);

impl ParkedRecord {
    /// A record as it is parked. Its rank is given when it is.
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

    /// Shows it as it was received.
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

    /// Its headers on the parked topic: its own, and behind them ours, whose number is told, so that they can be taken apart.
    pub(crate) fn headers_on_topic(&self, system: &str, group: &str) -> Vec<Header> {
        let kafka = |name: &str, value: String| (format!("__dlq.errors.{name}"), Some(value.into_bytes()));
        let ours = |name: &str, value: String| (format!("{system}.{name}"), Some(value.into_bytes()));
        let mut headers = self.headers.clone();
        headers.extend([
            kafka("topic", self.position.topic.to_string()),
            kafka("partition", self.position.partition.to_string()),
            kafka("offset", self.position.offset.to_string()),
            kafka("group", group.to_owned()),
            ours(name::ENTITY, self.entity.to_string()),
            ours(name::NUMBER, self.number.to_string()),
            ours(name::HEADERS, self.headers.len().to_string()),
        ]);
        if let Some(key) = &self.key {
            headers.push((format!("{system}.{}", name::KEY), Some(key.clone())));
        }
        if self.value.is_none() {
            headers.push(ours(name::NO_VALUE, "true".to_owned()));
        }
        if let Some(failure) = &self.failure {
            headers.extend([
                kafka("delivery.count", failure.attempts.to_string()),
                kafka("message", failure.reason.clone()),
                ours(name::CLASS, failure.class.clone()),
                ours(name::TIME, time::rfc3339(failure.at_ms)),
            ]);
        }
        headers
    }

    fn read(system: &str, position: Position, record: &Record<'_>) -> Result<Self, MalformedParkedRecord> {
        let ours = OwnHeaders { system, headers: record.headers };
        let missing = |what: &str| MalformedParkedRecord(format!("it has no {what}"));
        let count: usize = ours.number(name::HEADERS).ok_or_else(|| missing("count of headers"))?;
        let own = record.headers.get(..count).ok_or_else(|| missing("headers of its own"))?;
        let failure = ours.text(name::CLASS).map(|class| RecordFailure {
            class: class.to_owned(),
            reason: ours.kafka("message").unwrap_or_default().to_owned(),
            attempts: ours.kafka("delivery.count").and_then(|count| count.parse().ok()).unwrap_or(1),
            at_ms: ours.text(name::TIME).and_then(time::parse_rfc3339).unwrap_or(record.timestamp_ms),
        });
        Ok(Self {
            position,
            entity: ours.text(name::ENTITY).ok_or_else(|| missing("entity"))?.into(),
            number: ours.number(name::NUMBER).ok_or_else(|| missing("rank"))?,
            failure,
            timestamp_ms: record.timestamp_ms,
            key: ours.bytes(name::KEY).map(<[u8]>::to_vec),
            value: record.value.filter(|_| ours.text(name::NO_VALUE).is_none()).map(<[u8]>::to_vec),
            headers: own.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect(),
        })
    }

    /// The saga it belongs to, as far as its headers tell; else its entity.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        let told = self.headers.iter().rev().find(|(name, _)| name == header::CORRELATION_ID);
        let told = told.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok());
        told.filter(|id| !id.is_empty()).unwrap_or(&self.entity)
    }

    /// What it is, as its headers tell.
    #[must_use]
    pub fn type_name(&self) -> Option<&str> {
        let told = self.headers.iter().rev().find(|(name, _)| name == header::TYPE);
        told.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok())
    }

    fn id(&self) -> Option<Uuid> {
        let told = self.headers.iter().rev().find(|(name, _)| name == header::ID);
        told.and_then(|(_, value)| Uuid::try_parse_ascii(value.as_deref()?).ok())
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
    /// It is none.
    pub fn read(system: &str, record: &Record<'_>) -> Result<Self, MalformedParkedRecord> {
        let position: Position = record
            .key_text()
            .and_then(|key| key.parse().ok())
            .ok_or_else(|| MalformedParkedRecord("its key is not a position".into()))?;
        if record.value.is_some() {
            return ParkedRecord::read(system, position, record).map(Self::Parked);
        }
        let ours = OwnHeaders { system, headers: record.headers };
        let words = ours.text(name::WORDS).unwrap_or_default().to_owned();
        Ok(Self::Released(ReleasedRecord { position, dropped: ours.text(name::OUTCOME) == Some(name::DROPPED), words }))
    }
}

/// The headers of the tombstone that tells of a dead letter.
pub(crate) fn headers_of_dead_letter(system: &str, now_ms: TimestampMs) -> Vec<Header> {
    let ours = |name: &str, value: String| (format!("{system}.{name}"), Some(value.into_bytes()));
    vec![ours(name::OUTCOME, name::DEAD_LETTERED.to_owned()), ours(name::TIME, time::rfc3339(now_ms))]
}

impl ReleasedRecord {
    pub(crate) fn headers_on_topic(
        &self,
        system: &str,
        parked: &ParkedRecord,
        command: Uuid,
        now_ms: TimestampMs,
    ) -> Vec<Header> {
        let ours = |name: &str, value: String| (format!("{system}.{name}"), Some(value.into_bytes()));
        let outcome = if self.dropped { name::DROPPED } else { name::HANDLED };
        vec![
            ours(name::ENTITY, parked.entity.to_string()),
            ours(name::OUTCOME, outcome.to_owned()),
            ours(name::WORDS, self.words.clone()),
            ours(name::COMMAND, command.to_string()),
            ours(name::TIME, time::rfc3339(now_ms)),
        ]
    }
}

/// What the headers of ours are called, behind the system's name.
mod name {
    pub(super) const ENTITY: &str = "parked.entity";
    pub(super) const NUMBER: &str = "parked.number";
    pub(super) const HEADERS: &str = "parked.headers";
    pub(super) const KEY: &str = "parked.key";
    pub(super) const NO_VALUE: &str = "parked.novalue";
    pub(super) const OUTCOME: &str = "parked.outcome";
    pub(super) const HANDLED: &str = "handled";
    pub(super) const DROPPED: &str = "dropped";
    pub(super) const DEAD_LETTERED: &str = "laid aside";
    pub(super) const WORDS: &str = "parked.words";
    pub(super) const COMMAND: &str = "parked.command";
    pub(super) const CLASS: &str = "errors.class";
    pub(super) const TIME: &str = "errors.time";
}

/// The headers of ours on a record. What a record brought along may be called the same, so the last one counts.
struct OwnHeaders<'a> {
    system: &'a str,
    headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> OwnHeaders<'a> {
    fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        let is_it = |found: &str| found.strip_prefix(self.system).and_then(|rest| rest.strip_prefix('.')) == Some(name);
        self.headers.iter().rev().find(|(found, _)| is_it(found)).and_then(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.bytes(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    fn kafka(&self, name: &str) -> Option<&'a str> {
        let is_it = |found: &str| found.strip_prefix("__dlq.errors.") == Some(name);
        let found = self.headers.iter().rev().find(|(found, _)| is_it(found));
        found.and_then(|(_, value)| std::str::from_utf8((*value)?).ok())
    }
}

/// What waits in one partition.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    queues: BTreeMap<Arc<str>, Queue>,
    /// Entities whose first record may be handled: what it waited behind is out of the way.
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

    /// True if a record with this id waits already: another one says nothing new.
    pub(crate) fn has_id(&self, entity: &str, id: Uuid) -> bool {
        self.queues.get(entity).is_some_and(|queue| queue.ids.contains(&id))
    }

    pub(crate) fn get(&self, position: &Position) -> Option<&ParkedRecord> {
        let (entity, number) = self.positions.get(position)?;
        self.queues.get(entity)?.records.get(number)
    }

    /// An entity whose first record may be handled, if there is one.
    pub(crate) fn ready(&self) -> Option<&Arc<str>> {
        self.ready.first()
    }

    /// What waits for an entity, in its order.
    pub(crate) fn queue(&self, entity: &str) -> impl Iterator<Item = &ParkedRecord> {
        self.queues.get(entity).into_iter().flat_map(|queue| queue.records.values())
    }

    /// The record that an entity's others wait behind.
    pub(crate) fn first(&self, entity: &str) -> Option<&ParkedRecord> {
        self.queues.get(entity)?.records.first_key_value().map(|(_, parked)| parked)
    }

    /// True if there is room for one more.
    pub(crate) fn has_room(&self, parked: &ParkedRecord, limits: ParkingLimits) -> bool {
        self.len() < limits.records && self.bytes + parked.size() <= limits.bytes
    }

    /// The rank of what lies at a position: that of one that is there stays, a new one comes last.
    pub(crate) fn rank_of(&self, position: &Position) -> u64 {
        self.positions.get(position).map_or(self.next, |(_, number)| *number)
    }

    /// Takes a record in under its rank; one that is there stands as this says from now on.
    pub(crate) fn put(&mut self, parked: ParkedRecord) {
        self.remove(&parked.position);
        self.next = self.next.max(parked.number + 1);
        self.bytes += parked.size();
        self.positions.insert(parked.position.clone(), (Arc::clone(&parked.entity), parked.number));
        let queue = self.queues.entry(Arc::clone(&parked.entity)).or_default();
        queue.ids.extend(parked.id());
        let entity = Arc::clone(&parked.entity);
        queue.records.insert(parked.number, parked);
        self.look_at_first(entity);
    }

    fn look_at_first(&mut self, entity: Arc<str>) {
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
        self.look_at_first(entity);
        Some(parked)
    }

    /// Takes in one record of the parked topic.
    pub(crate) fn fold(&mut self, news: ParkingUpdate) {
        match news {
            ParkingUpdate::Parked(parked) => self.put(parked),
            ParkingUpdate::Released(left) => drop(self.remove(&left.position)),
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
        let headers = parked.headers_on_topic("acme", "acme.payment");
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let value = Some(parked.value.as_deref().unwrap_or_default());
        let (key, timestamp_ms) = (Some(key.as_bytes()), parked.timestamp_ms);
        let record = Record { topic: "p", partition: 2, offset: 9, timestamp_ms, key, value, headers: &headers };
        ParkingUpdate::read("acme", &record).expect("just written")
    }

    #[test]
    fn a_parked_record_goes_to_its_topic_and_back() {
        let failure =
            RecordFailure { class: "body".into(), reason: "too short".into(), attempts: 3, at_ms: 1_760_000_000_000 };
        // A record from a dead-letter topic brings headers along that are called like ours.
        let brought: [(&str, Option<&[u8]>); 2] = [("__dlq.errors.offset", Some(b"77")), ("acme.parked.entity", None)];
        for (value, failure) in [(Some(&b"abc"[..]), Some(failure)), (Some(&b""[..]), None), (None, None)] {
            let mut parked = ParkedRecord::of(&record(7, &brought, value), "order-1".into(), failure);
            parked.number = 12;
            assert_eq!(on_topic(&parked), ParkingUpdate::Parked(parked));
        }
    }

    #[test]
    fn order_is_kept_whatever_is_compacted() {
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
        assert_eq!(later.ready().map(|entity| &**entity), Some("order-1"), "nothing says that it cannot work");
        assert_eq!(later.rank_of(&parked(8).position), 3);
        let gone = ReleasedRecord { position: all[0].position.clone(), dropped: false, words: String::new() };
        later.fold(ParkingUpdate::Released(gone));
        assert_eq!(later.first("order-1").map(|first| first.position.offset), Some(5));
    }

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
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
