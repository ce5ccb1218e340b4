//! What MusicCorp stands on: a broker and a registry (embedded, or somebody's own), the schemas, the topics.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use embedded::{
    broker::{Broker, BrokerConfig, Fsync},
    registry::{Level, Registry, RegistryConfig},
};
use runtime::{
    config::Config,
    kafka::{Admin, AdminError, TopicPlan},
    registry::RegistryError,
};

use crate::{output, schemas, topics};

/// How long a broker and a registry are waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause before they are asked again.
const RETRY: Duration = Duration::from_millis(500);

/// Where the embedded broker and registry keep and offer what they have.
#[derive(Debug, Clone)]
pub(super) struct EmbeddedConfig<'a> {
    /// The data folder; `None` keeps nothing.
    pub(super) data: Option<&'a Path>,
    /// When the broker syncs.
    pub(super) fsync: Fsync,
    /// Where the broker listens.
    pub(super) listen_kafka: SocketAddr,
    /// Where the registry listens.
    pub(super) listen_registry: SocketAddr,
}

/// The embedded broker and registry.
#[derive(Debug)]
pub(super) struct Embedded {
    broker: Broker,
    registry: Registry,
}

impl Embedded {
    /// Starts both.
    ///
    /// # Errors
    /// An address is taken, or the data folder cannot be used.
    pub(super) async fn start(config: &EmbeddedConfig<'_>) -> anyhow::Result<Self> {
        let broker = BrokerConfig {
            data_dir: config.data.map(|data| data.join("broker")),
            listen: config.listen_kafka,
            fsync: config.fsync,
            ..BrokerConfig::default()
        };
        let broker = tokio::task::spawn_blocking(move || Broker::start(broker))
            .await?
            .context("cannot start the embedded broker")?;
        let registry = RegistryConfig {
            data_dir: config.data.map(|data| data.join("registry")),
            listen: config.listen_registry,
            default_level: Level::FullTransitive,
            fsync: !matches!(config.fsync, Fsync::Never),
        };
        let registry = Registry::start(registry).await.context("cannot start the embedded registry")?;
        Ok(Self { broker, registry })
    }

    /// Where clients bootstrap from.
    #[must_use]
    pub(super) fn bootstrap(&self) -> String {
        self.broker.bootstrap()
    }

    /// The registry's address.
    #[must_use]
    pub(super) fn registry_url(&self) -> String {
        self.registry.url()
    }

    /// Stops both.
    pub(super) async fn stop(self) {
        self.registry.stop().await;
        self.broker.stop().await;
    }
}

/// Registers the schemas and creates the topics that are missing. What exists is never altered. A broker or a registry that cannot
/// be reached yet, or is slow to answer, is asked again.
///
/// # Errors
/// What exists is not as it must be, or nobody answered for [`PATIENCE`].
pub async fn prepare(config: &Config, partitions: Option<i32>) -> anyhow::Result<()> {
    let (deadline, mut told) = (Instant::now() + PATIENCE, String::new());
    loop {
        match attempt(config, partitions).await {
            Err(error) if is_transient(&error) && Instant::now() < deadline => {
                let reason = format!("waiting: {error:#}");
                if reason != told {
                    output::note(&reason);
                    told = reason;
                }
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<AdminError>().is_some_and(AdminError::is_transient)
            || cause.downcast_ref::<RegistryError>().is_some_and(RegistryError::is_transient)
    })
}

async fn attempt(config: &Config, partitions: Option<i32>) -> anyhow::Result<()> {
    let changes = schemas::plan(config).await?;
    schemas::carry_out(config, changes).await.context("cannot register the schemas")?;
    let admin = Admin::new(config)?;
    let specs = topics::specs(&admin, &config.system, partitions, config.partitions).await?;
    let plan = TopicPlan::draw(&admin, &specs).await?;
    let created = plan.apply(&admin).await.context("cannot create the topics")?;
    tracing::info!(created, "topics are there");
    Ok(())
}
