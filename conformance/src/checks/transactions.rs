//! Transactions: all or nothing for records and for offsets, and the visibility of open transactions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::Offset;

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, NewRecord, TestProducer, UNCOMMITTED, await_deliveries, committed, consumer, offsets, position,
    producer, read, read_to_end, reader, send, texts, transactional, watermarks, write,
};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Transactions, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("a committed transaction is visible completely, in every partition it wrote to", commit),
    check("an aborted transaction is hidden from read_committed and visible to read_uncommitted", abort),
    check("a reader separates aborted and committed transactions of several producers", interleaved),
    check("an open transaction hides later records until it ends", open_hides),
    check("the high watermark is the last stable offset for read_committed and the end for read_uncommitted", marks),
    check("at the end of a partition the position is past markers and aborted records", position_at_end),
    check("the end of a partition is reported again when the last stable offset moves", end_again),
    check("an empty transaction commits", empty),
    check("a producer can continue after an abort", after_abort),
    check("offsets in a transaction are stored on commit and not on abort", offsets_follow),
    check("a stable fetch of offsets waits while a transaction may change them", stable_offsets),
    check("a transaction can commit offsets of a group without members", memberless_offsets),
    check("records and offsets of one transaction become visible together", together),
    check("consecutive short transactions are fast with retry.backoff.ms=1", fast_cycle),
];

fn begin(producer: &TestProducer) -> Result<(), CheckFailure> {
    producer.begin_transaction().context("beginning a transaction")
}

fn end(producer: &TestProducer, commit: bool) -> Result<(), CheckFailure> {
    if commit {
        producer.commit_transaction(REQUEST_TIMEOUT).context("committing a transaction")
    } else {
        producer.abort_transaction(REQUEST_TIMEOUT).context("aborting a transaction")
    }
}

/// Adds the group's offset in partition 0 to the open transaction.
fn send_offset(
    producer: &TestProducer,
    group: &ConsumerGroupMetadata,
    topic: &str,
    offset: i64,
) -> Result<(), CheckFailure> {
    let offsets = offsets(&[(topic, 0, Offset::Offset(offset))])?;
    producer.send_offsets_to_transaction(&offsets, group, REQUEST_TIMEOUT).context("sending offsets")
}

/// Runs one complete transaction with these values in one partition.
fn transact(producer: &TestProducer, topic: &str, values: &[&str], commit: bool) -> Result<(), CheckFailure> {
    begin(producer)?;
    write(producer, topic, 0, values)?;
    end(producer, commit)
}

fn commit(cx: &CheckContext) -> CheckResult {
    let topics = [cx.topic("a", 2)?, cx.topic("b", 1)?];
    let producer = transactional(cx, &cx.transactional_id("commit"), &[])?;
    begin(&producer)?;
    for (topic, partition) in [(&topics[0], 0), (&topics[0], 1), (&topics[1], 0)] {
        write(&producer, topic, partition, ["x", "y"])?;
        ensure_eq!(read(cx, topic, partition, COMMITTED)?.len(), 0, "records seen before the commit");
    }
    end(&producer, true)?;
    for (topic, partition) in [(&topics[0], 0), (&topics[0], 1), (&topics[1], 0)] {
        for isolation in [COMMITTED, UNCOMMITTED] {
            ensure_eq!(texts(&read(cx, topic, partition, isolation)?), ["x", "y"], "{isolation} {partition}");
        }
    }
    Ok(String::new())
}

fn abort(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("abort", 1)?;
    let producer = transactional(cx, &cx.transactional_id("abort"), &[])?;
    transact(&producer, &topic, &["a1", "a2"], false)?;
    transact(&producer, &topic, &["c1"], true)?;
    transact(&producer, &topic, &["a3"], false)?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["c1"], "read_committed");
    ensure_eq!(texts(&read(cx, &topic, 0, UNCOMMITTED)?), ["a1", "a2", "c1", "a3"], "read_uncommitted");
    Ok(String::new())
}

