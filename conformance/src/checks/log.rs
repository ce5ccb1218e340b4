//! What a broker accepts into its log and returns from it, tested with requests that no client library sends.

use std::time::Instant;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, GroupId, IncrementalAlterConfigsRequest, InitProducerIdRequest, OffsetCommitRequest,
    ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::ResourceSpecifier;

use super::batches;
use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{UNCOMMITTED, consumer, producer, watermarks, write};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};
use crate::members::{REBALANCE_TIMEOUT, TestMember, await_shares};
use crate::wire::{BatchProducer, NO_PRODUCER, RawConnection, base_offset, batch};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Log, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("a batch whose checksum is wrong is refused and not written", bad_checksum),
    check("a truncated batch is not written", truncated_batch),
    check("a client cannot write control records", control_records),
    check("a repeated batch is written once, and a gap in the sequence is refused", sequences),
    check("a producer with an older epoch is refused", old_epoch),
    check("a transactional batch outside any transaction is refused", outside_transaction),
    check("a fetch returns a first batch larger than its limits", larger_than_limit),
    check("a fetch without data waits for its max wait", waits),
    check("a fetch outside of the log is an error", fetch_outside),
    check("a commit by an unknown member or of another generation is refused", commit_of_unknown_member),
    check("altering one config keeps the others", one_config),
];

fn name(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Produces one batch. Returns the error code and the base offset.
fn produce(
    cx: &CheckContext,
    topic: &str,
    transactional_id: Option<&str>,
    records: &[u8],
) -> Result<(i16, i64), CheckFailure> {
    let response = batches::produce(cx, topic, 7, transactional_id, records.to_vec())?;
    Ok((response.error_code, response.base_offset))
}

fn ensure_empty(cx: &CheckContext, topic: &str) -> Result<(), CheckFailure> {
    ensure_eq!(watermarks(cx, topic, 0, UNCOMMITTED)?, (0, 0), "watermarks afterwards");
    Ok(())
}

fn bad_checksum(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("checksum", 1)?;
    let mut records = batch(NO_PRODUCER, &[b"one", b"two"])?;
    let last = records.len() - 2;
    records[last] ^= 1;
    let (code, _) = produce(cx, &topic, None, &records)?;
    // Corrupt message or invalid record: brokers differ in the order of their checks.
    ensure!(matches!(code, 2 | 87), "the error code is {code}");
    ensure_empty(cx, &topic)?;
    ensure_eq!(produce(cx, &topic, None, &batch(NO_PRODUCER, &[b"one"])?)?, (0, 0), "a sound batch afterwards");
    Ok(String::new())
}

fn truncated_batch(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("truncated", 1)?;
    let whole = batch(NO_PRODUCER, &[b"one", b"two"])?;
    let mut observed = Vec::new();
    for length in [whole.len() - 1, 61, 20, 0] {
        // Apache Kafka ignores bytes that it cannot parse and reports success; an error or a close is acceptable too.
        observed.push(
            produce(cx, &topic, None, &whole[..length]).map_or_else(|f| f.to_string(), |(code, _)| code.to_string()),
        );
        ensure_empty(cx, &topic)?;
    }
    Ok(observed.join(", "))
}

fn control_records(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("control", 1)?;
    let writer = BatchProducer { control: true, ..NO_PRODUCER };
    let (code, _) = produce(cx, &topic, None, &batch(writer, &[b"x"])?)?;
    ensure!(code != 0, "a control batch of a client was written");
    ensure_empty(cx, &topic)?;
    Ok(format!("error {code}"))
}

/// Initializes an idempotent producer without a transactional id.
fn init(cx: &CheckContext) -> Result<BatchProducer, CheckFailure> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let response = RawConnection::open(cx)?.call(4, &request)?;
    ensure_eq!(response.error_code, 0, "the error code of InitProducerId");
    let (producer_id, epoch) = (response.producer_id.0, response.producer_epoch);
    Ok(BatchProducer { producer_id, epoch, sequence: 0, transactional: false, control: false })
}

