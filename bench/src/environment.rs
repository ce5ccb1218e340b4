//! The environment of a measurement: broker, registry, a new system on them, and the measured service.

use std::path::PathBuf;

use embedded::{
    broker::{Broker, BrokerConfig},
    registry::{Level, Registry as EmbeddedRegistry, RegistryConfig},
};
use rdkafka::ClientConfig;
use runtime::{
    Channel, Config, Message, NothingToPerform, Running,
    codec::{Writers, in_system},
    core::ParkingCommand,
    kafka::{Admin, TopicPlan, TopicSpec, admin::TopicKind},
    message::topic,
    registry::RegistryClient,
    service,
};
use uuid::Uuid;

use crate::meter::{Event, Meter, SourceEvent};

/// The partition count of every topic, as in `dacapo up`.
pub(crate) const PARTITIONS: i32 = 8;

/// The addresses of the broker and the registry.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct BenchEndpoints {
    /// Kafka brokers [default: an embedded broker in this process]
    #[arg(long, env = "DACAPO_TEST_KAFKA", value_name = "HOST:PORT,...", requires = "registry")]
    bootstrap: Option<String>,
    /// Schema registry [default: an embedded one in this process]
    #[arg(long, env = "DACAPO_TEST_REGISTRY", value_name = "URL", requires = "bootstrap")]
    registry: Option<String>,
}

/// A new system on a broker.
pub(crate) struct BenchEnvironment {
    pub(crate) config: Config,
    pub(crate) writers: Writers,
    /// The broker's name in the report.
    pub(crate) name: &'static str,
    embedded: Option<(Broker, EmbeddedRegistry, tempfile::TempDir)>,
}

impl BenchEnvironment {
    pub(crate) async fn create(endpoints: &BenchEndpoints) -> anyhow::Result<Self> {
        let embedded = match endpoints.bootstrap {
            None => Some(embedded().await?),
            Some(_) => None,
        };
        let endpoints = match &embedded {
            Some((broker, registry, _)) => {
                BenchEndpoints { bootstrap: Some(broker.bootstrap()), registry: Some(registry.url()) }
            }
            None => endpoints.clone(),
        };
        let system = format!("bench{}", &Uuid::now_v7().simple().to_string()[20..]);
        let config = config(&endpoints, system)?;
        let name = if embedded.is_some() { "embedded broker" } else { "the given broker" };
        let (registry, system) = (RegistryClient::new(&config)?, config.system.clone());
        let writers = tokio::task::spawn_blocking(move || -> anyhow::Result<Writers> {
            let records = [SourceEvent::RECORDS, Event::RECORDS, ParkingCommand::RECORDS].concat();
            for record in &records {
                let text = in_system(record.schema.unwrap_or_default(), &system).into_owned();
                registry.register(&record.full_name(&system), &text)?;
            }
            Ok(registry.writers(&system, &records)?)
        });
        let environment = Self { config, writers: writers.await??, name, embedded };
        environment.create_topics().await?;
        Ok(environment)
    }

    async fn create_topics(&self) -> anyhow::Result<()> {
        let system = &self.config.system;
        let mut specs = TopicSpec::of_service(system, "meter", PARTITIONS);
        specs.push(TopicSpec::new(topic(system, "source", Channel::Events), PARTITIONS, TopicKind::Events));
        specs.extend(
            ["baseline.in", "baseline.out"]
                .map(|name| TopicSpec::new(self.baseline_name(name), PARTITIONS, TopicKind::Inbox)),
        );
        let admin = Admin::new(&self.config)?;
        TopicPlan::compute(&admin, &specs).await?.apply(&admin).await?;
        Ok(())
    }

    /// A name in this system for the baseline's topics, group and transactional id.
    pub(crate) fn baseline_name(&self, name: &str) -> String {
        format!("{}.{name}", self.config.system)
    }

    /// Starts the measured service in this process.
    pub(crate) async fn start(&self) -> anyhow::Result<Running> {
        let running = service::start(self.config.clone(), Meter, NothingToPerform, axum::Router::new()).await?;
        running.ready().await?;
        Ok(running)
    }

    /// The settings that all clients of the bench share.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.config.bootstrap).set("fetch.wait.max.ms", "100");
        config
    }

    pub(crate) async fn shut_down(self) {
        if let Some((broker, registry, _data)) = self.embedded {
            registry.stop().await;
            broker.stop().await;
        }
    }
}

async fn embedded() -> anyhow::Result<(Broker, EmbeddedRegistry, tempfile::TempDir)> {
    let data = tempfile::tempdir()?;
    let broker = Broker::start(BrokerConfig { data_dir: Some(data.path().to_owned()), ..BrokerConfig::default() })?;
    let listen = ([127, 0, 0, 1], 0).into();
    let registry = RegistryConfig { data_dir: None, listen, default_level: Level::FullTransitive, fsync: false };
    Ok((broker, EmbeddedRegistry::start(registry).await?, data))
}

fn config(endpoints: &BenchEndpoints, system: String) -> anyhow::Result<Config> {
    let args = runtime::Args {
        system: Some(system),
        bootstrap: endpoints.bootstrap.clone(),
        registry: endpoints.registry.clone(),
        partitions: Some(PARTITIONS),
        ..runtime::Args::default()
    };
    Ok(Config::load("meter", &args)?)
}

/// Runs the measured service in its own process until it is killed.
pub(crate) async fn serve(
    endpoints: &BenchEndpoints,
    system: String,
    instance: Option<String>,
    data: Option<PathBuf>,
) -> anyhow::Result<()> {
    let config = Config { instance, data_dir: data, ..config(endpoints, system)? };
    let running = service::start(config, Meter, NothingToPerform, axum::Router::new()).await?;
    Err(running.failed().await.into())
}
