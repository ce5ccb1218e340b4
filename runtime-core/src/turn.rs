//! A worker's turn: the steps of its loop, as a state machine without I/O.
//!
//! A driver calls [`Turn::next`] for a [`Step`], executes it, and reports the result; then it calls again. One turn gathers
//! inputs, fires timers, commits the batch as one transaction, and then does what belongs between two batches: rebalances,
//! recovered partitions, answers of effects, effects that are due, held partitions, checkpoints. Any error of the driver ends the
//! incarnation: the driver drops the turn, and the next one starts from the log.
//!
//! The Kafka worker and the simulation execute the same steps, so each rule of a worker is written only here.

mod gathering;
mod holds;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use self::{gathering::Gathering, holds::Holds};
pub use self::{
    gathering::Offer,
    steps::{Now, Pace, Step, TurnError},
};
use crate::{
    Batch, CrashCount, HoldReason, Machine, Need, ServiceContract, Task,
    codec::{DecodeError, ReadSchema, SchemaRef},
    decider::Decider,
    entity::MalformedCheckpoint,
    envelope::Position,
    fencing::Fencing,
    limits::Limits,
    log_bounds,
    time::TimestampMs,
};

/// What one incarnation of a worker passes to the next.
#[derive(Debug, Default)]
pub struct Carried {
    /// The crash counts of records on which the service's own code failed and lost a state.
    pub crashes: BTreeMap<Position, CrashCount>,
    /// When the clients were fenced.
    pub fencing: Fencing,
    /// The record limits of the topics, if they have changed since the start.
    pub limits: Option<Limits>,
}

impl Carried {
    /// Takes the error that ended an incarnation.
    pub fn ended(&mut self, error: &TurnError) {
        if let TurnError::StateLost { position, reason } = error {
            self.crashes.entry(position.clone()).or_default().add(reason);
        }
    }
}

/// The phase of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Drain,
    Gather,
    FetchEnds,
    ReadPositions,
    Commit,
    Pause,
    Rebalance,
    Recovered,
    Reports,
    Between,
    Resume,
    End,
}

/// One incarnation of a worker. `F` is the fence of a transaction: a member of the group in one of its generations.
pub struct Turn<D: Decider, F> {
    machine: Machine<D>,
    pace: Pace,
    crashes: BTreeMap<Position, CrashCount>,
    phase: Phase,
    /// The steps before the next phase.
    due: VecDeque<Step<D, F>>,
    /// The membership with which the open batch commits: that of the moment at which the batch began.
    fence: Option<F>,
    gathering: Gathering,
    holds: Holds,
    /// The partitions whose inputs the client reads.
    consuming: BTreeSet<i32>,
    /// The partitions of which the client has reached an end since their positions were read last.
    at_end: BTreeSet<i32>,
    /// Since when the group lacks positions.
    uncommitted_since: Option<Duration>,
    is_recovering: bool,
    has_rebalance: bool,
    is_stopping: bool,
    /// True if the worker stops, and was asked for what its last commit needs.
    is_flushing: bool,
    ends_fetched: Duration,
    checkpointed: Duration,
    recommitted: Duration,
    error: Option<TurnError>,
}

impl<D: Decider, F: Clone> Turn<D, F> {
    /// A worker without partitions.
    pub fn new(decider: D, contract: ServiceContract, carried: &Carried, pace: Pace, now: Now) -> Self {
        Self {
            machine: Machine::new(decider, contract).with_crashes(carried.crashes.clone()),
            pace,
            crashes: carried.crashes.clone(),
            phase: Phase::Begin,
            due: VecDeque::new(),
            fence: None,
            gathering: Gathering::default(),
            holds: Holds::default(),
            consuming: BTreeSet::new(),
            at_end: BTreeSet::new(),
            uncommitted_since: None,
            is_recovering: false,
            has_rebalance: false,
            is_stopping: false,
            is_flushing: false,
            ends_fetched: Duration::ZERO,
            checkpointed: now.elapsed,
            recommitted: now.elapsed,
            error: None,
        }
    }

    /// The next step.
    pub fn next(&mut self, now: Now) -> Step<D, F> {
        loop {
            if let Some(error) = self.error.take() {
                return Step::Fail(error);
            }
            if let Some(step) = self.due.pop_front() {
                return step;
            }
            self.phase = self.advance(now);
        }
    }

