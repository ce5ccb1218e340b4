//! The embedded broker and registry, for runs without an external Kafka.

use std::{net::SocketAddr, path::Path};

use anyhow::Context;
use embedded::{
    broker::{Broker, BrokerConfig, Fsync},
    registry::{Level, Registry, RegistryConfig},
};

/// The data folder and the addresses of the embedded broker and registry.
#[derive(Debug, Clone)]
pub(super) struct EmbeddedConfig<'a> {
    /// The data folder; `None` keeps nothing.
    pub(super) data: Option<&'a Path>,
    /// When the broker syncs to disk.
    pub(super) fsync: Fsync,
    /// The address of the broker.
    pub(super) listen_kafka: SocketAddr,
    /// The address of the registry.
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

    /// The bootstrap address.
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
