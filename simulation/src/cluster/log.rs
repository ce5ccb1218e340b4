//! Topics and partitions: their records and markers, and what a reader of committed records sees of them.
//!
//! An offset is an index: each marker takes one, as on a broker. A reader of committed records stops at the first record of a
//! transaction without a marker (the last stable offset), and skips markers and aborted records.

use std::{borrow::Cow, collections::BTreeMap, rc::Rc, sync::Arc};

use runtime::{TimestampMs, core::Record};

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's number.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
}

/// The number of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransactionNumber(pub(crate) usize);

/// The headers of a record, in order.
pub type Headers = Vec<(Cow<'static, str>, Option<Vec<u8>>)>;

/// A record in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its timestamp.
    pub timestamp_ms: TimestampMs,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
}

impl StoredRecord {
    /// Passes it on as the record that the core takes.
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

    /// The size of its key, its value and its headers.
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
    Record { stored: Rc<StoredRecord>, tx: Option<TransactionNumber> },
    Marker,
}

#[derive(Debug, Default)]
struct Partition {
    entries: Vec<Entry>,
    /// Consumers no longer get the records before this offset. The judges of a run do.
    first: i64,
    /// The transactions without a marker here, and the first offset of each.
    open: BTreeMap<TransactionNumber, i64>,
    /// Whether each decided transaction was committed, with or without a marker here.
    decided: BTreeMap<TransactionNumber, bool>,
    /// Every last stable offset so far, and since when.
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

    fn is_committed(&self, tx: Option<TransactionNumber>) -> bool {
        tx.is_none_or(|tx| self.decided.get(&tx) == Some(&true))
    }
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    partitions: Vec<Partition>,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A record.
    Record {
        /// Its offset.
        offset: i64,
        /// The record.
        stored: Rc<StoredRecord>,
    },
    /// There is no further record at present: everything before this position was read.
    End(i64),
}

/// Every topic.
#[derive(Debug, Default)]
pub struct Log {
    topics: Vec<Topic>,
    changes: u64,
}

impl Log {
    /// The number of a topic, which is created if it does not exist.
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
    pub fn topic_partitions(&self) -> impl Iterator<Item = TopicPartition> {
        let partitions = |topic: usize| 0..i32::try_from(self.topics[topic].partitions.len()).unwrap_or(0);
        (0..self.topics.len())
            .flat_map(move |topic| partitions(topic).map(move |partition| TopicPartition { topic, partition }))
    }

