//! One life of a worker: from fresh clients to the first error whose outcome is not known, one step at a time.
//!
//! The steps and their order are those of `runtime::worker`: gather, timers, transaction, and between two batches what the group
//! changed, recoveries, reports of effects, effects, held partitions, checkpoints.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
};

use runtime::{
    Decider, TimestampMs,
    codec::Readers,
    core::{CRASHES_AT_MOST, Machine, Outcome, Task},
    envelope::Position,
};
use uuid::Uuid;

use super::{
    Kit, Violation, World,
    attempt::{Attempt, Report},
    client::{Change, Client},
    moody::Failing,
    recovering::Recovering,
    store::Store,
    transaction::{Transaction, Went},
};
use crate::{
    cluster::{Fetched, Membership, Place, Session, Stored},
    faults::Fault,
    mutant::Mutant,
};

const BATCH_INPUTS: usize = 1_000;
/// No worker has more effects under way.
pub(crate) const IN_FLIGHT_AT_MOST: usize = 256;
const POSITIONS_EVERY_MS: i64 = 200;
const ENDS_EVERY_MS: i64 = 20;
const HOLD_FIRST_MS: i64 = 500;
const HOLD_LONGEST_MS: i64 = 30_000;

/// How a life ends that did not die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LifeEnd(pub(crate) String);

/// What one step came to.
pub(crate) enum Step {
    /// Nothing was there to do.
    Idle,
    /// Something was done.
    Worked,
    /// The life is over.
    Ended(LifeEnd),
    /// It was asked to stop, and has.
    Stopped,
}

/// How far each partition of each input was fetched.
struct Reached {
    partitions: usize,
    next: Vec<i64>,
}

impl Reached {
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

struct Hold {
    until_ms: i64,
    pause_ms: i64,
}

/// One life.
pub(crate) struct Life<D: Decider> {
    pub(crate) number: u64,
    pub(crate) machine: Machine<D>,
    pub(crate) client: Client,
    readers: Readers,
    session: Session,
    fence: Option<Membership>,
    flow: BTreeSet<i32>,
    fetched: Reached,
    /// Everything that flows was read to its end when the log had changed so often.
    read_all: Option<u64>,
    recovering: Option<Recovering<D>>,
    holds: BTreeMap<i32, Hold>,
    to_hold: BTreeSet<i32>,
    transaction: Option<Transaction>,
    pub(crate) reports: VecDeque<Report>,
    pub(crate) begun: Vec<Attempt<D>>,
    pub(crate) is_stopping: bool,
    /// The record over which a state was lost: everything in memory must be thrown away.
    pub(crate) broken: Option<Position>,
    /// Records that cost earlier lives a state, and how often.
    suspects: BTreeMap<Position, u32>,
    /// The open batch is to be committed before one of them is tried.
    commits_first: bool,
    batch_since_ms: i64,
    ends_asked_ms: i64,
    saved_ms: i64,
    is_between: bool,
}

impl<D: Decider> Life<D> {
    pub(crate) fn begin(
        kit: &Kit<D>,
        world: &World,
        number: u64,
        session: Session,
        suspects: &BTreeMap<Position, u32>,
    ) -> Self {
        Self {
            number,
            machine: Machine::new(kit.decider.clone(), kit.contract.without_schemas()).suspecting(suspects.clone()),
            client: Client::default(),
            readers: kit.fresh_readers(world),
            session,
            fence: None,
            flow: BTreeSet::new(),
            fetched: Reached::new(kit.inputs.len(), kit.contract.partitions),
            read_all: None,
            recovering: None,
            holds: BTreeMap::new(),
            to_hold: BTreeSet::new(),
            transaction: None,
            reports: VecDeque::new(),
            begun: Vec::new(),
            is_stopping: false,
            broken: None,
            suspects: suspects.clone(),
            commits_first: false,
            batch_since_ms: 0,
            ends_asked_ms: 0,
            saved_ms: world.now_ms,
            is_between: false,
        }
    }

