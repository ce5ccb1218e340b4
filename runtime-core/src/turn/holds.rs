//! Held partitions: how long they pause before a record, and when their holds end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Now, Pace};
use crate::{Machine, decider::Decider};

/// How long after its pause a hold lasts, so that a further failure doubles the pause.
const PROBATION: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Hold {
    until: Duration,
    pause: Duration,
}

/// The partitions that are held, or that were resumed a moment ago.
#[derive(Debug, Default)]
pub(super) struct Holds {
    holds: BTreeMap<i32, Hold>,
    /// Partitions whose inputs must still be paused.
    added: BTreeSet<i32>,
    /// Those of them that wait for a schema.
    brief: BTreeSet<i32>,
}

impl Holds {
    /// Holds a partition from the end of this gathering.
    pub(super) fn add(&mut self, partition: i32) {
        self.added.insert(partition);
    }

    /// Holds a partition that waits for a schema from the end of this gathering.
    pub(super) fn add_briefly(&mut self, partition: i32) {
        self.added.insert(partition);
        self.brief.insert(partition);
    }

    /// Adds the partitions that the machine has held by itself: those whose inputs the client still reads.
    pub(super) fn notice<D: Decider>(&mut self, machine: &Machine<D>, consuming: &BTreeSet<i32>) {
        let held = machine.held().map(|(partition, _)| partition);
        self.added.extend(held.filter(|partition| consuming.contains(partition)));
    }

    /// True if the partition was held and has been resumed.
    pub(super) fn has_paused(&self, partition: i32) -> bool {
        self.holds.contains_key(&partition)
    }

    /// Begins the added holds. Each further pause of a partition is twice as long. Returns the partitions to pause.
    pub(super) fn begin(&mut self, pace: &Pace, now: Now) -> BTreeSet<i32> {
        let (added, brief) = (std::mem::take(&mut self.added), std::mem::take(&mut self.brief));
        for partition in &added {
            let longest = if brief.contains(partition) { pace.schema_longest } else { pace.hold_longest };
            let last = self.holds.get(partition).map(|hold| hold.pause);
            let pause = last.map_or(pace.hold_first, |last| (last * 2).min(longest));
            self.holds.insert(*partition, Hold { until: now.elapsed + pause, pause });
        }
        added
    }

    /// Returns the partitions to resume, and those whose holds have ended: they have taken input long enough without a failure.
    pub(super) fn end<D: Decider>(
        &mut self,
        machine: &Machine<D>,
        consuming: &BTreeSet<i32>,
        now: Now,
    ) -> (Vec<i32>, Vec<i32>) {
        let (mut resumed, mut ended) = (Vec::new(), Vec::new());
        for (partition, hold) in &self.holds {
            if consuming.contains(partition) {
                let in_batch = |((_, of), _): ((usize, i32), i64)| of == *partition;
                if now.elapsed >= hold.until + PROBATION && !machine.batch().positions().any(in_batch) {
                    ended.push(*partition);
                }
            } else if now.elapsed >= hold.until && machine.task(*partition).is_some() {
                resumed.push(*partition);
            }
        }
        for partition in &ended {
            self.holds.remove(partition);
        }
        (resumed, ended)
    }

    /// When the next pause is over.
    pub(super) fn next_end(&self, consuming: &BTreeSet<i32>) -> Option<Duration> {
        self.holds.iter().filter(|(partition, _)| !consuming.contains(partition)).map(|(_, hold)| hold.until).min()
    }

    pub(super) fn clear(&mut self) {
        self.holds.clear();
        self.added.clear();
        self.brief.clear();
    }
}
