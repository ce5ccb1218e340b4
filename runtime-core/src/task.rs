//! One partition past its barrier: it takes inputs, decides, and keeps the timers and effects that are due.
//!
//! An entity belongs to the partition of its key. A task forwards an input about an entity of another partition to the own inbox
//! there; it decides on an input about its own entity, whatever the record's key is. A forwarded record keeps its subject, and a
//! decider receives the subject as the key. So `entity` returns the same in both partitions, and no record is forwarded in a loop.
//!
//! A task parks a record that cannot be processed if its entity is known, and later records of that entity wait behind it; other
//! entities continue. An operator retries or drops the record, and then the task processes the waiting records in their order.

mod outcome;
mod outputs;
mod parked;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub use self::outcome::{CrashCount, DeciderFailure, HoldReason, ReceiveOutcome};
use self::outputs::{Cause, append_commands, append_events, dead_letter, dead_letter_batch, forward, write_timer};
use crate::{
    Batch, Need, Record, ServiceContract,
    contract::{ReadOutcome, RecordDefect},
    decider::{Decider, Effect, Received, TimestampMs},
    due::{DueSet, due_of},
    effects::Effects,
    entity::{Entity, MalformedCheckpoint},
    envelope::{Envelope, Position},
    guard::guarded,
    parking::{MAX_CRASHES, ParkedRecord, Parking, RecordFailure},
    partition_of,
    timers::Timers,
    unreadable::SkippedBatch,
};

/// The checkpoint of one partition: its changes since the one before.
#[derive(Debug)]
pub struct TaskCheckpoint {
    /// The partition.
    pub partition: i32,
    /// The offset up to which the own log is folded.
    pub next: i64,
    /// The positions of the inputs, by topic.
    pub positions: Vec<(Arc<str>, i64)>,
    /// The entities that changed since the last checkpoint.
    pub entities: Vec<EntityCheckpoint>,
}

/// An entity's key, and the bytes of the entity.
pub type EntityCheckpoint = (Arc<str>, Vec<u8>);

/// A partition that decides.
pub struct Task<D: Decider> {
    pub(crate) partition: i32,
    pub(crate) positions: Vec<i64>,
    /// True if the group does not have all positions: some have moved without an input, or the group has lost its offsets.
    pub(crate) has_uncommitted: bool,
    pub(crate) held: Option<HoldReason>,
    pub(crate) timers: Timers,
    pub(crate) effects: Effects<D::Effect>,
    entities: HashMap<Arc<str>, Entity<D::State>>,
    /// Entities whose states are only in the store. Each is loaded before the next decision about it.
    stored: BTreeSet<Arc<str>>,
    parking: Parking,
    own_next: i64,
    /// The entities that the open batch has changed, with what is due once it is committed.
    touched: Vec<(Arc<str>, DueSet<D::Effect>)>,
    unsaved: Vec<Arc<str>>,
    /// The positions of the last checkpoint.
    saved_positions: Vec<i64>,
}

/// What a task needs to decide, besides its own state.
pub(crate) struct DecisionContext<'a, D> {
    pub(crate) decider: &'a D,
    pub(crate) contract: &'a ServiceContract,
    pub(crate) batch: &'a mut Batch,
    pub(crate) now_ms: TimestampMs,
    /// The crash counts of records that block their partitions.
    pub(crate) crashes: &'a mut BTreeMap<Position, CrashCount>,
}

/// The result of a partition's recovery.
pub(crate) struct RecoveredPartition<S> {
    pub(crate) entities: HashMap<Arc<str>, Entity<S>>,
    pub(crate) parking: Parking,
    pub(crate) positions: Vec<i64>,
    /// True if the group has no committed offset for one of the positions.
    pub(crate) has_uncommitted: bool,
    pub(crate) own_next: i64,
}

