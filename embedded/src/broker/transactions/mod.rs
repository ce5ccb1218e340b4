//! Transactions: the rights of a transactional id's producer, and the markers that end a transaction in every partition.
//!
//! `rules` decides from the ledger (pure). This file executes the decisions: first the journal, then the markers, then the
//! "completed" entry. After a crash between these steps, [`recover`] or [`tick`] completes them. Knows no connection.

pub(crate) mod handlers;
mod rules;

use super::BrokerState;
use super::coordinator::{Coordinator, CoordinatorEntry, CoordinatorState, OffsetEntries, TopicPartition, TxnState};
use super::log::TxnMarker;
use super::sync_before_ack;
use super::topics::{TopicCatalog, TopicMap};
use kafka_protocol::ResponseError;
use rules::{EndOutcome, InitOutcome};
use std::collections::HashMap;

/// Ids are reserved in the journal in blocks, so that most new ids need no write.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// A producer id and its epoch.
pub(crate) type ProducerIdentity = (i64, i16);

/// A new producer id, never assigned before.
fn new_producer_id(state: &mut CoordinatorState) -> Result<i64, ResponseError> {
    let id = state.next_producer_id;
    if id >= state.ledger().next_producer_id {
        state.append(CoordinatorEntry::ProducerIds { next: id + PRODUCER_ID_BLOCK })?;
    }
    state.next_producer_id = id + 1;
    Ok(id)
}

/// Assigns a producer its id and epoch. An open transaction of an earlier producer is aborted first, which fences that producer.
pub(crate) fn init(
    shared: &BrokerState,
    id: Option<&str>,
    requested: ProducerIdentity,
    timeout_ms: i64,
    now_ms: i64,
) -> Result<ProducerIdentity, ResponseError> {
    let mut state = shared.coordinator.lock();
    let Some(id) = id else {
        return Ok((new_producer_id(&mut state)?, 0));
    };
    let mut grant = rules::init(state.ledger().txns.get(id), requested)?;
    if let InitOutcome::FenceFirst { epoch } = grant {
        state.append(CoordinatorEntry::Prepared { id: id.to_owned(), commit: false, epoch, at: now_ms })?;
        drop(state);
        complete(shared, id, now_ms)?;
        state = shared.coordinator.lock();
        grant = rules::init_after_fence(state.ledger().txns.get(id), epoch)?;
    }
    let (producer_id, epoch, last_epoch) = match grant {
        InitOutcome::NewProducer => (new_producer_id(&mut state)?, 0, -1),
        InitOutcome::Epoch { producer_id, epoch, last_epoch } => (producer_id, epoch, last_epoch),
        InitOutcome::FenceFirst { .. } => return Err(ResponseError::ConcurrentTransactions),
    };
    state.append(CoordinatorEntry::Producer {
        id: id.to_owned(),
        producer_id,
        epoch,
        last_epoch,
        timeout_ms,
        at: now_ms,
    })?;
    Ok((producer_id, epoch))
}

/// Adds partitions to the transaction and announces the transaction to each of them.
pub(crate) fn add_partitions(
    shared: &BrokerState,
    id: &str,
    producer: ProducerIdentity,
    topic_partitions: &[TopicPartition],
    now_ms: i64,
) -> Result<(), ResponseError> {
    let topics = shared.topics.snapshot();
    let mut state = shared.coordinator.lock();
    let txn = rules::may_add(state.ledger().txns.get(id), producer)?;
    let known = txn.state == TxnState::Ongoing
        && topic_partitions.iter().all(|topic_partition| txn.partitions.contains(topic_partition));
    if known {
        return Ok(());
    }
    state.append(CoordinatorEntry::Partitions {
        id: id.to_owned(),
        topic_partitions: topic_partitions.to_vec(),
        at: now_ms,
    })?;
    // Under the coordinator's lock: an abort by timeout must not happen between the entry and the announcement.
    announce(&topics, topic_partitions, producer);
    Ok(())
}

