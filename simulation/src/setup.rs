//! The setup of a run: services with their processes, and what all runs of one thread share.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use runtime::{
    Decider, Message as _,
    codec::{Readers, SchemaSource, Writers},
    core::{ContractNames, ParkingCommand, ServiceContract, written_by},
};

use crate::{
    driver::{
        DeciderBugs, ExternalService, FaultyCaller, FaultyDecider, Process, ServiceContext, Violation, World,
        reference_fold::ReferenceFold,
    },
    registry::SchemaTable,
};

/// The build that simulated services report.
const BUILD: &str = "simulated";

/// What all runs of a thread share, because it is expensive to make: the schemas and the contracts.
pub struct Fixtures {
    system: &'static str,
    pub(crate) table: Arc<SchemaTable>,
    readers: Readers,
    contracts: RefCell<BTreeMap<(&'static str, i32), ServiceContract>>,
    operator_writers: Result<Writers, Violation>,
}

impl Fixtures {
    /// The fixtures of a system. Schema files are written for `musiccorp`; in another system their namespaces differ.
    #[must_use]
    pub fn new(system: &'static str) -> Self {
        let table = Arc::new(SchemaTable::default());
        let readers = Readers::new(Arc::clone(&table) as Arc<dyn SchemaSource>);
        // Registered first, so that the ids of schemas do not depend on which run needs them first.
        let writers = table.writers(system, ParkingCommand::RECORDS);
        let operator_writers =
            writers.map_err(|e| Violation::new("an operator's command can be written", e.to_string()));
        Self { system, table, readers, contracts: RefCell::default(), operator_writers }
    }

    /// The system.
    #[must_use]
    pub fn system(&self) -> &'static str {
        self.system
    }

    /// Readers of every body, on which no fault of the registry has an effect.
    #[must_use]
    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// The writers of an operator's commands on parked records.
    pub(crate) fn operator_writers(&self) -> Result<&Writers, Violation> {
        self.operator_writers.as_ref().map_err(Clone::clone)
    }

    fn contract<D: Decider>(&self, decider: &D, partitions: i32) -> Result<ServiceContract, Violation> {
        if let Some(contract) = self.contracts.borrow().get(&(D::NAME, partitions)) {
            return Ok(contract.clone());
        }
        let invalid = |what: String| Violation::new("a contract is valid", format!("{}: {what}", D::NAME));
        let writers = self.table.writers(self.system, &written_by::<D>()).map_err(|e| invalid(e.to_string()))?;
        let group = format!("{}.{}", self.system, D::NAME);
        let names = ContractNames { system: self.system, group: &group, build: BUILD, partitions };
        let contract = ServiceContract::of(decider, names, writers).map_err(|e| invalid(e.to_string()))?;
        self.contracts.borrow_mut().insert((D::NAME, partitions), contract.clone());
        Ok(contract)
    }
}

/// One service of a run, whatever its decider.
pub(crate) trait Service {
    fn name(&self) -> &'static str;
    fn processes(&self) -> usize;
    fn step(&mut self, process: usize, world: &mut World) -> Result<bool, Violation>;
    fn step_background(&mut self, process: usize, world: &mut World) -> Result<bool, Violation>;
    fn resume(&mut self, world: &World);
    fn wipe(&mut self, world: &mut World);
    fn restart(&mut self, world: &mut World);
    fn group(&self) -> usize;
    fn unsettled_reason(&self, world: &World) -> Option<String>;
    fn next_due(&self, world: &World) -> Option<i64>;
    fn check(&self, world: &World, is_settled: bool) -> Result<(), Violation>;
    fn calls(&self) -> u64;
    fn fix_bugs(&self);
    fn contract(&self) -> &ServiceContract;
}

struct SimulatedService<D: Decider> {
    context: ServiceContext<D>,
    processes: Vec<Process<D>>,
}

