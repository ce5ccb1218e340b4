//! Dispatch: decodes a frame, calls its handler, encodes the response.
//!
//! Owns the table of supported versions and the framing of responses. Handlers own the rules and see no bytes.

use super::context::{ClientConnection, RequestContext};
use super::{describe, fetch, frame_check, groups, list_offsets, offsets, produce, topics, transactions};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, ProduceRequest, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable};

/// The supported requests and versions. Versions whose features this broker lacks (transactions of the second protocol, topic
/// ids in commits) are omitted, so that clients choose an older version.
const APIS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 11),
    (ApiKey::Fetch, 4, 16),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 5),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 3),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::DescribeLogDirs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 1),
    (ApiKey::DescribeProducers, 0, 0),
    (ApiKey::DescribeTransactions, 0, 0),
    (ApiKey::ListTransactions, 0, 1),
];

/// The shortest header: key, version, correlation id.
const HEADER_MIN: usize = 8;

/// A request for which the broker closes the connection, because the client could not decode any response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a request of {0} bytes has no header")]
    Short(usize),
    #[error("request {0} is not known to this broker")]
    UnknownApi(i16),
    #[error("{api:?} version {version} is not supported; ApiVersions lists the supported versions")]
    UnsupportedVersion { api: ApiKey, version: i16 },
    #[error("{api:?} version {version} cannot be decoded")]
    Malformed {
        api: ApiKey,
        version: i16,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the response to {api:?} version {version} cannot be encoded")]
    Unencodable {
        api: ApiKey,
        version: i16,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Whether the response may wait for another event. Responses buffered before it must then be sent first.
pub(crate) fn may_wait(frame: &Bytes) -> bool {
    let key = frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
    [ApiKey::Fetch, ApiKey::JoinGroup, ApiKey::SyncGroup].into_iter().any(|api| Some(api as i16) == key)
}

/// Handles one request and appends its response to `out`.
pub(crate) async fn respond(
    connection: &ClientConnection,
    mut frame: Bytes,
    out: &mut BytesMut,
) -> Result<(), FrameError> {
    let length = frame.len();
    let head = frame.first_chunk::<HEADER_MIN>().ok_or(FrameError::Short(length))?;
    let (key, version) = (i16::from_be_bytes([head[0], head[1]]), i16::from_be_bytes([head[2], head[3]]));
    let correlation_id = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let api = ApiKey::try_from(key).map_err(|_| FrameError::UnknownApi(key))?;
    let supported = APIS.iter().any(|(known, min, max)| *known == api && (*min..=*max).contains(&version));
    if !supported {
        return respond_unsupported(api, version, correlation_id, out);
    }
    let malformed = |source: Box<dyn std::error::Error + Send + Sync>| FrameError::Malformed { api, version, source };
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version))
        .map_err(|error| malformed(error.into()))?;
    if !frame_check::fits(api, version, &frame) {
        return Err(malformed("its lengths do not fit its bytes".into()));
    }
    let body = RequestKind::decode(api, &mut frame, version).map_err(|error| malformed(error.into()))?;
    // As in Apache Kafka, bytes after the body are ignored: librdkafka writes three of them when it requests all topics.
    let client_id = header.client_id.as_deref().unwrap_or_default();
    let context = RequestContext { connection, version, client_id };
    match handle(&context, body).await {
        Some(response) => encode(out, api, version, correlation_id, &response),
        None => Ok(()),
    }
}

/// The response to an unsupported version of ApiVersions has version 0 and lists the supported versions. For any other request
/// the client knew the supported versions, and it could not decode a response.
fn respond_unsupported(api: ApiKey, version: i16, correlation_id: i32, out: &mut BytesMut) -> Result<(), FrameError> {
    if api != ApiKey::ApiVersions {
        return Err(FrameError::UnsupportedVersion { api, version });
    }
    let response = api_versions().with_error_code(ResponseError::UnsupportedVersion.code());
    encode(out, api, 0, correlation_id, &response.into())
}

fn encode(
    out: &mut BytesMut,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &ResponseKind,
) -> Result<(), FrameError> {
    let start = out.len();
    out.put_i32(0);
    let written = ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(out, api.response_header_version(version))
        .and_then(|()| response.encode(out, version));
    let size = i32::try_from(out.len() - start - 4);
    match (written, size) {
        (Ok(()), Ok(size)) => {
            out[start..start + 4].copy_from_slice(&size.to_be_bytes());
            Ok(())
        }
        (Err(source), _) => Err(FrameError::Unencodable { api, version, source: source.into() }),
        (_, Err(source)) => Err(FrameError::Unencodable { api, version, source: source.into() }),
    }
}

