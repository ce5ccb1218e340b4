//! A schema registry in process that speaks Confluent's HTTP API, for Avro.
//!
//! Start one with [`Registry::start`]. It keeps its state in one append-only file and in memory; schemas, subjects and ids survive
//! `kill -9`. It never knows a Kafka topic. Read on: `routes` (the calls), `state` (what they mean), `journal` (the file).

mod error;
mod journal;
mod routes;
mod schema;
mod state;
mod store;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use avro_compat::Level;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use self::{journal::JournalError, store::Store};

/// How to start a registry.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where its file lies; `None` keeps everything in memory.
    pub data_dir: Option<PathBuf>,
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The level of subjects without one, until `PUT /config` sets another.
    pub default_level: Level,
    /// Whether a change is on the disk before it is acknowledged. Without it a change survives the end of the process, not a
    /// power failure.
    pub fsync: bool,
}

/// Why a registry did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its file cannot be used.
    #[error("schema registry: {0}")]
    Data(String, #[source] Option<io::Error>),
    /// Its address cannot be used.
    #[error("schema registry: cannot listen on {listen}; is something else running there?")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl From<JournalError> for StartError {
    fn from(error: JournalError) -> Self {
        let text = error.to_string();
        match error {
            JournalError::Io { source, .. } => StartError::Data(text, Some(source)),
            _ => StartError::Data(text, None),
        }
    }
}

/// A running registry. Dropping it stops it without waiting; [`Registry::stop`] lets open requests finish first.
#[derive(Debug)]
pub struct Registry {
    addr: SocketAddr,
    store: Arc<Store>,
    shutdown: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

/// How long open requests may take to finish after a stop.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

impl Registry {
    /// Opens the data and listens. The registry answers as soon as this returns.
    ///
    /// # Errors
    /// The data cannot be read, are damaged or in use, or the address is taken.
    pub async fn start(config: RegistryConfig) -> Result<Self, StartError> {
        let RegistryConfig { data_dir, listen, default_level, fsync } = config;
        let store = tokio::task::spawn_blocking(move || Store::open(data_dir.as_deref(), default_level, fsync))
            .await
            .map_err(|error| StartError::Data(format!("opening the data ended early: {error}"), None))??;
        let failed = |source| StartError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (shutdown, stopped) = oneshot::channel::<()>();
        let store = Arc::new(store);
        let app = routes::router(Arc::clone(&store));
        let server = tokio::spawn(async move {
            // The sender's end, dropped or used, is the signal.
            let stop = async { stopped.await.unwrap_or(()) };
            if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop).await {
                tracing::error!(%error, "the schema registry's server ended");
            }
        });
        tracing::info!(%addr, level = %default_level, "schema registry started");
        Ok(Self { addr, store, shutdown: Some(shutdown), server })
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as clients want it: `http://127.0.0.1:8081`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops listening, lets open requests finish, and gives up on those that take longer than two seconds.
    pub async fn stop(mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            // A server that has already ended hears nothing, and need not.
            shutdown.send(()).unwrap_or(());
        }
        if tokio::time::timeout(STOP_DEADLINE, &mut self.server).await.is_err() {
            tracing::warn!("the schema registry stopped with requests still open");
            self.server.abort();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
        self.store.close();
    }
}
