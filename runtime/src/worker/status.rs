//! What can be said of a worker from outside: whether it works, and what is wrong if it does not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A turn of the loop that lasts longer than this waits for something that should have come, or will never end.
const LONG_TURN: Duration = Duration::from_secs(5);

/// Where a worker is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// It has not joined its group yet.
    Joining,
    /// It has joined; the partitions it was given may still recover.
    Member,
    /// It failed and will start again from the log.
    Restarting {
        /// Why.
        reason: String,
    },
    /// It stopped for good: an operator must act.
    Stopped {
        /// Why.
        reason: String,
    },
    /// It was asked to end and has ended.
    Ended,
}

/// What keeps a partition from going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The place it stands before, as `topic/partition/offset`.
    pub place: String,
    /// Why.
    pub reason: String,
    /// True if it stays until an operator acts; else it is tried again.
    pub is_final: bool,
}

/// The status of a worker. Clones share it.
#[derive(Debug, Clone)]
pub struct Status(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    crashing: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: WorkerState,
    recovering: usize,
    deciding: usize,
    unreachable: bool,
    turned: Instant,
    troubles: BTreeMap<i32, Trouble>,
}

impl Inner {
    /// How long it has been in the same turn, if that is too long.
    fn is_stuck_for(&self, now: Instant) -> Option<Duration> {
        let in_this_turn = now.saturating_duration_since(self.turned);
        (self.state == WorkerState::Member && in_this_turn >= LONG_TURN).then_some(in_this_turn)
    }

    fn phase(&self) -> String {
        match &self.state {
            WorkerState::Joining => "joining its group".to_owned(),
            WorkerState::Member if self.recovering > 0 => format!("{} partitions recover", self.recovering),
            WorkerState::Member if self.unreachable => "no broker can be reached".to_owned(),
            WorkerState::Member => format!("{} partitions decide", self.deciding),
            WorkerState::Restarting { reason } => format!("starting again: {reason}"),
            WorkerState::Stopped { reason } => format!("stopped: {reason}"),
            WorkerState::Ended => "ended".to_owned(),
        }
    }
}

impl Default for Status {
    fn default() -> Self {
        let (state, troubles) = (WorkerState::Joining, BTreeMap::new());
        let inner = Inner { state, recovering: 0, deciding: 0, unreachable: false, turned: Instant::now(), troubles };
        Self(Arc::new(Shared { crashing: AtomicBool::new(false), inner: Mutex::new(inner) }))
    }
}

impl Status {
    /// True if it has joined and every partition it owns decides.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.with(|inner| {
            let works = inner.state == WorkerState::Member && !inner.unreachable;
            let works = works && inner.is_stuck_for(Instant::now()).is_none();
            works && inner.recovering == 0 && inner.troubles.is_empty()
        })
    }

    /// True if it needs an operator, or no longer runs.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.with(|inner| matches!(inner.state, WorkerState::Stopped { .. }))
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.with(|inner| inner.state.clone())
    }

    /// How many partitions it decides for.
    #[must_use]
    pub fn deciding(&self) -> usize {
        self.with(|inner| inner.deciding)
    }

    /// The partitions that do not go on.
    #[must_use]
    pub fn troubles(&self) -> BTreeMap<i32, Trouble> {
        self.with(|inner| inner.troubles.clone())
    }

    /// One line for people: what it waits for, or what is wrong.
    #[must_use]
    pub fn describe(&self) -> String {
        self.with(|inner| {
            let phase = inner.is_stuck_for(Instant::now()).map_or_else(
                || inner.phase(),
                |stuck_for| format!("one turn has lasted for {} s", stuck_for.as_secs()),
            );
            inner
                .troubles
                .values()
                .fold(phase, |text, trouble| format!("{text}; {}: {}", trouble.place, trouble.reason))
        })
    }

    pub(crate) fn set(&self, state: WorkerState) {
        self.with(|inner| {
            if state != WorkerState::Member {
                inner.recovering = 0;
                inner.deciding = 0;
            }
            if matches!(state, WorkerState::Joining) {
                // What was wrong in the life before is found again, or is not.
                inner.troubles.clear();
            }
            inner.unreachable = false;
            inner.turned = Instant::now();
            inner.state = state;
        });
    }

    /// The loop goes round.
    pub(crate) fn turned(&self) {
        self.with(|inner| inner.turned = Instant::now());
    }

    pub(crate) fn reachable(&self, reachable: bool) {
        self.with(|inner| inner.unreachable = !reachable);
    }

    pub(crate) fn count(&self, recovering: usize, deciding: usize) {
        self.with(|inner| (inner.recovering, inner.deciding) = (recovering, deciding));
    }

    pub(crate) fn trouble(&self, partition: i32, trouble: Trouble) {
        self.with(|inner| inner.troubles.insert(partition, trouble));
    }

    pub(crate) fn no_trouble(&self, partition: i32) {
        self.with(|inner| inner.troubles.remove(&partition));
    }

    pub(crate) fn no_troubles(&self) {
        self.with(|inner| inner.troubles.clear());
    }

    pub(crate) fn crash(&self) {
        self.0.crashing.store(true, Ordering::Release);
    }

    pub(crate) fn is_crashing(&self) -> bool {
        self.0.crashing.load(Ordering::Acquire)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Inner) -> T) -> T {
        ask(&mut self.0.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_whose_loop_stands_still_is_not_ready() {
        let status = Status::default();
        status.set(WorkerState::Member);
        assert!(status.is_ready());
        let long_ago = Instant::now().checked_sub(LONG_TURN * 2).expect("a machine that has been up for a while");
        status.with(|inner| inner.turned = long_ago);
        assert!(
            !status.is_ready() && status.describe().contains("one turn has lasted for 10 s"),
            "{}",
            status.describe()
        );
        status.turned();
        assert!(status.is_ready());
    }
}
