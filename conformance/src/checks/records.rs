//! Records: what goes in comes out, once, in order, and not too much at once.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders, Timestamp};
use rdkafka::topic_partition_list::Offset;

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, Put, UNCOMMITTED, assign, consumer, producer, read, read_count, send, settle, texts, write,
};
use crate::context::{Context, PATIENCE};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Records, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("key, value, headers and timestamp come back as sent, and nothing is not the same as empty", faithful),
    check("a topic that stamps records on arrival says so and orders them, or cannot be made", stamped_on_arrival),
    check("uncompressed records come back as sent", uncompressed),
    check("gzip records come back as sent", gzip),
    check("snappy records come back as sent", snappy),
    check("lz4 records come back as sent", lz4),
    check("an idempotent producer's 10,000 records arrive once and in order", ten_thousand),
    check("weaker acknowledgements are served", weaker_acks),
    check("a record of 900,000 bytes is accepted", large),
    check("a record over the topic's limit is refused as too large, and the next one is not", too_large),
    check("a record stamped more than an hour ahead is refused for its timestamp, compressed or not", from_the_future),
    check("how far a timestamp may be off is the topic's to say, before and after", timestamp_bounds),
    check("a reader that waits at the end is woken by a record", woken),
    check("an empty partition ends at once", empty),
];

/// In the past, as brokers refuse records from the future.
const SOME_TIME: i64 = 1_700_000_000_000;

fn faithful(cx: &Context) -> Verdict {
    let topic = cx.topic("faithful", 1)?;
    let producer = producer(cx, &[])?;
    let headers = OwnedHeaders::new()
        .insert(Header { key: "ce_type", value: Some("a.b.C") })
        .insert(Header { key: "twice", value: Some("1") })
        .insert(Header { key: "twice", value: Some("2") })
        .insert(Header { key: "bytes", value: Some(&[0u8, 255, 128][..]) })
        .insert(Header { key: "empty", value: Some("") })
        .insert(Header { key: "null", value: None::<&str> });
    let put = Put { partition: Some(0), timestamp: Some(SOME_TIME), ..Put::default() };
    let full = Put { key: Some(b"k"), value: Some(b"v"), headers: Some(headers), ..put.clone() };
    send(&producer, &topic, &full)?;
    send(&producer, &topic, &put)?;
    send(&producer, &topic, &Put { key: Some(b""), value: Some(b""), ..put })?;
    settle(&producer)?;
    let got = read(cx, &topic, 0, COMMITTED)?;
    ensure_eq!(got.len(), 3, "records");
    ensure_eq!((&got[0].key, &got[0].value), (&Some(b"k".to_vec()), &Some(b"v".to_vec())), "the full record");
    ensure_eq!((&got[1].key, &got[1].value), (&None, &None), "the record with neither key nor value");
    ensure_eq!((&got[2].key, &got[2].value), (&Some(vec![]), &Some(vec![])), "the empty record");
    ensure!(got.iter().all(|r| r.timestamp == Timestamp::CreateTime(SOME_TIME)), "timestamp: {:?}", got[0].timestamp);
    let wanted: Vec<(String, Option<Vec<u8>>)> = vec![
        ("ce_type".into(), Some(b"a.b.C".to_vec())),
        ("twice".into(), Some(b"1".to_vec())),
        ("twice".into(), Some(b"2".to_vec())),
        ("bytes".into(), Some(vec![0, 255, 128])),
        ("empty".into(), Some(vec![])),
        ("null".into(), None),
    ];
    ensure_eq!(got[0].headers, wanted, "headers");
    Ok(String::new())
}

