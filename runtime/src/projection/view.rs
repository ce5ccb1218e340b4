//! A projection that a thread of its own keeps up to date, and that any thread may read.

use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::error::KafkaError;
use tokio::sync::watch;

use super::{
    LogRecord, Positions, Projection, Topics,
    holds::Holds,
    reader::{BrokerSigns, Reader},
};
use crate::{
    codec::Readers,
    config::Config,
    envelope::Position,
    health::{CheckResult, DegradedPiece},
    kafka::{Connectivity, client::view_name},
    unreadable::{Partition, ReaderName, Watch},
};

/// How many undecodable records are kept with their positions.
const MAX_UNDECODABLE_KEPT: usize = 100;
/// How long the thread waits for records before it checks topics and brokers.
const POLL: Duration = Duration::from_millis(100);

/// A view that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The client or the thread cannot be created.
    #[error("cannot set up the reader of {purpose}: {reason}")]
    Setup {
        /// What the view is for.
        purpose: String,
        /// The cause.
        reason: String,
    },
    /// The view did not reach the position in time.
    #[error("the view of {purpose} did not reach the position in {patience:?}: it is {behind} records behind{missing}")]
    TooSlow {
        /// What the view is for.
        purpose: String,
        /// The timeout.
        patience: Duration,
        /// How many offsets it is behind the known ends.
        behind: i64,
        /// Which topics are missing, if any.
        missing: String,
    },
    /// The view has stopped for good.
    #[error("the view of {purpose} has failed: {reason}")]
    Failed {
        /// What the view is for.
        purpose: String,
        /// The cause.
        reason: String,
    },
}

/// A record that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndecodableRecord {
    /// Its position.
    pub position: Position,
    /// The cause.
    pub reason: String,
}

/// The health of a view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewHealth {
    /// It has read everything up to the ends at its start, apart from partitions with a batch that cannot be read.
    pub caught_up: bool,
    /// How many partitions it reads.
    pub partitions: usize,
    /// How many offsets it is behind the known ends.
    pub behind: i64,
    /// No broker is reachable: the view does not advance until one is.
    pub is_disconnected: bool,
    /// The partitions that wait in front of a record that cannot be read: where, and why. The others are read on.
    pub held: Vec<DegradedPiece>,
    /// Why it is not kept up to date any more, if so.
    pub failed: Option<String>,
    /// Topics that do not exist.
    pub missing_topics: Vec<String>,
    /// How many records could not be decoded.
    pub undecodable: u64,
    /// The first of them.
    pub undecodable_records: Vec<UndecodableRecord>,
}

impl ViewHealth {
    /// A readiness check of a view of `what`: failed until it has caught up, and while no broker is reachable; degraded while
    /// partitions are held or a record is missing from it.
    #[must_use]
    pub fn check(&self, what: &str) -> CheckResult {
        if let Some(reason) = &self.failed {
            return CheckResult::Failed(format!("cannot read {what}: {reason}"));
        }
        if !self.caught_up {
            let held: Vec<String> = self.held.iter().map(|piece| format!("; {piece}")).collect();
            return CheckResult::Failed(format!(
                "still reading {what}, {} records to go{}",
                self.behind,
                held.concat()
            ));
        }
        if self.is_disconnected {
            return CheckResult::Failed("no broker answers".to_owned());
        }
        if !self.held.is_empty() && self.held.len() >= self.partitions {
            let held: Vec<String> = self.held.iter().map(ToString::to_string).collect();
            return CheckResult::Failed(format!("no partition of {what} can be read on: {}", held.join("; ")));
        }
        let missing = self.undecodable_records.iter().map(|record| {
            DegradedPiece::new(record.position.to_string(), format!("missing from {what}: {}", record.reason))
        });
        CheckResult::of_pieces(self.held.iter().cloned().chain(missing).collect())
    }
}