    /// True while a transaction may be committed although nobody was told.
    pub(crate) fn is_ending_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(Transaction::is_ending)
    }

    pub(crate) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    pub(crate) fn step(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        (whom, now_ms): (&str, TimestampMs),
    ) -> Result<Step, Violation> {
        if self.transaction.is_some() {
            return Ok(self.go_on_committing(world, whom, now_ms));
        }
        if !self.is_between {
            if self.machine.batch().is_empty() {
                self.fence = self.client.membership();
                if self.machine.may_go_on() {
                    world.trace.sometimes("what waited goes on in a batch of its own");
                    while let Some(schema) = self.machine.schema_to_go_on() {
                        self.machine.learn(schema, self.readers.schema(schema));
                    }
                    self.machine.go_on(now_ms);
                    let held = self.machine.held().map(|(partition, _)| partition);
                    self.to_hold.extend(held.filter(|partition| !self.holds.contains_key(partition)));
                }
            }
            let taken = self.gather(kit, world, whom, now_ms);
            if let Some(place) = &self.broken {
                return Ok(Step::Ended(LifeEnd(format!("a state was lost over {place}"))));
            }
            self.timers(kit, world, now_ms);
            self.is_between = true;
            let must = std::mem::take(&mut self.commits_first) || self.client.has_change() || self.is_stopping;
            if let Some(ended) = self.begin_commit(kit, world, must, now_ms) {
                return Ok(ended);
            }
            if taken {
                return Ok(Step::Worked);
            }
        }
        self.is_between = false;
        if self.is_stopping && self.machine.batch().is_empty() {
            self.save(store, world);
            store.flush();
            return Ok(Step::Stopped);
        }
        let worked = self.between(kit, store, world, now_ms)?;
        Ok(if worked { Step::Worked } else { Step::Idle })
    }

    /// Takes some of what is there, from any partition that flows.
    fn gather(&mut self, kit: &Kit<D>, world: &mut World, whom: &str, now_ms: i64) -> bool {
        if self.flow.is_empty() {
            return false;
        }
        let (mut taken, mut left) = (false, 1 + world.chance.below(8));
        let places = self.flow.len() * kit.inputs.len();
        let first = world.chance.index(places);
        if self.read_all == Some(world.cluster.log.changes()) {
            return false;
        }
        let flowing: Vec<i32> = self.flow.iter().copied().collect();
        for at in (first..places).chain(0..first) {
            let (input, partition) = (at / flowing.len(), flowing[at % flowing.len()]);
            while left > 0
                && self.broken.is_none()
                && self.flow.contains(&partition)
                && self.machine.batch().inputs() < BATCH_INPUTS
            {
                if !self.take_next(kit, world, (input, partition), whom, now_ms) {
                    break;
                }
                taken = true;
                left -= 1;
            }
        }
        let has_room = self.machine.batch().inputs() < BATCH_INPUTS;
        self.read_all = (!taken && has_room && !self.commits_first).then(|| world.cluster.log.changes());
        taken
    }

    fn take_next(
        &mut self,
        kit: &Kit<D>,
        world: &mut World,
        (input, partition): (usize, i32),
        whom: &str,
        now_ms: i64,
    ) -> bool {
        let place = Place { topic: kit.inputs[input], partition };
        let from = self.fetched.of(input, partition);
        let log = &world.cluster.log;
        let fetched =
            if world.is(Mutant::ReadUncommitted) { log.read_uncommitted(place, from) } else { log.read(place, from) };
        match fetched {
            Fetched::End(position) => {
                self.fetched.set(input, partition, position);
                false
            }
            Fetched::Record { offset, stored } => {
                if !self.suspects.is_empty() {
                    let at = Position::new(Arc::clone(world.cluster.log.name(place.topic)), partition, offset);
                    if self.must_rest(&at) {
                        world.trace.sometimes("a record that cost a state is tried alone, and later");
                        return false;
                    }
                }
                self.fetched.set(input, partition, offset + 1);
                if self.machine.batch().is_empty() {
                    self.batch_since_ms = now_ms;
                }
                self.take(kit, world, (input, place), (offset, &stored), whom, now_ms);
                true
            }
        }
    }

