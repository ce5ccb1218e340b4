//! Where a bench plays: a broker and a registry, a system of its own on them, and the measured service.

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
    registry::Registry,
    service,
};
use uuid::Uuid;

use crate::meter::{Event, Meter, Source};

/// Every topic's partitions, as `dacapo up` makes them.
pub(crate) const PARTITIONS: i32 = 8;

/// The broker and the registry that are measured.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Where {
    /// Kafka brokers [default: an embedded broker in this process]
    #[arg(long, env = "DACAPO_TEST_KAFKA", value_name = "HOST:PORT,...", requires = "registry")]
    bootstrap: Option<String>,
    /// Schema registry [default: an embedded one in this process]
    #[arg(long, env = "DACAPO_TEST_REGISTRY", value_name = "URL", requires = "bootstrap")]
    registry: Option<String>,
}

/// A system of its own on a broker.
pub(crate) struct Stage {
    pub(crate) config: Config,
    pub(crate) writers: Writers,
    /// What is measured, for the report.
    pub(crate) name: &'static str,
    embedded: Option<(Broker, EmbeddedRegistry, tempfile::TempDir)>,
}

impl Stage {
    pub(crate) async fn set(at: &Where) -> anyhow::Result<Self> {
        let embedded = match at.bootstrap {
            None => Some(embedded().await?),
            Some(_) => None,
        };
        let at = match &embedded {
            Some((broker, registry, _)) => {
                Where { bootstrap: Some(broker.bootstrap()), registry: Some(registry.url()) }
            }
            None => at.clone(),
        };
        let system = format!("bench{}", &Uuid::now_v7().simple().to_string()[20..]);
        let config = config(&at, system)?;
        let name = if embedded.is_some() { "embedded broker" } else { "the broker that was named" };
        let (registry, system) = (Registry::new(&config)?, config.system.clone());
        let writers = tokio::task::spawn_blocking(move || -> anyhow::Result<Writers> {
            let records = [Source::RECORDS, Event::RECORDS, ParkingCommand::RECORDS].concat();
            for record in &records {
                let text = in_system(record.schema.unwrap_or_default(), &system).into_owned();
                registry.register(&record.full_name(&system), &text)?;
            }
            Ok(registry.writers(&system, &records)?)
        });
        let stage = Self { config, writers: writers.await??, name, embedded };
        stage.create_topics().await?;
        Ok(stage)
    }

    async fn create_topics(&self) -> anyhow::Result<()> {
        let system = &self.config.system;
        let mut specs = TopicSpec::of_service(system, "meter", PARTITIONS);
        specs.push(TopicSpec::new(topic(system, "source", Channel::Events), PARTITIONS, TopicKind::Events));
        specs.extend(["raw.in", "raw.out"].map(|name| TopicSpec::new(self.raw(name), PARTITIONS, TopicKind::Inbox)));
        let admin = Admin::new(&self.config)?;
        TopicPlan::draw(&admin, &specs).await?.apply(&admin).await?;
        Ok(())
    }

    /// A topic of the raw loop.
    pub(crate) fn raw(&self, name: &str) -> String {
        format!("{}.{name}", self.config.system)
    }

    /// The measured service in this process.
    pub(crate) async fn start(&self) -> anyhow::Result<Running> {
        let running = service::start(self.config.clone(), Meter, NothingToPerform, axum::Router::new()).await?;
        running.ready().await?;
        Ok(running)
    }

    /// A client's settings, as all clients of a bench have them.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.config.bootstrap).set("fetch.wait.max.ms", "100");
        config
    }

    pub(crate) async fn end(self) {
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

fn config(at: &Where, system: String) -> anyhow::Result<Config> {
    let args = runtime::Args {
        system: Some(system),
        bootstrap: at.bootstrap.clone(),
        registry: at.registry.clone(),
        partitions: Some(PARTITIONS),
        ..runtime::Args::default()
    };
    Ok(Config::load("meter", &args)?)
}

/// The measured service as a process, until it is killed.
pub(crate) async fn serve(
    at: &Where,
    system: String,
    instance: Option<String>,
    data: Option<PathBuf>,
) -> anyhow::Result<()> {
    let config = Config { instance, data_dir: data, ..config(at, system)? };
    let running = service::start(config, Meter, NothingToPerform, axum::Router::new()).await?;
    Err(running.failed().await.into())
}
