//! The reference fold of a service: the fold of its own log by `evolve` alone, including events whose transaction is decided but
//! not marked. The states of the core are compared with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use runtime::{
    Decider, Effect as _, Message as _,
    codec::Readers,
    core::{Task, partition_of},
    envelope::Position,
};

use super::Violation;
use crate::cluster::{Fetched, Log, StoredRecord, TopicPartition};

/// The true states of one service.
pub(crate) struct ReferenceFold<D: Decider> {
    decider: D,
    readers: Readers,
    events: usize,
    partitions: i32,
    next: BTreeMap<i32, i64>,
    states: BTreeMap<String, (u64, D::State)>,
    /// The keys of all effects that were ever due.
    due: BTreeSet<String>,
    /// Of each entity and each partition of an input, the last record that led to anything.
    causes: BTreeMap<(String, Arc<str>, i32), i64>,
}

impl<D: Decider> ReferenceFold<D> {
    pub(crate) fn new(decider: D, readers: Readers, events: usize, partitions: i32) -> Self {
        let (next, states, due, causes) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { decider, readers, events, partitions, next, states, due, causes }
    }

    /// Folds the events that were decided since the last call.
    pub(crate) fn catch_up(&mut self, log: &Log) -> Result<(), Violation> {
        self.catch_up_by(log, Log::read_decided)
    }

    fn catch_up_by(&mut self, log: &Log, read: impl Fn(&Log, TopicPartition, i64) -> Fetched) -> Result<(), Violation> {
        for partition in 0..self.partitions {
            let topic_partition = TopicPartition { topic: self.events, partition };
            let mut next = self.next.get(&partition).copied().unwrap_or(0);
            while let Fetched::Record { offset, stored } = read(log, topic_partition, next) {
                self.fold(&stored).map_err(|what| {
                    Violation::new(
                        "the own log can be read",
                        format!("{}/{partition}/{offset}: {what}", log.name(topic_partition.topic)),
                    )
                })?;
                next = offset + 1;
            }
            self.next.insert(partition, next);
        }
        Ok(())
    }

    fn fold(&mut self, stored: &StoredRecord) -> Result<(), String> {
        let decoded = self.readers.decode(stored.value.as_deref(), None).map_err(|e| e.to_string())?;
        let event = D::Event::read(decoded.schema.name(), &decoded.record()).map_err(|e| e.to_string())?;
        let event = event.ok_or_else(|| format!("{} produces no {}", D::NAME, decoded.schema.full_name))?;
        let key =
            stored.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).ok_or("an event without a key")?;
        let sequence: u64 = stored.header("ce_sequence").and_then(|text| text.parse().ok()).ok_or("no sequence")?;
        if let Some(Ok(cause)) = stored.header("ce_causeposition").map(str::parse::<Position>) {
            let last = self.causes.entry((key.to_owned(), Arc::clone(&cause.topic), cause.partition)).or_default();
            if cause.offset < *last {
                return Err(format!("{key} handled {cause} after the later input {last}"));
            }
            *last = cause.offset;
        }
        let known = self.states.entry(key.to_owned()).or_default();
        if sequence <= known.0 {
            return Err(format!("event {sequence} of {key} where {} was due", known.0 + 1));
        }
        let state = self.decider.evolve(std::mem::take(&mut known.1), &event);
        for effect in self.decider.pending(&state) {
            self.due.insert(effect.key());
        }
        *known = (sequence, state);
        Ok(())
    }

    /// True if a decided event has made an effect due.
    pub(crate) fn was_due(&mut self, log: &Log, key: &str) -> Result<bool, Violation> {
        self.catch_up(log)?;
        if self.due.contains(key) {
            return Ok(true);
        }
        let mut ahead = Self::new(self.decider.clone(), self.readers.clone(), self.events, self.partitions);
        ahead.next.clone_from(&self.next);
        ahead.states.clone_from(&self.states);
        ahead.causes.clone_from(&self.causes);
        ahead.catch_up_by(log, Log::read_ahead)?;
        Ok(ahead.due.contains(key))
    }

    /// Compares the states of one partition with the true ones.
    pub(crate) fn compare(&self, task: &Task<D>, process: &str) -> Result<(), Violation> {
        let (partition, states) = (task.partition(), task.states());
        let differs = |key: &str, what: String| {
            Err(Violation::new(
                "a state is the fold of its own log",
                format!("{process}, partition {partition}, {key}: {what}"),
            ))
        };
        let mut seen = 0;
        for (key, (sequence, state)) in &self.states {
            if partition_of(key.as_bytes(), self.partitions) != partition {
                continue;
            }
            seen += 1;
            match states.get(key.as_str()) {
                // An evicted state is compared after it is loaded and decides.
                None if task.is_evicted(key) => seen -= 1,
                None => return differs(key, format!("it is unknown, and the log has event {sequence}")),
                Some((known, _)) if known != sequence => {
                    return differs(key, format!("it is at event {known}, and the log at event {sequence}"));
                }
                Some((_, known)) if *known != state => {
                    return differs(key, format!("it is {known:?}, and the fold of the log {state:?}"));
                }
                Some(_) => {}
            }
        }
        if seen == states.len() {
            Ok(())
        } else {
            differs("other keys", "they are known, and the log has no event of them".to_owned())
        }
    }
}
