//! The barrier: what a new owner must have read before it acts on a partition that its predecessor may have just written to.
//!
//! The guarantee rests on the order of three steps. First the owner fetches the group's committed offsets as stable: no open
//! transaction can change them. Then it fetches the end offsets with a client that sees uncommitted records, so a transaction that
//! is prepared and has no marker yet counts. Then it reads committed records until its position is at or past these ends. No record
//! of a predecessor can come after that. The recovery of a service and the writer of a table both use this module.

use std::collections::BTreeMap;

/// The next step at the barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarrierStep {
    /// Fetch the group's committed offsets as stable.
    FetchOffsets,
    /// Fetch the end offsets, counting uncommitted records.
    FetchEnds,
    /// Read committed records up to the ends.
    Read,
}

/// The progress of some logs towards the barrier. `L` identifies a log.
#[derive(Debug, Clone)]
pub struct Barrier<L> {
    step: BarrierStep,
    logs: BTreeMap<L, LogProgress>,
}

#[derive(Debug, Clone, Copy)]
struct LogProgress {
    position: i64,
    end: i64,
}

impl<L: Ord> Default for Barrier<L> {
    fn default() -> Self {
        Self { step: BarrierStep::FetchOffsets, logs: BTreeMap::new() }
    }
}

impl<L: Ord> Barrier<L> {
    /// The next step.
    #[must_use]
    pub fn step(&self) -> BarrierStep {
        self.step
    }

    /// Notes that the committed offsets have been fetched as stable.
    pub fn offsets_fetched(&mut self) {
        if self.step == BarrierStep::FetchOffsets {
            self.step = BarrierStep::FetchEnds;
        }
    }

    /// Takes the end offsets. Ends that were fetched before the offsets were stable are ignored.
    pub fn ends_fetched(&mut self, ends: impl IntoIterator<Item = (L, i64)>) {
        if self.step == BarrierStep::FetchEnds {
            self.step = BarrierStep::Read;
            self.logs = ends.into_iter().map(|(log, end)| (log, LogProgress { position: 0, end })).collect();
        }
    }

    /// Notes that a reader of committed records has read a log up to `position`, past markers and aborted records.
    pub fn reached(&mut self, log: &L, position: i64) {
        if let Some(progress) = self.logs.get_mut(log) {
            progress.position = progress.position.max(position);
        }
    }

    /// True if every record that existed when the ends were fetched has been read.
    #[must_use]
    pub fn is_passed(&self, log: &L) -> bool {
        self.logs.get(log).is_some_and(|progress| progress.position >= progress.end)
    }

    /// The end offset of a log, as it was fetched.
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
    fn a_log_without_a_fetched_end_is_never_passed() {
        let mut barrier = Barrier::default();
        barrier.offsets_fetched();
        barrier.ends_fetched([("log", 0)]);
        assert!(barrier.is_passed(&"log"), "an empty log is passed at once");
        assert!(!barrier.is_passed(&"other"));
    }
}