    /// A record that cost a state before is tried alone, and only after its partition has rested.
    fn must_rest(&mut self, place: &Position) -> bool {
        let Some(times) = self.suspects.get(place).filter(|times| **times < CRASHES_AT_MOST) else { return false };
        if self.holds.contains_key(&place.partition) {
            self.commits_first = !self.machine.batch().is_empty();
            return self.commits_first;
        }
        self.machine.hold(place.partition, place.clone(), format!("a state was lost over it, {times} times"));
        self.to_hold.insert(place.partition);
        true
    }

    fn take(
        &mut self,
        kit: &Kit<D>,
        world: &mut World,
        (input, place): (usize, Place),
        (offset, stored): (i64, &Rc<Stored>),
        whom: &str,
        now_ms: i64,
    ) {
        let partition = place.partition;
        if self.to_hold.contains(&partition) {
            return;
        }
        if stored.value.as_deref().is_some_and(|value| self.machine.contract().is_unheard(value)) {
            self.machine.pass_over(input, partition, offset);
            return;
        }
        let topic = world.cluster.log.name(place.topic).clone();
        mistake(kit, world, stored, whom);
        let disguised;
        let shown = if world.is(Mutant::NoDedupe) {
            disguised = without_id(stored);
            &disguised
        } else {
            &**stored
        };
        let (machine, readers) = (&mut self.machine, &self.readers);
        let outcome = shown.with_record(&topic, partition, offset, |record| {
            loop {
                match machine.hear(input, record, now_ms) {
                    Outcome::NeedsSchema(schema) => machine.learn(schema, readers.schema(schema)),
                    outcome => return outcome,
                }
            }
        });
        world.trace.tell(stored.header("ce_correlationid"), || {
            let name = stored.header("ce_type").and_then(|name| name.rsplit('.').next()).unwrap_or("?");
            format!("{whom} hears {topic}/{partition}/{offset} {name}: {outcome:?}")
        });
        match outcome {
            Outcome::NeedsSchema(_) | Outcome::Done | Outcome::Ignored => {}
            Outcome::Unready(_) if world.is(Mutant::TransientIsPoison) => {
                self.machine.let_on(partition);
                self.machine.pass_over(input, partition, offset);
            }
            Outcome::Unready(_) => {
                world.trace.sometimes("a partition is held for a schema");
                self.to_hold.insert(partition);
            }
            Outcome::Failed(failure) if failure.broken => {
                world.trace.sometimes("a state is lost because evolve fails");
                self.broken = Some(failure.place);
            }
            Outcome::Failed(_) => {
                world.trace.sometimes("a partition is held for a decider that fails");
                self.to_hold.insert(partition);
            }
        }
    }

    fn timers(&mut self, kit: &Kit<D>, world: &mut World, now_ms: i64) {
        let due = self.machine.wants_ends(now_ms);
        if !due.is_empty() && now_ms - self.ends_asked_ms >= ENDS_EVERY_MS {
            self.ends_asked_ms = now_ms;
            for partition in due {
                let end = |topic: &usize| world.cluster.log.stable_end(Place { topic: *topic, partition });
                let ends = if world.is(Mutant::TimersOvertake) {
                    vec![0; kit.inputs.len()]
                } else {
                    kit.inputs.iter().map(end).collect()
                };
                self.machine.ends_known(partition, now_ms, ends);
            }
        }
        for partition in self.machine.waits_for_positions() {
            let reached: Vec<i64> = (0..kit.inputs.len()).map(|input| self.fetched.of(input, partition)).collect();
            let before = self.machine.batch().outputs().len();
            self.machine.reached(partition, &reached, now_ms);
            let fired = self.machine.batch().outputs().len() > before;
            world.trace.sometimes(if fired { "a timer fires" } else { "a timer waits for input that was there first" });
        }
    }

