//! Metadata: brokers, topics and leaders. On a single node, every partition's leader is this broker.

use super::{Topic, TopicChangeError};
use crate::broker::NODE_ID;
use crate::broker::context::RequestContext;
use crate::broker::log::LEADER_EPOCH;
use crate::broker::topics::configs::Configs;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use std::sync::Arc;

/// The client did not request the set of allowed operations.
const NO_OPERATIONS: i32 = i32::MIN;

pub(crate) fn metadata(context: &RequestContext<'_>, request: MetadataRequest) -> MetadataResponse {
    let shared = context.shared();
    let may_create = shared.config.auto_create_topics && (request.allow_auto_topic_creation || context.version < 4);
    // In version 0 an empty list requests all topics, in later versions null does.
    let topics = match request.topics {
        Some(topics) if !(topics.is_empty() && context.version == 0) => {
            topics.into_iter().map(|topic| describe_requested(context, topic, may_create)).collect()
        }
        _ => shared.topics.snapshot().iter().map(|topic| describe(topic, context.version)).collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(shared.host.clone())
        .with_port(shared.port);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(crate::broker::text(&shared.cluster_id)))
        .with_controller_id(BrokerId(NODE_ID))
        .with_cluster_authorized_operations(NO_OPERATIONS)
        .with_topics(topics)
}

fn describe_requested(
    context: &RequestContext<'_>,
    requested: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let map = context.shared().topics.snapshot();
    let Some(name) = requested.name.filter(|_| requested.topic_id.is_nil()) else {
        return match map.by_id(requested.topic_id) {
            Some(topic) => describe(topic, context.version),
            None => {
                // Null is not a name before version 12.
                let name = (context.version < 12).then(TopicName::default);
                refused(name, ResponseError::UnknownTopicId).with_topic_id(requested.topic_id)
            }
        };
    };
    match map.get(&name) {
        Some(topic) => describe(topic, context.version),
        None if may_create => {
            let partitions = context.shared().config.default_partitions.max(1);
            match context.shared().topics.create(&name, partitions, Configs::new()) {
                Ok(topic) => describe(&topic, context.version),
                Err(TopicChangeError { error, .. }) => refused(Some(name), error),
            }
        }
        None => refused(Some(name), ResponseError::UnknownTopicOrPartition),
    }
}

fn describe(topic: &Arc<Topic>, version: i16) -> MetadataResponseTopic {
    let partitions = (0_i32..)
        .take(topic.partitions.len())
        .map(|index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(NODE_ID))
                .with_leader_epoch(if version >= 7 { LEADER_EPOCH } else { -1 })
                .with_replica_nodes(vec![BrokerId(NODE_ID)])
                .with_isr_nodes(vec![BrokerId(NODE_ID)])
        })
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(topic.name.clone().into()))
        .with_topic_id(topic.id)
        .with_partitions(partitions)
        .with_topic_authorized_operations(NO_OPERATIONS)
}

fn refused(name: Option<TopicName>, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_authorized_operations(NO_OPERATIONS)
}
