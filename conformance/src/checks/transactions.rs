//! Transactions: all or nothing, for records and for offsets, and who sees what while one is open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::Offset;

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, Put, TestProducer, UNCOMMITTED, committed, consumer, offsets, position, producer, read, read_to_end,
    reader, send, settle, texts, transactional, watermarks, write,
};
use crate::context::{Context, PATIENCE, until};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Transactions, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("a committed transaction is seen whole, in every partition it wrote to", commit),
    check("an aborted transaction is hidden from read_committed and visible to read_uncommitted", abort),
    check("aborted and committed transactions of several producers are told apart", interleaved),
    check("an open transaction hides later records until it ends", open_hides),
    check("watermarks are the last stable offset for read_committed and the end for read_uncommitted", marks),
    check("at the end of a partition the position has passed markers and aborted records", position_at_end),
    check("the end of a partition comes again when the stable end moves", end_again),
    check("an empty transaction commits", empty),
    check("a producer goes on after an abort", after_abort),
    check("offsets in a transaction are stored on commit and not on abort", offsets_follow),
    check("a stable fetch of offsets waits while a transaction holds them", stable_offsets),
    check("offsets of a group without members can be part of a transaction", memberless_offsets),
    check("records and offsets of one transaction become visible together", together),
    check("short transactions follow each other quickly with retry.backoff.ms=1", fast_cycle),
];

fn begin(producer: &TestProducer) -> Result<(), Failure> {
    producer.begin_transaction().doing("beginning a transaction")
}

fn end(producer: &TestProducer, commit: bool) -> Result<(), Failure> {
    if commit {
        producer.commit_transaction(PATIENCE).doing("committing a transaction")
    } else {
        producer.abort_transaction(PATIENCE).doing("aborting a transaction")
    }
}

/// One whole transaction with these values in one partition.
fn transact(producer: &TestProducer, topic: &str, values: &[&str], commit: bool) -> Result<(), Failure> {
    begin(producer)?;
    write(producer, topic, 0, values)?;
    end(producer, commit)
}

fn commit(cx: &Context) -> Verdict {
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

fn abort(cx: &Context) -> Verdict {
    let topic = cx.topic("abort", 1)?;
    let producer = transactional(cx, &cx.transactional_id("abort"), &[])?;
    transact(&producer, &topic, &["a1", "a2"], false)?;
    transact(&producer, &topic, &["c1"], true)?;
    transact(&producer, &topic, &["a3"], false)?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["c1"], "read_committed");
    ensure_eq!(texts(&read(cx, &topic, 0, UNCOMMITTED)?), ["a1", "a2", "c1", "a3"], "read_uncommitted");
    Ok(String::new())
}

fn interleaved(cx: &Context) -> Verdict {
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
    let mut wanted = Vec::new();
    for round in 0..5 {
        let (one, two, plain) = (format!("one-{round}"), format!("two-{round}"), format!("plain-{round}"));
        wanted.extend(if round % 2 == 0 { vec![two, plain] } else { vec![one.clone(), plain, one] });
    }
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), wanted, "what read_committed sees");
    // From every offset: the list of aborted transactions depends on where a fetch starts.
    let all = read(cx, &topic, 0, COMMITTED)?;
    for skip in 0..all.len() {
        let from = reader(cx, &topic, 0, COMMITTED, Offset::Offset(all[skip].offset))?;
        ensure_eq!(texts(&read_to_end(&from)?), wanted[skip..], "from offset {}", all[skip].offset);
    }
    Ok(String::new())
}

