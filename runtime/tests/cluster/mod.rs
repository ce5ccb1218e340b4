//! A cluster for tests: the Kafka and the registry named by `DACAPO_TEST_KAFKA` and `DACAPO_TEST_REGISTRY`, else the embedded
//! pair, started in the test's own process.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::time::Duration;

use embedded::{
    broker::{Broker, BrokerConfig},
    registry::{Level, Registry as EmbeddedRegistry, RegistryConfig},
};
use runtime::{
    Config, RecordType,
    codec::in_system,
    kafka::{Admin, TopicPlan, TopicSpec},
    registry::Registry,
};

/// Long enough for a cluster's first answers on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub config: Config,
    pub registry: Registry,
    pub admin: Admin,
    embedded: Option<(Broker, EmbeddedRegistry)>,
}

impl Cluster {
    /// A system of its own on the cluster, so that tests do not see each other.
    pub async fn start(service: &str) -> Self {
        if std::env::var("RUST_LOG").is_ok() {
            runtime::telemetry::init_logs();
        }
        let mut config = Config::for_tests().for_service(service);
        let outside = (std::env::var("DACAPO_TEST_KAFKA"), std::env::var("DACAPO_TEST_REGISTRY"));
        let embedded = if let (Ok(kafka), Ok(registry)) = outside {
            (config.bootstrap, config.registry_url) = (kafka, registry);
            None
        } else {
            let pair = embedded_pair().await;
            (config.bootstrap, config.registry_url) = (pair.0.bootstrap(), pair.1.url());
            Some(pair)
        };
        config.system = format!("t{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
        config.partitions = 2;
        let registry = Registry::new(&config).expect("a registry client");
        let admin = Admin::new(&config).expect("an admin client");
        Self { config, registry, admin, embedded }
    }

    pub async fn create(&self, specs: &[TopicSpec]) {
        let plan = TopicPlan::draw(&self.admin, specs).await.expect("a plan");
        plan.apply(&self.admin).await.expect("topics");
    }

    pub fn register(&self, records: &[RecordType]) {
        for record in records {
            let subject = record.full_name(&self.config.system);
            let text = in_system(record.schema.expect("a written record"), &self.config.system).into_owned();
            self.registry.register(&subject, &text).expect("a registered schema");
        }
    }
}

async fn embedded_pair() -> (Broker, EmbeddedRegistry) {
    let broker = BrokerConfig { initial_rebalance_delay: Duration::ZERO, ..BrokerConfig::default() };
    let registry = RegistryConfig {
        data_dir: None,
        listen: ([127, 0, 0, 1], 0).into(),
        default_level: Level::FullTransitive,
        fsync: false,
    };
    (Broker::start(broker).expect("a broker"), EmbeddedRegistry::start(registry).await.expect("a registry"))
}
