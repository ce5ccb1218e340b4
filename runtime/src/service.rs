//! A service from start to stop: its preconditions, its workers, its HTTP API, its health.
//!
//! Owns the order of a start (schemas, topics, store, workers), and which failures are retried. A broker or registry that cannot be
//! reached is retried without limit, while `/livez` already responds. A contradiction in topics, schemas or settings ends the start
//! with an error and a hint.

mod main;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{sync::watch, task::JoinHandle};

pub use main::{NoSettings, Program, RunningProgram};

use crate::{
    codec::{Readers, SchemaSource, WriterError},
    config::Config,
    core::{ContractError, ContractNames, Limits, ServiceContract, written_by},
    decider::{Decider, Perform},
    health::{CheckResult, HealthChecks, HealthProbe},
    http::{self, Server, ServerError},
    kafka::{Admin, AdminError, TopicPlan, TopicSpec, client},
    message::{Channel, topic},
    registry::{RegistryClient, RegistryError},
    store::{self, StoreError},
    telemetry::{build, chain},
    worker::{Jitter, Setup, ShutdownFlag, Status, Worker},
};

/// The pause between two attempts to start.
const RETRY: Duration = Duration::from_secs(1);
/// How often a waiting caller checks the health.
const HEALTH_POLL: Duration = Duration::from_millis(10);

/// A service that cannot start, or that stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A compiled-in schema is not registered, or cannot be looked up.
    #[error("service {service} cannot write its records")]
    Schemas {
        /// The service.
        service: &'static str,
        /// The cause.
        source: Box<WriterError>,
    },
    /// The registry's client cannot be created.
    #[error("service {service} cannot use the schema registry")]
    Registry {
        /// The service.
        service: &'static str,
        /// The cause.
        source: Box<RegistryError>,
    },
    /// The service's enums break a rule about who reads and writes what.
    #[error("service {service} breaks the rules of a service")]
    Contract {
        /// The service.
        service: &'static str,
        /// The cause.
        source: ContractError,
    },
    /// Topics are missing.
    #[error("service {service} lacks the topics {missing}; hint: `dacapo topics create`")]
    MissingTopics {
        /// The service.
        service: &'static str,
        /// The missing topics.
        missing: String,
    },
    /// Topics have different partition counts.
    #[error(
        "service {service} needs the same number of partitions on all its topics, but {counts}; \
         hint: a key must have the same partition number on every topic; recreate the topic that differs"
    )]
    PartitionCounts {
        /// The service.
        service: &'static str,
        /// Every topic with its count.
        counts: String,
    },
    /// The cluster cannot be reached, or an events topic has limited retention.
    #[error("service {service} cannot use its topics")]
    Topics {
        /// The service.
        service: &'static str,
        /// The cause.
        source: AdminError,
    },
    /// The local store cannot be used.
    #[error("service {service} cannot use its store")]
    Store {
        /// The service.
        service: &'static str,
        /// The cause.
        source: StoreError,
    },
    /// The HTTP server cannot listen on its address.
    #[error("service {service} cannot serve HTTP")]
    Http {
        /// The service.
        service: &'static str,
        /// The cause.
        source: ServerError,
    },
    /// The operating system refuses a thread.
    #[error("service {service} cannot {operation}")]
    System {
        /// The service.
        service: &'static str,
        /// The failed operation.
        operation: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The service stopped after its start.
    #[error("service {service} stopped: {reason}")]
    Stopped {
        /// The service.
        service: &'static str,
        /// The cause.
        reason: String,
    },
}

impl StartError {
    /// True if a retry may succeed without a change to the program or its settings.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Schemas { source, .. } => source.is_transient(),
            Self::Registry { source, .. } => source.is_transient(),
            Self::Topics { source, .. } => source.is_transient(),
            Self::MissingTopics { .. } => true,
            Self::Contract { .. } | Self::PartitionCounts { .. } | Self::Store { .. } => false,
            Self::Http { .. } | Self::System { .. } | Self::Stopped { .. } => false,
        }
    }
}

/// The health of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHealth {
    /// True unless it needs an operator or a restart.
    pub is_live: bool,
    /// True if it decides for assigned partitions, and its other parts are ready.
    pub is_ready: bool,
    /// True if some of its pieces do not work, such as a partition with a batch that cannot be read.
    pub is_degraded: bool,
    /// A line per check, for people.
    pub text: String,
}

/// A running service.
pub struct Running {
    service: &'static str,
    shared: Arc<Shared>,
    checks: HealthChecks,
    http: Option<Http>,
    starting: JoinHandle<()>,
    _watching: Watching,
    patience: Duration,
}

/// The task that reports degraded pieces. It ends with the service.
struct Watching(JoinHandle<()>);

