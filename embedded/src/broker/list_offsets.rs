//! Offsets by position or time, and the end of a leader epoch.

use super::context::RequestContext;
use super::log::{LEADER_EPOCH, OffsetAndTimestamp, OffsetQuery};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

const READ_COMMITTED: i8 = 1;
/// Special timestamps of the protocol.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// The versions that introduced the later ones. A client that names one in an older version cannot know its meaning.
const MAX_TIMESTAMP_SINCE: i16 = 7;
const EARLIEST_LOCAL_SINCE: i16 = 8;
const LATEST_TIERED_SINCE: i16 = 9;

pub(crate) fn list_offsets(context: &RequestContext<'_>, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let map = context.shared().topics.snapshot();
    let committed_only = request.isolation_level == READ_COMMITTED;
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|requested| {
                    let found = seek_of(requested, committed_only, context.version).and_then(|seek| {
                        map.partition(&topic.name, requested.partition_index)
                            .ok_or(ResponseError::UnknownTopicOrPartition)?
                            .seek(seek)
                    });
                    partition_response(requested.partition_index, found, context.version)
                })
                .collect();
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
        })
        .collect();
    ListOffsetsResponse::default().with_topics(topics)
}

fn seek_of(requested: &ListOffsetsPartition, committed_only: bool, version: i16) -> Result<OffsetQuery, ResponseError> {
    if requested.current_leader_epoch > LEADER_EPOCH {
        return Err(ResponseError::UnknownLeaderEpoch);
    }
    match requested.timestamp {
        LATEST => Ok(OffsetQuery::Latest { committed_only }),
        EARLIEST => Ok(OffsetQuery::Earliest),
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_SINCE => Ok(OffsetQuery::MaxTimestamp { committed_only }),
        EARLIEST_LOCAL if version >= EARLIEST_LOCAL_SINCE => Ok(OffsetQuery::Earliest),
        LATEST_TIERED if version >= LATEST_TIERED_SINCE => Ok(OffsetQuery::None),
        time if time >= 0 => Ok(OffsetQuery::At { time, committed_only }),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

fn partition_response(
    index: i32,
    found: Result<OffsetAndTimestamp, ResponseError>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(found) => {
            // Older versions lack the field, and the codec fails on a value for it.
            let epoch = if found.offset >= 0 && version >= 4 { LEADER_EPOCH } else { -1 };
            response.with_offset(found.offset).with_timestamp(found.timestamp).with_leader_epoch(epoch)
        }
        Err(error) => response.with_error_code(error.code()).with_offset(-1).with_timestamp(-1).with_leader_epoch(-1),
    }
}

/// A partition has only ever had one leader, so its epoch ends where the log ends.
pub(crate) fn for_leader_epoch(
    context: &RequestContext<'_>,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let map = context.shared().topics.snapshot();
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|requested| {
                    let response = EpochEndOffset::default().with_partition(requested.partition);
                    match map.partition(&topic.topic, requested.partition) {
                        None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                        Some(_) if requested.current_leader_epoch > LEADER_EPOCH => {
                            response.with_error_code(ResponseError::UnknownLeaderEpoch.code())
                        }
                        Some(_) if requested.leader_epoch > LEADER_EPOCH => {
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
