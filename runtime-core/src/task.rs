//! One partition past its barrier: it takes inputs, decides, and keeps what is due.
//!
//! An entity belongs to the partition that its key maps to, and to no other. So an input about an entity of another partition is
//! forwarded to the own inbox there; one whose entity lives here is decided here, whatever its own key is. A forwarded record
//! keeps its subject, and the subject is what a decider is told as the key: `entity` answers the same on both sides, so nothing
//! is forwarded in a loop.
//!
//! A record that cannot work is parked if its entity is known, and what comes later for that entity waits behind it; all others go
//! on. An operator has it tried again or gives it up; then what waits is handled in its order.

mod parked;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    Batch, Need, OutputHeaders, Record, RuntimeRecord, ServiceContract, Target,
    codec::SchemaRef,
    contract::{ReadOutcome, RecordDefect},
    decider::{Decider, Effect, Received, TimerFired, TimestampMs},
    due::{DueSet, due_of},
    effects::Effects,
    entity::{Entity, MalformedCheckpoint, RecentEvent},
    envelope::{Envelope, MAX_VALUE_BYTES, Position, caused_id, derived_id, header},
    guard::guarded,
    limits,
    parking::{MAX_CRASHES, ParkedRecord, Parking, RecordFailure, headers_of_dead_letter},
    partition_of,
    timers::Timers,
};

/// What came of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiveOutcome {
    /// It is decided, forwarded, parked, laid aside as a dead letter, dropped as a repeat, or passed over. Its position is in the
    /// batch.
    Done,
    /// It was not looked at: the partition is not owned, or held, or the record was there before.
    Ignored,
    /// Its schema must be asked for; then the same record is offered again. Nothing has happened.
    NeedsSchema(SchemaRef),
    /// The state of this entity must be loaded; then the same record is offered again. Nothing has happened.
    NeedsEntity(Arc<str>),
    /// Its schema cannot be got now: the partition is held, and resumed for another try.
    SchemaUnavailable(String),
    /// Our own code failed on it. Its partition is held, or the machine must be thrown away.
    Failed(DeciderFailure),
}

/// The service's own code failed on a record.
#[derive(Debug, Clone, PartialEq)]
pub struct DeciderFailure {
    /// The record.
    pub position: Position,
    /// What failed and how.
    pub reason: String,
    /// True if a state was lost on the way: nothing may be committed, the machine must be thrown away.
    pub loses_state: bool,
}

/// How often the service's own code has failed on a record that stands before its partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashCount {
    /// How often.
    pub times: u32,
    /// What failed the last time, and how.
    pub reason: String,
}

impl CrashCount {
    /// Counts one more.
    pub fn add(&mut self, reason: &str) {
        self.times = self.times.saturating_add(1);
        reason.clone_into(&mut self.reason);
    }
}

/// Why a partition takes no input.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldReason {
    /// The record it stands before, or the position in a topic.
    pub position: Position,
    /// Why.
    pub reason: String,
}

/// What a checkpoint of one partition holds.
#[derive(Debug)]
pub struct TaskCheckpoint {
    /// The partition.
    pub partition: i32,
    /// The own log is folded up to here.
    pub next: i64,
    /// Positions of the inputs, by topic.
    pub positions: Vec<(Arc<str>, i64)>,
    /// The entities that changed since the last checkpoint.
    pub entities: Vec<EntityCheckpoint>,
}

/// An entity's key, and the entity as a checkpoint keeps it.
pub type EntityCheckpoint = (Arc<str>, Vec<u8>);

/// A partition that decides.
pub struct Task<D: Decider> {
    pub(crate) partition: i32,
    pub(crate) positions: Vec<i64>,
    pub(crate) held: Option<HoldReason>,
    pub(crate) timers: Timers,
    pub(crate) effects: Effects<D::Effect>,
    entities: HashMap<Arc<str>, Entity<D::State>>,
    /// Entities whose states lie in the store only: each is loaded before it is decided about.
    stored: BTreeSet<Arc<str>>,
    parking: Parking,
    own_next: i64,
    /// The entities that the open batch has changed, with what is due once it is committed.
    touched: Vec<(Arc<str>, DueSet<D::Effect>)>,
    unsaved: Vec<Arc<str>>,
}

/// What a decision is made with.
pub(crate) struct DecisionContext<'a, D> {
    pub(crate) decider: &'a D,
    pub(crate) contract: &'a ServiceContract,
    pub(crate) batch: &'a mut Batch,
    pub(crate) now_ms: TimestampMs,
    /// How often a record has failed that stands before its partition.
    pub(crate) crashes: &'a mut BTreeMap<Position, CrashCount>,
}

