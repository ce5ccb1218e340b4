//! Whether the topics still have the records that a partition must continue from. A log that was truncated, was recreated or lost
//! its end must not pass for a short one: the worker stops for good and names the topic, what it expected and what it found.
//!
//! How far a log reached is known from three sources: the group's committed offset of an input; the checkpoint of the own log in
//! the local store; and the metadata of every committed offset, which has the known end of the own log. The metadata needs no
//! store, so a service with a new disk does not take its recreated own log for a first start.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{ServiceContract, Task, decider::Decider};

/// The prefix of the own log's end in the metadata of a committed offset.
const OWN_END: &str = "own-log=";

/// The metadata of a committed offset: the known end of the own log.
#[must_use]
pub fn offset_metadata(own_next: i64) -> String {
    format!("{OWN_END}{own_next}")
}

/// The end of the own log in the metadata of a committed offset; zero if the metadata has another form.
#[must_use]
pub fn own_end_of(metadata: &str) -> i64 {
    metadata.strip_prefix(OWN_END).and_then(|end| end.parse().ok()).unwrap_or(0)
}

/// The offsets that a partition holds: from `first` to before `end`, counting uncommitted records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBounds {
    /// The offset of the first record.
    pub first: i64,
    /// The offset that the next record will get.
    pub end: i64,
}

impl fmt::Display for LogBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.end {
            write!(f, "nothing, ending at {}", self.end)
        } else {
            write!(f, "offsets {} to {}", self.first, self.end - 1)
        }
    }
}

/// The bounds of partitions, by topic and partition.
#[derive(Debug, Clone, Default)]
pub struct AllBounds(BTreeMap<(Arc<str>, i32), LogBounds>);

impl AllBounds {
    /// The bounds of both.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The bounds of one partition; empty if they were not fetched.
    #[must_use]
    pub fn of(&self, topic: &Arc<str>, partition: i32) -> LogBounds {
        self.0.get(&(Arc::clone(topic), partition)).copied().unwrap_or_default()
    }
}

impl FromIterator<((Arc<str>, i32), LogBounds)> for AllBounds {
    fn from_iter<I: IntoIterator<Item = ((Arc<str>, i32), LogBounds)>>(bounds: I) -> Self {
        Self(bounds.into_iter().collect())
    }
}

/// Records of a topic are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogLoss {
    /// The beginning of the own log is missing.
    #[error(
        "own log {topic}/{partition} begins at offset {first}: it was truncated, and a state cannot be folded from a part of its \
         history; hint: restore the topic, and keep everything on it (docs/operations.md, \"An events topic was truncated\")"
    )]
    OwnLogTruncated {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Its first offset.
        first: i64,
    },
    /// The own log ends before an offset that it once had.
    #[error(
        "own log {topic}/{partition} ends at offset {end}, but {witness} has seen it reach {known}: it was recreated or lost its \
         end; hint: restore the topic, or give up what is lost (docs/operations.md, \"An events topic was recreated\")"
    )]
    OwnLogRecreated {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Its end.
        end: i64,
        /// The end that it once had.
        known: i64,
        /// The source that knows this end.
        witness: &'static str,
    },
    /// A transaction appended to the own log before an offset that it once had.
    #[error(
        "the own log {topic}/{partition} took an event at its offset {offset}, but reached {known} before: it was recreated"
    )]
    OwnLogRewound {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset of the event.
        offset: i64,
        /// The end that it once had.
        known: i64,
    },
    /// An input no longer has the records to continue from.
    #[error(
        "input {topic}/{partition} holds {bounds}, but group {group} continues from offset {position}: the records in between were \
         truncated before they were consumed; hint: restore the topic, or accept the loss (docs/operations.md, \"An input was \
         truncated\")"
    )]
    InputTruncated {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Its bounds.
        bounds: LogBounds,
        /// The offset that the group continues from.
        position: i64,
        /// The group.
        group: Arc<str>,
    },
    /// An input ends before an offset that was consumed.
    #[error(
        "input {topic}/{partition} holds {bounds}, but group {group} has consumed it up to offset {position}: it was recreated or \
         lost its end; hint: restore the topic, or consume it from its beginning (docs/operations.md, \"An input was recreated\")"
    )]
    InputRecreated {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Its bounds.
        bounds: LogBounds,
        /// The offset up to which it was consumed.
        position: i64,
        /// The group.
        group: Arc<str>,
    },
}

