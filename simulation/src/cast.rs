//! Who takes part in a history: services with their processes, and what is shared by the histories of one thread.

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
    driver::{AskedBy, Kit, Mood, Moody, Outside, Process, Violation, World, truth::Truth},
    registry::Table,
};

/// The build that simulated services say they are.
const BUILD: &str = "simulated";

/// What histories share so that none makes it anew: the schemas and the contracts.
pub struct Workshop {
    system: &'static str,
    pub(crate) table: Arc<Table>,
    readers: Readers,
    contracts: RefCell<BTreeMap<(&'static str, i32), ServiceContract>>,
    operators: Result<Writers, Violation>,
}

impl Workshop {
    /// A workshop for a system. Schema files are written for `musiccorp`; in another system their namespaces differ.
    #[must_use]
    pub fn new(system: &'static str) -> Self {
        let table = Arc::new(Table::default());
        let readers = Readers::new(Arc::clone(&table) as Arc<dyn SchemaSource>);
        // At once, so that the ids of schemas do not depend on which history needs them first.
        let operators = table.writers(system, ParkingCommand::RECORDS);
        let operators = operators.map_err(|e| Violation::new("an operator's command can be written", e.to_string()));
        Self { system, table, readers, contracts: RefCell::default(), operators }
    }

    /// The system.
    #[must_use]
    pub fn system(&self) -> &'static str {
        self.system
    }

    /// Reads every body: no registry is ever down for it.
    #[must_use]
    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Writes what operators ask of what is parked.
    pub(crate) fn operators(&self) -> Result<&Writers, Violation> {
        self.operators.as_ref().map_err(Clone::clone)
    }

    fn contract<D: Decider>(&self, decider: &D, partitions: i32) -> Result<ServiceContract, Violation> {
        if let Some(contract) = self.contracts.borrow().get(&(D::NAME, partitions)) {
            return Ok(contract.clone());
        }
        let wrong = |what: String| Violation::new("a contract is right", format!("{}: {what}", D::NAME));
        let writers = self.table.writers(self.system, &written_by::<D>()).map_err(|e| wrong(e.to_string()))?;
        let group = format!("{}.{}", self.system, D::NAME);
        let names = ContractNames { system: self.system, group: &group, build: BUILD, partitions };
        let contract = ServiceContract::of(decider, names, writers).map_err(|e| wrong(e.to_string()))?;
        self.contracts.borrow_mut().insert((D::NAME, partitions), contract.clone());
        Ok(contract)
    }
}

/// One service of a history, whatever its decider.
pub(crate) trait Service {
    fn name(&self) -> &'static str;
    fn processes(&self) -> usize;
    fn step(&mut self, process: usize, world: &mut World) -> Result<bool, Violation>;
    fn step_beside(&mut self, process: usize, world: &mut World) -> Result<bool, Violation>;
    fn wake(&mut self, world: &World);
    fn wipe(&mut self, world: &mut World);
    fn unrest(&self, world: &World) -> Option<String>;
    fn next_due(&self, world: &World) -> Option<i64>;
    fn check(&self, world: &World, is_quiet: bool) -> Result<(), Violation>;
    fn asked(&self) -> u64;
    fn mend(&self);
    fn contract(&self) -> &ServiceContract;
}

struct Played<D: Decider> {
    kit: Kit<D>,
    processes: Vec<Process<D>>,
}

