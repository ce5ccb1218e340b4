//! The view that several readers share with the one that writes it.
//!
//! Owns the lock, the news of changes, and the offsets at which snapshots were frozen. Whoever folds records gets the view for
//! one batch at a time; whoever reads gets it between batches.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    api::{AsOf, Positions, SnapshotHead},
    present::{FrozenAt, time},
    view::View,
};

/// How many snapshots can be asked about at a time.
const SNAPSHOTS_MAX: usize = 8;

/// How often one who folds lets others go first.
const YIELDS_MAX: usize = 10_000;

/// How far reading is, as far as only the one who reads can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Every partition was read to its end.
    pub caught_up: bool,
    /// Records known to be there and not read yet.
    pub lag_records: u64,
    /// Why reading does not go on, if it does not.
    pub trouble: Option<String>,
    /// The topics that are read.
    pub topics: Vec<String>,
}

/// A shared view.
#[derive(Debug, Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: RwLock<View>,
    /// How many wait for the view.
    waiting: AtomicUsize,
    reading: RwLock<Reading>,
    revision: watch::Sender<u64>,
    snapshots: Mutex<Snapshots>,
}

#[derive(Debug, Default)]
struct Snapshots {
    count: u64,
    kept: VecDeque<(u64, Positions)>,
}

/// A frozen view, while its sagas are written.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) head: SnapshotHead,
    pub(crate) at: FrozenAt,
    /// How many sagas there were.
    pub(crate) instances: u32,
    /// [`View::rewritten`] at that moment.
    pub(crate) rewritten: u64,
}

impl Board {
    /// Shares a view.
    #[must_use]
    pub fn new(view: View) -> Self {
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

    /// The view, to be read. Hold it shortly: nobody writes meanwhile.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.inner.waiting.fetch_add(1, Ordering::AcqRel);
        // A view whose writer panicked is still a fold of what it has read; the writer's end is seen elsewhere.
        let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
        self.inner.waiting.fetch_sub(1, Ordering::AcqRel);
        view
    }

    /// Changes the view, and tells those who wait if its revision has changed.
    pub fn write<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        let (result, revision) = {
            self.inner.waiting.fetch_add(1, Ordering::AcqRel);
            let mut view = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
            self.inner.waiting.fetch_sub(1, Ordering::AcqRel);
            (change(&mut view), view.revision())
        };
        self.inner.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        result
    }

    /// Changes the view as one who does nothing else all day: whoever waits for the view goes first, within bounds. For threads of
    /// their own only.
    pub(crate) fn write_last<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        for _ in 0..YIELDS_MAX {
            if self.inner.waiting.load(Ordering::Acquire) == 0 {
                break;
            }
            std::thread::yield_now();
        }
        change(&mut self.inner.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// News of changes: the revision after each.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    /// The view again, if nobody shares it any more.
    #[must_use]
    pub fn into_view(self) -> Option<View> {
        let inner = Arc::into_inner(self.inner)?;
        Some(inner.view.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many wait for news.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.inner.revision.receiver_count()
    }

    /// How far reading is.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.inner.reading.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how far reading is.
    pub fn set_reading(&self, reading: Reading) {
        *self.inner.reading.write().unwrap_or_else(PoisonError::into_inner) = reading;
    }

    /// How far a view has read, for a reply.
    #[must_use]
    pub fn as_of(&self, view: &View) -> AsOf {
        let reading = self.reading();
        AsOf {
            epoch: view.epoch(),
            revision: view.revision(),
            watermark: Some(view.watermark_ms()).filter(|at_ms| *at_ms > 0).map(time),
            caught_up: reading.caught_up,
            lag_records: reading.lag_records,
        }
    }

    /// Freezes the view: its positions, counts and number of sagas at one moment. Writing it out goes on beside the live view.
    pub(crate) fn freeze(&self) -> Frozen {
        self.write(|view| {
            // What was folded and not committed yet is in the rows already: it must be in the counts too.
            view.commit(0);
            let positions = view.positions();
            Frozen {
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

    /// Keeps a snapshot's offsets, forgetting the oldest; answers its number.
    fn keep(&self, positions: Positions) -> u64 {
        let mut snapshots = self.inner.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.count += 1;
        if snapshots.kept.len() == SNAPSHOTS_MAX {
            snapshots.kept.pop_front();
        }
        let snapshot = snapshots.count;
        snapshots.kept.push_back((snapshot, positions));
        snapshot
    }

    /// The offsets of a snapshot that was taken before, if it is still known.
    pub(crate) fn snapshot(&self, snapshot: u64) -> Option<Positions> {
        let snapshots = self.inner.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.kept.iter().find(|(number, _)| *number == snapshot).map(|(_, positions)| positions.clone())
    }
}
