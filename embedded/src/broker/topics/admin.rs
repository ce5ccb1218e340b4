//! Creating, growing and deleting topics, and deleting their first records.

use super::configs::{self, Configs};
use super::{Refusal, Topic};
use crate::broker::dispatch::Call;
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

/// Where a setting's value comes from, in the protocol's numbers.
pub(super) const SOURCE_TOPIC: i8 = 1;
pub(super) const SOURCE_DEFAULT: i8 = 5;

pub(crate) fn create(call: &Call<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named: HashMap<StrBytes, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.0.clone()).or_default() += 1;
    }
    let validate_only = request.validate_only;
    let topics = request
        .topics
        .into_iter()
        .map(|asked| {
            let made = if named.get(&asked.name.0).is_some_and(|times| *times > 1) {
                Err(Refusal::new(ResponseError::InvalidRequest, "the topic is named twice in one request"))
            } else {
                create_one(call, &asked, validate_only)
            };
            result_of(asked, made)
        })
        .collect();
    CreateTopicsResponse::default().with_topics(topics)
}

struct Made {
    id: Uuid,
    partitions: i32,
    configs: Configs,
}

fn create_one(call: &Call<'_>, asked: &CreatableTopic, validate_only: bool) -> Result<Made, Refusal> {
    let partitions = partition_count(call, asked)?;
    let mut configs = Configs::new();
    for config in &asked.configs {
        // Null means the default.
        let Some(value) = &config.value else { continue };
        configs::check(&config.name, value).map_err(|reason| Refusal::new(ResponseError::InvalidConfig, reason))?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    if validate_only {
        return match call.shared().topics.now().get(&asked.name) {
            Some(_) => Err(Refusal::new(ResponseError::TopicAlreadyExists, "the topic exists already")),
            None => super::check_name(&asked.name).map(|()| Made { id: Uuid::nil(), partitions, configs }),
        };
    }
    let topic = call.shared().topics.create(&asked.name, partitions, configs)?;
    tracing::info!(topic = asked.name.as_str(), partitions, "created a topic");
    Ok(made_of(&topic, partitions))
}

fn made_of(topic: &Topic, partitions: i32) -> Made {
    Made { id: topic.id, partitions, configs: topic.configs.clone() }
}

fn partition_count(call: &Call<'_>, asked: &CreatableTopic) -> Result<i32, Refusal> {
    let replicas = |text: &str| Err(Refusal::new(ResponseError::InvalidReplicationFactor, text));
    if !asked.assignments.is_empty() {
        if asked.assignments.iter().any(|one| one.broker_ids.len() != 1) {
            return replicas("one node can hold one replica");
        }
        return check_count(call, i32::try_from(asked.assignments.len()).unwrap_or(i32::MAX));
    }
    if !matches!(asked.replication_factor, -1 | 1) {
        return replicas("one node can hold one replica: use a replication factor of 1");
    }
    match asked.num_partitions {
        -1 => Ok(call.shared().config.default_partitions.max(1)),
        count => check_count(call, count),
    }
}

fn check_count(call: &Call<'_>, count: i32) -> Result<i32, Refusal> {
    let max = call.shared().config.limits.partitions_max;
    if (1..=max).contains(&count) {
        Ok(count)
    } else {
        let text = format!("a topic has 1 to {max} partitions here");
        Err(Refusal::new(ResponseError::InvalidPartitions, text))
    }
}

fn result_of(asked: CreatableTopic, made: Result<Made, Refusal>) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(asked.name);
    match made {
        Ok(made) => {
            let configs = configs::SETTINGS
                .iter()
                .map(|setting| {
                    let own = made.configs.contains_key(setting.name);
                    CreatableTopicConfigs::default()
                        .with_name(setting.name.into())
                        .with_value(Some(text(configs::effective(&made.configs, setting))))
                        .with_config_source(if own { SOURCE_TOPIC } else { SOURCE_DEFAULT })
                })
                .collect();
            result
                .with_topic_id(made.id)
                .with_num_partitions(made.partitions)
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

pub(crate) fn delete(call: &Call<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicState> = if call.version >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name))).collect()
    };
    let responses = asked
        .into_iter()
        .map(|asked| {
            let map = call.shared().topics.now();
            let (name, unknown) = match &asked.name {
                Some(name) => (Some(name.to_string()), ResponseError::UnknownTopicOrPartition),
                None => (map.by_id(asked.topic_id).map(|topic| topic.name.to_string()), ResponseError::UnknownTopicId),
            };
            let deleted = name.as_deref().ok_or(unknown).and_then(|name| delete_one(call, name));
            let id = deleted.as_ref().map_or(asked.topic_id, |id| *id);
            DeletableTopicResult::default()
                .with_name(name.map(|name| text(&name).into()))
                .with_topic_id(id)
                .with_error_code(deleted.err().map_or(0, |error| error.code()))
        })
        .collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

fn delete_one(call: &Call<'_>, name: &str) -> Result<Uuid, ResponseError> {
    let topic = call.shared().topics.delete(name)?;
    call.shared().coordinator.forget_topic(name);
    tracing::info!(topic = name, "deleted a topic");
    Ok(topic.id)
}

pub(crate) fn create_partitions(call: &Call<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let validate_only = request.validate_only;
    let results = request
        .topics
        .into_iter()
        .map(|asked| {
            let grown = grow_one(call, &asked, validate_only);
            let result = CreatePartitionsTopicResult::default().with_name(asked.name);
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

fn grow_one(call: &Call<'_>, asked: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    let count = check_count(call, asked.count)?;
    if !validate_only {
        return call.shared().topics.grow(&asked.name, count);
    }
    match call.shared().topics.now().get(&asked.name) {
        None => Err(Refusal::new(ResponseError::UnknownTopicOrPartition, "the topic does not exist")),
        Some(topic) if topic.partitions.len() >= usize::try_from(count).unwrap_or(0) => {
            Err(Refusal::new(ResponseError::InvalidPartitions, "partitions cannot become fewer"))
        }
        Some(_) => Ok(()),
    }
}

pub(crate) fn delete_records(call: &Call<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|asked| {
                    let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
                    match call.shared().topics.delete_records(&topic.name, asked.partition_index, asked.offset) {
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
