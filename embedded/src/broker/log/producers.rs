//! What one partition remembers of the producers that write to it: sequences, epochs, open and aborted transactions.
//!
//! A pure type: it is fed batch headers, the same way while appending and while the log is read at open, so a restart
//! arrives at the same state. Knows no file and no clock.

use super::batch::{BatchHeader, Marker};
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Kafka's own bound: an idempotent producer has at most five requests in flight.
const REMEMBERED_BATCHES: usize = 5;

/// All producers of one partition.
#[derive(Debug, Default, Clone)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
    /// Open transactions: first offset and the producer.
    open: BTreeMap<i64, i64>,
    /// Ended by an abort, in the order of their markers.
    aborted: Vec<Aborted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub epoch: i16,
    pub recent: VecDeque<RecentBatch>,
    pub txn: Txn,
    pub last_timestamp: i64,
}

/// A batch that may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecentBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
}

/// Where a producer's transaction stands in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Txn {
    None,
    /// The coordinator has been told of this partition, nothing was written yet.
    Expected,
    Open {
        first_offset: i64,
    },
}

/// A transaction whose records readers of committed data must skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Offset of the marker.
    pub last_offset: i64,
}

/// What to do with a batch that was produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is in the log already, at this offset.
    Duplicate {
        base_offset: i64,
    },
}

impl Producers {
    /// Judges a data batch before it is appended.
    pub(crate) fn judge(&self, batch: &BatchHeader) -> Result<Verdict, ResponseError> {
        if batch.producer_id < 0 {
            return Ok(Verdict::Append);
        }
        if batch.producer_epoch < 0 || batch.base_sequence < 0 {
            return Err(ResponseError::InvalidRecord);
        }
        let Some(producer) = self.known.get(&batch.producer_id) else {
            return if batch.is_transactional() {
                Err(ResponseError::InvalidTxnState)
            } else {
                Ok(Verdict::Append) // the partition may have forgotten an idle producer: any sequence may start
            };
        };
        if batch.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if let Some(base_offset) = producer.duplicate_of(batch) {
            return Ok(Verdict::Duplicate { base_offset });
        }
        producer.check_sequence(batch)?;
        let in_txn = producer.txn != Txn::None && producer.epoch == batch.producer_epoch;
        match (batch.is_transactional(), in_txn) {
            (true, false) | (false, true) => Err(ResponseError::InvalidTxnState),
            _ => Ok(Verdict::Append),
        }
    }

    /// Takes note of a batch that is in the log.
    pub(crate) fn observe(&mut self, batch: &BatchHeader, marker: Option<Marker>) {
        if batch.producer_id < 0 {
            return;
        }
        let producer = self.known.entry(batch.producer_id).or_insert_with(|| Producer::new(batch.producer_epoch));
        if batch.producer_epoch != producer.epoch {
            producer.epoch = batch.producer_epoch;
            producer.recent.clear();
        }
        producer.last_timestamp = producer.last_timestamp.max(batch.max_timestamp);
        match marker {
            Some(marker) => self.end(batch, marker),
            None if batch.is_control() => {}
            None => {
                producer.remember(batch);
                if batch.is_transactional() && !matches!(producer.txn, Txn::Open { .. }) {
                    producer.txn = Txn::Open { first_offset: batch.base_offset };
                    self.open.insert(batch.base_offset, batch.producer_id);
                }
            }
        }
    }

    fn end(&mut self, batch: &BatchHeader, marker: Marker) {
        let Some(producer) = self.known.get_mut(&batch.producer_id) else { return };
        let txn = std::mem::replace(&mut producer.txn, Txn::None);
        let Txn::Open { first_offset } = txn else { return };
        self.open.remove(&first_offset);
        if marker == Marker::Abort {
            self.aborted.push(Aborted { producer_id: batch.producer_id, first_offset, last_offset: batch.base_offset });
        }
    }

    /// The coordinator announces a transaction of this producer here.
    pub(crate) fn expect(&mut self, producer_id: i64, epoch: i16) {
        let producer = self.known.entry(producer_id).or_insert_with(|| Producer::new(epoch));
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.recent.clear();
        }
        if producer.txn == Txn::None && epoch == producer.epoch {
            producer.txn = Txn::Expected;
        }
    }

    /// The first offset that an open transaction may still take back, if there is one.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// Producers with records in an open transaction.
    pub(crate) fn open_producers(&self) -> Vec<(i64, i16)> {
        self.open.values().filter_map(|id| self.known.get(id).map(|producer| (*id, producer.epoch))).collect()
    }

    /// Aborted transactions with a record in `from..to`.
    pub(crate) fn aborted_between(&self, from: i64, to: i64) -> Vec<Aborted> {
        let start = self.aborted.partition_point(|txn| txn.last_offset < from);
        self.aborted[start..].iter().filter(|txn| txn.first_offset < to).copied().collect()
    }

    /// Forgets what lies before the start of the log, and producers idle since before `idle_before_ms`.
    pub(crate) fn forget(&mut self, log_start: i64, idle_before_ms: i64) {
        self.aborted.retain(|txn| txn.last_offset >= log_start);
        self.known.retain(|_, producer| producer.txn != Txn::None || producer.last_timestamp >= idle_before_ms);
    }

    /// Where the producer's transaction stands here.
    pub(crate) fn txn_of(&self, producer_id: i64) -> Txn {
        self.known.get(&producer_id).map_or(Txn::None, |producer| producer.txn)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.known.iter().map(|(id, producer)| (*id, producer))
    }

    pub(crate) fn aborted(&self) -> &[Aborted] {
        &self.aborted
    }

    /// Rebuilds from what a snapshot kept.
    pub(crate) fn restore(known: Vec<(i64, Producer)>, aborted: Vec<Aborted>) -> Self {
        let known: HashMap<i64, Producer> = known.into_iter().collect();
        let open = known
            .iter()
            .filter_map(|(id, producer)| match producer.txn {
                Txn::Open { first_offset } => Some((first_offset, *id)),
                _ => None,
            })
            .collect();
        Producers { known, open, aborted }
    }
}