fn open_hides(cx: &Context) -> Verdict {
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

fn marks(cx: &Context) -> Verdict {
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
    // The commit is decided when the call returns; the marker follows.
    until("the marker in the log", PATIENCE, || Ok((watermarks(cx, &topic, 0, COMMITTED)? == (0, 10)).then_some(())))?;
    ensure_eq!(watermarks(cx, &topic, 0, UNCOMMITTED)?, (0, 10), "read_uncommitted afterwards");
    Ok("3 and 9 of 9, then 10 with the marker".to_owned())
}

fn position_at_end(cx: &Context) -> Verdict {
    let topic = cx.topic("position", 1)?;
    let producer = transactional(cx, &cx.transactional_id("position"), &[])?;
    let mut seen = Vec::new();
    // Two records and a marker each time.
    for (round, commit) in [true, false, false, true].into_iter().enumerate() {
        transact(&producer, &topic, &["x", "y"], commit)?;
        let end = 3 * (round as i64 + 1);
        until(
            "the marker in the log",
            PATIENCE,
            || Ok((watermarks(cx, &topic, 0, COMMITTED)?.1 == end).then_some(())),
        )?;
        let reader = reader(cx, &topic, 0, COMMITTED, Offset::Beginning)?;
        let records = read_to_end(&reader)?.len();
        ensure_eq!(position(&reader, &topic, 0)?, Some(end), "the position at the end, after {records} records");
        seen.push(format!("{records} records, end {end}"));
    }
    Ok(seen.join("; "))
}

fn end_again(cx: &Context) -> Verdict {
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
    until("a position behind the marker", PATIENCE, || {
        if position(&reader, &topic, 0)? == Some(3) {
            return Ok(Some(()));
        }
        read_to_end(&reader).map(|_| None)
    })?;
    Ok(String::new())
}

fn empty(cx: &Context) -> Verdict {
    let producer = transactional(cx, &cx.transactional_id("empty"), &[])?;
    for commit in [true, false, true] {
        begin(&producer)?;
        end(&producer, commit)?;
    }
    Ok(String::new())
}

/// The call waits for delivery reports that only a poll takes in, so somebody else must poll meanwhile.
fn abort_unsettled(producer: &TestProducer) -> Result<(), Failure> {
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
    // What became of the record itself is of no interest: it was aborted.
    settle(producer).map(|_| ())
}

fn after_abort(cx: &Context) -> Verdict {
    let topic = cx.topic("after-abort", 1)?;
    let producer = transactional(cx, &cx.transactional_id("after-abort"), &[])?;
    let mut wanted = Vec::new();
    for round in 0..20 {
        let value = round.to_string();
        begin(&producer)?;
        write(&producer, &topic, 0, [&value])?;
        // Some aborts find records still on the way.
        if round % 3 == 0 {
            send(&producer, &topic, &Put { partition: Some(0), value: Some(b"unsettled"), ..Put::default() })?;
            abort_unsettled(&producer)?;
        } else {
            end(&producer, true)?;
            wanted.push(value);
        }
    }
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), wanted, "what is committed");
    Ok(String::new())
}

/// A consumer that is the only member of its group, and that nothing has been committed in.
fn joined(cx: &Context, group: &str, topic: &str) -> Result<BaseConsumer, Failure> {
    let member = consumer(cx, group, &[])?;
    member.subscribe(&[topic]).doing("subscribing")?;
    until("an assignment", PATIENCE, || {
        member.poll(Duration::from_millis(50));
        Ok((member.assignment().doing("asking for the assignment")?.count() > 0).then_some(()))
    })?;
    Ok(member)
}

fn offsets_follow(cx: &Context) -> Verdict {
    let topic = cx.topic("offsets", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..9).map(|i| i.to_string()))?;
    let member = joined(cx, &cx.group("offsets"), &topic)?;
    let producer = transactional(cx, &cx.transactional_id("offsets"), &[])?;
    for (offset, commit, wanted) in [(3, true, Some(3)), (5, false, Some(3)), (7, true, Some(7))] {
        let metadata = member.group_metadata().doing("group metadata")?;
        begin(&producer)?;
        producer
            .send_offsets_to_transaction(&offsets(&[(&topic, 0, Offset::Offset(offset))])?, &metadata, PATIENCE)
            .doing("sending offsets")?;
        end(&producer, commit)?;
        let now = committed(&member, &topic, 0, PATIENCE).doing("asking for the committed offset")?;
        ensure_eq!(now, wanted, "the group's offset after {offset}, commit = {commit}");
    }
    Ok(String::new())
}