/// Checks the own log against the ends that the metadata of committed offsets and the checkpoint have.
pub(crate) fn check_own_log(
    contract: &ServiceContract,
    partition: i32,
    bounds: LogBounds,
    committed: i64,
    checkpoint: Option<i64>,
) -> Result<(), LogLoss> {
    let topic = || Arc::clone(&contract.events_topic);
    if bounds.first > 0 {
        return Err(LogLoss::OwnLogTruncated { topic: topic(), partition, first: bounds.first });
    }
    let witnesses = [(committed, "the consumer group"), (checkpoint.unwrap_or(0), "the local store")];
    match witnesses.into_iter().find(|(known, _)| *known > bounds.end) {
        Some((known, witness)) => {
            Err(LogLoss::OwnLogRecreated { topic: topic(), partition, end: bounds.end, known, witness })
        }
        None => Ok(()),
    }
}

/// Checks the positions of a recovered partition against the bounds of its inputs. `reached` is how far each input reached when
/// its bounds were fetched, as far as the partition knows. An inbox may have a retention, so a group that was never there reads it
/// from its first record.
pub(crate) fn check_inputs<D: Decider>(
    contract: &ServiceContract,
    task: &mut Task<D>,
    reached: &[Option<i64>],
    all: &AllBounds,
) -> Result<(), LogLoss> {
    let (partition, group) = (task.partition(), || Arc::clone(&contract.group));
    for (input, topic) in contract.inputs.iter().enumerate() {
        let (bounds, position, topic) = (all.of(topic, partition), task.positions()[input], Arc::clone(topic));
        let reached = reached.get(input).copied().flatten();
        if input == 0 && position == 0 && reached.is_none() && bounds.first > 0 {
            tracing::warn!(%topic, partition, first = bounds.first, "the inbox was truncated before the group consumed any of it");
            task.advance(&[bounds.first]);
        } else if position < bounds.first {
            return Err(LogLoss::InputTruncated { topic, partition, bounds, position, group: group() });
        } else if let Some(reached) = reached.filter(|reached| *reached > bounds.end) {
            return Err(LogLoss::InputRecreated { topic, partition, bounds, position: reached, group: group() });
        }
    }
    Ok(())
}

/// Checks that a transaction appended to the own log behind its known end. If not, it is another log with the same name.
///
/// # Errors
/// [`LogLoss::OwnLogRewound`].
pub fn check_appended(
    topic: &Arc<str>,
    known: &BTreeMap<i32, i64>,
    appended: &BTreeMap<i32, i64>,
) -> Result<(), LogLoss> {
    for (partition, end) in appended {
        let known = known.get(partition).copied().unwrap_or(0);
        if known > *end {
            let (topic, partition, offset) = (Arc::clone(topic), *partition, end - 1);
            return Err(LogLoss::OwnLogRewound { topic, partition, offset, known });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_end_survives_offset_metadata_and_foreign_metadata_has_none() {
        assert_eq!(own_end_of(&offset_metadata(41)), 41);
        for foreign in ["", "41", "own-log=", "own-log=x", "somebody's own"] {
            assert_eq!(own_end_of(foreign), 0, "{foreign:?}");
        }
    }

    #[test]
    fn bounds_are_printed_for_people() {
        assert_eq!(LogBounds { first: 3, end: 10 }.to_string(), "offsets 3 to 9");
        assert_eq!(LogBounds { first: 7, end: 7 }.to_string(), "nothing, ending at 7");
    }

    #[test]
    fn an_event_before_the_known_end_is_another_log() {
        let topic: Arc<str> = "x.events".into();
        let known = BTreeMap::from([(0, 7)]);
        assert_eq!(check_appended(&topic, &known, &BTreeMap::from([(0, 8), (1, 1)])), Ok(()));
        let rewound = check_appended(&topic, &known, &BTreeMap::from([(0, 3)]));
        assert!(matches!(rewound, Err(LogLoss::OwnLogRewound { offset: 2, known: 7, .. })), "{rewound:?}");
    }
}
