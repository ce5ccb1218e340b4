//! The tasks of one worker, and the one batch they form together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    Batch, CrashCount, HoldReason, ReceiveOutcome, Record, ServiceContract, TaskCheckpoint,
    codec::{DecodeError, ReadSchema, SchemaRef},
    decider::{Decider, Due},
    entity::MalformedCheckpoint,
    envelope::Position,
    task::{DecisionContext, Task},
    time::TimestampMs,
    unreadable::SkippedBatch,
};

/// Takes inputs of every partition that a worker owns, decides, and collects the resulting records in one [`Batch`].
pub struct Machine<D: Decider> {
    decider: D,
    contract: ServiceContract,
    tasks: BTreeMap<i32, Task<D>>,
    batch: Batch,
    in_flight: usize,
    crashes: BTreeMap<Position, CrashCount>,
}

/// An effect to perform: its partition, its idempotency key, and the request.
#[derive(Debug, Clone, PartialEq)]
pub struct DueEffect<E> {
    /// The partition that its entity belongs to.
    pub partition: i32,
    /// Its idempotency key.
    pub effect_key: Arc<str>,
    /// The request.
    pub due: Due<E>,
}

impl<D: Decider> Machine<D> {
    /// A machine without partitions.
    pub fn new(decider: D, contract: ServiceContract) -> Self {
        let (tasks, batch, crashes) = (BTreeMap::new(), Batch::default(), BTreeMap::new());
        Self { decider, contract, tasks, batch, in_flight: 0, crashes }
    }

    /// The same machine with the crash counts of earlier ones. A record that crashed too often is not processed again.
    #[must_use]
    pub fn with_crashes(self, crashes: BTreeMap<Position, CrashCount>) -> Self {
        Self { crashes, ..self }
    }

    /// What the service reads and writes.
    #[must_use]
    pub fn contract(&self) -> &ServiceContract {
        &self.contract
    }

    /// Adds a partition that has passed its barrier.
    pub fn adopt(&mut self, task: Task<D>) {
        self.tasks.insert(task.partition, task);
    }

    /// Removes a partition. Call this only between batches: the open batch would still commit its records of the partition.
    pub fn release(&mut self, partition: i32) -> bool {
        self.tasks.remove(&partition).is_some()
    }

    /// The task of a partition.
    #[must_use]
    pub fn task(&self, partition: i32) -> Option<&Task<D>> {
        self.tasks.get(&partition)
    }

    /// The tasks of all partitions, held ones included.
    pub fn tasks(&self) -> impl Iterator<Item = &Task<D>> {
        self.tasks.values()
    }

    /// The open batch.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Takes one input: a record of the `input`th input topic.
    pub fn receive(&mut self, input: usize, record: &Record<'_>, now_ms: TimestampMs) -> ReceiveOutcome {
        let Some(task) = self.tasks.get_mut(&record.partition) else { return ReceiveOutcome::Ignored };
        if !task.awaits(input, record.offset) {
            return ReceiveOutcome::Ignored;
        }
        let read = self.contract.read_input::<D::Input>(record);
        let Self { decider, contract, batch, crashes, .. } = self;
        let mut context = DecisionContext { decider, contract, batch, now_ms, crashes };
        let outcome = task.receive(&mut context, input, record, read);
        if !outcome.is_a_need() {
            self.contract.forget_failures();
        }
        outcome
    }

    /// Takes the schema that the driver fetched.
    pub fn learn(&mut self, schema: SchemaRef, found: Result<&'static ReadSchema, DecodeError>) {
        self.contract.learn(schema, found);
    }

    /// Takes an entity that the driver loaded from the store.
    ///
    /// # Errors
    /// The bytes are malformed; the store must be discarded.
    pub fn load(&mut self, partition: i32, entity: &str, bytes: &[u8]) -> Result<(), MalformedCheckpoint> {
        self.tasks.get_mut(&partition).map_or(Ok(()), |task| task.load(entity, bytes))
    }

    /// Evicts an entity's state from memory; it stays in the store, in the last checkpoint. Returns false and keeps the state if
    /// it has changed since, or if a timer or an effect is due or a record of it is parked. Call this only between batches.
    pub fn evict(&mut self, partition: i32, entity: &str) -> bool {
        self.tasks.get_mut(&partition).is_some_and(|task| task.evict(entity))
    }

