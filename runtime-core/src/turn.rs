//! A worker's turn: what it does when, as a state machine without I/O.
//!
//! A driver asks [`Turn::next`] for a [`Step`], executes it, and reports what happened; then it asks again. One turn gathers
//! inputs, fires timers that may fire, commits the batch as one transaction, and does what belongs between two batches: what the
//! group changed, partitions that have recovered, answers of effects, effects that are due, held partitions, checkpoints. Any
//! error of the driver ends the incarnation: the turn is dropped, and the next one starts from the log.
//!
//! The Kafka worker and the simulation execute these same steps; each rule of a worker is written here and nowhere else.

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
    recoveries::StartAt,
    time::TimestampMs,
};

/// What one incarnation of a worker leaves to the next.
#[derive(Debug, Default)]
pub struct Carried {
    /// The records that the service's own code crashed on and lost a state over.
    pub crashes: BTreeMap<Position, CrashCount>,
    /// When clients were fenced.
    pub fencing: Fencing,
    /// What the topics take, once it has turned out to be other than at the start.
    pub limits: Option<Limits>,
}

impl Carried {
    /// Notes why an incarnation ended.
    pub fn ended(&mut self, error: &TurnError) {
        if let TurnError::StateLost { position, reason } = error {
            self.crashes.entry(position.clone()).or_default().add(reason);
        }
    }
}

/// Where a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Drain,
    Gather,
    AskEnds,
    AskPositions,
    Commit,
    Pause,
    Changes,
    Recovered,
    Reports,
    Between,
    Resume,
    End,
}

/// One incarnation of a worker. `F` is what fences a transaction: a member of the group in one of its generations.
pub struct Turn<D: Decider, F> {
    machine: Machine<D>,
    pace: Pace,
    crashes: BTreeMap<Position, CrashCount>,
    phase: Phase,
    /// What to do before the phase goes on.
    due: VecDeque<Step<D, F>>,
    /// As whom the open batch commits: the membership of the moment at which it began.
    fence: Option<F>,
    gathering: Gathering,
    holds: Holds,
    /// The partitions whose inputs the client reads.
    flowing: BTreeSet<i32>,
    is_recovering: bool,
    has_change: bool,
    is_stopping: bool,
    ends_asked: Duration,
    checkpointed: Duration,
    recommitted: Duration,
    error: Option<TurnError>,
}

impl<D: Decider, F: Clone> Turn<D, F> {
    /// A worker that owns nothing yet.
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
            flowing: BTreeSet::new(),
            is_recovering: false,
            has_change: false,
            is_stopping: false,
            ends_asked: Duration::ZERO,
            checkpointed: now.elapsed,
            recommitted: now.elapsed,
            error: None,
        }
    }

    /// What to do next.
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

    /// Does what a phase is for; returns the next one.
    fn advance(&mut self, now: Now) -> Phase {
        match self.phase {
            Phase::Begin => self.begin(now),
            Phase::Drain => return self.drain(now),
            Phase::Gather => self.gather(now),
            Phase::AskEnds => self.ask_ends(now),
            Phase::AskPositions => self.ask_positions(),
            Phase::Commit => self.commit(now),
            Phase::Pause => self.pause(now),
            Phase::Changes => self.due.push_back(Step::TakeRebalance),
            Phase::Recovered if self.is_recovering => self.due.push_back(Step::TakeRecovered),
            Phase::Reports if self.machine.in_flight() > 0 => self.due.push_back(Step::TakeReports),
            Phase::Recovered | Phase::Reports => {}
            Phase::Between => self.between(now),
            Phase::Resume => self.resume(now),
            Phase::End => self.due.push_back(Step::EndTurn),
        }
        self.phase.following()
    }

    /// A batch that begins now is fenced as the member that the worker is now: the metadata of a later generation would pass the
    /// fence for partitions that were lost meanwhile. Offsets of topics that are assigned but not subscribed expire, so now and then
    /// a batch begins with all of them.
    fn begin(&mut self, now: Now) {
        if self.is_stopping {
            self.commit_open_batch();
            self.due.push_back(Step::Checkpoint);
            self.due.push_back(Step::Stop);
        } else if self.machine.batch().is_empty() {
            self.due.push_back(Step::SnapshotFence);
            if self.is_recommit_due(now) {
                self.recommitted = now.elapsed;
                self.machine.recommit();
            }
        }
    }

    /// Parked records that nothing stands before any more are handled like input.
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
                self.holds.notice(&self.machine, &self.flowing);
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

    /// How long to wait for input when there is nothing else to do.
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

    /// Asks for the ends of the inputs when a timer is due: what is there by then comes first.
    fn ask_ends(&mut self, now: Now) {
        let partitions = self.machine.wants_ends(now.wall_ms);
        if !partitions.is_empty() && now.elapsed.saturating_sub(self.ends_asked) >= self.pace.ends_every {
            self.ends_asked = now.elapsed;
            self.due.push_back(Step::AskEnds { partitions });
        }
    }

    fn ask_positions(&mut self) {
        let partitions = self.machine.waits_for_positions();
        if !partitions.is_empty() {
            self.due.push_back(Step::AskPositions { partitions });
        }
    }

    /// Decisions are committed at once, positions alone at leisure, unless something waits for the batch to end.
    fn commit(&mut self, now: Now) {
        let batch = self.machine.batch();
        let may_wait = batch.outputs().is_empty()
            && batch.inputs() < self.pace.batch_inputs
            && self.gathering.age(now) < self.pace.positions_every;
        let at_once = self.has_change || self.is_stopping || self.gathering.must_commit();
        if !may_wait || at_once {
            self.commit_open_batch();
        }
    }

    fn commit_open_batch(&mut self) {
        if self.machine.batch().is_empty() {
            return;
        }
        match self.fence.clone() {
            Some(fence) => self.due.push_back(Step::Commit { fence }),
            None => self.error = Some(TurnError::NoMembership),
        }
    }

    fn pause(&mut self, now: Now) {
        for partition in self.holds.begin(&self.pace, now) {
            self.flowing.remove(&partition);
            self.due.push_back(Step::Pause { partition });
        }
    }

    fn between(&mut self, now: Now) {
        if !self.machine.batch().is_empty() {
            return;
        }
        let due = self.machine.due_effects(self.pace.effects_in_flight, now.wall_ms);
        self.due.extend(due.into_iter().map(Step::Perform));
        if now.elapsed.saturating_sub(self.checkpointed) >= self.pace.checkpoint_every {
            self.due.push_back(Step::Checkpoint);
        }
    }

    /// Resumes held partitions that have rested. One that then takes a record is well again.
    fn resume(&mut self, now: Now) {
        let (rested, well) = self.holds.end(&self.machine, &self.flowing, now);
        for partition in rested {
            self.machine.resume(partition);
            self.flowing.insert(partition);
            self.due.push_back(Step::Resume { partitions: vec![partition] });
        }
        self.due.extend(well.into_iter().map(|partition| Step::HoldEnded { partition }));
    }
}

