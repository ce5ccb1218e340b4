//! Offsets by time and by special positions, in compressed batches, among markers and for committed readers, as Apache Kafka 4.3.1
//! answers.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rdkafka::producer::Producer;

use super::records::now_ms;
use crate::batch_bytes::{CODECS, GZIP, RECORD, RawBatch, records_at};
use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{NewRecord, TestProducer, await_deliveries, send, transactional};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};
use crate::wire::{RawConnection, newest_common};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Lookups, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("a look-up by time finds the record inside its batch, in every codec", inside_batches),
    check("a look-up of the newest timestamp finds its first record", newest),
    check("a look-up never finds a record before the start of the log", after_the_start),
    check("records without a timestamp are found only as the newest", without_timestamps),
    check("a look-up in a topic with LogAppendTime finds the first record of a batch", append_time),
    check("an empty partition has a start and an end, and no record at any time", empty),
    check("special look-ups are supported from their version on, and refused before", special),
    check("markers count as records of their time, and committed readers find nothing past the stable end", markers),
];

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const NEWEST: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// The version that introduced `NEWEST`.
const VERSION: i16 = 7;
const UNSUPPORTED_VERSION: i16 = 35;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    code: i16,
    timestamp: i64,
    offset: i64,
    epoch: i32,
}

fn found(timestamp: i64, offset: i64) -> Found {
    Found { code: 0, timestamp, offset, epoch: if offset < 0 { -1 } else { 0 } }
}

const NOTHING: Found = Found { code: 0, timestamp: -1, offset: -1, epoch: -1 };

fn look_up_as(
    wire: &mut RawConnection,
    version: i16,
    committed_only: bool,
    topic: &str,
    timestamp: i64,
) -> Result<Found, CheckFailure> {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(i8::from(committed_only))
        .with_timeout_ms(if version >= 10 { 5_000 } else { 0 })
        .with_topics(vec![ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition])]);
    wait_until("a leader that accepts requests", REQUEST_TIMEOUT, || {
        let response = wire.call(version, &request)?;
        let partition = response.topics.first().and_then(|t| t.partitions.first()).context("the partition")?;
        let (code, epoch) = (partition.error_code, partition.leader_epoch);
        let answer = Found { code, timestamp: partition.timestamp, offset: partition.offset, epoch };
        Ok((!matches!(code, 3 | 6)).then_some(answer))
    })
}

fn look_up(cx: &CheckContext, topic: &str, timestamp: i64) -> Result<Found, CheckFailure> {
    look_up_as(&mut RawConnection::to_leader(cx, topic, 0)?, VERSION, false, topic, timestamp)
}

/// The end of the log.
pub(super) fn end_of(cx: &CheckContext, topic: &str) -> Result<i64, CheckFailure> {
    let answer = look_up(cx, topic, LATEST)?;
    ensure_eq!(answer.code, 0, "the error code of a look-up of the end");
    Ok(answer.offset)
}

fn append(cx: &CheckContext, topic: &str, batch: &RawBatch) -> Result<(), CheckFailure> {
    let response = super::batches::produce(cx, topic, VERSION, None, batch.bytes())?;
    ensure_eq!(response.error_code, 0, "the error code of a produce request");
    Ok(())
}

/// An hour ago: far from the time of any marker.
fn an_hour_ago() -> Result<i64, CheckFailure> {
    Ok(now_ms()? - 3_600_000)
}

fn inside_batches(cx: &CheckContext) -> CheckResult {
    let start = an_hour_ago()?;
    let deltas: Vec<i64> = (0..10).map(|at| at * 2_000).collect();
    for codec in CODECS {
        let topic = cx.topic(&format!("codec-{codec}"), 1)?;
        let times = RawBatch { max_timestamp: start + 18_000, ..RawBatch::new(start, 10, records_at(&deltas)) };
        append(cx, &topic, &times.compressed(codec))?;
        // Records are found in the order of the log, so this one only before the others.
        append(cx, &topic, &RawBatch::new(start + 1_000, 1, RECORD.bytes()))?;
        for (after, expected) in
            [(-1, 0), (0, 0), (1, 1), (1_999, 1), (2_000, 1), (2_001, 2), (9_000, 5), (17_999, 9), (18_000, 9)]
        {
            let answer = look_up(cx, &topic, start + after)?;
            ensure_eq!(answer, found(start + expected * 2_000, expected), "{after} ms after the start, codec {codec}");
        }
        ensure_eq!(look_up(cx, &topic, start + 18_001)?, NOTHING, "after the last one, codec {codec}");
        ensure_eq!(look_up(cx, &topic, NEWEST)?, found(start + 18_000, 9), "the newest, codec {codec}");
        ensure_eq!(look_up(cx, &topic, EARLIEST)?, found(-1, 0), "the start, codec {codec}");
        ensure_eq!(look_up(cx, &topic, LATEST)?, found(-1, 11), "the end, codec {codec}");
    }
    Ok(String::new())
}

