//! Produce: appends a request's batches to the logs of its partitions.
//!
//! Knows the errors of a whole request. The log validates each batch.

use super::context::RequestContext;
use super::log::AppendResult;
use super::sync::now_ms;
use super::sync_before_ack;
use super::topics::TopicMap;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use std::fs::File;
use std::sync::Arc;

pub(crate) fn produce(context: &RequestContext<'_>, request: ProduceRequest) -> ProduceResponse {
    let topics = context.shared().topics.snapshot();
    let valid_acks = matches!(request.acks, -1..=1);
    let mut files = Vec::new();
    let responses = request
        .topic_data
        .into_iter()
        .map(|data| {
            if valid_acks {
                append_topic(&topics, data, &mut files)
            } else {
                refuse_topic(data, ResponseError::InvalidRequiredAcks)
            }
        })
        .collect();
    let mut response = ProduceResponse::default().with_responses(responses);
    if let Err(error) = sync_before_ack(context.shared().config.fsync, &files) {
        tracing::error!(%error, "cannot sync produced records");
        refuse_appended(&mut response);
    }
    response
}

fn append_topic(topics: &TopicMap, data: TopicProduceData, files: &mut Vec<Arc<File>>) -> TopicProduceResponse {
    let topic = topics.get(&data.name);
    let now_ms = now_ms();
    let partitions = data
        .partition_data
        .into_iter()
        .map(|PartitionProduceData { index, records, .. }| {
            let appended = topic
                .and_then(|topic| topic.partition(index))
                .ok_or(ResponseError::UnknownTopicOrPartition)
                .and_then(|partition| partition.append(&records.unwrap_or_else(Bytes::new), now_ms));
            partition_response(index, appended, files)
        })
        .collect();
    TopicProduceResponse::default().with_name(data.name).with_partition_responses(partitions)
}

fn partition_response(
    index: i32,
    appended: Result<AppendResult, ResponseError>,
    files: &mut Vec<Arc<File>>,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index).with_log_append_time_ms(-1);
    match appended {
        Ok(appended) => {
            files.push(appended.file);
            response
                .with_base_offset(appended.base_offset)
                .with_log_append_time_ms(appended.append_time_ms)
                .with_log_start_offset(appended.log_start)
        }
        Err(error) => {
            tracing::debug!(partition = index, %error, "rejected a produced batch");
            response.with_error_code(error.code()).with_base_offset(-1).with_log_start_offset(-1)
        }
    }
}

fn refuse_topic(data: TopicProduceData, error: ResponseError) -> TopicProduceResponse {
    let partitions = data
        .partition_data
        .iter()
        .map(|partition| partition_response(partition.index, Err(error), &mut Vec::new()))
        .collect();
    TopicProduceResponse::default().with_name(data.name).with_partition_responses(partitions)
}

fn refuse_appended(response: &mut ProduceResponse) {
    for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
        if partition.error_code == 0 {
            partition.error_code = ResponseError::KafkaStorageError.code();
            partition.base_offset = -1;
        }
    }
}
