//! Offsets: look-ups, start positions, commits, and deleted records.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, NewRecord, assign, await_deliveries, committed, consumer, offsets, poll_for_error, producer, read,
    read_count, read_to_end, reader, send, texts, watermarks, write,
};
use crate::context::{CheckContext, REQUEST_TIMEOUT};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Offsets, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("an offset is found by time", by_time),
    check("a reader starts at the beginning, at the end, or a number of records before the end", starts),
    check("a reader can seek backwards and forwards", seek),
    check("committed offsets and their metadata are stored per group", commits),
    check("a commit can move a group backwards as well as forwards", commit_backwards),
    check("deleting records raises the low watermark, and their offsets are out of range", delete_records),
    check("deleting records beyond the end is refused", delete_beyond),
    check("a start beyond the end is an error", beyond_the_end),
];

const START: i64 = 1_700_000_000_000;

fn by_time(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("by-time", 1)?;
    let producer = producer(cx, &[])?;
    // One batch for the first five records and one for each other record: tests the look-up across batches and inside a batch.
    for i in 0..10 {
        let put = NewRecord {
            partition: Some(0),
            value: Some(b"v"),
            timestamp: Some(START + i * 1_000),
            ..NewRecord::default()
        };
        send(&producer, &topic, &put)?;
        if i >= 4 {
            await_deliveries(&producer)?;
        }
    }
    let consumer = consumer(cx, &cx.group("by-time"), &[])?;
    let offset_at = |at: i64| -> Result<Offset, CheckFailure> {
        let response = consumer
            .offsets_for_times(offsets(&[(&topic, 0, Offset::Offset(at))])?, REQUEST_TIMEOUT)
            .context(format_args!("the offset at {at}"))?;
        Ok(response.find_partition(&topic, 0).context("the partition in the response")?.offset())
    };
    let cases = [
        (0, Offset::Offset(0)),
        (1_500, Offset::Offset(2)),
        (5_500, Offset::Offset(6)),
        (9_000, Offset::Offset(9)),
        (9_001, Offset::End),
    ];
    for (after, expected) in cases {
        ensure_eq!(offset_at(START + after)?, expected, "the offset {after} ms after the first record");
    }
    ensure_eq!(offset_at(1)?, Offset::Offset(0), "the offset long before the first record");
    Ok(String::new())
}

fn starts(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("starts", 1)?;
    let producer = producer(cx, &[])?;
    write(&producer, &topic, 0, (0..10).map(|i| i.to_string()))?;
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (0, 10), "watermarks");
    let from = |offset| -> Result<Vec<String>, CheckFailure> {
        Ok(texts(&read_to_end(&reader(cx, &topic, 0, COMMITTED, offset)?)?))
    };
    ensure_eq!(from(Offset::Beginning)?.len(), 10, "records from the beginning");
    ensure_eq!(from(Offset::Offset(4))?, ["4", "5", "6", "7", "8", "9"], "records from offset 4");
    ensure_eq!(from(Offset::OffsetTail(3))?, ["7", "8", "9"], "records from three before the end");
    ensure_eq!(from(Offset::End)?.len(), 0, "records from the end");
    let at_end = reader(cx, &topic, 0, COMMITTED, Offset::End)?;
    read_to_end(&at_end)?;
    write(&producer, &topic, 0, ["new"])?;
    ensure_eq!(texts(&read_count(&at_end, 1, REQUEST_TIMEOUT)?), ["new"], "the next record of a reader at the end");
    Ok(String::new())
}

fn seek(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("seek", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..100).map(|i| i.to_string()))?;
    let reader = reader(cx, &topic, 0, COMMITTED, Offset::Beginning)?;
    read_to_end(&reader)?;
    for (to, left) in [(90, 10), (5, 95), (99, 1)] {
        reader.seek(&topic, 0, Offset::Offset(to), REQUEST_TIMEOUT).context(format_args!("seeking to {to}"))?;
        let records = read_to_end(&reader)?;
        ensure_eq!(records.len(), left, "records from {to}");
        ensure_eq!(records[0].offset, to, "the first offset after seeking to {to}");
    }
    Ok(String::new())
}