fn api_versions() -> ApiVersionsResponse {
    let keys = APIS
        .iter()
        .map(|(api, min, max)| {
            ApiVersion::default().with_api_key(*api as i16).with_min_version(*min).with_max_version(*max)
        })
        .collect();
    ApiVersionsResponse::default().with_api_keys(keys)
}

/// Returns `None` for a produce request without acknowledgement.
async fn handle(context: &RequestContext<'_>, body: RequestKind) -> Option<ResponseKind> {
    Some(match body {
        RequestKind::Produce(request) => return produced(context, request),
        RequestKind::Fetch(request) => fetch::fetch(context, request).await.into(),
        RequestKind::JoinGroup(request) => groups::handlers::join(context, request).await.into(),
        RequestKind::SyncGroup(request) => groups::handlers::sync(context, request).await.into(),
        RequestKind::Heartbeat(request) => groups::handlers::heartbeat(context, &request).into(),
        RequestKind::LeaveGroup(request) => groups::handlers::leave(context, &request).into(),
        RequestKind::ApiVersions(_) => api_versions().into(),
        RequestKind::Metadata(request) => topics::metadata::metadata(context, request).into(),
        RequestKind::ListOffsets(request) => list_offsets::list_offsets(context, &request).into(),
        RequestKind::OffsetForLeaderEpoch(request) => list_offsets::for_leader_epoch(context, &request).into(),
        RequestKind::OffsetCommit(request) => offsets::commit(context, &request).into(),
        RequestKind::OffsetFetch(request) => offsets::fetch(context, &request).into(),
        RequestKind::OffsetDelete(request) => offsets::delete(context, &request).into(),
        RequestKind::TxnOffsetCommit(request) => offsets::commit_in_txn(context, &request).into(),
        RequestKind::InitProducerId(request) => transactions::handlers::init_producer_id(context, &request).into(),
        RequestKind::AddPartitionsToTxn(request) => transactions::handlers::add_partitions(context, &request).into(),
        RequestKind::AddOffsetsToTxn(request) => transactions::handlers::add_offsets(context, &request).into(),
        RequestKind::EndTxn(request) => transactions::handlers::end(context, &request).into(),
        other => return handle_admin(context, other),
    })
}

fn produced(context: &RequestContext<'_>, request: ProduceRequest) -> Option<ResponseKind> {
    let acknowledge = request.acks != 0;
    let response = produce::produce(context, request);
    acknowledge.then(|| response.into())
}

fn handle_admin(context: &RequestContext<'_>, body: RequestKind) -> Option<ResponseKind> {
    Some(match body {
        RequestKind::FindCoordinator(request) => describe::find_coordinator(context, request).into(),
        RequestKind::CreateTopics(request) => topics::admin::create(context, request).into(),
        RequestKind::DeleteTopics(request) => topics::admin::delete(context, request).into(),
        RequestKind::CreatePartitions(request) => topics::admin::create_partitions(context, request).into(),
        RequestKind::DeleteRecords(request) => topics::admin::delete_records(context, request).into(),
        RequestKind::DescribeConfigs(request) => topics::configs_admin::describe(context, request).into(),
        RequestKind::AlterConfigs(request) => topics::configs_admin::alter(context, request).into(),
        RequestKind::IncrementalAlterConfigs(request) => {
            topics::configs_admin::alter_incrementally(context, request).into()
        }
        RequestKind::DescribeGroups(request) => groups::handlers::describe(context, &request).into(),
        RequestKind::ListGroups(request) => groups::handlers::list(context, &request).into(),
        RequestKind::DeleteGroups(request) => groups::handlers::delete(context, request).into(),
        RequestKind::DescribeCluster(_) => describe::cluster(context).into(),
        RequestKind::DescribeLogDirs(request) => describe::log_dirs(context, &request).into(),
        RequestKind::DescribeProducers(request) => describe::producers(context, request).into(),
        RequestKind::DescribeTransactions(request) => transactions::handlers::describe(context, request).into(),
        RequestKind::ListTransactions(request) => transactions::handlers::list(context, &request).into(),
        _ => return None, // the table of versions admits no other request
    })
}
