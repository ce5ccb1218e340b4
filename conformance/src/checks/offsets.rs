//! Offsets: finding a place, starting there, remembering it, and what is no longer there.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, Put, assign, committed, consumer, offsets, poll_for_error, producer, read, read_count, read_to_end,
    reader, send, settle, texts, watermarks, write,
};
use crate::context::{Context, PATIENCE};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Offsets, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("an offset is found by time", by_time),
    check("a reader starts at the beginning, at the end, or so many before the end", starts),
    check("a seek goes back and forth", seek),
    check("committed offsets and their metadata are kept per group", commits),
    check("a commit moves a group back as well as forth", commit_backwards),
    check("deleted records move the low watermark and are out of range", delete_records),
    check("deleting records beyond the end is refused", delete_beyond),
    check("a start beyond the end is an error", beyond_the_end),
];

const START: i64 = 1_700_000_000_000;

fn by_time(cx: &Context) -> Verdict {
    let topic = cx.topic("by-time", 1)?;
    let producer = producer(cx, &[])?;
    // One batch for the first five, one for each of the others: both the search and the look into a batch.
    for i in 0..10 {
        let put = Put { partition: Some(0), value: Some(b"v"), timestamp: Some(START + i * 1_000), ..Put::default() };
        send(&producer, &topic, &put)?;
        if i >= 4 {
            settle(&producer)?;
        }
    }
    let consumer = consumer(cx, &cx.group("by-time"), &[])?;
    let ask = |at: i64| -> Result<Offset, Failure> {
        let answer = consumer
            .offsets_for_times(offsets(&[(&topic, 0, Offset::Offset(at))])?, PATIENCE)
            .doing(format_args!("the offset at {at}"))?;
        Ok(answer.find_partition(&topic, 0).doing("the partition in the answer")?.offset())
    };
    let cases = [
        (0, Offset::Offset(0)),
        (1_500, Offset::Offset(2)),
        (5_500, Offset::Offset(6)),
        (9_000, Offset::Offset(9)),
        (9_001, Offset::End),
    ];
    for (after, wanted) in cases {
        ensure_eq!(ask(START + after)?, wanted, "the offset {after} ms after the first record");
    }
    ensure_eq!(ask(1)?, Offset::Offset(0), "the offset long before the first record");
    Ok(String::new())
}

fn starts(cx: &Context) -> Verdict {
    let topic = cx.topic("starts", 1)?;
    let producer = producer(cx, &[])?;
    write(&producer, &topic, 0, (0..10).map(|i| i.to_string()))?;
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (0, 10), "watermarks");
    let from = |offset| -> Result<Vec<String>, Failure> {
        Ok(texts(&read_to_end(&reader(cx, &topic, 0, COMMITTED, offset)?)?))
    };
    ensure_eq!(from(Offset::Beginning)?.len(), 10, "records from the beginning");
    ensure_eq!(from(Offset::Offset(4))?, ["4", "5", "6", "7", "8", "9"], "records from offset 4");
    ensure_eq!(from(Offset::OffsetTail(3))?, ["7", "8", "9"], "records from three before the end");
    ensure_eq!(from(Offset::End)?.len(), 0, "records from the end");
    let at_end = reader(cx, &topic, 0, COMMITTED, Offset::End)?;
    read_to_end(&at_end)?;
    write(&producer, &topic, 0, ["new"])?;
    ensure_eq!(texts(&read_count(&at_end, 1, PATIENCE)?), ["new"], "the next record of a reader at the end");
    Ok(String::new())
}

fn seek(cx: &Context) -> Verdict {
    let topic = cx.topic("seek", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..100).map(|i| i.to_string()))?;
    let reader = reader(cx, &topic, 0, COMMITTED, Offset::Beginning)?;
    read_to_end(&reader)?;
    for (to, left) in [(90, 10), (5, 95), (99, 1)] {
        reader.seek(&topic, 0, Offset::Offset(to), PATIENCE).doing(format_args!("seeking to {to}"))?;
        let got = read_to_end(&reader)?;
        ensure_eq!(got.len(), left, "records from {to}");
        ensure_eq!(got[0].offset, to, "the first offset after seeking to {to}");
    }
    Ok(String::new())
}

