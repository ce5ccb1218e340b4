//! One incarnation of a worker: it executes the steps of the production [`Turn`] on the simulated cluster, one at a time.
//!
//! What is done when is decided by the turn, as in production. Between any two steps that do anything the process may die, stand
//! still, or lose its place in the group.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use runtime::{
    Decider,
    codec::{DecodeError, Readers},
    core::{
        DueEffect, Task, TaskCheckpoint,
        log_bounds::check_appended,
        recoveries::StartAt,
        turn::{Carried, Now, Offer, Pace, Step, Turn, TurnError},
    },
};
use uuid::Uuid;

use super::{
    Kit, Violation, World,
    attempt::{Attempt, Report},
    client::{Change, Client},
    filter::Filter,
    moody::Failing,
    recovery::Recovery,
    store::Store,
    transaction::{Transaction, Went},
};
use crate::{
    cluster::{Fetched, Membership, Place, Session, Stored},
    faults::Fault,
    mutant::Mutant,
};

/// Why an incarnation ended that did not die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// An error of the cluster: it starts again from the log.
    Failed(String),
    /// The turn gave up.
    Turn(TurnError),
    /// The topics do not hold what the store says: an operator must look.
    LogLoss(String),
}

/// What one call came to.
pub(crate) enum Progress {
    /// Nothing was there to do.
    Idle,
    /// Something was done.
    Worked,
    /// The incarnation is over.
    Ended(End),
    /// It was asked to stop, and has.
    Stopped,
}

/// What a step came to.
enum Done {
    Nothing,
    Something,
    Ended(End),
}

/// How far each partition of each input was fetched.
struct Positions {
    partitions: usize,
    next: Vec<i64>,
}

impl Positions {
    fn new(inputs: usize, partitions: i32) -> Self {
        let partitions = usize::try_from(partitions).unwrap_or(1);
        Self { partitions, next: vec![0; inputs * partitions] }
    }

    fn at(&self, input: usize, partition: i32) -> usize {
        input * self.partitions + usize::try_from(partition).unwrap_or(0)
    }

    fn of(&self, input: usize, partition: i32) -> i64 {
        self.next[self.at(input, partition)]
    }

    fn set(&mut self, input: usize, partition: i32, next: i64) {
        let at = self.at(input, partition);
        self.next[at] = next;
    }
}

/// One incarnation.
pub(crate) struct Incarnation<D: Decider> {
    pub(crate) number: u64,
    pub(crate) turn: Turn<D, Membership>,
    pub(crate) client: Client,
    pub(crate) reports: VecDeque<Report>,
    pub(crate) begun: Vec<Attempt<D>>,
    readers: Readers,
    session: Session,
    pace: Pace,
    /// The partitions whose inputs the client reads.
    flow: BTreeSet<i32>,
    fetched: Positions,
    /// Everything that flows was read to its end when the log had changed so often.
    read_all: Option<u64>,
    recovery: Option<Recovery<D>>,
    transaction: Option<Transaction>,
    filter: Filter<D>,
    has_worked: bool,
}

impl<D: Decider> Incarnation<D> {
    pub(crate) fn begin(
        kit: &Kit<D>,
        world: &mut World,
        number: u64,
        session: Session,
        (carried, now): (&Carried, Now),
    ) -> Self {
        let pace = Pace {
            checkpoint_every: Duration::from_millis(world.chance.within(300..=3_000).unsigned_abs()),
            batch_inputs: *world.chance.pick(&[4, 20, 1_000]),
            ..Pace::default()
        };
        Self {
            number,
            turn: Turn::new(kit.decider.clone(), kit.contract.without_schemas(), carried, pace.clone(), now),
            client: Client::default(),
            reports: VecDeque::new(),
            begun: Vec::new(),
            readers: kit.fresh_readers(world),
            session,
            pace,
            flow: BTreeSet::new(),
            fetched: Positions::new(kit.inputs.len(), kit.contract.partitions),
            read_all: None,
            recovery: None,
            transaction: None,
            filter: Filter::new(world.mutant),
            has_worked: false,
        }
    }

