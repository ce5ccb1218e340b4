//! A schema registry in process with Confluent's HTTP API, for Avro.
//!
//! Start it with [`Registry::start`]. It keeps its state in memory and in one append-only file. Schemas, subjects and ids survive
//! `kill -9`. It knows no Kafka topic. Next: `routes` (the calls), `state` (their meaning), `journal` (the file).

mod error;
mod journal;
mod routes;
mod schema;
mod state;
mod store;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use avro_compat::Level;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use self::{journal::JournalError, store::RegistryStore};

/// The registry's settings.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// The directory of its file; `None` keeps everything in memory.
    pub data_dir: Option<PathBuf>,
    /// The address to listen on; port 0 chooses a free port.
    pub listen: SocketAddr,
    /// The global compatibility level until `PUT /config` sets another.
    pub default_level: Level,
    /// Whether a change reaches the disk before it is acknowledged. Without it a change survives a crash of the process, but not
    /// a power failure.
    pub fsync: bool,
}

/// The reason why a registry did not start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryStartError {
    /// Its file cannot be used.
    #[error("schema registry: {0}")]
    Data(String, #[source] Option<io::Error>),
    /// Its address cannot be used.
    #[error("schema registry: cannot listen on {listen}; is something else running there?")]
    Listen {
        /// The configured address.
        listen: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
}

impl From<JournalError> for RegistryStartError {
    fn from(error: JournalError) -> Self {
        let text = error.to_string();
        match error {
            JournalError::Io { source, .. } => RegistryStartError::Data(text, Some(source)),
            _ => RegistryStartError::Data(text, None),
        }
    }
}

/// A running registry. Dropping it stops it at once; [`Registry::stop`] first lets open requests finish.
#[derive(Debug)]
pub struct Registry {
    addr: SocketAddr,
    store: Arc<RegistryStore>,
    shutdown: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

/// How long open requests may take to finish after a stop.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

impl Registry {
    /// Opens the data and listens. The registry serves requests as soon as this returns.
    ///
    /// # Errors
    /// The data cannot be read, is damaged or in use, or the address is taken.
    pub async fn start(config: RegistryConfig) -> Result<Self, RegistryStartError> {
        let RegistryConfig { data_dir, listen, default_level, fsync } = config;
        let store = tokio::task::spawn_blocking(move || RegistryStore::open(data_dir.as_deref(), default_level, fsync))
            .await
            .map_err(|error| RegistryStartError::Data(format!("opening the data ended early: {error}"), None))??;
        let failed = |source| RegistryStartError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (shutdown, stopped) = oneshot::channel::<()>();
        let store = Arc::new(store);
        let app = routes::router(Arc::clone(&store));
        let server = tokio::spawn(async move {
            // The signal is a message or the drop of the sender.
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

    /// The base URL for clients: `http://127.0.0.1:8081`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops listening and lets open requests finish. Requests that take longer than two seconds are aborted.
    pub async fn stop(mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            // A server that has already ended needs no signal.
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
