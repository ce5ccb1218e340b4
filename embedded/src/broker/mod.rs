//! The broker: start, stop, and the state that its parts share.
//!
//! A request passes `connection` → `dispatch` → its handler (in `produce`, `fetch`, `topics`, `groups`, `transactions`,
//! `coordinator`) → `log`. The broker has its own threads, so a caller that blocks its runtime does not stop the broker.

mod config;
mod connection;
mod context;
mod coordinator;
mod describe;
mod dispatch;
mod fetch;
mod frame_check;
#[cfg(test)]
mod fuzz;
mod groups;
mod journal;
mod list_offsets;
mod log;
mod offsets;
mod produce;
mod sync;
mod topics;
mod transactions;

pub use config::{BrokerConfig, BrokerLimits, Fsync};

use coordinator::Coordinator;
use groups::Groups;
use kafka_protocol::protocol::StrBytes;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use topics::TopicCatalog;
use uuid::Uuid;

/// The id of the only node.
pub(crate) const NODE_ID: i32 = 1;
/// How often group and transaction deadlines are checked.
const DEADLINE_TICK: Duration = Duration::from_millis(20);
/// How long a stop waits for connections to end.
const STOP_TIMEOUT: Duration = Duration::from_millis(700);

/// The reason why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerStartError {
    #[error("cannot use the data directory {path}: does it exist, and may this user write there?")]
    DataDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the data directory {path} is in use by another broker: stop it, or choose another directory")]
    InUse { path: PathBuf },
    #[error("cannot listen on {addr}: is the port taken?")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the stored topics")]
    Topics(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot read the stored offsets and transactions {path}")]
    Coordinator {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the broker's threads")]
    Threads(#[source] io::Error),
}

/// A running broker. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<BrokerState>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
    /// Kept while the broker runs: the lock on the directory, and the directory itself if it is temporary.
    _lock: File,
    _temporary: Option<tempfile::TempDir>,
}

/// The state that every connection and every handler shares.
#[derive(Debug)]
pub(crate) struct BrokerState {
    pub config: BrokerConfig,
    pub cluster_id: String,
    pub host: StrBytes,
    pub port: i32,
    pub topics: TopicCatalog,
    pub groups: Groups,
    pub coordinator: Coordinator,
    pub stopping: watch::Receiver<bool>,
}

impl Broker {
    /// Opens the data and starts to listen. Clients can connect as soon as this returns.
    pub fn start(config: BrokerConfig) -> Result<Self, BrokerStartError> {
        let (dir, temporary) = data_dir(&config)?;
        let lock = lock_dir(&dir)?;
        let cluster_id = cluster_id(&dir).map_err(|source| BrokerStartError::DataDir { path: dir.clone(), source })?;
        let topics =
            TopicCatalog::open(&dir, config.fsync).map_err(|error| BrokerStartError::Topics(Box::new(error)))?;
        let coordinator = Coordinator::open(&dir, config.fsync)?;
        transactions::recover(&coordinator, &topics, sync::now_ms());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("broker")
            .enable_all()
            .build()
            .map_err(BrokerStartError::Threads)?;
        let (stop, stopping) = watch::channel(false);
        let listener = listen(&runtime, config.listen)?;
        let addr = listener.local_addr().map_err(|source| BrokerStartError::Listen { addr: config.listen, source })?;
        let groups = Groups::new(&config, coordinator.generations());
        let host = StrBytes::from_string(advertised_host(&config, addr));
        let port = i32::from(addr.port());
        let shared = Arc::new(BrokerState { config, cluster_id, host, port, topics, groups, coordinator, stopping });
        runtime.spawn(connection::accept(Arc::clone(&shared), listener));
        runtime.spawn(deadlines(Arc::clone(&shared)));
        runtime.spawn(housekeeping(Arc::clone(&shared)));
        tracing::info!(%addr, data_dir = %dir.display(), cluster_id = shared.cluster_id, "broker started");
        Ok(Broker { shared, stop, runtime: Some(runtime), _lock: lock, _temporary: temporary })
    }

    /// The address clients bootstrap from, as `host:port`.
    pub fn bootstrap(&self) -> String {
        if self.shared.host.contains(':') {
            format!("[{}]:{}", self.shared.host.as_str(), self.shared.port)
        } else {
            format!("{}:{}", self.shared.host.as_str(), self.shared.port)
        }
    }

    /// The address listened on.
    pub fn addr(&self) -> SocketAddr {
        let port = u16::try_from(self.shared.port).unwrap_or(0);
        SocketAddr::new(self.shared.config.listen.ip(), port)
    }

    /// The identity of the data directory. It survives restarts.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// Ends all connections and writes all buffered state to the disk. On a healthy disk this takes less than a second.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let Some(runtime) = self.runtime.take() else { return };
        let shared = Arc::clone(&self.shared);
        let ended = tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(STOP_TIMEOUT);
            flush_to_disk(&shared);
        });
        if let Err(error) = ended.await {
            tracing::error!(%error, "the broker did not stop cleanly");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
            flush_to_disk(&self.shared);
        }
    }
}

