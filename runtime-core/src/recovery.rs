//! A partition before its barrier: the fold of its own log, which is the only judge of what was said.
//!
//! Owns the checks that stop a task for good: a gap or a repeat in an entity's sequence, one id with two contents, an own
//! record that cannot be read. It decides nothing.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Record, ServiceContract,
    codec::SchemaRef,
    contract::ReadOutcome,
    decider::{Decider, TimestampMs},
    entity::{Entity, MalformedCheckpoint, RecentEvent},
    envelope::{Envelope, Position},
    guard::guarded,
    parking::{ParkedRecord, Parking, ParkingUpdate, ReleasedRecord},
    partition_of,
    task::{Recovered, Task},
};

/// Why a task stops for good: its own log is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogCorruption {
    /// The fence was broken, or somebody else writes here.
    #[error(
        "own log broken at {position}: event {found} of entity {entity} where {expected} was due; \
         another writer was here, so this partition stops until an operator has looked"
    )]
    Sequence {
        /// Where.
        position: Position,
        /// The entity.
        entity: String,
        /// The sequence number that was due.
        expected: u64,
        /// The one that was found.
        found: u64,
    },
    /// One id, two contents.
    #[error(
        "own log broken at {position}: id {id} of entity {entity} was said before, and {how}; \
         this partition stops until an operator has looked"
    )]
    TwoContents {
        /// Where.
        position: Position,
        /// The entity.
        entity: String,
        /// The id.
        id: uuid::Uuid,
        /// What differs.
        how: &'static str,
    },
    /// An own record that cannot be read.
    #[error("own log broken at {position}: {reason}; this partition stops until an operator has looked")]
    Unreadable {
        /// Where.
        position: Position,
        /// Why.
        reason: String,
    },
    /// `pending`, `wake_at` or `Effect::key` panicked over a state.
    #[error(
        "state of entity {entity} in {topic}/{partition} cannot be used: {reason}; fix the decider, which must accept every state \
         that its events lead to"
    )]
    StatePanicked {
        /// The own events topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The entity.
        entity: Arc<str>,
        /// What panicked, and with which message.
        reason: String,
    },
    /// `evolve` panicked.
    #[error("own log at {position} cannot be folded: {reason}; fix evolve, which must accept every event ever said")]
    EvolvePanicked {
        /// Where.
        position: Position,
        /// What it said.
        reason: String,
    },
}

/// What came of an own record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoldOutcome {
    /// It is part of the state now, or was before.
    Taken,
    /// Its schema must be asked for; then the same record is offered again. Nothing has happened.
    NeedsSchema(SchemaRef),
    /// Its schema cannot be got now; nothing has happened. The same record is to be tried again.
    SchemaUnavailable(String),
}

/// A partition that recovers.
pub struct Recovery<D: Decider> {
    decider: D,
    partition: i32,
    entities: HashMap<Arc<str>, Entity<D::State>>,
    next: i64,
    positions: Vec<Option<i64>>,
    /// The same, of records that were there when the bounds were asked for: only these can bear witness against a log.
    witnessed: Vec<Option<i64>>,
    /// The ends of the own log and of the parked topic at that moment.
    asked_ends: (i64, i64),
    parking: Parking,
}

impl<D: Decider> Recovery<D> {
    /// A partition without a checkpoint: its log is read from the beginning.
    pub fn new(decider: D, contract: &ServiceContract, partition: i32) -> Self {
        let none = || vec![None; contract.inputs.len()];
        Self {
            decider,
            partition,
            entities: HashMap::new(),
            next: 0,
            positions: none(),
            witnessed: none(),
            asked_ends: (i64::MAX, i64::MAX),
            parking: Parking::default(),
        }
    }

    /// Takes up a checkpoint: its entities and positions were current when the own log had been read up to `next`.
    ///
    /// # Errors
    /// It is malformed; the recovery must begin again without it.
    pub fn resume<'a>(
        &mut self,
        contract: &ServiceContract,
        next: i64,
        positions: impl IntoIterator<Item = (&'a str, i64)>,
        entities: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), MalformedCheckpoint> {
        for (key, bytes) in entities {
            self.entities.insert(key.into(), Entity::from_bytes(bytes)?);
        }
        for (topic, position) in positions {
            if let Some(input) = contract.input_of(topic) {
                self.positions[input] = Some(position);
                self.witnessed[input] = Some(position);
            }
        }
        self.next = next;
        Ok(())
    }

    /// Tells the ends that the own log and the parked topic had when the bounds of the inputs were asked for.
    pub(crate) fn asked_at(&mut self, own_end: i64, parked_end: i64) {
        self.asked_ends = (own_end, parked_end);
    }