fn sequences(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("sequences", 1)?;
    let writer = init(cx)?;
    let at = |sequence| BatchProducer { sequence, ..writer };
    ensure_eq!(produce(cx, &topic, None, &batch(at(0), &[b"0", b"1"])?)?, (0, 0), "the first batch");
    ensure_eq!(produce(cx, &topic, None, &batch(at(2), &[b"2"])?)?, (0, 2), "the second batch");
    ensure_eq!(produce(cx, &topic, None, &batch(at(0), &[b"0", b"1"])?)?, (0, 0), "the first batch again");
    ensure_eq!(produce(cx, &topic, None, &batch(at(2), &[b"2"])?)?, (0, 2), "the second batch again");
    let (gap, _) = produce(cx, &topic, None, &batch(at(7), &[b"7"])?)?;
    ensure_eq!(gap, 45, "the error code of a gap");
    ensure_eq!(watermarks(cx, &topic, 0, UNCOMMITTED)?, (0, 3), "watermarks");
    Ok(String::new())
}

fn old_epoch(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("epoch", 1)?;
    let first = init(cx)?;
    ensure_eq!(produce(cx, &topic, None, &batch(first, &[b"0"])?)?, (0, 0), "the first epoch's batch");
    let second = BatchProducer { epoch: first.epoch + 1, ..first };
    ensure_eq!(produce(cx, &topic, None, &batch(second, &[b"1"])?)?, (0, 1), "the second epoch's batch");
    let (code, _) = produce(cx, &topic, None, &batch(BatchProducer { sequence: 1, ..first }, &[b"2"])?)?;
    ensure!(matches!(code, 47 | 90), "the first epoch's next batch gave {code}");
    ensure_eq!(watermarks(cx, &topic, 0, UNCOMMITTED)?, (0, 2), "watermarks");
    Ok(format!("error {code}"))
}