fn commits(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("commits", 2)?;
    write(&producer(cx, &[])?, &topic, 0, (0..10).map(|i| i.to_string()))?;
    let (group, other) = (cx.group("one"), cx.group("other"));
    let writer = consumer(cx, &group, &[])?;
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&topic, 0);
    element.set_offset(Offset::Offset(7)).context("setting an offset")?;
    element.set_metadata("seven of ten");
    writer.commit(&list, CommitMode::Sync).context("committing")?;
    drop(writer);
    let client = consumer(cx, &group, &[])?;
    let mut expected = TopicPartitionList::new();
    expected.add_partition(&topic, 0);
    expected.add_partition(&topic, 1);
    let response = client.committed_offsets(expected, REQUEST_TIMEOUT).context("asking for committed offsets")?;
    let zero = response.find_partition(&topic, 0).context("partition 0")?;
    ensure_eq!((zero.offset(), zero.metadata()), (Offset::Offset(7), "seven of ten"), "partition 0");
    let one = response.find_partition(&topic, 1).context("partition 1")?.offset();
    ensure_eq!(one, Offset::Invalid, "partition 1, where nothing was committed");
    let elsewhere = committed(&consumer(cx, &other, &[])?, &topic, 0, REQUEST_TIMEOUT).context("the other group")?;
    ensure_eq!(elsewhere, None, "what another group has committed");
    assign(&client, &[(&topic, 0, Offset::Stored)])?;
    ensure_eq!(texts(&read_to_end(&client)?), ["7", "8", "9"], "records from the committed offset");
    Ok(String::new())
}

fn commit_backwards(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("backwards", 1)?;
    let consumer = consumer(cx, &cx.group("backwards"), &[])?;
    for offset in [5, 9, 2] {
        consumer
            .commit(&offsets(&[(&topic, 0, Offset::Offset(offset))])?, CommitMode::Sync)
            .context(format_args!("committing {offset}"))?;
        let now = committed(&consumer, &topic, 0, REQUEST_TIMEOUT).context("asking for the committed offset")?;
        ensure_eq!(now, Some(offset), "the committed offset");
    }
    Ok(String::new())
}

fn delete_up_to(cx: &CheckContext, topic: &str, offset: Offset) -> Result<Offset, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset)?;
    let response = cx.wait(cx.admin.delete_records(&list, &cx.admin_options()))?;
    let element = response.find_partition(topic, 0).ok_or(KafkaError::NoMessageReceived)?;
    element.error()?;
    Ok(element.offset())
}

fn delete_records(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("delete-records", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..100).map(|i| i.to_string()))?;
    ensure_eq!(
        delete_up_to(cx, &topic, Offset::Offset(40)).context("deleting")?,
        Offset::Offset(40),
        "the new low watermark"
    );
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (40, 100), "watermarks");
    let records = read(cx, &topic, 0, COMMITTED)?;
    ensure_eq!((records.len(), records[0].offset), (60, 40), "number and first offset of the remaining records");
    let late = reader(cx, &topic, 0, COMMITTED, Offset::Offset(10))?;
    let error = poll_for_error(&late, REQUEST_TIMEOUT)?;
    ensure_eq!(
        error,
        KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset),
        "the error below the low watermark"
    );
    ensure_eq!(
        delete_up_to(cx, &topic, Offset::End).context("deleting all")?,
        Offset::Offset(100),
        "the low watermark at the end"
    );
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (100, 100), "watermarks when all is deleted");
    Ok(error.to_string())
}

fn delete_beyond(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("delete-beyond", 1)?;
    write(&producer(cx, &[])?, &topic, 0, ["only"])?;
    let refused = delete_up_to(cx, &topic, Offset::Offset(50));
    ensure!(
        matches!(refused, Err(ref error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetOutOfRange)),
        "deleting up to 50 of 1 gave {refused:?}"
    );
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (0, 1), "watermarks afterwards");
    Ok(String::new())
}

fn beyond_the_end(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("beyond", 1)?;
    write(&producer(cx, &[])?, &topic, 0, ["only"])?;
    let reader = reader(cx, &topic, 0, COMMITTED, Offset::Offset(1_000))?;
    let error = poll_for_error(&reader, Duration::from_secs(20))?;
    ensure_eq!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset), "the error");
    Ok(error.to_string())
}
