//! The protocol itself: advertised versions, invalid bytes, and requests that only a faulty client sends. The broker may respond
//! with an error or close the connection; it must neither stay silent nor crash.

use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupHeartbeatRequest, FindCoordinatorRequest,
    MetadataRequest,
};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::context::CheckContext;
use crate::wire::{RawConnection, bare_request, frame, framed, newest_common};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Wire, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("ApiVersions returns the same list in every version from 0 to 4", api_versions),
    check("ApiVersions of a future version returns the supported versions", api_versions_to_come),
    check("the versions that stock clients need are advertised", advertised),
    check("an unknown request is refused without delay", unknown_key),
    check("an unsupported version is refused without delay", unknown_version),
    check("the next group protocol is supported or refused, as advertised", next_group_protocol),
    check("a frame of garbage is refused", garbage),
    check("a frame larger than any request is refused before its body is sent", oversized),
    check("an incomplete frame and a close do not affect other clients", half_frame),
    check("a request that arrives byte by byte gets its response", byte_by_byte),
    check("pipelined requests get their responses in order", pipelined),
];

/// Ensures that another connection still works, whatever was sent before.
fn ensure_still_serving(cx: &CheckContext) -> Result<(), CheckFailure> {
    let response = RawConnection::open(cx)?.call(0, &ApiVersionsRequest::default())?;
    ensure_eq!(response.error_code, 0, "ApiVersions on the next connection");
    Ok(())
}

/// Ensures an error or a closed connection. A missing response fails earlier.
fn refused(cx: &CheckContext, bytes: &[u8]) -> CheckResult {
    let mut wire = RawConnection::open(cx)?;
    // The server may close before all bytes are written.
    let observed = match wire.write(bytes) {
        Ok(()) => wire.frame()?,
        Err(_) => None,
    };
    ensure_still_serving(cx)?;
    Ok(observed.map_or_else(|| "closed".to_owned(), |response| format!("a response of {} bytes", response.len())))
}

