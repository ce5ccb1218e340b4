//! Fencing: who may no longer write. By the epoch of a transactional id, by the generation of a group, by time.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::Offset;

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, Put, TestProducer, committed, consumer, offsets, producer, read, send, settle, texts, transactional,
    watermarks, write,
};
use crate::context::{Context, PATIENCE, until};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Fencing, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("a second producer with the same transactional id fences the first and aborts what it left open", same_id),
    check("a fenced producer's records are refused, not only its commit", fenced_records),
    check("a stale generation of the group cannot put its offsets into a transaction", stale_generation),
    check("a member that has left cannot put its offsets into a transaction", left_member),
    check("a transaction that is open too long is aborted by the broker", time_out),
    check("a transaction time-out over the broker's limit is refused", absurd_time_out),
];

fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(inner) => Some(inner.code()),
        other => other.rdkafka_error_code(),
    }
}

fn begin_with(producer: &TestProducer, topic: &str, value: &str) -> Result<(), Failure> {
    producer.begin_transaction().doing("beginning a transaction")?;
    write(producer, topic, 0, [value]).map(|_| ())
}

/// What librdkafka calls it depends on which request hit the fence first.
fn is_fenced(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{Fatal, Fenced, InvalidProducerEpoch, ProducerFenced};
    matches!(code, Some(Fenced | ProducerFenced | InvalidProducerEpoch | Fatal))
}

fn same_id(cx: &Context) -> Verdict {
    let topic = cx.topic("same-id", 1)?;
    let id = cx.transactional_id("same-id");
    let first = transactional(cx, &id, &[])?;
    begin_with(&first, &topic, "first")?;
    let second = transactional(cx, &id, &[])?;
    let Err(error) = first.commit_transaction(PATIENCE) else {
        return Err(Failure::new("the first producer could still commit"));
    };
    ensure!(is_fenced(code_of(&error)), "the commit failed with {error:?}");
    begin_with(&second, &topic, "second")?;
    second.commit_transaction(PATIENCE).doing("committing with the second producer")?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["second"], "what is committed");
    Ok(format!("{:?}", code_of(&error)))
}

fn fenced_records(cx: &Context) -> Verdict {
    let topic = cx.topic("fenced", 1)?;
    let id = cx.transactional_id("fenced");
    let first = transactional(cx, &id, &[])?;
    begin_with(&first, &topic, "first")?;
    let second = transactional(cx, &id, &[])?;
    let refused = match send(&first, &topic, &Put { partition: Some(0), value: Some(b"late"), ..Put::default() }) {
        Ok(_) => settle(&first)?.into_iter().next().doing("a delivery report")?.err(),
        Err(_) => Some(KafkaError::Canceled),
    };
    ensure!(refused.is_some(), "a record of the fenced producer was accepted");
    begin_with(&second, &topic, "second")?;
    second.commit_transaction(PATIENCE).doing("committing with the second producer")?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["second"], "what is committed");
    Ok(format!("{refused:?}"))
}

fn poll_until(what: &str, members: &[&BaseConsumer], done: impl Fn() -> Result<bool, Failure>) -> Result<(), Failure> {
    until(what, PATIENCE, || {
        for member in members {
            member.poll(Duration::from_millis(20));
        }
        Ok(done()?.then_some(()))
    })
}

fn owned(member: &BaseConsumer) -> Result<usize, Failure> {
    Ok(member.assignment().doing("asking for the assignment")?.count())
}