impl<D: Decider> Task<D> {
    /// A partition that has passed its barrier. If the author's code panics over a state, the error names the entity.
    pub(crate) fn new(
        decider: &D,
        partition: i32,
        recovered: RecoveredPartition<D::State>,
        now_ms: TimestampMs,
    ) -> Result<Self, (Arc<str>, String)> {
        let RecoveredPartition { mut entities, parking, positions, has_uncommitted, own_next } = recovered;
        let (mut timers, mut effects) = (Timers::default(), Effects::new());
        parking.entities().for_each(|entity| effects.pause(entity));
        for (key, entity) in &mut entities {
            let due = due_of(decider, &entity.state).map_err(|reason| (Arc::clone(key), reason))?;
            schedule(key, entity, due, &mut timers, &mut effects, now_ms);
        }
        let saved_positions = positions.clone();
        let unsaved = entities.iter().filter(|(_, entity)| entity.unsaved).map(|(key, _)| Arc::clone(key)).collect();
        let (touched, stored) = (Vec::new(), BTreeSet::new());
        Ok(Self {
            partition,
            positions,
            has_uncommitted,
            held: None,
            timers,
            effects,
            entities,
            stored,
            parking,
            own_next,
            touched,
            unsaved,
            saved_positions,
        })
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The offset of each input to read next.
    #[must_use]
    pub fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// The known end of the own log.
    #[must_use]
    pub fn own_next(&self) -> i64 {
        self.own_next
    }

    /// The number of entities that have events.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.entities.len() + self.stored.len()
    }

    /// The state of an entity, if it has events.
    #[must_use]
    pub fn state(&self, entity: &str) -> Option<&D::State> {
        self.entities.get(entity).map(|entity| &entity.state)
    }

    /// Every entity's state and sequence number, by key.
    #[must_use]
    pub fn states(&self) -> std::collections::BTreeMap<&str, (u64, &D::State)> {
        self.entities.iter().map(|(key, entity)| (&**key, (entity.sequence, &entity.state))).collect()
    }

    /// True if the state of this entity is only in the store.
    #[must_use]
    pub fn is_evicted(&self, entity: &str) -> bool {
        self.stored.contains(entity)
    }

    /// The parked records, those of each entity in their order.
    pub fn parked(&self) -> impl Iterator<Item = &ParkedRecord> {
        self.parking.records()
    }

    /// The number of parked records, and their bytes.
    #[must_use]
    pub fn parked_size(&self) -> (usize, usize) {
        (self.parking.len(), self.parking.bytes())
    }

    /// True if the task would not ignore the record.
    pub(crate) fn awaits(&self, input: usize, offset: i64) -> bool {
        self.held.is_none() && offset >= self.positions[input]
    }

    pub(crate) fn receive(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        input: usize,
        record: &Record<'_>,
        read: ReadOutcome<D::Input>,
    ) -> ReceiveOutcome {
        let savepoint = context.batch.savepoint();
        let position = record.position();
        if !self.parking.is_empty() && self.parking.holds(&position) {
            // The record is parked already, and the group has lost its position.
            self.skip(context.batch, input, record.offset);
            return ReceiveOutcome::Done;
        }
        let done = match read {
            ReadOutcome::NotConsumed => Ok(()),
            ReadOutcome::SchemaUnavailable(reason) => {
                self.held = Some(HoldReason { position, reason: reason.clone() });
                return ReceiveOutcome::SchemaUnavailable(reason);
            }
            ReadOutcome::OfAnotherBuild(reason) => {
                self.held = Some(HoldReason { position, reason: reason.clone() });
                return ReceiveOutcome::OfAnotherBuild(reason);
            }
            ReadOutcome::NeedsSchema(schema) => return ReceiveOutcome::NeedsSchema(schema),
            ReadOutcome::Unreadable(defect) => self.park_or_dead_letter(context, input, record, &defect),
            ReadOutcome::Parking(command) => match self.need_of_command(context.decider, context.contract, &command) {
                Some(Need::Schema(schema)) => return ReceiveOutcome::NeedsSchemaAnew(schema),
                Some(Need::Entity { key, .. }) => return ReceiveOutcome::NeedsEntity(key),
                None => self.apply_command(context, record, &command),
            },
            ReadOutcome::Body(body) => match identify(record) {
                Ok((key, envelope)) => {
                    let id = envelope.id;
                    let correlation_id = envelope.correlation_id.clone();
                    let received = Received { key, id, correlation_id, at_ms: record.timestamp_ms, body };
                    if let Some(key) = self.entity_to_load(context.decider, &received) {
                        return ReceiveOutcome::NeedsEntity(key);
                    }
                    self.try_to_route(context, input, record, &envelope, &received)
                }
                Err(defect) => self.park_or_dead_letter(context, input, record, &defect),
            },
        };
        match done {
            Ok(()) => {
                context.crashes.remove(&position);
                self.skip(context.batch, input, record.offset);
                ReceiveOutcome::Done
            }
            Err(failure) => {
                context.batch.rollback_to(savepoint);
                self.held = Some(HoldReason { position: failure.position.clone(), reason: failure.reason.clone() });
                ReceiveOutcome::Failed(failure)
            }
        }
    }