/// What a partition has recovered.
pub(crate) struct Recovered<S> {
    pub(crate) entities: HashMap<Arc<str>, Entity<S>>,
    pub(crate) parking: Parking,
    pub(crate) positions: Vec<i64>,
    pub(crate) own_next: i64,
}

impl<D: Decider> Task<D> {
    /// A partition that has passed its barrier. An author's code that panics over a state is an error that names the entity.
    pub(crate) fn new(
        decider: &D,
        partition: i32,
        recovered: Recovered<D::State>,
        now_ms: TimestampMs,
    ) -> Result<Self, (Arc<str>, String)> {
        let Recovered { mut entities, parking, positions, own_next } = recovered;
        let (mut timers, mut effects) = (Timers::default(), Effects::new());
        parking.entities().for_each(|entity| effects.pause(entity));
        for (key, entity) in &mut entities {
            let due = due_of(decider, &entity.state).map_err(|reason| (Arc::clone(key), reason))?;
            schedule(key, entity, due, &mut timers, &mut effects, now_ms);
        }
        let unsaved = entities.iter().filter(|(_, entity)| entity.unsaved).map(|(key, _)| Arc::clone(key)).collect();
        let (touched, stored) = (Vec::new(), BTreeSet::new());
        let held = None;
        Ok(Self { partition, positions, held, timers, effects, entities, stored, parking, own_next, touched, unsaved })
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Where to read each input next.
    #[must_use]
    pub fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// How far the own log is known to reach.
    #[must_use]
    pub fn own_next(&self) -> i64 {
        self.own_next
    }

    /// How many entities something was said about.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.entities.len() + self.stored.len()
    }

    /// The state of an entity, if anything was ever said about it.
    #[must_use]
    pub fn state(&self, entity: &str) -> Option<&D::State> {
        self.entities.get(entity).map(|entity| &entity.state)
    }

    /// Every entity's state and sequence number, by key.
    #[must_use]
    pub fn states(&self) -> std::collections::BTreeMap<&str, (u64, &D::State)> {
        self.entities.iter().map(|(key, entity)| (&**key, (entity.sequence, &entity.state))).collect()
    }

    /// True if the state of this entity lies in the store only.
    #[must_use]
    pub fn is_evicted(&self, entity: &str) -> bool {
        self.stored.contains(entity)
    }

    /// What waits because one of its entity's records cannot work, each entity's in its order.
    pub fn parked(&self) -> impl Iterator<Item = &ParkedRecord> {
        self.parking.records()
    }

    /// How many records and how many bytes wait.
    #[must_use]
    pub fn parked_size(&self) -> (usize, usize) {
        (self.parking.len(), self.parking.bytes())
    }