fn interleaved(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("interleaved", 1)?;
    let one = transactional(cx, &cx.transactional_id("one"), &[])?;
    let two = transactional(cx, &cx.transactional_id("two"), &[])?;
    let plain = producer(cx, &[])?;
    for round in 0..5 {
        begin(&one)?;
        begin(&two)?;
        write(&one, &topic, 0, [format!("one-{round}")])?;
        write(&two, &topic, 0, [format!("two-{round}")])?;
        write(&plain, &topic, 0, [format!("plain-{round}")])?;
        write(&one, &topic, 0, [format!("one-{round}")])?;
        end(&two, round % 2 == 0)?;
        end(&one, round % 2 == 1)?;
    }
    let mut expected = Vec::new();
    for round in 0..5 {
        let (one, two, plain) = (format!("one-{round}"), format!("two-{round}"), format!("plain-{round}"));
        expected.extend(if round % 2 == 0 { vec![two, plain] } else { vec![one.clone(), plain, one] });
    }
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), expected, "records visible to read_committed");
    // From every offset: the list of aborted transactions depends on where a fetch starts.
    let all = read(cx, &topic, 0, COMMITTED)?;
    for skip in 0..all.len() {
        let from = reader(cx, &topic, 0, COMMITTED, Offset::Offset(all[skip].offset))?;
        ensure_eq!(texts(&read_to_end(&from)?), expected[skip..], "from offset {}", all[skip].offset);
    }
    Ok(String::new())
}

fn open_hides(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("open", 1)?;
    let plain = producer(cx, &[])?;
    let producer = transactional(cx, &cx.transactional_id("open"), &[])?;
    write(&plain, &topic, 0, ["before"])?;
    begin(&producer)?;
    write(&producer, &topic, 0, ["inside"])?;
    write(&plain, &topic, 0, ["after", "after"])?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["before"], "read_committed while it is open");
    let all = ["before", "inside", "after", "after"];
    ensure_eq!(texts(&read(cx, &topic, 0, UNCOMMITTED)?), all, "read_uncommitted while it is open");
    end(&producer, true)?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), all, "read_committed after the commit");
    Ok(String::new())
}

fn marks(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("marks", 1)?;
    let plain = producer(cx, &[])?;
    let producer = transactional(cx, &cx.transactional_id("marks"), &[])?;
    write(&plain, &topic, 0, ["0", "1", "2"])?;
    begin(&producer)?;
    write(&producer, &topic, 0, ["3", "4"])?;
    write(&plain, &topic, 0, ["5", "6", "7", "8"])?;
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (0, 3), "read_committed while a transaction is open");
    ensure_eq!(watermarks(cx, &topic, 0, UNCOMMITTED)?, (0, 9), "read_uncommitted while a transaction is open");
    end(&producer, true)?;
    // The commit is decided when the call returns; the marker is written later.
    wait_until("the marker in the log", REQUEST_TIMEOUT, || {
        Ok((watermarks(cx, &topic, 0, COMMITTED)? == (0, 10)).then_some(()))
    })?;
    ensure_eq!(watermarks(cx, &topic, 0, UNCOMMITTED)?, (0, 10), "read_uncommitted afterwards");
    Ok("3 and 9 of 9, then 10 with the marker".to_owned())
}

fn position_at_end(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("position", 1)?;
    let producer = transactional(cx, &cx.transactional_id("position"), &[])?;
    let mut observed = Vec::new();
    // Two records and a marker each time.
    for (round, commit) in [true, false, false, true].into_iter().enumerate() {
        transact(&producer, &topic, &["x", "y"], commit)?;
        let end = 3 * (round as i64 + 1);
        wait_until("the marker in the log", REQUEST_TIMEOUT, || {
            Ok((watermarks(cx, &topic, 0, COMMITTED)?.1 == end).then_some(()))
        })?;
        let reader = reader(cx, &topic, 0, COMMITTED, Offset::Beginning)?;
        let records = read_to_end(&reader)?.len();
        ensure_eq!(position(&reader, &topic, 0)?, Some(end), "the position at the end, after {records} records");
        observed.push(format!("{records} records, end {end}"));
    }
    Ok(observed.join("; "))
}