fn outside_transaction(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("outside", 1)?;
    let id = cx.transactional_id("outside");
    // The library registers the id; the batch is then sent without AddPartitionsToTxn.
    let registered = crate::clients::transactional(cx, &id, &[])?;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(name(&id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let response = RawConnection::open(cx)?.call(4, &request)?;
    ensure_eq!(response.error_code, 0, "the error code of InitProducerId");
    drop(registered);
    let writer = BatchProducer {
        producer_id: response.producer_id.0,
        epoch: response.producer_epoch,
        sequence: 0,
        transactional: true,
        control: false,
    };
    let (code, _) = produce(cx, &topic, Some(&id), &batch(writer, &[b"stray"])?)?;
    ensure!(code != 0, "a transactional batch was written outside of any transaction");
    ensure_empty(cx, &topic)?;
    Ok(format!("error {code}"))
}

struct FetchLimits {
    offset: i64,
    max_wait_ms: i32,
    max_bytes: i32,
}

fn fetch(cx: &CheckContext, topic: &str, fetch: &FetchLimits) -> Result<PartitionData, CheckFailure> {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(fetch.offset)
        .with_partition_max_bytes(fetch.max_bytes);
    let expected = FetchTopic::default().with_topic(TopicName(name(topic))).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(fetch.max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(fetch.max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![expected]);
    let response = RawConnection::to_leader(cx, topic, 0)?.call(11, &request)?;
    ensure_eq!(response.error_code, 0, "the error code of a fetch");
    response.responses.into_iter().next().and_then(|t| t.partitions.into_iter().next()).context("the partition")
}

/// The batches from this offset on.
pub(super) fn fetch_records(cx: &CheckContext, topic: &str, offset: i64) -> Result<bytes::Bytes, CheckFailure> {
    let fetched = fetch(cx, topic, &FetchLimits { offset, max_wait_ms: 1_000, max_bytes: 1_000_000 })?;
    ensure_eq!(fetched.error_code, 0, "the partition's error code");
    fetched.records.context("records")
}

fn larger_than_limit(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("larger", 1)?;
    let large = vec![7; 100_000];
    write(&producer(cx, &[])?, &topic, 0, [&large])?;
    write(&producer(cx, &[])?, &topic, 0, [&large])?;
    let fetched = fetch(cx, &topic, &FetchLimits { offset: 0, max_wait_ms: 1_000, max_bytes: 1_000 })?;
    let records = fetched.records.unwrap_or_default();
    ensure_eq!(fetched.error_code, 0, "the partition's error code");
    ensure_eq!(base_offset(&records), Some(0), "the first offset");
    ensure!(records.len() > 100_000, "only {} bytes: a reader with small limits would be stuck", records.len());
    ensure!(records.len() < 200_000, "{} bytes: more than one batch", records.len());
    Ok(format!("{} bytes for a limit of 1,000", records.len()))
}

fn waits(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("waits", 1)?;
    // A new leader may not know yet that it leads.
    let (fetched, took) = wait_until("a leader that accepts requests", REQUEST_TIMEOUT, || {
        let started = Instant::now();
        let fetched = fetch(cx, &topic, &FetchLimits { offset: 0, max_wait_ms: 700, max_bytes: 1_000_000 })?;
        Ok((!matches!(fetched.error_code, 3 | 6)).then_some((fetched, started.elapsed().as_millis())))
    })?;
    ensure_eq!(fetched.error_code, 0, "the partition's error code");
    ensure!(fetched.records.unwrap_or_default().is_empty(), "an empty topic returned records");
    // The lower bound matters too: a fetch that returns at once makes an idle reader spin.
    ensure!((500..8_000).contains(&took), "the response came after {took} ms");
    Ok(format!("{took} ms of 700"))
}

fn fetch_outside(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("outside-the-log", 1)?;
    write(&producer(cx, &[])?, &topic, 0, ["only"])?;
    for offset in [5, i64::MAX] {
        let fetched = fetch(cx, &topic, &FetchLimits { offset, max_wait_ms: 500, max_bytes: 1_000_000 })?;
        ensure_eq!(fetched.error_code, 1, "the error code at offset {offset}");
    }
    let at_end = fetch(cx, &topic, &FetchLimits { offset: 1, max_wait_ms: 500, max_bytes: 1_000_000 })?;
    ensure_eq!((at_end.error_code, at_end.high_watermark), (0, 1), "the end itself");
    Ok(String::new())
}

fn commit_as(cx: &CheckContext, topic: &str, group: &str, member: &str, generation: i32) -> Result<i16, CheckFailure> {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(1);
    let expected =
        OffsetCommitRequestTopic::default().with_name(TopicName(name(topic))).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(name(group)))
        .with_member_id(name(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![expected]);
    let response = RawConnection::to_coordinator(cx, group)?.call(7, &request)?;
    let partition = response.topics.first().and_then(|t| t.partitions.first()).context("the partition")?;
    Ok(partition.error_code)
}

fn commit_of_unknown_member(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("unknown-member", 1)?;
    let group = cx.group("unknown-member");
    let member = TestMember::join(cx, &group, &topic, &[])?;
    await_shares(&[&member], &[&topic], 1, REBALANCE_TIMEOUT)?;
    let list = cx.admin.inner().fetch_group_list(Some(&group), REQUEST_TIMEOUT).context("describing the group")?;
    let id = list.groups().first().and_then(|g| g.members().first()).context("the member")?.id().to_owned();
    ensure_eq!(commit_as(cx, &topic, &group, "unknown", 1)?, 25, "an unknown member");
    ensure_eq!(commit_as(cx, &topic, &group, &id, 1_000)?, 22, "a future generation");
    ensure_eq!(commit_as(cx, &topic, &group, "", -1)?, 25, "a commit without a member");
    let client = consumer(cx, &group, &[])?;
    let now = crate::clients::committed(&client, &topic, 0, REQUEST_TIMEOUT).context("committed offset")?;
    ensure_eq!(now, None, "the group's offset");
    Ok(String::new())
}

fn one_config(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic_with("one-config", 1, &[("max.message.bytes", "123456")])?;
    let set = AlterableConfig::default().with_name(name("retention.ms")).with_value(Some(name("86400000")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name(&topic))
        .with_configs(vec![set.with_config_operation(0)]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = RawConnection::open(cx)?.call(1, &request)?;
    let code = response.responses.first().context("the resource")?.error_code;
    ensure_eq!(code, 0, "the error code");
    let value = |key: &str| -> Result<Option<String>, CheckFailure> {
        let resource = ResourceSpecifier::Topic(&topic);
        let results = cx.wait(cx.admin.describe_configs([&resource], &cx.admin_options())).context("describing")?;
        let resource = results.into_iter().next().context("the response")?.context("the resource")?;
        Ok(resource.get(key).and_then(|entry| entry.value.clone()))
    };
    wait_until("the altered config", REQUEST_TIMEOUT, || {
        Ok((value("retention.ms")?.as_deref() == Some("86400000")).then_some(()))
    })?;
    ensure_eq!(value("max.message.bytes")?.as_deref(), Some("123456"), "the config that was not altered");
    Ok(String::new())
}
