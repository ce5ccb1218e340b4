//! The tasks of one worker, and the one batch they form together.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    Batch, Contract, Outcome, Record, SavedTask, Stage,
    codec::{DecodeError, ReadSchema, SchemaRef},
    decider::{Decider, Due, TimestampMs},
    envelope::Position,
    task::{Scene, Task},
};

/// The state machine of one worker.
pub struct Machine<D: Decider> {
    decider: D,
    contract: Contract,
    tasks: BTreeMap<i32, Task<D>>,
    batch: Batch,
    in_flight: usize,
    failures: BTreeMap<Position, u32>,
}

impl<D: Decider> Machine<D> {
    /// A machine that owns nothing yet.
    pub fn new(decider: D, contract: Contract) -> Self {
        let (tasks, batch, failures) = (BTreeMap::new(), Batch::default(), BTreeMap::new());
        Self { decider, contract, tasks, batch, in_flight: 0, failures }
    }

    /// The same, told which records cost earlier machines a state, and how often. One that did so too often is not tried again.
    #[must_use]
    pub fn suspecting(self, failures: BTreeMap<Position, u32>) -> Self {
        Self { failures, ..self }
    }

    /// What the service reads and writes.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Takes a partition that has passed its barrier.
    pub fn adopt(&mut self, task: Task<D>) {
        self.tasks.insert(task.partition, task);
    }

    /// Lets a partition go. Only between batches: what the open batch holds of it would be committed all the same.
    pub fn release(&mut self, partition: i32) -> bool {
        self.tasks.remove(&partition).is_some()
    }

    /// A partition that decides.
    #[must_use]
    pub fn task(&self, partition: i32) -> Option<&Task<D>> {
        self.tasks.get(&partition)
    }

    /// The partitions that decide, held ones among them.
    pub fn tasks(&self) -> impl Iterator<Item = &Task<D>> {
        self.tasks.values()
    }

    /// The open batch.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Takes one input: record `record` of the `input`th input topic.
    pub fn hear(&mut self, input: usize, record: &Record<'_>, now_ms: TimestampMs) -> Outcome {
        let Some(task) = self.tasks.get_mut(&record.partition) else { return Outcome::Ignored };
        if !task.awaits(input, record.offset) {
            return Outcome::Ignored;
        }
        let read = self.contract.read_input::<D::Input>(record);
        let Self { decider, contract, batch, failures, .. } = self;
        let mut scene = Scene { decider, contract, batch, now_ms, failures };
        let outcome = task.hear(&mut scene, input, record, read);
        if !matches!(outcome, Outcome::NeedsSchema(_)) {
            self.contract.forget_failures();
        }
        outcome
    }

    /// Takes what was found when a schema was asked for.
    pub fn learn(&mut self, schema: SchemaRef, found: Result<&'static ReadSchema, DecodeError>) {
        self.contract.learn(schema, found);
    }

    /// The schema that must be asked for before [`Machine::go_on`].
    #[must_use]
    pub fn schema_to_go_on(&self) -> Option<SchemaRef> {
        let waiting = self.tasks.values().filter(|task| task.may_go_on());
        waiting.filter_map(|task| task.schema_for_ready(&self.contract)).next()
    }

