//! Topics and partitions: records, markers, and what a reader of committed records sees of them.
//!
//! An offset is an index: markers take one each, as on a broker. A reader gets no further than the first record of a transaction
//! whose marker does not lie here yet (the last stable offset), and passes over markers and aborted records.

use std::{borrow::Cow, collections::BTreeMap, rc::Rc, sync::Arc};

use runtime::{TimestampMs, core::Record};

/// A topic and a partition of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's number.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
}

/// A transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TxNo(pub(crate) usize);

/// The headers of a record, in order.
pub type Headers = Vec<(Cow<'static, str>, Option<Vec<u8>>)>;

/// A record as it lies in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its timestamp.
    pub timestamp_ms: TimestampMs,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
}

impl Stored {
    /// Shows it as the core wants to see it.
    pub fn with_record<T>(&self, topic: &str, partition: i32, offset: i64, take: impl FnOnce(&Record<'_>) -> T) -> T {
        let headers: Vec<(&str, Option<&[u8]>)> =
            self.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        take(&Record {
            topic,
            partition,
            offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        })
    }

    /// How large it is: its key, its value and its headers.
    pub(crate) fn size(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + bytes(value)).sum();
        bytes(&self.key) + bytes(&self.value) + headers
    }

    /// The text of a header; of several with this name the last.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(known, _)| known == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

#[derive(Debug)]
enum Entry {
    Record { stored: Rc<Stored>, tx: Option<TxNo> },
    Marker,
}

#[derive(Debug, Default)]
struct Partition {
    entries: Vec<Entry>,
    /// Transactions whose marker does not lie here yet, and where each began.
    open: BTreeMap<TxNo, i64>,
    /// How transactions were decided, marked here or not.
    decided: BTreeMap<TxNo, bool>,
    /// Every stable end there was, and since when.
    stable: Vec<(i64, i64)>,
}

impl Partition {
    fn stable_end(&self) -> i64 {
        self.open.values().copied().min().unwrap_or_else(|| end_of(self))
    }

    fn note_stable(&mut self, now_ms: i64) {
        let end = self.stable_end();
        if self.stable.last().is_none_or(|(known, _)| *known < end) {
            self.stable.push((end, now_ms));
        }
    }

    fn is_committed(&self, tx: Option<TxNo>) -> bool {
        tx.is_none_or(|tx| self.decided.get(&tx) == Some(&true))
    }
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    partitions: Vec<Partition>,
}

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A record.
    Record {
        /// Its offset.
        offset: i64,
        /// The record.
        stored: Rc<Stored>,
    },
    /// Nothing more for now: everything before this position was seen.
    End(i64),
}

/// Every topic.
#[derive(Debug, Default)]
pub struct Log {
    topics: Vec<Topic>,
    changes: u64,
}

impl Log {
    /// The number of a topic, which is made if need be.
    pub(crate) fn topic(&mut self, name: &Arc<str>, partitions: i32) -> usize {
        self.find(name).unwrap_or_else(|| {
            let partitions = (0..partitions).map(|_| Partition::default()).collect();
            self.topics.push(Topic { name: Arc::clone(name), partitions });
            self.topics.len() - 1
        })
    }

