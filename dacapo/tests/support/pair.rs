//! An embedded broker and registry in the test's own process: somebody's own Kafka, as far as `dacapo` can tell.

use std::net::{Ipv4Addr, SocketAddr};

use embedded::{
    broker::{Broker, BrokerConfig},
    registry::{Level, Registry, RegistryConfig},
};

/// An embedded broker and registry with nothing in them.
pub(crate) struct Pair {
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
    registry: Option<Registry>,
}

impl Pair {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let broker = Broker::start(BrokerConfig { data_dir: None, listen, ..BrokerConfig::default() }).unwrap();
        let registry = RegistryConfig { data_dir: None, listen, default_level: Level::Backward, fsync: false };
        let registry = runtime.block_on(Registry::start(registry)).unwrap();
        Self { runtime, broker: Some(broker), registry: Some(registry) }
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.broker.as_ref().unwrap().bootstrap()
    }

    pub(crate) fn registry(&self) -> String {
        self.registry.as_ref().unwrap().url()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let (broker, registry) = (self.broker.take(), self.registry.take());
        self.runtime.block_on(async {
            registry.unwrap().stop().await;
            broker.unwrap().stop().await;
        });
    }
}
