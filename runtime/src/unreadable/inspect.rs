//! Looks at the next batches of a partition as the broker stores them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};
use record_batch::{
    batch::{BatchHeader, TxnMarker, marker_of},
    readable::{self, ReaderLimits},
};

use super::raw_fetch::{self, Fetched, RawFetchError};
use crate::{config::Config, envelope::Position};

/// How long one request of an inspection may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// What the client library of this build can read.
const LIMITS: ReaderLimits = ReaderLimits { zstd: false, inflated_bytes: 256 << 20 };

/// A batch that cannot be read, and that its partition waits in front of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableBatch {
    /// Its topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset of its first record.
    pub first: i64,
    /// The offset after its last record.
    pub next: i64,
    /// How many records it says it has.
    pub records: i32,
    /// Why it cannot be read.
    pub reason: String,
    /// The batch as the broker stores it.
    pub bytes: Bytes,
    /// The end of the partition.
    pub end: i64,
}

impl UnreadableBatch {
    /// The position of its first record.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(Arc::clone(&self.topic), self.partition, self.first)
    }
}

/// A partition that could not be inspected.
#[derive(Debug, thiserror::Error)]
#[error("the batch cannot be looked at: {0}")]
pub struct InspectError(#[from] RawFetchError);

impl InspectError {
    /// True if the broker answers, and refuses this partition.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.0, RawFetchError::Refused { .. } | RawFetchError::NoLeader { .. })
    }
}

/// True if a client library reports with this error that it cannot read a batch, or that it is refused a partition. It names neither.
pub(crate) fn is_about_a_batch(error: &KafkaError) -> bool {
    let KafkaError::MessageConsumption(code) = error else { return false };
    !matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::PollExceeded
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::NotCoordinator
    )
}

/// The unreadable batch that a reader of committed records would meet next from `position` on; `None` if the next batch with records
/// can be read, or if there is none. Blocks for at most a few times `patience`.
///
/// # Errors
/// The partition cannot be fetched.
pub fn inspect(
    config: &Config,
    patience: Duration,
    (topic, partition, position): (&Arc<str>, i32, i64),
) -> Result<Option<UnreadableBatch>, InspectError> {
    let fetched = raw_fetch::fetch(&config.bootstrap, patience, (topic, partition, position))?;
    Ok(first_unreadable(&fetched, position).map(|(header, reason, bytes)| UnreadableBatch {
        topic: Arc::clone(topic),
        partition,
        first: header.base_offset,
        next: header.next_offset(),
        records: header.record_count,
        reason,
        bytes,
        end: fetched.end,
    }))
}

/// Walks over batches that deliver nothing: markers, and those of aborted transactions.
fn first_unreadable(fetched: &Fetched, position: i64) -> Option<(BatchHeader, String, Bytes)> {
    let mut aborted = fetched.aborted.clone();
    let mut rest = fetched.batches.clone();
    loop {
        let header = BatchHeader::parse(&rest).ok()?;
        // The last batch of a response may be cut off.
        let batch = (header.size <= rest.len()).then(|| rest.split_to(header.size))?;
        if header.next_offset() <= position {
            continue;
        }
        if let Err(fault) = readable::check(&batch, LIMITS) {
            return Some((header, fault.to_string(), batch));
        }
        if header.is_control() {
            if marker_of(&batch) == Some(TxnMarker::Abort) {
                aborted.retain(|(producer, _)| *producer != header.producer_id);
            }
            continue;
        }
        let began = |(producer, first): &(i64, i64)| *producer == header.producer_id && *first <= header.base_offset;
        let is_aborted = header.is_transactional() && aborted.iter().any(began);
        if !is_aborted && header.record_count > 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use record_batch::batch::{HEADER_LEN, header_at_offset, marker_batch, rewritten};

    use super::*;

    const COMMITTED: i16 = 0x10;

    fn at(offset: i64, batch: &[u8]) -> Vec<u8> {
        [&header_at_offset(batch, offset, 0)[..], &batch[HEADER_LEN..]].concat()
    }

    fn marker(offset: i64, marker: TxnMarker) -> Vec<u8> {
        at(offset, &marker_batch(7, 0, marker, 0, 1_000))
    }

    /// A batch with one record of producer 7.
    fn data(offset: i64) -> Vec<u8> {
        at(offset, &rewritten(&marker_batch(7, 0, TxnMarker::Commit, 0, 1_000), COMMITTED, 1_000))
    }

    fn not_gzip(offset: i64) -> Vec<u8> {
        at(offset, &rewritten(&marker_batch(7, 0, TxnMarker::Commit, 0, 1_000), COMMITTED | 1, 1_000))
    }

    fn found(batches: &[Vec<u8>], aborted: &[(i64, i64)], position: i64) -> Option<i64> {
        let fetched = Fetched { batches: batches.concat().into(), end: 100, aborted: aborted.to_vec() };
        first_unreadable(&fetched, position).map(|(header, _, _)| header.base_offset)
    }

    #[test]
    fn the_next_batch_is_found_behind_markers_and_aborted_records() {
        assert_eq!(found(&[not_gzip(4)], &[], 4), Some(4));
        assert_eq!(found(&[marker(3, TxnMarker::Commit), not_gzip(4)], &[], 3), Some(4));
        let with_aborted = [data(2), marker(3, TxnMarker::Abort), not_gzip(4)];
        assert_eq!(found(&with_aborted, &[(7, 2)], 2), Some(4));
        assert_eq!(found(&[marker(1, TxnMarker::Abort), data(2), not_gzip(3)], &[(7, 0)], 0), None, "2 is not aborted");
    }

    #[test]
    fn a_batch_that_can_be_read_comes_first() {
        assert_eq!(found(&[data(2), not_gzip(3)], &[], 2), None);
        assert_eq!(found(&[data(2), not_gzip(3)], &[], 3), Some(3), "it has been read");
        assert_eq!(found(&[], &[], 3), None);
    }

    #[test]
    fn a_batch_that_is_cut_off_by_the_size_of_a_response_is_not_judged() {
        let cut = not_gzip(4)[..70].to_vec();
        assert_eq!(found(&[cut], &[], 4), None);
    }
}
