//! A cluster for tests: the Kafka and the registry named by `DACAPO_TEST_KAFKA` and `DACAPO_TEST_REGISTRY`, else the embedded
//! pair, started in the test's own process.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::time::{Duration, Instant};

use embedded::{
    broker::{Broker, BrokerConfig},
    registry::{Level, Registry as EmbeddedRegistry, RegistryConfig},
};
use runtime::{
    Config, RecordType,
    codec::in_system,
    kafka::{Admin, TopicPlan, TopicSpec},
    registry::RegistryClient,
};

/// Long enough for a cluster's first responses on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub config: Config,
    pub registry: RegistryClient,
    pub admin: Admin,
    embedded: Option<Embedded>,
}

impl Cluster {
    /// A system of its own on the cluster, so that tests do not see each other.
    pub async fn start(service: &str) -> Self {
        let external = (std::env::var("DACAPO_TEST_KAFKA"), std::env::var("DACAPO_TEST_REGISTRY"));
        match external {
            (Ok(kafka), Ok(registry)) => Self::at(service, kafka, registry, None),
            _ => Self::start_embedded(service).await,
        }
    }

    /// Always the embedded pair: for tests that stop the broker.
    pub async fn start_embedded(service: &str) -> Self {
        let embedded = Embedded::start().await;
        let (kafka, registry) = (embedded.bootstrap.clone(), embedded.registry.url());
        Self::at(service, kafka, registry, Some(embedded))
    }

    fn at(service: &str, kafka: String, registry: String, embedded: Option<Embedded>) -> Self {
        if std::env::var("RUST_LOG").is_ok() {
            runtime::telemetry::init_logs();
        }
        let mut config = Config::for_tests().for_service(service);
        (config.bootstrap, config.registry_url) = (kafka, registry);
        config.system = format!("t{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
        config.partitions = 2;
        let registry = RegistryClient::new(&config).expect("a registry client");
        let admin = Admin::new(&config).expect("an admin client");
        Self { config, registry, admin, embedded }
    }

    /// Stops the embedded broker.
    pub async fn stop_broker(&mut self) {
        if let Some(broker) = self.embedded.as_mut().and_then(|embedded| embedded.broker.take()) {
            broker.stop().await;
        }
    }

    /// Restarts the embedded broker with the same data and address.
    pub fn restart_broker(&mut self) {
        if let Some(embedded) = &mut self.embedded {
            embedded.broker = Some(broker(embedded.data.path(), embedded.addr));
        }
    }

    /// Creates topics. On a busy machine this may take longer than one request, so it is retried.
    pub async fn create(&self, specs: &[TopicSpec]) {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            let done = match TopicPlan::compute(&self.admin, specs).await {
                Ok(plan) => plan.apply(&self.admin).await.map(|_| ()),
                Err(error) => Err(error),
            };
            match done {
                Err(error) if error.is_transient() && Instant::now() < deadline => {}
                done => return done.expect("topics"),
            }
        }
    }

    pub fn register(&self, records: &[RecordType]) {
        for record in records {
            let subject = record.full_name(&self.config.system);
            let text = in_system(record.schema.expect("a written record"), &self.config.system).into_owned();
            self.registry.register(&subject, &text).expect("a registered schema");
        }
    }
}

/// A broker and a registry in this process.
struct Embedded {
    data: tempfile::TempDir,
    addr: std::net::SocketAddr,
    bootstrap: String,
    broker: Option<Broker>,
    registry: EmbeddedRegistry,
}

impl Embedded {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let broker = broker(data.path(), ([127, 0, 0, 1], 0).into());
        let registry = RegistryConfig {
            data_dir: None,
            listen: ([127, 0, 0, 1], 0).into(),
            default_level: Level::FullTransitive,
            fsync: false,
        };
        let registry = EmbeddedRegistry::start(registry).await.expect("a registry");
        Self { data, addr: broker.addr(), bootstrap: broker.bootstrap(), broker: Some(broker), registry }
    }
}

fn broker(data: &std::path::Path, listen: std::net::SocketAddr) -> Broker {
    let config = BrokerConfig { data_dir: Some(data.to_owned()), listen, ..BrokerConfig::default() };
    Broker::start(BrokerConfig { initial_rebalance_delay: Duration::ZERO, ..config }).expect("a broker")
}
