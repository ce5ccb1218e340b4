//! One run from one seed: a phase with faults, then a phase without faults in which everything must settle, then the promises are
//! checked. It is deterministic: the same plan gives the same run, to the last byte.

pub(crate) mod retention;

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use runtime::{core::partition_of, envelope::Position};
use uuid::Uuid;

use crate::{
    cluster::{Cluster, Log, Reply, Request, StoredRecord, TopicPartition},
    driver::{Violation, World},
    faults::{Fault, Faults},
    mutant::Mutant,
    operator,
    random::SeededRandom,
    registry::SimulatedRegistry,
    setup::{Fixtures, ScenarioSetup, Service},
    trace::Trace,
    workload::{Client, ReadPositions, Scenario, Snapshot, Workload},
};

/// When every run begins, in milliseconds since the epoch.
const BEGIN_MS: i64 = 1_760_000_000_000;
/// How many steps a run may take to settle after its faults have ended.
const SETTLES_WITHIN: u64 = 200_000;
/// How long a run may take to settle, by its own clock.
const SETTLES_WITHIN_MS: i64 = 20 * 60_000;
/// The number of the operation on whose behalf an operator acts.
const OPERATOR_OPERATION: usize = 1_000_000;
/// How often hours pass after a run has settled, and how many of them.
const DAYS_PASS_IN: u32 = 4;
const HOURS_AT_A_TIME_MS: i64 = 8 * 3_600_000;
/// An operator acts when nothing moves, and after this many rounds in which something was still waiting.
const OPERATOR_ACTS_EVERY: u32 = 100;

/// Which run, and what is left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// More faults, for longer.
    pub is_wild: bool,
    /// Only these faults, by number; all that are drawn if `None`.
    pub only_faults: Option<BTreeSet<u32>>,
    /// Only these operations, by number; all if `None`.
    pub only_operations: Option<BTreeSet<usize>>,
    /// The phase with faults ends after this many steps, if not before.
    pub steps: Option<u64>,
    /// A weakening that must be detected.
    pub mutant: Option<Mutant>,
    /// Keep trace lines for people to read.
    pub keeps_lines: bool,
}

impl Plan {
    /// The whole run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct SimulatedRun {
    /// The broken promise, if any.
    pub violation: Option<Violation>,
    /// What happened.
    pub trace: Trace,
    /// The faults that were injected, with their numbers.
    pub faults: Vec<(u32, Fault)>,
    /// The operations of its workload, as text.
    pub operations: Vec<String>,
    /// The steps of the phase with faults.
    pub steps: u64,
}

/// Simulates one run.
#[must_use]
pub fn run(scenario: &dyn Scenario, fixtures: &Fixtures, plan: &Plan) -> SimulatedRun {
    let mut world = World {
        now_ms: BEGIN_MS,
        random: SeededRandom::new(plan.seed, 1),
        faults: Faults::draw(plan.seed, plan.is_wild, plan.only_faults.clone()),
        cluster: Cluster::new(1, plan.mutant),
        trace: Trace::new(plan.keeps_lines),
        registry: SimulatedRegistry::new(&fixtures.table),
        mutant: plan.mutant,
        poison_records: BTreeSet::new(),
        unread_truncation: None,
        operator_actions: 0,
    };
    let (mut operations, mut steps) = (Vec::new(), 0);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut simulation = Simulation::begin(scenario, fixtures, &mut world, plan)?;
        operations = simulation.workload.operations();
        let ended = simulation.run(&mut world, plan);
        steps = simulation.steps;
        ended
    }));
    let violation = match ended {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(Violation::new("nothing panics", panic_text(panic.as_ref()))),
    };
    SimulatedRun { violation, faults: world.faults.injected().to_vec(), trace: world.trace, operations, steps }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

/// A run in progress.
struct Simulation<'a> {
    fixtures: &'a Fixtures,
    services: Vec<Box<dyn Service>>,
    /// Every process, as the number of its service and its number there.
    processes: Vec<(usize, usize)>,
    workload: Box<dyn Workload>,
    todo: VecDeque<usize>,
    steps: u64,
    contents: ContentById,
}