fn stamped_on_arrival(cx: &Context) -> Verdict {
    let topic = match cx.topic_with("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]) {
        Ok(topic) => topic,
        // This project's own topics keep the time a record was made; what is not offered must be refused, not ignored.
        Err(failure) if failure.to_string().contains("InvalidConfig") => return Ok("refused as a config".to_owned()),
        Err(failure) => return Err(failure),
    };
    let producer = producer(cx, &[])?;
    for _ in 0..3 {
        let put = Put { partition: Some(0), value: Some(b"v"), timestamp: Some(SOME_TIME), ..Put::default() };
        send(&producer, &topic, &put)?;
        settle(&producer)?;
    }
    let mut last = SOME_TIME;
    for got in read(cx, &topic, 0, COMMITTED)? {
        let Timestamp::LogAppendTime(at) = got.timestamp else {
            return Err(Failure::new(format!("offset {} carries {:?}", got.offset, got.timestamp)));
        };
        ensure!(at >= last && at > SOME_TIME, "offset {} is stamped {at}, after {last}", got.offset);
        last = at;
    }
    ensure!(last > SOME_TIME, "nothing was read");
    Ok(String::new())
}

fn round_trip(cx: &Context, codec: &str) -> Verdict {
    let topic = cx.topic(codec, 1)?;
    let producer = producer(cx, &[("compression.codec", codec), ("linger.ms", "50")])?;
    let values: Vec<String> = (0..2_000).map(|i| format!("{i}-{}", "compressible ".repeat(i % 40))).collect();
    write(&producer, &topic, 0, &values)?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), values, "the records");
    Ok(format!("{} records", values.len()))
}

fn uncompressed(cx: &Context) -> Verdict {
    round_trip(cx, "none")
}

fn gzip(cx: &Context) -> Verdict {
    round_trip(cx, "gzip")
}

fn snappy(cx: &Context) -> Verdict {
    round_trip(cx, "snappy")
}

fn lz4(cx: &Context) -> Verdict {
    round_trip(cx, "lz4")
}

fn ten_thousand(cx: &Context) -> Verdict {
    let topic = cx.topic("ten-thousand", 2)?;
    // Small batches, so that many are on the way at once.
    let producer = producer(cx, &[("batch.num.messages", "37"), ("linger.ms", "0")])?;
    for i in 0..10_000 {
        let value = i.to_string();
        send(&producer, &topic, &Put { partition: Some(i % 2), value: Some(value.as_bytes()), ..Put::default() })?;
    }
    let failed = settle(&producer)?.into_iter().filter(Result::is_err).count();
    ensure_eq!(failed, 0, "failed deliveries");
    for partition in 0..2 {
        let wanted: Vec<String> = (0..10_000).filter(|i| i % 2 == partition).map(|i| i.to_string()).collect();
        let got = read(cx, &topic, partition, COMMITTED)?;
        ensure!(texts(&got) == wanted, "partition {partition}: {} records, or out of order", got.len());
        ensure!(got.iter().enumerate().all(|(i, r)| r.offset == i as i64), "partition {partition}: offsets have gaps");
    }
    Ok(String::new())
}

fn weaker_acks(cx: &Context) -> Verdict {
    let topic = cx.topic("weaker", 1)?;
    for (acks, total) in [("1", 10), ("0", 20)] {
        let producer = producer(cx, &[("enable.idempotence", "false"), ("acks", acks)])?;
        for i in 0..10 {
            let value = i.to_string();
            send(&producer, &topic, &Put { partition: Some(0), value: Some(value.as_bytes()), ..Put::default() })?;
        }
        settle(&producer)?;
        let reader = consumer(cx, &cx.group(acks), &[])?;
        assign(&reader, &[(&topic, 0, Offset::Beginning)])?;
        read_count(&reader, total, PATIENCE)?;
    }
    Ok(String::new())
}