    /// True if the record would be looked at.
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
            // It was parked and its position lost: there is nothing more to do about it.
            self.skip(context.batch, input, record.offset);
            return ReceiveOutcome::Done;
        }
        let done = match read {
            ReadOutcome::NotConsumed => Ok(()),
            ReadOutcome::SchemaUnavailable(reason) => {
                self.held = Some(HoldReason { position, reason: reason.clone() });
                return ReceiveOutcome::SchemaUnavailable(reason);
            }
            ReadOutcome::NeedsSchema(schema) => return ReceiveOutcome::NeedsSchema(schema),
            ReadOutcome::Unreadable(defect) => self.park_or_dead_letter(context, input, record, &defect),
            ReadOutcome::Parking(command) => match self.need_of_command(context.decider, context.contract, &command) {
                Some(Need::Schema(schema)) => return ReceiveOutcome::NeedsSchema(schema),
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

    /// Routes a record. One that has failed often enough is parked instead of holding its partition up for ever.
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

    /// Routes a record: to its entity, to those of its entity that wait, or to another partition. `unparked` is the entity whose
    /// waiting records this is one of: nothing stands before it.
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

    /// Decides. A `careful` decision keeps the state, should the author's code panic over what it decided.
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
        let said = append_events(context, self.partition, key, &cause, &decision.events)?;
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
        for said in said {
            entity.sequence += 1;
            entity.remember(said);
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

    /// The batch is committed; `own_next` is the end of what it appended to the own log, if it appended anything here.
    pub(crate) fn committed(&mut self, own_next: Option<i64>, now_ms: TimestampMs) {
        if let Some(own_next) = own_next {
            self.own_next = self.own_next.max(own_next);
        }
        for (key, due) in std::mem::take(&mut self.touched) {
            let Some(entity) = self.entities.get_mut(&key) else { continue };
            schedule(&key, entity, due, &mut self.timers, &mut self.effects, now_ms);
            entity.touched = None;
            if !std::mem::replace(&mut entity.unsaved, true) {
                self.unsaved.push(key);
            }
        }
    }

    /// Writes the timers that may fire, if every input has been read up to the ends asked for after they were due.
    pub(crate) fn fire(&mut self, context: &mut DecisionContext<'_, D>, positions: &[i64]) {
        let told = positions.iter().copied().chain(std::iter::repeat(0));
        let reached: Vec<i64> = self.positions.iter().zip(told).map(|(known, told)| told.max(*known)).collect();
        for (due_at, key) in self.timers.pass(&reached) {
            let Some(entity) = self.entities.get_mut(&key) else { continue };
            if let Some(wake) = &mut entity.wake {
                wake.fired = true;
            }
            write_timer(context, self.partition, &key, &entity.correlation_id, due_at);
            for (input, position) in self.positions.iter().enumerate() {
                context.batch.moved(input, self.partition, *position);
            }
        }
    }

    /// The entity of an input if its state lies in the store only.
    fn entity_to_load(&self, decider: &D, received: &Received<D::Input>) -> Option<Arc<str>> {
        if self.stored.is_empty() {
            return None;
        }
        // A panic is met again where the record is routed, and has its fate there.
        let entity = guarded("entity", || decider.entity(received)).ok()?;
        self.stored.get(&*entity).cloned()
    }

    /// Lets an entity's state lie in the store only, where the last checkpoint has put it. Answers false, and keeps it, if it has
    /// changed since, or if something of it is due, waits or is parked.
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

    /// Takes an entity back that was loaded from the store.
    pub(crate) fn load(&mut self, key: &str, bytes: &[u8]) -> Result<(), MalformedCheckpoint> {
        if let Some(key) = self.stored.get(key).cloned() {
            let entity = Entity::from_bytes(bytes)?;
            self.stored.remove(&key);
            self.entities.insert(key, entity);
        }
        Ok(())
    }

    /// The entities that changed since the last checkpoint; `None` if nothing did.
    pub(crate) fn save(&mut self, contract: &ServiceContract) -> Option<TaskCheckpoint> {
        if self.unsaved.is_empty() || !self.touched.is_empty() {
            return None;
        }
        let entities = match self.unsaved_bytes() {
            Ok(entities) => entities,
            Err(error) => {
                tracing::warn!(partition = self.partition, %error, "a state cannot be saved; no checkpoint is taken");
                return None;
            }
        };
        for key in std::mem::take(&mut self.unsaved) {
            if let Some(entity) = self.entities.get_mut(&key) {
                entity.unsaved = false;
            }
        }
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

/// Folds events over a state. Returns it with what it makes due.
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

struct Cause<'a, I> {
    record: &'a Record<'a>,
    envelope: &'a Envelope,
    received: &'a Received<I>,
    sequence: u64,
}

fn failed(record: &Record<'_>, reason: String, loses_state: bool) -> DeciderFailure {
    DeciderFailure { position: record.position(), reason, loses_state }
}

/// The envelope of an input, and the key its decider is told: of a forwarded record that is the subject, which stays.
fn identify(record: &Record<'_>) -> Result<(String, Envelope), RecordDefect> {
    let key = match record.key.map(std::str::from_utf8) {
        Some(Ok(key)) if !key.is_empty() => key,
        Some(Ok(_)) | None => return Err(RecordDefect { class: "key", message: "the record has no key".to_owned() }),
        Some(Err(_)) => return Err(RecordDefect { class: "key", message: "the key is not UTF-8 text".to_owned() }),
    };
    let envelope = record.envelope().map_err(|e| RecordDefect { class: "headers", message: e.to_string() })?;
    let told = if envelope.origin_position.is_some() { envelope.subject.clone() } else { key.to_owned() };
    Ok((told, envelope))
}

/// The envelope of what a cause leads to.
fn follow<I>(
    contract: &ServiceContract,
    cause: &Cause<'_, I>,
    full_name: &Arc<str>,
    index: usize,
    time_ms: i64,
) -> Envelope {
    let id = caused_id(cause.received.id, full_name, index);
    Envelope {
        correlation_id: cause.envelope.correlation_id.clone(),
        causation_id: Some(cause.received.id),
        cause_position: Some(cause.record.position()),
        origin_position: cause.envelope.origin_position.clone(),
        build: Some(Arc::clone(&contract.build)),
        traceparent: cause.envelope.traceparent.clone(),
        ..Envelope::new(id, Arc::clone(&contract.source), Arc::clone(full_name), time_ms)
    }
}

fn append_events<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    partition: i32,
    key: &str,
    cause: &Cause<'_, D::Input>,
    events: &[D::Event],
) -> Result<Vec<RecentEvent>, DeciderFailure> {
    let contract = context.contract;
    let time_ms = context.now_ms.max(cause.received.at_ms);
    let mut said = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        let (value, full_name) = context
            .batch
            .put_with(|out| contract.write(event, out))
            .map_err(|e| failed(cause.record, format!("an event cannot be written: {e}"), false))?;
        let digest = crc32c::crc32c(context.batch.bytes(value.clone()));
        let sequence = Some(cause.sequence + 1 + index as u64);
        let envelope = follow(contract, cause, full_name, index, time_ms).about(key);
        let envelope = Envelope { sequence, ..envelope };
        said.push(RecentEvent { cause: cause.received.id, id: envelope.id, digest });
        let headers = OutputHeaders::Envelope(Box::new(envelope));
        fits(key.len() + value.len(), &headers, contract.limits.events)
            .map_err(|why| failed(cause.record, format!("an event cannot be produced: {why}"), false))?;
        let bytes = (Some(context.batch.put(key.as_bytes())), Some(value));
        context.batch.append(Target::Events, Some(partition), time_ms, headers, bytes);
    }
    Ok(said)
}

fn append_commands<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    cause: &Cause<'_, D::Input>,
    sends: &[crate::decider::OutgoingCommand<D::Command>],
) -> Result<(), DeciderFailure> {
    let contract = context.contract;
    let time_ms = context.now_ms.max(cause.received.at_ms);
    for (index, send) in sends.iter().enumerate() {
        if send.key.is_empty() {
            return Err(failed(cause.record, "a command cannot be sent: its key is empty".to_owned(), false));
        }
        let (value, full_name) = context
            .batch
            .put_with(|out| contract.write(&send.command, out))
            .map_err(|e| failed(cause.record, format!("a command cannot be written: {e}"), false))?;
        let envelope = follow(contract, cause, full_name, index, time_ms).about(&*send.key);
        let headers = OutputHeaders::Envelope(Box::new(Envelope { origin_position: None, ..envelope }));
        fits(send.key.len() + value.len(), &headers, contract.limits.inbox)
            .map_err(|why| failed(cause.record, format!("a command cannot be sent: {why}"), false))?;
        let bytes = (Some(context.batch.put(send.key.as_bytes())), Some(value));
        let partition = Some(partition_of(send.key.as_bytes(), contract.partitions));
        context.batch.append(Target::Inbox, partition, time_ms, headers, bytes);
    }
    Ok(())
}