impl<'a> Simulation<'a> {
    fn begin(
        scenario: &dyn Scenario,
        fixtures: &'a Fixtures,
        world: &mut World,
        plan: &Plan,
    ) -> Result<Self, Violation> {
        let partitions = *world.random.pick(&[1, 2, 2, 3]);
        world.cluster = Cluster::new(partitions, plan.mutant);
        let mut setup = ScenarioSetup { fixtures, world, partitions, services: Vec::new(), failed: Cell::default() };
        let workload = scenario.begin(&mut setup, &mut SeededRandom::new(plan.seed, 3));
        if let Some(violation) = setup.failed.take() {
            return Err(violation);
        }
        let services = setup.services;
        let processes = services
            .iter()
            .enumerate()
            .flat_map(|(at, service)| (0..service.processes()).map(move |process| (at, process)))
            .collect();
        let is_wanted = |operation: &usize| plan.only_operations.as_ref().is_none_or(|only| only.contains(operation));
        let todo = (0..workload.operations().len()).filter(is_wanted).collect();
        Ok(Self { fixtures, services, processes, workload, todo, steps: 0, contents: ContentById::default() })
    }

    fn run(&mut self, world: &mut World, plan: &Plan) -> Result<(), Violation> {
        let drawn = (300 + world.random.below(3_500)) * if plan.is_wild { 3 } else { 1 };
        let ends_with_faults = world.random.permille(200);
        let steps = plan.steps.unwrap_or(u64::MAX).min(if ends_with_faults { drawn * 2 } else { drawn });
        while self.steps < steps {
            self.steps += 1;
            self.step(world)?;
        }
        self.check(world, false)?;
        if ends_with_faults {
            return Ok(());
        }
        self.settle(world)?;
        self.check(world, true)?;
        if world.random.permille(100) {
            self.let_days_pass(world)?;
        }
        if world.random.permille(200) {
            self.delete_inboxes(world)?;
        }
        if world.random.permille(250) { self.rebuild(world) } else { Ok(()) }
    }

    /// Days pass without an input: brokers expire the offsets that are not committed again.
    fn let_days_pass(&mut self, world: &mut World) -> Result<(), Violation> {
        for _ in 0..DAYS_PASS_IN {
            world.now_ms += HOURS_AT_A_TIME_MS;
            let now_ms = world.now_ms;
            for group in 0..world.cluster.groups() {
                world.cluster.group(group).keep_alive(now_ms);
            }
            self.settle(world)?;
            let now_ms = world.now_ms;
            for group in 0..world.cluster.groups() {
                world.cluster.group(group).expire_offsets(now_ms);
                let expired = world.cluster.group(group).expired();
                if expired > 0 {
                    let what = format!("{expired} offsets of {} expired", self.services[group].name());
                    return Err(Violation::new("the offsets of a live group are committed again in time", what));
                }
            }
        }
        world.trace.sometimes("days pass, and every offset is committed again");
        self.check(world, true)
    }

    /// One step of the brokers, of the workload or of a process. Returns whether anything was done.
    fn step(&mut self, world: &mut World) -> Result<bool, Violation> {
        world.now_ms += world.random.within(0..=4);
        world.trace.at(world.now_ms - BEGIN_MS);
        world.registry.at(world.now_ms);
        let share = world.random.below(100);
        if share < 14 {
            world.cluster.step(world.now_ms, &mut world.random, &mut world.trace);
            return Ok(world.cluster.has_work(world.now_ms));
        }
        if share < 18 {
            self.inject_global_faults(world)?;
            return self.apply_operation(world);
        }
        let (service, process) = *world.random.pick(&self.processes);
        if share < 45 {
            self.services[service].step_background(process, world)
        } else {
            self.services[service].step(process, world)
        }
    }

    /// Injects the faults that concern no single process.
    fn inject_global_faults(&mut self, world: &mut World) -> Result<(), Violation> {
        if world.injects(Fault::TimeJump, "every process") {
            world.now_ms += world.faults.extent().within(500..=6_000);
        }
        if world.injects(Fault::RegistryDown, "the registry") {
            let until_ms = world.now_ms + world.faults.extent().within(300..=6_000);
            world.registry.is_down_until(until_ms);
        }
        if world.injects(Fault::RegistryLag, "the registry") {
            let schemas = world.registry.schemas();
            let schema = u32::try_from(world.faults.extent().index(schemas)).unwrap_or(0) + 1;
            let until_ms = world.now_ms + world.faults.extent().within(100..=1_500);
            world.registry.lags_until(schema, until_ms);
        }
        if world.injects(Fault::OffsetsLost, "a group") {
            let groups = world.cluster.groups();
            let group = world.faults.extent().index(groups);
            world.cluster.group(group).forget_offsets();
        }
        if world.injects(Fault::PoisonRecord, "an inbox") {
            self.append_poison_record(world);
        }
        let service = world.faults.extent().index(self.services.len());
        if world.injects(Fault::BugFixed, self.services[service].name()) {
            self.services[service].fix_bugs();
        }
        if world.random.permille(20) {
            operator::act(&*self.services[service], self.fixtures, world, false)?;
        }
        Ok(())
    }