    /// Queues the steps of the current phase. Returns the next phase.
    fn advance(&mut self, now: Now) -> Phase {
        match self.phase {
            Phase::Begin => return self.begin(now),
            Phase::Drain => return self.drain(now),
            Phase::Gather => self.gather(now),
            Phase::FetchEnds => self.fetch_ends(now),
            Phase::ReadPositions => self.read_positions(),
            Phase::Commit => self.commit(now),
            Phase::Pause => self.pause(now),
            Phase::Rebalance => self.due.push_back(Step::TakeRebalance),
            Phase::Recovered if self.is_recovering => self.due.push_back(Step::TakeRecovered),
            Phase::Reports if self.machine.in_flight() > 0 => self.due.push_back(Step::TakeReports),
            Phase::Recovered | Phase::Reports => {}
            Phase::Between => self.between(now),
            Phase::Resume => self.resume(now),
            Phase::End => self.due.push_back(Step::EndTurn),
        }
        self.phase.following()
    }

    /// Begins a batch with the fence of the current membership. The metadata of a later generation would pass the fence for
    /// partitions that the worker has lost meanwhile. Offsets of topics that are assigned and not subscribed expire, so a batch
    /// regularly begins with all of them.
    fn begin(&mut self, now: Now) -> Phase {
        if self.is_stopping {
            return self.stop_or_flush();
        }
        self.note_uncommitted(now);
        if self.machine.batch().is_empty() {
            self.due.push_back(Step::SnapshotFence);
            if self.is_recommit_due(now) {
                self.recommitted = now.elapsed;
                self.machine.recommit();
            } else if self.uncommitted_since.is_some_and(|since| now.elapsed >= since + self.pace.ends_committed_within)
            {
                self.machine.commit_reached();
            }
        }
        Phase::Begin.following()
    }

    /// Commits what is left, with the positions that the client has reached, and stops. Without an open batch, the positions need a
    /// fence of this moment.
    fn stop_or_flush(&mut self) -> Phase {
        if !self.is_flushing {
            self.is_flushing = true;
            if self.machine.batch().is_empty() {
                self.due.push_back(Step::SnapshotFence);
            }
            self.at_end.extend(&self.consuming);
            self.read_positions();
            return Phase::Begin;
        }
        if self.fence.is_some() {
            self.machine.commit_reached();
        }
        self.commit_open_batch();
        self.due.push_back(Step::Checkpoint);
        self.due.push_back(Step::Stop);
        Phase::Begin.following()
    }

    fn note_uncommitted(&mut self, now: Now) {
        let since = self.uncommitted_since.unwrap_or(now.elapsed);
        self.uncommitted_since = self.machine.has_uncommitted().then_some(since);
    }

    /// Processes parked records that are ready, as if they were input.
    fn drain(&mut self, now: Now) -> Phase {
        if !self.machine.batch().is_empty() || !self.machine.may_drain() {
            return Phase::Gather;
        }
        match self.machine.need_to_drain() {
            Some(Need::Schema(schema)) => self.due.push_back(Step::FetchSchema(schema)),
            Some(Need::Entity { partition, key }) => self.due.push_back(Step::LoadEntity { partition, key }),
            None => {
                self.gathering.batch_began(now);
                self.machine.drain_parked(now.wall_ms);
                self.holds.notice(&self.machine, &self.consuming);
                return Phase::Gather;
            }
        }
        Phase::Drain
    }

    fn gather(&mut self, now: Now) {
        let (rest, wait) = (self.gathering.rest(&self.pace), self.patience(now));
        self.gathering.begin();
        self.due.push_back(Step::Gather { rest, wait });
    }

    /// How long to wait for the first record, given what else is due.
    fn patience(&self, now: Now) -> Duration {
        const MOST: Duration = Duration::from_millis(100);
        const WHILE_BUSY: Duration = Duration::from_millis(5);
        if self.machine.may_drain() {
            return Duration::ZERO;
        }
        let mut patience = MOST;
        if !self.machine.batch().is_empty() {
            patience = patience.min(self.pace.positions_every.saturating_sub(self.gathering.age(now)));
        }
        if self.is_recovering || self.machine.in_flight() > 0 || !self.machine.waits_for_positions().is_empty() {
            patience = patience.min(WHILE_BUSY);
        }
        if let Some(due_ms) = self.machine.next_due() {
            let left = u64::try_from(due_ms.saturating_sub(now.wall_ms)).unwrap_or(0);
            patience = patience.min(Duration::from_millis(left).max(WHILE_BUSY));
        }
        patience
    }

