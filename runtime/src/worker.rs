//! The driver of the core on Kafka: one thread, one member of the group, one transactional producer.
//!
//! Owns the clients and when they live: any indefinite error throws all of them away, and the worker starts again from the log
//! after a pause. It brings records, time and outcomes to the core and does what the core says; it decides nothing itself.

mod assignment;
mod commit;
mod effects;
mod history;
mod life;
mod member;
mod recovering;
mod status;
mod transactor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

pub(crate) use commit::CommitError;
pub(crate) use history::Held;
pub(crate) use member::{Change, Fences, Member, Teller, let_go};
pub use status::{Status, Trouble, WorkerState};
pub(crate) use transactor::Transactor;

use crate::{
    clock,
    codec::Readers,
    config::Config,
    core::Contract,
    decider::{Decider, Perform},
    kafka::client::WorkerNames,
    store::Checkpoints,
};

/// The first pause after a life that ended in an error.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two lives.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a worker is made of.
pub(crate) struct Setup<D: Decider, P> {
    pub(crate) config: Config,
    pub(crate) names: WorkerNames,
    pub(crate) decider: D,
    pub(crate) performer: Arc<P>,
    pub(crate) contract: Contract,
    pub(crate) readers: Readers,
    pub(crate) store: Arc<dyn Checkpoints>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) status: Status,
    pub(crate) stop: Arc<Stop>,
    pub(crate) jitter: Jitter,
}

/// The wish that a worker ends.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Numbers that spread retries. Not for secrets, not for decisions.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed | 1))
    }

    pub(crate) fn next(&self) -> u64 {
        // The finisher of splitmix64 over a counter: enough to keep workers from retrying in step.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A worker on its thread.
pub(crate) struct Worker {
    pub(crate) status: Status,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start<D: Decider, P: Perform<D>>(setup: Setup<D, P>) -> std::io::Result<Self> {
        let (status, stop) = (setup.status.clone(), Arc::clone(&setup.stop));
        let name = format!("worker-{}", setup.names.client_id);
        let setup = Arc::new(setup);
        let thread = std::thread::Builder::new().name(name).spawn(move || run(&setup))?;
        Ok(Self { status, stop, thread: Some(thread) })
    }

    /// Asks the worker to end after its open batch.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.ask();
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// True if the thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends without committing what is open, as a crash would, from the log's point of view.
    #[doc(hidden)]
    pub(crate) fn crash(&self) {
        self.status.crash();
        self.ask_to_stop();
    }
}

/// One life after another, until asked to stop or told that another one has this worker's name.
fn run<D: Decider, P: Perform<D>>(setup: &Arc<Setup<D, P>>) {
    let mut suspects = life::Suspects::default();
    let mut pause = FIRST_PAUSE;
    while !setup.stop.is_asked() {
        let born = clock::now_ms();
        let ended = life::live(setup, &mut suspects);
        let Err(end) = ended else { break };
        if end.is_final() {
            tracing::error!(worker = %setup.names.client_id, reason = %end, "worker stopped for good");
            setup.status.set(WorkerState::Stopped { reason: end.to_string() });
            return;
        }
        tracing::warn!(worker = %setup.names.client_id, reason = %end, "worker starts again from the log");
        setup.status.set(WorkerState::Restarting { reason: end.to_string() });
        if clock::now_ms().saturating_sub(born) > 60_000 || end.is_unreachable() {
            pause = FIRST_PAUSE;
        }
        rest(
            setup,
            pause + pause.mul_f64(f64::from(u16::try_from(setup.jitter.next() % 1_000).unwrap_or(0)) / 2_000.0),
        );
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    setup.status.set(WorkerState::Ended);
}

/// Waits, unless asked to stop.
pub(crate) fn rest<D: Decider, P>(setup: &Setup<D, P>, pause: Duration) {
    let until = std::time::Instant::now() + pause;
    while !setup.stop.is_asked() {
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left.min(Duration::from_millis(100)));
    }
}