    fn append_poison_record(&mut self, world: &mut World) {
        let service = &self.services[world.faults.extent().index(self.services.len())];
        let (inbox, partitions) = (Arc::clone(&service.contract().inputs[0]), service.contract().partitions);
        let topic = world.cluster.topic(&inbox);
        let key = poison_record_key(world, topic);
        let partition = match &key {
            Some(key) => partition_of(key, partitions),
            None => i32::try_from(world.faults.extent().index(usize::try_from(partitions).unwrap_or(1))).unwrap_or(0),
        };
        let value = match world.faults.extent().below(3) {
            0 => Some(b"no frame at all".to_vec()),
            1 => None,
            // A schema that was never registered: the runtime waits for it at first, then gives up.
            _ => Some(vec![0, 0, 0x7f, 0xff, 0xff, 1, 2, 3]),
        };
        let record = Rc::new(StoredRecord { timestamp_ms: world.now_ms, key, value, headers: Vec::new() });
        let request = Request::Append { topic_partition: TopicPartition { topic, partition }, record };
        if let Reply::Done { end } = world.cluster.handle(&request, world.now_ms, &mut world.trace) {
            world.poison_records.insert(Position::new(inbox, partition, end - 1));
        }
    }

    /// Applies the next operation.
    fn apply_operation(&mut self, world: &mut World) -> Result<bool, Violation> {
        let Some(operation) = self.todo.pop_front() else { return Ok(false) };
        let mut client = Client { fixtures: self.fixtures, world, services: &self.services, operation };
        if !self.workload.apply(operation, &mut client)? {
            self.todo.push_back(operation);
        }
        Ok(true)
    }

    /// Ends all faults. From here on everything must settle.
    fn settle(&mut self, world: &mut World) -> Result<(), Violation> {
        world.faults.end();
        world.registry.end_faults();
        for service in &mut self.services {
            service.resume(world);
            service.fix_bugs();
        }
        world.trace.note(None, || "FAULTS END".to_owned());
        let (begun_ms, mut idle, mut rounds) = (world.now_ms, 0, 0);
        for step in 0..SETTLES_WITHIN {
            idle = if self.step(world)? { 0 } else { idle + 1 };
            if idle < 3 * self.processes.len() + 20 {
                continue;
            }
            idle = 0;
            if self.unsettled_reason(world).is_none() {
                if self.operate_parked(world)? || self.operate_workload(world)? {
                    continue;
                }
                return Ok(());
            }
            // An effect of an entity with parked records is not performed until an operator has acted on them.
            rounds += 1;
            if rounds % OPERATOR_ACTS_EVERY == 0 && self.operate_parked(world)? {
                continue;
            }
            if world.now_ms - begun_ms > SETTLES_WITHIN_MS {
                break;
            }
            self.advance_to_next_due(world);
            world.trace.mix_number(step);
        }
        let why = self.unsettled_reason(world).unwrap_or_else(|| "new work appears without end".to_owned());
        Err(Violation::new("everything settles after the faults have ended", why))
    }

    /// Lets the scenario's operator act. Returns whether anything was done.
    fn operate_workload(&mut self, world: &mut World) -> Result<bool, Violation> {
        let services = &self.services;
        self.workload.operate(&mut Client { fixtures: self.fixtures, world, services, operation: OPERATOR_OPERATION })
    }

