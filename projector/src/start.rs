//! A running projector: its readers, its view and its HTTP API, started and stopped together.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use runtime::{
    Config, clock,
    codec::Readers,
    health::HealthChecks,
    kafka::admin::{Admin, AdminError},
    projection::{ReplayError, ViewError},
    registry::{RegistryClient, RegistryError},
    table::Table,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    api::SagaCounts,
    board::Board,
    client::{ClientError, ProjectorClient},
    declaration::{Declaration, DeclarationError},
    http,
    reading::{TopicReaders, fold_to},
    status::{self, StatusRows},
    verification::{LiveSnapshot, SnapshotError, ViewComparison, compare},
    view::SagaView,
};

/// The timeout of a query for the topics of the cluster.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(2);

/// Why the projector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The declarations conflict.
    #[error("the projector cannot use its declarations")]
    Declarations(#[source] DeclarationError),
    /// The address is in use, or is not an address of this machine.
    #[error(
        "the projector cannot listen at {address}; hint: choose another address with --listen; port 0 selects a free port"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The Kafka admin client cannot be created.
    #[error("the projector cannot create its Kafka admin client")]
    Admin(#[source] AdminError),
    /// The client of the schema registry cannot be created.
    #[error("the projector cannot create its client of the schema registry")]
    Registry(#[source] RegistryError),
    /// The readers cannot be created.
    #[error("the projector cannot create its readers")]
    Readers(#[source] ViewError),
    /// The thread that writes statuses cannot be started.
    #[error("the projector cannot start the thread that writes statuses")]
    Statuses(#[source] std::io::Error),
}

/// A running projector. Dropping it stops it without waiting; [`RunningProjector::stop`] waits.
#[derive(Debug)]
pub struct RunningProjector {
    board: Board,
    address: SocketAddr,
    ending: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
    reading: JoinHandle<()>,
    /// The task that reports degraded pieces.
    watching: JoinHandle<()>,
    statuses: Table,
    patience: Duration,
}

/// Starts reading and serving. Neither the cluster nor the registry need be reachable yet: until they are, the projector is not
/// ready and reports why. Serves at `config.listen`, or at a free port of the loopback interface.
///
/// # Errors
/// [`StartError`].
pub async fn start(config: &Config, declarations: &[Declaration]) -> Result<RunningProjector, StartError> {
    let epoch = u64::try_from(clock::now_ms()).unwrap_or_default();
    let board = Board::new(SagaView::new(declarations, epoch).map_err(StartError::Declarations)?);
    let address = config.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
    let registry = RegistryClient::new(config).map_err(StartError::Registry)?;
    // The query is repeated, so a slow reply counts as a failure.
    let mut short_timeout = config.clone();
    short_timeout.timeouts.request = short_timeout.timeouts.request.min(CLUSTER_PATIENCE);
    let admin = Admin::new(&short_timeout).map_err(StartError::Admin)?;
    let statuses = Table::start(&config.for_service(status::OWNER), registry.clone(), StatusRows(board.clone()))
        .map_err(StartError::Statuses)?;
    let readings = TopicReaders::start(config, registry, admin, board.clone()).map_err(StartError::Readers)?;
    let (ending, ended) = watch::channel(false);
    let (checks, checked) = (HealthChecks::default(), board.clone());
    checks.ready("sagas", move || checked.check());
    checks.ready("statuses", statuses.check());
    let watching = tokio::spawn(checks.clone().watch("projector"));
    let server = tokio::spawn(http::serve(listener, board.clone(), checks, ended.clone()));
    let reading = tokio::spawn(readings.run(ended));
    tracing::info!(%address, sagas = declarations.len(), "projector started");
    let patience = config.timeouts.shutdown;
    Ok(RunningProjector { board, address, ending, server, reading, watching, statuses, patience })
}

impl RunningProjector {
    /// The address of its HTTP API.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of its HTTP API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its board.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The counts of each declaration's sagas.
    #[must_use]
    pub fn counts(&self) -> Vec<SagaCounts> {
        self.board.view().counts()
    }

    /// The statuses that this instance writes to the state topic.
    #[must_use]
    pub fn statuses(&self) -> &Table {
        &self.statuses
    }

    /// Why it has failed, if one of its parts has ended by itself.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        if self.server.is_finished() {
            return Some("the projector's HTTP server has ended".to_owned());
        }
        self.board.read_progress().degraded_reason.filter(|_| self.reading.is_finished())
    }

    /// Stops reading and serving within the shutdown deadline. Returns true if all parts ended without error and in time.
    pub async fn stop(self) -> bool {
        self.ending.send_replace(true);
        self.watching.abort();
        let all = async { tokio::join!(self.server, self.reading, self.statuses.stop(self.patience)) };
        match tokio::time::timeout(self.patience, all).await {
            Ok((Ok(Ok(())), Ok(()), true)) => {
                tracing::info!("projector stopped");
                true
            }
            Ok((server, reading, statuses)) => {
                tracing::error!(?server, ?reading, statuses, "projector stopped with errors");
                false
            }
            Err(_) => {
                tracing::warn!(patience = ?self.patience, "projector did not stop in time");
                false
            }
        }
    }
}

/// Why a view cannot be verified against the topics.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The live view cannot be read.
    #[error("cannot read the live view")]
    Live(#[source] SnapshotError),
    /// The projector became unreachable.
    #[error("cannot fetch a difference from the projector")]
    Ask(#[source] ClientError),
    /// The declarations conflict.
    #[error("cannot use the declarations")]
    Declarations(#[source] DeclarationError),
    /// The live view has other declarations.
    #[error("the projector shows the sagas {live}, but the given declarations are of {here}")]
    OtherSagas {
        /// The sagas of the projector.
        live: String,
        /// The sagas of the given declarations.
        here: String,
    },
    /// The client of the schema registry cannot be created.
    #[error("cannot create a client of the schema registry")]
    Registry(#[source] RegistryError),
    /// The topics cannot be read up to the live view's offsets.
    #[error("cannot read the topics again")]
    Replay(#[source] ReplayError),
    /// The thread that reads was cancelled.
    #[error("reading the topics again was cancelled")]
    Cancelled,
}

/// Reads the topics again up to the positions of the live view into a second view, and compares the two.
///
/// # Errors
/// [`VerifyError`]. A difference is not an error; the [`ViewComparison`] has it.
pub async fn verify(
    config: &Config,
    live: &ProjectorClient,
    declarations: &[Declaration],
    patience: Duration,
) -> Result<ViewComparison, VerifyError> {
    let frozen = LiveSnapshot::read(live).await.map_err(VerifyError::Live)?;
    let here: Vec<&str> = declarations.iter().map(|declaration| declaration.name.as_str()).collect();
    if frozen.head.declarations != here {
        let live = frozen.head.declarations.join(", ");
        return Err(VerifyError::OtherSagas { live, here: here.join(", ") });
    }
    let view = SagaView::new(declarations, 0).map_err(VerifyError::Declarations)?;
    let registry = RegistryClient::new(config).map_err(VerifyError::Registry)?;
    let readers = Readers::new(Arc::new(registry));
    let (config, positions) = (config.clone(), frozen.head.positions.clone());
    let folding = move || fold_to(&config, readers, view, &positions, patience);
    let board = tokio::task::spawn_blocking(folding).await.map_err(|_| VerifyError::Cancelled)?;
    let rebuilt = board.map_err(VerifyError::Replay)?.into_view().ok_or(VerifyError::Cancelled)?;
    compare(live, frozen, &rebuilt).await.map_err(VerifyError::Ask)
}
