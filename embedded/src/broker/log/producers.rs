//! The state of a partition's producers: sequences, epochs, open and aborted transactions.
//!
//! Pure: its inputs are batch headers, from appends and from recovery alike, so a restart restores the same state. Knows no file
//! and no clock.

use super::batch::{BatchHeader, TxnMarker};
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Kafka's limit: an idempotent producer has at most five requests in flight.
const REMEMBERED_BATCHES: usize = 5;

/// All producers of one partition.
#[derive(Debug, Default, Clone)]
pub(crate) struct PartitionProducers {
    known: HashMap<i64, PartitionProducer>,
    /// Open transactions: first offset and producer id.
    open: BTreeMap<i64, i64>,
    /// Aborted transactions in the order of their markers.
    aborted: Vec<AbortedTxn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionProducer {
    pub epoch: i16,
    pub recent: VecDeque<RecentBatch>,
    pub txn: PartitionTxn,
    pub last_timestamp: i64,
}

/// A batch that the producer may send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecentBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
}

/// The state of a producer's transaction in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionTxn {
    None,
    /// The coordinator has added this partition, but no record was written yet.
    Announced,
    Open {
        first_offset: i64,
    },
}

/// A transaction whose records `read_committed` readers must skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Offset of the marker.
    pub last_offset: i64,
}

/// What to do with a produced batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendDecision {
    Append,
    /// The batch is already in the log, at this offset.
    Duplicate {
        base_offset: i64,
    },
}

impl PartitionProducers {
    /// Checks a data batch before it is appended.
    pub(crate) fn check_batch(&self, batch: &BatchHeader) -> Result<AppendDecision, ResponseError> {
        if batch.producer_id < 0 {
            return Ok(AppendDecision::Append);
        }
        if batch.producer_epoch < 0 || batch.base_sequence < 0 {
            return Err(ResponseError::InvalidRecord);
        }
        let Some(producer) = self.known.get(&batch.producer_id) else {
            return if batch.is_transactional() {
                Err(ResponseError::InvalidTxnState)
            } else {
                Ok(AppendDecision::Append) // the partition may have dropped an idle producer: any first sequence is valid
            };
        };
        if batch.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if let Some(base_offset) = producer.duplicate_of(batch) {
            return Ok(AppendDecision::Duplicate { base_offset });
        }
        producer.check_sequence(batch)?;
        let in_txn = producer.txn != PartitionTxn::None && producer.epoch == batch.producer_epoch;
        match (batch.is_transactional(), in_txn) {
            (true, false) | (false, true) => Err(ResponseError::InvalidTxnState),
            _ => Ok(AppendDecision::Append),
        }
    }

    /// Updates the state with a batch that is in the log.
    pub(crate) fn observe(&mut self, batch: &BatchHeader, marker: Option<TxnMarker>) {
        if batch.producer_id < 0 {
            return;
        }
        let producer =
            self.known.entry(batch.producer_id).or_insert_with(|| PartitionProducer::new(batch.producer_epoch));
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
                if batch.is_transactional() && !matches!(producer.txn, PartitionTxn::Open { .. }) {
                    producer.txn = PartitionTxn::Open { first_offset: batch.base_offset };
                    self.open.insert(batch.base_offset, batch.producer_id);
                }
            }
        }
    }

    fn end(&mut self, batch: &BatchHeader, marker: TxnMarker) {
        let Some(producer) = self.known.get_mut(&batch.producer_id) else { return };
        let txn = std::mem::replace(&mut producer.txn, PartitionTxn::None);
        let PartitionTxn::Open { first_offset } = txn else { return };
        self.open.remove(&first_offset);
        if marker == TxnMarker::Abort {
            self.aborted.push(AbortedTxn {
                producer_id: batch.producer_id,
                first_offset,
                last_offset: batch.base_offset,
            });
        }
    }

    /// The coordinator announces a transaction of this producer here.
    pub(crate) fn announce(&mut self, producer_id: i64, epoch: i16) {
        let producer = self.known.entry(producer_id).or_insert_with(|| PartitionProducer::new(epoch));
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.recent.clear();
        }
        if producer.txn == PartitionTxn::None && epoch == producer.epoch {
            producer.txn = PartitionTxn::Announced;
        }
    }

    /// The first offset of an open transaction, if there is one.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// Producers with records in an open transaction.
    pub(crate) fn open_producers(&self) -> Vec<(i64, i16)> {
        self.open.values().filter_map(|id| self.known.get(id).map(|producer| (*id, producer.epoch))).collect()
    }

    /// Aborted transactions with a record in `from..to`.
    pub(crate) fn aborted_between(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        let start = self.aborted.partition_point(|txn| txn.last_offset < from);
        self.aborted[start..].iter().filter(|txn| txn.first_offset < to).copied().collect()
    }

    /// Drops transactions before the start of the log, and producers idle since before `idle_before_ms`.
    pub(crate) fn forget(&mut self, log_start: i64, idle_before_ms: i64) {
        self.aborted.retain(|txn| txn.last_offset >= log_start);
        self.known
            .retain(|_, producer| producer.txn != PartitionTxn::None || producer.last_timestamp >= idle_before_ms);
    }

    /// The state of the producer's transaction in this partition.
    pub(crate) fn txn_of(&self, producer_id: i64) -> PartitionTxn {
        self.known.get(&producer_id).map_or(PartitionTxn::None, |producer| producer.txn)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &PartitionProducer)> {
        self.known.iter().map(|(id, producer)| (*id, producer))
    }

    pub(crate) fn aborted(&self) -> &[AbortedTxn] {
        &self.aborted
    }

    /// Restores the state from a snapshot.
    pub(crate) fn restore(known: Vec<(i64, PartitionProducer)>, aborted: Vec<AbortedTxn>) -> Self {
        let known: HashMap<i64, PartitionProducer> = known.into_iter().collect();
        let open = known
            .iter()
            .filter_map(|(id, producer)| match producer.txn {
                PartitionTxn::Open { first_offset } => Some((first_offset, *id)),
                _ => None,
            })
            .collect();
        PartitionProducers { known, open, aborted }
    }
}