    /// Lets an operator act on the parked records of one service. Returns whether there were any.
    fn operate_parked(&self, world: &mut World) -> Result<bool, Violation> {
        for service in &self.services {
            if operator::act(&**service, self.fixtures, world, true)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn unsettled_reason(&self, world: &World) -> Option<String> {
        if let Some(operation) = self.todo.front() {
            return Some(format!("operation {operation} is not done"));
        }
        let reason = self.services.iter().find_map(|service| service.unsettled_reason(world));
        reason.or_else(|| world.cluster.unsettled_reason())
    }

    fn advance_to_next_due(&self, world: &mut World) {
        let services = self.services.iter().filter_map(|service| service.next_due(world));
        let next_ms = services.chain(world.cluster.next_due()).filter(|at_ms| *at_ms > world.now_ms).min();
        world.now_ms = next_ms.unwrap_or(world.now_ms + 50).min(world.now_ms + 1_000);
    }

    fn check(&mut self, world: &mut World, is_settled: bool) -> Result<(), Violation> {
        for service in &self.services {
            service.check(world, is_settled)?;
        }
        self.contents.catch_up(&world.cluster.log)?;
        let (cluster, poison_records) = (&world.cluster, &world.poison_records);
        let snapshot = Snapshot { cluster, fixtures: self.fixtures, is_settled, poison_records };
        self.workload.check(&snapshot, &mut world.trace)
    }

    /// Empties every store and restarts every process: nothing may be appended and no external service called.
    fn rebuild(&mut self, world: &mut World) -> Result<(), Violation> {
        // A group without committed offsets reads the inputs that led to no event again, and forwards them again.
        let rereads_inputs = world.trace.seen().contains(Fault::OffsetsLost.name());
        let ends = |world: &World| -> Vec<i64> {
            let log = &world.cluster.log;
            let counts = |known: &TopicPartition| !rereads_inputs || !log.name(known.topic).ends_with(".inbox");
            log.topic_partitions().filter(counts).map(|known| log.high_watermark(known)).collect()
        };
        let calls = |services: &[Box<dyn Service>]| services.iter().map(|service| service.calls()).sum::<u64>();
        let before = (ends(world), calls(&self.services));
        world.trace.note(None, || "WIPED: every store is emptied, every process restarts".to_owned());
        for service in &mut self.services {
            service.wipe(world);
        }
        self.settle(world)?;
        for service in &self.services {
            service.check(world, true)?;
        }
        if before.0 != ends(world) {
            let what = "a record was appended after the stores were wiped";
            return Err(Violation::new("a rebuild produces nothing", what));
        }
        if before.1 != calls(&self.services) {
            let what = "an effect was performed after the stores were wiped";
            return Err(Violation::new("a rebuild calls no external service", what));
        }
        world.trace.sometimes("every store is rebuilt from the logs");
        Ok(())
    }
}

/// A key for a record that cannot be read: mostly of an entity that has inputs, sometimes of an unknown entity, or none.
fn poison_record_key(world: &mut World, inbox: usize) -> Option<Vec<u8>> {
    if world.faults.extent().permille(200) {
        return None;
    }
    let log = &world.cluster.log;
    let inboxes = log.topic_partitions().filter(|known| known.topic == inbox);
    let keys: Vec<Vec<u8>> =
        inboxes.flat_map(|known| log.committed(known)).filter_map(|(_, stored)| stored.key.clone()).collect();
    let at = world.faults.extent().index(keys.len() + 1);
    Some(keys.into_iter().nth(at).unwrap_or_else(|| b"stranger".to_vec()))
}

/// The first record of each id.
#[derive(Default)]
struct ContentById {
    next: ReadPositions,
    known: HashMap<Uuid, (Rc<StoredRecord>, TopicPartition, i64)>,
}

impl ContentById {
    /// Checks that no id has two contents, whatever topics they are on.
    fn catch_up(&mut self, log: &Log) -> Result<(), Violation> {
        for here in log.topic_partitions() {
            let from = self.next.entry(here).or_default();
            while let Some((offset, stored)) = log.next_committed(here, from) {
                let Some(id) = stored.header("ce_id").and_then(|id| Uuid::parse_str(id).ok()) else { continue };
                let (known, first, at) = self.known.entry(id).or_insert_with(|| (Rc::clone(&stored), here, offset));
                if known.value != stored.value {
                    let name = |of: &TopicPartition| format!("{}/{}", log.name(of.topic), of.partition);
                    let what = format!("{id} at {}/{at} and at {}/{offset}", name(first), name(&here));
                    return Err(Violation::new("an id has one content", what));
                }
            }
        }
        Ok(())
    }
}