fn end_again(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("end-again", 1)?;
    let plain = producer(cx, &[])?;
    let producer = transactional(cx, &cx.transactional_id("end-again"), &[])?;
    begin(&producer)?;
    write(&producer, &topic, 0, ["open"])?;
    write(&plain, &topic, 0, ["later"])?;
    let reader = reader(cx, &topic, 0, COMMITTED, Offset::Beginning)?;
    ensure_eq!(read_to_end(&reader)?.len(), 0, "records before the stable end");
    end(&producer, false)?;
    ensure_eq!(texts(&read_to_end(&reader)?), ["later"], "records up to the next end");
    wait_until("a position past the marker", REQUEST_TIMEOUT, || {
        if position(&reader, &topic, 0)? == Some(3) {
            return Ok(Some(()));
        }
        read_to_end(&reader).map(|_| None)
    })?;
    Ok(String::new())
}

fn empty(cx: &CheckContext) -> CheckResult {
    let producer = transactional(cx, &cx.transactional_id("empty"), &[])?;
    for commit in [true, false, true] {
        begin(&producer)?;
        end(&producer, commit)?;
    }
    Ok(String::new())
}

/// The call waits for delivery reports that only a poll processes, so another thread polls meanwhile.
fn abort_in_flight(producer: &TestProducer) -> Result<(), CheckFailure> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                producer.poll(Duration::ZERO);
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let result = end(producer, false);
        ended.store(true, Ordering::Release);
        result
    })?;
    // The delivery report is irrelevant: the record was aborted.
    await_deliveries(producer).map(|_| ())
}

fn after_abort(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("after-abort", 1)?;
    let producer = transactional(cx, &cx.transactional_id("after-abort"), &[])?;
    let mut expected = Vec::new();
    for round in 0..20 {
        let value = round.to_string();
        begin(&producer)?;
        write(&producer, &topic, 0, [&value])?;
        // Some aborts happen with records in flight.
        if round % 3 == 0 {
            send(
                &producer,
                &topic,
                &NewRecord { partition: Some(0), value: Some(b"in flight"), ..NewRecord::default() },
            )?;
            abort_in_flight(&producer)?;
        } else {
            end(&producer, true)?;
            expected.push(value);
        }
    }
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), expected, "what is committed");
    Ok(String::new())
}

/// A consumer that is the only member of a new group.
fn joined(cx: &CheckContext, group: &str, topic: &str) -> Result<BaseConsumer, CheckFailure> {
    let member = consumer(cx, group, &[])?;
    member.subscribe(&[topic]).context("subscribing")?;
    wait_until("an assignment", REQUEST_TIMEOUT, || {
        member.poll(Duration::from_millis(50));
        Ok((member.assignment().context("asking for the assignment")?.count() > 0).then_some(()))
    })?;
    Ok(member)
}

fn offsets_follow(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("offsets", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..9).map(|i| i.to_string()))?;
    let member = joined(cx, &cx.group("offsets"), &topic)?;
    let producer = transactional(cx, &cx.transactional_id("offsets"), &[])?;
    for (offset, commit, expected) in [(3, true, Some(3)), (5, false, Some(3)), (7, true, Some(7))] {
        let metadata = member.group_metadata().context("group metadata")?;
        begin(&producer)?;
        send_offset(&producer, &metadata, &topic, offset)?;
        end(&producer, commit)?;
        let now = committed(&member, &topic, 0, REQUEST_TIMEOUT).context("asking for the committed offset")?;
        ensure_eq!(now, expected, "the group's offset after {offset}, commit = {commit}");
    }
    Ok(String::new())
}

