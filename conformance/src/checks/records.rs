//! Records: written once, read in order, within limits.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders, Timestamp};
use rdkafka::topic_partition_list::Offset;

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, NewRecord, UNCOMMITTED, assign, await_deliveries, consumer, producer, read, read_count, send, texts,
    write,
};
use crate::context::{CheckContext, REQUEST_TIMEOUT};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Records, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("key, value, headers and timestamp are read as sent, and null differs from empty", unchanged),
    check("a topic with LogAppendTime stamps records in order, or is refused", stamped_on_arrival),
    check("uncompressed records are read as sent", uncompressed),
    check("gzip records are read as sent", gzip),
    check("snappy records are read as sent", snappy),
    check("lz4 records are read as sent", lz4),
    check("an idempotent producer's 10,000 records are written once and in order", ten_thousand),
    check("acks=1 and acks=0 are supported", weaker_acks),
    check("a record of 900,000 bytes is accepted", large),
    check("a record over the topic's size limit is refused, and the next one is accepted", too_large),
    check("a record with a timestamp more than an hour ahead is refused, compressed or not", timestamp_ahead),
    check("the topic limits how far timestamps may be behind and ahead", timestamp_bounds),
    check("a reader that waits at the end is woken by a record", woken),
    check("an empty partition reports its end at once", empty),
];

/// A time in the past: brokers refuse timestamps in the future.
const SOME_TIME: i64 = 1_700_000_000_000;

fn unchanged(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("unchanged", 1)?;
    let producer = producer(cx, &[])?;
    let headers = OwnedHeaders::new()
        .insert(Header { key: "ce_type", value: Some("a.b.C") })
        .insert(Header { key: "twice", value: Some("1") })
        .insert(Header { key: "twice", value: Some("2") })
        .insert(Header { key: "bytes", value: Some(&[0u8, 255, 128][..]) })
        .insert(Header { key: "empty", value: Some("") })
        .insert(Header { key: "null", value: None::<&str> });
    let put = NewRecord { partition: Some(0), timestamp: Some(SOME_TIME), ..NewRecord::default() };
    let full = NewRecord { key: Some(b"k"), value: Some(b"v"), headers: Some(headers), ..put.clone() };
    send(&producer, &topic, &full)?;
    send(&producer, &topic, &put)?;
    send(&producer, &topic, &NewRecord { key: Some(b""), value: Some(b""), ..put })?;
    await_deliveries(&producer)?;
    let records = read(cx, &topic, 0, COMMITTED)?;
    ensure_eq!(records.len(), 3, "records");
    ensure_eq!((&records[0].key, &records[0].value), (&Some(b"k".to_vec()), &Some(b"v".to_vec())), "the full record");
    ensure_eq!((&records[1].key, &records[1].value), (&None, &None), "the record with neither key nor value");
    ensure_eq!((&records[2].key, &records[2].value), (&Some(vec![]), &Some(vec![])), "the empty record");
    ensure!(
        records.iter().all(|r| r.timestamp == Timestamp::CreateTime(SOME_TIME)),
        "timestamp: {:?}",
        records[0].timestamp
    );
    let expected: Vec<(String, Option<Vec<u8>>)> = vec![
        ("ce_type".into(), Some(b"a.b.C".to_vec())),
        ("twice".into(), Some(b"1".to_vec())),
        ("twice".into(), Some(b"2".to_vec())),
        ("bytes".into(), Some(vec![0, 255, 128])),
        ("empty".into(), Some(vec![])),
        ("null".into(), None),
    ];
    ensure_eq!(records[0].headers, expected, "headers");
    Ok(String::new())
}