    /// True if records wait that nothing stands before any more: there is work without input.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        self.tasks.values().any(Task::may_go_on)
    }

    /// Handles some of the records that waited for what is out of the way now. Only between batches.
    pub fn go_on(&mut self, now_ms: TimestampMs) {
        let Self { decider, contract, batch, failures, tasks, .. } = self;
        for task in tasks.values_mut().filter(|task| task.may_go_on()) {
            let mark = batch.mark();
            let mut scene = Scene { decider, contract, batch, now_ms, failures };
            if let Err(failure) = task.go_on_waiting(&mut scene) {
                batch.back_to(mark);
                task.held = Some(Stage { place: failure.place, reason: failure.reason });
            }
        }
        self.contract.forget_failures();
    }

    /// Takes one input that the service does not list: only its position moves.
    pub fn pass_over(&mut self, input: usize, partition: i32, offset: i64) {
        match self.tasks.get_mut(&partition) {
            Some(task) if task.awaits(input, offset) => {
                task.pass_over(&mut self.batch, input, offset);
            }
            _ => {}
        }
    }

    /// The open batch is committed: `own_ends` has the end of what it appended to each partition of the own log.
    pub fn committed(&mut self, own_ends: &BTreeMap<i32, i64>, now_ms: TimestampMs) {
        let moved: BTreeSet<i32> = self.batch.positions().map(|((_, partition), _)| partition).collect();
        for partition in moved {
            if let Some(task) = self.tasks.get_mut(&partition) {
                task.committed(&self.decider, own_ends.get(&partition).copied(), now_ms);
            }
        }
        self.batch.clear();
    }

    /// Every position of every partition, to be committed again before it expires.
    pub fn recommit(&mut self) {
        for task in self.tasks.values() {
            for (input, position) in task.positions.iter().enumerate() {
                self.batch.moved(input, task.partition, *position);
            }
        }
    }

    /// Stops a partition from taking input until it is let on again; for the driver's own reasons.
    pub fn hold(&mut self, partition: i32, place: Position, reason: String) {
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.held = Some(Stage { place, reason });
        }
    }

    /// Lets a held partition take input again.
    pub fn let_on(&mut self, partition: i32) {
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.held = None;
        }
    }

    /// The partitions that are held, and why.
    pub fn held(&self) -> impl Iterator<Item = (i32, &Stage)> {
        self.tasks.values().filter_map(|task| task.held.as_ref().map(|stage| (task.partition, stage)))
    }

    /// The partitions with a timer due, for which the ends of all inputs must be asked now.
    #[must_use]
    pub fn wants_ends(&self, now_ms: TimestampMs) -> Vec<i32> {
        let wants = |task: &&Task<D>| task.held.is_none() && task.timers.wants_ends(now_ms);
        self.tasks.values().filter(wants).map(|task| task.partition).collect()
    }

    /// The ends of a partition of all inputs, asked for at `asked_at_ms` or later.
    pub fn ends_known(&mut self, partition: i32, asked_at_ms: TimestampMs, ends: Vec<i64>) {
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.timers.ends_known(asked_at_ms, ends);
        }
    }

    /// The partitions whose timers wait for input to be read.
    #[must_use]
    pub fn waits_for_positions(&self) -> Vec<i32> {
        let waits = |task: &&Task<D>| task.held.is_none() && task.timers.is_waiting();
        self.tasks.values().filter(waits).map(|task| task.partition).collect()
    }

    /// The client has delivered everything of a partition before `positions` (control records are no input). Timers that may
    /// fire now go into the open batch.
    pub fn reached(&mut self, partition: i32, positions: &[i64], now_ms: TimestampMs) {
        let Some(task) = self.tasks.get_mut(&partition) else { return };
        let Self { decider, contract, batch, failures, .. } = self;
        let mut scene = Scene { decider, contract, batch, now_ms, failures };
        task.fire(&mut scene, positions);
    }

    /// The effects to perform now; no more than `at_most` are in flight. Only between batches.
    pub fn due_effects(&mut self, at_most: usize, now_ms: TimestampMs) -> Vec<(i32, Due<D::Effect>)> {
        let mut all = Vec::new();
        let mut due = Vec::new();
        for task in self.tasks.values_mut() {
            let room = at_most.saturating_sub(self.in_flight);
            task.effects.take(now_ms, room, &mut due);
            self.in_flight += due.len();
            all.extend(due.drain(..).map(|due| (task.partition, due)));
        }
        all
    }

    /// The answer of an effect lies in the inbox.
    pub fn effect_answered(&mut self, partition: i32, key: &str, now_ms: TimestampMs) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(task) = self.tasks.get_mut(&partition) {
            task.effects.answered(key, now_ms);
        }
    }

    /// An attempt had no definite answer, or its answer could not be handed in. `jitter` is any number.
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

    /// How many effects are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many effects are pending.
    #[must_use]
    pub fn pending_effects(&self) -> usize {
        self.tasks.values().map(|task| task.effects.len()).sum()
    }

    /// The next instant at which a timer or an effect is due.
    #[must_use]
    pub fn next_due(&self) -> Option<TimestampMs> {
        let due = |task: &Task<D>| task.timers.next().into_iter().chain(task.effects.next()).min();
        self.tasks.values().filter_map(due).min()
    }

    /// What changed since the last checkpoint. Only between batches.
    pub fn save(&mut self) -> Vec<SavedTask> {
        let contract = &self.contract;
        self.tasks.values_mut().filter_map(|task| task.save(contract)).collect()
    }
}