/// What a driver reports.
impl<D: Decider, F: Clone> Turn<D, F> {
    /// To [`Step::SnapshotFence`]: as which member of which generation the worker would commit now.
    pub fn fence(&mut self, fence: Option<F>) {
        self.fence = fence;
    }

    /// To [`Step::FetchSchema`] and [`Offer::NeedsSchema`]: what was found.
    pub fn learn(&mut self, schema: SchemaRef, found: Result<&'static ReadSchema, DecodeError>) {
        self.machine.learn(schema, found);
    }

    /// To [`Step::LoadEntity`] and [`Offer::NeedsEntity`]: the entity as the last checkpoint saved it.
    ///
    /// # Errors
    /// The bytes are malformed: the store must be discarded, and the incarnation ended.
    pub fn load(&mut self, partition: i32, entity: &str, bytes: &[u8]) -> Result<(), MalformedCheckpoint> {
        self.machine.load(partition, entity, bytes)
    }

    /// To [`Step::AskEnds`]: the ends of a partition of every input, asked for at `asked_at_ms`.
    pub fn ends(&mut self, partition: i32, asked_at_ms: TimestampMs, ends: Vec<i64>) {
        self.machine.ends_known(partition, asked_at_ms, ends);
    }

    /// To [`Step::AskPositions`]: the client has delivered everything of a partition before these positions.
    pub fn reached(&mut self, partition: i32, positions: &[i64], now: Now) {
        self.machine.reached(partition, positions, now.wall_ms);
    }

    /// To [`Step::Commit`]: it is committed; `own_ends` has the ends of what it appended to the own log.
    pub fn committed(&mut self, own_ends: &BTreeMap<i32, i64>, now: Now) {
        self.machine.committed(own_ends, now.wall_ms);
        self.gathering.committed();
    }

    /// To [`Step::TakeRebalance`]: the group has assigned these partitions in a new generation.
    pub fn assigned(&mut self, partitions: Vec<i32>) {
        self.end_batch_before_change();
        self.due.push_back(Step::AcceptAssignment);
        if !partitions.is_empty() {
            self.due.push_back(Step::Recover { partitions });
        }
    }

    /// To [`Step::TakeRebalance`]: the group takes every partition back.
    pub fn revoked(&mut self) {
        self.end_batch_before_change();
        self.due.push_back(Step::Unassign);
        self.due.push_back(Step::Checkpoint);
        self.due.push_back(Step::Release);
    }

    /// A batch ends under the membership of its beginning before anything changes hands.
    fn end_batch_before_change(&mut self) {
        self.has_change = false;
        self.phase = Phase::Changes;
        self.commit_open_batch();
    }

    /// To [`Step::Recover`]: it has begun.
    pub fn recovery_began(&mut self) {
        self.is_recovering = true;
    }

    /// To [`Step::TakeRecovered`]: these partitions may decide; `is_done` if no other is left.
    pub fn recovered(&mut self, tasks: Vec<Task<D>>, is_done: bool) {
        self.is_recovering &= !is_done;
        let partitions: Vec<i32> = tasks.iter().map(Task::partition).collect();
        for task in tasks {
            self.flowing.insert(task.partition());
            self.machine.adopt(task);
        }
        if !partitions.is_empty() {
            self.due.push_back(Step::Resume { partitions });
        }
    }