impl Watching {
    fn start(service: &'static str, checks: &HealthChecks) -> Self {
        Self(tokio::spawn(checks.clone().watch(service)))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Http {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: Arc<ShutdownFlag>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    workers: Vec<Worker>,
    waiting_for: Option<String>,
    refused: Option<String>,
}

impl Shared {
    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_live(&self) -> Result<(), String> {
        self.state(|state| {
            let dead = state.workers.iter().map(|worker| &worker.status).find(|status| status.is_dead());
            match (&state.refused, dead) {
                (Some(reason), _) => Err(format!("refused to start: {reason}")),
                (None, Some(status)) => Err(status.describe()),
                (None, None) => Ok(()),
            }
        })
    }

    fn readiness(&self) -> CheckResult {
        if let Err(reason) = self.is_live() {
            return CheckResult::Failed(reason);
        }
        self.state(|state| {
            if state.workers.is_empty() {
                return CheckResult::Failed(state.waiting_for.clone().unwrap_or_else(|| "starting".to_owned()));
            }
            let workers = state.workers.iter().map(|worker| worker.status.readiness());
            workers.fold(CheckResult::Fine, CheckResult::and)
        })
    }
}

/// Starts a service: looks up its schemas and topics, opens its store, starts its workers, and serves `routes` together with its
/// health. While broker or registry cannot be reached, the start is retried in the background; see [`Running::ready`].
///
/// # Errors
/// [`StartError`]: a contradiction that a retry does not resolve.
pub async fn start<D: Decider, P: Perform<D>>(
    config: Config,
    decider: D,
    performer: P,
    routes: Router,
) -> Result<Running, StartError> {
    start_with(config, decider, performer, routes, HealthChecks::default()).await
}

/// Starts a service with further parts, such as an edge with a live view. `checks` has their health checks.
///
/// # Errors
/// As [`start`].
pub async fn start_with<D: Decider, P: Perform<D>>(
    config: Config,
    decider: D,
    performer: P,
    routes: Router,
    checks: HealthChecks,
) -> Result<Running, StartError> {
    let config = Config { service: D::NAME.to_owned(), ..config };
    let shared = Arc::new(Shared::default());
    let (live, ready) = (Arc::clone(&shared), Arc::clone(&shared));
    checks.live("decisions", move || live.is_live());
    checks.ready("decisions", move || ready.readiness());
    let http = listen(D::NAME, &config, routes, &checks).await?;
    let patience = config.timeouts.shutdown;
    let launch = Launch { config, decider, performer: Arc::new(performer), shared: Arc::clone(&shared) };
    let waiting = match launch.attempt().await {
        Ok(()) => None,
        Err(error) if error.is_transient() => Some(error),
        Err(error) => return Err(error),
    };
    let starting = tokio::spawn(async move {
        if let Some(error) = waiting {
            launch.retry_until_started(error).await;
        }
    });
    let _watching = Watching::start(D::NAME, &checks);
    Ok(Running { service: D::NAME, shared, checks, http, starting, _watching, patience })
}

/// Starts a service without a decider, which keeps live views and serves queries. It serves `routes` together with `checks`, the health
/// checks of its views; it has no topics and no consumer group.
///
/// # Errors
/// [`StartError::Http`].
pub async fn start_reader(
    service: &'static str,
    config: Config,
    routes: Router,
    checks: HealthChecks,
) -> Result<Running, StartError> {
    let http = listen(service, &config, routes, &checks).await?;
    let (starting, _watching) = (tokio::spawn(std::future::ready(())), Watching::start(service, &checks));
    let (shared, patience) = (Arc::default(), config.timeouts.shutdown);
    Ok(Running { service, shared, checks, http, starting, _watching, patience })
}

async fn listen(
    service: &'static str,
    config: &Config,
    routes: Router,
    checks: &HealthChecks,
) -> Result<Option<Http>, StartError> {
    let Some(address) = config.listen else { return Ok(None) };
    let server = Server::bind(address).await.map_err(|source| StartError::Http { service, source })?;
    Ok(Some(serve(server, routes.merge(http::operations(checks.clone())), config.timeouts.shutdown / 2)))
}

impl Running {
    /// Its health.
    #[must_use]
    pub fn health(&self) -> ServiceHealth {
        let (live, ready) = (self.checks.report(HealthProbe::Live), self.checks.report(HealthProbe::Ready));
        let text = if live.is_fine { ready.text } else { live.text };
        ServiceHealth {
            is_live: live.is_fine,
            is_ready: live.is_fine && ready.is_fine,
            is_degraded: !ready.degraded.is_empty(),
            text: text.trim_end().to_owned(),
        }
    }

    /// The address of its HTTP API.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// How many partitions it decides for at the moment.
    #[must_use]
    pub fn deciding(&self) -> usize {
        self.shared.state(|state| state.workers.iter().map(|worker| worker.status.deciding()).sum())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// [`StartError::Stopped`] if it has stopped for good.
    pub async fn ready(&self) -> Result<(), StartError> {
        loop {
            let health = self.health();
            if health.is_ready {
                return Ok(());
            }
            if !health.is_live {
                return Err(StartError::Stopped { service: self.service, reason: health.text });
            }
            tokio::time::sleep(HEALTH_POLL).await;
        }
    }

    /// Waits until it has stopped for good by itself: another instance uses its name, or it could not start.
    pub async fn failed(&self) -> StartError {
        loop {
            let health = self.health();
            if !health.is_live {
                return StartError::Stopped { service: self.service, reason: health.text };
            }
            tokio::time::sleep(HEALTH_POLL * 10).await;
        }
    }

    /// Stops gracefully: takes no new input, commits the open batch and releases the partitions. Returns whether this was done in time.
    pub async fn stop(self) -> bool {
        self.end(Worker::ask_to_stop).await
    }

    /// Stops like a crash: the open batch is lost.
    #[doc(hidden)]
    pub async fn crash(self) -> bool {
        self.end(Worker::crash).await
    }

    async fn end(self, ask: impl Fn(&Worker)) -> bool {
        self.shared.stop.request();
        self.shared.state(|state| state.workers.iter().for_each(&ask));
        self.starting.abort();
        if let Some(http) = &self.http {
            http.stop.send_replace(true);
        }
        let deadline = Instant::now() + self.patience;
        let ended = loop {
            if self.shared.state(|state| state.workers.iter().all(Worker::has_ended)) {
                break true;
            }
            if Instant::now() >= deadline {
                break false;
            }
            tokio::time::sleep(HEALTH_POLL).await;
        };
        if let Some(http) = self.http {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            let mut task = http.task;
            if tokio::time::timeout(left, &mut task).await.is_err() {
                task.abort();
            }
        }
        ended
    }
}

struct Launch<D: Decider, P> {
    config: Config,
    decider: D,
    performer: Arc<P>,
    shared: Arc<Shared>,
}

impl<D: Decider, P: Perform<D>> Launch<D, P> {
    async fn retry_until_started(&self, first: StartError) {
        let mut error = first;
        loop {
            let reason = chain(&error);
            if error.is_transient() {
                tracing::warn!(service = D::NAME, %reason, "waiting to start");
                self.shared.state(|state| state.waiting_for = Some(reason));
            } else {
                tracing::error!(service = D::NAME, %reason, "refused to start");
                self.shared.state(|state| (state.waiting_for, state.refused) = (None, Some(reason)));
                return;
            }
            tokio::time::sleep(RETRY).await;
            match self.attempt().await {
                Ok(()) => return self.shared.state(|state| state.waiting_for = None),
                Err(next) => error = next,
            }
        }
    }

    async fn attempt(&self) -> Result<(), StartError> {
        let service = D::NAME;
        let registry = RegistryClient::new(&self.config)
            .map_err(|source| StartError::Registry { service, source: Box::new(source) })?;
        let (system, records) = (self.config.system.clone(), written_by::<D>());
        let looked_up = {
            let registry = registry.clone();
            blocking(service, move || registry.writers(&system, &records)).await?
        };
        let writers = looked_up.map_err(|source| StartError::Schemas { service, source: Box::new(source) })?;
        let url = registry.url().to_owned();
        let readers = Readers::shared(&url, Arc::new(registry) as Arc<dyn SchemaSource>);
        let readers = readers.with_written(service, &writers);
        // One client for all requests: connecting and closing one takes a while.
        let admin = Admin::new(&self.config).map_err(|source| StartError::Topics { service, source })?;
        let partitions = self.check_topics(&admin).await?;
        let group = client::group(&self.config.system, service);
        let names = ContractNames { system: &self.config.system, group: &group, build: &build(), partitions };
        let mut contract = ServiceContract::of(&self.decider, names, writers)
            .map_err(|source| StartError::Contract { service, source })?;
        contract.limits = self.read_limits(&admin, &contract).await?;
        contract.parking = self.config.parking;
        self.start_workers(admin, &contract, &readers).await
    }

    /// Checks that every topic exists, that all have the same partition count, and that the service's events are kept forever.
    async fn check_topics(&self, admin: &Admin) -> Result<i32, StartError> {
        let service = D::NAME;
        let topics = |source| StartError::Topics { service, source };
        let admin_clone = admin.clone();
        let counts = blocking(service, move || admin_clone.partition_counts()).await?.map_err(topics)?;
        let system = &self.config.system;
        let wanted = topics_of::<D>(system);
        let own = TopicSpec::of_service(system, service, 1);
        let all: std::collections::BTreeSet<&str> =
            wanted.iter().map(String::as_str).chain(own.iter().map(|spec| spec.name.as_str())).collect();
        let missing: Vec<&str> = all.into_iter().filter(|name| !counts.contains_key(*name)).collect();
        if !missing.is_empty() {
            return Err(StartError::MissingTopics { service, missing: missing.join(", ") });
        }
        let partitions = counts.get(&wanted[0]).copied().unwrap_or(0);
        if wanted.iter().any(|name| counts.get(name).copied() != Some(partitions)) {
            let counts: Vec<String> =
                wanted.iter().map(|name| format!("{name} has {}", counts.get(name).copied().unwrap_or(0))).collect();
            return Err(StartError::PartitionCounts { service, counts: counts.join(", ") });
        }
        let own = TopicSpec::of_service(system, service, partitions);
        let plan = TopicPlan::compute(admin, &own).await.map_err(topics)?;
        plan.verify().map_err(topics)?;
        Ok(partitions)
    }

    /// Reads the size limits of the topics. Warns if the dead-letter topic does not accept the largest input.
    async fn read_limits(&self, admin: &Admin, contract: &ServiceContract) -> Result<Limits, StartError> {
        let service = D::NAME;
        let topics = |source| StartError::Topics { service, source };
        let (limits, largest_input) = admin.limits(contract).await.map_err(topics)?;
        if limits.dead_letters <= largest_input {
            let topic = &contract.dead_letter_topic;
            tracing::warn!(
                service, %topic, limits.dead_letters, largest_input,
                "records near the limit of their topic would be dead-lettered without their bodies; hint: raise max.message.bytes"
            );
        }
        Ok(limits)
    }

    async fn start_workers(
        &self,
        admin: Admin,
        contract: &ServiceContract,
        readers: &Readers,
    ) -> Result<(), StartError> {
        let service = D::NAME;
        let config = self.config.clone();
        let (group, topic) = (contract.group.to_string(), contract.events_topic.to_string());
        let opened = blocking(service, move || {
            let cluster = admin.cluster_id().unwrap_or_default();
            let header = store::StoreHeader::new(cluster, group, topic, &*build());
            let opened = store::open(&config, &header).map_err(|source| StartError::Store { service, source });
            (opened, admin)
        });
        let (store, admin) = opened.await?;
        // Closing the client takes a while, and nothing depends on it.
        drop(tokio::task::spawn_blocking(move || drop(admin)));
        let store = store?;
        let incarnation = incarnation_id();
        let mut workers = Vec::new();
        for worker in 0..self.config.workers {
            let setup = Setup {
                config: self.config.clone(),
                names: client::WorkerNames::of(&self.config, service, worker, incarnation),
                decider: self.decider.clone(),
                performer: Arc::clone(&self.performer),
                contract: contract.clone(),
                readers: readers.clone(),
                store: Arc::clone(&store),
                runtime: tokio::runtime::Handle::current(),
                status: Status::new(&self.config.timeouts),
                stop: Arc::clone(&self.shared.stop),
                started: Instant::now(),
                jitter: Jitter::new(incarnation.as_u64_pair().0 ^ worker as u64),
            };
            let started = Worker::start(setup);
            workers.push(started.map_err(|source| StartError::System {
                service,
                operation: "start a worker's thread".to_owned(),
                source,
            })?);
        }
        self.shared.state(|state| state.workers = workers);
        Ok(())
    }
}

/// The topics that a service reads, and its own; the first is its inbox.
fn topics_of<D: Decider>(system: &str) -> Vec<String> {
    use crate::message::Message;
    let own = [topic(system, D::NAME, Channel::Inbox), topic(system, D::NAME, Channel::Events)];
    let consumed = D::Input::RECORDS.iter().filter(|record| record.channel != Channel::Inbox);
    let others: std::collections::BTreeSet<String> = consumed.map(|record| record.topic(system)).collect();
    own.into_iter().chain(others).collect()
}

async fn blocking<T: Send + 'static>(
    service: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| StartError::Stopped { service, reason: format!("a step of the start was interrupted: {e}") })
}

/// An id for this incarnation of the instance, which names it if it has no stable name.
fn incarnation_id() -> uuid::Uuid {
    uuid::Uuid::now_v7()
}

fn serve(server: Server, routes: Router, patience: Duration) -> Http {
    let address = server.address();
    let (stop, mut stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let until = async move {
            // The sender is gone only if the service is dropped, which is a stop as well.
            let _gone = stopped.wait_for(|stop| *stop).await;
        };
        if let Err(error) = server.serve(routes, until, patience).await {
            tracing::error!(error = chain(&error), "http server stopped");
        }
    });
    Http { address, stop, task }
}