fn large(cx: &Context) -> Verdict {
    let topic = cx.topic("large", 1)?;
    let value: Vec<u8> = (0..900_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(&producer(cx, &[])?, &topic, 0, [&value])?;
    let got = read(cx, &topic, 0, COMMITTED)?;
    ensure!(got.len() == 1 && got[0].value.as_ref() == Some(&value), "{} records, or other bytes", got.len());
    Ok(String::new())
}

fn too_large(cx: &Context) -> Verdict {
    let topic = cx.topic_with("too-large", 1, &[("max.message.bytes", "10000")])?;
    let producer = producer(cx, &[])?;
    send(&producer, &topic, &Put { partition: Some(0), value: Some(&[7; 20_000]), ..Put::default() })?;
    let refused = settle(&producer)?.into_iter().next().doing("a delivery report")?;
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

fn now_ms() -> Result<i64, Failure> {
    Timestamp::now().to_millis().doing("the time of this machine")
}

/// What became of records with these timestamps, sent in one batch.
fn stamped(cx: &Context, topic: &str, codec: &str, stamps: &[i64]) -> Result<Vec<Result<(), KafkaError>>, Failure> {
    let producer = producer(cx, &[("compression.codec", codec), ("linger.ms", "50")])?;
    for at in stamps {
        let put = Put { partition: Some(0), value: Some(&[b'v'; 500]), timestamp: Some(*at), ..Put::default() };
        send(&producer, topic, &put)?;
    }
    Ok(settle(&producer)?.into_iter().map(|report| report.map(|_| ())).collect())
}

const REFUSED: Result<(), KafkaError> = Err(KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTimestamp));

fn from_the_future(cx: &Context) -> Verdict {
    let topic = cx.topic("future", 1)?;
    let now = now_ms()?;
    for codec in ["none", "lz4"] {
        // One of the records of a batch is enough to refuse all of it, wherever it lies.
        for stamps in [[now, now + 2 * HOUR_MS, now], [now + 2 * HOUR_MS, now, now]] {
            ensure_eq!(stamped(cx, &topic, codec, &stamps)?, vec![REFUSED; 3], "two hours ahead, {codec}");
        }
        ensure_eq!(stamped(cx, &topic, codec, &[now + HOUR_MS / 2])?, vec![Ok(())], "half an hour ahead, {codec}");
    }
    ensure_eq!(read(cx, &topic, 0, COMMITTED)?.len(), 2, "records");
    Ok(String::new())
}

fn timestamp_bounds(cx: &Context) -> Verdict {
    let bounds = [("message.timestamp.after.max.ms", "86400000"), ("message.timestamp.before.max.ms", "3600000")];
    let topic = cx.topic_with("bounds", 1, &bounds)?;
    let now = now_ms()?;
    ensure_eq!(stamped(cx, &topic, "none", &[now + 2 * HOUR_MS])?, vec![Ok(())], "two hours ahead, a day allowed");
    ensure_eq!(stamped(cx, &topic, "none", &[now - 2 * HOUR_MS])?, vec![REFUSED], "two hours ago, one allowed");
    Ok(String::new())
}

fn woken(cx: &Context) -> Verdict {
    let topic = cx.topic("woken", 1)?;
    let reader = consumer(cx, &cx.group("woken"), &[("fetch.wait.max.ms", "20000"), ("fetch.min.bytes", "1")])?;
    assign(&reader, &[(&topic, 0, Offset::Beginning)])?;
    let producer = producer(cx, &[("linger.ms", "0")])?;
    // The first pair brings the reader to the end, where its fetch then waits for up to 20 s.
    write(&producer, &topic, 0, ["first"])?;
    read_count(&reader, 1, PATIENCE)?;
    let started = Instant::now();
    write(&producer, &topic, 0, ["second"])?;
    read_count(&reader, 1, Duration::from_secs(10)).doing("a waiting fetch")?;
    Ok(format!("after {:.1} ms", started.elapsed().as_secs_f64() * 1_000.0))
}

fn empty(cx: &Context) -> Verdict {
    let topic = cx.topic("empty", 1)?;
    ensure_eq!(read(cx, &topic, 0, COMMITTED)?.len(), 0, "records");
    Ok(String::new())
}
