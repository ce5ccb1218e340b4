//! From a frame to its handler and back: which requests exist in which versions, and who answers them.
//!
//! Owns the table of versions and the framing of answers. Knows no noun's rules; handlers know no bytes.

use super::Shared;
use super::log::Waiter;
use super::{describe, fetch, groups, list_offsets, offsets, produce, shape, topics, transactions};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, ProduceRequest, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use std::net::SocketAddr;
use std::sync::Arc;

/// Requests this broker answers, with the versions it speaks. Versions that promise what it does not do (transactions of
/// the second protocol, topic ids in commits) are left out, so that clients choose an older one.
const APIS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 11),
    (ApiKey::Fetch, 4, 16),
    (ApiKey::ListOffsets, 1, 8),
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

/// Shortest header: key, version, correlation id.
const HEADER_MIN: usize = 8;

/// What makes the broker close a connection: it cannot be answered in a way the client would understand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("a request of {0} bytes has no header")]
    Short(usize),
    #[error("request {0} is not known to this broker")]
    UnknownApi(i16),
    #[error("{api:?} version {version} is not supported; clients ask for the versions first")]
    UnsupportedVersion { api: ApiKey, version: i16 },
    #[error("{api:?} version {version} cannot be decoded")]
    Malformed {
        api: ApiKey,
        version: i16,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the answer to {api:?} version {version} cannot be encoded")]
    Unanswerable {
        api: ApiKey,
        version: i16,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One connection, as handlers see it.
#[derive(Debug)]
pub(crate) struct Session {
    pub shared: Arc<Shared>,
    pub peer: SocketAddr,
    pub waiter: Arc<Waiter>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        Session { shared, peer, waiter: Arc::new(Waiter::default()) }
    }

    pub(crate) fn request_bytes_max(&self) -> usize {
        self.shared.config.limits.request_bytes_max
    }
}

/// What a handler is told of a request besides its body.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub session: &'a Session,
    pub version: i16,
    pub client_id: &'a str,
}

impl Call<'_> {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.session.shared
    }
}

/// Whether answering may take until something else happens, so that earlier answers must not wait for it.
pub(crate) fn may_wait(frame: &Bytes) -> bool {
    let key = frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
    [ApiKey::Fetch, ApiKey::JoinGroup, ApiKey::SyncGroup].into_iter().any(|api| Some(api as i16) == key)
}

/// Answers one request into `out`.
pub(crate) async fn answer(session: &Session, mut frame: Bytes, out: &mut BytesMut) -> Result<(), BadRequest> {
    let length = frame.len();
    let head = frame.first_chunk::<HEADER_MIN>().ok_or(BadRequest::Short(length))?;
    let (key, version) = (i16::from_be_bytes([head[0], head[1]]), i16::from_be_bytes([head[2], head[3]]));
    let correlation_id = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let api = ApiKey::try_from(key).map_err(|_| BadRequest::UnknownApi(key))?;
    let supported = APIS.iter().any(|(known, min, max)| *known == api && (*min..=*max).contains(&version));
    if !supported {
        return refuse(api, version, correlation_id, out);
    }
    let malformed = |source: Box<dyn std::error::Error + Send + Sync>| BadRequest::Malformed { api, version, source };
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version))
        .map_err(|error| malformed(error.into()))?;
    if !shape::fits(api, version, &frame) {
        return Err(malformed("its lengths do not fit its bytes".into()));
    }
    let body = RequestKind::decode(api, &mut frame, version).map_err(|error| malformed(error.into()))?;
    // As in Apache Kafka, bytes behind the body are passed over: librdkafka writes three when it asks for all topics.
    let client_id = header.client_id.as_deref().unwrap_or_default();
    let call = Call { session, version, client_id };
    match handle(&call, body).await {
        Some(response) => encode(out, api, version, correlation_id, &response),
        None => Ok(()),
    }
}