impl<D: Decider> Service for SimulatedService<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn processes(&self) -> usize {
        self.processes.len()
    }

    fn step(&mut self, process: usize, world: &mut World) -> Result<bool, Violation> {
        self.processes[process].step(&self.context, world)
    }

    fn step_background(&mut self, process: usize, world: &mut World) -> Result<bool, Violation> {
        self.processes[process].step_background(&self.context, world)
    }

    fn resume(&mut self, world: &World) {
        self.processes.iter_mut().for_each(|process| process.resume(world));
    }

    fn wipe(&mut self, world: &mut World) {
        self.processes.iter_mut().for_each(|process| process.wipe(&self.context, world));
    }

    fn restart(&mut self, world: &mut World) {
        self.processes.iter_mut().for_each(|process| process.restart(&self.context, world));
    }

    fn group(&self) -> usize {
        self.context.group
    }

    fn unsettled_reason(&self, world: &World) -> Option<String> {
        self.processes.iter().find_map(|process| process.unsettled_reason(&self.context, world))
    }

    fn next_due(&self, world: &World) -> Option<i64> {
        self.processes.iter().filter_map(|process| process.next_due(world)).min()
    }

    fn check(&self, world: &World, is_settled: bool) -> Result<(), Violation> {
        self.context.reference.borrow_mut().catch_up(&world.cluster.log)?;
        if !self.processes.iter().all(Process::is_bounded) {
            return Err(Violation::new("queues are bounded", format!("{} has too many effects in flight", D::NAME)));
        }
        if !is_settled {
            return Ok(());
        }
        let mut owners = BTreeMap::new();
        for process in &self.processes {
            process.compare(&self.context, &mut owners)?;
        }
        let expected: BTreeMap<i32, u32> =
            (0..self.context.contract.partitions).map(|partition| (partition, 1)).collect();
        if owners == expected {
            Ok(())
        } else {
            Err(Violation::new("a partition has one owner", format!("{}: {owners:?}", D::NAME)))
        }
    }

    fn calls(&self) -> u64 {
        *self.context.calls.borrow()
    }

    fn fix_bugs(&self) {
        self.context.bugs.fix();
    }

    fn contract(&self) -> &ServiceContract {
        &self.context.contract
    }
}

/// Where a scenario adds its services.
pub struct ScenarioSetup<'a> {
    pub(crate) fixtures: &'a Fixtures,
    pub(crate) world: &'a mut World,
    pub(crate) partitions: i32,
    pub(crate) services: Vec<Box<dyn Service>>,
    pub(crate) failed: Cell<Option<Violation>>,
}

impl ScenarioSetup<'_> {
    /// Adds a service, with the external service that its effects call.
    pub fn add_service<D: Decider>(&mut self, decider: D, external: impl ExternalService<D> + 'static) {
        self.add_service_with(decider, Rc::new(RefCell::new(external)));
    }

    /// Subscribes the group to the inbox only, and limits the record size of each topic that the service writes to.
    fn subscribe(&mut self, group: usize, contract: &ServiceContract) {
        let (cluster, sizes) = (&mut self.world.cluster, contract.limits);
        let inbox = cluster.topic(&contract.inputs[0]);
        cluster.group(group).subscribe(inbox);
        let limits = [
            (&contract.inputs[0], sizes.inbox),
            (&contract.events_topic, sizes.events),
            (&contract.dead_letter_topic, sizes.dead_letters),
            (&contract.parked_topic, sizes.parked),
        ];
        for (topic, max_bytes) in limits {
            let topic = cluster.topic(topic);
            cluster.limit(topic, max_bytes);
        }
    }

    /// Adds a service, with an external service that the scenario inspects as well.
    pub fn add_service_with<D: Decider>(&mut self, decider: D, external: Rc<RefCell<dyn ExternalService<D>>>) {
        let contract = match self.fixtures.contract(&decider, self.partitions) {
            Ok(contract) => contract,
            Err(violation) => {
                self.failed.set(Some(violation));
                return;
            }
        };
        let cluster = &mut self.world.cluster;
        let inputs = contract.inputs.iter().map(|topic| cluster.topic(topic)).collect();
        let (events, dead_letters) =
            (cluster.topic(&contract.events_topic), cluster.topic(&contract.dead_letter_topic));
        let parked = cluster.topic(&contract.parked_topic);
        let group = self.world.cluster.add_group();
        self.subscribe(group, &contract);
        let readers = self.fixtures.readers.clone();
        let bugs = DeciderBugs::default();
        // The reference fold uses a decider without bugs; the processes use one that fails now and then.
        let correct = FaultyDecider { decider: decider.clone(), bugs: DeciderBugs::default() };
        let context = ServiceContext {
            reference: RefCell::new(ReferenceFold::new(correct, readers.clone(), events, self.partitions)),
            decider: FaultyDecider { decider, bugs: bugs.clone() },
            bugs,
            contract,
            readers,
            external: Rc::new(RefCell::new(FaultyCaller(external))),
            group,
            inputs,
            events,
            dead_letters,
            parked,
            calls: RefCell::new(0),
        };
        let count = 1 + self.world.random.below(3).min(1);
        let processes = (0..count).map(|at| Process::new(format!("{}-{at}", D::NAME), self.world)).collect();
        self.services.push(Box::new(SimulatedService { context, processes }));
    }
}
