//! The protocol itself: what versions there are, what becomes of bytes that are no request, and what only a faulty or
//! foreign client sends. The answer may be an error or a closed connection, never silence, and never the end of the
//! broker.

use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupHeartbeatRequest, FindCoordinatorRequest,
    MetadataRequest,
};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::context::Context;
use crate::wire::{Wire, bare_request, frame, framed, newest_common};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Wire, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("ApiVersions is answered in every version from 0 to 4, with the same list", api_versions),
    check("ApiVersions of a version to come is answered with the versions there are", api_versions_to_come),
    check("what the stock clients need is advertised", advertised),
    check("an unknown request is refused and not left hanging", unknown_key),
    check("a version that is not there is refused and not left hanging", unknown_version),
    check("a group of the next protocol is served or refused, as advertised", next_group_protocol),
    check("a frame of garbage is refused", garbage),
    check("a frame larger than any request is refused before it is sent", oversized),
    check("half a frame, then a close, harms nobody", half_frame),
    check("a request that arrives byte by byte is answered", byte_by_byte),
    check("requests sent without waiting are answered in order", pipelined),
];

/// Whatever was sent before: another connection must be served as ever.
fn ensure_still_there(cx: &Context) -> Result<(), Failure> {
    let answer = Wire::open(cx)?.call(0, &ApiVersionsRequest::default())?;
    ensure_eq!(answer.error_code, 0, "ApiVersions on the next connection");
    Ok(())
}

/// An error or a closed connection; a silence has failed before this.
fn refused(cx: &Context, bytes: &[u8]) -> Verdict {
    let mut wire = Wire::open(cx)?;
    // The far side may close before all of it is written.
    let seen = match wire.write(bytes) {
        Ok(()) => wire.frame()?,
        Err(_) => None,
    };
    ensure_still_there(cx)?;
    Ok(seen.map_or_else(|| "closed".to_owned(), |answer| format!("an answer of {} bytes", answer.len())))
}

