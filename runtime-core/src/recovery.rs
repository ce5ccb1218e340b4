//! A partition before its barrier: the fold of its own log, which alone determines its states.
//!
//! This module has the checks that stop a task for good: a gap or a repetition in an entity's sequence, one id with two contents,
//! an own record that cannot be read. It makes no decisions.

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
    task::{RecoveredPartition, Task},
};

/// Why a partition does not decide: its own log is invalid, or this build cannot read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogCorruption {
    /// The fence failed, or another program writes to the topic.
    #[error(
        "own log broken at {position}: event {found} of entity {entity} instead of event {expected}; \
         another program writes to this topic, so the partition stops until an operator acts"
    )]
    Sequence {
        /// Where.
        position: Position,
        /// The entity.
        entity: String,
        /// The expected sequence number.
        expected: u64,
        /// The sequence number in the log.
        found: u64,
    },
    /// Two events have one id and different contents.
    #[error(
        "own log broken at {position}: id {id} of entity {entity} appears again, {how}; \
         the partition stops until an operator acts"
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
    /// An event of the service that another build has produced, and that this build does not have. The log is sound.
    #[error(
        "{position} has the event {record_type} (schema {schema}) of build {build}, and this build ({own_build}) does not have it: the \
         partition is held until it moves to a build that has it; hint: finish the upgrade (docs/operations.md, \"Builds differ\")"
    )]
    OfAnotherBuild {
        /// Where.
        position: Position,
        /// The full name of its type.
        record_type: String,
        /// Its schema.
        schema: SchemaRef,
        /// The build that produced it.
        build: Arc<str>,
        /// This build.
        own_build: Arc<str>,
    },
    /// An own record that cannot be read.
    #[error("own log broken at {position}: {reason}; the partition stops until an operator acts")]
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
    #[error(
        "own log at {position} cannot be folded: {reason}; fix evolve, which must accept every event ever produced"
    )]
    EvolvePanicked {
        /// Where.
        position: Position,
        /// The message of the panic.
        reason: String,
    },
}

impl LogCorruption {
    /// True if only an operator's action can help. If not, nothing is wrong with the log or with the build's own checkpoints, and the
    /// partition continues with a build that has the type.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::OfAnotherBuild { .. })
    }
}

/// The event of another build, if that is what a record of the own log is: it has a type of the service, and names the service as
/// its source.
fn of_another_build(contract: &ServiceContract, record: &Record<'_>) -> Option<LogCorruption> {
    let schema = contract.of_another_build(record)?;
    let envelope = record.envelope().ok().filter(|envelope| envelope.source == contract.source)?;
    Some(LogCorruption::OfAnotherBuild {
        position: record.position(),
        record_type: schema.full_name.clone(),
        schema: schema.schema,
        build: envelope.build.unwrap_or_else(|| "unknown".into()),
        own_build: Arc::clone(&contract.build),
    })
}

/// The result of folding an own record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoldOutcome {
    /// The record is part of the state.
    Taken,
    /// Its schema must be fetched. Then the driver passes the same record again. Nothing has changed.
    NeedsSchema(SchemaRef),
    /// Its schema cannot be fetched now. The driver retries the same record. Nothing has changed.
    SchemaUnavailable(String),
}

/// A partition that recovers.
pub struct Recovery<D: Decider> {
    decider: D,
    partition: i32,
    entities: HashMap<Arc<str>, Entity<D::State>>,
    next: i64,
    positions: Vec<Option<i64>>,
    /// The same, from records that existed when the bounds were fetched: only these prove that an input was truncated or recreated.
    witnessed: Vec<Option<i64>>,
    /// The ends of the own log and of the parked topic when the bounds were fetched.
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

    /// Continues from a checkpoint: its entities and positions are those of the own log up to `next`.
    ///
    /// # Errors
    /// It is malformed. The recovery must start again without it.
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

    /// Sets the ends that the own log and the parked topic had when the bounds of the inputs were fetched.
    pub(crate) fn asked_at(&mut self, own_end: i64, parked_end: i64) {
        self.asked_ends = (own_end, parked_end);
    }

    /// How far each input must reach, according to records that existed when its bounds were fetched.
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
            ReadOutcome::NotConsumed | ReadOutcome::Parking(_) | ReadOutcome::OfAnotherBuild(_) => {
                let foreign = || unreadable("a record that this service does not produce".to_owned());
                return Err(of_another_build(contract, record).unwrap_or_else(foreign));
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
            Some(known) if known == digest && found < expected => return Ok(()),
            Some(known) => {
                let how = if known == digest { "as a new event" } else { "with another content" };
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
        // No checkpoint has this event yet. The next one must have it, because its position is behind the event.
        entity.unsaved = true;
        Ok(())
    }

    /// Folds one record of the parked topic, which is read from its beginning. The schema of the record is not needed.
    ///
    /// # Errors
    /// [`LogCorruption::Unreadable`]: another program writes to the topic, so the order of the parked records is uncertain.
    pub fn fold_parked(&mut self, contract: &ServiceContract, record: &Record<'_>) -> Result<(), LogCorruption> {
        let update = ParkingUpdate::read(&contract.system, record)
            .map_err(|e| LogCorruption::Unreadable { position: record.position(), reason: e.to_string() })?;
        let (ParkingUpdate::Parked(ParkedRecord { position, .. })
        | ParkingUpdate::Released(ReleasedRecord { position, .. })) = &update;
        self.note_position(contract, position, record.offset < self.asked_ends.1);
        self.parking.fold(update);
        Ok(())
    }

    /// An event has the position of its cause: every record of that input up to there has been decided on.
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

    /// Ends the recovery at the barrier: the partition may decide. `committed` has the group's offsets. Where one is missing, the
    /// position comes from the own log; without one there, it is the beginning.
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
        // Also a position of zero is committed: it shows that the group was there before what is deleted later.
        let has_uncommitted = (0..positions.len()).any(|input| committed.get(input).is_none_or(Option::is_none));
        let Self { decider, partition, entities, parking, next: own_next, .. } = self;
        let recovered = RecoveredPartition { entities, parking, positions, has_uncommitted, own_next };
        Task::new(&decider, partition, recovered, now_ms).map_err(|(entity, reason)| {
            let topic = Arc::clone(&contract.events_topic);
            LogCorruption::StatePanicked { topic, partition, entity, reason }
        })
    }
}
