//! Committed offsets: commit, fetch and delete, alone or inside a transaction.
//!
//! Owns the protocol's request and response types. The group decides whether a member may commit; the coordinator stores.

use super::context::RequestContext;
use super::coordinator::{CommittedOffset, CoordinatorEntry, CoordinatorLedger, OffsetEntries, TopicPartition};
use super::groups::machine::OffsetCommitter;
use super::text;
use super::topics::TopicMap;
use super::transactions;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
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

/// One partition of a commit: the same fields in both kinds of commit request.
struct RequestedPartition<'a> {
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: Option<&'a StrBytes>,
}

impl<'a> From<&'a OffsetCommitRequestPartition> for RequestedPartition<'a> {
    fn from(requested: &'a OffsetCommitRequestPartition) -> Self {
        let (offset, leader_epoch) = (requested.committed_offset, requested.committed_leader_epoch);
        let metadata = requested.committed_metadata.as_ref();
        RequestedPartition { partition: requested.partition_index, offset, leader_epoch, metadata }
    }
}

impl<'a> From<&'a TxnOffsetCommitRequestPartition> for RequestedPartition<'a> {
    fn from(requested: &'a TxnOffsetCommitRequestPartition) -> Self {
        let (offset, leader_epoch) = (requested.committed_offset, requested.committed_leader_epoch);
        let metadata = requested.committed_metadata.as_ref();
        RequestedPartition { partition: requested.partition_index, offset, leader_epoch, metadata }
    }
}

/// A topic and its partitions, as a commit request lists them.
type RequestedTopic<'a> = (&'a TopicName, Vec<RequestedPartition<'a>>);

/// A topic, and partition number and error code of each of its partitions.
type TopicCodes = (TopicName, Vec<(i32, i16)>);

fn requested_topic<'a, P>(name: &'a TopicName, partitions: &'a [P]) -> RequestedTopic<'a>
where
    RequestedPartition<'a>: From<&'a P>,
{
    (name, partitions.iter().map(RequestedPartition::from).collect())
}