/// Shared read access to a projection. Clones share it; dropping the last one ends its thread.
pub struct LiveView<P> {
    shared: Arc<Shared<P>>,
    /// Ends the thread when the last view goes.
    _thread: Arc<FoldThread>,
}

impl<P> Clone for LiveView<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _thread: Arc::clone(&self._thread) }
    }
}

struct Shared<P> {
    purpose: String,
    folded: RwLock<(P, Positions)>,
    progress: Mutex<FoldProgress>,
    changed: Condvar,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct FoldProgress {
    health: ViewHealth,
    positions: Positions,
    /// Where each partition began when it was discovered.
    starts: Positions,
    /// The end of each partition when it was discovered.
    ends: Positions,
    /// Every topic was looked up at least once.
    is_looked_up: bool,
    /// The partitions that wait until somebody acts.
    stopped: BTreeSet<Partition>,
}

struct FoldThread {
    stop: Arc<AtomicBool>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for FoldThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            tracing::error!("a view's thread panicked");
        }
    }
}

impl<P: Projection> LiveView<P> {
    /// Starts folding `topics` into `projection` on a thread of its own. `purpose` names it in logs and client ids.
    /// Topics may be created later, and the cluster may be unavailable at first.
    ///
    /// # Errors
    /// [`ViewError::Setup`].
    pub fn start(
        config: &Config,
        purpose: &str,
        readers: Readers,
        topics: Topics,
        projection: P,
    ) -> Result<Self, ViewError> {
        let watch = Watch::new(config, readers.clone(), ReaderName::View(view_name(config, purpose)));
        Self::start_with(config, purpose, readers, topics, projection, Some(watch))
    }

    /// One of several readers of a view, for some of its topics. Operators decide for the view as a whole.
    ///
    /// # Errors
    /// [`ViewError::Setup`].
    pub fn start_part(
        config: &Config,
        (view, part): (&str, usize),
        readers: Readers,
        topics: Topics,
        projection: P,
    ) -> Result<Self, ViewError> {
        let watch = Watch::new(config, readers.clone(), ReaderName::View(view_name(config, view)));
        Self::start_with(config, &format!("{view}-{part}"), readers, topics, projection, Some(watch))
    }

    /// A view that does not look for batches that the client cannot read: the watch of every other view uses it.
    pub(crate) fn start_without_watch(
        config: &Config,
        purpose: &str,
        readers: Readers,
        topics: Topics,
        projection: P,
    ) -> Result<Self, ViewError> {
        Self::start_with(config, purpose, readers, topics, projection, None)
    }

    fn start_with(
        config: &Config,
        purpose: &str,
        readers: Readers,
        topics: Topics,
        projection: P,
        watch: Option<Watch>,
    ) -> Result<Self, ViewError> {
        let failed = |reason: String| ViewError::Setup { purpose: purpose.to_owned(), reason };
        let reader = Reader::new(config, purpose, readers, topics).map_err(|e: KafkaError| failed(e.to_string()))?;
        let shared = Arc::new(Shared {
            purpose: purpose.to_owned(),
            folded: RwLock::new((projection, Positions::default())),
            progress: Mutex::default(),
            changed: Condvar::new(),
            version: watch::Sender::new(0),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (run_shared, run_stop) = (Arc::clone(&shared), Arc::clone(&stop));
        let handle = std::thread::Builder::new()
            .name(format!("view-{purpose}"))
            .spawn(move || run_shared.run(reader, Holds::new(watch), &run_stop))
            .map_err(|e| failed(e.to_string()))?;
        let thread = Arc::new(FoldThread { stop, handle: Mutex::new(Some(handle)) });
        Ok(Self { shared, _thread: thread })
    }

    /// Reads the projection. This blocks the fold, so be brief.
    pub fn read<T>(&self, read: impl FnOnce(&P) -> T) -> T {
        self.read_at(|projection, _| read(projection))
    }

    /// Reads the projection together with its positions.
    pub fn read_at<T>(&self, read: impl FnOnce(&P, &Positions) -> T) -> T {
        let folded = self.shared.folded.read().unwrap_or_else(PoisonError::into_inner);
        read(&folded.0, &folded.1)
    }

    /// The positions up to which the projection is folded.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.shared.progress().positions.clone()
    }

    /// True once everything up to the ends at the start was read.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.shared.progress().health.caught_up
    }

