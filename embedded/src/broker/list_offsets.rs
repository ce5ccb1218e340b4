//! Offsets by place or time, and the end of a leader epoch.

use super::dispatch::Call;
use super::log::{Found, LEADER_EPOCH, Seek};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

const READ_COMMITTED: i8 = 1;
/// Instead of a timestamp: the kinds of place the protocol knows.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;

pub(crate) fn list_offsets(call: &Call<'_>, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let map = call.shared().topics.now();
    let committed_only = request.isolation_level == READ_COMMITTED;
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|ask| {
                    let found = seek_of(ask, committed_only).and_then(|seek| {
                        map.partition(&topic.name, ask.partition_index)
                            .ok_or(ResponseError::UnknownTopicOrPartition)?
                            .seek(seek)
                    });
                    partition_response(ask.partition_index, found, call.version)
                })
                .collect();
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
        })
        .collect();
    ListOffsetsResponse::default().with_topics(topics)
}

fn seek_of(ask: &ListOffsetsPartition, committed_only: bool) -> Result<Seek, ResponseError> {
    if ask.current_leader_epoch > LEADER_EPOCH {
        return Err(ResponseError::UnknownLeaderEpoch);
    }
    match ask.timestamp {
        LATEST => Ok(Seek::Latest { committed_only }),
        EARLIEST | EARLIEST_LOCAL => Ok(Seek::Earliest),
        MAX_TIMESTAMP => Ok(Seek::MaxTimestamp),
        time if time >= 0 => Ok(Seek::At(time)),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

fn partition_response(index: i32, found: Result<Found, ResponseError>, version: i16) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(found) => {
            // Older versions have no place for it, and the codec refuses to leave it out by itself.
            let epoch = if found.offset >= 0 && version >= 4 { LEADER_EPOCH } else { -1 };
            response.with_offset(found.offset).with_timestamp(found.timestamp).with_leader_epoch(epoch)
        }
        Err(error) => response.with_error_code(error.code()).with_offset(-1).with_timestamp(-1).with_leader_epoch(-1),
    }
}

/// There has only ever been one leader, so its epoch ends where the log ends.
pub(crate) fn for_leader_epoch(call: &Call<'_>, request: &OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let map = call.shared().topics.now();
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|ask| {
                    let response = EpochEndOffset::default().with_partition(ask.partition);
                    match map.partition(&topic.topic, ask.partition) {
                        None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                        Some(_) if ask.current_leader_epoch > LEADER_EPOCH => {
                            response.with_error_code(ResponseError::UnknownLeaderEpoch.code())
                        }
                        Some(_) if ask.leader_epoch > LEADER_EPOCH => {
                            response.with_leader_epoch(-1).with_end_offset(-1)
                        }
                        Some(partition) => {
                            response.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.next_offset())
                        }
                    }
                })
                .collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
        })
        .collect();
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