    /// Fetches the ends of the inputs when a timer is due: the records before these ends come first.
    fn fetch_ends(&mut self, now: Now) {
        let partitions = self.machine.needs_ends(now.wall_ms);
        if !partitions.is_empty() && now.elapsed.saturating_sub(self.ends_fetched) >= self.pace.ends_every {
            self.ends_fetched = now.elapsed;
            self.due.push_back(Step::FetchEnds { partitions });
        }
    }

    fn read_positions(&mut self) {
        // The client has delivered the record that waits for this commit, and the turn has not taken it: its position says too much.
        if self.gathering.must_commit() {
            return;
        }
        // The client reads a held partition again from the record before which it is held, and then reaches its end again.
        let (machine, consuming) = (&self.machine, &self.consuming);
        self.at_end
            .retain(|partition| consuming.contains(partition) && machine.held().all(|(held, _)| held != *partition));
        let mut partitions = self.at_end.clone();
        partitions.extend(self.machine.waits_for_positions());
        if !partitions.is_empty() {
            self.due.push_back(Step::ReadPositions { partitions: partitions.into_iter().collect() });
        }
    }

    /// Commits decisions at once. A batch with positions only may wait, unless something waits for its end.
    fn commit(&mut self, now: Now) {
        let batch = self.machine.batch();
        let may_wait = batch.outputs().is_empty()
            && batch.inputs() < self.pace.batch_inputs
            && self.gathering.age(now) < self.pace.positions_every;
        let at_once = self.has_rebalance || self.is_stopping || self.gathering.must_commit();
        if !may_wait || at_once {
            self.commit_open_batch();
        }
    }

    fn commit_open_batch(&mut self) {
        if self.machine.batch().is_empty() {
            return;
        }
        self.machine.commit_reached();
        match self.fence.clone() {
            Some(fence) => self.due.push_back(Step::Commit { fence }),
            None => self.error = Some(TurnError::NoMembership),
        }
    }

    fn pause(&mut self, now: Now) {
        for partition in self.holds.begin(&self.pace, now) {
            self.consuming.remove(&partition);
            self.due.push_back(Step::Pause { partition });
        }
    }

    fn between(&mut self, now: Now) {
        if !self.machine.batch().is_empty() {
            return;
        }
        let due = self.machine.due_effects(self.pace.effects_in_flight, now.wall_ms);
        self.due.extend(due.into_iter().map(|effect| Step::Perform(Box::new(effect))));
        if now.elapsed.saturating_sub(self.checkpointed) >= self.pace.checkpoint_every {
            self.due.push_back(Step::Checkpoint);
        }
    }

    /// Resumes partitions whose pause is over. Their holds end some time later, if they then take records.
    fn resume(&mut self, now: Now) {
        let (resumed, ended) = self.holds.end(&self.machine, &self.consuming, now);
        for partition in resumed {
            self.machine.resume(partition);
            self.consuming.insert(partition);
            self.due.push_back(Step::Resume { partitions: vec![partition] });
        }
        self.due.extend(ended.into_iter().map(|partition| Step::HoldEnded { partition }));
    }
}

/// What a driver reports.
impl<D: Decider, F: Clone> Turn<D, F> {
    /// To [`Step::SnapshotFence`]: the member and the generation with which the worker would commit now.
    pub fn fence(&mut self, fence: Option<F>) {
        self.fence = fence;
    }

    /// To [`Step::FetchSchema`] and [`Offer::NeedsSchema`]: the fetched schema.
    pub fn learn(&mut self, schema: SchemaRef, found: Result<&'static ReadSchema, DecodeError>) {
        self.machine.learn(schema, found);
    }