    /// The health of the view.
    #[must_use]
    pub fn health(&self) -> ViewHealth {
        let progress = self.shared.progress();
        ViewHealth { behind: progress.positions.behind(&progress.ends), ..progress.health.clone() }
    }

    /// A channel that changes with every batch of folded records.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// Waits until everything up to the ends at the start was read.
    ///
    /// # Errors
    /// [`ViewError::TooSlow`] or [`ViewError::Failed`].
    pub async fn wait_until_caught_up(&self, patience: Duration) -> Result<(), ViewError> {
        self.wait(patience, |progress| progress.health.caught_up).await
    }

    /// The same, for a thread without an async runtime.
    ///
    /// # Errors
    /// As [`LiveView::wait_until_caught_up`].
    pub fn wait_until_caught_up_blocking(&self, patience: Duration) -> Result<(), ViewError> {
        self.wait_blocking(patience, |progress| progress.health.caught_up)
    }

    /// Waits until the record at a position is folded.
    ///
    /// # Errors
    /// [`ViewError::TooSlow`] or [`ViewError::Failed`].
    pub async fn wait_for(&self, position: &Position, patience: Duration) -> Result<(), ViewError> {
        self.wait(patience, |progress| progress.has(position)).await
    }

    /// Waits until every partition is folded up to these positions.
    ///
    /// # Errors
    /// [`ViewError::TooSlow`] or [`ViewError::Failed`].
    pub async fn wait_until(&self, positions: &Positions, patience: Duration) -> Result<(), ViewError> {
        self.wait(patience, |progress| progress.positions.reach(positions)).await
    }

    async fn wait(&self, patience: Duration, done: impl Fn(&FoldProgress) -> bool) -> Result<(), ViewError> {
        let mut changes = self.changes();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(end) = self.result(&done) {
                return end;
            }
            let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return self.result(&done).unwrap_or_else(|| Err(self.too_slow(patience)));
            }
        }
    }

    fn wait_blocking(&self, patience: Duration, done: impl Fn(&FoldProgress) -> bool) -> Result<(), ViewError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(end) = self.result(&done) {
                return end;
            }
            let progress = self.shared.progress();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(progress);
                return Err(self.too_slow(patience));
            }
            // A change between the check and this wait is not signalled again, so check again soon.
            let wait = left.min(Duration::from_millis(50));
            drop(self.shared.changed.wait_timeout(progress, wait).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn result(&self, done: impl Fn(&FoldProgress) -> bool) -> Option<Result<(), ViewError>> {
        let progress = self.shared.progress();
        if done(&progress) {
            return Some(Ok(()));
        }
        let reason = progress.health.failed.clone()?;
        Some(Err(ViewError::Failed { purpose: self.shared.purpose.clone(), reason }))
    }

    fn too_slow(&self, patience: Duration) -> ViewError {
        let health = self.health();
        let missing = match health.missing_topics.as_slice() {
            [] => String::new(),
            missing => format!("; missing topics: {}", missing.join(", ")),
        };
        ViewError::TooSlow { purpose: self.shared.purpose.clone(), patience, behind: health.behind, missing }
    }
}

impl FoldProgress {
    fn has(&self, position: &Position) -> bool {
        self.positions.get(&position.topic, position.partition).is_some_and(|next| next > position.offset)
    }

    fn update_caught_up(&mut self) {
        let is_read = |(topic, partition, end): (&Arc<str>, i32, i64)| {
            self.positions.get(topic, partition).unwrap_or(0) >= end
                || self.stopped.contains(&(Arc::clone(topic), partition))
        };
        if self.is_looked_up && !self.health.caught_up && self.ends.iter().all(is_read) {
            self.health.caught_up = true;
        }
    }
}