/// Whether the topic takes a record of a decision. A broker would refuse it for ever, so the position must show before it is asked.
fn fits(bytes: usize, headers: &OutputHeaders, most: usize) -> Result<(), String> {
    // Its subject is the key, the rest of an envelope is far below this: most records need no closer look.
    const ENVELOPE_BYTES: usize = 32 << 10;
    if 2 * bytes + ENVELOPE_BYTES <= most {
        return Ok(());
    }
    match limits::size(bytes, headers) {
        size if size <= most => Ok(()),
        size => Err(format!("it has up to {size} bytes, and its topic takes {most}; hint: raise max.message.bytes")),
    }
}

/// Passes a record on to the partition of the own inbox that owns its entity: body and headers as they are, id, cause and
/// correlation kept. What the record itself did not say, but its position implied, is written down, because the position changes.
fn forward<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    record: &Record<'_>,
    envelope: &Envelope,
    received: &Received<D::Input>,
    (entity, owner): (&str, i32),
) -> Result<(), RecordDefect> {
    let mut headers = verbatim(record);
    let mut ensure = |name: &str, value: &str| {
        let last = headers.iter().rev().find(|(known, _)| known == name);
        if last.and_then(|(_, known)| known.as_deref()) != Some(value.as_bytes()) {
            headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
        }
    };
    ensure(header::ID, &envelope.id.to_string());
    ensure(header::SUBJECT, &received.key);
    ensure(header::CORRELATION_ID, &envelope.correlation_id);
    if envelope.origin_position.is_none() {
        ensure(header::ORIGIN_POSITION, &record.position().to_string());
    }
    let headers = OutputHeaders::Verbatim(headers);
    let size = limits::size(entity.len() + record.value.map_or(0, <[u8]>::len), &headers);
    let most = context.contract.limits.inbox;
    if size > most {
        let message = format!("passed on to partition {owner} it has up to {size} bytes, and the inbox takes {most}");
        return Err(RecordDefect { class: "size", message });
    }
    let key = context.batch.put(entity.as_bytes());
    let value = record.value.map(|value| context.batch.put(value));
    context.batch.append(Target::Inbox, Some(owner), record.timestamp_ms, headers, (Some(key), value));
    Ok(())
}

