//! Produced batches: what a reader can read is accepted, what no reader can read is refused and leaves no trace in the log.
//!
//! The tables are what Apache Kafka 4.3.1 answers. Where its validation fails with an exception of its own it answers
//! `UNKNOWN_SERVER_ERROR`; a broker may name the error instead. Some batches that stop or mislead a reader pass on Apache Kafka; a
//! broker may refuse them.

mod tables;

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, TopicName, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::lookups::end_of;
use super::records::now_ms;
use crate::batch_bytes::{CODECS, GZIP, RECORD, RawBatch, RawRecord, ZSTD, compress, record_at, records_at};
use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{COMMITTED, read};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};
use crate::wire::RawConnection;
use tables::{CorrectedCase, Expected, ProduceCase, accepted, corrected, refused};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Batches, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("batches that a reader can read are accepted, in every codec", readable),
    check("batches that no reader can read are refused and not written", unreadable),
    check("the largest timestamp that a batch states is corrected", corrections),
    check("a compacted topic refuses a batch with a record without key, and names the record", keyless),
    check("a batch with a timestamp out of range is refused, and the record is named", out_of_range),
    check("a topic with LogAppendTime refuses a batch that claims to be stamped already", append_time),
    check("zstd is refused in versions of the request whose clients cannot read it", early_zstd),
    check("a transactional batch needs the transactional id in its request", without_transactional_id),
];

const INVALID_RECORD: i16 = 87;
const INVALID_TIMESTAMP: i16 = 32;
/// The newest version of the request whose encoding is not flexible, with reasons in its response.
const VERSION: i16 = 8;

pub(super) fn produce(
    cx: &CheckContext,
    topic: &str,
    version: i16,
    transactional_id: Option<&str>,
    records: Vec<u8>,
) -> Result<PartitionProduceResponse, CheckFailure> {
    let name = |text: &str| StrBytes::from_string(text.to_owned());
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records.into()));
    let topic_data = TopicProduceData::default().with_name(TopicName(name(topic))).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(name(id))))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic_data]);
    // A new leader may not know yet that it leads; client libraries retry as well.
    wait_until("a leader that accepts requests", REQUEST_TIMEOUT, || {
        let response = RawConnection::to_leader(cx, topic, 0)?.call(version, &request)?;
        let partitions = response.responses.into_iter().next().context("the topic")?.partition_responses;
        let partition = partitions.into_iter().next().context("the partition")?;
        Ok((!matches!(partition.error_code, 3 | 6)).then_some(partition))
    })
}

fn readable(cx: &CheckContext) -> CheckResult {
    let cases = accepted()?;
    for zstd in [false, true] {
        let topic = cx.topic(if zstd { "zstd" } else { "readable" }, 1)?;
        let mut end = 0;
        for case in cases.iter().filter(|case| case.is_zstd() == zstd) {
            let response = produce(cx, &topic, VERSION, None, case.bytes.clone())?;
            ensure_eq!((response.error_code, response.base_offset), (0, end), "{}", case.name);
            end += case.count;
            ensure_eq!(end_of(cx, &topic)?, end, "the end of the log after: {}", case.name);
        }
        // The suite's client library is built without zstd.
        if !zstd {
            ensure_eq!(read(cx, &topic, 0, COMMITTED)?.len() as i64, end, "records that a reader gets");
        }
    }
    Ok(format!("{} batches", cases.len()))
}

fn unreadable(cx: &CheckContext) -> CheckResult {
    let cases = refused()?;
    let topic = cx.topic("unreadable", 1)?;
    let mut end = 0;
    let mut differing = Vec::new();
    for case in &cases {
        let ProduceCase { name, expected, .. } = case;
        let code = produce(cx, &topic, VERSION, None, case.bytes.clone())?.error_code;
        let fits = match expected {
            Expected::Refused(expected) => code == *expected,
            Expected::RefusedByName(named) => code == -1 || code == *named,
            Expected::MayBeRefused => code == 0 || code == INVALID_RECORD,
        };
        if !fits {
            differing.push(format!("{name}: error {code}, expected {expected:?}"));
        }
        end += if code == 0 { case.count } else { 0 };
        ensure_eq!(end_of(cx, &topic)?, end, "the end of the log after: {name}");
    }
    ensure!(differing.is_empty(), "{}", differing.join("; "));
    let sound = RawBatch::new(now_ms()?, 1, RECORD.bytes()).bytes();
    ensure_eq!(produce(cx, &topic, VERSION, None, sound)?.base_offset, end, "the offset of a sound batch afterwards");
    Ok(format!("{} batches, {end} records accepted", cases.len()))
}

fn corrections(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("corrected", 1)?;
    for CorrectedCase { name, bytes, max_timestamp, attributes } in corrected()? {
        let offset = produce(cx, &topic, VERSION, None, bytes)?.base_offset;
        ensure!(offset >= 0, "{name}: refused");
        let batch = super::log::fetch_records(cx, &topic, offset)?;
        let stored = |at: usize| batch.get(at..at + 8).and_then(|b| b.try_into().ok()).map(i64::from_be_bytes);
        ensure_eq!(stored(35), Some(max_timestamp), "the largest timestamp: {name}");
        let bits = batch.get(21..23).and_then(|b| b.try_into().ok()).map(i16::from_be_bytes);
        ensure_eq!(bits, Some(attributes), "the attributes: {name}");
        let stated = batch.get(17..21).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        ensure_eq!(stated, batch.get(21..).map(crc32c::crc32c), "the checksum: {name}");
    }
    Ok(String::new())
}

