//! Requests that create, grow and delete topics, and delete their oldest records.

use super::configs::{self, Configs};
use super::{Topic, TopicChangeError};
use crate::broker::context::RequestContext;
use crate::broker::text;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::HashMap;
use uuid::Uuid;

/// The protocol's numbers for the source of a setting's value.
pub(super) const SOURCE_TOPIC: i8 = 1;
pub(super) const SOURCE_DEFAULT: i8 = 5;

pub(crate) fn create(context: &RequestContext<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named: HashMap<StrBytes, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.0.clone()).or_default() += 1;
    }
    let validate_only = request.validate_only;
    let topics = request
        .topics
        .into_iter()
        .map(|requested| {
            let created = if named.get(&requested.name.0).is_some_and(|times| *times > 1) {
                Err(TopicChangeError::new(ResponseError::InvalidRequest, "the topic is named twice in one request"))
            } else {
                create_one(context, &requested, validate_only)
            };
            result_of(requested, created)
        })
        .collect();
    CreateTopicsResponse::default().with_topics(topics)
}

struct CreatedTopic {
    id: Uuid,
    partitions: i32,
    configs: Configs,
}

fn create_one(
    context: &RequestContext<'_>,
    requested: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatedTopic, TopicChangeError> {
    let partitions = partition_count(context, requested)?;
    let mut configs = Configs::new();
    for config in &requested.configs {
        // Null means the default.
        let Some(value) = &config.value else { continue };
        configs::check(&config.name, value)
            .map_err(|reason| TopicChangeError::new(ResponseError::InvalidConfig, reason))?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    if validate_only {
        return match context.shared().topics.snapshot().get(&requested.name) {
            Some(_) => Err(TopicChangeError::new(ResponseError::TopicAlreadyExists, "the topic exists already")),
            None => super::check_name(&requested.name).map(|()| CreatedTopic { id: Uuid::nil(), partitions, configs }),
        };
    }
    let topic = context.shared().topics.create(&requested.name, partitions, configs)?;
    tracing::info!(topic = requested.name.as_str(), partitions, "created a topic");
    Ok(created_topic(&topic, partitions))
}

fn created_topic(topic: &Topic, partitions: i32) -> CreatedTopic {
    CreatedTopic { id: topic.id, partitions, configs: topic.configs.clone() }
}

fn partition_count(context: &RequestContext<'_>, requested: &CreatableTopic) -> Result<i32, TopicChangeError> {
    let replicas = |text: &str| Err(TopicChangeError::new(ResponseError::InvalidReplicationFactor, text));
    if !requested.assignments.is_empty() {
        if requested.assignments.iter().any(|one| one.broker_ids.len() != 1) {
            return replicas("one node can hold one replica");
        }
        return check_count(context, i32::try_from(requested.assignments.len()).unwrap_or(i32::MAX));
    }
    if !matches!(requested.replication_factor, -1 | 1) {
        return replicas("one node can hold one replica: use a replication factor of 1");
    }
    match requested.num_partitions {
        -1 => Ok(context.shared().config.default_partitions.max(1)),
        count => check_count(context, count),
    }
}

fn check_count(context: &RequestContext<'_>, count: i32) -> Result<i32, TopicChangeError> {
    let max = context.shared().config.limits.partitions_max;
    if (1..=max).contains(&count) {
        Ok(count)
    } else {
        let text = format!("a topic has 1 to {max} partitions here");
        Err(TopicChangeError::new(ResponseError::InvalidPartitions, text))
    }
}

fn result_of(requested: CreatableTopic, created: Result<CreatedTopic, TopicChangeError>) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(requested.name);
    match created {
        Ok(created) => {
            let configs = configs::SETTINGS
                .iter()
                .map(|setting| {
                    let own = created.configs.contains_key(setting.name);
                    CreatableTopicConfigs::default()
                        .with_name(setting.name.into())
                        .with_value(Some(text(configs::effective(&created.configs, setting))))
                        .with_config_source(if own { SOURCE_TOPIC } else { SOURCE_DEFAULT })
                })
                .collect();
            result
                .with_topic_id(created.id)
                .with_num_partitions(created.partitions)
                .with_replication_factor(1)
                .with_configs(Some(configs))
        }
        Err(refusal) => result
            .with_error_code(refusal.error.code())
            .with_error_message(Some(text(&refusal.text)))
            .with_num_partitions(-1)
            .with_replication_factor(-1),
    }
}

pub(crate) fn delete(context: &RequestContext<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let requested: Vec<DeleteTopicState> = if context.version >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name))).collect()
    };
    let responses = requested
        .into_iter()
        .map(|requested| {
            let map = context.shared().topics.snapshot();
            let (name, unknown) = match &requested.name {
                Some(name) => (Some(name.to_string()), ResponseError::UnknownTopicOrPartition),
                None => {
                    (map.by_id(requested.topic_id).map(|topic| topic.name.to_string()), ResponseError::UnknownTopicId)
                }
            };
            let deleted = name.as_deref().ok_or(unknown).and_then(|name| delete_one(context, name));
            let id = deleted.as_ref().map_or(requested.topic_id, |id| *id);
            DeletableTopicResult::default()
                .with_name(name.map(|name| text(&name).into()))
                .with_topic_id(id)
                .with_error_code(deleted.err().map_or(0, |error| error.code()))
        })
        .collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

fn delete_one(context: &RequestContext<'_>, name: &str) -> Result<Uuid, ResponseError> {
    let topic = context.shared().topics.delete(name)?;
    context.shared().coordinator.forget_topic(name);
    tracing::info!(topic = name, "deleted a topic");
    Ok(topic.id)
}

pub(crate) fn create_partitions(
    context: &RequestContext<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let validate_only = request.validate_only;
    let results = request
        .topics
        .into_iter()
        .map(|requested| {
            let grown = grow_one(context, &requested, validate_only);
            let result = CreatePartitionsTopicResult::default().with_name(requested.name);
            match grown {
                Ok(()) => result,
                Err(refusal) => {
                    result.with_error_code(refusal.error.code()).with_error_message(Some(text(&refusal.text)))
                }
            }
        })
        .collect();
    CreatePartitionsResponse::default().with_results(results)
}

fn grow_one(
    context: &RequestContext<'_>,
    requested: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), TopicChangeError> {
    let count = check_count(context, requested.count)?;
    if !validate_only {
        return context.shared().topics.grow(&requested.name, count);
    }
    match context.shared().topics.snapshot().get(&requested.name) {
        None => Err(TopicChangeError::new(ResponseError::UnknownTopicOrPartition, "the topic does not exist")),
        Some(topic) if topic.partitions.len() >= usize::try_from(count).unwrap_or(0) => {
            Err(TopicChangeError::new(ResponseError::InvalidPartitions, "partitions cannot become fewer"))
        }
        Some(_) => Ok(()),
    }
}

pub(crate) fn delete_records(context: &RequestContext<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|requested| {
                    let result =
                        DeleteRecordsPartitionResult::default().with_partition_index(requested.partition_index);
                    match context.shared().topics.delete_records(
                        &topic.name,
                        requested.partition_index,
                        requested.offset,
                    ) {
                        Ok(start) => result.with_low_watermark(start),
                        Err(error) => result.with_low_watermark(-1).with_error_code(error.code()),
                    }
                })
                .collect();
            DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
        })
        .collect();
    DeleteRecordsResponse::default().with_topics(topics)
}
