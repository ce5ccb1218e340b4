//! What an author of a scenario writes and uses: the scenario, its workload, the client that sends commands, and the snapshot
//! that promises are checked against.
//!
//! It knows no fault and no schedule: [`crate::simulated_run`] does.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use runtime::{
    Decider, Written,
    core::partition_of,
    envelope::{Envelope, Position, derived_id},
    message::{Channel, topic},
};

use crate::{
    cluster::{Cluster, StoredRecord, TopicPartition},
    driver::{Violation, World},
    random::SeededRandom,
    setup::{Fixtures, ScenarioSetup, Service},
    trace::Trace,
};

/// A system under test: its services and its workload.
pub trait Scenario {
    /// Adds the services, and draws the operations of one run.
    fn begin(&self, setup: &mut ScenarioSetup<'_>, random: &mut SeededRandom) -> Box<dyn Workload>;
}

/// The operations of one run, and the promises that must hold in it.
pub trait Workload {
    /// One line of text for each operation.
    fn operations(&self) -> Vec<String>;

    /// Applies an operation. Returns false to be called again later: a caller of an HTTP API that gets no answer tries again.
    ///
    /// # Errors
    /// A promise is broken.
    fn apply(&mut self, operation: usize, client: &mut Client<'_>) -> Result<bool, Violation>;

    /// Acts as an operator would on a system that has settled in a state that needs attention. Returns whether anything was done;
    /// by default nothing is.
    ///
    /// # Errors
    /// A promise is broken.
    fn operate(&mut self, _client: &mut Client<'_>) -> Result<bool, Violation> {
        Ok(false)
    }

    /// Checks the promises, during the run or after it has settled.
    ///
    /// # Errors
    /// A promise is broken.
    fn check(&mut self, snapshot: &Snapshot<'_>, trace: &mut Trace) -> Result<(), Violation>;
}

/// A client of the system under test: what an operation may do.
pub struct Client<'a> {
    pub(crate) fixtures: &'a Fixtures,
    pub(crate) world: &'a mut World,
    pub(crate) services: &'a [Box<dyn Service>],
    pub(crate) operation: usize,
}

impl Client<'_> {
    /// Sends on behalf of another operation from here on.
    pub fn for_operation(&mut self, operation: usize) {
        self.operation = operation;
    }

    /// Records that a situation has occurred which must occur in some runs.
    pub fn sometimes(&mut self, situation: &'static str) {
        self.world.trace.sometimes(situation);
    }

    /// Sends a command to a service's inbox, as its HTTP API does. The id depends on the operation, so a second attempt is a
    /// repeat. Returns whether the command was acknowledged.
    ///
    /// # Errors
    /// The service is not part of the scenario, or the command cannot be written.
    pub fn send<D: Decider>(&mut self, key: &str, command: impl Into<D::Command>) -> Result<bool, Violation>
    where
        D::Command: Written,
    {
        let command: D::Command = command.into();
        let mismatch = |what: String| Violation::new("a scenario matches its services", what);
        let service = self.services.iter().find(|service| service.name() == D::NAME);
        let contract = service.ok_or_else(|| mismatch(format!("no service is called {}", D::NAME)))?.contract();
        let mut value = Vec::new();
        let name = contract.writers().encode(&command, &mut value).map_err(|e| mismatch(e.to_string()))?;
        let id = derived_id(&["operation", &self.operation.to_string(), key, name]);
        let source = runtime::envelope::source(self.fixtures.system(), "http-api");
        let envelope = Envelope::new(id, source, Arc::clone(name), self.world.now_ms).about(key).correlated(key);
        let headers = crate::driver::headers_of(&envelope);
        let timestamp_ms = self.world.now_ms;
        let stored = StoredRecord { timestamp_ms, key: Some(key.as_bytes().to_vec()), value: Some(value), headers };
        let topic = self.world.cluster.topic(&contract.inputs[0]);
        let partition = partition_of(key.as_bytes(), contract.partitions);
        Ok(self.world.append(TopicPartition { topic, partition }, Rc::new(stored), "an HTTP API"))
    }

    /// The records of a service's events topic that are committed now.
    pub fn events_of(&self, service: &str) -> Vec<(TopicPartition, i64, Rc<StoredRecord>)> {
        self.events_since(service, &mut ReadPositions::new())
    }

    /// The records of a service's events topic that were committed since the last call with these positions, which the call
    /// advances.
    pub fn events_since(
        &self,
        service: &str,
        next: &mut ReadPositions,
    ) -> Vec<(TopicPartition, i64, Rc<StoredRecord>)> {
        let name = topic(self.fixtures.system(), service, Channel::Events);
        let (log, mut events) = (&self.world.cluster.log, Vec::new());
        let Some(topic) = log.find(&name) else { return events };
        for topic_partition in log.topic_partitions().filter(|known| known.topic == topic) {
            let from = next.entry(topic_partition).or_default();
            while let Some((offset, stored)) = log.next_committed(topic_partition, from) {
                events.push((topic_partition, offset, stored));
            }
        }
        events
    }

    /// What all runs of a thread share.
    #[must_use]
    pub fn fixtures(&self) -> &Fixtures {
        self.fixtures
    }

    /// The random numbers of the schedule.
    pub fn random(&mut self) -> &mut SeededRandom {
        &mut self.world.random
    }
}

/// The next offset to read of each partition.
pub type ReadPositions = BTreeMap<TopicPartition, i64>;

/// The system under test at the moment at which promises are checked.
pub struct Snapshot<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What all runs of a thread share.
    pub fixtures: &'a Fixtures,
    /// Everything has settled: nothing more happens without a new input.
    pub is_settled: bool,
    /// The positions of the records that cannot be read.
    pub poison_records: &'a BTreeSet<Position>,
}

impl Snapshot<'_> {
    /// Every committed record of the topics whose names match, partition by partition.
    pub fn records(&self, matches: impl Fn(&str) -> bool, each: impl FnMut(&Arc<str>, i32, i64, &StoredRecord)) {
        self.records_since(&mut ReadPositions::new(), matches, each);
    }

    /// The records of these topics that were committed since the last call with these positions, which the call advances. A
    /// committed record never changes, so a caller can keep what it has computed from the earlier ones.
    pub fn records_since(
        &self,
        next: &mut ReadPositions,
        matches: impl Fn(&str) -> bool,
        mut each: impl FnMut(&Arc<str>, i32, i64, &StoredRecord),
    ) {
        let log = &self.cluster.log;
        for topic_partition in log.topic_partitions().filter(|known| matches(log.name(known.topic))) {
            let from = next.entry(topic_partition).or_default();
            while let Some((offset, stored)) = log.next_committed(topic_partition, from) {
                each(log.name(topic_partition.topic), topic_partition.partition, offset, &stored);
            }
        }
    }
}
