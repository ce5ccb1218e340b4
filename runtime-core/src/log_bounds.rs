//! Whether the topics still hold what a partition has to continue from. A log that was truncated, recreated or lost its end is
//! never taken for a short one: the worker stops for good and names the topic, what was expected and what is there.
//!
//! Three witnesses know how far a log reached: the group's committed offset of an input; the checkpoint of the own log in the local
//! store; and a note in the metadata of every committed offset, which has the known end of the own log. The note needs no store,
//! so a service whose disk is new does not mistake its recreated own log for a first start.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{ServiceContract, Task, decider::Decider};

/// What precedes the end of the own log in the metadata of a committed offset.
const NOTE: &str = "own-log=";

/// The metadata of a committed offset: how far the own log is known to reach.
#[must_use]
pub fn offset_metadata(own_next: i64) -> String {
    format!("{NOTE}{own_next}")
}

/// The end of the own log that such metadata has; zero if it is not one of ours.
#[must_use]
pub fn own_end_of(note: &str) -> i64 {
    note.strip_prefix(NOTE).and_then(|end| end.parse().ok()).unwrap_or(0)
}

/// The offsets that a partition holds: from `first` to before `end`, uncommitted records counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBounds {
    /// The first offset that can be read.
    pub first: i64,
    /// The offset of the next record to be appended.
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
    /// These bounds and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The bounds of one partition; empty if they were not asked for.
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

/// A history that is no longer whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogLoss {
    /// The own log does not begin at its beginning.
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
    /// The own log ends before an offset that it had.
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
        /// The end that it had.
        known: i64,
        /// Who knows.
        witness: &'static str,
    },
    /// What a transaction appended to the own log lies before an offset that it had.
    #[error(
        "the own log {topic}/{partition} took an event at its offset {offset}, but reached {known} before: it was recreated"
    )]
    OwnLogRewound {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Where the event lies.
        offset: i64,
        /// The end that it had.
        known: i64,
    },
    /// An input no longer holds the records to continue from.
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
        /// What it holds.
        bounds: LogBounds,
        /// Where the group continues from.
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
        /// What it holds.
        bounds: LogBounds,
        /// Up to where it was consumed.
        position: i64,
        /// The group.
        group: Arc<str>,
    },
}

/// Checks the own log against what the witnesses have seen of it.
pub(crate) fn check_own_log(
    contract: &ServiceContract,
    partition: i32,
    bounds: LogBounds,
    noted: i64,
    checkpoint: Option<i64>,
) -> Result<(), LogLoss> {
    let topic = || Arc::clone(&contract.events_topic);
    if bounds.first > 0 {
        return Err(LogLoss::OwnLogTruncated { topic: topic(), partition, first: bounds.first });
    }
    let witnesses = [(noted, "the consumer group"), (checkpoint.unwrap_or(0), "the local store")];
    match witnesses.into_iter().find(|(known, _)| *known > bounds.end) {
        Some((known, witness)) => {
            Err(LogLoss::OwnLogRecreated { topic: topic(), partition, end: bounds.end, known, witness })
        }
        None => Ok(()),
    }
}

/// Checks the positions of a recovered partition against what its inputs hold. An inbox may be truncated, so nothing of it need be
/// there as long as nothing of it was ever consumed.
/// `reached` is how far each input reached by what was known before its bounds were asked for.
pub(crate) fn check_inputs<D: Decider>(
    contract: &ServiceContract,
    task: &Task<D>,
    reached: &[i64],
    all: &AllBounds,
) -> Result<(), LogLoss> {
    let (partition, group) = (task.partition(), || Arc::clone(&contract.group));
    for (input, (topic, position)) in contract.inputs.iter().zip(task.positions()).enumerate() {
        let (bounds, position, topic) = (all.of(topic, partition), *position, Arc::clone(topic));
        let reached = reached.get(input).copied().unwrap_or(0);
        if input == 0 && position == 0 && bounds.first > 0 {
            tracing::warn!(%topic, partition, first = bounds.first, "the inbox was truncated before it was ever consumed");
        } else if position < bounds.first {
            return Err(LogLoss::InputTruncated { topic, partition, bounds, position, group: group() });
        } else if reached > bounds.end {
            return Err(LogLoss::InputRecreated { topic, partition, bounds, position: reached, group: group() });
        }
    }
    Ok(())
}

/// Checks that what a transaction appended to the own log lies behind what was there; else it is another log under the same name.
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
    fn a_note_is_read_back_and_foreign_metadata_is_none() {
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