/// Positions of the refused records in the response, for which it must give reasons.
fn named(response: &PartitionProduceResponse) -> Result<Vec<i32>, CheckFailure> {
    ensure!(response.error_message.as_ref().is_some_and(|why| !why.is_empty()), "no error message");
    let reasons = response.record_errors.iter().all(|record| record.batch_index_error_message.is_some());
    ensure!(reasons, "a record is refused without a reason");
    Ok(response.record_errors.iter().map(|record| record.batch_index).collect())
}

fn keyless(cx: &CheckContext) -> CheckResult {
    let key = |at| RawRecord { key: Some(b"k"), ..record_at(at) }.bytes();
    let records = [key(0), record_at(1).bytes(), key(2)].concat();
    let empty_key = RawRecord { key: Some(b""), ..RECORD }.bytes();
    for policy in ["compact", "compact,delete"] {
        let topic = cx.topic_with(&policy.replace(',', "-"), 1, &[("cleanup.policy", policy)])?;
        for codec in CODECS {
            let batch = RawBatch::new(now_ms()?, 3, records.clone()).compressed(codec).bytes();
            let response = produce(cx, &topic, VERSION, None, batch.clone())?;
            ensure_eq!(response.error_code, INVALID_RECORD, "{policy}, codec {codec}");
            ensure_eq!(named(&response)?, vec![1], "the refused records, codec {codec}");
            let response = produce(cx, &topic, 7, None, batch)?;
            ensure_eq!(response.error_code, INVALID_RECORD, "in a version without reasons, codec {codec}");
        }
        ensure_eq!(end_of(cx, &topic)?, 0, "the end of the log");
        let batch = RawBatch::new(now_ms()?, 1, empty_key.clone()).bytes();
        ensure_eq!(produce(cx, &topic, VERSION, None, batch)?.error_code, 0, "an empty key");
    }
    Ok(String::new())
}

fn out_of_range(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("out-of-range", 1)?;
    const TWO_HOURS_MS: i64 = 7_200_000;
    for codec in CODECS {
        let records = records_at(&[0, TWO_HOURS_MS, 0, TWO_HOURS_MS]);
        let response =
            produce(cx, &topic, VERSION, None, RawBatch::new(now_ms()?, 4, records).compressed(codec).bytes())?;
        ensure_eq!(response.error_code, INVALID_TIMESTAMP, "codec {codec}");
        ensure_eq!(named(&response)?, vec![1, 3], "the refused records, codec {codec}");
    }
    // The header alone refuses nothing: a reader sees the records' timestamps.
    let batch = RawBatch { max_timestamp: now_ms()? + TWO_HOURS_MS, ..RawBatch::new(now_ms()?, 1, RECORD.bytes()) };
    ensure_eq!(produce(cx, &topic, VERSION, None, batch.bytes())?.error_code, 0, "only the header is ahead");
    ensure_eq!(end_of(cx, &topic)?, 1, "the end of the log");
    Ok(String::new())
}

fn append_time(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic_with("append-time", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    for codec in CODECS {
        let sound = RawBatch::new(5, 2, records_at(&[0, i64::from(i32::MAX)])).compressed(codec);
        let stamped = RawBatch { attributes: sound.attributes | 0x08, ..sound.clone() };
        let response = produce(cx, &topic, VERSION, None, stamped.bytes())?;
        ensure_eq!(response.error_code, INVALID_TIMESTAMP, "a stamped batch, codec {codec}");
        ensure_eq!(named(&response)?, vec![0, 1], "the refused records, codec {codec}");
        let response = produce(cx, &topic, VERSION, None, sound.bytes())?;
        ensure_eq!(response.error_code, 0, "any timestamps, codec {codec}");
        ensure!(response.log_append_time_ms > 5, "the append time is {}", response.log_append_time_ms);
    }
    Ok(String::new())
}

fn early_zstd(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("early-zstd", 1)?;
    let sound = RawBatch::new(now_ms()?, 1, RECORD.bytes()).compressed(ZSTD).bytes();
    let garbage = RawBatch { attributes: ZSTD, ..RawBatch::new(now_ms()?, 1, b"no zstd".to_vec()) }.bytes();
    for version in 3..7 {
        for batch in [&sound, &garbage] {
            ensure_eq!(produce(cx, &topic, version, None, batch.clone())?.error_code, 76, "version {version}");
        }
    }
    ensure_eq!(end_of(cx, &topic)?, 0, "the end of the log");
    ensure_eq!(produce(cx, &topic, 7, None, sound)?.error_code, 0, "version 7");
    // The bits decide, not the bytes.
    let gzip = RawBatch { attributes: GZIP, ..RawBatch::new(now_ms()?, 1, compress(GZIP, &RECORD.bytes())) }.bytes();
    ensure_eq!(produce(cx, &topic, 3, None, gzip)?.error_code, 0, "gzip in version 3");
    Ok(String::new())
}

fn without_transactional_id(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("no-id", 1)?;
    let batch = RawBatch::new(now_ms()?, 1, RECORD.bytes());
    let batch = RawBatch { attributes: 0x10, producer_id: 5, producer_epoch: 0, base_sequence: 0, ..batch };
    ensure_eq!(produce(cx, &topic, VERSION, None, batch.bytes())?.error_code, 53, "the error code");
    ensure_eq!(end_of(cx, &topic)?, 0, "the end of the log");
    Ok(String::new())
}