fn announce(topics: &TopicMap, topic_partitions: &[TopicPartition], (producer_id, epoch): ProducerIdentity) {
    for (topic, index) in topic_partitions {
        if let Some(partition) = topics.partition(topic, *index) {
            partition.announce_txn(producer_id, epoch);
        }
    }
}

pub(crate) fn add_group(
    shared: &BrokerState,
    id: &str,
    producer: ProducerIdentity,
    group: &str,
    now_ms: i64,
) -> Result<(), ResponseError> {
    let mut state = shared.coordinator.lock();
    let txn = rules::may_add(state.ledger().txns.get(id), producer)?;
    if txn.state == TxnState::Ongoing && txn.offsets.contains_key(group) {
        return Ok(());
    }
    state.append(CoordinatorEntry::Group { id: id.to_owned(), group: group.to_owned(), at: now_ms })
}

/// Stores offsets with the transaction until it ends. The caller has checked that the group allows the commit.
pub(crate) fn store_offsets(
    coordinator: &Coordinator,
    id: &str,
    producer: ProducerIdentity,
    group: &str,
    offsets: OffsetEntries,
) -> Result<(), ResponseError> {
    let mut state = coordinator.lock();
    rules::may_store_offsets(state.ledger().txns.get(id), producer, group)?;
    if offsets.is_empty() {
        return Ok(());
    }
    state.append(CoordinatorEntry::TxnOffsets { id: id.to_owned(), group: group.to_owned(), offsets })
}

/// Ends a transaction. When this returns, `read_committed` readers see the outcome in every partition.
pub(crate) fn end(
    shared: &BrokerState,
    id: &str,
    producer: ProducerIdentity,
    commit: bool,
    now_ms: i64,
) -> Result<(), ResponseError> {
    let mut state = shared.coordinator.lock();
    match rules::end(state.ledger().txns.get(id), producer, commit)? {
        EndOutcome::AlreadyDone => return Ok(()),
        EndOutcome::Prepare => {}
    }
    state.append(CoordinatorEntry::Prepared { id: id.to_owned(), commit, epoch: producer.1, at: now_ms })?;
    drop(state);
    complete(shared, id, now_ms)
}

fn complete(shared: &BrokerState, id: &str, now_ms: i64) -> Result<(), ResponseError> {
    let files = complete_in(&shared.coordinator, &shared.topics.snapshot(), id, now_ms)?;
    sync_before_ack(shared.config.fsync, &files).map_err(|error| {
        tracing::error!(%error, "cannot sync transaction markers");
        ResponseError::KafkaStorageError
    })
}

/// Writes the markers of a prepared transaction, then records its completion. Fails with `CONCURRENT_TRANSACTIONS` while another
/// request does so.
fn complete_in(
    coordinator: &Coordinator,
    topics: &TopicMap,
    id: &str,
    now_ms: i64,
) -> Result<Vec<std::sync::Arc<std::fs::File>>, ResponseError> {
    let (producer, commit, topic_partitions) = {
        let mut state = coordinator.lock();
        let Some(txn) = state.ledger().txns.get(id) else { return Ok(Vec::new()) };
        let TxnState::Prepared { commit } = txn.state else { return Ok(Vec::new()) };
        let prepared = ((txn.producer_id, txn.epoch), commit, txn.partitions.clone());
        if !state.completing.insert(id.to_owned()) {
            return Err(ResponseError::ConcurrentTransactions);
        }
        prepared
    };
    let marker = if commit { TxnMarker::Commit } else { TxnMarker::Abort };
    let mut files = Vec::with_capacity(topic_partitions.len());
    let mut failed = None;
    for (topic, index) in &topic_partitions {
        // A deleted partition needs no marker.
        let Some(partition) = topics.partition(topic, *index) else { continue };
        match partition.end_txn(producer.0, producer.1, marker, now_ms) {
            Ok(file) => files.extend(file),
            Err(ResponseError::UnknownTopicOrPartition) => {}
            Err(error) => failed = Some(error),
        }
    }
    for partition in topic_partitions.iter().filter_map(|(topic, index)| topics.partition(topic, *index)) {
        partition.wake_readers();
    }
    let mut state = coordinator.lock();
    state.completing.remove(id);
    match failed {
        // The transaction stays prepared; the next tick retries.
        Some(error) => Err(error),
        None => {
            // If a crash loses this entry, recovery writes the markers again and completes the transaction.
            state.journal.append_lazily(CoordinatorEntry::Completed { id: id.to_owned(), at: now_ms });
            Ok(files)
        }
    }
}