impl PartitionProducer {
    fn new(epoch: i16) -> Self {
        PartitionProducer { epoch, recent: VecDeque::new(), txn: PartitionTxn::None, last_timestamp: 0 }
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
            // No batch is remembered: the producer is new or was dropped, so any sequence is valid.
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
    fn a_repeated_batch_returns_its_first_offset() {
        let mut producers = PartitionProducers::default();
        for (offset, sequence) in [(0, 0), (3, 3), (6, 6)] {
            let header = batch(offset, 0, sequence, 3, false);
            assert_eq!(producers.check_batch(&header), Ok(AppendDecision::Append));
            producers.observe(&header, None);
        }
        assert_eq!(producers.check_batch(&batch(0, 0, 3, 3, false)), Ok(AppendDecision::Duplicate { base_offset: 3 }));
    }

    #[test]
    fn a_gap_and_a_batch_older_than_the_remembered_ones_are_out_of_order() {
        let mut producers = PartitionProducers::default();
        for sequence in 0..7 {
            producers.observe(&batch(i64::from(sequence), 0, sequence, 1, false), None);
        }
        let gap = producers.check_batch(&batch(0, 0, 9, 1, false));
        assert_eq!(gap, Err(ResponseError::OutOfOrderSequenceNumber));
        let old = producers.check_batch(&batch(0, 0, 0, 1, false));
        assert_eq!(old, Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = PartitionProducers::default();
        producers.observe(&batch(0, 0, i32::MAX, 1, false), None);
        assert_eq!(producers.check_batch(&batch(0, 0, 0, 1, false)), Ok(AppendDecision::Append));
        assert_eq!(batch(0, 0, i32::MAX, 3, false).last_sequence(), 1);
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let mut producers = PartitionProducers::default();
        producers.observe(&batch(0, 4, 0, 1, false), None);
        assert_eq!(producers.check_batch(&batch(0, 3, 1, 1, false)), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(producers.check_batch(&batch(0, 5, 1, 1, false)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(producers.check_batch(&batch(0, 5, 0, 1, false)), Ok(AppendDecision::Append));
    }

    #[test]
    fn an_open_transaction_holds_the_stable_offset_until_its_marker() {
        let mut producers = PartitionProducers::default();
        assert_eq!(producers.check_batch(&batch(10, 0, 0, 2, true)), Err(ResponseError::InvalidTxnState));
        producers.announce(9, 0);
        assert_eq!(producers.check_batch(&batch(10, 0, 0, 2, true)), Ok(AppendDecision::Append));
        producers.observe(&batch(10, 0, 0, 2, true), None);
        assert_eq!(producers.first_open(), Some(10));
        producers.observe(&marker(12, 0), Some(TxnMarker::Abort));
        assert_eq!(producers.first_open(), None);
        assert_eq!(producers.aborted_between(0, 20).len(), 1);
        assert_eq!(producers.aborted_between(13, 20), vec![]);
        assert_eq!(producers.check_batch(&batch(13, 0, 2, 1, true)), Err(ResponseError::InvalidTxnState));
    }

    #[test]
    fn a_marker_with_a_higher_epoch_fences_the_producer() {
        let mut producers = PartitionProducers::default();
        producers.announce(9, 0);
        producers.observe(&batch(0, 0, 0, 1, true), None);
        producers.observe(&marker(1, 1), Some(TxnMarker::Abort));
        assert_eq!(producers.check_batch(&batch(2, 0, 1, 1, true)), Err(ResponseError::InvalidProducerEpoch));
    }
}
