//! Transactions: who may do what with a transactional id, and the markers that end a transaction in every partition.
//!
//! `rules` decides on the ledger alone (pure); this file carries decisions out: journal first, then markers, then
//! "completed". A crash between these steps is finished by [`recover`] or [`tick`]. Knows no connection.

pub(crate) mod handlers;
mod rules;

use super::Shared;
use super::coordinator::{Coordinator, Entry, Inner, Offsets, Place, TxnState};
use super::log::Marker;
use super::sync_before_ack;
use super::topics::{TopicMap, Topics};
use kafka_protocol::ResponseError;
use rules::{End, Init};
use std::collections::HashMap;

/// Ids are taken from the journal in blocks, so that most need no write.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// A producer id and its epoch.
pub(crate) type Producer = (i64, i16);

/// A fresh producer id, never given before.
fn new_producer_id(inner: &mut Inner) -> Result<i64, ResponseError> {
    let id = inner.next_producer_id;
    if id >= inner.state().next_producer_id {
        inner.append(Entry::ProducerIds { next: id + PRODUCER_ID_BLOCK })?;
    }
    inner.next_producer_id = id + 1;
    Ok(id)
}

/// Gives a producer its id and epoch. An open transaction of an earlier producer is aborted first, and that producer fenced.
pub(crate) fn init(
    shared: &Shared,
    id: Option<&str>,
    asked: Producer,
    timeout_ms: i64,
    now_ms: i64,
) -> Result<Producer, ResponseError> {
    let mut inner = shared.coordinator.lock();
    let Some(id) = id else {
        return Ok((new_producer_id(&mut inner)?, 0));
    };
    let mut grant = rules::init(inner.state().txns.get(id), asked)?;
    if let Init::FenceFirst { epoch } = grant {
        inner.append(Entry::Prepared { id: id.to_owned(), commit: false, epoch, at: now_ms })?;
        drop(inner);
        complete(shared, id, now_ms)?;
        inner = shared.coordinator.lock();
        grant = rules::init_after_fence(inner.state().txns.get(id), epoch)?;
    }
    let (producer_id, epoch, last_epoch) = match grant {
        Init::NewProducer => (new_producer_id(&mut inner)?, 0, -1),
        Init::Epoch { producer_id, epoch, last_epoch } => (producer_id, epoch, last_epoch),
        Init::FenceFirst { .. } => return Err(ResponseError::ConcurrentTransactions),
    };
    inner.append(Entry::Producer { id: id.to_owned(), producer_id, epoch, last_epoch, timeout_ms, at: now_ms })?;
    Ok((producer_id, epoch))
}

/// Takes partitions into the transaction and tells each of them.
pub(crate) fn add_partitions(
    shared: &Shared,
    id: &str,
    producer: Producer,
    places: &[Place],
    now_ms: i64,
) -> Result<(), ResponseError> {
    let topics = shared.topics.now();
    let mut inner = shared.coordinator.lock();
    let txn = rules::may_add(inner.state().txns.get(id), producer)?;
    let known = txn.state == TxnState::Ongoing && places.iter().all(|place| txn.partitions.contains(place));
    if known {
        return Ok(());
    }
    inner.append(Entry::Partitions { id: id.to_owned(), places: places.to_vec(), at: now_ms })?;
    // Under the coordinator's lock: an abort by timeout must come before or after this, not between.
    expect(&topics, places, producer);
    Ok(())
}

fn expect(topics: &TopicMap, places: &[Place], (producer_id, epoch): Producer) {
    for (topic, index) in places {
        if let Some(partition) = topics.partition(topic, *index) {
            partition.expect_txn(producer_id, epoch);
        }
    }
}

pub(crate) fn add_group(
    shared: &Shared,
    id: &str,
    producer: Producer,
    group: &str,
    now_ms: i64,
) -> Result<(), ResponseError> {
    let mut inner = shared.coordinator.lock();
    let txn = rules::may_add(inner.state().txns.get(id), producer)?;
    if txn.state == TxnState::Ongoing && txn.offsets.contains_key(group) {
        return Ok(());
    }
    inner.append(Entry::Group { id: id.to_owned(), group: group.to_owned(), at: now_ms })
}

/// Keeps offsets with the transaction until it ends. The caller has checked the group's side.
pub(crate) fn store_offsets(
    coordinator: &Coordinator,
    id: &str,
    producer: Producer,
    group: &str,
    offsets: Offsets,
) -> Result<(), ResponseError> {
    let mut inner = coordinator.lock();
    rules::may_store_offsets(inner.state().txns.get(id), producer, group)?;
    if offsets.is_empty() {
        return Ok(());
    }
    inner.append(Entry::TxnOffsets { id: id.to_owned(), group: group.to_owned(), offsets })
}

/// Ends a transaction; when this returns, readers of committed data see the end in every partition.
pub(crate) fn end(
    shared: &Shared,
    id: &str,
    producer: Producer,
    commit: bool,
    now_ms: i64,
) -> Result<(), ResponseError> {
    let mut inner = shared.coordinator.lock();
    match rules::end(inner.state().txns.get(id), producer, commit)? {
        End::AlreadyDone => return Ok(()),
        End::Prepare => {}
    }
    inner.append(Entry::Prepared { id: id.to_owned(), commit, epoch: producer.1, at: now_ms })?;
    drop(inner);
    complete(shared, id, now_ms)
}