fn stale_generation(cx: &Context) -> Verdict {
    let topic = cx.topic("stale", 2)?;
    let group = cx.group("stale");
    let first = consumer(cx, &group, &[])?;
    first.subscribe(&[&topic]).doing("subscribing")?;
    poll_until("the first member's assignment", &[&first], || Ok(owned(&first)? == 2))?;
    let stale = first.group_metadata().doing("group metadata")?;
    let second = consumer(cx, &group, &[])?;
    second.subscribe(&[&topic]).doing("subscribing")?;
    poll_until("a partition each", &[&first, &second], || Ok(owned(&first)? == 1 && owned(&second)? == 1))?;
    let producer = transactional(cx, &cx.transactional_id("stale"), &[])?;
    begin_with(&producer, &topic, "too late")?;
    let places = offsets(&[(&topic, 0, Offset::Offset(1))])?;
    let Err(error) = producer.send_offsets_to_transaction(&places, &stale, PATIENCE) else {
        return Err(Failure::new("offsets of a stale generation were accepted"));
    };
    ensure_eq!(code_of(&error), Some(RDKafkaErrorCode::IllegalGeneration), "the code");
    producer.abort_transaction(PATIENCE).doing("aborting")?;
    ensure_eq!(committed(&second, &topic, 0, PATIENCE).doing("committed offset")?, None, "the group's offset");
    // The same producer with the generation of today.
    begin_with(&producer, &topic, "in time")?;
    let fresh = first.group_metadata().doing("group metadata")?;
    producer.send_offsets_to_transaction(&places, &fresh, PATIENCE).doing("offsets of the current generation")?;
    producer.commit_transaction(PATIENCE).doing("committing")?;
    ensure_eq!(committed(&second, &topic, 0, PATIENCE).doing("committed offset")?, Some(1), "the group's offset");
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["in time"], "what is committed");
    Ok(error.to_string())
}

fn left_member(cx: &Context) -> Verdict {
    let topic = cx.topic("left", 1)?;
    let group = cx.group("left");
    let member = consumer(cx, &group, &[])?;
    member.subscribe(&[&topic]).doing("subscribing")?;
    poll_until("an assignment", &[&member], || Ok(owned(&member)? == 1))?;
    let stale = member.group_metadata().doing("group metadata")?;
    // Somebody stays, so that the group goes on without the one that leaves.
    let other = consumer(cx, &group, &[])?;
    other.subscribe(&[&topic]).doing("subscribing")?;
    drop(member);
    poll_until("the other's assignment", &[&other], || Ok(owned(&other)? == 1))?;
    let producer = transactional(cx, &cx.transactional_id("left"), &[])?;
    producer.begin_transaction().doing("beginning a transaction")?;
    let places = offsets(&[(&topic, 0, Offset::Offset(1))])?;
    let Err(error) = producer.send_offsets_to_transaction(&places, &stale, PATIENCE) else {
        return Err(Failure::new("offsets of a member that left were accepted"));
    };
    let code = code_of(&error);
    ensure!(
        matches!(code, Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration)),
        "refused with {error:?}"
    );
    producer.abort_transaction(PATIENCE).doing("aborting")?;
    ensure_eq!(committed(&other, &topic, 0, PATIENCE).doing("committed offset")?, None, "the group's offset");
    Ok(error.to_string())
}

fn time_out(cx: &Context) -> Verdict {
    let topic = cx.topic("time-out", 1)?;
    let settings = [("transaction.timeout.ms", "2000"), ("message.timeout.ms", "2000")];
    let sleepy = transactional(cx, &cx.transactional_id("time-out"), &settings)?;
    begin_with(&sleepy, &topic, "too slow")?;
    write(&producer(cx, &[])?, &topic, 0, ["behind it"])?;
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?.1, 0, "the stable end while the transaction is open");
    until("the broker's abort", PATIENCE, || Ok((watermarks(cx, &topic, 0, COMMITTED)?.1 == 3).then_some(())))?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["behind it"], "what is committed");
    let Err(error) = sleepy.commit_transaction(PATIENCE) else {
        return Err(Failure::new("the transaction could be committed after its time-out"));
    };
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["behind it"], "what is committed after the late commit");
    Ok(error.to_string())
}

fn absurd_time_out(cx: &Context) -> Verdict {
    let id = cx.transactional_id("absurd");
    let settings = [("transactional.id", id.as_str()), ("transaction.timeout.ms", "2147483647")];
    let producer = producer(cx, &settings)?;
    let Err(error) = producer.init_transactions(PATIENCE) else {
        return Err(Failure::new("a time-out of 24 days was accepted"));
    };
    ensure_eq!(code_of(&error), Some(RDKafkaErrorCode::InvalidTransactionTimeout), "the code");
    Ok(error.to_string())
}