/// From version 3 on a client must name its software.
fn introduction() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("conformance"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

fn api_versions(cx: &CheckContext) -> CheckResult {
    let mut wire = RawConnection::open(cx)?;
    let mut first: Option<Vec<(i16, i16, i16)>> = None;
    for version in 0..=4 {
        let response = wire.call(version, &introduction())?;
        ensure_eq!(response.error_code, 0, "the error code of version {version}");
        let list: Vec<_> = response.api_keys.iter().map(|e| (e.api_key, e.min_version, e.max_version)).collect();
        match &first {
            None => first = Some(list),
            Some(first) => ensure_eq!(list, *first, "the list of version {version}"),
        }
    }
    Ok(format!("{} requests", first.unwrap_or_default().len()))
}

fn api_versions_to_come(cx: &CheckContext) -> CheckResult {
    let mut wire = RawConnection::open(cx)?;
    // A flexible request: client software name and version, and two empty sets of tags.
    wire.write(&bare_request(ApiVersionsRequest::KEY, 99, 7, b"\0\x02c\x021\0"))?;
    let mut response = wire.frame()?.context("the connection was closed without a response")?;
    ensure!(response.len() >= 10, "a response of {} bytes", response.len());
    ensure_eq!(response.split_to(4).as_ref(), [0, 0, 0, 7], "the correlation id");
    let decoded = ApiVersionsResponse::decode(&mut response, 0).context("decoding the response as version 0")?;
    ensure_eq!(decoded.error_code, 35, "the error code");
    let own = decoded.api_keys.iter().find(|entry| entry.api_key == ApiVersionsRequest::KEY);
    ensure!(own.is_some_and(|entry| entry.max_version >= 3), "ApiVersions itself is listed as {own:?}");
    // The connection stays open: the client repeats the request with a supported version.
    ensure_eq!(wire.call(3, &introduction())?.error_code, 0, "the second request");
    Ok(String::new())
}

/// Request key, and a version that some current stock client requires.
const REQUIRED: &[(ApiKey, i16)] = &[
    (ApiKey::Produce, 7),
    (ApiKey::Fetch, 11),
    (ApiKey::ListOffsets, 5),
    (ApiKey::Metadata, 9),
    (ApiKey::OffsetCommit, 7),
    (ApiKey::OffsetFetch, 7),
    (ApiKey::FindCoordinator, 3),
    (ApiKey::JoinGroup, 5),
    (ApiKey::Heartbeat, 3),
    (ApiKey::LeaveGroup, 3),
    (ApiKey::SyncGroup, 3),
    (ApiKey::DescribeGroups, 4),
    (ApiKey::ListGroups, 3),
    (ApiKey::ApiVersions, 3),
    (ApiKey::CreateTopics, 4),
    (ApiKey::DeleteTopics, 4),
    (ApiKey::DeleteRecords, 1),
    (ApiKey::InitProducerId, 4),
    (ApiKey::AddPartitionsToTxn, 0),
    (ApiKey::AddOffsetsToTxn, 0),
    (ApiKey::EndTxn, 1),
    (ApiKey::TxnOffsetCommit, 3),
    (ApiKey::DescribeConfigs, 1),
    (ApiKey::AlterConfigs, 1),
    (ApiKey::IncrementalAlterConfigs, 1),
    (ApiKey::CreatePartitions, 0),
    (ApiKey::DeleteGroups, 1),
    (ApiKey::DescribeCluster, 0),
];

fn advertised(cx: &CheckContext) -> CheckResult {
    let response = RawConnection::open(cx)?.call(0, &ApiVersionsRequest::default())?;
    let missing: Vec<String> = REQUIRED
        .iter()
        .filter(|(key, version)| {
            let within = |min: i16, max: i16| min <= *version && *version <= max;
            !response.api_keys.iter().any(|e| e.api_key == *key as i16 && within(e.min_version, e.max_version))
        })
        .map(|(key, version)| format!("{key:?} {version}"))
        .collect();
    ensure!(missing.is_empty(), "not advertised: {}", missing.join(", "));
    Ok(String::new())
}

fn unknown_key(cx: &CheckContext) -> CheckResult {
    refused(cx, &bare_request(32_000, 0, 1, &[]))
}

fn unknown_version(cx: &CheckContext) -> CheckResult {
    refused(cx, &bare_request(MetadataRequest::KEY, 999, 1, &[0; 16]))
}

fn next_group_protocol(cx: &CheckContext) -> CheckResult {
    let mut wire = RawConnection::open(cx)?;
    let Some(version) = newest_common(&mut wire, ApiKey::ConsumerGroupHeartbeat)? else {
        return refused(cx, &frame(0, 1, &ConsumerGroupHeartbeatRequest::default())?)
            .map(|observed| format!("not advertised: {observed}"));
    };
    let response = wire.call(version, &ConsumerGroupHeartbeatRequest::default())?;
    ensure!(response.error_code != 0, "a heartbeat without a member was accepted");
    Ok(format!("advertised; a heartbeat without a member gives error {}", response.error_code))
}

fn garbage(cx: &CheckContext) -> CheckResult {
    let noise: Vec<u8> = (0..400u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut observed = Vec::new();
    observed.push(refused(cx, &framed(&noise))?);
    observed.push(refused(cx, &framed(&[]))?);
    observed.push(refused(cx, &framed(&[0xff; 3]))?);
    // A valid request whose body ends early, and one whose counts announce more items than it contains.
    let whole = frame(9, 1, &MetadataRequest::default().with_topics(None))?;
    observed.push(refused(cx, &framed(&whole[4..whole.len() - 3]))?);
    observed.push(refused(cx, &bare_request(MetadataRequest::KEY, 1, 1, &i32::MAX.to_be_bytes()))?);
    // The same in the flexible encoding, where a count is a varint: no tags, then two thousand million topics.
    observed.push(refused(cx, &bare_request(MetadataRequest::KEY, 12, 1, b"\0\xff\xff\xff\xff\x07"))?);
    observed.push(refused(cx, &bare_request(MetadataRequest::KEY, 12, 1, b"\0\xff\xff\xff\xff\xff\xff\xff"))?);
    observed.push(refused(cx, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?);
    Ok(observed.join(", "))
}

fn oversized(cx: &CheckContext) -> CheckResult {
    let mut observed = Vec::new();
    for length in [i32::MAX, -1, i32::MIN] {
        let started = Instant::now();
        observed.push(refused(cx, &length.to_be_bytes())?);
        ensure!(started.elapsed().as_secs() < 10, "length {length} was refused only after {:?}", started.elapsed());
    }
    Ok(observed.join(", "))
}

fn half_frame(cx: &CheckContext) -> CheckResult {
    let complete = frame(3, 1, &ApiVersionsRequest::default())?;
    for length in [2, 4, 9, complete.len() - 1] {
        RawConnection::open(cx)?.write(&complete[..length])?;
    }
    ensure_still_serving(cx)?;
    Ok(String::new())
}

fn byte_by_byte(cx: &CheckContext) -> CheckResult {
    let mut wire = RawConnection::open(cx)?;
    for byte in frame(0, 5, &ApiVersionsRequest::default())? {
        wire.write(&[byte])?;
    }
    let response = wire.receive::<ApiVersionsRequest>(0, 5)?;
    ensure_eq!(response.error_code, 0, "the error code");
    Ok(String::new())
}

fn pipelined(cx: &CheckContext) -> CheckResult {
    let mut wire = RawConnection::open(cx)?;
    let mut all = Vec::new();
    for id in 1..=50 {
        all.extend_from_slice(&match id % 2 {
            0 => frame(0, id, &ApiVersionsRequest::default())?,
            _ => frame(0, id, &FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("x")))?,
        });
    }
    wire.write(&Bytes::from(all))?;
    for id in 1..=50 {
        match id % 2 {
            0 => wire.receive::<ApiVersionsRequest>(0, id).map(|_| ())?,
            _ => wire.receive::<FindCoordinatorRequest>(0, id).map(|_| ())?,
        }
    }
    Ok(String::new())
}