fn complete(shared: &Shared, id: &str, now_ms: i64) -> Result<(), ResponseError> {
    let files = complete_in(&shared.coordinator, &shared.topics.now(), id, now_ms)?;
    sync_before_ack(shared.config.fsync, &files).map_err(|error| {
        tracing::error!(%error, "cannot sync transaction markers");
        ResponseError::KafkaStorageError
    })
}

/// Writes the markers of a prepared transaction, then takes note that it is complete. Does nothing when someone else is at it.
fn complete_in(
    coordinator: &Coordinator,
    topics: &TopicMap,
    id: &str,
    now_ms: i64,
) -> Result<Vec<std::sync::Arc<std::fs::File>>, ResponseError> {
    let (producer, commit, places) = {
        let mut inner = coordinator.lock();
        let Some(txn) = inner.state().txns.get(id) else { return Ok(Vec::new()) };
        let TxnState::Prepared { commit } = txn.state else { return Ok(Vec::new()) };
        let work = ((txn.producer_id, txn.epoch), commit, txn.partitions.clone());
        if !inner.completing.insert(id.to_owned()) {
            return Err(ResponseError::ConcurrentTransactions);
        }
        work
    };
    let marker = if commit { Marker::Commit } else { Marker::Abort };
    let mut files = Vec::with_capacity(places.len());
    let mut failed = None;
    for (topic, index) in &places {
        // A partition that is gone needs no marker.
        let Some(partition) = topics.partition(topic, *index) else { continue };
        match partition.end_txn(producer.0, producer.1, marker, now_ms) {
            Ok(file) => files.extend(file),
            Err(ResponseError::UnknownTopicOrPartition) => {}
            Err(error) => failed = Some(error),
        }
    }
    for partition in places.iter().filter_map(|(topic, index)| topics.partition(topic, *index)) {
        partition.wake_readers();
    }
    let mut inner = coordinator.lock();
    inner.completing.remove(id);
    match failed {
        // It stays prepared; the next tick tries again.
        Some(error) => Err(error),
        None => {
            // Lost in a crash, this is found out again: the markers are there.
            inner.journal.append_lazily(Entry::Completed { id: id.to_owned(), at: now_ms });
            Ok(files)
        }
    }
}

/// Aborts what has run out of time and finishes what was left prepared.
pub(crate) fn tick(shared: &Shared, now_ms: i64) {
    let (expired, prepared) = {
        let inner = shared.coordinator.lock();
        let open = || inner.state().open.iter().filter_map(|id| Some((id, inner.state().txns.get(id)?)));
        let expired: Vec<(String, Producer)> = open()
            .filter(|(_, txn)| txn.state == TxnState::Ongoing && now_ms - txn.started_ms > txn.timeout_ms)
            .map(|(id, txn)| (id.clone(), (txn.producer_id, txn.epoch)))
            .collect();
        let prepared: Vec<String> = open()
            .filter(|(id, txn)| matches!(txn.state, TxnState::Prepared { .. }) && !inner.completing.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        (expired, prepared)
    };
    for (id, producer) in expired {
        tracing::info!(transactional_id = id, "aborting a transaction that ran out of time");
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

/// Aborts under a higher epoch, so that its producer learns of it.
fn abort_expired(shared: &Shared, id: &str, producer: Producer, now_ms: i64) -> Result<(), ResponseError> {
    let mut inner = shared.coordinator.lock();
    if !matches!(rules::end(inner.state().txns.get(id), producer, false)?, End::Prepare) {
        return Ok(());
    }
    let epoch = rules::fencing_epoch(producer.1);
    inner.append(Entry::Prepared { id: id.to_owned(), commit: false, epoch, at: now_ms })?;
    drop(inner);
    complete(shared, id, now_ms)
}

/// At start: finishes prepared transactions, lets ongoing ones go on, and ends what no coordinator knows of.
pub(crate) fn recover(coordinator: &Coordinator, topics: &Topics, now_ms: i64) {
    let map = topics.now();
    let mut ongoing: HashMap<i64, Producer> = HashMap::new();
    let mut prepared = Vec::new();
    {
        let inner = coordinator.lock();
        for (id, txn) in inner.state().open.iter().filter_map(|id| Some((id, inner.state().txns.get(id)?))) {
            let producer = (txn.producer_id, txn.epoch);
            let places: Vec<Place> = txn.partitions.iter().cloned().collect();
            // The log knows only what was written; a marker goes to every partition that was announced.
            expect(&map, &places, producer);
            match txn.state {
                TxnState::Prepared { .. } => prepared.push(id.clone()),
                _ => {
                    ongoing.insert(txn.producer_id, producer);
                }
            }
        }
    }
    for id in prepared {
        tracing::info!(transactional_id = id, "finishing a transaction that was prepared before the restart");
        if let Err(error) = complete_in(coordinator, &map, &id, now_ms) {
            tracing::error!(transactional_id = id, %error, "cannot finish a prepared transaction yet");
        }
    }
    for partition in map.iter().flat_map(|topic| &topic.partitions) {
        for (producer_id, epoch) in partition.open_producers() {
            if !ongoing.contains_key(&producer_id) {
                tracing::warn!(partition = partition.name(), producer_id, "aborting a transaction nobody coordinates");
                if let Err(error) = partition.end_txn(producer_id, epoch, Marker::Abort, now_ms) {
                    tracing::error!(partition = partition.name(), %error, "cannot abort a transaction");
                }
            }
        }
    }
}
