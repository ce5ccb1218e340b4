//! Produce: appends a request's batches to the logs of its partitions.
//!
//! Knows the errors of a whole request. The log validates each batch.

use super::context::RequestContext;
use super::log::batch::BatchHeader;
use super::log::{AppendContext, AppendResult, ProduceRefusal};
use super::sync::now_ms;
use super::sync_before_ack;
use super::topics::TopicMap;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use std::fs::File;
use std::sync::Arc;

/// The first version whose response states why records were refused.
const REASONS_SINCE: i16 = 8;

pub(crate) fn produce(context: &RequestContext<'_>, request: ProduceRequest) -> ProduceResponse {
    let topics = context.shared().topics.snapshot();
    let refused = refusal_of(&request);
    let append = AppendContext {
        now_ms: now_ms(),
        version: context.version,
        inflated_bytes_max: context.shared().config.limits.inflated_bytes_max,
    };
    let mut files = Vec::new();
    let responses = request
        .topic_data
        .into_iter()
        .map(|data| match refused {
            None => append_topic(&topics, data, append, &mut files),
            Some(error) => refuse_topic(data, error),
        })
        .collect();
    let mut response = ProduceResponse::default().with_responses(responses);
    if let Err(error) = sync_before_ack(context.shared().config.fsync, &files) {
        tracing::error!(%error, "cannot sync produced records");
        refuse_appended(&mut response);
    }
    for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
        keep_to_version(partition, context.version);
    }
    response
}

/// The error of a whole request, if it has one.
fn refusal_of(request: &ProduceRequest) -> Option<ResponseError> {
    let is_transactional = |records: &Bytes| BatchHeader::parse(records).is_ok_and(|header| header.is_transactional());
    let partitions = || request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    if !matches!(request.acks, -1..=1) {
        Some(ResponseError::InvalidRequiredAcks)
    } else if request.transactional_id.is_none()
        && partitions().filter_map(|partition| partition.records.as_ref()).any(is_transactional)
    {
        Some(ResponseError::TransactionalIdAuthorizationFailed)
    } else {
        None
    }
}

fn append_topic(
    topics: &TopicMap,
    data: TopicProduceData,
    context: AppendContext,
    files: &mut Vec<Arc<File>>,
) -> TopicProduceResponse {
    let topic = topics.get(&data.name);
    let partitions = data
        .partition_data
        .into_iter()
        .map(|PartitionProduceData { index, records, .. }| {
            let partition = topic.and_then(|topic| topic.partition(index));
            let appended = match partition {
                Some(partition) => partition.append(&records.unwrap_or_else(Bytes::new), context).inspect_err(|refusal| {
                    let reason = refusal.message.as_deref();
                    tracing::debug!(partition = partition.name(), error = %refusal.error, reason, "rejected a produced batch");
                }),
                None => Err(ResponseError::UnknownTopicOrPartition.into()),
            };
            partition_response(index, appended, files)
        })
        .collect();
    TopicProduceResponse::default().with_name(data.name).with_partition_responses(partitions)
}

fn partition_response(
    index: i32,
    appended: Result<AppendResult, ProduceRefusal>,
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
        Err(ProduceRefusal { error, message, records }) => {
            let records = records
                .into_iter()
                .map(|(index, why)| {
                    let why = Some(StrBytes::from_string(why));
                    BatchIndexAndErrorMessage::default().with_batch_index(index).with_batch_index_error_message(why)
                })
                .collect();
            response
                .with_error_code(error.code())
                .with_base_offset(-1)
                .with_log_start_offset(-1)
                .with_record_errors(records)
                .with_error_message(message.map(StrBytes::from_string))
        }
    }
}

/// Older versions lack the reasons, and the codec fails on a value for a field that the version lacks.
fn keep_to_version(partition: &mut PartitionProduceResponse, version: i16) {
    if version < REASONS_SINCE {
        partition.record_errors = Vec::new();
        partition.error_message = None;
    }
}

fn refuse_topic(data: TopicProduceData, error: ResponseError) -> TopicProduceResponse {
    let partitions = data
        .partition_data
        .iter()
        .map(|partition| partition_response(partition.index, Err(error.into()), &mut Vec::new()))
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