impl Producer {
    fn new(epoch: i16) -> Self {
        Producer { epoch, recent: VecDeque::new(), txn: Txn::None, last_timestamp: 0 }
    }

    fn duplicate_of(&self, batch: &BatchHeader) -> Option<i64> {
        if batch.producer_epoch != self.epoch {
            return None;
        }
        self.recent
            .iter()
            .find(|known| known.first_sequence == batch.base_sequence && known.last_sequence == batch.last_sequence())
            .map(|known| known.base_offset)
    }

    fn check_sequence(&self, batch: &BatchHeader) -> Result<(), ResponseError> {
        let expected = match self.recent.back() {
            Some(last) if batch.producer_epoch == self.epoch => last.last_sequence.checked_add(1).unwrap_or(0),
            Some(_) => 0,
            // Nothing of this epoch is remembered: a new epoch starts at zero, a forgotten producer anywhere.
            None => return Ok(()),
        };
        if batch.base_sequence == expected { Ok(()) } else { Err(ResponseError::OutOfOrderSequenceNumber) }
    }

    fn remember(&mut self, batch: &BatchHeader) {
        if self.recent.len() == REMEMBERED_BATCHES {
            self.recent.pop_front();
        }
        self.recent.push_back(RecentBatch {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, epoch: i16, sequence: i32, count: i32, transactional: bool) -> BatchHeader {
        BatchHeader {
            base_offset,
            size: 100,
            crc: 0,
            attributes: if transactional { 0x10 } else { 0 },
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: count,
        }
    }

    fn marker(offset: i64, epoch: i16) -> BatchHeader {
        BatchHeader { attributes: 0x30, ..batch(offset, epoch, -1, 1, true) }
    }

    #[test]
    fn a_batch_that_comes_again_is_answered_with_its_first_offset() {
        let mut producers = Producers::default();
        for (offset, sequence) in [(0, 0), (3, 3), (6, 6)] {
            let header = batch(offset, 0, sequence, 3, false);
            assert_eq!(producers.judge(&header), Ok(Verdict::Append));
            producers.observe(&header, None);
        }
        assert_eq!(producers.judge(&batch(0, 0, 3, 3, false)), Ok(Verdict::Duplicate { base_offset: 3 }));
    }

    #[test]
    fn a_gap_and_a_batch_older_than_the_memory_are_out_of_order() {
        let mut producers = Producers::default();
        for sequence in 0..7 {
            producers.observe(&batch(i64::from(sequence), 0, sequence, 1, false), None);
        }
        let gap = producers.judge(&batch(0, 0, 9, 1, false));
        assert_eq!(gap, Err(ResponseError::OutOfOrderSequenceNumber));
        let old = producers.judge(&batch(0, 0, 0, 1, false));
        assert_eq!(old, Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn sequences_wrap() {
        let mut producers = Producers::default();
        producers.observe(&batch(0, 0, i32::MAX, 1, false), None);
        assert_eq!(producers.judge(&batch(0, 0, 0, 1, false)), Ok(Verdict::Append));
        assert_eq!(batch(0, 0, i32::MAX, 3, false).last_sequence(), 1);
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let mut producers = Producers::default();
        producers.observe(&batch(0, 4, 0, 1, false), None);
        assert_eq!(producers.judge(&batch(0, 3, 1, 1, false)), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(producers.judge(&batch(0, 5, 1, 1, false)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(producers.judge(&batch(0, 5, 0, 1, false)), Ok(Verdict::Append));
    }

    #[test]
    fn an_open_transaction_holds_the_stable_offset_until_its_marker() {
        let mut producers = Producers::default();
        assert_eq!(producers.judge(&batch(10, 0, 0, 2, true)), Err(ResponseError::InvalidTxnState));
        producers.expect(9, 0);
        assert_eq!(producers.judge(&batch(10, 0, 0, 2, true)), Ok(Verdict::Append));
        producers.observe(&batch(10, 0, 0, 2, true), None);
        assert_eq!(producers.first_open(), Some(10));
        producers.observe(&marker(12, 0), Some(Marker::Abort));
        assert_eq!(producers.first_open(), None);
        assert_eq!(producers.aborted_between(0, 20).len(), 1);
        assert_eq!(producers.aborted_between(13, 20), vec![]);
        assert_eq!(producers.judge(&batch(13, 0, 2, 1, true)), Err(ResponseError::InvalidTxnState));
    }

    #[test]
    fn a_marker_with_a_higher_epoch_fences_the_producer() {
        let mut producers = Producers::default();
        producers.expect(9, 0);
        producers.observe(&batch(0, 0, 0, 1, true), None);
        producers.observe(&marker(1, 1), Some(Marker::Abort));
        assert_eq!(producers.judge(&batch(2, 0, 1, 1, true)), Err(ResponseError::InvalidProducerEpoch));
    }
}