/// Lays a record aside that can never work: its bytes and headers as they are, with the position and the reason beside them. One
/// that the topic does not take whole is laid aside without its body, and says so: its position tells where the body lies.
fn dead_letter<D>(context: &mut DecisionContext<'_, D>, record: &Record<'_>, defect: &RecordDefect) {
    let DecisionContext { contract, now_ms, .. } = *context;
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let mut reason = crate::text::printable(&defect.message, 400).into_owned();
    let (mut key, mut value) = (record.key, record.value);
    let whole =
        OutputHeaders::Verbatim([verbatim(record), error_headers(contract, record, defect, now_ms, &reason)].concat());
    let (size, most) = (limits::size(bytes(key) + bytes(value), &whole), contract.limits.dead_letters);
    let headers = if size <= most {
        whole
    } else {
        let mut kept = verbatim(record);
        let mut omitted = vec!["value"];
        value = None;
        if !limits::trim_headers(&mut kept) {
            omitted.push("headers");
        }
        if bytes(key) > MAX_VALUE_BYTES {
            omitted.push("key");
            key = None;
        }
        let omitted = omitted.join(",");
        reason = format!("{reason} (without its {omitted}: it has up to {size} bytes, and this topic takes {most})");
        kept.extend(error_headers(contract, record, defect, now_ms, &reason));
        kept.push((format!("{}.errors.omitted", contract.system), Some(omitted.into_bytes())));
        OutputHeaders::Verbatim(kept)
    };
    tracing::warn!(position = %record.position(), class = defect.class, %reason, "record laid aside as a dead letter");
    let (key, value) = (key.map(|key| context.batch.put(key)), value.map(|value| context.batch.put(value)));
    context.batch.append(Target::DeadLetters, None, record.timestamp_ms, headers, (key, value));
    // Nothing on the own log tells of it; so that it is not laid aside once more, should the group's offsets be lost.
    let position = context.batch.put(record.position().to_string().as_bytes());
    let headers = OutputHeaders::Verbatim(headers_of_dead_letter(&contract.system, now_ms));
    context.batch.append(Target::Parked, Some(record.partition), now_ms, headers, (Some(position), None));
}

/// What a dead letter says beside what the record said: where it lay and why it is one.
fn error_headers(
    contract: &ServiceContract,
    record: &Record<'_>,
    defect: &RecordDefect,
    now_ms: TimestampMs,
    reason: &str,
) -> Vec<(String, Option<Vec<u8>>)> {
    let kafka = |name: &str, value: &str| (format!("__dlq.errors.{name}"), Some(value.as_bytes().to_vec()));
    let ours =
        |name: &str, value: &str| (format!("{}.errors.{name}", contract.system), Some(value.as_bytes().to_vec()));
    vec![
        kafka("topic", record.topic),
        kafka("partition", &record.partition.to_string()),
        kafka("offset", &record.offset.to_string()),
        kafka("group", &contract.group),
        kafka("delivery.count", "1"),
        kafka("message", reason),
        ours("class", defect.class),
        ours("time", &crate::time::rfc3339(now_ms)),
    ]
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

fn verbatim(record: &Record<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect()
}

fn write_timer<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    partition: i32,
    key: &Arc<str>,
    correlation_id: &str,
    due_at: TimestampMs,
) {
    let contract = context.contract;
    let fired = RuntimeRecord::from(TimerFired { due_at });
    let Ok((value, full_name)) = context.batch.put_with(|out| contract.write(&fired, out)) else {
        tracing::error!(entity = %key, "the timer's record cannot be written; the entity is not woken");
        return;
    };
    let id = derived_id(&["timer", contract.service, key, &due_at.to_string()]);
    let time_ms = context.now_ms.max(due_at);
    let envelope = Envelope::new(id, Arc::clone(&contract.source), Arc::clone(full_name), time_ms)
        .about(&**key)
        .correlated(correlation_id);
    let envelope = Envelope { build: Some(Arc::clone(&contract.build)), ..envelope };
    let bytes = (Some(context.batch.put(key.as_bytes())), Some(value));
    context.batch.append(Target::Inbox, Some(partition), time_ms, OutputHeaders::Envelope(Box::new(envelope)), bytes);
}