/// From version 3 on a client must say what it is.
fn introduction() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("conformance"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

fn api_versions(cx: &Context) -> Verdict {
    let mut wire = Wire::open(cx)?;
    let mut first: Option<Vec<(i16, i16, i16)>> = None;
    for version in 0..=4 {
        let answer = wire.call(version, &introduction())?;
        ensure_eq!(answer.error_code, 0, "the error code of version {version}");
        let list: Vec<_> = answer.api_keys.iter().map(|e| (e.api_key, e.min_version, e.max_version)).collect();
        match &first {
            None => first = Some(list),
            Some(first) => ensure_eq!(list, *first, "the list of version {version}"),
        }
    }
    Ok(format!("{} requests", first.unwrap_or_default().len()))
}

fn api_versions_to_come(cx: &Context) -> Verdict {
    let mut wire = Wire::open(cx)?;
    // Client software name and version, and two empty sets of tags: how a flexible request looks.
    wire.write(&bare_request(ApiVersionsRequest::KEY, 99, 7, b"\0\x02c\x021\0"))?;
    let mut answer = wire.frame()?.doing("the connection was closed instead of an answer")?;
    ensure!(answer.len() >= 10, "an answer of {} bytes", answer.len());
    ensure_eq!(answer.split_to(4).as_ref(), [0, 0, 0, 7], "the correlation id");
    let decoded = ApiVersionsResponse::decode(&mut answer, 0).doing("decoding the answer as version 0")?;
    ensure_eq!(decoded.error_code, 35, "the error code");
    let own = decoded.api_keys.iter().find(|entry| entry.api_key == ApiVersionsRequest::KEY);
    ensure!(own.is_some_and(|entry| entry.max_version >= 3), "ApiVersions itself is listed as {own:?}");
    // The connection goes on: the client asks again with what it was told.
    ensure_eq!(wire.call(3, &introduction())?.error_code, 0, "the second try");
    Ok(String::new())
}

/// Key, and a version that some stock client of today insists on.
const NEEDED: &[(ApiKey, i16)] = &[
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

fn advertised(cx: &Context) -> Verdict {
    let answer = Wire::open(cx)?.call(0, &ApiVersionsRequest::default())?;
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(key, version)| {
            let within = |min: i16, max: i16| min <= *version && *version <= max;
            !answer.api_keys.iter().any(|e| e.api_key == *key as i16 && within(e.min_version, e.max_version))
        })
        .map(|(key, version)| format!("{key:?} {version}"))
        .collect();
    ensure!(missing.is_empty(), "not advertised: {}", missing.join(", "));
    Ok(String::new())
}

fn unknown_key(cx: &Context) -> Verdict {
    refused(cx, &bare_request(32_000, 0, 1, &[]))
}

fn unknown_version(cx: &Context) -> Verdict {
    refused(cx, &bare_request(MetadataRequest::KEY, 999, 1, &[0; 16]))
}

fn next_group_protocol(cx: &Context) -> Verdict {
    let mut wire = Wire::open(cx)?;
    let Some(version) = newest_common(&mut wire, ApiKey::ConsumerGroupHeartbeat)? else {
        return refused(cx, &frame(0, 1, &ConsumerGroupHeartbeatRequest::default())?)
            .map(|seen| format!("not advertised: {seen}"));
    };
    let answer = wire.call(version, &ConsumerGroupHeartbeatRequest::default())?;
    ensure!(answer.error_code != 0, "a heartbeat of nobody was accepted");
    Ok(format!("advertised; a heartbeat of nobody gives error {}", answer.error_code))
}

fn garbage(cx: &Context) -> Verdict {
    let noise: Vec<u8> = (0..400u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut seen = Vec::new();
    seen.push(refused(cx, &framed(&noise))?);
    seen.push(refused(cx, &framed(&[]))?);
    seen.push(refused(cx, &framed(&[0xff; 3]))?);
    // A real request whose body stops early, and one whose counts promise more than there is.
    let whole = frame(9, 1, &MetadataRequest::default().with_topics(None))?;
    seen.push(refused(cx, &framed(&whole[4..whole.len() - 3]))?);
    seen.push(refused(cx, &bare_request(MetadataRequest::KEY, 1, 1, &i32::MAX.to_be_bytes()))?);
    // The same in the flexible form, where a count is a varint: no tags, then two thousand million topics.
    seen.push(refused(cx, &bare_request(MetadataRequest::KEY, 12, 1, b"\0\xff\xff\xff\xff\x07"))?);
    seen.push(refused(cx, &bare_request(MetadataRequest::KEY, 12, 1, b"\0\xff\xff\xff\xff\xff\xff\xff"))?);
    seen.push(refused(cx, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?);
    Ok(seen.join(", "))
}

fn oversized(cx: &Context) -> Verdict {
    let mut seen = Vec::new();
    for length in [i32::MAX, -1, i32::MIN] {
        let started = Instant::now();
        seen.push(refused(cx, &length.to_be_bytes())?);
        ensure!(started.elapsed().as_secs() < 10, "length {length} was refused only after {:?}", started.elapsed());
    }
    Ok(seen.join(", "))
}

fn half_frame(cx: &Context) -> Verdict {
    let whole = frame(3, 1, &ApiVersionsRequest::default())?;
    for cut in [2, 4, 9, whole.len() - 1] {
        Wire::open(cx)?.write(&whole[..cut])?;
    }
    ensure_still_there(cx)?;
    Ok(String::new())
}

fn byte_by_byte(cx: &Context) -> Verdict {
    let mut wire = Wire::open(cx)?;
    for byte in frame(0, 5, &ApiVersionsRequest::default())? {
        wire.write(&[byte])?;
    }
    let answer = wire.receive::<ApiVersionsRequest>(0, 5)?;
    ensure_eq!(answer.error_code, 0, "the error code");
    Ok(String::new())
}

fn pipelined(cx: &Context) -> Verdict {
    let mut wire = Wire::open(cx)?;
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