    pub(crate) fn skip(&mut self, batch: &mut Batch, input: usize, offset: i64) {
        self.positions[input] = offset + 1;
        batch.moved(input, self.partition, offset + 1);
        batch.count_input();
    }

    /// Moves the position past a batch that an operator skips, and dead-letters it. Returns false and changes nothing if the batch is
    /// not the next input.
    pub(crate) fn skip_batch(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        input: usize,
        skipped: SkippedBatch<'_>,
    ) -> bool {
        let Some(first) = skipped.decision.first() else { return false };
        let next = skipped.decision.next_offset;
        let is_of_input = context.contract.inputs.get(input).is_some_and(|topic| **topic == *first.topic);
        let is_next = self.positions.get(input) == Some(&skipped.from) && skipped.from < next;
        if !is_of_input || !is_next || first.partition != self.partition || self.held.is_some() {
            return false;
        }
        dead_letter_batch(context, &first, skipped, self.partition);
        self.skip(context.batch, input, next - 1);
        true
    }

    /// Moves the positions up to those that the client has reached: it has delivered every record before them, and each is done
    /// with. What lies between is no input: markers of transactions, and records of aborted ones. The next commit has the new
    /// positions, so that an input that was consumed to its end is never taken for a truncated one.
    pub(crate) fn advance(&mut self, reached: &[i64]) {
        for (position, reached) in self.positions.iter_mut().zip(reached) {
            if reached > position {
                *position = *reached;
                self.has_uncommitted = true;
            }
        }
    }

    /// Puts every position into the batch.
    pub(crate) fn commit_positions(&self, batch: &mut Batch) {
        for (input, position) in self.positions.iter().enumerate() {
            batch.moved(input, self.partition, *position);
        }
    }

    /// Routes a record, and parks it after too many failures, so that it does not block its partition for ever.
    fn try_to_route(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        input: usize,
        record: &Record<'_>,
        envelope: &Envelope,
        received: &Received<D::Input>,
    ) -> Result<(), DeciderFailure> {
        let position = record.position();
        let before = context.crashes.get(&position).cloned().unwrap_or_default();
        let failed = if before.times < MAX_CRASHES {
            let savepoint = context.batch.savepoint();
            match self.route(context, record, envelope, received, None) {
                Ok(()) => return Ok(()),
                Err(failure) if failure.loses_state => return Err(failure),
                Err(failure) => {
                    context.batch.rollback_to(savepoint);
                    failure
                }
            }
        } else {
            failed(record, before.reason.clone(), false)
        };
        let crashes = context.crashes.entry(position).or_default();
        crashes.add(&failed.reason);
        if crashes.times < MAX_CRASHES {
            return Err(failed);
        }
        let decider = context.decider;
        let Ok(entity) = guarded("entity", || decider.entity(received)) else {
            return self.park_or_dead_letter(
                context,
                input,
                record,
                &RecordDefect { class: "crash", message: failed.reason },
            );
        };
        if partition_of(entity.as_bytes(), context.contract.partitions) != self.partition {
            return self.park_or_dead_letter(
                context,
                input,
                record,
                &RecordDefect { class: "crash", message: failed.reason },
            );
        }
        let failure = failure_of("crash", &failed.reason, MAX_CRASHES, context.now_ms);
        self.park(context, ParkedRecord::of(record, (*entity).into(), Some(failure)))
    }

    /// Routes a record: to its entity, behind the parked records of its entity, or to another partition. `unparked` is the entity
    /// of a parked record that is processed now, behind no other.
    fn route(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        record: &Record<'_>,
        envelope: &Envelope,
        received: &Received<D::Input>,
        unparked: Option<&str>,
    ) -> Result<(), DeciderFailure> {
        let decider = context.decider;
        let entity = guarded("entity", || decider.entity(received)).map_err(|why| failed(record, why, false))?;
        let owner = partition_of(entity.as_bytes(), context.contract.partitions);
        if self.stored.contains(&*entity) {
            return Err(failed(record, format!("the state of entity {entity} is not loaded"), false));
        }
        if entity.is_empty() {
            dead_letter(
                context,
                record,
                &RecordDefect { class: "routing", message: "the entity's key is empty".to_owned() },
            );
        } else if owner == self.partition {
            if !self.parking.is_empty() && unparked != Some(&*entity) && self.parking.has(&entity) {
                return self.wait(context, record, &entity, received.id);
            }
            self.decide(context, record, envelope, received, (&entity, unparked.is_some()))?;
        } else if envelope.origin_position.is_some() && *record.topic == *context.contract.inputs[0] {
            let message = format!("forwarded for entity {entity} of partition {owner}, but lies on another");
            dead_letter(context, record, &RecordDefect { class: "routing", message });
        } else if let Err(defect) = forward(context, record, envelope, received, (&entity, owner)) {
            dead_letter(context, record, &defect);
        }
        Ok(())
    }