impl<D: Decider> Service for Played<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn processes(&self) -> usize {
        self.processes.len()
    }

    fn step(&mut self, process: usize, world: &mut World) -> Result<bool, Violation> {
        self.processes[process].step(&self.kit, world)
    }

    fn step_beside(&mut self, process: usize, world: &mut World) -> Result<bool, Violation> {
        self.processes[process].step_beside(&self.kit, world)
    }

    fn wake(&mut self, world: &World) {
        self.processes.iter_mut().for_each(|process| process.wake(world));
    }

    fn wipe(&mut self, world: &mut World) {
        self.processes.iter_mut().for_each(|process| process.wipe(&self.kit, world));
    }

    fn unrest(&self, world: &World) -> Option<String> {
        self.processes.iter().find_map(|process| process.unrest(&self.kit, world))
    }

    fn next_due(&self, world: &World) -> Option<i64> {
        self.processes.iter().filter_map(|process| process.next_due(world)).min()
    }

    fn check(&self, world: &World, is_quiet: bool) -> Result<(), Violation> {
        self.kit.truth.borrow_mut().catch_up(&world.cluster.log)?;
        if !self.processes.iter().all(Process::is_bounded) {
            return Err(Violation::new("queues are bounded", format!("{} has too many effects under way", D::NAME)));
        }
        if !is_quiet {
            return Ok(());
        }
        let mut owners = BTreeMap::new();
        for process in &self.processes {
            process.compare(&self.kit, &mut owners)?;
        }
        let expected: BTreeMap<i32, u32> = (0..self.kit.contract.partitions).map(|partition| (partition, 1)).collect();
        if owners == expected {
            Ok(())
        } else {
            Err(Violation::new("a partition has one owner", format!("{}: {owners:?}", D::NAME)))
        }
    }

    fn asked(&self) -> u64 {
        *self.kit.asked.borrow()
    }

    fn mend(&self) {
        self.kit.mood.mend();
    }

    fn contract(&self) -> &ServiceContract {
        &self.kit.contract
    }
}

/// Where a scenario names who takes part.
pub struct Cast<'a> {
    pub(crate) workshop: &'a Workshop,
    pub(crate) world: &'a mut World,
    pub(crate) partitions: i32,
    pub(crate) services: Vec<Box<dyn Service>>,
    pub(crate) failed: Cell<Option<Violation>>,
}

impl Cast<'_> {
    /// Lets a service take part, with the outside world that its effects ask.
    pub fn play<D: Decider>(&mut self, decider: D, outside: impl Outside<D> + 'static) {
        self.play_with(decider, Rc::new(RefCell::new(outside)));
    }

    /// The group subscribes to the inbox only, and each topic that the service writes to takes what the contract says.
    fn subscribe(&mut self, group: usize, contract: &ServiceContract) {
        let (cluster, limits) = (&mut self.world.cluster, contract.limits);
        let inbox = cluster.topic(&contract.inputs[0]);
        cluster.group(group).subscribe(inbox);
        let limited = [
            (&contract.inputs[0], limits.inbox),
            (&contract.events_topic, limits.events),
            (&contract.dead_letter_topic, limits.dead_letters),
            (&contract.parked_topic, limits.parked),
        ];
        for (topic, most) in limited {
            let topic = cluster.topic(topic);
            cluster.limit(topic, most);
        }
    }

    /// The same, with an outside world that the scenario looks at as well.
    pub fn play_with<D: Decider>(&mut self, decider: D, outside: Rc<RefCell<dyn Outside<D>>>) {
        let contract = match self.workshop.contract(&decider, self.partitions) {
            Ok(contract) => contract,
            Err(violation) => {
                self.failed.set(Some(violation));
                return;
            }
        };
        let cluster = &mut self.world.cluster;
        let inputs = contract.inputs.iter().map(|topic| cluster.topic(topic)).collect();
        let (events, letters) = (cluster.topic(&contract.events_topic), cluster.topic(&contract.dead_letter_topic));
        let parked = cluster.topic(&contract.parked_topic);
        let group = self.world.cluster.add_group();
        self.subscribe(group, &contract);
        let readers = self.workshop.readers.clone();
        let mood = Mood::default();
        // What is true is folded by the decider as it is meant; the processes have one that fails now and then.
        let truth = Moody { decider: decider.clone(), mood: Mood::default() };
        let kit = Kit {
            truth: RefCell::new(Truth::new(truth, readers.clone(), events, self.partitions)),
            decider: Moody { decider, mood: mood.clone() },
            mood,
            contract,
            readers,
            outside: Rc::new(RefCell::new(AskedBy(outside))),
            group,
            inputs,
            events,
            letters,
            parked,
            asked: RefCell::new(0),
        };
        let count = 1 + self.world.chance.below(3).min(1);
        let processes = (0..count).map(|at| Process::new(format!("{}-{at}", D::NAME), self.world)).collect();
        self.services.push(Box::new(Played { kit, processes }));
    }
}