    /// True while a transaction may be committed although the process was not told.
    pub(crate) fn is_ending_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(Transaction::is_ending)
    }

    pub(crate) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Executes steps until one does something, or until the turn is over.
    pub(crate) fn step(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        (whom, now): (&str, Now),
    ) -> Result<Progress, Violation> {
        if self.transaction.is_some() && !(self.filter.works_while_committing() && world.chance.permille(500)) {
            return self.go_on_committing(world, whom, now);
        }
        loop {
            let turn = &mut self.turn;
            let Some(step) = self.filter.next(turn.next(now), self.client.has_change(), world) else {
                return Ok(Progress::Worked);
            };
            match step {
                Step::Stop => {
                    store.flush();
                    return Ok(Progress::Stopped);
                }
                Step::EndTurn => {
                    let has_worked = std::mem::take(&mut self.has_worked);
                    return Ok(if has_worked { Progress::Worked } else { Progress::Idle });
                }
                step => match self.execute(kit, store, world, (whom, now), step)? {
                    Done::Nothing => {}
                    Done::Something => return Ok(Progress::Worked),
                    Done::Ended(end) => return Ok(Progress::Ended(end)),
                },
            }
        }
    }

    fn execute(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        (whom, now): (&str, Now),
        step: Step<D, Membership>,
    ) -> Result<Done, Violation> {
        match step {
            Step::SnapshotFence => self.turn.fence(self.client.membership()),
            Step::FetchSchema(schema) => self.turn.learn(schema, self.readers.schema(schema)),
            Step::LoadEntity { partition, key } => return self.load_entity(store, world, partition, &key),
            Step::Gather { .. } => return self.gather(kit, store, world, (whom, now)),
            Step::FetchEnds { partitions } => self.fetch_ends(kit, world, &partitions, now),
            Step::ReadPositions { partitions } => self.read_positions(kit, world, &partitions, now),
            Step::Commit { fence } => return self.begin_commit(kit, world, (fence, now)),
            Step::Pause { partition } => {
                let reason = self.turn.hold_reason(partition).map_or("", |held| held.reason.as_str());
                world.trace.sometimes(match reason {
                    reason if reason.contains("after a pause") => {
                        "a record that cost a state rests before it is tried again"
                    }
                    reason if reason.contains("schema") => "a partition is held for a schema",
                    _ => "a partition is held for a decider that fails",
                });
                self.flow.remove(&partition);
            }
            Step::Resume { partitions } => self.resume(kit, &partitions),
            Step::HoldEnded { .. } => world.trace.sometimes("a partition that was held is well again"),
            Step::TakeRebalance => return Ok(self.take_change(world)),
            Step::AcceptAssignment => return Ok(Done::Something),
            Step::Recover { partitions } => {
                self.recovery = Some(Recovery::start(kit, self.readers.clone(), partitions));
                self.turn.recovery_began();
                return Ok(Done::Something);
            }
            Step::Unassign => {
                self.flow.clear();
                self.client.acknowledge_revocation();
                return Ok(Done::Something);
            }
            Step::Release => {
                self.turn.released();
                self.recovery = None;
            }
            Step::TakeRecovered => return self.take_recovered(kit, store, world, now),
            Step::TakeReports => return Ok(self.take_reports(world, now)),
            Step::Perform(effect) => return Ok(self.perform(world, effect)),
            Step::Checkpoint => self.checkpoint(store, world, now),
            Step::Fail(error) => return Ok(Done::Ended(End::Turn(error))),
            Step::EndTurn | Step::Stop => {}
        }
        Ok(Done::Nothing)
    }

    /// Offers some of what is there, from any partition that flows.
    fn gather(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        (whom, now): (&str, Now),
    ) -> Result<Done, Violation> {
        let consuming: Vec<i32> = self.flow.iter().copied().collect();
        let mut taken = false;
        if !consuming.is_empty() {
            let (mut left, places) = (1 + world.chance.below(8), consuming.len() * kit.inputs.len());
            let first = world.chance.index(places);
            if self.read_all != Some(world.cluster.log.changes()) {
                for at in (first..places).chain(0..first) {
                    let place = (at / consuming.len(), consuming[at % consuming.len()]);
                    while left > 0 && self.has_room() {
                        if !self.offer_next(kit, store, world, place, (whom, now))? {
                            break;
                        }
                        taken = true;
                        left -= 1;
                    }
                }
                self.read_all = (!taken && self.has_room()).then(|| world.cluster.log.changes());
            }
        }
        self.turn.gathering_ended(self.client.has_change());
        Ok(if taken { Done::Something } else { Done::Nothing })
    }

    fn has_room(&self) -> bool {
        self.turn.has_room() || self.filter.overfills()
    }

    /// Offers the next record of a place, if there is one.
    fn offer_next(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        (input, partition): (usize, i32),
        (whom, now): (&str, Now),
    ) -> Result<bool, Violation> {
        let place = Place { topic: kit.inputs[input], partition };
        let from = self.fetched.of(input, partition);
        let log = &world.cluster.log;
        let fetched =
            if world.is(Mutant::ReadUncommitted) { log.read_uncommitted(place, from) } else { log.read(place, from) };
        let (offset, stored) = match fetched {
            Fetched::End(position) => {
                self.fetched.set(input, partition, position);
                return Ok(false);
            }
            Fetched::Record { offset, stored } => (offset, stored),
        };
        let topic = Arc::clone(world.cluster.log.name(place.topic));
        if self.turn.skips(input, partition, offset, stored.value.as_deref(), now) {
            self.fetched.set(input, partition, offset + 1);
            return Ok(true);
        }
        mistake(kit, world, &stored, whom);
        let shown = if world.is(Mutant::NoDedupe) { Rc::new(without_id(&stored)) } else { Rc::clone(&stored) };
        let offered = loop {
            let offer = shown.with_record(&topic, partition, offset, |record| self.turn.offer(input, record, now));
            match offer {
                Offer::NeedsSchema(schema) => {
                    let found = self.readers.schema(schema);
                    if world.is(Mutant::TransientIsPoison) && found.as_ref().is_err_and(DecodeError::is_transient) {
                        break Offer::Taken;
                    }
                    self.turn.learn(schema, found);
                }
                Offer::NeedsEntity(key) => {
                    if let Done::Ended(_) = self.load_entity(store, world, partition, &key)? {
                        return Ok(false);
                    }
                }
                offer => break offer,
            }
        };
        world.trace.tell(stored.header("ce_correlationid"), || {
            let name = stored.header("ce_type").and_then(|name| name.rsplit('.').next()).unwrap_or("?");
            let held = self.turn.hold_reason(partition).map(|held| held.reason.as_str()).unwrap_or_default();
            format!("{whom} receives {topic}/{partition}/{offset} {name}: {offered:?} {held}")
        });
        if offered == Offer::CommitFirst {
            world.trace.sometimes("a record that cost a state is tried alone");
            return Ok(false);
        }
        self.fetched.set(input, partition, offset + 1);
        Ok(true)
    }

    fn load_entity(
        &mut self,
        store: &mut Store,
        world: &mut World,
        partition: i32,
        key: &str,
    ) -> Result<Done, Violation> {
        world.trace.sometimes("an entity is loaded from the store");
        let loaded = store.entity(partition, key).map(|bytes| self.turn.load(partition, key, bytes));
        match loaded {
            Some(Ok(())) => Ok(Done::Nothing),
            _ => Err(Violation::new("what was evicted lies in the store", format!("{key} of partition {partition}"))),
        }
    }

    fn fetch_ends(&mut self, kit: &Kit<D>, world: &World, partitions: &[i32], now: Now) {
        for partition in partitions {
            let end = |topic: &usize| {
                let place = Place { topic: *topic, partition: *partition };
                if world.is(Mutant::TimersOvertake) { 0 } else { world.cluster.log.stable_end(place) }
            };
            self.turn.ends(*partition, now.wall_ms, kit.inputs.iter().map(end).collect());
        }
    }

    fn read_positions(&mut self, kit: &Kit<D>, world: &mut World, partitions: &[i32], now: Now) {
        for partition in partitions {
            let reached: Vec<i64> = (0..kit.inputs.len()).map(|input| self.fetched.of(input, *partition)).collect();
            let before = self.turn.batch().outputs().len();
            self.turn.reached(*partition, &reached, now);
            let fired = self.turn.batch().outputs().len() > before;
            world.trace.sometimes(if fired { "a timer fires" } else { "a timer waits for input that was there first" });
        }
    }

    fn begin_commit(
        &mut self,
        kit: &Kit<D>,
        world: &mut World,
        (fence, now): (Membership, Now),
    ) -> Result<Done, Violation> {
        if self.transaction.is_some() {
            // A step of a mutant: the transaction before is still under way.
            return Ok(Done::Something);
        }
        if self.filter.drops_recommit(self.turn.batch()) {
            self.turn.committed(&BTreeMap::new(), now);
            return Ok(Done::Something);
        }
        let inputs = self.turn.batch().inputs();
        if inputs > self.pace.batch_inputs {
            let what = format!("it has {inputs} inputs of at most {}", self.pace.batch_inputs);
            return Err(Violation::new("a batch stays within its limits", what));
        }
        let fence = if self.filter.commits_as_it_is_now() { self.client.membership().unwrap_or(fence) } else { fence };
        self.transaction = Some(Transaction::of(kit, &self.turn, &self.session, fence, world));
        if world.is(Mutant::EffectsBeforeCommit) {
            self.turn.committed(&BTreeMap::new(), now);
        }
        Ok(Done::Something)
    }

    fn go_on_committing(&mut self, world: &mut World, whom: &str, now: Now) -> Result<Progress, Violation> {
        let Some(transaction) = &mut self.transaction else { return Ok(Progress::Idle) };
        let failed = |reason: &str| Ok(Progress::Ended(End::Failed(reason.to_owned())));
        if world.now_ms - transaction.begun_ms > crate::cluster::TRANSACTION_MS {
            return failed("a transaction took too long");
        }
        match transaction.step(world, whom) {
            Went::On => Ok(Progress::Worked),
            Went::Again => Ok(Progress::Idle),
            Went::Failed(reason) => failed(&reason),
            Went::Committed => {
                let own_ends = std::mem::take(&mut transaction.own_ends);
                self.transaction = None;
                let topic = &self.turn.contract().events_topic;
                if let Err(loss) = check_appended(topic, &self.turn.own_ends(), &own_ends) {
                    return Err(Violation::new("a log only grows", loss.to_string()));
                }
                if !world.is(Mutant::EffectsBeforeCommit) {
                    self.turn.committed(&own_ends, now);
                }
                Ok(Progress::Worked)
            }
        }
    }

    fn resume(&mut self, kit: &Kit<D>, partitions: &[i32]) {
        self.read_all = None;
        self.flow.extend(partitions);
        for (topic, partition, start) in self.turn.assignment() {
            let input = kit.contract.inputs.iter().position(|input| **input == *topic);
            if let (Some(input), true) = (input, partitions.contains(&partition)) {
                let from = match start {
                    StartAt::Beginning => 0,
                    StartAt::Offset(offset) => offset,
                };
                self.fetched.set(input, partition, from);
            }
        }
    }

    fn take_change(&mut self, world: &mut World) -> Done {
        match self.client.next_change() {
            None => return Done::Nothing,
            Some(Change::Assigned(partitions)) => self.turn.assigned(partitions.into_iter().collect()),
            Some(Change::Revoked) => {
                if !self.turn.batch().is_empty() {
                    world.trace.sometimes("partitions are revoked while positions wait to be committed");
                }
                self.turn.revoked();
            }
        }
        Done::Something
    }

    fn take_recovered(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        now: Now,
    ) -> Result<Done, Violation> {
        let Some(recovery) = &mut self.recovery else { return Ok(Done::Nothing) };
        let member = self.client.membership();
        let is_owner = member.is_some_and(|member| world.cluster.admits(kit.group, member));
        let recovered = match recovery.step(kit, store, world, (now, is_owner))? {
            Ok(recovered) => recovered,
            Err(loss) => return Ok(Done::Ended(End::LogLoss(loss))),
        };
        let is_done = recovery.is_done();
        if is_done {
            self.recovery = None;
        }
        self.turn.recovered(recovered.tasks, is_done);
        Ok(if recovered.has_worked { Done::Something } else { Done::Nothing })
    }

    fn take_reports(&mut self, world: &mut World, now: Now) -> Done {
        let has_reports = !self.reports.is_empty();
        while let Some(report) = self.reports.pop_front() {
            if report.answered {
                self.turn.effect_answered(report.partition, &report.key, now);
            } else {
                let jitter = world.chance.draw();
                self.turn.effect_unanswered(report.partition, &report.key, None, now, jitter);
            }
        }
        if has_reports { Done::Something } else { Done::Nothing }
    }

    fn perform(&mut self, world: &mut World, effect: DueEffect<D::Effect>) -> Done {
        self.begun.push(Attempt::begin(self.number, effect, world));
        Done::Something
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
        if world.chance.permille(500) {
            store.flush();
        }
        if saved_keys.is_empty() || !world.chance.permille(300) {
            return;
        }
        let (partition, key) = world.chance.pick(&saved_keys).clone();
        if store.entity(partition, &key).is_some() && self.turn.evict(partition, &key) {
            world.trace.sometimes("an entity is evicted from memory");
        }
    }

    /// What keeps this incarnation from being quiet, if anything.
    pub(crate) fn unrest(&self, kit: &Kit<D>, world: &World, now: Now) -> Option<String> {
        let machine = self.turn.machine();
        if self.turn.is_recommit_due(now) {
            return Some("positions are to be committed again".to_owned());
        }
        if self.transaction.is_some() || !machine.batch().is_empty() || machine.may_drain() {
            return Some("a batch is open".to_owned());
        }
        let is_member = self.client.membership().is_some_and(|member| world.cluster.admits(kit.group, member));
        if self.recovery.is_some() || !self.client.is_settled() || !is_member {
            return Some("it joins or recovers".to_owned());
        }
        if let Some((partition, held)) = machine.held().next() {
            return Some(format!("partition {partition} is held: {}", held.reason));
        }
        if self.flow != *self.client.owned() {
            return Some(format!("{:?} flow of {:?}", self.flow, self.client.owned()));
        }
        if machine.pending_effects() > 0 {
            return Some(format!("{} effects are due", machine.pending_effects()));
        }
        if machine.next_due().is_some_and(|due| due < i64::MAX) {
            return Some("a timer is due".to_owned());
        }
        for partition in &self.flow {
            for (input, topic) in kit.inputs.iter().enumerate() {
                let place = Place { topic: *topic, partition: *partition };
                let position = self.fetched.of(input, *partition);
                if position < world.cluster.log.high_watermark(place) {
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

    /// The partitions that decide.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task<D>> {
        self.turn.machine().tasks()
    }

    /// True if no more effects are under way than may be.
    pub(crate) fn is_bounded(&self) -> bool {
        self.turn.machine().in_flight() <= self.pace.effects_in_flight
    }
}

/// Now and then a decider turns out to have a mistake that a certain input brings to light.
fn mistake<D: Decider>(kit: &Kit<D>, world: &mut World, stored: &Stored, whom: &str) {
    if world.strikes(Fault::Mistake, whom)
        && let Some(id) = stored.header("ce_id").and_then(|id| Uuid::parse_str(id).ok())
    {
        let loses_state = world.faults.extent().permille(300);
        kit.mood.fail_on(id, if loses_state { Failing::Evolve } else { Failing::Decide });
    }
}

/// The same record under another id, so that nothing is recognised as handled.
fn without_id(stored: &Stored) -> Stored {
    let mut shown = stored.clone();
    for (name, value) in &mut shown.headers {
        if name == "ce_id" {
            *value = None;
        }
    }
    shown
}