    fn begin_commit(&mut self, kit: &Kit<D>, world: &mut World, at_once: bool, now_ms: i64) -> Option<Step> {
        let batch = self.machine.batch();
        let may_wait = batch.outputs().is_empty()
            && batch.inputs() < BATCH_INPUTS
            && now_ms - self.batch_since_ms < POSITIONS_EVERY_MS;
        let outlives_changes = world.is(Mutant::LateMetadata) && !self.is_stopping && world.chance.permille(700);
        if batch.is_empty() || (may_wait && !at_once) || outlives_changes {
            return None;
        }
        let fence = if world.is(Mutant::LateMetadata) { self.client.membership() } else { self.fence };
        let Some(fence) = fence else { return Some(Step::Ended(LifeEnd("the consumer has no group".to_owned()))) };
        let transaction = Transaction::of(kit, batch, &self.session, fence, world);
        if world.is(Mutant::EffectsBeforeCommit) {
            self.machine.committed(&BTreeMap::new(), now_ms);
            self.perform(world, now_ms);
        }
        self.transaction = Some(transaction);
        Some(Step::Worked)
    }

    fn go_on_committing(&mut self, world: &mut World, whom: &str, now_ms: i64) -> Step {
        let Some(transaction) = &mut self.transaction else { return Step::Idle };
        if world.now_ms - transaction.begun_ms > crate::cluster::TRANSACTION_MS {
            return Step::Ended(LifeEnd("a transaction took too long".to_owned()));
        }
        match transaction.step(world, whom) {
            Went::On => Step::Worked,
            Went::Again => Step::Idle,
            Went::Failed(reason) => Step::Ended(LifeEnd(reason)),
            Went::Committed => {
                let own_ends = std::mem::take(&mut transaction.own_ends);
                self.transaction = None;
                self.machine.committed(&own_ends, now_ms);
                Step::Worked
            }
        }
    }

    /// What belongs between two batches.
    fn between(&mut self, kit: &Kit<D>, store: &mut Store, world: &mut World, now_ms: i64) -> Result<bool, Violation> {
        self.hold_failed(now_ms);
        let mut worked = self.changes(kit, store, world);
        worked |= self.recovered(kit, store, world, now_ms)?;
        worked |= self.hear_reports(world, now_ms);
        if self.machine.batch().is_empty() {
            worked |= self.perform(world, now_ms);
            if now_ms - self.saved_ms >= 300 && world.chance.permille(200) {
                self.save(store, world);
                if world.chance.permille(500) {
                    store.flush();
                }
            }
        }
        self.let_on(now_ms);
        Ok(worked)
    }

    fn hold_failed(&mut self, now_ms: i64) {
        for partition in std::mem::take(&mut self.to_hold) {
            self.flow.remove(&partition);
            let pause_ms =
                self.holds.get(&partition).map_or(HOLD_FIRST_MS, |hold| (hold.pause_ms * 2).min(HOLD_LONGEST_MS));
            self.holds.insert(partition, Hold { until_ms: now_ms + pause_ms, pause_ms });
        }
    }

    fn let_on(&mut self, now_ms: i64) {
        let rested = |(_, hold): &(&i32, &Hold)| now_ms >= hold.until_ms;
        let due: Vec<i32> = self.holds.iter().filter(rested).map(|(partition, _)| *partition).collect();
        for partition in due {
            if self.flow.contains(&partition) {
                let well = self.holds.get(&partition).is_some_and(|hold| now_ms >= hold.until_ms + 1_000);
                let taken = |((_, of), _): ((usize, i32), i64)| of == partition;
                if well && !self.machine.batch().positions().any(taken) {
                    self.holds.remove(&partition);
                }
            } else if self.machine.task(partition).is_some() {
                self.machine.let_on(partition);
                self.open(partition);
            }
        }
    }

    fn open(&mut self, partition: i32) {
        if let Some(task) = self.machine.task(partition)
            && self.flow.insert(partition)
        {
            self.read_all = None;
            for (input, position) in task.positions().iter().enumerate() {
                self.fetched.set(input, partition, *position);
            }
        }
    }