    /// Decides. A `careful` decision keeps the state if the author's code panics over the new events.
    fn decide(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        record: &Record<'_>,
        envelope: &Envelope,
        received: &Received<D::Input>,
        (key, careful): (&str, bool),
    ) -> Result<(), DeciderFailure> {
        let unknown = guarded("State::default", Entity::default).map_err(|why| failed(record, why, false))?;
        let known = self.entities.get(key);
        let entity = known.unwrap_or(&unknown);
        if entity.has_handled(received.id) {
            return Ok(());
        }
        let decider = context.decider;
        let decision =
            guarded("decide", || decider.decide(&entity.state, received)).map_err(|why| failed(record, why, false))?;
        let rehearsed = careful
            .then(|| guarded("State::clone", || entity.state.clone()))
            .transpose()
            .and_then(|copy| copy.map(|copy| fold(decider, copy, &decision.events)).transpose())
            .map_err(|why| failed(record, why, false))?;
        let cause = Cause { record, envelope, received, sequence: entity.sequence };
        let recent = append_events(context, self.partition, key, &cause, &decision.events)?;
        append_commands(context, &cause, &decision.commands)?;
        if decision.events.is_empty() {
            return Ok(());
        }
        let key: Arc<str> = match self.entities.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => key.into(),
        };
        let entity = self.entities.entry(Arc::clone(&key)).or_insert(unknown);
        let evolved = match rehearsed {
            Some(rehearsed) => Ok(rehearsed),
            None => guarded("State::default", || std::mem::take(&mut entity.state))
                .and_then(|before| fold(decider, before, &decision.events)),
        };
        let (state, due) = evolved.map_err(|why| failed(record, why, true))?;
        entity.state = state;
        for event in recent {
            entity.sequence += 1;
            entity.remember(event);
        }
        if *entity.correlation_id != *received.correlation_id {
            entity.correlation_id = received.correlation_id.as_str().into();
        }
        match entity.touched {
            Some(at) => self.touched[at].1 = due,
            None => {
                entity.touched = Some(self.touched.len());
                self.touched.push((key, due));
            }
        }
        Ok(())
    }

    /// Notes that the batch is committed. `own_next` is the end of its records in the own log, if it has any here.
    pub(crate) fn committed(&mut self, own_next: Option<i64>, now_ms: TimestampMs) {
        if let Some(own_next) = own_next {
            self.own_next = self.own_next.max(own_next);
        }
        self.has_uncommitted = false;
        for (key, due) in std::mem::take(&mut self.touched) {
            let Some(entity) = self.entities.get_mut(&key) else { continue };
            schedule(&key, entity, due, &mut self.timers, &mut self.effects, now_ms);
            entity.touched = None;
            if !std::mem::replace(&mut entity.unsaved, true) {
                self.unsaved.push(key);
            }
        }
    }

    /// Writes the timers that may fire, if every input has been read up to the ends that were fetched after they were due.
    pub(crate) fn fire(&mut self, context: &mut DecisionContext<'_, D>) {
        for (due_at, key) in self.timers.pass(&self.positions) {
            let Some(entity) = self.entities.get_mut(&key) else { continue };
            if let Some(wake) = &mut entity.wake {
                wake.fired = true;
            }
            write_timer(context, self.partition, &key, &entity.correlation_id, due_at);
            self.commit_positions(context.batch);
        }
    }

    /// The entity of an input, if its state is only in the store.
    fn entity_to_load(&self, decider: &D, received: &Received<D::Input>) -> Option<Arc<str>> {
        if self.stored.is_empty() {
            return None;
        }
        // If it panics here, it panics again when the record is routed, and is handled there.
        let entity = guarded("entity", || decider.entity(received)).ok()?;
        self.stored.get(&*entity).cloned()
    }

    /// Evicts an entity's state from memory; it stays in the store, in the last checkpoint. Returns false and keeps the state if
    /// it has changed since, or if a timer or an effect is due or a record of it is parked.
    pub(crate) fn evict(&mut self, key: &str) -> bool {
        let Some(entity) = self.entities.get(key) else { return false };
        let is_busy = entity.touched.is_some() || entity.unsaved || entity.wake.is_some() || !entity.effects.is_empty();
        if is_busy || self.parking.has(key) {
            return false;
        }
        if let Some((key, _)) = self.entities.remove_entry(key) {
            self.stored.insert(key);
        }
        true
    }

    /// Takes an evicted entity that was loaded from the store.
    pub(crate) fn load(&mut self, key: &str, bytes: &[u8]) -> Result<(), MalformedCheckpoint> {
        if let Some(key) = self.stored.get(key).cloned() {
            let entity = Entity::from_bytes(bytes)?;
            self.stored.remove(&key);
            self.entities.insert(key, entity);
        }
        Ok(())
    }

    /// The changes since the last checkpoint; `None` if there are none. Positions alone are a change: if the group loses its
    /// offsets, they show that an input was consumed, even one that produced no event.
    pub(crate) fn save(&mut self, contract: &ServiceContract) -> Option<TaskCheckpoint> {
        if !self.touched.is_empty() || (self.unsaved.is_empty() && self.positions == self.saved_positions) {
            return None;
        }
        let entities = match self.unsaved_bytes() {
            Ok(entities) => entities,
            Err(error) => {
                tracing::warn!(partition = self.partition, %error, "a state cannot be saved; no checkpoint is written");
                return None;
            }
        };
        for key in std::mem::take(&mut self.unsaved) {
            if let Some(entity) = self.entities.get_mut(&key) {
                entity.unsaved = false;
            }
        }
        self.saved_positions.clone_from(&self.positions);
        let positions = contract.inputs.iter().cloned().zip(self.positions.iter().copied()).collect();
        Some(TaskCheckpoint { partition: self.partition, next: self.own_next, positions, entities })
    }

    fn unsaved_bytes(&self) -> Result<Vec<EntityCheckpoint>, MalformedCheckpoint> {
        let found = self.unsaved.iter().filter_map(|key| self.entities.get(key).map(|entity| (key, entity)));
        found.map(|(key, entity)| Ok((Arc::clone(key), entity.to_bytes()?))).collect()
    }
}