fn newest(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("newest", 1)?;
    let start = an_hour_ago()?;
    append(cx, &topic, &RawBatch::new(start, 4, records_at(&[5, 9, 9, 1])).compressed(GZIP))?;
    append(cx, &topic, &RawBatch::new(start + 9, 1, RECORD.bytes()))?;
    append(cx, &topic, &RawBatch::new(start, 1, RECORD.bytes()))?;
    ensure_eq!(look_up(cx, &topic, NEWEST)?, found(start + 9, 1), "the newest timestamp");
    Ok(String::new())
}

fn after_the_start(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("start", 1)?;
    let start = an_hour_ago()?;
    append(cx, &topic, &RawBatch::new(start, 6, records_at(&[50, 10, 20, 30, 40, 45])).compressed(GZIP))?;
    let to = crate::clients::offsets(&[(&topic, 0, rdkafka::Offset::Offset(3))])?;
    cx.wait(cx.admin.delete_records(&to, &cx.admin_options())).context("deleting records")?;
    ensure_eq!(look_up(cx, &topic, start)?, found(start + 30, 3), "the first time");
    ensure_eq!(look_up(cx, &topic, start + 31)?, found(start + 40, 4), "a later time");
    ensure_eq!(look_up(cx, &topic, start + 50)?, NOTHING, "the time of a deleted record");
    ensure_eq!(look_up(cx, &topic, EARLIEST)?, found(-1, 3), "the start");
    Ok(String::new())
}

fn without_timestamps(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("no-timestamps", 1)?;
    append(cx, &topic, &RawBatch::new(-1, 2, records_at(&[0, 0])))?;
    ensure_eq!(look_up(cx, &topic, 0)?, NOTHING, "any time");
    ensure_eq!(look_up(cx, &topic, NEWEST)?, found(-1, 0), "the newest");
    Ok(String::new())
}