fn stable_offsets(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("stable", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..9).map(|i| i.to_string()))?;
    let group = cx.group("stable");
    let client = consumer(cx, &group, &[])?;
    let unstable_client = consumer(cx, &group, &[("isolation.level", UNCOMMITTED)])?;
    client.commit(&offsets(&[(&topic, 0, Offset::Offset(2))])?, CommitMode::Sync).context("committing 2")?;
    let metadata = client.group_metadata().context("group metadata")?;
    let producer = transactional(cx, &cx.transactional_id("stable"), &[])?;
    begin(&producer)?;
    send_offset(&producer, &metadata, &topic, 6)?;
    let pending = committed(&client, &topic, 0, Duration::from_secs(2));
    ensure!(pending.is_err(), "a stable fetch gave {pending:?} while the transaction was open");
    let unstable = committed(&unstable_client, &topic, 0, REQUEST_TIMEOUT).context("an unstable fetch")?;
    ensure_eq!(unstable, Some(2), "an unstable fetch");
    end(&producer, true)?;
    ensure_eq!(
        committed(&client, &topic, 0, REQUEST_TIMEOUT).context("a stable fetch")?,
        Some(6),
        "a stable fetch afterwards"
    );
    Ok(format!("{pending:?} meanwhile"))
}

fn memberless_offsets(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("memberless", 1)?;
    let client = consumer(cx, &cx.group("memberless"), &[])?;
    let metadata = client.group_metadata().context("group metadata")?;
    let producer = transactional(cx, &cx.transactional_id("memberless"), &[])?;
    begin(&producer)?;
    send_offset(&producer, &metadata, &topic, 4)?;
    end(&producer, true)?;
    ensure_eq!(
        committed(&client, &topic, 0, REQUEST_TIMEOUT).context("a stable fetch")?,
        Some(4),
        "the committed offset"
    );
    Ok(String::new())
}

fn together(cx: &CheckContext) -> CheckResult {
    let (input, output) = (cx.topic("input", 1)?, cx.topic("output", 1)?);
    write(&producer(cx, &[])?, &input, 0, (0..50).map(|i| i.to_string()))?;
    let member = joined(cx, &cx.group("together"), &input)?;
    let producer = transactional(cx, &cx.transactional_id("together"), &[])?;
    for next in 1..=50i64 {
        let metadata = member.group_metadata().context("group metadata")?;
        begin(&producer)?;
        write(&producer, &output, 0, [(next - 1).to_string()])?;
        send_offset(&producer, &metadata, &input, next)?;
        end(&producer, next % 4 != 0)?;
    }
    let expected: Vec<String> = (0..50).filter(|i| (i + 1) % 4 != 0).map(|i| i.to_string()).collect();
    ensure_eq!(texts(&read(cx, &output, 0, COMMITTED)?), expected, "the output");
    let last = committed(&member, &input, 0, REQUEST_TIMEOUT).context("the committed offset")?;
    ensure_eq!(last, Some(50), "the committed offset");
    Ok(String::new())
}

/// Reports the durations without a limit, because they depend on the machine.
fn fast_cycle(cx: &CheckContext) -> CheckResult {
    const CYCLES: i64 = 100;
    let (input, output) = (cx.topic("cycle-input", 1)?, cx.topic("cycle-output", 1)?);
    write(&producer(cx, &[])?, &input, 0, ["x"])?;
    let member = joined(cx, &cx.group("cycle"), &input)?;
    let settings = [("retry.backoff.ms", "1"), ("retry.backoff.max.ms", "10"), ("linger.ms", "0")];
    let producer = transactional(cx, &cx.transactional_id("cycle"), &settings)?;
    let mut took = Vec::new();
    for cycle in 1..=CYCLES {
        let started = Instant::now();
        let metadata = member.group_metadata().context("group metadata")?;
        begin(&producer)?;
        send(&producer, &output, &NewRecord { partition: Some(0), value: Some(b"v"), ..NewRecord::default() })?;
        send_offset(&producer, &metadata, &input, cycle)?;
        await_deliveries(&producer)?;
        end(&producer, true)?;
        took.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    ensure_eq!(read(cx, &output, 0, COMMITTED)?.len() as i64, CYCLES, "records");
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[(share * (took.len() - 1) as f64) as usize];
    Ok(format!("{CYCLES} cycles, p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99)))
}