fn failure_of(class: &str, reason: &str, attempts: u32, at_ms: TimestampMs) -> RecordFailure {
    let reason = crate::text::printable(reason, 400).into_owned();
    RecordFailure { class: class.to_owned(), reason, attempts, at_ms }
}

/// Folds events over a state. Returns the new state with what it makes due.
fn fold<D: Decider>(
    decider: &D,
    state: D::State,
    events: &[D::Event],
) -> Result<(D::State, DueSet<D::Effect>), String> {
    let over = |state: D::State, event| decider.evolve(state, event);
    let state = guarded("evolve", || events.iter().fold(state, over))?;
    let due = due_of(decider, &state)?;
    Ok((state, due))
}

fn failed(record: &Record<'_>, reason: String, loses_state: bool) -> DeciderFailure {
    DeciderFailure { position: record.position(), reason, loses_state }
}

/// The key that a decider receives with an input, and the input's envelope. The key of a forwarded record is its subject, which
/// forwarding keeps.
fn identify(record: &Record<'_>) -> Result<(String, Envelope), RecordDefect> {
    let key = match record.key.map(std::str::from_utf8) {
        Some(Ok(key)) if !key.is_empty() => key,
        Some(Ok(_)) | None => return Err(RecordDefect { class: "key", message: "the record has no key".to_owned() }),
        Some(Err(_)) => return Err(RecordDefect { class: "key", message: "the key is not UTF-8 text".to_owned() }),
    };
    let envelope = record.envelope().map_err(|e| RecordDefect { class: "headers", message: e.to_string() })?;
    let key = if envelope.origin_position.is_some() { envelope.subject.clone() } else { key.to_owned() };
    Ok((key, envelope))
}

/// Schedules what an entity's state makes due.
fn schedule<S, E: Effect>(
    key: &Arc<str>,
    entity: &mut Entity<S>,
    due: DueSet<E>,
    timers: &mut Timers,
    effects: &mut Effects<E>,
    now_ms: TimestampMs,
) {
    entity.wake = timers.change(key, entity.wake, due.wake_at);
    if !due.effects.is_empty() || !entity.effects.is_empty() {
        entity.effects = effects.change(key, &entity.correlation_id, &entity.effects, due.effects, now_ms);
    }
}
