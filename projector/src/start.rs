//! A running projector: its readers, its view, its HTTP interface, started and stopped as one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use runtime::{
    Config, clock,
    codec::Readers,
    kafka::admin::{Admin, AdminError},
    projection::{ReplayError, ViewError},
    registry::{RegistryClient, RegistryError},
    table::Table,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    api::SagaCounts,
    board::Board,
    client::{Client, ClientError},
    declaration::{Declaration, DeclarationError},
    http,
    reading::{Readings, fold_to},
    status::{self, Statuses},
    verification::{FreezeError, Frozen, Verdict, compare},
    view::View,
};

/// How long the cluster may take to say which topics it has.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(2);

/// A projector that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The declarations do not go together.
    #[error("the projector cannot use its declarations")]
    Declarations(#[source] DeclarationError),
    /// The address is taken, or not one of this machine.
    #[error("the projector cannot listen at {address}; hint: choose another with --listen, port 0 takes a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The client of the cluster cannot be made.
    #[error("the projector cannot set up its client of the cluster")]
    Admin(#[source] AdminError),
    /// The client of the registry cannot be made.
    #[error("the projector cannot set up its client of the schema registry")]
    Registry(#[source] RegistryError),
    /// The readers cannot be made.
    #[error("the projector cannot set up its readers")]
    Readers(#[source] ViewError),
    /// There is no thread to write statuses on.
    #[error("the projector cannot start to write statuses")]
    Statuses(#[source] std::io::Error),
}

/// A projector that runs. Dropping it ends it without waiting; [`Running::stop`] waits.
#[derive(Debug)]
pub struct Running {
    board: Board,
    address: SocketAddr,
    ending: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
    reading: JoinHandle<()>,
    statuses: Table,
    patience: Duration,
}

/// Starts to read and to serve. Neither the cluster nor the registry need be there yet; until they are, the projector is not
/// ready and says why. Serves at `config.listen`, or at a free port of this machine alone.
///
/// # Errors
/// [`StartError`].
pub async fn start(config: &Config, declarations: &[Declaration]) -> Result<Running, StartError> {
    let epoch = u64::try_from(clock::now_ms()).unwrap_or_default();
    let board = Board::new(View::new(declarations, epoch).map_err(StartError::Declarations)?);
    let address = config.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
    let registry = RegistryClient::new(config).map_err(StartError::Registry)?;
    // The question whether the cluster is there is asked again and again; one that takes long is an answer, too.
    let mut impatient = config.clone();
    impatient.timeouts.request = impatient.timeouts.request.min(CLUSTER_PATIENCE);
    let admin = Admin::new(&impatient).map_err(StartError::Admin)?;
    let statuses = Table::start(&config.for_service(status::OWNER), registry.clone(), Statuses(board.clone()))
        .map_err(StartError::Statuses)?;
    let readings = Readings::start(config, registry, admin, board.clone()).map_err(StartError::Readers)?;
    let (ending, ended) = watch::channel(false);
    let server = tokio::spawn(http::serve(listener, board.clone(), ended.clone()));
    let reading = tokio::spawn(readings.run(ended));
    tracing::info!(%address, sagas = declarations.len(), "projector started");
    Ok(Running { board, address, ending, server, reading, statuses, patience: config.timeouts.shutdown })
}

impl Running {
    /// The address it serves at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its HTTP interface is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The view it keeps.
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

    /// Why it does not go on, if one of its parts has ended by itself.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        if self.server.is_finished() {
            return Some("the projector's HTTP server has ended".to_owned());
        }
        self.board.reading().trouble.filter(|_| self.reading.is_finished())
    }

    /// Ends reading and serving, within the shutdown deadline. Answers whether all of it ended well and in time.
    pub async fn stop(self) -> bool {
        self.ending.send_replace(true);
        let all = async { tokio::join!(self.server, self.reading, self.statuses.stop(self.patience)) };
        match tokio::time::timeout(self.patience, all).await {
            Ok((Ok(Ok(())), Ok(()), true)) => {
                tracing::info!("projector stopped");
                true
            }
            Ok((server, reading, statuses)) => {
                tracing::error!(?server, ?reading, statuses, "projector did not end well");
                false
            }
            Err(_) => {
                tracing::warn!(patience = ?self.patience, "projector did not end in time");
                false
            }
        }
    }
}

/// A view that could not be compared with the topics.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The live view cannot be had.
    #[error("cannot get the live view")]
    Live(#[source] FreezeError),
    /// The projector stopped answering.
    #[error("cannot ask the projector about a difference")]
    Ask(#[source] ClientError),
    /// The declarations do not go together.
    #[error("cannot use the declarations")]
    Declarations(#[source] DeclarationError),
    /// The live view is of other sagas.
    #[error("the projector shows the sagas {live}, and the declarations at hand are of {here}")]
    OtherSagas {
        /// What the projector shows.
        live: String,
        /// What is at hand.
        here: String,
    },
    /// The client of the registry cannot be made.
    #[error("cannot set up a client of the schema registry")]
    Registry(#[source] RegistryError),
    /// The topics cannot be read up to the live view's offsets.
    #[error("cannot read the topics again")]
    Replay(#[source] ReplayError),
    /// The thread that reads was lost.
    #[error("reading the topics again was broken off")]
    BrokenOff,
}

/// Reads the topics again, up to where the live view is, into a second view, and compares both.
///
/// # Errors
/// [`VerifyError`]. That both differ is no error but a [`Verdict`].
pub async fn verify(
    config: &Config,
    live: &Client,
    declarations: &[Declaration],
    patience: Duration,
) -> Result<Verdict, VerifyError> {
    let frozen = Frozen::read(live).await.map_err(VerifyError::Live)?;
    let here: Vec<&str> = declarations.iter().map(|declaration| declaration.name.as_str()).collect();
    if frozen.head.declarations != here {
        let live = frozen.head.declarations.join(", ");
        return Err(VerifyError::OtherSagas { live, here: here.join(", ") });
    }
    let view = View::new(declarations, 0).map_err(VerifyError::Declarations)?;
    let registry = RegistryClient::new(config).map_err(VerifyError::Registry)?;
    let readers = Readers::new(Arc::new(registry));
    let (config, positions) = (config.clone(), frozen.head.positions.clone());
    let folding = move || fold_to(&config, readers, view, &positions, patience);
    let board = tokio::task::spawn_blocking(folding).await.map_err(|_| VerifyError::BrokenOff)?;
    let rebuilt = board.map_err(VerifyError::Replay)?.into_view().ok_or(VerifyError::BrokenOff)?;
    compare(live, frozen, &rebuilt).await.map_err(VerifyError::Ask)
}