fn flush_to_disk(shared: &BrokerState) {
    let synced = if shared.config.fsync == Fsync::Never {
        shared.coordinator.flush()
    } else {
        shared.topics.sync().and_then(|()| shared.coordinator.sync())
    };
    if let Err(error) = synced.and_then(|()| shared.topics.checkpoint()) {
        tracing::error!(%error, "cannot write all state to the disk while stopping; the next start recovers from the log");
    }
}

fn data_dir(config: &BrokerConfig) -> Result<(PathBuf, Option<tempfile::TempDir>), BrokerStartError> {
    match &config.data_dir {
        Some(path) => {
            fs::create_dir_all(path).map_err(|source| BrokerStartError::DataDir { path: path.clone(), source })?;
            Ok((path.clone(), None))
        }
        None => {
            let temporary = tempfile::Builder::new()
                .prefix("broker-")
                .tempdir()
                .map_err(|source| BrokerStartError::DataDir { path: std::env::temp_dir(), source })?;
            Ok((temporary.path().to_path_buf(), Some(temporary)))
        }
    }
}

/// Two brokers on one directory would corrupt it. The operating system releases the lock when the process ends.
fn lock_dir(dir: &Path) -> Result<File, BrokerStartError> {
    let failed = |source| BrokerStartError::DataDir { path: dir.to_path_buf(), source };
    let file = File::create(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BrokerStartError::InUse { path: dir.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn cluster_id(dir: &Path) -> io::Result<String> {
    let path = dir.join("cluster.id");
    match fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            let id = Uuid::now_v7().simple().to_string();
            fs::write(path, &id)?;
            Ok(id)
        }
    }
}

fn listen(runtime: &Runtime, addr: SocketAddr) -> Result<TcpListener, BrokerStartError> {
    let _context = runtime.enter();
    let bind = || -> io::Result<TcpListener> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|source| BrokerStartError::Listen { addr, source })
}

fn advertised_host(config: &BrokerConfig, addr: SocketAddr) -> String {
    match &config.advertised_host {
        Some(host) => host.clone(),
        None if addr.ip().is_unspecified() => "127.0.0.1".to_owned(),
        None => addr.ip().to_string(),
    }
}

/// Applies group and transaction deadlines until the broker stops.
async fn deadlines(shared: Arc<BrokerState>) {
    let mut stopping = shared.stopping.clone();
    let mut tick = tokio::time::interval(DEADLINE_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            _ = tick.tick() => {}
        }
        let now_ms = sync::now_ms();
        shared.groups.tick(now_ms);
        transactions::tick(&shared, now_ms);
    }
}

/// Applies retention and syncs files, each at its interval, until the broker stops.
async fn housekeeping(shared: Arc<BrokerState>) {
    let mut stopping = shared.stopping.clone();
    let mut clean = tokio::time::interval(shared.config.housekeeping_interval.max(DEADLINE_TICK));
    let sync_every = match shared.config.fsync {
        Fsync::Interval(ms) => Duration::from_millis(ms.max(1)),
        Fsync::Never | Fsync::Always => shared.config.housekeeping_interval.max(DEADLINE_TICK),
    };
    let mut sync = tokio::time::interval(sync_every);
    clean.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            _ = clean.tick() => {
                tokio::task::block_in_place(|| shared.topics.retain(sync::now_ms()));
                shared.coordinator.forget_idle(sync::now_ms());
            }
            _ = sync.tick() => {
                let written = match shared.config.fsync {
                    Fsync::Interval(_) => tokio::task::block_in_place(|| {
                        shared.topics.sync().and_then(|()| shared.coordinator.sync())
                    }),
                    Fsync::Never | Fsync::Always => shared.coordinator.flush(),
                };
                if let Err(error) = written {
                    tracing::error!(%error, "cannot write to the disk");
                }
            }
        }
    }
}

/// Syncs files before an acknowledgement if the policy requires it.
pub(crate) fn sync_before_ack(fsync: Fsync, files: &[Arc<File>]) -> io::Result<()> {
    if fsync != Fsync::Always || files.is_empty() {
        return Ok(());
    }
    tokio::task::block_in_place(|| files.iter().try_for_each(|file| file.sync_data()))
}

/// Converts a text to the codec's string type.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
