//! Fencing of former producers and members: by the epoch of a transactional id, by the generation of a group, by timeouts.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::Offset;

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{
    COMMITTED, NewRecord, TestProducer, await_deliveries, committed, consumer, offsets, producer, read, send, texts,
    transactional, watermarks, write,
};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Fencing, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("a second producer with the same transactional id fences the first and aborts its open transaction", same_id),
    check("a fenced producer's records are refused, as well as its commit", fenced_records),
    check("offsets of a stale group generation are refused in a transaction", stale_generation),
    check("offsets of a member that has left are refused in a transaction", left_member),
    check("the broker aborts a transaction after its timeout", transaction_timeout),
    check("a transaction timeout over the broker's limit is refused", excessive_timeout),
];

fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(inner) => Some(inner.code()),
        other => other.rdkafka_error_code(),
    }
}

fn begin_with(producer: &TestProducer, topic: &str, value: &str) -> Result<(), CheckFailure> {
    producer.begin_transaction().context("beginning a transaction")?;
    write(producer, topic, 0, [value]).map(|_| ())
}

/// librdkafka's error code depends on which request was fenced first.
fn is_fenced(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{Fatal, Fenced, InvalidProducerEpoch, ProducerFenced};
    matches!(code, Some(Fenced | ProducerFenced | InvalidProducerEpoch | Fatal))
}

fn same_id(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("same-id", 1)?;
    let id = cx.transactional_id("same-id");
    let first = transactional(cx, &id, &[])?;
    begin_with(&first, &topic, "first")?;
    let second = transactional(cx, &id, &[])?;
    let Err(error) = first.commit_transaction(REQUEST_TIMEOUT) else {
        return Err(CheckFailure::new("the first producer could still commit"));
    };
    ensure!(is_fenced(code_of(&error)), "the commit failed with {error:?}");
    begin_with(&second, &topic, "second")?;
    second.commit_transaction(REQUEST_TIMEOUT).context("committing with the second producer")?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["second"], "what is committed");
    Ok(format!("{:?}", code_of(&error)))
}

fn fenced_records(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("fenced", 1)?;
    let id = cx.transactional_id("fenced");
    let first = transactional(cx, &id, &[])?;
    begin_with(&first, &topic, "first")?;
    let second = transactional(cx, &id, &[])?;
    let refused =
        match send(&first, &topic, &NewRecord { partition: Some(0), value: Some(b"late"), ..NewRecord::default() }) {
            Ok(_) => await_deliveries(&first)?.into_iter().next().context("a delivery report")?.err(),
            Err(_) => Some(KafkaError::Canceled),
        };
    ensure!(refused.is_some(), "a record of the fenced producer was accepted");
    begin_with(&second, &topic, "second")?;
    second.commit_transaction(REQUEST_TIMEOUT).context("committing with the second producer")?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["second"], "what is committed");
    Ok(format!("{refused:?}"))
}

fn poll_until(
    what: &str,
    members: &[&BaseConsumer],
    done: impl Fn() -> Result<bool, CheckFailure>,
) -> Result<(), CheckFailure> {
    wait_until(what, REQUEST_TIMEOUT, || {
        for member in members {
            member.poll(Duration::from_millis(20));
        }
        Ok(done()?.then_some(()))
    })
}

fn owned(member: &BaseConsumer) -> Result<usize, CheckFailure> {
    Ok(member.assignment().context("asking for the assignment")?.count())
}