/// Aborts expired transactions and completes prepared ones.
pub(crate) fn tick(shared: &BrokerState, now_ms: i64) {
    let (expired, prepared) = {
        let state = shared.coordinator.lock();
        let open = || state.ledger().open.iter().filter_map(|id| Some((id, state.ledger().txns.get(id)?)));
        let expired: Vec<(String, ProducerIdentity)> = open()
            .filter(|(_, txn)| txn.state == TxnState::Ongoing && now_ms - txn.started_ms > txn.timeout_ms)
            .map(|(id, txn)| (id.clone(), (txn.producer_id, txn.epoch)))
            .collect();
        let prepared: Vec<String> = open()
            .filter(|(id, txn)| matches!(txn.state, TxnState::Prepared { .. }) && !state.completing.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        (expired, prepared)
    };
    for (id, producer) in expired {
        tracing::info!(transactional_id = id, "aborting a transaction after its timeout");
        if let Err(error) = abort_expired(shared, &id, producer, now_ms) {
            tracing::warn!(transactional_id = id, %error, "cannot abort a transaction");
        }
    }
    for id in prepared {
        if let Err(error) = complete(shared, &id, now_ms) {
            tracing::debug!(transactional_id = id, %error, "a prepared transaction is not complete yet");
        }
    }
}

/// Aborts under a higher epoch, so that the producer is fenced.
fn abort_expired(shared: &BrokerState, id: &str, producer: ProducerIdentity, now_ms: i64) -> Result<(), ResponseError> {
    let mut state = shared.coordinator.lock();
    if !matches!(rules::end(state.ledger().txns.get(id), producer, false)?, EndOutcome::Prepare) {
        return Ok(());
    }
    let epoch = rules::fencing_epoch(producer.1);
    state.append(CoordinatorEntry::Prepared { id: id.to_owned(), commit: false, epoch, at: now_ms })?;
    drop(state);
    complete(shared, id, now_ms)
}

/// At start: completes prepared transactions, keeps ongoing ones, and aborts those that the coordinator does not list.
pub(crate) fn recover(coordinator: &Coordinator, topics: &TopicCatalog, now_ms: i64) {
    let map = topics.snapshot();
    let mut ongoing: HashMap<i64, ProducerIdentity> = HashMap::new();
    let mut prepared = Vec::new();
    {
        let state = coordinator.lock();
        for (id, txn) in state.ledger().open.iter().filter_map(|id| Some((id, state.ledger().txns.get(id)?))) {
            let producer = (txn.producer_id, txn.epoch);
            let topic_partitions: Vec<TopicPartition> = txn.partitions.iter().cloned().collect();
            // The log lists only partitions with records, but every announced partition needs a marker.
            announce(&map, &topic_partitions, producer);
            match txn.state {
                TxnState::Prepared { .. } => prepared.push(id.clone()),
                _ => {
                    ongoing.insert(txn.producer_id, producer);
                }
            }
        }
    }
    for id in prepared {
        tracing::info!(transactional_id = id, "completing a transaction that was prepared before the restart");
        if let Err(error) = complete_in(coordinator, &map, &id, now_ms) {
            tracing::error!(transactional_id = id, %error, "cannot complete a prepared transaction yet");
        }
    }
    for partition in map.iter().flat_map(|topic| &topic.partitions) {
        for (producer_id, epoch) in partition.open_producers() {
            if !ongoing.contains_key(&producer_id) {
                tracing::warn!(
                    partition = partition.name(),
                    producer_id,
                    "aborting a transaction that the coordinator does not list"
                );
                if let Err(error) = partition.end_txn(producer_id, epoch, TxnMarker::Abort, now_ms) {
                    tracing::error!(partition = partition.name(), %error, "cannot abort a transaction");
                }
            }
        }
    }
}