fn stable_offsets(cx: &Context) -> Verdict {
    let topic = cx.topic("stable", 1)?;
    write(&producer(cx, &[])?, &topic, 0, (0..9).map(|i| i.to_string()))?;
    let group = cx.group("stable");
    let asker = consumer(cx, &group, &[])?;
    let hasty = consumer(cx, &group, &[("isolation.level", UNCOMMITTED)])?;
    asker.commit(&offsets(&[(&topic, 0, Offset::Offset(2))])?, CommitMode::Sync).doing("committing 2")?;
    let metadata = asker.group_metadata().doing("group metadata")?;
    let producer = transactional(cx, &cx.transactional_id("stable"), &[])?;
    begin(&producer)?;
    producer
        .send_offsets_to_transaction(&offsets(&[(&topic, 0, Offset::Offset(6))])?, &metadata, PATIENCE)
        .doing("sending offsets")?;
    let pending = committed(&asker, &topic, 0, Duration::from_secs(2));
    ensure!(pending.is_err(), "a stable fetch gave {pending:?} while the transaction was open");
    let unstable = committed(&hasty, &topic, 0, PATIENCE).doing("a fetch that need not be stable")?;
    ensure_eq!(unstable, Some(2), "a fetch that need not be stable");
    end(&producer, true)?;
    ensure_eq!(committed(&asker, &topic, 0, PATIENCE).doing("a stable fetch")?, Some(6), "a stable fetch afterwards");
    Ok(format!("{pending:?} meanwhile"))
}

fn memberless_offsets(cx: &Context) -> Verdict {
    let topic = cx.topic("memberless", 1)?;
    let asker = consumer(cx, &cx.group("memberless"), &[])?;
    let metadata = asker.group_metadata().doing("group metadata")?;
    let producer = transactional(cx, &cx.transactional_id("memberless"), &[])?;
    begin(&producer)?;
    producer
        .send_offsets_to_transaction(&offsets(&[(&topic, 0, Offset::Offset(4))])?, &metadata, PATIENCE)
        .doing("sending offsets")?;
    end(&producer, true)?;
    ensure_eq!(committed(&asker, &topic, 0, PATIENCE).doing("a stable fetch")?, Some(4), "the committed offset");
    Ok(String::new())
}

fn together(cx: &Context) -> Verdict {
    let (input, output) = (cx.topic("input", 1)?, cx.topic("output", 1)?);
    write(&producer(cx, &[])?, &input, 0, (0..50).map(|i| i.to_string()))?;
    let member = joined(cx, &cx.group("together"), &input)?;
    let producer = transactional(cx, &cx.transactional_id("together"), &[])?;
    for next in 1..=50i64 {
        let metadata = member.group_metadata().doing("group metadata")?;
        begin(&producer)?;
        write(&producer, &output, 0, [(next - 1).to_string()])?;
        producer
            .send_offsets_to_transaction(&offsets(&[(&input, 0, Offset::Offset(next))])?, &metadata, PATIENCE)
            .doing("sending offsets")?;
        end(&producer, next % 4 != 0)?;
    }
    let wanted: Vec<String> = (0..50).filter(|i| (i + 1) % 4 != 0).map(|i| i.to_string()).collect();
    ensure_eq!(texts(&read(cx, &output, 0, COMMITTED)?), wanted, "the output");
    let last = committed(&member, &input, 0, PATIENCE).doing("the committed offset")?;
    ensure_eq!(last, Some(50), "the committed offset");
    Ok(String::new())
}

/// No assertion on time: that is the machine's. That the cycles end, and how long they take, is worth seeing.
fn fast_cycle(cx: &Context) -> Verdict {
    const CYCLES: i64 = 100;
    let (input, output) = (cx.topic("cycle-input", 1)?, cx.topic("cycle-output", 1)?);
    write(&producer(cx, &[])?, &input, 0, ["x"])?;
    let member = joined(cx, &cx.group("cycle"), &input)?;
    let settings = [("retry.backoff.ms", "1"), ("retry.backoff.max.ms", "10"), ("linger.ms", "0")];
    let producer = transactional(cx, &cx.transactional_id("cycle"), &settings)?;
    let mut took = Vec::new();
    for cycle in 1..=CYCLES {
        let started = Instant::now();
        let metadata = member.group_metadata().doing("group metadata")?;
        begin(&producer)?;
        send(&producer, &output, &Put { partition: Some(0), value: Some(b"v"), ..Put::default() })?;
        producer
            .send_offsets_to_transaction(&offsets(&[(&input, 0, Offset::Offset(cycle))])?, &metadata, PATIENCE)
            .doing("sending offsets")?;
        settle(&producer)?;
        end(&producer, true)?;
        took.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    ensure_eq!(read(cx, &output, 0, COMMITTED)?.len() as i64, CYCLES, "records");
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[(share * (took.len() - 1) as f64) as usize];
    Ok(format!("{CYCLES} cycles, p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99)))
}
