//! Whether the topics still hold what a partition has to go on from. A log that was cut, made anew or lost its end is never taken
//! for a short one: the worker stops for good and says which topic, what was expected and what is there.
//!
//! Three witnesses know how far a log reached: the group's offset of an input; the checkpoint of the own log in the local store;
//! and a note beside every offset the group commits, which says how far the own log was known to reach. The note needs no store,
//! so also a service whose disk is new does not take its own log, made anew, for the beginning of its life.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
};

use crate::{
    core::{Contract, Task},
    decider::Decider,
    kafka::ClientLog,
};

/// What stands before the end of the own log in the note beside a committed offset.
const NOTE: &str = "own-log=";

/// The note beside an offset: how far the own log is known to reach.
pub(super) fn note(own_next: i64) -> String {
    format!("{NOTE}{own_next}")
}

/// What a note says; zero if it is not one of ours.
pub(super) fn noted(note: &str) -> i64 {
    note.strip_prefix(NOTE).and_then(|end| end.parse().ok()).unwrap_or(0)
}

/// The offsets that a partition holds: from `first` to before `end`, uncommitted records counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) first: i64,
    pub(crate) end: i64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.end {
            write!(f, "nothing, ending at {}", self.end)
        } else {
            write!(f, "offsets {} to {}", self.first, self.end - 1)
        }
    }
}

/// What the partitions of the topics hold now.
#[derive(Debug, Default)]
pub(super) struct Holdings(BTreeMap<(Arc<str>, i32), Held>);

impl Holdings {
    /// Asks for the own log, what is parked and every input, two requests to each broker. `asker` must see uncommitted records.
    pub(super) fn ask(
        asker: &BaseConsumer<ClientLog>,
        contract: &Contract,
        partitions: &BTreeSet<i32>,
        patience: Duration,
    ) -> KafkaResult<Self> {
        let topics: BTreeSet<&Arc<str>> =
            contract.inputs.iter().chain([&contract.events_topic, &contract.parked_topic]).collect();
        let places = || topics.iter().flat_map(|topic| partitions.iter().map(move |partition| (*topic, *partition)));
        let told = |which: Offset| {
            let mut asked = TopicPartitionList::new();
            for (topic, partition) in places() {
                asked.add_partition_offset(topic, partition, which)?;
            }
            asker.offsets_for_times(asked, patience)
        };
        let (firsts, ends) = (told(Offset::Beginning)?, told(Offset::End)?);
        let held = places().map(|(topic, partition)| {
            let (first, end) = (offset_in(&firsts, topic, partition)?, offset_in(&ends, topic, partition)?);
            Ok(((Arc::clone(topic), partition), Held { first, end }))
        });
        Ok(Self(held.collect::<KafkaResult<_>>()?))
    }

    pub(super) fn of(&self, topic: &Arc<str>, partition: i32) -> Held {
        self.0.get(&(Arc::clone(topic), partition)).copied().unwrap_or(Held { first: 0, end: 0 })
    }
}

fn offset_in(list: &TopicPartitionList, topic: &str, partition: i32) -> KafkaResult<i64> {
    let unknown = || KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownPartition);
    let element = list.find_partition(topic, partition).ok_or_else(unknown)?;
    element.error()?;
    match element.offset() {
        Offset::Offset(offset) => Ok(offset),
        _ => Err(unknown()),
    }
}

/// A history that is no longer whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    #[error(
        "own log {topic}/{partition} begins at offset {first}: it was cut, and a state cannot be folded from a part of its history; \
         hint: restore the topic, and keep everything on it (docs/operations.md, \"An events topic was cut\")"
    )]
    OwnBeginning { topic: Arc<str>, partition: i32, first: i64 },
    #[error(
        "own log {topic}/{partition} ends at offset {end}, but {witness} has seen it reach {known}: it was made anew or lost its end; \
         hint: restore the topic, or give up what is lost (docs/operations.md, \"An events topic was made anew\")"
    )]
    OwnEnd { topic: Arc<str>, partition: i32, end: i64, known: i64, witness: &'static str },
    #[error(
        "input {topic}/{partition} holds {held}, but group {group} goes on from offset {position}: what lies between was cut \
         before it was heard; hint: restore the topic, or accept the loss (docs/operations.md, \"An input was cut\")"
    )]
    InputCut { topic: Arc<str>, partition: i32, held: Held, position: i64, group: Arc<str> },
    #[error(
        "input {topic}/{partition} holds {held}, but group {group} has heard it up to offset {position}: it was made anew or lost \
         its end; hint: restore the topic, or have it heard from its beginning (docs/operations.md, \"An input was made anew\")"
    )]
    InputAnew { topic: Arc<str>, partition: i32, held: Held, position: i64, group: Arc<str> },
}

/// Holds the own log to what the witnesses have seen of it.
pub(super) fn own_log(
    contract: &Contract,
    partition: i32,
    held: Held,
    noted: i64,
    checkpoint: Option<i64>,
) -> Result<(), Lost> {
    let topic = || Arc::clone(&contract.events_topic);
    if held.first > 0 {
        return Err(Lost::OwnBeginning { topic: topic(), partition, first: held.first });
    }
    let witnesses = [(noted, "the consumer group"), (checkpoint.unwrap_or(0), "the local store")];
    match witnesses.into_iter().find(|(known, _)| *known > held.end) {
        Some((known, witness)) => Err(Lost::OwnEnd { topic: topic(), partition, end: held.end, known, witness }),
        None => Ok(()),
    }
}

/// Holds the positions of a recovered partition to what its inputs hold. Of an inbox, which may be cut, nothing need be there as
/// long as nothing of it was ever heard.
pub(super) fn inputs<D: Decider>(contract: &Contract, task: &Task<D>, holdings: &Holdings) -> Result<(), Lost> {
    let (partition, group) = (task.partition(), || Arc::clone(&contract.group));
    for (input, (topic, position)) in contract.inputs.iter().zip(task.positions()).enumerate() {
        let (held, position, topic) = (holdings.of(topic, partition), *position, Arc::clone(topic));
        if input == 0 && position == 0 && held.first > 0 {
            tracing::warn!(%topic, partition, first = held.first, "the inbox was cut before anything of it was heard");
        } else if position < held.first {
            return Err(Lost::InputCut { topic, partition, held, position, group: group() });
        } else if position > held.end {
            return Err(Lost::InputAnew { topic, partition, held, position, group: group() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_foreign_ones_say_nothing() {
        assert_eq!(noted(&note(41)), 41);
        for foreign in ["", "41", "own-log=", "own-log=x", "somebody's own"] {
            assert_eq!(noted(foreign), 0, "{foreign:?}");
        }
    }

    #[test]
    fn what_is_held_is_said_for_people() {
        assert_eq!(Held { first: 3, end: 10 }.to_string(), "offsets 3 to 9");
        assert_eq!(Held { first: 7, end: 7 }.to_string(), "nothing, ending at 7");
    }
}