fn stamped_on_arrival(cx: &CheckContext) -> CheckResult {
    let topic = match cx.topic_with("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]) {
        Ok(topic) => topic,
        // dacapo's topics use CreateTime. A server without LogAppendTime must refuse the config, not ignore it.
        Err(failure) if failure.to_string().contains("InvalidConfig") => return Ok("refused as a config".to_owned()),
        Err(failure) => return Err(failure),
    };
    let producer = producer(cx, &[])?;
    for _ in 0..3 {
        let put =
            NewRecord { partition: Some(0), value: Some(b"v"), timestamp: Some(SOME_TIME), ..NewRecord::default() };
        send(&producer, &topic, &put)?;
        await_deliveries(&producer)?;
    }
    let mut last = SOME_TIME;
    for records in read(cx, &topic, 0, COMMITTED)? {
        let Timestamp::LogAppendTime(at) = records.timestamp else {
            return Err(CheckFailure::new(format!("offset {} carries {:?}", records.offset, records.timestamp)));
        };
        ensure!(at >= last && at > SOME_TIME, "offset {} is stamped {at}, after {last}", records.offset);
        last = at;
    }
    ensure!(last > SOME_TIME, "nothing was read");
    Ok(String::new())
}

fn round_trip(cx: &CheckContext, codec: &str) -> CheckResult {
    let topic = cx.topic(codec, 1)?;
    let producer = producer(cx, &[("compression.codec", codec), ("linger.ms", "50")])?;
    let values: Vec<String> = (0..2_000).map(|i| format!("{i}-{}", "compressible ".repeat(i % 40))).collect();
    write(&producer, &topic, 0, &values)?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), values, "the records");
    Ok(format!("{} records", values.len()))
}

fn uncompressed(cx: &CheckContext) -> CheckResult {
    round_trip(cx, "none")
}

fn gzip(cx: &CheckContext) -> CheckResult {
    round_trip(cx, "gzip")
}

fn snappy(cx: &CheckContext) -> CheckResult {
    round_trip(cx, "snappy")
}

fn lz4(cx: &CheckContext) -> CheckResult {
    round_trip(cx, "lz4")
}

fn ten_thousand(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("ten-thousand", 2)?;
    // Small batches, so that many are in flight at once.
    let producer = producer(cx, &[("batch.num.messages", "37"), ("linger.ms", "0")])?;
    for i in 0..10_000 {
        let value = i.to_string();
        send(
            &producer,
            &topic,
            &NewRecord { partition: Some(i % 2), value: Some(value.as_bytes()), ..NewRecord::default() },
        )?;
    }
    let failed = await_deliveries(&producer)?.into_iter().filter(Result::is_err).count();
    ensure_eq!(failed, 0, "failed deliveries");
    for partition in 0..2 {
        let expected: Vec<String> = (0..10_000).filter(|i| i % 2 == partition).map(|i| i.to_string()).collect();
        let records = read(cx, &topic, partition, COMMITTED)?;
        ensure!(texts(&records) == expected, "partition {partition}: {} records, or out of order", records.len());
        ensure!(
            records.iter().enumerate().all(|(i, r)| r.offset == i as i64),
            "partition {partition}: offsets have gaps"
        );
    }
    Ok(String::new())
}

fn weaker_acks(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("weaker", 1)?;
    for (acks, total) in [("1", 10), ("0", 20)] {
        let producer = producer(cx, &[("enable.idempotence", "false"), ("acks", acks)])?;
        for i in 0..10 {
            let value = i.to_string();
            send(
                &producer,
                &topic,
                &NewRecord { partition: Some(0), value: Some(value.as_bytes()), ..NewRecord::default() },
            )?;
        }
        await_deliveries(&producer)?;
        let reader = consumer(cx, &cx.group(acks), &[])?;
        assign(&reader, &[(&topic, 0, Offset::Beginning)])?;
        read_count(&reader, total, REQUEST_TIMEOUT)?;
    }
    Ok(String::new())
}

