//! The rules of transactions as pure functions of the ledger.
//!
//! Knows no journal, no partition and no clock.

use super::ProducerIdentity;
use crate::broker::coordinator::{TxnRecord, TxnState};
use kafka_protocol::ResponseError;

/// The result of InitProducerId.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitOutcome {
    NewProducer,
    Epoch {
        producer_id: i64,
        epoch: i16,
        last_epoch: i16,
    },
    /// An open transaction must be aborted under this epoch first.
    FenceFirst {
        epoch: i16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndOutcome {
    Prepare,
    /// The request is a repetition.
    AlreadyDone,
}

/// The next epoch. The largest epoch is reserved for fencing; a producer that reaches it receives a new id.
pub(super) fn fencing_epoch(epoch: i16) -> i16 {
    epoch.saturating_add(1)
}

/// `requested` is (-1, -1) for a new producer, else its previous id and epoch.
pub(super) fn init(txn: Option<&TxnRecord>, requested: ProducerIdentity) -> Result<InitOutcome, ResponseError> {
    let Some(txn) = txn else { return Ok(InitOutcome::NewProducer) };
    let (requested_id, requested_epoch) = requested;
    if requested_id >= 0 {
        let known =
            requested_id == txn.producer_id && (requested_epoch == txn.epoch || requested_epoch == txn.last_epoch);
        if !known {
            return Err(ResponseError::ProducerFenced);
        }
    }
    match txn.state {
        TxnState::Prepared { .. } => Err(ResponseError::ConcurrentTransactions),
        TxnState::Ongoing => Ok(InitOutcome::FenceFirst { epoch: fencing_epoch(txn.epoch) }),
        TxnState::Empty | TxnState::Completed { .. } => {
            let repeated = requested_id >= 0 && requested_epoch == txn.last_epoch && requested_epoch != txn.epoch;
            if repeated && txn.state == TxnState::Empty {
                let (epoch, last_epoch) = (txn.epoch, txn.last_epoch);
                return Ok(InitOutcome::Epoch { producer_id: txn.producer_id, epoch, last_epoch });
            }
            Ok(next_epoch(txn))
        }
    }
}

/// After the abort: the new producer receives the epoch after the fence, unless another producer was faster.
pub(super) fn init_after_fence(txn: Option<&TxnRecord>, fence: i16) -> Result<InitOutcome, ResponseError> {
    match txn {
        Some(txn) if txn.epoch == fence && matches!(txn.state, TxnState::Completed { .. }) => Ok(next_epoch(txn)),
        _ => Err(ResponseError::ConcurrentTransactions),
    }
}

fn next_epoch(txn: &TxnRecord) -> InitOutcome {
    if txn.epoch >= i16::MAX - 1 {
        return InitOutcome::NewProducer;
    }
    InitOutcome::Epoch { producer_id: txn.producer_id, epoch: txn.epoch + 1, last_epoch: txn.epoch }
}

fn check_producer(
    txn: Option<&TxnRecord>,
    (producer_id, epoch): ProducerIdentity,
) -> Result<&TxnRecord, ResponseError> {
    match txn {
        Some(txn) if txn.producer_id != producer_id => Err(ResponseError::InvalidProducerIdMapping),
        Some(txn) if txn.epoch != epoch => Err(ResponseError::ProducerFenced),
        Some(txn) => Ok(txn),
        None => Err(ResponseError::InvalidProducerIdMapping),
    }
}

/// Whether partitions or a group may be added.
pub(super) fn may_add(txn: Option<&TxnRecord>, producer: ProducerIdentity) -> Result<&TxnRecord, ResponseError> {
    let txn = check_producer(txn, producer)?;
    match txn.state {
        TxnState::Prepared { .. } => Err(ResponseError::ConcurrentTransactions),
        TxnState::Empty | TxnState::Ongoing | TxnState::Completed { .. } => Ok(txn),
    }
}

pub(super) fn may_store_offsets(
    txn: Option<&TxnRecord>,
    producer: ProducerIdentity,
    group: &str,
) -> Result<(), ResponseError> {
    // For this request Kafka has always reported a fenced producer as an invalid epoch.
    let txn = check_producer(txn, producer).map_err(|error| match error {
        ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        other => other,
    })?;
    match txn.state {
        TxnState::Ongoing if txn.offsets.contains_key(group) => Ok(()),
        TxnState::Prepared { .. } => Err(ResponseError::ConcurrentTransactions),
        _ => Err(ResponseError::InvalidTxnState),
    }
}

pub(super) fn end(
    txn: Option<&TxnRecord>,
    producer: ProducerIdentity,
    commit: bool,
) -> Result<EndOutcome, ResponseError> {
    let txn = check_producer(txn, producer)?;
    match txn.state {
        TxnState::Ongoing => Ok(EndOutcome::Prepare),
        TxnState::Completed { commit: done } if done == commit => Ok(EndOutcome::AlreadyDone),
        TxnState::Prepared { commit: wanted } if wanted == commit => Err(ResponseError::ConcurrentTransactions),
        _ => Err(ResponseError::InvalidTxnState),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn txn(epoch: i16, state: TxnState) -> TxnRecord {
        TxnRecord {
            producer_id: 5,
            epoch,
            last_epoch: epoch - 1,
            timeout_ms: 1_000,
            state,
            started_ms: 0,
            updated_ms: 0,
            partitions: BTreeSet::new(),
            offsets: BTreeMap::from([("g".to_owned(), BTreeMap::new())]),
        }
    }

    #[test]
    fn a_new_producer_fences_its_predecessor() {
        let bumped = InitOutcome::Epoch { producer_id: 5, epoch: 4, last_epoch: 3 };
        assert_eq!(init(None, (-1, -1)), Ok(InitOutcome::NewProducer));
        assert_eq!(init(Some(&txn(3, TxnState::Empty)), (-1, -1)), Ok(bumped));
        assert_eq!(init(Some(&txn(3, TxnState::Ongoing)), (-1, -1)), Ok(InitOutcome::FenceFirst { epoch: 4 }));
        let after = init_after_fence(Some(&txn(4, TxnState::Completed { commit: false })), 4);
        assert_eq!(after, Ok(InitOutcome::Epoch { producer_id: 5, epoch: 5, last_epoch: 4 }));
        assert_eq!(check_producer(Some(&txn(4, TxnState::Empty)), (5, 3)), Err(ResponseError::ProducerFenced));
    }

    #[test]
    fn a_recovering_producer_keeps_its_id_and_a_fenced_one_is_refused() {
        let record = txn(3, TxnState::Completed { commit: true });
        assert_eq!(init(Some(&record), (5, 3)), Ok(InitOutcome::Epoch { producer_id: 5, epoch: 4, last_epoch: 3 }));
        assert_eq!(init(Some(&record), (5, 1)), Err(ResponseError::ProducerFenced));
        assert_eq!(init(Some(&record), (6, 3)), Err(ResponseError::ProducerFenced));
    }

    #[test]
    fn an_exhausted_epoch_gets_a_new_id() {
        assert_eq!(init(Some(&txn(i16::MAX - 1, TxnState::Empty)), (-1, -1)), Ok(InitOutcome::NewProducer));
    }

    #[test]
    fn a_repeated_end_succeeds_only_with_the_same_outcome() {
        let committed = txn(0, TxnState::Completed { commit: true });
        assert_eq!(end(Some(&committed), (5, 0), true), Ok(EndOutcome::AlreadyDone));
        assert_eq!(end(Some(&committed), (5, 0), false), Err(ResponseError::InvalidTxnState));
        assert_eq!(end(Some(&txn(0, TxnState::Empty)), (5, 0), true), Err(ResponseError::InvalidTxnState));
        assert_eq!(end(Some(&txn(0, TxnState::Ongoing)), (5, 0), true), Ok(EndOutcome::Prepare));
        let prepared = txn(0, TxnState::Prepared { commit: true });
        assert_eq!(end(Some(&prepared), (5, 0), true), Err(ResponseError::ConcurrentTransactions));
    }

    #[test]
    fn offsets_need_an_ongoing_transaction_that_names_the_group() {
        let ongoing = txn(2, TxnState::Ongoing);
        assert_eq!(may_store_offsets(Some(&ongoing), (5, 2), "g"), Ok(()));
        assert_eq!(may_store_offsets(Some(&ongoing), (5, 2), "other"), Err(ResponseError::InvalidTxnState));
        assert_eq!(may_store_offsets(Some(&ongoing), (5, 1), "g"), Err(ResponseError::InvalidProducerEpoch));
        let ended = txn(2, TxnState::Completed { commit: true });
        assert_eq!(may_store_offsets(Some(&ended), (5, 2), "g"), Err(ResponseError::InvalidTxnState));
    }
}
