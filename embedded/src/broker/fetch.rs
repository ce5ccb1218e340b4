//! Fetch: reads many partitions and waits for more data when there is too little.
//!
//! Fetch sessions are declined (session id 0), so every request names all its partitions. Knows no file: the log provides
//! slices.

use super::context::RequestContext;
use super::log::{Partition, ReadPlan, ReadRequest};
use super::topics::TopicMap;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

const READ_COMMITTED: i8 = 1;
/// The longest wait, whatever the request specifies.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Session epochs of a client that offers to create a session, or wants none.
const NEW_SESSION: i32 = 0;
const FINAL_EPOCH: i32 = -1;

pub(crate) async fn fetch(context: &RequestContext<'_>, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 && request.session_epoch != NEW_SESSION && request.session_epoch != FINAL_EPOCH {
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut last_try = wait.is_zero();
    loop {
        let read = attempt_read(context, &request, !last_try);
        if last_try || read.is_final || read.bytes >= min_bytes {
            return FetchResponse::default().with_responses(read.topics);
        }
        // The waiter was registered before the wait, so no append is missed. After the deadline the loop reads once more.
        last_try = timeout_at(deadline, context.connection.waiter.woken()).await.is_err();
    }
}

struct FetchAttempt {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    /// An error, or no partition requested: waiting would change nothing.
    is_final: bool,
}

fn attempt_read(context: &RequestContext<'_>, request: &FetchRequest, register: bool) -> FetchAttempt {
    let map = context.shared().topics.snapshot();
    let limit = context.shared().config.limits.fetch_bytes_max;
    let mut left = usize::try_from(request.max_bytes).unwrap_or(0).min(limit);
    let mut read = FetchAttempt { topics: Vec::with_capacity(request.topics.len()), bytes: 0, is_final: true };
    let mut failed = false;
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for requested in &topic.partitions {
            read.is_final = false;
            let data = read_partition(context, &map, request, topic, requested, left, read.bytes == 0, register)
                .unwrap_or_else(|error| {
                    failed = true;
                    refused(requested.partition, error)
                });
            let bytes = data.records.as_ref().map_or(0, Bytes::len);
            read.bytes += bytes;
            left = left.saturating_sub(bytes);
            partitions.push(data);
        }
        let response = FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_topic_id(topic.topic_id);
        read.topics.push(response.with_partitions(partitions));
    }
    read.is_final |= failed;
    read
}

fn find<'a>(map: &'a TopicMap, version: i16, topic: &FetchTopic, index: i32) -> Result<&'a Partition, ResponseError> {
    let (found, unknown) = if version >= 13 {
        (map.by_id(topic.topic_id), ResponseError::UnknownTopicId)
    } else {
        (map.get(&topic.topic), ResponseError::UnknownTopicOrPartition)
    };
    let topic = found.ok_or(unknown)?;
    topic.partition(index).map(AsRef::as_ref).ok_or(ResponseError::UnknownTopicOrPartition)
}

#[expect(clippy::too_many_arguments, reason = "one step of one loop, split off only for its length")]
fn read_partition(
    context: &RequestContext<'_>,
    map: &TopicMap,
    request: &FetchRequest,
    topic: &FetchTopic,
    requested: &FetchPartition,
    left: usize,
    response_is_empty: bool,
    register: bool,
) -> Result<PartitionData, ResponseError> {
    let partition = find(map, context.version, topic, requested.partition)?;
    if requested.current_leader_epoch > super::log::LEADER_EPOCH {
        return Err(ResponseError::UnknownLeaderEpoch);
    }
    let committed_only = request.isolation_level == READ_COMMITTED;
    let max_bytes = usize::try_from(requested.partition_max_bytes).unwrap_or(0).min(left);
    let read_request = ReadRequest { offset: requested.fetch_offset, max_bytes, committed_only };
    let view = partition.read(read_request, register.then_some(&context.connection.waiter))?;
    // The first batch of a response is returned in full, whatever its size.
    let may_read = left > 0 || response_is_empty;
    let records = match &view.slice {
        Some(slice) if may_read => slice.read().map_err(|error| {
            tracing::error!(partition = partition.name(), %error, "cannot read a segment");
            ResponseError::KafkaStorageError
        })?,
        _ => Bytes::new(),
    };
    let aborted = committed_only.then(|| aborted(partition, requested.fetch_offset, &view, &records));
    Ok(PartitionData::default()
        .with_partition_index(requested.partition)
        .with_high_watermark(view.high_watermark)
        .with_last_stable_offset(view.last_stable)
        .with_log_start_offset(view.log_start)
        .with_aborted_transactions(aborted)
        .with_records(Some(records)))
}

fn aborted(partition: &Partition, from: i64, view: &ReadPlan, records: &Bytes) -> Vec<AbortedTransaction> {
    if records.is_empty() {
        return Vec::new();
    }
    let to = super::log::end_of(records).unwrap_or(view.last_stable);
    partition
        .aborted_between(from, to)
        .into_iter()
        .map(|txn| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(txn.producer_id))
                .with_first_offset(txn.first_offset)
        })
        .collect()
}

fn refused(index: i32, error: ResponseError) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}