    /// True if parked records are ready to be processed: there is work without input.
    #[must_use]
    pub fn may_drain(&self) -> bool {
        self.tasks.values().any(Task::may_drain)
    }

    /// What the driver must fetch before [`Machine::drain_parked`].
    #[must_use]
    pub fn need_to_drain(&self) -> Option<Need> {
        let mut waiting = self.tasks.values().filter(|task| task.may_drain());
        waiting.find_map(|task| task.need_of_ready(&self.decider, &self.contract))
    }

    /// Processes some of the parked records that are ready. Call this only between batches.
    pub fn drain_parked(&mut self, now_ms: TimestampMs) {
        let Self { decider, contract, batch, crashes, tasks, .. } = self;
        for task in tasks.values_mut().filter(|task| task.may_drain()) {
            let savepoint = batch.savepoint();
            let mut context = DecisionContext { decider, contract, batch, now_ms, crashes };
            if let Err(failure) = task.drain_next(&mut context) {
                batch.rollback_to(savepoint);
                task.held = Some(HoldReason { position: failure.position, reason: failure.reason });
            }
        }
        self.contract.forget_failures();
    }

    /// Moves the position past one input that the service does not consume.
    pub fn skip(&mut self, input: usize, partition: i32, offset: i64) {
        match self.tasks.get_mut(&partition) {
            Some(task) if task.awaits(input, offset) => task.skip(&mut self.batch, input, offset),
            _ => {}
        }
    }

    /// Moves the position of an input past a batch that an operator skips; the open batch keeps its bytes as dead letters. Returns
    /// false and changes nothing if that batch is not the next input of the partition.
    pub fn skip_batch(&mut self, input: usize, partition: i32, skipped: SkippedBatch<'_>, now_ms: TimestampMs) -> bool {
        let Some(task) = self.tasks.get_mut(&partition) else { return false };
        let Self { decider, contract, batch, crashes, .. } = self;
        let mut context = DecisionContext { decider, contract, batch, now_ms, crashes };
        task.skip_batch(&mut context, input, skipped)
    }

    /// Notes that the open batch is committed. `own_ends` has the end of its records in each partition of the own log.
    pub fn committed(&mut self, own_ends: &BTreeMap<i32, i64>, now_ms: TimestampMs) {
        let moved: BTreeSet<i32> = self.batch.positions().map(|((_, partition), _)| partition).collect();
        for partition in moved {
            if let Some(task) = self.tasks.get_mut(&partition) {
                task.committed(own_ends.get(&partition).copied(), now_ms);
            }
        }
        self.batch.clear();
    }

    /// The known end of the own log, of every partition.
    #[must_use]
    pub fn own_ends(&self) -> BTreeMap<i32, i64> {
        self.tasks.values().map(|task| (task.partition, task.own_next())).collect()
    }

    /// Puts every position of every partition into the batch, so that they are committed again before they expire.
    pub fn recommit(&mut self) {
        self.tasks.values().for_each(|task| task.commit_positions(&mut self.batch));
    }

    /// Puts the positions that the group does not have into the batch.
    pub fn commit_reached(&mut self) {
        let uncommitted = self.tasks.values().filter(|task| task.has_uncommitted);
        uncommitted.for_each(|task| task.commit_positions(&mut self.batch));
    }

    /// True if the group does not have all positions, and no batch has them.
    #[must_use]
    pub fn has_uncommitted(&self) -> bool {
        self.tasks.values().any(|task| task.has_uncommitted)
    }