    /// To [`Step::LoadEntity`] and [`Offer::NeedsEntity`]: the entity from the last checkpoint.
    ///
    /// # Errors
    /// The bytes are malformed. The driver must discard the store and end the incarnation.
    pub fn load(&mut self, partition: i32, entity: &str, bytes: &[u8]) -> Result<(), MalformedCheckpoint> {
        self.machine.load(partition, entity, bytes)
    }

    /// To [`Step::FetchEnds`]: the ends of every input of a partition, fetched at `requested_at_ms`.
    pub fn ends(&mut self, partition: i32, requested_at_ms: TimestampMs, ends: Vec<i64>) {
        self.machine.ends_known(partition, requested_at_ms, ends);
    }

    /// To [`Step::Gather`]: the client has delivered every record of a partition of an input, and has offered each to the turn.
    pub fn reached_end(&mut self, partition: i32) {
        self.at_end.insert(partition);
    }

    /// To [`Step::ReadPositions`]: the client has delivered every record of a partition before these positions. A driver that does
    /// not know them reports nothing, and is asked again.
    pub fn reached(&mut self, partition: i32, positions: &[i64], now: Now) {
        self.at_end.remove(&partition);
        self.machine.reached(partition, positions, now.wall_ms);
    }

    /// To [`Step::Commit`]: the batch is committed. `own_ends` has the ends of its records in the own log.
    pub fn committed(&mut self, own_ends: &BTreeMap<i32, i64>, now: Now) {
        self.machine.committed(own_ends, now.wall_ms);
        self.gathering.committed();
    }

    /// To [`Step::TakeRebalance`]: the group has assigned these partitions in a new generation.
    pub fn assigned(&mut self, partitions: Vec<i32>) {
        self.commit_before_rebalance();
        self.due.push_back(Step::AcceptAssignment);
        if !partitions.is_empty() {
            self.due.push_back(Step::Recover { partitions });
        }
    }

    /// To [`Step::TakeRebalance`]: the group has revoked every partition.
    pub fn revoked(&mut self) {
        self.commit_before_rebalance();
        self.due.push_back(Step::Unassign);
        self.due.push_back(Step::Checkpoint);
        self.due.push_back(Step::Release);
    }

    /// Commits the open batch with the membership of its beginning, before partitions change their owner.
    fn commit_before_rebalance(&mut self) {
        self.has_rebalance = false;
        self.phase = Phase::Rebalance;
        self.commit_open_batch();
    }

    /// To [`Step::Recover`]: the recovery has begun.
    pub fn recovery_began(&mut self) {
        self.is_recovering = true;
    }

    /// To [`Step::TakeRecovered`]: these partitions may decide. `is_done` is true if no other partition recovers.
    pub fn recovered(&mut self, tasks: Vec<Task<D>>, is_done: bool) {
        self.is_recovering &= !is_done;
        let partitions: Vec<i32> = tasks.iter().map(Task::partition).collect();
        for task in tasks {
            self.consuming.insert(task.partition());
            self.machine.adopt(task);
        }
        if !partitions.is_empty() {
            self.due.push_back(Step::Resume { partitions });
        }
    }

    /// To [`Step::Release`]: releases every partition. Returns them.
    pub fn released(&mut self) -> Vec<i32> {
        let partitions: Vec<i32> = self.machine.tasks().map(Task::partition).collect();
        for partition in &partitions {
            self.machine.release(*partition);
        }
        self.consuming.clear();
        self.at_end.clear();
        self.holds.clear();
        self.is_recovering = false;
        partitions
    }

    /// To [`Step::Checkpoint`]: the changes since the last checkpoint.
    pub fn checkpoint(&mut self, now: Now) -> Vec<crate::TaskCheckpoint> {
        self.checkpointed = now.elapsed;
        self.machine.save()
    }

    /// To [`Step::TakeReports`]: the answer of an effect is in the inbox.
    pub fn effect_answered(&mut self, partition: i32, effect_key: &str, now: Now) {
        self.machine.effect_answered(partition, effect_key, now.wall_ms);
    }

    /// To [`Step::TakeReports`]: an attempt had no definite answer. `jitter` may be any number.
    pub fn effect_unanswered(
        &mut self,
        partition: i32,
        effect_key: &str,
        retry_after: Option<Duration>,
        now: Now,
        jitter: u64,
    ) {
        self.machine.effect_unanswered(partition, effect_key, retry_after, now.wall_ms, jitter);
    }