fn large(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("large", 1)?;
    let value: Vec<u8> = (0..900_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(&producer(cx, &[])?, &topic, 0, [&value])?;
    let records = read(cx, &topic, 0, COMMITTED)?;
    ensure!(
        records.len() == 1 && records[0].value.as_ref() == Some(&value),
        "{} records, or other bytes",
        records.len()
    );
    Ok(String::new())
}

fn too_large(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic_with("too-large", 1, &[("max.message.bytes", "10000")])?;
    let producer = producer(cx, &[])?;
    send(&producer, &topic, &NewRecord { partition: Some(0), value: Some(&[7; 20_000]), ..NewRecord::default() })?;
    let refused = await_deliveries(&producer)?.into_iter().next().context("a delivery report")?;
    ensure_eq!(
        refused,
        Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)),
        "the delivery of 20,000 bytes"
    );
    write(&self::producer(cx, &[])?, &topic, 0, [&[7; 5_000]])?;
    ensure_eq!(read(cx, &topic, 0, UNCOMMITTED)?.len(), 1, "records");
    Ok(String::new())
}

const HOUR_MS: i64 = 3_600_000;

pub(in crate::checks) fn now_ms() -> Result<i64, CheckFailure> {
    Timestamp::now().to_millis().context("the time of this machine")
}

/// The delivery reports of records with these timestamps, sent in one batch.
fn stamped(
    cx: &CheckContext,
    topic: &str,
    codec: &str,
    stamps: &[i64],
) -> Result<Vec<Result<(), KafkaError>>, CheckFailure> {
    let producer = producer(cx, &[("compression.codec", codec), ("linger.ms", "50")])?;
    for at in stamps {
        let put =
            NewRecord { partition: Some(0), value: Some(&[b'v'; 500]), timestamp: Some(*at), ..NewRecord::default() };
        send(&producer, topic, &put)?;
    }
    Ok(await_deliveries(&producer)?.into_iter().map(|report| report.map(|_| ())).collect())
}

const REFUSED: Result<(), KafkaError> = Err(KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTimestamp));

fn timestamp_ahead(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("future", 1)?;
    let now = now_ms()?;
    for codec in ["none", "lz4"] {
        // One record is enough to refuse the whole batch, whatever its position.
        for stamps in [[now, now + 2 * HOUR_MS, now], [now + 2 * HOUR_MS, now, now]] {
            ensure_eq!(stamped(cx, &topic, codec, &stamps)?, vec![REFUSED; 3], "two hours ahead, {codec}");
        }
        ensure_eq!(stamped(cx, &topic, codec, &[now + HOUR_MS / 2])?, vec![Ok(())], "half an hour ahead, {codec}");
    }
    ensure_eq!(read(cx, &topic, 0, COMMITTED)?.len(), 2, "records");
    Ok(String::new())
}

fn timestamp_bounds(cx: &CheckContext) -> CheckResult {
    let bounds = [("message.timestamp.after.max.ms", "86400000"), ("message.timestamp.before.max.ms", "3600000")];
    let topic = cx.topic_with("bounds", 1, &bounds)?;
    let now = now_ms()?;
    ensure_eq!(stamped(cx, &topic, "none", &[now + 2 * HOUR_MS])?, vec![Ok(())], "two hours ahead, a day allowed");
    ensure_eq!(stamped(cx, &topic, "none", &[now - 2 * HOUR_MS])?, vec![REFUSED], "two hours ago, one allowed");
    Ok(String::new())
}

fn woken(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("woken", 1)?;
    let reader = consumer(cx, &cx.group("woken"), &[("fetch.wait.max.ms", "20000"), ("fetch.min.bytes", "1")])?;
    assign(&reader, &[(&topic, 0, Offset::Beginning)])?;
    let producer = producer(cx, &[("linger.ms", "0")])?;
    // After the first record the reader is at the end, where its fetch waits for up to 20 s.
    write(&producer, &topic, 0, ["first"])?;
    read_count(&reader, 1, REQUEST_TIMEOUT)?;
    let started = Instant::now();
    write(&producer, &topic, 0, ["second"])?;
    read_count(&reader, 1, Duration::from_secs(10)).context("a waiting fetch")?;
    Ok(format!("after {:.1} ms", started.elapsed().as_secs_f64() * 1_000.0))
}

fn empty(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("empty", 1)?;
    ensure_eq!(read(cx, &topic, 0, COMMITTED)?.len(), 0, "records");
    Ok(String::new())
}
