//! One incarnation of a worker: it executes the steps of the production [`Turn`] on the simulated cluster, one at a time.
//!
//! The turn decides what happens when, as in production. Between any two steps that do anything the process may crash, be paused,
//! or lose its membership in the group.

mod gathering;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use self::gathering::FetchPositions;
use super::{
    ServiceContext, Violation, World,
    effect_attempt::{EffectAttempt, EffectReport},
    filter::Filter,
    group_client::{AssignmentChange, GroupClient},
    recovery::RecoveryDriver,
    store::Store,
    transaction::{BatchTransaction, RequestOutcome},
};
use crate::{
    cluster::{Membership, ProducerSession, TopicPartition},
    mutant::Mutant,
};
use runtime::{
    Decider,
    codec::Readers,
    core::{
        DueEffect, Task, TaskCheckpoint,
        log_bounds::check_appended,
        turn::{Carried, Now, Pace, Step, Turn, TurnError},
    },
};

/// Why an incarnation ended without a crash of its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IncarnationEnd {
    /// An error of the cluster: it starts again from the log.
    Failed(String),
    /// The turn gave up.
    Turn(TurnError),
    /// The topics lack records that the store proves: an operator must act.
    LogLoss(String),
}

/// The result of one call.
pub(crate) enum IncarnationProgress {
    /// There was nothing to do.
    Idle,
    /// Something was done.
    Worked,
    /// The incarnation has ended.
    Ended(IncarnationEnd),
    /// It has stopped on request.
    Stopped,
}

/// The outcome of one step of the turn.
enum StepOutcome {
    Idle,
    Worked,
    Ended(IncarnationEnd),
}

/// One incarnation.
pub(crate) struct Incarnation<D: Decider> {
    pub(crate) number: u64,
    pub(crate) turn: Turn<D, Membership>,
    pub(crate) client: GroupClient,
    pub(crate) reports: VecDeque<EffectReport>,
    pub(crate) begun: Vec<EffectAttempt<D>>,
    readers: Readers,
    session: ProducerSession,
    pace: Pace,
    /// The partitions whose inputs the client reads.
    reading: BTreeSet<i32>,
    fetched: FetchPositions,
    /// True if a partition no longer has the records to continue from.
    is_out_of_range: bool,
    /// The number of changes of the log at which everything was read to its end.
    read_all: Option<u64>,
    /// A record that the client has delivered and the turn takes only after the open batch is committed: input, partition, offset.
    postponed: Option<(usize, i32, i64)>,
    recovery: Option<RecoveryDriver<D>>,
    transaction: Option<BatchTransaction>,
    filter: Filter<D>,
    has_worked: bool,
}

impl<D: Decider> Incarnation<D> {
    pub(crate) fn begin(
        service: &ServiceContext<D>,
        world: &mut World,
        number: u64,
        session: ProducerSession,
        (carried, now): (&Carried, Now),
    ) -> Self {
        let pace = Pace {
            checkpoint_every: Duration::from_millis(world.random.within(300..=3_000).unsigned_abs()),
            batch_inputs: *world.random.pick(&[4, 20, 1_000]),
            ..Pace::default()
        };
        Self {
            number,
            turn: Turn::new(service.decider.clone(), service.contract.without_schemas(), carried, pace.clone(), now),
            client: GroupClient::default(),
            reports: VecDeque::new(),
            begun: Vec::new(),
            readers: service.fresh_readers(world),
            session,
            pace,
            reading: BTreeSet::new(),
            fetched: FetchPositions::new(service.inputs.len(), service.contract.partitions),
            is_out_of_range: false,
            read_all: None,
            postponed: None,
            recovery: None,
            transaction: None,
            filter: Filter::new(world.mutant),
            has_worked: false,
        }
    }