/// The offset to store, or the reason why this partition cannot be committed.
fn validate(
    topics: &TopicMap,
    topic: &TopicName,
    requested: &RequestedPartition<'_>,
) -> Result<(TopicPartition, CommittedOffset), ResponseError> {
    let metadata = requested.metadata.map(StrBytes::as_str).unwrap_or_default();
    if topics.partition(topic, requested.partition).is_none() {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    if metadata.len() > METADATA_MAX {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let RequestedPartition { partition, offset, leader_epoch, .. } = *requested;
    Ok(((topic.to_string(), partition), CommittedOffset { offset, leader_epoch, metadata: metadata.to_owned() }))
}

/// Stores the valid offsets if the group lets this committer commit. Returns each partition's error code: its own error, else
/// that of the whole commit.
fn commit_requested(
    context: &RequestContext<'_>,
    group: &str,
    committer: &OffsetCommitter<'_>,
    requested: &[RequestedTopic<'_>],
    store: impl FnOnce(OffsetEntries) -> Result<(), ResponseError>,
) -> Vec<TopicCodes> {
    let topics = context.shared().topics.snapshot();
    let mut offsets = OffsetEntries::new();
    let mut errors = Vec::new();
    for (topic, partitions) in requested {
        for partition in partitions {
            match validate(&topics, topic, partition) {
                Ok(offset) => {
                    offsets.push(offset);
                    errors.push(None);
                }
                Err(error) => errors.push(Some(error)),
            }
        }
    }
    let stored = context.shared().groups.commit_if_allowed(group, committer, || store(offsets));
    let mut codes = errors.into_iter().map(|own| own.or(stored.err()).map_or(0, |error| error.code()));
    requested
        .iter()
        .map(|(topic, partitions)| {
            let numbers = partitions.iter().map(|partition| partition.partition);
            ((*topic).clone(), numbers.zip(codes.by_ref()).collect())
        })
        .collect()
}

pub(crate) fn commit(context: &RequestContext<'_>, request: &OffsetCommitRequest) -> OffsetCommitResponse {
    let committer = OffsetCommitter {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
        in_txn: false,
    };
    let requested: Vec<_> =
        request.topics.iter().map(|topic| requested_topic(&topic.name, &topic.partitions)).collect();
    let committed = commit_requested(context, &request.group_id, &committer, &requested, |offsets| {
        if offsets.is_empty() {
            return Ok(());
        }
        let group = request.group_id.to_string();
        context.shared().coordinator.lock().append(CoordinatorEntry::Offsets { group, offsets })
    });
    let topic_response = |(name, codes): TopicCodes| {
        let response = |(partition, code)| {
            OffsetCommitResponsePartition::default().with_partition_index(partition).with_error_code(code)
        };
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(codes.into_iter().map(response).collect())
    };
    OffsetCommitResponse::default().with_topics(committed.into_iter().map(topic_response).collect())
}

pub(crate) fn commit_in_txn(context: &RequestContext<'_>, request: &TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let committer = OffsetCommitter {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
        in_txn: true,
    };
    let requested: Vec<_> =
        request.topics.iter().map(|topic| requested_topic(&topic.name, &topic.partitions)).collect();
    let committed = commit_requested(context, &request.group_id, &committer, &requested, |offsets| {
        let producer = (request.producer_id.0, request.producer_epoch);
        let coordinator = &context.shared().coordinator;
        transactions::store_offsets(coordinator, &request.transactional_id, producer, &request.group_id, offsets)
    });
    let topic_response = |(name, codes): TopicCodes| {
        let response = |(partition, code)| {
            TxnOffsetCommitResponsePartition::default().with_partition_index(partition).with_error_code(code)
        };
        TxnOffsetCommitResponseTopic::default()
            .with_name(name)
            .with_partitions(codes.into_iter().map(response).collect())
    };
    TxnOffsetCommitResponse::default().with_topics(committed.into_iter().map(topic_response).collect())
}

/// One partition of the response to an offset fetch.
struct FetchedOffset {
    partition: i32,
    error: i16,
    committed: CommittedOffset,
}

/// The topics of an offset fetch with their partition numbers; `None` requests everything the group has committed.
type FetchedTopics = Option<Vec<(String, Vec<i32>)>>;

fn fetch_offset(
    ledger: &CoordinatorLedger,
    group: &str,
    topic: &str,
    partition: i32,
    require_stable: bool,
) -> FetchedOffset {
    let topic_partition = (topic.to_owned(), partition);
    let none = || CommittedOffset { offset: -1, leader_epoch: -1, metadata: String::new() };
    if require_stable && ledger.is_pending(group, &topic_partition) {
        return FetchedOffset { partition, error: ResponseError::UnstableOffsetCommit.code(), committed: none() };
    }
    let committed = ledger.groups.get(group).and_then(|record| record.offsets.get(&topic_partition)).cloned();
    FetchedOffset { partition, error: 0, committed: committed.unwrap_or_else(none) }
}

/// The requested partitions, or all partitions in which the group has committed.
fn requested_or_all(ledger: &CoordinatorLedger, group: &str, requested: FetchedTopics) -> Vec<(String, Vec<i32>)> {
    if let Some(requested) = requested {
        return requested;
    }
    let mut all: Vec<(String, Vec<i32>)> = Vec::new();
    let committed = ledger.groups.get(group).into_iter().flat_map(|record| record.offsets.keys());
    for (topic, partition) in committed {
        match all.last_mut() {
            Some((last, partitions)) if last == topic => partitions.push(*partition),
            _ => all.push((topic.clone(), vec![*partition])),
        }
    }
    all
}

/// The offsets of one group: a response topic for each requested topic.
fn fetch_group<T>(
    ledger: &CoordinatorLedger,
    group: &str,
    requested: FetchedTopics,
    require_stable: bool,
    response: impl Fn(TopicName, Vec<FetchedOffset>) -> T,
) -> Vec<T> {
    requested_or_all(ledger, group, requested)
        .into_iter()
        .map(|(topic, partitions)| {
            let fetched = partitions
                .into_iter()
                .map(|partition| fetch_offset(ledger, group, &topic, partition, require_stable))
                .collect();
            response(text(&topic).into(), fetched)
        })
        .collect()
}

/// From version 8 on a request names many groups, before that exactly one.
pub(crate) fn fetch(context: &RequestContext<'_>, request: &OffsetFetchRequest) -> OffsetFetchResponse {
    let state = context.shared().coordinator.lock();
    let ledger = state.ledger();
    if context.version < 8 {
        let requested = request.topics.as_ref().map(|topics| {
            topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect()
        });
        let topics = fetch_group(ledger, &request.group_id, requested, request.require_stable, one_group_topic);
        return OffsetFetchResponse::default().with_topics(topics);
    }
    let groups = request
        .groups
        .iter()
        .map(|group| {
            let requested = group.topics.as_ref().map(|topics| {
                topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect()
            });
            let topics = fetch_group(ledger, &group.group_id, requested, request.require_stable, many_groups_topic);
            OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone()).with_topics(topics)
        })
        .collect();
    OffsetFetchResponse::default().with_groups(groups)
}

fn one_group_topic(name: TopicName, fetched: Vec<FetchedOffset>) -> OffsetFetchResponseTopic {
    let partition = |FetchedOffset { partition, error, committed }| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_error_code(error)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata)))
    };
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(fetched.into_iter().map(partition).collect())
}

fn many_groups_topic(name: TopicName, fetched: Vec<FetchedOffset>) -> OffsetFetchResponseTopics {
    let partition = |FetchedOffset { partition, error, committed }| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(partition)
            .with_error_code(error)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata)))
    };
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(fetched.into_iter().map(partition).collect())
}

pub(crate) fn delete(context: &RequestContext<'_>, request: &OffsetDeleteRequest) -> OffsetDeleteResponse {
    let group: &str = &request.group_id;
    let known = context.shared().coordinator.lock().ledger().groups.contains_key(group);
    let subscribed = match context.shared().groups.subscribed_topics(group) {
        None if !known => {
            return OffsetDeleteResponse::default().with_error_code(ResponseError::GroupIdNotFound.code());
        }
        subscribed => subscribed.unwrap_or_default(),
    };
    let mut deleted = Vec::new();
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
                        deleted.push((topic.name.to_string(), partition.partition_index));
                    }
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code)
                })
                .collect();
            OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        })
        .collect();
    let entry = CoordinatorEntry::OffsetsDeleted { group: group.to_owned(), topic_partitions: deleted };
    let stored = context.shared().coordinator.lock().append(entry);
    let code = stored.err().map_or(0, |error| error.code());
    OffsetDeleteResponse::default().with_error_code(code).with_topics(topics)
}
