//! Requests that describe the broker: coordinators, the cluster, its disk, the producers of a partition.

use super::context::RequestContext;
use super::{NODE_ID, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterResponse, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, FindCoordinatorRequest, FindCoordinatorResponse,
};
use kafka_protocol::protocol::StrBytes;

/// The client did not request the set of allowed operations.
const NO_OPERATIONS: i32 = i32::MIN;
/// Coordinator types in the protocol; 2 stands for share groups.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) fn find_coordinator(
    context: &RequestContext<'_>,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let shared = context.shared();
    let known_kind = matches!(request.key_type, GROUP | TRANSACTION);
    if context.version >= 4 {
        let coordinators = request
            .coordinator_keys
            .into_iter()
            .map(|key| match check_key(&key, known_kind) {
                Ok(()) => Coordinator::default()
                    .with_key(key)
                    .with_node_id(BrokerId(NODE_ID))
                    .with_host(shared.host.clone())
                    .with_port(shared.port),
                Err(error) => Coordinator::default()
                    .with_key(key)
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(error.code()),
            })
            .collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    match check_key(&request.key, known_kind) {
        Ok(()) => FindCoordinatorResponse::default()
            .with_node_id(BrokerId(NODE_ID))
            .with_host(shared.host.clone())
            .with_port(shared.port),
        Err(error) => {
            FindCoordinatorResponse::default().with_error_code(error.code()).with_node_id(BrokerId(-1)).with_port(-1)
        }
    }
}

fn check_key(key: &StrBytes, known_kind: bool) -> Result<(), ResponseError> {
    match (known_kind, key.is_empty()) {
        (false, _) => Err(ResponseError::InvalidRequest),
        (true, true) => Err(ResponseError::InvalidGroupId),
        (true, false) => Ok(()),
    }
}

pub(crate) fn cluster(context: &RequestContext<'_>) -> DescribeClusterResponse {
    let shared = context.shared();
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(shared.host.clone())
        .with_port(shared.port);
    DescribeClusterResponse::default()
        .with_cluster_id(text(&shared.cluster_id))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(NO_OPERATIONS)
}

pub(crate) fn log_dirs(context: &RequestContext<'_>, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let map = context.shared().topics.snapshot();
    let wanted = |name: &str, index: i32| {
        request.topics.as_ref().is_none_or(|topics| {
            topics.iter().any(|topic| topic.topic.as_str() == name && topic.partitions.contains(&index))
        })
    };
    let topics = map
        .iter()
        .map(|topic| {
            let partitions = (0_i32..)
                .zip(&topic.partitions)
                .filter(|(index, _)| wanted(&topic.name, *index))
                .map(|(index, partition)| {
                    DescribeLogDirsPartition::default()
                        .with_partition_index(index)
                        .with_partition_size(i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX))
                })
                .collect::<Vec<_>>();
            DescribeLogDirsTopic::default().with_name(topic.name.clone().into()).with_partitions(partitions)
        })
        .filter(|topic| !topic.partitions.is_empty())
        .collect();
    let dir = context.shared().topics.dir().to_string_lossy();
    let result = DescribeLogDirsResult::default()
        .with_log_dir(text(&dir))
        .with_topics(topics)
        .with_total_bytes(-1)
        .with_usable_bytes(-1);
    DescribeLogDirsResponse::default().with_results(vec![result])
}

pub(crate) fn producers(context: &RequestContext<'_>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let map = context.shared().topics.snapshot();
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partition_indexes
                .iter()
                .map(|index| {
                    let response = PartitionResponse::default().with_partition_index(*index);
                    match map.partition(&topic.name, *index) {
                        Some(partition) => {
                            response.with_active_producers(partition.producers().into_iter().map(state_of).collect())
                        }
                        None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                    }
                })
                .collect();
            TopicResponse::default().with_name(topic.name).with_partitions(partitions)
        })
        .collect();
    DescribeProducersResponse::default().with_topics(topics)
}

fn state_of((id, epoch, sequence, timestamp, first_open): (i64, i16, i32, i64, i64)) -> ProducerState {
    ProducerState::default()
        .with_producer_id(id.into())
        .with_producer_epoch(i32::from(epoch))
        .with_last_sequence(sequence)
        .with_last_timestamp(timestamp)
        .with_coordinator_epoch(0)
        .with_current_txn_start_offset(first_open)
}