    /// The number of appended records and markers. While it stays the same, a reader that has reached every end finds nothing
    /// new.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    fn partition(&self, topic_partition: TopicPartition) -> &Partition {
        &self.topics[topic_partition.topic].partitions[usize::try_from(topic_partition.partition).unwrap_or_default()]
    }

    fn partition_mut(&mut self, topic_partition: TopicPartition) -> &mut Partition {
        &mut self.topics[topic_partition.topic].partitions
            [usize::try_from(topic_partition.partition).unwrap_or_default()]
    }

    /// Appends a record, and returns its offset.
    pub(crate) fn append(
        &mut self,
        topic_partition: TopicPartition,
        stored: Rc<StoredRecord>,
        tx: Option<TransactionNumber>,
        now_ms: i64,
    ) -> i64 {
        self.changes += 1;
        let partition = self.partition_mut(topic_partition);
        let offset = end_of(partition);
        if let Some(tx) = tx {
            partition.open.entry(tx).or_insert(offset);
        }
        partition.entries.push(Entry::Record { stored, tx });
        partition.note_stable(now_ms);
        offset
    }

    /// Records whether a transaction was committed. Readers see it when its marker is written here.
    pub(crate) fn decide(&mut self, topic_partition: TopicPartition, tx: TransactionNumber, commits: bool) {
        self.partition_mut(topic_partition).decided.insert(tx, commits);
    }

    /// Writes a transaction's marker.
    pub(crate) fn write_marker(&mut self, topic_partition: TopicPartition, tx: TransactionNumber, now_ms: i64) {
        self.changes += 1;
        let partition = self.partition_mut(topic_partition);
        partition.entries.push(Entry::Marker);
        partition.open.remove(&tx);
        partition.note_stable(now_ms);
    }

    /// Deletes the records before an offset, as retention does.
    pub(crate) fn delete_before(&mut self, topic_partition: TopicPartition, first: i64) {
        self.changes += 1;
        let partition = self.partition_mut(topic_partition);
        partition.first = partition.first.max(first);
    }

    /// The log start offset: the first offset that a consumer may read.
    #[must_use]
    pub fn first(&self, topic_partition: TopicPartition) -> i64 {
        self.partition(topic_partition).first
    }

    /// The high watermark: the end that a reader of uncommitted records gets.
    #[must_use]
    pub fn high_watermark(&self, topic_partition: TopicPartition) -> i64 {
        end_of(self.partition(topic_partition))
    }

    /// The last stable offset: the end that a reader of committed records gets.
    #[must_use]
    pub fn stable_end(&self, topic_partition: TopicPartition) -> i64 {
        self.partition(topic_partition).stable_end()
    }

    /// The next committed record from `from` on, or the end.
    #[must_use]
    pub fn read(&self, topic_partition: TopicPartition, from: i64) -> Fetched {
        let partition = self.partition(topic_partition);
        self.read_to(topic_partition, from, self.stable_end(topic_partition), |tx| partition.is_committed(tx))
    }

    /// The next record from `from` on whose transaction is decided as committed, even if its marker is not written yet.
    #[must_use]
    pub fn read_decided(&self, topic_partition: TopicPartition, from: i64) -> Fetched {
        let partition = self.partition(topic_partition);
        let undecided = partition.open.iter().filter(|(tx, _)| !partition.decided.contains_key(tx));
        let end = undecided.map(|(_, first)| *first).min().unwrap_or_else(|| end_of(partition));
        self.read_to(topic_partition, from, end, |tx| partition.is_committed(tx))
    }

    /// Like `read_decided`, but also past undecided transactions: an abandoned one may precede a committed one.
    #[must_use]
    pub(crate) fn read_ahead(&self, topic_partition: TopicPartition, from: i64) -> Fetched {
        let partition = self.partition(topic_partition);
        self.read_to(topic_partition, from, end_of(partition), |tx| partition.is_committed(tx))
    }

    /// The next record from `from` on, even of an open or aborted transaction.
    #[must_use]
    pub(crate) fn read_uncommitted(&self, topic_partition: TopicPartition, from: i64) -> Fetched {
        self.read_to(topic_partition, from, self.high_watermark(topic_partition), |_| true)
    }

    fn read_to(
        &self,
        topic_partition: TopicPartition,
        from: i64,
        end: i64,
        is_visible: impl Fn(Option<TransactionNumber>) -> bool,
    ) -> Fetched {
        let entries = &self.partition(topic_partition).entries;
        for offset in from.max(0)..end {
            if let Some(Entry::Record { stored, tx }) = entries.get(usize::try_from(offset).unwrap_or(usize::MAX))
                && is_visible(*tx)
            {
                return Fetched::Record { offset, stored: Rc::clone(stored) };
            }
        }
        Fetched::End(end.max(from))
    }

    /// Since when a reader of committed records can read this record, by the true clock; `None` if it still cannot.
    #[must_use]
    pub fn readable_ms(&self, topic_partition: TopicPartition, offset: i64) -> Option<i64> {
        let stable = &self.partition(topic_partition).stable;
        let at = stable.partition_point(|(end, _)| *end <= offset);
        stable.get(at).map(|(_, at_ms)| *at_ms)
    }

    /// Every committed record of a partition.
    pub fn committed(&self, topic_partition: TopicPartition) -> impl Iterator<Item = (i64, Rc<StoredRecord>)> {
        let mut from = 0;
        std::iter::from_fn(move || self.next_committed(topic_partition, &mut from))
    }

    /// The next committed record from `from` on, if there is one; `from` advances past it.
    pub fn next_committed(&self, topic_partition: TopicPartition, from: &mut i64) -> Option<(i64, Rc<StoredRecord>)> {
        match self.read(topic_partition, *from) {
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

    fn record(value: u8) -> Rc<StoredRecord> {
        Rc::new(StoredRecord { timestamp_ms: 0, key: None, value: Some(vec![value]), headers: Vec::new() })
    }

    fn values(log: &Log, topic_partition: TopicPartition) -> Vec<u8> {
        log.committed(topic_partition).filter_map(|(_, stored)| stored.value.as_ref()?.first().copied()).collect()
    }

    #[test]
    fn readers_of_committed_records_wait_for_markers_and_skip_aborted_records() {
        let mut log = Log::default();
        let topic_partition = TopicPartition { topic: log.topic(&"t".into(), 1), partition: 0 };
        log.append(topic_partition, record(1), None, 0);
        log.append(topic_partition, record(2), Some(TransactionNumber(0)), 0);
        log.append(topic_partition, record(3), Some(TransactionNumber(1)), 0);
        log.append(topic_partition, record(4), None, 0);
        assert_eq!((log.stable_end(topic_partition), log.high_watermark(topic_partition)), (1, 4));
        log.decide(topic_partition, TransactionNumber(1), true);
        log.write_marker(topic_partition, TransactionNumber(1), 5);
        assert_eq!(values(&log, topic_partition), [1], "an older transaction is open");
        log.decide(topic_partition, TransactionNumber(0), false);
        log.write_marker(topic_partition, TransactionNumber(0), 7);
        assert_eq!(values(&log, topic_partition), [1, 3, 4]);
        assert_eq!(log.read(topic_partition, 4), Fetched::End(6), "markers take offsets");
        assert_eq!((log.readable_ms(topic_partition, 0), log.readable_ms(topic_partition, 2)), (Some(0), Some(7)));
    }
}