    /// The number of a topic.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| *topic.name == *name)
    }

    /// A topic's name.
    #[must_use]
    pub fn name(&self, topic: usize) -> &Arc<str> {
        &self.topics[topic].name
    }

    /// Every partition of every topic.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let partitions = |topic: usize| 0..i32::try_from(self.topics[topic].partitions.len()).unwrap_or(0);
        (0..self.topics.len()).flat_map(move |topic| partitions(topic).map(move |partition| Place { topic, partition }))
    }

    /// How often anything was appended, markers too: as long as it stays the same, whoever has read to every end finds no more.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    fn partition(&self, place: Place) -> &Partition {
        &self.topics[place.topic].partitions[usize::try_from(place.partition).unwrap_or_default()]
    }

    fn partition_mut(&mut self, place: Place) -> &mut Partition {
        &mut self.topics[place.topic].partitions[usize::try_from(place.partition).unwrap_or_default()]
    }

    /// Appends a record; answers its offset.
    pub(crate) fn append(&mut self, place: Place, stored: Rc<Stored>, tx: Option<TxNo>, now_ms: i64) -> i64 {
        self.changes += 1;
        let partition = self.partition_mut(place);
        let offset = end_of(partition);
        if let Some(tx) = tx {
            partition.open.entry(tx).or_insert(offset);
        }
        partition.entries.push(Entry::Record { stored, tx });
        partition.note_stable(now_ms);
        offset
    }

    /// Notes how a transaction was decided. Readers see it once its marker lies here.
    pub(crate) fn decide(&mut self, place: Place, tx: TxNo, commits: bool) {
        self.partition_mut(place).decided.insert(tx, commits);
    }

    /// Writes a transaction's marker.
    pub(crate) fn mark(&mut self, place: Place, tx: TxNo, now_ms: i64) {
        self.changes += 1;
        let partition = self.partition_mut(place);
        partition.entries.push(Entry::Marker);
        partition.open.remove(&tx);
        partition.note_stable(now_ms);
    }

    /// The end, whatever lies there: what a client that sees uncommitted records is told.
    #[must_use]
    pub fn high_watermark(&self, place: Place) -> i64 {
        end_of(self.partition(place))
    }

    /// The last stable offset: how far a reader of committed records gets.
    #[must_use]
    pub fn stable_end(&self, place: Place) -> i64 {
        self.partition(place).stable_end()
    }

    /// The next committed record from `from` on, or the end.
    #[must_use]
    pub fn read(&self, place: Place, from: i64) -> Fetched {
        let partition = self.partition(place);
        self.read_to(place, from, self.stable_end(place), |tx| partition.is_committed(tx))
    }

    /// The same for who knows how transactions were decided before their markers are written: what is true already.
    #[must_use]
    pub fn read_decided(&self, place: Place, from: i64) -> Fetched {
        let partition = self.partition(place);
        let undecided = partition.open.iter().filter(|(tx, _)| !partition.decided.contains_key(tx));
        let end = undecided.map(|(_, first)| *first).min().unwrap_or_else(|| end_of(partition));
        self.read_to(place, from, end, |tx| partition.is_committed(tx))
    }

    /// The same past transactions that nobody has decided yet: one of somebody who was put out may lie before what is committed.
    #[must_use]
    pub(crate) fn read_ahead(&self, place: Place, from: i64) -> Fetched {
        let partition = self.partition(place);
        self.read_to(place, from, end_of(partition), |tx| partition.is_committed(tx))
    }

    /// The same for a reader that sees aborted and open transactions as well.
    #[must_use]
    pub(crate) fn read_uncommitted(&self, place: Place, from: i64) -> Fetched {
        self.read_to(place, from, self.high_watermark(place), |_| true)
    }

    fn read_to(&self, place: Place, from: i64, end: i64, is_visible: impl Fn(Option<TxNo>) -> bool) -> Fetched {
        let entries = &self.partition(place).entries;
        for offset in from.max(0)..end {
            if let Some(Entry::Record { stored, tx }) = entries.get(usize::try_from(offset).unwrap_or(usize::MAX))
                && is_visible(*tx)
            {
                return Fetched::Record { offset, stored: Rc::clone(stored) };
            }
        }
        Fetched::End(end.max(from))
    }

    /// When the record of a place could be read by a reader of committed records, by the true clock; `None` if it still cannot.
    #[must_use]
    pub fn readable_ms(&self, place: Place, offset: i64) -> Option<i64> {
        let stable = &self.partition(place).stable;
        let at = stable.partition_point(|(end, _)| *end <= offset);
        stable.get(at).map(|(_, at_ms)| *at_ms)
    }

    /// Every committed record of a partition.
    pub fn committed(&self, place: Place) -> impl Iterator<Item = (i64, Rc<Stored>)> {
        let mut from = 0;
        std::iter::from_fn(move || self.next_committed(place, &mut from))
    }

    /// The next committed record from `from` on, if there is one; `from` moves behind it.
    pub fn next_committed(&self, place: Place, from: &mut i64) -> Option<(i64, Rc<Stored>)> {
        match self.read(place, *from) {
            Fetched::Record { offset, stored } => {
                *from = offset + 1;
                Some((offset, stored))
            }
            Fetched::End(end) => {
                *from = end;
                None
            }
        }
    }
}

fn end_of(partition: &Partition) -> i64 {
    i64::try_from(partition.entries.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: u8) -> Rc<Stored> {
        Rc::new(Stored { timestamp_ms: 0, key: None, value: Some(vec![value]), headers: Vec::new() })
    }

    fn values(log: &Log, place: Place) -> Vec<u8> {
        log.committed(place).filter_map(|(_, stored)| stored.value.as_ref()?.first().copied()).collect()
    }

    #[test]
    fn readers_of_committed_records_wait_for_markers_and_pass_over_what_was_aborted() {
        let mut log = Log::default();
        let place = Place { topic: log.topic(&"t".into(), 1), partition: 0 };
        log.append(place, record(1), None, 0);
        log.append(place, record(2), Some(TxNo(0)), 0);
        log.append(place, record(3), Some(TxNo(1)), 0);
        log.append(place, record(4), None, 0);
        assert_eq!((log.stable_end(place), log.high_watermark(place)), (1, 4));
        log.decide(place, TxNo(1), true);
        log.mark(place, TxNo(1), 5);
        assert_eq!(values(&log, place), [1], "an older transaction is open");
        log.decide(place, TxNo(0), false);
        log.mark(place, TxNo(0), 7);
        assert_eq!(values(&log, place), [1, 3, 4]);
        assert_eq!(log.read(place, 4), Fetched::End(6), "markers take offsets");
        assert_eq!((log.readable_ms(place, 0), log.readable_ms(place, 2)), (Some(0), Some(7)));
    }
}
