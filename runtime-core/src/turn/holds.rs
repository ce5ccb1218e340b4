//! Partitions that wait before a record: how long they rest, and when they are well again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Now, Pace};
use crate::{Machine, decider::Decider};

/// How long after its rest a partition that takes no record stays suspected.
const PROBATION: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Hold {
    until: Duration,
    pause: Duration,
}

/// The partitions that are held, or were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Holds {
    holds: BTreeMap<i32, Hold>,
    /// Partitions whose inputs are still to be paused.
    added: BTreeSet<i32>,
}

impl Holds {
    /// Holds a partition from the end of this gathering on.
    pub(super) fn add(&mut self, partition: i32) {
        self.added.insert(partition);
    }

    /// Takes note of partitions that the machine holds for reasons of its own: those that it holds although they flow.
    pub(super) fn notice<D: Decider>(&mut self, machine: &Machine<D>, flowing: &BTreeSet<i32>) {
        let held = machine.held().map(|(partition, _)| partition);
        self.added.extend(held.filter(|partition| flowing.contains(partition)));
    }

    /// True if the partition was held and resumed.
    pub(super) fn has_rested(&self, partition: i32) -> bool {
        self.holds.contains_key(&partition)
    }

    /// Begins the holds that were added; each further one of a partition is twice as long. Returns the partitions to pause.
    pub(super) fn begin(&mut self, pace: &Pace, now: Now) -> BTreeSet<i32> {
        let added = std::mem::take(&mut self.added);
        for partition in &added {
            let last = self.holds.get(partition).map(|hold| hold.pause);
            let pause = last.map_or(pace.hold_first, |last| (last * 2).min(pace.hold_longest));
            self.holds.insert(*partition, Hold { until: now.elapsed + pause, pause });
        }
        added
    }

    /// Returns the partitions that have rested, and those that are well again: they flow and wait before nothing.
    pub(super) fn end<D: Decider>(
        &mut self,
        machine: &Machine<D>,
        flowing: &BTreeSet<i32>,
        now: Now,
    ) -> (Vec<i32>, Vec<i32>) {
        let (mut rested, mut well) = (Vec::new(), Vec::new());
        for (partition, hold) in &self.holds {
            if flowing.contains(partition) {
                let in_batch = |((_, of), _): ((usize, i32), i64)| of == *partition;
                if now.elapsed >= hold.until + PROBATION && !machine.batch().positions().any(in_batch) {
                    well.push(*partition);
                }
            } else if now.elapsed >= hold.until && machine.task(*partition).is_some() {
                rested.push(*partition);
            }
        }
        for partition in &well {
            self.holds.remove(partition);
        }
        (rested, well)
    }

    /// When the next held partition has rested.
    pub(super) fn next_end(&self, flowing: &BTreeSet<i32>) -> Option<Duration> {
        self.holds.iter().filter(|(partition, _)| !flowing.contains(partition)).map(|(_, hold)| hold.until).min()
    }

    pub(super) fn clear(&mut self) {
        self.holds.clear();
        self.added.clear();
    }
}