impl<P: Projection> Shared<P> {
    fn progress(&self) -> MutexGuard<'_, FoldProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut reader: Reader, mut holds: Holds, stop: &AtomicBool) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.fold_until_stopped(&mut reader, &mut holds, stop)));
        let reason = match ended {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(panic) => format!("the fold panicked: {}", panic_message(panic.as_ref())),
        };
        tracing::error!(view = %self.purpose, reason, "view has failed");
        self.progress().health.failed = Some(reason);
        self.notify();
    }

    fn fold_until_stopped(&self, reader: &mut Reader, holds: &mut Holds, stop: &AtomicBool) -> Result<(), String> {
        while !stop.load(Ordering::Acquire) {
            self.discover(reader)?;
            if holds.has_found_again(reader) {
                self.start_again(holds);
            }
            self.apply_holds(reader, holds)?;
            let batch = reader.poll(POLL);
            let records = holds.admit(reader, &batch.messages);
            self.fold(&records);
            if batch.reached_end {
                self.note_ends(reader, holds);
            }
            drop(records);
            let (signs, failure) = (batch.signs, batch.failure);
            drop(batch.messages);
            if batch.cannot_read {
                holds.suspect();
            }
            if let Some(failure) = failure {
                let positions = self.progress().positions.clone();
                return Err(reader.explain(failure, &positions));
            }
            self.check_brokers(reader, holds, signs)?;
        }
        Ok(())
    }

    /// Skips what operators have decided to skip, makes the client read what is not held, and reports what is.
    fn apply_holds(&self, reader: &Reader, holds: &mut Holds) -> Result<(), String> {
        let positions = self.progress().positions.clone();
        for skip in holds.watch(&positions) {
            let (topic, partition, next) = (&skip.batch.topic, skip.batch.partition, skip.batch.next);
            if positions.get(topic, partition) == Some(skip.from) {
                let decision = &skip.decision;
                tracing::warn!(view = %self.purpose, position = decision.position, next, by = decision.by, reason = decision.reason, "an operator skips a batch that cannot be read");
                self.move_to([(Arc::clone(topic), partition, next)]);
                holds.skipped(&skip);
            }
        }
        let positions = self.progress().positions.clone();
        holds.reconcile(reader, &positions).map_err(|e| format!("partitions cannot be assigned: {e}"))?;
        let mut progress = self.progress();
        for ((topic, partition), end) in holds.ends() {
            progress.ends.set(&topic, partition, end);
        }
        progress.stopped = holds.stopped_partitions();
        progress.health.held = holds.pieces();
        progress.health.partitions = positions.iter().count();
        let was_caught_up = progress.health.caught_up;
        progress.update_caught_up();
        if progress.health.caught_up != was_caught_up {
            drop(progress);
            self.notify();
        }
        Ok(())
    }

    /// Folds everything again, because a record that was passed over can be read now.
    fn start_again(&self, holds: &mut Holds) {
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        if !folded.0.reset() {
            return;
        }
        tracing::info!(view = %self.purpose, "a record that was passed over can be read now: the view is folded again");
        let mut progress = self.progress();
        folded.1 = progress.starts.clone();
        progress.positions = progress.starts.clone();
        progress.health.caught_up = false;
        progress.health.undecodable = 0;
        progress.health.undecodable_records.clear();
        drop((progress, folded));
        holds.start_again();
        self.notify();
    }

    fn check_brokers(&self, reader: &mut Reader, holds: &mut Holds, signs: BrokerSigns) -> Result<(), String> {
        let Some(connectivity) = reader.check_brokers(signs) else { return Ok(()) };
        self.progress().health.is_disconnected = connectivity != Connectivity::Connected;
        if connectivity == Connectivity::Lost {
            let replaced = reader.replace_client();
            replaced.map_err(|e| format!("a client that has lost its brokers cannot be replaced: {e}"))?;
            holds.client_replaced();
        }
        Ok(())
    }

    /// Retries while the cluster cannot be reached, and meanwhile keeps reading the known partitions.
    fn discover(&self, reader: &mut Reader) -> Result<(), String> {
        let (found, lookup) = reader.discover();
        if let Err(error) = &lookup {
            tracing::warn!(view = %self.purpose, %error, "cannot look up topics: retrying");
        }
        if found.is_empty() && (lookup.is_err() || self.progress().is_looked_up) {
            return Ok(());
        }
        reader.check_beginnings(&found).map_err(|error| error.to_string())?;
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        let mut progress = self.progress();
        for found in &found {
            progress.ends.set(&found.topic, found.partition, found.end);
            progress.positions.set(&found.topic, found.partition, found.start);
            progress.starts.set(&found.topic, found.partition, found.start);
            folded.1.set(&found.topic, found.partition, found.start);
        }
        progress.health.missing_topics = reader.missing();
        progress.is_looked_up |= lookup.is_ok();
        progress.update_caught_up();
        drop((progress, folded));
        self.notify();
        Ok(())
    }

    fn fold(&self, records: &[LogRecord<'_>]) {
        if records.is_empty() {
            return;
        }
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        let (projection, positions) = &mut *folded;
        let mut undecodable = Vec::new();
        for record in records {
            projection.apply(record);
            if let Some(reason) = record.take_problem() {
                undecodable.push(UndecodableRecord { position: record.position(), reason });
            }
        }
        let mut progress = self.progress();
        for last in ends_of_runs(records) {
            positions.set(last.topic, last.partition, last.offset + 1);
            progress.positions.set(last.topic, last.partition, last.offset + 1);
        }
        drop(folded);
        progress.health.undecodable += undecodable.len() as u64;
        for failed in undecodable {
            tracing::warn!(view = %self.purpose, position = %failed.position, reason = failed.reason, "record not decoded");
            if progress.health.undecodable_records.len() < MAX_UNDECODABLE_KEPT {
                progress.health.undecodable_records.push(failed);
            }
        }
        progress.update_caught_up();
        drop(progress);
        self.notify();
    }

    /// At the end of a partition its position passes commit markers and aborted records, which are not delivered.
    fn note_ends(&self, reader: &Reader, holds: &Holds) {
        match reader.positions_at_ends() {
            // The client has delivered records of a held partition that were not folded.
            Ok(ends) => {
                let is_read = |partition: Partition| holds.are_empty() || holds.admits(&partition);
                self.move_to(ends.into_iter().filter(|(topic, partition, _)| is_read((Arc::clone(topic), *partition))));
            }
            Err(error) => tracing::debug!(view = %self.purpose, %error, "positions not available"),
        }
    }

    /// Moves positions forward past what delivers no record.
    fn move_to(&self, ends: impl IntoIterator<Item = (Arc<str>, i32, i64)>) {
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        let mut progress = self.progress();
        let mut has_moved = false;
        for (topic, partition, next) in ends {
            if progress.positions.get(&topic, partition).is_some_and(|known| known < next) {
                progress.positions.set(&topic, partition, next);
                folded.1.set(&topic, partition, next);
                has_moved = true;
            }
        }
        progress.update_caught_up();
        drop((progress, folded));
        if has_moved {
            self.notify();
        }
    }

    fn notify(&self) {
        self.changed.notify_all();
        self.version.send_modify(|version| *version += 1);
    }
}

/// The last record of each run of records of one partition: a batch has few runs, and only their last records set positions.
fn ends_of_runs<'r, 'a>(records: &'r [LogRecord<'a>]) -> impl Iterator<Item = &'r LogRecord<'a>> {
    records
        .chunk_by(|a, b| Arc::ptr_eq(a.topic, b.topic) && a.partition == b.partition)
        .filter_map(<[LogRecord<'a>]>::last)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
