//! Metadata: where everything is, which on one node is always here.

use super::{Refusal, Topic};
use crate::broker::NODE_ID;
use crate::broker::dispatch::Call;
use crate::broker::log::LEADER_EPOCH;
use crate::broker::topics::configs::Configs;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use std::sync::Arc;

/// "Not asked for", in place of a set of allowed operations.
const NO_OPERATIONS: i32 = i32::MIN;

pub(crate) fn metadata(call: &Call<'_>, request: MetadataRequest) -> MetadataResponse {
    let shared = call.shared();
    let may_create = shared.config.auto_create_topics && (request.allow_auto_topic_creation || call.version < 4);
    // In version 0 an empty list asks for all topics, later null does.
    let topics = match request.topics {
        Some(topics) if !(topics.is_empty() && call.version == 0) => {
            topics.into_iter().map(|topic| describe_asked(call, topic, may_create)).collect()
        }
        _ => shared.topics.now().iter().map(|topic| describe(topic, call.version)).collect(),
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

fn describe_asked(call: &Call<'_>, asked: MetadataRequestTopic, may_create: bool) -> MetadataResponseTopic {
    let map = call.shared().topics.now();
    let Some(name) = asked.name.filter(|_| asked.topic_id.is_nil()) else {
        return match map.by_id(asked.topic_id) {
            Some(topic) => describe(topic, call.version),
            None => {
                // Null is not a name before version 12.
                let name = (call.version < 12).then(TopicName::default);
                refused(name, ResponseError::UnknownTopicId).with_topic_id(asked.topic_id)
            }
        };
    };
    match map.get(&name) {
        Some(topic) => describe(topic, call.version),
        None if may_create => {
            let partitions = call.shared().config.default_partitions.max(1);
            match call.shared().topics.create(&name, partitions, Configs::new()) {
                Ok(topic) => describe(&topic, call.version),
                Err(Refusal { error, .. }) => refused(Some(name), error),
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
