//! A worker: one thread, one member of the group, one transactional producer.
//!
//! It executes the steps of the core. After any indefinite error it discards its clients and its states, pauses, and starts again
//! from the log with the next incarnation.

mod bounds;
mod clients;
mod commit;
mod deliveries;
mod effects;
mod error;
mod incarnation;
mod rebalance;
mod recovery;
mod status;
mod transactor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub(crate) use bounds::fetch as fetch_bounds;
pub(crate) use clients::{Clients, ClientsError, ClientsSetup};
pub(crate) use rebalance::Rebalance;
pub use status::{PartitionIssue, Status, WorkerState};
pub(crate) use transactor::{CommitError, is_fenced};

use crate::{
    codec::Readers,
    config::Config,
    core::{
        ServiceContract,
        backoff::{Backoff, spread},
        turn::Carried,
    },
    decider::{Decider, Perform},
    kafka::client::WorkerNames,
    store::Checkpoints,
    unreadable::{ReaderName, Watch},
};

/// The first pause after an incarnation that ended with an error.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two incarnations.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After an incarnation of this length the pauses start again at the first one.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// The parts of a worker.
pub(crate) struct Setup<D: Decider, P> {
    pub(crate) config: Config,
    pub(crate) names: WorkerNames,
    pub(crate) decider: D,
    pub(crate) performer: Arc<P>,
    pub(crate) contract: ServiceContract,
    pub(crate) readers: Readers,
    pub(crate) store: Arc<dyn Checkpoints>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) status: Status,
    pub(crate) stop: Arc<ShutdownFlag>,
    pub(crate) jitter: Jitter,
    /// The moment from which durations are measured.
    pub(crate) started: Instant,
}

/// Set when a worker must end.
#[derive(Debug, Default)]
pub(crate) struct ShutdownFlag(AtomicBool);

impl ShutdownFlag {
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Random numbers that spread retries. They are not for secrets and not for decisions.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed | 1))
    }

    pub(crate) fn next(&self) -> u64 {
        // The finisher of splitmix64 over a counter is enough to keep workers from retrying at the same moment.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A worker on its thread.
pub(crate) struct Worker {
    pub(crate) status: Status,
    stop: Arc<ShutdownFlag>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start<D: Decider, P: Perform<D>>(setup: Setup<D, P>) -> std::io::Result<Self> {
        let (status, stop) = (setup.status.clone(), Arc::clone(&setup.stop));
        let name = format!("worker-{}", setup.names.client_id);
        let setup = Arc::new(setup);
        let thread = std::thread::Builder::new().name(name).spawn(move || run(&setup))?;
        Ok(Self { status, stop, thread: Some(thread) })
    }

    /// Requests that the worker ends after its open batch.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.request();
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// True if the thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends without committing the open batch, as in a crash.
    #[doc(hidden)]
    pub(crate) fn crash(&self) {
        self.status.crash();
        self.ask_to_stop();
    }
}

/// Runs one incarnation after another, until a stop is requested or another worker takes this one's name.
fn run<D: Decider, P: Perform<D>>(setup: &Arc<Setup<D, P>>) {
    let group = ReaderName::Group(setup.names.group.clone());
    let (mut carried, mut watch) = (Carried::default(), Watch::new(&setup.config, setup.readers.clone(), group));
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    while !setup.stop.is_requested() {
        let began = Instant::now();
        let Err(error) = incarnation::run(setup, (&mut carried, &mut watch)) else { break };
        if error.is_final() {
            tracing::error!(worker = %setup.names.client_id, reason = %error, "worker stopped for good");
            setup.status.set(WorkerState::Stopped { reason: error.to_string() });
            return;
        }
        tracing::warn!(worker = %setup.names.client_id, reason = %error, "worker starts again from the log");
        setup.status.set(WorkerState::Restarting { reason: error.to_string() });
        if began.elapsed() > LONG_ENOUGH || error.is_unreachable() {
            backoff.reset();
        }
        rest(setup, spread(backoff.pause(), setup.jitter.next()));
    }
    setup.status.set(WorkerState::Ended);
}

/// Waits for a pause, or until a stop is requested.
pub(crate) fn rest<D: Decider, P>(setup: &Setup<D, P>, pause: Duration) {
    let until = std::time::Instant::now() + pause;
    while !setup.stop.is_requested() {
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left.min(Duration::from_millis(100)));
    }
}