fn commits(cx: &Context) -> Verdict {
    let topic = cx.topic("commits", 2)?;
    write(&producer(cx, &[])?, &topic, 0, (0..10).map(|i| i.to_string()))?;
    let (group, other) = (cx.group("one"), cx.group("other"));
    let writer = consumer(cx, &group, &[])?;
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&topic, 0);
    element.set_offset(Offset::Offset(7)).doing("setting an offset")?;
    element.set_metadata("seven of ten");
    writer.commit(&list, CommitMode::Sync).doing("committing")?;
    drop(writer);
    let asker = consumer(cx, &group, &[])?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(&topic, 0);
    wanted.add_partition(&topic, 1);
    let answer = asker.committed_offsets(wanted, PATIENCE).doing("asking for committed offsets")?;
    let zero = answer.find_partition(&topic, 0).doing("partition 0")?;
    ensure_eq!((zero.offset(), zero.metadata()), (Offset::Offset(7), "seven of ten"), "partition 0");
    let one = answer.find_partition(&topic, 1).doing("partition 1")?.offset();
    ensure_eq!(one, Offset::Invalid, "partition 1, where nothing was committed");
    let elsewhere = committed(&consumer(cx, &other, &[])?, &topic, 0, PATIENCE).doing("the other group")?;
    ensure_eq!(elsewhere, None, "what another group has committed");
    assign(&asker, &[(&topic, 0, Offset::Stored)])?;
    ensure_eq!(texts(&read_to_end(&asker)?), ["7", "8", "9"], "records from the committed offset");
    Ok(String::new())
}

fn commit_backwards(cx: &Context) -> Verdict {
    let topic = cx.topic("backwards", 1)?;
    let consumer = consumer(cx, &cx.group("backwards"), &[])?;
    for offset in [5, 9, 2] {
        consumer
            .commit(&offsets(&[(&topic, 0, Offset::Offset(offset))])?, CommitMode::Sync)
            .doing(format_args!("committing {offset}"))?;
        let now = committed(&consumer, &topic, 0, PATIENCE).doing("asking for the committed offset")?;
        ensure_eq!(now, Some(offset), "the committed offset");
    }
    Ok(String::new())
}

fn delete_up_to(cx: &Context, topic: &str, offset: Offset) -> Result<Offset, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset)?;
    let answer = cx.wait(cx.admin.delete_records(&list, &cx.admin_options()))?;
    let element = answer.find_partition(topic, 0).ok_or(KafkaError::NoMessageReceived)?;
    element.error()?;
    Ok(element.offset())
}

fn delete_records(cx: &Context) -> Verdict {
    let topic = cx.topic("delete-records", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..100).map(|i| i.to_string()))?;
    ensure_eq!(delete_up_to(cx, &topic, Offset::Offset(40)).doing("deleting")?, Offset::Offset(40), "the new low mark");
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (40, 100), "watermarks");
    let got = read(cx, &topic, 0, COMMITTED)?;
    ensure_eq!((got.len(), got[0].offset), (60, 40), "number and first offset of what is left");
    let late = reader(cx, &topic, 0, COMMITTED, Offset::Offset(10))?;
    let error = poll_for_error(&late, PATIENCE)?;
    ensure_eq!(
        error,
        KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset),
        "the error below the low mark"
    );
    ensure_eq!(
        delete_up_to(cx, &topic, Offset::End).doing("deleting all")?,
        Offset::Offset(100),
        "the low mark at the end"
    );
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (100, 100), "watermarks when all is deleted");
    Ok(error.to_string())
}

fn delete_beyond(cx: &Context) -> Verdict {
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

fn beyond_the_end(cx: &Context) -> Verdict {
    let topic = cx.topic("beyond", 1)?;
    write(&producer(cx, &[])?, &topic, 0, ["only"])?;
    let reader = reader(cx, &topic, 0, COMMITTED, Offset::Offset(1_000))?;
    let error = poll_for_error(&reader, Duration::from_secs(20))?;
    ensure_eq!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset), "the error");
    Ok(error.to_string())
}
