//! Committed offsets: commit, fetch and delete, alone or inside a transaction.
//!
//! Knows the protocol's shapes. Whether a member may commit is the group's word; what is stored is the coordinator's.

use super::coordinator::{Committed, CoordinatorLedger, Entry, Offsets, Place};
use super::dispatch::Call;
use super::groups::machine::Committer;
use super::text;
use super::transactions;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

/// Kafka's `offset.metadata.max.bytes`.
const METADATA_MAX: usize = 4096;

/// One partition of a commit, as both kinds of commit ask for it.
struct Ask<'a> {
    topic: &'a TopicName,
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: Option<&'a StrBytes>,
}

/// Sorts out what cannot be committed; answers an error code per ask and what is left.
fn sift(call: &Call<'_>, asks: &[Ask<'_>]) -> (Vec<Option<ResponseError>>, Offsets) {
    let topics = call.shared().topics.now();
    let mut offsets = Offsets::new();
    let errors = asks
        .iter()
        .map(|ask| {
            let metadata = ask.metadata.map(StrBytes::as_str).unwrap_or_default();
            if topics.partition(ask.topic, ask.partition).is_none() {
                return Some(ResponseError::UnknownTopicOrPartition);
            }
            if metadata.len() > METADATA_MAX {
                return Some(ResponseError::OffsetMetadataTooLarge);
            }
            let place: Place = (ask.topic.to_string(), ask.partition);
            let metadata = metadata.to_owned();
            offsets.push((place, Committed { offset: ask.offset, leader_epoch: ask.leader_epoch, metadata }));
            None
        })
        .collect();
    (errors, offsets)
}

/// The code for each ask: its own error, else that of the whole commit.
fn codes(errors: &[Option<ResponseError>], whole: Result<(), ResponseError>) -> Vec<i16> {
    errors.iter().map(|own| own.or(whole.err()).map_or(0, |error| error.code())).collect()
}

pub(crate) fn commit(call: &Call<'_>, request: &OffsetCommitRequest) -> OffsetCommitResponse {
    let asks: Vec<Ask<'_>> = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| Ask {
                topic: &topic.name,
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_ref(),
            })
        })
        .collect();
    let (errors, offsets) = sift(call, &asks);
    let committer = Committer {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
        in_txn: false,
    };
    let stored = call.shared().groups.while_allowed(&request.group_id, &committer, || {
        if offsets.is_empty() {
            return Ok(());
        }
        call.shared().coordinator.lock().append(Entry::Offsets { group: request.group_id.to_string(), offsets })
    });
    let mut codes = codes(&errors, stored).into_iter();
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| {
                    OffsetCommitResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(codes.next().unwrap_or_default())
                })
                .collect();
            OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        })
        .collect();
    OffsetCommitResponse::default().with_topics(topics)
}

pub(crate) fn commit_in_txn(call: &Call<'_>, request: &TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let asks: Vec<Ask<'_>> = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| Ask {
                topic: &topic.name,
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_ref(),
            })
        })
        .collect();
    let (errors, offsets) = sift(call, &asks);
    let committer = Committer {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
        in_txn: true,
    };
    let stored = call.shared().groups.while_allowed(&request.group_id, &committer, || {
        transactions::store_offsets(
            &call.shared().coordinator,
            &request.transactional_id,
            (request.producer_id.0, request.producer_epoch),
            &request.group_id,
            offsets,
        )
    });
    let mut codes = codes(&errors, stored).into_iter();
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| {
                    TxnOffsetCommitResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(codes.next().unwrap_or_default())
                })
                .collect();
            TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        })
        .collect();
    TxnOffsetCommitResponse::default().with_topics(topics)
}

/// One partition of an answer to an offset fetch.
struct Answer {
    partition: i32,
    error: i16,
    committed: Committed,
}

fn look_up(ledger: &CoordinatorLedger, group: &str, topic: &str, partition: i32, stable: bool) -> Answer {
    let place = (topic.to_owned(), partition);
    let none = || Committed { offset: -1, leader_epoch: -1, metadata: String::new() };
    if stable && ledger.is_pending(group, &place) {
        return Answer { partition, error: ResponseError::UnstableOffsetCommit.code(), committed: none() };
    }
    let committed = ledger.groups.get(group).and_then(|record| record.offsets.get(&place)).cloned();
    Answer { partition, error: 0, committed: committed.unwrap_or_else(none) }
}