/// An unsupported version of ApiVersions is answered with version 0, from which a client learns what to use. For anything
/// else the client knew the versions, and no answer would be understood.
fn refuse(api: ApiKey, version: i16, correlation_id: i32, out: &mut BytesMut) -> Result<(), BadRequest> {
    if api != ApiKey::ApiVersions {
        return Err(BadRequest::UnsupportedVersion { api, version });
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
) -> Result<(), BadRequest> {
    let at = out.len();
    out.put_i32(0);
    let written = ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(out, api.response_header_version(version))
        .and_then(|()| response.encode(out, version));
    let size = i32::try_from(out.len() - at - 4);
    match (written, size) {
        (Ok(()), Ok(size)) => {
            out[at..at + 4].copy_from_slice(&size.to_be_bytes());
            Ok(())
        }
        (Err(source), _) => Err(BadRequest::Unanswerable { api, version, source: source.into() }),
        (_, Err(source)) => Err(BadRequest::Unanswerable { api, version, source: source.into() }),
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

/// `None` for a produce request that wants no acknowledgement.
async fn handle(call: &Call<'_>, body: RequestKind) -> Option<ResponseKind> {
    Some(match body {
        RequestKind::Produce(request) => return produced(call, request),
        RequestKind::Fetch(request) => fetch::fetch(call, request).await.into(),
        RequestKind::JoinGroup(request) => groups::handlers::join(call, request).await.into(),
        RequestKind::SyncGroup(request) => groups::handlers::sync(call, request).await.into(),
        RequestKind::Heartbeat(request) => groups::handlers::heartbeat(call, &request).into(),
        RequestKind::LeaveGroup(request) => groups::handlers::leave(call, &request).into(),
        RequestKind::ApiVersions(_) => api_versions().into(),
        RequestKind::Metadata(request) => topics::metadata::metadata(call, request).into(),
        RequestKind::ListOffsets(request) => list_offsets::list_offsets(call, &request).into(),
        RequestKind::OffsetForLeaderEpoch(request) => list_offsets::for_leader_epoch(call, &request).into(),
        RequestKind::OffsetCommit(request) => offsets::commit(call, &request).into(),
        RequestKind::OffsetFetch(request) => offsets::fetch(call, &request).into(),
        RequestKind::OffsetDelete(request) => offsets::delete(call, &request).into(),
        RequestKind::TxnOffsetCommit(request) => offsets::commit_in_txn(call, &request).into(),
        RequestKind::InitProducerId(request) => transactions::handlers::init_producer_id(call, &request).into(),
        RequestKind::AddPartitionsToTxn(request) => transactions::handlers::add_partitions(call, &request).into(),
        RequestKind::AddOffsetsToTxn(request) => transactions::handlers::add_offsets(call, &request).into(),
        RequestKind::EndTxn(request) => transactions::handlers::end(call, &request).into(),
        other => return handle_admin(call, other),
    })
}

fn produced(call: &Call<'_>, request: ProduceRequest) -> Option<ResponseKind> {
    let acknowledge = request.acks != 0;
    let response = produce::produce(call, request);
    acknowledge.then(|| response.into())
}

fn handle_admin(call: &Call<'_>, body: RequestKind) -> Option<ResponseKind> {
    Some(match body {
        RequestKind::FindCoordinator(request) => describe::find_coordinator(call, request).into(),
        RequestKind::CreateTopics(request) => topics::admin::create(call, request).into(),
        RequestKind::DeleteTopics(request) => topics::admin::delete(call, request).into(),
        RequestKind::CreatePartitions(request) => topics::admin::create_partitions(call, request).into(),
        RequestKind::DeleteRecords(request) => topics::admin::delete_records(call, request).into(),
        RequestKind::DescribeConfigs(request) => topics::configs_admin::describe(call, request).into(),
        RequestKind::AlterConfigs(request) => topics::configs_admin::alter(call, request).into(),
        RequestKind::IncrementalAlterConfigs(request) => {
            topics::configs_admin::alter_incrementally(call, request).into()
        }
        RequestKind::DescribeGroups(request) => groups::handlers::describe(call, &request).into(),
        RequestKind::ListGroups(request) => groups::handlers::list(call, &request).into(),
        RequestKind::DeleteGroups(request) => groups::handlers::delete(call, request).into(),
        RequestKind::DescribeCluster(_) => describe::cluster(call).into(),
        RequestKind::DescribeLogDirs(request) => describe::log_dirs(call, &request).into(),
        RequestKind::DescribeProducers(request) => describe::producers(call, request).into(),
        RequestKind::DescribeTransactions(request) => transactions::handlers::describe(call, request).into(),
        RequestKind::ListTransactions(request) => transactions::handlers::list(call, &request).into(),
        _ => return None, // the table of versions lets nothing else through
    })
}
