//! The view, shared by several readers and one writer.
//!
//! Owns the lock, the notification of changes, and the offsets at which snapshots were frozen. The writer holds the view for
//! one batch of records at a time; readers get it between batches.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use runtime::health::{CheckResult, DegradedPiece};
use tokio::sync::watch;

use crate::{
    api::{AsOf, HeldPlace, NextOffsets, SnapshotHead},
    present::FrozenOffsets,
    time::rfc3339,
    view::SagaView,
};

/// The most snapshots that can be queried at a time.
const SNAPSHOTS_MAX: usize = 8;

/// The most times a writer yields to readers before it takes the lock.
const YIELDS_MAX: usize = 10_000;

/// The read progress that only the reader of the topics knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadProgress {
    /// Every partition was read to its end.
    pub caught_up: bool,
    /// Records that are known to exist and were not read yet.
    pub lag_records: u64,
    /// Why nothing is read for now, if so.
    pub degraded_reason: Option<String>,
    /// The partitions that cannot be read, each with its place and the reason. The others are read on.
    pub held: Vec<DegradedPiece>,
    /// The topics it reads.
    pub topics: Vec<String>,
}

/// A shared view.
#[derive(Debug, Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: RwLock<SagaView>,
    /// The number of callers that wait for the view.
    waiting: AtomicUsize,
    reading: RwLock<ReadProgress>,
    revision: watch::Sender<u64>,
    snapshots: Mutex<Snapshots>,
}

#[derive(Debug, Default)]
struct Snapshots {
    count: u64,
    kept: VecDeque<(u64, NextOffsets)>,
}

/// A frozen view while its sagas are written out.
#[derive(Debug)]
pub(crate) struct FrozenView {
    pub(crate) head: SnapshotHead,
    pub(crate) at: FrozenOffsets,
    /// The number of sagas at that moment.
    pub(crate) instances: u32,
    /// [`SagaView::rewritten`] at that moment.
    pub(crate) rewritten: u64,
}

impl Board {
    /// Shares a view.
    #[must_use]
    pub fn new(view: SagaView) -> Self {
        let revision = watch::Sender::new(view.revision());
        Self {
            inner: Arc::new(Inner {
                view: RwLock::new(view),
                waiting: AtomicUsize::new(0),
                reading: RwLock::default(),
                revision,
                snapshots: Mutex::default(),
            }),
        }
    }

    /// Locks the view for reading. Hold it briefly: it blocks the writer.
    pub fn view(&self) -> RwLockReadGuard<'_, SagaView> {
        self.inner.waiting.fetch_add(1, Ordering::AcqRel);
        // A view whose writer panicked is still a fold of the records it has read. The reader's task reports the panic.
        let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
        self.inner.waiting.fetch_sub(1, Ordering::AcqRel);
        view
    }

    /// Changes the view, and notifies subscribers if its revision has changed.
    pub fn write<T>(&self, change: impl FnOnce(&mut SagaView) -> T) -> T {
        let (result, revision) = {
            self.inner.waiting.fetch_add(1, Ordering::AcqRel);
            let mut view = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
            self.inner.waiting.fetch_sub(1, Ordering::AcqRel);
            (change(&mut view), view.revision())
        };
        self.inner.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        result
    }

    /// Changes the view with low priority: other callers that wait for the view go first, within bounds. Only for dedicated
    /// threads, because it spins.
    pub(crate) fn write_last<T>(&self, change: impl FnOnce(&mut SagaView) -> T) -> T {
        for _ in 0..YIELDS_MAX {
            if self.inner.waiting.load(Ordering::Acquire) == 0 {
                break;
            }
            std::thread::yield_now();
        }
        change(&mut self.inner.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Subscribes to changes: the revision after each.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    /// Returns the view if nobody else shares it.
    #[must_use]
    pub fn into_view(self) -> Option<SagaView> {
        let inner = Arc::into_inner(self.inner)?;
        Some(inner.view.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of subscribers to changes.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.inner.revision.receiver_count()
    }

    /// The read progress.
    #[must_use]
    pub fn read_progress(&self) -> ReadProgress {
        self.inner.reading.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the read progress.
    pub fn set_read_progress(&self, reading: ReadProgress) {
        *self.inner.reading.write().unwrap_or_else(PoisonError::into_inner) = reading;
    }

    /// A readiness check: failed until the view has caught up and while nothing can be read, degraded while partitions are held.
    #[must_use]
    pub fn check(&self) -> CheckResult {
        let reading = self.read_progress();
        match reading.degraded_reason {
            Some(reason) => CheckResult::Failed(reason),
            None if reading.caught_up => CheckResult::of_pieces(reading.held),
            None => CheckResult::Failed(format!("catching up: {} records behind", reading.lag_records)),
        }
    }

    /// The read progress as a reply carries it.
    #[must_use]
    pub fn as_of(&self, view: &SagaView) -> AsOf {
        let reading = self.read_progress();
        AsOf {
            epoch: view.epoch(),
            revision: view.revision(),
            watermark: Some(view.watermark_ms()).filter(|at_ms| *at_ms > 0).map(rfc3339),
            caught_up: reading.caught_up && reading.held.is_empty(),
            lag_records: reading.lag_records,
            held: reading
                .held
                .into_iter()
                .map(|piece| HeldPlace { place: piece.place, reason: piece.reason })
                .collect(),
        }
    }

    /// Freezes the view: its positions, counts and number of sagas at one moment. The snapshot is written out while the live
    /// view continues.
    pub(crate) fn freeze(&self) -> FrozenView {
        self.write(|view| {
            // Records that were folded and not committed are part of the snapshot already. The commit adds them to the counts.
            view.commit(0);
            let positions = view.positions();
            FrozenView {
                at: view.freeze(&positions),
                instances: u32::try_from(view.sagas()).unwrap_or(u32::MAX),
                rewritten: view.rewritten(),
                head: SnapshotHead {
                    snapshot: self.keep(positions.clone()),
                    epoch: view.epoch(),
                    revision: view.revision(),
                    positions,
                    declarations: view.declarations().iter().map(|declaration| declaration.name.clone()).collect(),
                    counts: view.counts(),
                },
            }
        })
    }

    /// Keeps the offsets of a snapshot and drops the oldest. Returns the snapshot's number.
    fn keep(&self, positions: NextOffsets) -> u64 {
        let mut snapshots = self.inner.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.count += 1;
        if snapshots.kept.len() == SNAPSHOTS_MAX {
            snapshots.kept.pop_front();
        }
        let snapshot = snapshots.count;
        snapshots.kept.push_back((snapshot, positions));
        snapshot
    }

    /// The offsets of an earlier snapshot, if they are still kept.
    pub(crate) fn snapshot(&self, snapshot: u64) -> Option<NextOffsets> {
        let snapshots = self.inner.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.kept.iter().find(|(number, _)| *number == snapshot).map(|(_, positions)| positions.clone())
    }
}