/// What is asked for, or everything the group has committed.
fn wanted(ledger: &CoordinatorLedger, group: &str, asked: Option<Vec<(String, Vec<i32>)>>) -> Vec<(String, Vec<i32>)> {
    if let Some(asked) = asked {
        return asked;
    }
    let mut all: Vec<(String, Vec<i32>)> = Vec::new();
    let places = ledger.groups.get(group).into_iter().flat_map(|record| record.offsets.keys());
    for (topic, partition) in places {
        match all.last_mut() {
            Some((last, partitions)) if last == topic => partitions.push(*partition),
            _ => all.push((topic.clone(), vec![*partition])),
        }
    }
    all
}

pub(crate) fn fetch(call: &Call<'_>, request: &OffsetFetchRequest) -> OffsetFetchResponse {
    let inner = call.shared().coordinator.lock();
    let ledger = inner.state();
    if call.version < 8 {
        return fetch_one(ledger, request);
    }
    let groups = request
        .groups
        .iter()
        .map(|group| {
            let asked = group.topics.as_ref().map(|topics| {
                topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect()
            });
            let topics = wanted(ledger, &group.group_id, asked)
                .into_iter()
                .map(|(topic, partitions)| {
                    let partitions = partitions
                        .into_iter()
                        .map(|index| {
                            let answer = look_up(ledger, &group.group_id, &topic, index, request.require_stable);
                            OffsetFetchResponsePartitions::default()
                                .with_partition_index(answer.partition)
                                .with_error_code(answer.error)
                                .with_committed_offset(answer.committed.offset)
                                .with_committed_leader_epoch(answer.committed.leader_epoch)
                                .with_metadata(Some(text(&answer.committed.metadata)))
                        })
                        .collect();
                    OffsetFetchResponseTopics::default().with_name(text(&topic).into()).with_partitions(partitions)
                })
                .collect();
            OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone()).with_topics(topics)
        })
        .collect();
    OffsetFetchResponse::default().with_groups(groups)
}

fn fetch_one(ledger: &CoordinatorLedger, request: &OffsetFetchRequest) -> OffsetFetchResponse {
    let asked = request
        .topics
        .as_ref()
        .map(|topics| topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect());
    let topics = wanted(ledger, &request.group_id, asked)
        .into_iter()
        .map(|(topic, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|index| {
                    let answer = look_up(ledger, &request.group_id, &topic, index, request.require_stable);
                    OffsetFetchResponsePartition::default()
                        .with_partition_index(answer.partition)
                        .with_error_code(answer.error)
                        .with_committed_offset(answer.committed.offset)
                        .with_committed_leader_epoch(answer.committed.leader_epoch)
                        .with_metadata(Some(text(&answer.committed.metadata)))
                })
                .collect();
            OffsetFetchResponseTopic::default().with_name(text(&topic).into()).with_partitions(partitions)
        })
        .collect();
    OffsetFetchResponse::default().with_topics(topics)
}

pub(crate) fn delete(call: &Call<'_>, request: &OffsetDeleteRequest) -> OffsetDeleteResponse {
    let group: &str = &request.group_id;
    let known = call.shared().coordinator.lock().state().groups.contains_key(group);
    let subscribed = match call.shared().groups.subscribed_topics(group) {
        None if !known => {
            return OffsetDeleteResponse::default().with_error_code(ResponseError::GroupIdNotFound.code());
        }
        subscribed => subscribed.unwrap_or_default(),
    };
    let mut places = Vec::new();
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let in_use = subscribed.contains(topic.name.as_str());
            let code = if in_use { ResponseError::GroupSubscribedToTopic.code() } else { 0 };
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| {
                    if !in_use {
                        places.push((topic.name.to_string(), partition.partition_index));
                    }
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code)
                })
                .collect();
            OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        })
        .collect();
    let deleted = call.shared().coordinator.lock().append(Entry::OffsetsDeleted { group: group.to_owned(), places });
    let code = deleted.err().map_or(0, |error| error.code());
    OffsetDeleteResponse::default().with_error_code(code).with_topics(topics)
}