    /// True while a transaction may be committed although the process has got no reply.
    pub(crate) fn is_ending_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(BatchTransaction::is_ending)
    }

    pub(crate) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Executes steps until one does something, or until the turn is over.
    pub(crate) fn step(
        &mut self,
        service: &ServiceContext<D>,
        store: &mut Store,
        world: &mut World,
        (process, now): (&str, Now),
    ) -> Result<IncarnationProgress, Violation> {
        if self.transaction.is_some() && !(self.filter.works_while_committing() && world.random.permille(500)) {
            return self.continue_commit(world, process, now);
        }
        loop {
            let turn = &mut self.turn;
            let Some(step) = self.filter.next(turn.next(now), self.client.has_change(), world) else {
                return Ok(IncarnationProgress::Worked);
            };
            match step {
                Step::Stop => {
                    store.flush();
                    return Ok(IncarnationProgress::Stopped);
                }
                Step::EndTurn => {
                    let has_worked = std::mem::take(&mut self.has_worked);
                    return Ok(if has_worked { IncarnationProgress::Worked } else { IncarnationProgress::Idle });
                }
                step => match self.execute(service, store, world, (process, now), step)? {
                    StepOutcome::Idle => {}
                    StepOutcome::Worked => return Ok(IncarnationProgress::Worked),
                    StepOutcome::Ended(end) => return Ok(IncarnationProgress::Ended(end)),
                },
            }
        }
    }

    fn execute(
        &mut self,
        service: &ServiceContext<D>,
        store: &mut Store,
        world: &mut World,
        (process, now): (&str, Now),
        step: Step<D, Membership>,
    ) -> Result<StepOutcome, Violation> {
        match step {
            Step::SnapshotFence => self.turn.fence(self.client.membership()),
            Step::FetchSchema(schema) => self.turn.learn(schema, self.readers.schema_anew(schema)),
            Step::LoadEntity { partition, key } => return self.load_entity(store, world, partition, &key),
            Step::Gather { .. } => return self.gather(service, store, world, (process, now)),
            Step::FetchEnds { partitions } => self.fetch_ends(service, world, &partitions, now),
            Step::ReadPositions { partitions } => self.read_positions(service, world, &partitions, now),
            Step::Commit { fence } => return self.begin_commit(service, world, (fence, now)),
            Step::Pause { partition } => self.pause(world, partition),
            Step::Resume { partitions } => self.resume(service, &partitions),
            Step::HoldEnded { .. } => world.trace.sometimes("a paused partition has recovered"),
            Step::TakeRebalance => return Ok(self.take_change(world)),
            Step::AcceptAssignment => return Ok(StepOutcome::Worked),
            Step::Recover { partitions } => {
                self.recovery = Some(RecoveryDriver::start(service, self.readers.clone(), partitions));
                self.turn.recovery_began();
                return Ok(StepOutcome::Worked);
            }
            Step::Unassign => {
                self.reading.clear();
                self.client.acknowledge_revocation();
                return Ok(StepOutcome::Worked);
            }
            Step::Release => {
                self.turn.released();
                self.postponed = None;
                self.recovery = None;
            }
            Step::TakeRecovered => return self.take_recovered(service, store, world, now),
            Step::TakeReports => return Ok(self.take_reports(world, now)),
            Step::Perform(effect) => return Ok(self.perform(world, *effect)),
            Step::Checkpoint => self.checkpoint(store, world, now),
            Step::Fail(error) => return Ok(StepOutcome::Ended(IncarnationEnd::Turn(error))),
            Step::EndTurn | Step::Stop => {}
        }
        Ok(StepOutcome::Idle)
    }

    fn begin_commit(
        &mut self,
        service: &ServiceContext<D>,
        world: &mut World,
        (fence, now): (Membership, Now),
    ) -> Result<StepOutcome, Violation> {
        if self.transaction.is_some() {
            // Only with a mutant: the previous transaction is still in progress.
            return Ok(StepOutcome::Worked);
        }
        if self.filter.drops_recommit(self.turn.batch()) {
            self.turn.committed(&BTreeMap::new(), now);
            return Ok(StepOutcome::Worked);
        }
        let inputs = self.turn.batch().inputs();
        if inputs > self.pace.batch_inputs {
            let what = format!("it has {inputs} inputs of at most {}", self.pace.batch_inputs);
            return Err(Violation::new("a batch stays within its limits", what));
        }
        let fence = if self.filter.commits_with_current_membership() {
            self.client.membership().unwrap_or(fence)
        } else {
            fence
        };
        self.transaction = Some(BatchTransaction::of(service, &self.turn, &self.session, fence, world));
        if world.is(Mutant::EffectsBeforeCommit) {
            self.turn.committed(&BTreeMap::new(), now);
        }
        Ok(StepOutcome::Worked)
    }

    fn continue_commit(
        &mut self,
        world: &mut World,
        process: &str,
        now: Now,
    ) -> Result<IncarnationProgress, Violation> {
        let Some(transaction) = &mut self.transaction else { return Ok(IncarnationProgress::Idle) };
        let failed = |reason: &str| Ok(IncarnationProgress::Ended(IncarnationEnd::Failed(reason.to_owned())));
        if world.now_ms - transaction.begun_ms > crate::cluster::TRANSACTION_MS {
            return failed("the transaction timed out");
        }
        match transaction.step(world, process) {
            RequestOutcome::Continue => Ok(IncarnationProgress::Worked),
            RequestOutcome::Retry => Ok(IncarnationProgress::Idle),
            RequestOutcome::Failed(reason) => failed(&reason),
            RequestOutcome::Committed => {
                let own_ends = std::mem::take(&mut transaction.own_ends);
                self.transaction = None;
                let topic = &self.turn.contract().events_topic;
                if let Err(loss) = check_appended(topic, &self.turn.own_ends(), &own_ends) {
                    return Err(Violation::new("a log only grows", loss.to_string()));
                }
                if !world.is(Mutant::EffectsBeforeCommit) {
                    self.turn.committed(&own_ends, now);
                }
                Ok(IncarnationProgress::Worked)
            }
        }
    }

    fn pause(&mut self, world: &mut World, partition: i32) {
        let reason = self.turn.hold_reason(partition).map_or("", |held| held.reason.as_str());
        world.trace.sometimes(match reason {
            reason if reason.contains("after a pause") => "a record that lost a state waits before its retry",
            reason if reason.contains("schema") => "a partition is paused until a schema is available",
            _ => "a partition is paused because its decider fails",
        });
        self.reading.remove(&partition);
    }

    fn resume(&mut self, service: &ServiceContext<D>, partitions: &[i32]) {
        self.read_all = None;
        self.reading.extend(partitions);
        for (topic, partition, start) in self.turn.assignment() {
            let input = service.contract.inputs.iter().position(|input| **input == *topic);
            if let (Some(input), true) = (input, partitions.contains(&partition)) {
                self.fetched.set(input, partition, start);
            }
        }
    }

    fn take_change(&mut self, world: &mut World) -> StepOutcome {
        match self.client.next_change() {
            None => return StepOutcome::Idle,
            Some(AssignmentChange::Assigned(partitions)) => self.turn.assigned(partitions.into_iter().collect()),
            Some(AssignmentChange::Revoked) => {
                if !self.turn.batch().is_empty() {
                    world.trace.sometimes("partitions are revoked before their positions are committed");
                }
                self.turn.revoked();
            }
        }
        StepOutcome::Worked
    }

    fn take_recovered(
        &mut self,
        service: &ServiceContext<D>,
        store: &mut Store,
        world: &mut World,
        now: Now,
    ) -> Result<StepOutcome, Violation> {
        let Some(recovery) = &mut self.recovery else { return Ok(StepOutcome::Idle) };
        let member = self.client.membership();
        let is_owner = member.is_some_and(|member| world.cluster.admits(service.group, member));
        let recovered = match recovery.step(service, store, world, (now, is_owner))? {
            Ok(recovered) => recovered,
            Err(loss) => return Ok(StepOutcome::Ended(IncarnationEnd::LogLoss(loss))),
        };
        let is_done = recovery.is_done();
        if is_done {
            self.recovery = None;
        }
        self.turn.recovered(recovered.tasks, is_done);
        Ok(if recovered.has_worked { StepOutcome::Worked } else { StepOutcome::Idle })
    }

    fn take_reports(&mut self, world: &mut World, now: Now) -> StepOutcome {
        let has_reports = !self.reports.is_empty();
        while let Some(report) = self.reports.pop_front() {
            if report.answered {
                self.turn.effect_answered(report.partition, &report.key, now);
            } else {
                let jitter = world.random.draw();
                self.turn.effect_unanswered(report.partition, &report.key, None, now, jitter);
            }
        }
        if has_reports { StepOutcome::Worked } else { StepOutcome::Idle }
    }

    fn perform(&mut self, world: &mut World, effect: DueEffect<D::Effect>) -> StepOutcome {
        self.begun.push(EffectAttempt::begin(self.number, effect, world));
        StepOutcome::Worked
    }

    fn checkpoint(&mut self, store: &mut Store, world: &mut World, now: Now) {
        let mut saved_keys = Vec::new();
        for mut saved in self.turn.checkpoint(now) {
            if world.is(Mutant::TornCheckpoint) {
                saved.entities.truncate(saved.entities.len() / 2);
            }
            let TaskCheckpoint { partition, ref entities, .. } = saved;
            saved_keys.extend(entities.iter().map(|(key, _)| (partition, Arc::clone(key))));
            store.save(saved);
        }
        if world.random.permille(500) {
            store.flush();
        }
        if saved_keys.is_empty() || !world.random.permille(300) {
            return;
        }
        let (partition, key) = world.random.pick(&saved_keys).clone();
        if store.entity(partition, &key).is_some() && self.turn.evict(partition, &key) {
            world.trace.sometimes("an entity is evicted from memory");
        }
    }

    /// Why this incarnation has not settled, if it has not.
    pub(crate) fn unsettled_reason(&self, service: &ServiceContext<D>, world: &World, now: Now) -> Option<String> {
        let machine = self.turn.machine();
        if self.turn.is_recommit_due(now) {
            return Some("positions must be committed again".to_owned());
        }
        if self.turn.has_uncommitted() {
            return Some("the ends of its inputs must be committed".to_owned());
        }
        if self.transaction.is_some() || !machine.batch().is_empty() || machine.may_drain() {
            return Some("a batch is open".to_owned());
        }
        let is_member = self.client.membership().is_some_and(|member| world.cluster.admits(service.group, member));
        if self.recovery.is_some() || !self.client.is_settled() || !is_member {
            return Some("it joins or recovers".to_owned());
        }
        if let Some((partition, held)) = machine.held().next() {
            return Some(format!("partition {partition} is paused: {}", held.reason));
        }
        if self.reading != *self.client.owned() {
            return Some(format!("it reads {:?} of its partitions {:?}", self.reading, self.client.owned()));
        }
        if machine.pending_effects() > 0 {
            return Some(format!("{} effects are due", machine.pending_effects()));
        }
        if machine.next_due().is_some_and(|due| due < i64::MAX) {
            return Some("a timer is due".to_owned());
        }
        for partition in &self.reading {
            for (input, topic) in service.inputs.iter().enumerate() {
                let topic_partition = TopicPartition { topic: *topic, partition: *partition };
                let position = self.fetched.of(input, *partition);
                if position < world.cluster.log.high_watermark(topic_partition) {
                    return Some(format!("{} is unread from {position} on", world.cluster.log.name(*topic)));
                }
            }
        }
        None
    }

    /// The next moment at which something is due, by the clock of its process.
    pub(crate) fn next_due(&self, now: Now) -> Option<i64> {
        self.turn.next_due(now)
    }

    /// The tasks of the partitions that decide.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task<D>> {
        self.turn.machine().tasks()
    }

    /// True if the effects in flight are within their limit.
    pub(crate) fn is_bounded(&self) -> bool {
        self.turn.machine().in_flight() <= self.pace.effects_in_flight
    }
}