    fn changes(&mut self, kit: &Kit<D>, store: &mut Store, world: &mut World) -> bool {
        let mut worked = false;
        while let Some(change) = self.client.next_change() {
            worked = true;
            match change {
                Change::Assigned(partitions) => {
                    if !partitions.is_empty() {
                        self.recovering = Some(Recovering::start(kit, self.readers.clone(), partitions));
                    }
                }
                Change::Revoked => {
                    if !self.machine.batch().is_empty() {
                        world.trace.sometimes("partitions are revoked while positions wait to be committed");
                    }
                    self.release(store, world);
                    self.client.acknowledge_revocation();
                }
            }
        }
        worked
    }

    fn release(&mut self, store: &mut Store, world: &World) {
        self.save(store, world);
        let partitions: Vec<i32> = self.machine.tasks().map(Task::partition).collect();
        for partition in partitions {
            self.machine.release(partition);
        }
        self.flow.clear();
        self.holds.clear();
        self.recovering = None;
    }

    fn recovered(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        now_ms: i64,
    ) -> Result<bool, Violation> {
        let Some(recovering) = &mut self.recovering else { return Ok(false) };
        let member = self.client.membership();
        let is_owner = member.is_some_and(|member| world.cluster.admits(kit.group, member));
        let (tasks, worked) = recovering.step(kit, store, world, (now_ms, is_owner))?;
        if recovering.is_done() {
            self.recovering = None;
        }
        for task in tasks {
            let partition = task.partition();
            self.machine.adopt(task);
            self.open(partition);
        }
        Ok(worked)
    }

    fn hear_reports(&mut self, world: &mut World, now_ms: i64) -> bool {
        let mut worked = false;
        while let Some(report) = self.reports.pop_front() {
            worked = true;
            if report.answered {
                self.machine.effect_answered(report.partition, &report.key, now_ms);
            } else {
                let jitter = world.chance.draw();
                self.machine.effect_unanswered(report.partition, &report.key, None, now_ms, jitter);
            }
        }
        worked
    }

    fn perform(&mut self, world: &mut World, now_ms: i64) -> bool {
        let due = self.machine.due_effects(IN_FLIGHT_AT_MOST, now_ms);
        let worked = !due.is_empty();
        for (partition, due) in due {
            self.begun.push(Attempt::begin(self.number, partition, due, world));
        }
        worked
    }

    fn save(&mut self, store: &mut Store, world: &World) {
        self.saved_ms = world.now_ms;
        for mut saved in self.machine.save() {
            if world.is(Mutant::TornCheckpoint) {
                saved.entities.truncate(saved.entities.len() / 2);
            }
            store.save(saved);
        }
    }

    /// What keeps this life from being quiet, if anything.
    pub(crate) fn unrest(&self, kit: &Kit<D>, world: &World) -> Option<String> {
        if self.transaction.is_some() || !self.machine.batch().is_empty() || self.machine.may_go_on() {
            return Some("a batch is open".to_owned());
        }
        let is_member = self.client.membership().is_some_and(|member| world.cluster.admits(kit.group, member));
        if self.recovering.is_some() || !self.client.is_settled() || !is_member {
            return Some("it joins or recovers".to_owned());
        }
        if let Some((partition, stage)) = self.machine.held().next() {
            return Some(format!("partition {partition} is held: {}", stage.reason));
        }
        if self.flow != *self.client.owned() {
            return Some(format!("{:?} flow of {:?}", self.flow, self.client.owned()));
        }
        if self.machine.pending_effects() > 0 {
            return Some(format!("{} effects are due", self.machine.pending_effects()));
        }
        let next_due = self.machine.next_due();
        if next_due.is_some_and(|due| due < i64::MAX) {
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

    /// The next moment at which something is due.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let holds = self.holds.iter().filter(|(p, _)| !self.flow.contains(p)).map(|(_, hold)| hold.until_ms);
        let batch = (!self.machine.batch().is_empty()).then_some(self.batch_since_ms + POSITIONS_EVERY_MS);
        self.machine.next_due().into_iter().chain(holds).chain(batch).min()
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