fn stale_generation(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("stale", 2)?;
    let group = cx.group("stale");
    let first = consumer(cx, &group, &[])?;
    first.subscribe(&[&topic]).context("subscribing")?;
    poll_until("the first member's assignment", &[&first], || Ok(owned(&first)? == 2))?;
    let stale = first.group_metadata().context("group metadata")?;
    let second = consumer(cx, &group, &[])?;
    second.subscribe(&[&topic]).context("subscribing")?;
    poll_until("a partition each", &[&first, &second], || Ok(owned(&first)? == 1 && owned(&second)? == 1))?;
    let producer = transactional(cx, &cx.transactional_id("stale"), &[])?;
    begin_with(&producer, &topic, "too late")?;
    let next_offset = offsets(&[(&topic, 0, Offset::Offset(1))])?;
    let Err(error) = producer.send_offsets_to_transaction(&next_offset, &stale, REQUEST_TIMEOUT) else {
        return Err(CheckFailure::new("offsets of a stale generation were accepted"));
    };
    ensure_eq!(code_of(&error), Some(RDKafkaErrorCode::IllegalGeneration), "the code");
    producer.abort_transaction(REQUEST_TIMEOUT).context("aborting")?;
    ensure_eq!(committed(&second, &topic, 0, REQUEST_TIMEOUT).context("committed offset")?, None, "the group's offset");
    // The same producer with the current generation.
    begin_with(&producer, &topic, "in time")?;
    let fresh = first.group_metadata().context("group metadata")?;
    producer
        .send_offsets_to_transaction(&next_offset, &fresh, REQUEST_TIMEOUT)
        .context("offsets of the current generation")?;
    producer.commit_transaction(REQUEST_TIMEOUT).context("committing")?;
    ensure_eq!(
        committed(&second, &topic, 0, REQUEST_TIMEOUT).context("committed offset")?,
        Some(1),
        "the group's offset"
    );
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["in time"], "what is committed");
    Ok(error.to_string())
}

fn left_member(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("left", 1)?;
    let group = cx.group("left");
    let member = consumer(cx, &group, &[])?;
    member.subscribe(&[&topic]).context("subscribing")?;
    poll_until("an assignment", &[&member], || Ok(owned(&member)? == 1))?;
    let stale = member.group_metadata().context("group metadata")?;
    // A second member stays, so that the group survives.
    let other = consumer(cx, &group, &[])?;
    other.subscribe(&[&topic]).context("subscribing")?;
    drop(member);
    poll_until("the other's assignment", &[&other], || Ok(owned(&other)? == 1))?;
    let producer = transactional(cx, &cx.transactional_id("left"), &[])?;
    producer.begin_transaction().context("beginning a transaction")?;
    let next_offset = offsets(&[(&topic, 0, Offset::Offset(1))])?;
    let Err(error) = producer.send_offsets_to_transaction(&next_offset, &stale, REQUEST_TIMEOUT) else {
        return Err(CheckFailure::new("offsets of a member that left were accepted"));
    };
    let code = code_of(&error);
    ensure!(
        matches!(code, Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration)),
        "refused with {error:?}"
    );
    producer.abort_transaction(REQUEST_TIMEOUT).context("aborting")?;
    ensure_eq!(committed(&other, &topic, 0, REQUEST_TIMEOUT).context("committed offset")?, None, "the group's offset");
    Ok(error.to_string())
}

fn transaction_timeout(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("time-out", 1)?;
    let settings = [("transaction.timeout.ms", "2000"), ("message.timeout.ms", "2000")];
    let expired = transactional(cx, &cx.transactional_id("time-out"), &settings)?;
    begin_with(&expired, &topic, "too slow")?;
    write(&producer(cx, &[])?, &topic, 0, ["behind it"])?;
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?.1, 0, "the stable end while the transaction is open");
    wait_until("the broker's abort", REQUEST_TIMEOUT, || {
        Ok((watermarks(cx, &topic, 0, COMMITTED)?.1 == 3).then_some(()))
    })?;
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["behind it"], "what is committed");
    let Err(error) = expired.commit_transaction(REQUEST_TIMEOUT) else {
        return Err(CheckFailure::new("the transaction could be committed after its timeout"));
    };
    ensure_eq!(texts(&read(cx, &topic, 0, COMMITTED)?), ["behind it"], "what is committed after the late commit");
    Ok(error.to_string())
}

fn excessive_timeout(cx: &CheckContext) -> CheckResult {
    let id = cx.transactional_id("excessive");
    let settings = [("transactional.id", id.as_str()), ("transaction.timeout.ms", "2147483647")];
    let producer = producer(cx, &settings)?;
    let Err(error) = producer.init_transactions(REQUEST_TIMEOUT) else {
        return Err(CheckFailure::new("a timeout of 24 days was accepted"));
    };
    ensure_eq!(code_of(&error), Some(RDKafkaErrorCode::InvalidTransactionTimeout), "the code");
    Ok(error.to_string())
}
