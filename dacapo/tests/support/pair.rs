//! An embedded broker and registry in the test's own process, which `dacapo` uses like an external Kafka. Each can stop and start
//! again at the same address, with the same data.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use embedded::{
    broker::{Broker, BrokerConfig},
    registry::{Level, Registry, RegistryConfig},
};
use tempfile::TempDir;

pub(crate) struct Pair {
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
    kafka_at: SocketAddr,
    registry_at: SocketAddr,
    broker: Option<Broker>,
    registry: Option<Registry>,
}

impl Pair {
    /// A running, empty pair.
    pub(crate) fn start() -> Self {
        let mut pair = Self::absent();
        pair.start_broker();
        pair.start_registry();
        pair
    }

    /// A pair with reserved addresses that does not run yet.
    pub(crate) fn absent() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // Both ports are bound at once, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [kafka_at, registry_at] = free.map(|listener| listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        Self { runtime, folder, kafka_at, registry_at, broker: None, registry: None }
    }

    pub(crate) fn start_broker(&mut self) {
        let data_dir = Some(self.folder.path().join("broker"));
        let config = BrokerConfig { data_dir, listen: self.kafka_at, ..BrokerConfig::default() };
        self.broker = Some(Broker::start(config).unwrap());
    }

    pub(crate) fn start_registry(&mut self) {
        let data_dir = Some(self.folder.path().join("registry"));
        let (listen, default_level) = (self.registry_at, Level::Backward);
        let config = RegistryConfig { data_dir, listen, default_level, fsync: false };
        self.registry = Some(self.runtime.block_on(Registry::start(config)).unwrap());
    }

    pub(crate) fn stop_broker(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.stop());
        }
    }

    pub(crate) fn stop_registry(&mut self) {
        if let Some(registry) = self.registry.take() {
            self.runtime.block_on(registry.stop());
        }
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.kafka_at.to_string()
    }

    pub(crate) fn registry(&self) -> String {
        format!("http://{}", self.registry_at)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop_registry();
        self.stop_broker();
    }
}