    /// How far each input must reach, by what was there when its bounds were asked for.
    pub(crate) fn witnessed(&self) -> &[Option<i64>] {
        &self.witnessed
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The offset in the own log to read next.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Folds one record of the own log.
    ///
    /// # Errors
    /// [`LogCorruption`]: the partition must not decide.
    pub fn fold(&mut self, contract: &ServiceContract, record: &Record<'_>) -> Result<FoldOutcome, LogCorruption> {
        if record.offset < self.next {
            return Ok(FoldOutcome::Taken);
        }
        let unreadable = |reason: String| LogCorruption::Unreadable { position: record.position(), reason };
        let event = match contract.read_event::<D::Event>(record) {
            ReadOutcome::Body(event) => event,
            ReadOutcome::NeedsSchema(schema) => return Ok(FoldOutcome::NeedsSchema(schema)),
            ReadOutcome::SchemaUnavailable(reason) => return Ok(FoldOutcome::SchemaUnavailable(reason)),
            ReadOutcome::NotConsumed | ReadOutcome::Parking(_) => {
                return Err(unreadable("a record that this service does not say".to_owned()));
            }
            ReadOutcome::Unreadable(defect) => return Err(unreadable(defect.message)),
        };
        let key = record.key_text().ok_or_else(|| unreadable("an event without a key of text".to_owned()))?;
        if partition_of(key.as_bytes(), contract.partitions) != self.partition {
            return Err(unreadable(format!("the event of entity {key} belongs to another partition")));
        }
        let envelope = record.envelope().map_err(|e| unreadable(e.to_string()))?;
        let digest = crc32c::crc32c(record.value.unwrap_or_default());
        self.take(record, key, &envelope, &event, digest)?;
        self.note_cause(contract, &envelope, record.offset < self.asked_ends.0);
        self.next = record.offset + 1;
        Ok(FoldOutcome::Taken)
    }

    fn take(
        &mut self,
        record: &Record<'_>,
        key: &str,
        envelope: &Envelope,
        event: &D::Event,
        digest: u32,
    ) -> Result<(), LogCorruption> {
        let position = || record.position();
        let Some(found) = envelope.sequence else {
            let reason = "an event without a sequence number".to_owned();
            return Err(LogCorruption::Unreadable { position: position(), reason });
        };
        let key: Arc<str> = key.into();
        let panicked = |reason| LogCorruption::EvolvePanicked { position: record.position(), reason };
        let entity =
            guarded("State::default", || self.entities.entry(Arc::clone(&key)).or_default()).map_err(panicked)?;
        let expected = entity.sequence + 1;
        match entity.digest_of(envelope.id) {
            Some(said) if said == digest && found < expected => return Ok(()),
            Some(said) => {
                let how = if said == digest { "now again as a new event" } else { "with another content" };
                return Err(LogCorruption::TwoContents {
                    position: position(),
                    entity: key.to_string(),
                    id: envelope.id,
                    how,
                });
            }
            None if found != expected => {
                return Err(LogCorruption::Sequence { position: position(), entity: key.to_string(), expected, found });
            }
            None => {}
        }
        let before = guarded("State::default", || std::mem::take(&mut entity.state)).map_err(panicked)?;
        entity.state = guarded("evolve", || self.decider.evolve(before, event)).map_err(panicked)?;
        entity.sequence = found;
        if *entity.correlation_id != *envelope.correlation_id {
            entity.correlation_id = envelope.correlation_id.as_str().into();
        }
        entity.remember(RecentEvent { cause: envelope.causation_id.unwrap_or_default(), id: envelope.id, digest });
        // What was folded behind the checkpoint is in no checkpoint yet; the next one must take it, because it moves past it.
        entity.unsaved = true;
        Ok(())
    }

    /// Takes in one record of the topic of what is parked, from its beginning. Its schema is not needed.
    ///
    /// # Errors
    /// [`LogCorruption::Unreadable`]: somebody else writes there, so the order of what waits is not certain.
    pub fn fold_parked(&mut self, contract: &ServiceContract, record: &Record<'_>) -> Result<(), LogCorruption> {
        let news = ParkingUpdate::read(&contract.system, record)
            .map_err(|e| LogCorruption::Unreadable { position: record.position(), reason: e.to_string() })?;
        let (ParkingUpdate::Parked(ParkedRecord { position, .. })
        | ParkingUpdate::Released(ReleasedRecord { position, .. })) = &news;
        self.note_position(contract, position, record.offset < self.asked_ends.1);
        self.parking.fold(news);
        Ok(())
    }

    /// An event says where its cause lay: everything of that input up to there has been decided.
    fn note_cause(&mut self, contract: &ServiceContract, envelope: &Envelope, is_witness: bool) {
        for position in [&envelope.cause_position, &envelope.origin_position].into_iter().flatten() {
            self.note_position(contract, position, is_witness);
        }
    }

    fn note_position(&mut self, contract: &ServiceContract, position: &Position, is_witness: bool) {
        if position.partition == self.partition
            && let Some(input) = contract.input_of(&position.topic)
        {
            let note = |known: &mut Option<i64>| *known = Some(known.unwrap_or(0).max(position.offset + 1));
            note(&mut self.positions[input]);
            if is_witness {
                note(&mut self.witnessed[input]);
            }
        }
    }

    /// The barrier is reached: the partition may decide. `committed` are the group's offsets; where it has none, what the own
    /// log tells is taken, else the beginning.
    ///
    /// # Errors
    /// [`LogCorruption::StatePanicked`].
    pub fn finish(
        self,
        contract: &ServiceContract,
        committed: &[Option<i64>],
        now_ms: TimestampMs,
    ) -> Result<Task<D>, LogCorruption> {
        let positions: Vec<i64> = (0..contract.inputs.len())
            .map(|input| committed.get(input).copied().flatten().or(self.positions[input]).unwrap_or(0))
            .collect();
        let Self { decider, partition, entities, parking, next: own_next, .. } = self;
        Task::new(&decider, partition, Recovered { entities, parking, positions, own_next }, now_ms).map_err(
            |(entity, reason)| {
                let topic = Arc::clone(&contract.events_topic);
                LogCorruption::StatePanicked { topic, partition, entity, reason }
            },
        )
    }
}