fn append_time(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic_with("append-time", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    let before = now_ms()?;
    append(cx, &topic, &RawBatch::new(5, 3, records_at(&[0, 1, 2])).compressed(GZIP))?;
    let first = look_up(cx, &topic, 6)?;
    ensure_eq!((first.code, first.offset), (0, 0), "a look-up by a time that a producer gave");
    ensure!(first.timestamp >= before, "the timestamp {} is not the time of arrival", first.timestamp);
    ensure_eq!(look_up(cx, &topic, first.timestamp + 1)?, NOTHING, "after the arrival");
    ensure_eq!(look_up(cx, &topic, NEWEST)?, first, "the newest");
    Ok(String::new())
}

fn empty(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("empty", 1)?;
    ensure_eq!(look_up(cx, &topic, EARLIEST)?, found(-1, 0), "the start");
    ensure_eq!(look_up(cx, &topic, LATEST)?, found(-1, 0), "the end");
    ensure_eq!(look_up(cx, &topic, 0)?, NOTHING, "any time");
    ensure_eq!(look_up(cx, &topic, NEWEST)?, NOTHING, "the newest");
    Ok(String::new())
}

fn special(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("special", 1)?;
    let time = an_hour_ago()?;
    append(cx, &topic, &RawBatch::new(time, 2, records_at(&[0, 1])))?;
    let mut wire = RawConnection::to_leader(cx, &topic, 0)?;
    let last = newest_common(&mut wire, ApiKey::ListOffsets)?.context("ListOffsets")?;
    for version in 1..=last {
        // Epochs came with version 4.
        let in_version = |mut found: Found| {
            found.epoch = if version < 4 { -1 } else { found.epoch };
            found
        };
        let supported = |since: i16, answer: Found| {
            if version >= since { in_version(answer) } else { Found { code: UNSUPPORTED_VERSION, ..NOTHING } }
        };
        for (position, expected) in [
            (LATEST, in_version(found(-1, 2))),
            (EARLIEST, in_version(found(-1, 0))),
            (time + 1, in_version(found(time + 1, 1))),
            (NEWEST, supported(7, found(time + 1, 1))),
            (EARLIEST_LOCAL, supported(8, found(-1, 0))),
            // Nothing is stored in a remote tier.
            (LATEST_TIERED, supported(9, NOTHING)),
            (-6, Found { code: UNSUPPORTED_VERSION, ..NOTHING }),
            (i64::MIN, Found { code: UNSUPPORTED_VERSION, ..NOTHING }),
        ] {
            let answer = look_up_as(&mut wire, version, false, &topic, position)?;
            ensure_eq!(answer, expected, "position {position} in version {version}");
        }
    }
    Ok(format!("versions 1 to {last}"))
}

fn put(producer: &TestProducer, topic: &str, timestamps: &[i64]) -> Result<(), CheckFailure> {
    for timestamp in timestamps {
        let record =
            NewRecord { partition: Some(0), timestamp: Some(*timestamp), value: Some(b"v"), ..NewRecord::default() };
        send(producer, topic, &record)?;
    }
    await_deliveries(producer).map(|_| ())
}

/// One record, an open transaction of three records, one more record; then the transaction's marker.
fn markers(cx: &CheckContext) -> CheckResult {
    for (commit, codec) in [(true, "gzip"), (false, "none")] {
        let topic = cx.topic(codec, 1)?;
        let start = an_hour_ago()?;
        let plain = |after: i64| append(cx, &topic, &RawBatch::new(start + after, 1, RECORD.bytes()));
        plain(0)?;
        let producer = transactional(cx, &cx.transactional_id(codec), &[("compression.type", codec)])?;
        producer.begin_transaction().context("beginning a transaction")?;
        put(&producer, &topic, &[start + 1_000, start + 1_010, start + 1_020])?;
        plain(50)?;
        let mut wire = RawConnection::to_leader(cx, &topic, 0)?;
        let mut ensure_found = |what: &str, committed_only: bool, expected: &[(i64, Found)]| {
            for (position, expected) in expected {
                let answer = look_up_as(&mut wire, VERSION, committed_only, &topic, *position)?;
                ensure_eq!(answer, *expected, "{what}, committed only {committed_only}: {}", position - start);
            }
            Ok::<_, CheckFailure>(())
        };
        let first = (start, found(start, 0));
        let inside = found(start + 1_010, 2);
        let open = [first, (start + 40, found(start + 1_000, 1)), (start + 1_005, inside), (start + 1_021, NOTHING)];
        ensure_found("open", false, &open)?;
        ensure_found("open", false, &[(NEWEST, found(start + 1_020, 3)), (LATEST, found(-1, 5))])?;
        let hidden = [first, (start + 40, NOTHING), (start + 1_005, NOTHING), (start + 1_021, NOTHING)];
        ensure_found("open", true, &hidden)?;
        ensure_found("open", true, &[(NEWEST, NOTHING), (LATEST, found(-1, 1)), (EARLIEST, found(-1, 0))])?;
        if commit {
            producer.commit_transaction(REQUEST_TIMEOUT).context("committing")?;
        } else {
            producer.abort_transaction(REQUEST_TIMEOUT).context("aborting")?;
        }
        let marker = wait_until("the transaction's marker", REQUEST_TIMEOUT, || {
            let answer = look_up(cx, &topic, start + 1_021)?;
            Ok((answer != NOTHING).then_some(answer))
        })?;
        ensure_eq!((marker.code, marker.offset), (0, 5), "the marker");
        let ended = [first, (start + 40, found(start + 1_000, 1)), (start + 1_005, inside), (NEWEST, marker)];
        for committed_only in [false, true] {
            ensure_found("ended", committed_only, &ended)?;
            ensure_found("ended", committed_only, &[(LATEST, found(-1, 6)), (start + 1_021, marker)])?;
        }
    }
    Ok(String::new())
}