    /// To [`Step::Release`]: gives up what is owned. Returns the partitions.
    pub fn released(&mut self) -> Vec<i32> {
        let partitions: Vec<i32> = self.machine.tasks().map(Task::partition).collect();
        for partition in &partitions {
            self.machine.release(*partition);
        }
        self.flowing.clear();
        self.holds.clear();
        self.is_recovering = false;
        partitions
    }

    /// To [`Step::Checkpoint`]: what changed since the last one.
    pub fn checkpoint(&mut self, now: Now) -> Vec<crate::TaskCheckpoint> {
        self.checkpointed = now.elapsed;
        self.machine.save()
    }

    /// To [`Step::TakeReports`]: the answer of an effect lies in the inbox.
    pub fn effect_answered(&mut self, partition: i32, effect_key: &str, now: Now) {
        self.machine.effect_answered(partition, effect_key, now.wall_ms);
    }

    /// To [`Step::TakeReports`]: an attempt had no definite answer. `jitter` is any number.
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

    /// The worker ends after its open batch.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Lets an entity's state lie in the store only. See [`Machine::evict`].
    pub fn evict(&mut self, partition: i32, entity: &str) -> bool {
        self.machine.batch().is_empty() && self.machine.evict(partition, entity)
    }
}

/// What a driver reads.
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

    /// The positions to commit with the batch: index of the input, partition, next offset, and the metadata beside it.
    pub fn offsets(&self) -> impl Iterator<Item = (usize, i32, i64, String)> {
        self.machine.batch().positions().map(|((input, partition), next)| {
            let own_next = self.machine.task(partition).map_or(0, Task::own_next);
            (input, partition, next, log_bounds::offset_metadata(own_next))
        })
    }

    /// How far the own log is known to reach: see [`log_bounds::check_appended`].
    #[must_use]
    pub fn own_ends(&self) -> BTreeMap<i32, i64> {
        self.machine.own_ends()
    }

    /// Every partition whose inputs the client reads, with where to read each input next.
    pub fn assignment(&self) -> impl Iterator<Item = (Arc<str>, i32, StartAt)> {
        let tasks = self.flowing.iter().filter_map(|partition| self.machine.task(*partition));
        tasks.flat_map(|task| {
            let positions = self.contract().inputs.iter().zip(task.positions()).enumerate();
            positions.map(|(input, (topic, position))| {
                // An inbox may be truncated, so "nothing consumed yet" is its beginning, whichever offset that has.
                let at_beginning = input == 0 && *position == 0;
                let start = if at_beginning { StartAt::Beginning } else { StartAt::Offset(*position) };
                (Arc::clone(topic), task.partition(), start)
            })
        })
    }

    /// The partitions whose inputs the client reads.
    #[must_use]
    pub fn flowing(&self) -> &BTreeSet<i32> {
        &self.flowing
    }

    /// Why a partition is held, if it is.
    #[must_use]
    pub fn hold_reason(&self, partition: i32) -> Option<&HoldReason> {
        self.machine.held().find(|(held, _)| *held == partition).map(|(_, reason)| reason)
    }

    /// The machine, to look at.
    #[must_use]
    pub fn machine(&self) -> &Machine<D> {
        &self.machine
    }

    /// True while partitions recover.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.is_recovering
    }

    /// True if every position is to be committed again before it expires.
    #[must_use]
    pub fn is_recommit_due(&self, now: Now) -> bool {
        now.elapsed.saturating_sub(self.recommitted) >= self.pace.recommit_every
    }

    /// How many inputs the last gathering took.
    #[must_use]
    pub fn gathered(&self) -> usize {
        self.gathering.taken()
    }

    /// The next moment at which something is due, by the wall clock of `now`.
    #[must_use]
    pub fn next_due(&self, now: Now) -> Option<TimestampMs> {
        let in_ms = |at: Duration| {
            let left = at.saturating_sub(now.elapsed).as_millis();
            now.wall_ms.saturating_add(i64::try_from(left).unwrap_or(i64::MAX))
        };
        let holds = self.holds.next_end(&self.flowing).map(in_ms);
        let batch =
            (!self.machine.batch().is_empty()).then(|| in_ms(self.gathering.since() + self.pace.positions_every));
        self.machine.next_due().into_iter().chain(holds).chain(batch).min()
    }
}

impl Phase {
    fn following(self) -> Self {
        match self {
            Self::Begin => Self::Drain,
            Self::Drain => Self::Gather,
            Self::Gather => Self::AskEnds,
            Self::AskEnds => Self::AskPositions,
            Self::AskPositions => Self::Commit,
            Self::Commit => Self::Pause,
            Self::Pause => Self::Changes,
            Self::Changes => Self::Recovered,
            Self::Recovered => Self::Reports,
            Self::Reports => Self::Between,
            Self::Between => Self::Resume,
            Self::Resume => Self::End,
            Self::End => Self::Begin,
        }
    }
}