    /// Ends the worker after its open batch.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Evicts an entity's state from memory. See [`Machine::evict`].
    pub fn evict(&mut self, partition: i32, entity: &str) -> bool {
        self.machine.batch().is_empty() && self.machine.evict(partition, entity)
    }
}

/// The state that a driver reads.
impl<D: Decider, F: Clone> Turn<D, F> {
    /// What the service reads and writes.
    #[must_use]
    pub fn contract(&self) -> &ServiceContract {
        self.machine.contract()
    }

    /// The batch to commit.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        self.machine.batch()
    }

    /// The positions to commit with the batch: index of the input, partition, next offset, and the offset's metadata.
    pub fn offsets(&self) -> impl Iterator<Item = (usize, i32, i64, String)> {
        self.machine.batch().positions().map(|((input, partition), next)| {
            let own_next = self.machine.task(partition).map_or(0, Task::own_next);
            (input, partition, next, log_bounds::offset_metadata(own_next))
        })
    }

    /// The known ends of the own log: see [`log_bounds::check_appended`].
    #[must_use]
    pub fn own_ends(&self) -> BTreeMap<i32, i64> {
        self.machine.own_ends()
    }

    /// Every partition of every input that the client reads, with the offset to start at.
    pub fn assignment(&self) -> impl Iterator<Item = (Arc<str>, i32, i64)> {
        let tasks = self.consuming.iter().filter_map(|partition| self.machine.task(*partition));
        tasks.flat_map(|task| {
            let positions = self.contract().inputs.iter().zip(task.positions());
            positions.map(|(topic, position)| (Arc::clone(topic), task.partition(), *position))
        })
    }

    /// The partitions whose inputs the client reads.
    #[must_use]
    pub fn consuming(&self) -> &BTreeSet<i32> {
        &self.consuming
    }

    /// Why a partition is held, if it is.
    #[must_use]
    pub fn hold_reason(&self, partition: i32) -> Option<&HoldReason> {
        self.machine.held().find(|(held, _)| *held == partition).map(|(_, reason)| reason)
    }

    /// The machine, for its status.
    #[must_use]
    pub fn machine(&self) -> &Machine<D> {
        &self.machine
    }

    /// True while partitions recover.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.is_recovering
    }

    /// True if the group lacks positions that the client has reached. They are committed soon.
    #[must_use]
    pub fn has_uncommitted(&self) -> bool {
        self.machine.has_uncommitted()
    }

    /// True if every position must be committed again before it expires.
    #[must_use]
    pub fn is_recommit_due(&self, now: Now) -> bool {
        now.elapsed.saturating_sub(self.recommitted) >= self.pace.recommit_every
    }

    /// The number of inputs of the last gathering.
    #[must_use]
    pub fn gathered(&self) -> usize {
        self.gathering.taken()
    }

    /// The next moment at which something is due, on the wall clock of `now`.
    #[must_use]
    pub fn next_due(&self, now: Now) -> Option<TimestampMs> {
        let in_ms = |at: Duration| {
            let left = at.saturating_sub(now.elapsed).as_millis();
            now.wall_ms.saturating_add(i64::try_from(left).unwrap_or(i64::MAX))
        };
        let holds = self.holds.next_end(&self.consuming).map(in_ms);
        let batch =
            (!self.machine.batch().is_empty()).then(|| in_ms(self.gathering.since() + self.pace.positions_every));
        let ends = self.uncommitted_since.map(|since| in_ms(since + self.pace.ends_committed_within));
        self.machine.next_due().into_iter().chain(holds).chain(batch).chain(ends).min()
    }
}

impl Phase {
    fn following(self) -> Self {
        match self {
            Self::Begin => Self::Drain,
            Self::Drain => Self::Gather,
            Self::Gather => Self::FetchEnds,
            Self::FetchEnds => Self::ReadPositions,
            Self::ReadPositions => Self::Commit,
            Self::Commit => Self::Pause,
            Self::Pause => Self::Rebalance,
            Self::Rebalance => Self::Recovered,
            Self::Recovered => Self::Reports,
            Self::Reports => Self::Between,
            Self::Between => Self::Resume,
            Self::Resume => Self::End,
            Self::End => Self::Begin,
        }
    }
}
