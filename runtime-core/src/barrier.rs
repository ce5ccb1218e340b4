//! The barrier: what an owner must know before it acts on a partition that another one may have written to a moment ago.
//!
//! The order is the guarantee. First the group's committed offsets are fetched as stable: no transaction that may change them is
//! open. Then the ends of the log are asked of a client that sees uncommitted records, so a transaction that is prepared and not
//! yet marked counts. Then committed records are read until the reader's position is at or past these ends. After that nothing of
//! a predecessor comes any more. A service's recovery and the keeper of a table both pass it here.

use std::collections::BTreeMap;

/// What must be done next at the barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarrierStep {
    /// Fetch the group's committed offsets, as stable.
    FetchOffsets,
    /// Fetch the ends, uncommitted records counted.
    FetchEnds,
    /// Read committed records up to the ends.
    Read,
}

/// The way of some logs to the barrier. `L` names a log.
#[derive(Debug, Clone)]
pub struct Barrier<L> {
    step: BarrierStep,
    logs: BTreeMap<L, Progress>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    position: i64,
    end: i64,
}

impl<L: Ord> Default for Barrier<L> {
    fn default() -> Self {
        Self { step: BarrierStep::FetchOffsets, logs: BTreeMap::new() }
    }
}

impl<L: Ord> Barrier<L> {
    /// What must be done next.
    #[must_use]
    pub fn step(&self) -> BarrierStep {
        self.step
    }

    /// The committed offsets are stable.
    pub fn offsets_fetched(&mut self) {
        if self.step == BarrierStep::FetchOffsets {
            self.step = BarrierStep::FetchEnds;
        }
    }

    /// The ends, asked for after the offsets were stable. Ends that are told too early count for nothing.
    pub fn ends_fetched(&mut self, ends: impl IntoIterator<Item = (L, i64)>) {
        if self.step == BarrierStep::FetchEnds {
            self.step = BarrierStep::Read;
            self.logs = ends.into_iter().map(|(log, end)| (log, Progress { position: 0, end })).collect();
        }
    }

    /// The reader of committed records has read everything of a log before `position`, markers and aborted records included.
    pub fn reached(&mut self, log: &L, position: i64) {
        if let Some(progress) = self.logs.get_mut(log) {
            progress.position = progress.position.max(position);
        }
    }

    /// True if everything that was there when the ends were asked for has been read.
    #[must_use]
    pub fn is_passed(&self, log: &L) -> bool {
        self.logs.get(log).is_some_and(|progress| progress.position >= progress.end)
    }

    /// Where a log's end was.
    #[must_use]
    pub fn end(&self, log: &L) -> Option<i64> {
        self.logs.get(log).map(|progress| progress.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_count_only_once_offsets_are_stable() {
        let mut barrier = Barrier::default();
        barrier.ends_fetched([("log", 0)]);
        assert_eq!((barrier.step(), barrier.is_passed(&"log")), (BarrierStep::FetchOffsets, false));
        barrier.offsets_fetched();
        assert_eq!(barrier.step(), BarrierStep::FetchEnds);
        barrier.ends_fetched([("log", 4)]);
        barrier.reached(&"log", 3);
        assert!(!barrier.is_passed(&"log"));
        barrier.reached(&"log", 5);
        barrier.reached(&"log", 2);
        assert!(barrier.is_passed(&"log"), "a position never goes back");
    }

    #[test]
    fn a_log_that_nobody_asked_about_is_never_passed() {
        let mut barrier = Barrier::default();
        barrier.offsets_fetched();
        barrier.ends_fetched([("log", 0)]);
        assert!(barrier.is_passed(&"log"), "an empty log is passed at once");
        assert!(!barrier.is_passed(&"other"));
    }
}