    /// Stops a partition from taking input until it is resumed.
    pub fn hold(&mut self, partition: i32, position: Position, reason: String) {
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.held = Some(HoldReason { position, reason });
        }
    }

    /// Ends the hold of a partition.
    pub fn resume(&mut self, partition: i32) {
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.held = None;
        }
    }

    /// The partitions that are held, and why.
    pub fn held(&self) -> impl Iterator<Item = (i32, &HoldReason)> {
        self.tasks.values().filter_map(|task| task.held.as_ref().map(|reason| (task.partition, reason)))
    }

    /// The partitions with a timer due, for which the ends of all inputs must be fetched now.
    #[must_use]
    pub fn needs_ends(&self, now_ms: TimestampMs) -> Vec<i32> {
        let wants = |task: &&Task<D>| task.held.is_none() && task.timers.needs_ends(now_ms);
        self.tasks.values().filter(wants).map(|task| task.partition).collect()
    }

    /// Takes the ends of all inputs of a partition, fetched at `requested_at_ms` or later.
    pub fn ends_known(&mut self, partition: i32, requested_at_ms: TimestampMs, ends: Vec<i64>) {
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.timers.ends_known(requested_at_ms, ends);
        }
    }

    /// The partitions whose timers wait until input has been read.
    #[must_use]
    pub fn waits_for_positions(&self) -> Vec<i32> {
        let waits = |task: &&Task<D>| task.held.is_none() && task.timers.is_waiting();
        self.tasks.values().filter(waits).map(|task| task.partition).collect()
    }

    /// Notes that the client has delivered every record of a partition before `positions`, which count control records as well,
    /// and that each of these records is done with. Timers that may fire now go into the open batch. A held partition has not
    /// taken every record that was delivered, so it ignores the positions.
    pub fn reached(&mut self, partition: i32, positions: &[i64], now_ms: TimestampMs) {
        let Some(task) = self.tasks.get_mut(&partition).filter(|task| task.held.is_none()) else { return };
        task.advance(positions);
        let Self { decider, contract, batch, crashes, .. } = self;
        let mut context = DecisionContext { decider, contract, batch, now_ms, crashes };
        task.fire(&mut context);
    }

    /// The effects to perform now, so that at most `at_most` are in flight. Call this only between batches.
    pub fn due_effects(&mut self, at_most: usize, now_ms: TimestampMs) -> Vec<DueEffect<D::Effect>> {
        let mut all = Vec::new();
        for task in self.tasks.values_mut() {
            let (before, room) = (all.len(), at_most.saturating_sub(self.in_flight));
            task.effects.take(now_ms, room, |effect_key, due| {
                all.push(DueEffect { partition: task.partition, effect_key, due });
            });
            self.in_flight += all.len() - before;
        }
        all
    }

    /// Notes that the answer of an effect is in the inbox.
    pub fn effect_answered(&mut self, partition: i32, key: &str, now_ms: TimestampMs) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.effects.answered(key, now_ms);
        }
    }

    /// Notes that an attempt had no definite answer, or that its answer could not be appended. `jitter` may be any number.
    pub fn effect_unanswered(
        &mut self,
        partition: i32,
        key: &str,
        retry_after: Option<Duration>,
        now_ms: TimestampMs,
        jitter: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.effects.unanswered(key, retry_after, now_ms, jitter);
        }
    }

    /// The number of effects in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number of pending effects.
    #[must_use]
    pub fn pending_effects(&self) -> usize {
        self.tasks.values().map(|task| task.effects.len()).sum()
    }

    /// The instant at which the next effect that is not in flight is due. Effects of entities with parked records wait and do not
    /// count.
    #[must_use]
    pub fn next_effect(&self) -> Option<TimestampMs> {
        self.tasks.values().filter_map(|task| task.effects.next()).min()
    }

    /// The next instant at which a timer or an effect is due.
    #[must_use]
    pub fn next_due(&self) -> Option<TimestampMs> {
        let due = |task: &Task<D>| task.timers.next().into_iter().chain(task.effects.next()).min();
        self.tasks.values().filter_map(due).min()
    }

    /// The changes since the last checkpoint. Call this only between batches.
    pub fn save(&mut self) -> Vec<TaskCheckpoint> {
        let contract = &self.contract;
        self.tasks.values_mut().filter_map(|task| task.save(contract)).collect()
    }
}

/// What a driver must fetch before the core can continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The schema of a parked record, anew: it may have been registered since the record was parked.
    Schema(SchemaRef),
    /// The state of an entity.
    Entity {
        /// The partition it belongs to.
        partition: i32,
        /// Its key.
        key: Arc<str>,
    },
}
