//! A cluster for tests: the Kafka and the registry named by `DACAPO_TEST_KAFKA` and `DACAPO_TEST_REGISTRY`.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::time::Duration;

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
}

impl Cluster {
    /// A system of its own on the cluster, so that tests do not see each other.
    pub async fn start(service: &str) -> Option<Self> {
        let mut config = Config::for_tests().for_service(service);
        config.bootstrap = std::env::var("DACAPO_TEST_KAFKA").ok()?;
        config.registry_url = std::env::var("DACAPO_TEST_REGISTRY").ok()?;
        config.system = format!("t{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
        config.partitions = 2;
        let registry = Registry::new(&config).expect("a registry client");
        let admin = Admin::new(&config).expect("an admin client");
        Some(Self { config, registry, admin })
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
