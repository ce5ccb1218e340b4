//! A zombie writes nothing: an instance is frozen for longer than its session during its work, and another instance takes over its
//! partition. When the frozen instance continues, none of its records becomes visible after its successor's.
//!
//! The topics prove it: the producer of every committed batch, every id once, every sequence without a gap. The resumed instance cannot
//! rejoin its group meanwhile, so it owns no partition, and any record that it adds is a failure. `DACAPO_FREEZES=20` sets another
//! number of rounds than two.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use chaos::{
    environment::{Environment, EnvironmentSettings},
    infrastructure::Infrastructure,
    instances::RunningInstance,
    load::Load,
    plan::{FAULTED_SERVICES, Instance},
    proxy::ProxyMode,
};

use super::{PATIENCE, POLL_INTERVAL, batches, executable, external, system, wait_until};

/// Orders per second.
const RATE: f64 = 15.0;
/// How many batches the successor writes after the zombie has resumed, before the test compares.
const BATCHES_AFTER: usize = 20;

/// What is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    /// The process: requests that it has sent reach the broker.
    Process,
    /// The process and its connections: its requests reach the broker after its successor has started to work.
    ProcessAndConnections,
}

struct Test {
    environment: Environment,
    kafka: SocketAddr,
    /// The topics that only the owner of the partition writes to in transactions.
    topics: [String; 3],
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instance_writes_nothing_after_another_has_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let rounds: u32 = std::env::var("DACAPO_FREEZES").ok().and_then(|freezes| freezes.parse().ok()).unwrap_or(2);
    let (infrastructure, session_ms) = match external() {
        Some((bootstrap, registry)) => (Infrastructure::external(&bootstrap, &registry).await.unwrap(), 6_000),
        None => (Infrastructure::embedded(&executable(), folder.path()).await.unwrap(), 2_500),
    };
    let system = system(folder.path());
    let kafka = infrastructure.kafka();
    let settings = EnvironmentSettings {
        executable: executable(),
        folder: folder.path().to_owned(),
        system: system.clone(),
        partitions: 1,
        session_ms,
    };
    let environment = Environment::start(settings, &initial_instances(), infrastructure).await.unwrap();
    let topics =
        [format!("{system}.warehouse.events"), format!("{system}.warehouse.inbox"), format!("dlq.{system}.warehouse")];
    let test = Test { environment, kafka, topics };
    let load = Load::start(Arc::clone(&test.environment.instances), 1, RATE);
    for round in 0..rounds {
        let frozen = if round % 2 == 0 { Frozen::Process } else { Frozen::ProcessAndConnections };
        test.round(frozen).await;
    }
    let results = load.stop(PATIENCE).await;
    // Every id once, every sequence without a gap, every order with one outcome.
    let result = test.environment.settle(&results, PATIENCE).await.unwrap();
    assert!(result.findings.is_empty(), "{:#?}", result.findings);
    assert!(result.audit.orders.completed > 0);
}

/// One instance of each service, two of the warehouse.
fn initial_instances() -> Vec<Instance> {
    let one = |service| Instance { service, number: 0, is_named: true };
    FAULTED_SERVICES.into_iter().map(one).chain([Instance { number: 1, ..one("warehouse") }]).collect()
}

impl Test {
    async fn round(&self, frozen: Frozen) {
        let owner = self.owner().await;
        // Identified by a new batch: earlier batches may be of an earlier owner of the partition.
        let so_far = self.read(&self.topics[0], 0).await.len();
        let zombie = self.next_batches(0, so_far + 1).await.last().unwrap().producer;
        self.freeze(&owner, frozen).await;
        let taken_over = self.first_batch_not_of(zombie).await;
        // The successor decides only after all transactions of the zombie have ended, so these are all its batches as the owner.
        let as_owner = self.visible_of(zombie).await;
        // The zombie continues its work; its old requests reach the broker only now.
        owner.set_connections(ProxyMode::JoinsHeld);
        let joins = owner.proxy().joins();
        owner.process().await.thaw().unwrap();
        // When it tries to rejoin, it has noticed the loss of its partition, and its pending writes are finished or abandoned.
        wait_until("the zombie tries to rejoin", || owner.proxy().joins() > joins).await;
        let so_far = self.next_batches(taken_over.offset, 1).await.len();
        self.next_batches(taken_over.offset, so_far + BATCHES_AFTER).await;
        let as_zombie = self.visible_of(zombie).await;
        assert_eq!(as_zombie, as_owner, "{frozen:?}: committed batches of producer {zombie} on {:?}", self.topics);
        owner.set_connections(ProxyMode::Open);
        owner.wait_until_ready(PATIENCE).await.unwrap();
    }

    /// How many batches of a producer's transactions are visible on each topic. Effect results are written outside transactions and are
    /// valid from any instance.
    async fn visible_of(&self, producer: i64) -> Vec<usize> {
        let mut visible = Vec::new();
        for topic in &self.topics {
            let shown = self.read(topic, 0).await;
            visible.push(shown.iter().filter(|batch| batch.is_transactional && batch.producer == producer).count());
        }
        visible
    }

    /// The instance that decides: only its number of sent records grows.
    async fn owner(&self) -> Arc<RunningInstance> {
        let deadline = Instant::now() + PATIENCE;
        let of_warehouse = |running: &Arc<RunningInstance>| running.instance.service == "warehouse";
        let instances: Vec<_> = self.environment.instances.all().into_iter().filter(of_warehouse).collect();
        let mut before = [instances[0].sent().await, instances[1].sent().await];
        loop {
            let now = [instances[0].sent().await, instances[1].sent().await];
            match [now[0] > before[0], now[1] > before[1]] {
                [true, false] => return Arc::clone(&instances[0]),
                [false, true] => return Arc::clone(&instances[1]),
                _ => before = now,
            }
            assert!(Instant::now() < deadline, "no instance owns the partition");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn freeze(&self, owner: &RunningInstance, frozen: Frozen) {
        if frozen == Frozen::ProcessAndConnections {
            owner.set_connections(ProxyMode::Frozen);
        }
        owner.process().await.freeze().unwrap();
    }

    /// The committed batches of the events topic from an offset on, once there are enough.
    async fn next_batches(&self, from: i64, at_least: usize) -> Vec<batches::Batch> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.read(&self.topics[0], from).await;
            if shown.len() >= at_least {
                return shown;
            }
            assert!(Instant::now() < deadline, "{} of {at_least} batches from offset {from} on", shown.len());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn first_batch_not_of(&self, producer: i64) -> batches::Batch {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.read(&self.topics[0], 0).await;
            let last_of_owner = shown.iter().rposition(|batch| batch.producer == producer).unwrap();
            if let Some(taken_over) = shown.get(last_of_owner + 1) {
                return *taken_over;
            }
            assert!(Instant::now() < deadline, "no instance took over the partition");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn read(&self, topic: &str, from: i64) -> Vec<batches::Batch> {
        let (kafka, topic) = (self.kafka, topic.to_owned());
        tokio::task::spawn_blocking(move || batches::read(kafka, &topic, from)).await.unwrap()
    }
}
