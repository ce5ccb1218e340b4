//! What a broker lets into its log and gives out of it, in requests that no client library sends.

use std::time::Instant;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, GroupId, IncrementalAlterConfigsRequest, InitProducerIdRequest, OffsetCommitRequest,
    ProduceRequest, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::ResourceSpecifier;

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{UNCOMMITTED, consumer, producer, watermarks, write};
use crate::context::{Context, PATIENCE, until};
use crate::members::{Member, REBALANCE, await_shares};
use crate::wire::{NOBODY, Wire, Writer, base_offset, batch};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Log, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("a batch whose checksum is wrong is refused and not written", bad_checksum),
    check("a batch that is cut short is not written", cut_short),
    check("a client cannot write control records", control_records),
    check("a batch that is sent twice is written once, and a gap in the sequence is refused", sequences),
    check("an older epoch of a producer cannot write", old_epoch),
    check("a transactional batch outside any transaction is refused", outside_transaction),
    check("a fetch returns a first batch larger than its limits", larger_than_asked),
    check("a fetch with nothing to give waits as long as it was asked to", waits),
    check("a fetch outside the log says so", fetch_outside),
    check("a commit by a stranger or of another generation is refused", foreign_commit),
    check("one config is altered and the others stay", one_config),
];

fn name(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Error code and base offset of a produce request with one batch.
fn put(cx: &Context, topic: &str, transactional_id: Option<&str>, records: &[u8]) -> Result<(i16, i64), Failure> {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records.to_vec().into()));
    let topic_data = TopicProduceData::default().with_name(TopicName(name(topic))).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(name(id))))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic_data]);
    // A leader that has only just been told so may not know it yet; client libraries try again, too.
    until("a leader that knows that it is one", PATIENCE, || {
        let answer = Wire::to_leader(cx, topic, 0)?.call(7, &request)?;
        let partition = answer.responses.first().and_then(|t| t.partition_responses.first()).doing("the partition")?;
        Ok((!matches!(partition.error_code, 3 | 6)).then_some((partition.error_code, partition.base_offset)))
    })
}

fn ensure_empty(cx: &Context, topic: &str) -> Result<(), Failure> {
    ensure_eq!(watermarks(cx, topic, 0, UNCOMMITTED)?, (0, 0), "watermarks afterwards");
    Ok(())
}

fn bad_checksum(cx: &Context) -> Verdict {
    let topic = cx.topic("checksum", 1)?;
    let mut records = batch(NOBODY, &[b"one", b"two"])?;
    let last = records.len() - 2;
    records[last] ^= 1;
    let (code, _) = put(cx, &topic, None, &records)?;
    // Corrupt message, or invalid record: brokers differ in which of their checks comes first.
    ensure!(matches!(code, 2 | 87), "the error code is {code}");
    ensure_empty(cx, &topic)?;
    ensure_eq!(put(cx, &topic, None, &batch(NOBODY, &[b"one"])?)?, (0, 0), "a sound batch afterwards");
    Ok(String::new())
}

fn cut_short(cx: &Context) -> Verdict {
    let topic = cx.topic("cut", 1)?;
    let whole = batch(NOBODY, &[b"one", b"two"])?;
    let mut seen = Vec::new();
    for length in [whole.len() - 1, 61, 20, 0] {
        // Apache Kafka drops what it cannot make out and says it went well; an error or a close is as good.
        seen.push(put(cx, &topic, None, &whole[..length]).map_or_else(|f| f.to_string(), |(code, _)| code.to_string()));
        ensure_empty(cx, &topic)?;
    }
    Ok(seen.join(", "))
}

fn control_records(cx: &Context) -> Verdict {
    let topic = cx.topic("control", 1)?;
    let writer = Writer { control: true, ..NOBODY };
    let (code, _) = put(cx, &topic, None, &batch(writer, &[b"x"])?)?;
    ensure!(code != 0, "a control batch of a client was written");
    ensure_empty(cx, &topic)?;
    Ok(format!("error {code}"))
}

/// An idempotent producer without a transactional id.
fn init(cx: &Context) -> Result<Writer, Failure> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = Wire::open(cx)?.call(4, &request)?;
    ensure_eq!(answer.error_code, 0, "the error code of InitProducerId");
    let (producer_id, epoch) = (answer.producer_id.0, answer.producer_epoch);
    Ok(Writer { producer_id, epoch, sequence: 0, transactional: false, control: false })
}

fn sequences(cx: &Context) -> Verdict {
    let topic = cx.topic("sequences", 1)?;
    let writer = init(cx)?;
    let at = |sequence| Writer { sequence, ..writer };
    ensure_eq!(put(cx, &topic, None, &batch(at(0), &[b"0", b"1"])?)?, (0, 0), "the first batch");
    ensure_eq!(put(cx, &topic, None, &batch(at(2), &[b"2"])?)?, (0, 2), "the second batch");
    ensure_eq!(put(cx, &topic, None, &batch(at(0), &[b"0", b"1"])?)?, (0, 0), "the first batch again");
    ensure_eq!(put(cx, &topic, None, &batch(at(2), &[b"2"])?)?, (0, 2), "the second batch again");
    let (gap, _) = put(cx, &topic, None, &batch(at(7), &[b"7"])?)?;
    ensure_eq!(gap, 45, "the error code of a gap");
    ensure_eq!(watermarks(cx, &topic, 0, UNCOMMITTED)?, (0, 3), "watermarks");
    Ok(String::new())
}

fn old_epoch(cx: &Context) -> Verdict {
    let topic = cx.topic("epoch", 1)?;
    let first = init(cx)?;
    ensure_eq!(put(cx, &topic, None, &batch(first, &[b"0"])?)?, (0, 0), "the first epoch's batch");
    let second = Writer { epoch: first.epoch + 1, ..first };
    ensure_eq!(put(cx, &topic, None, &batch(second, &[b"1"])?)?, (0, 1), "the second epoch's batch");
    let (code, _) = put(cx, &topic, None, &batch(Writer { sequence: 1, ..first }, &[b"2"])?)?;
    ensure!(matches!(code, 47 | 90), "the first epoch's next batch gave {code}");
    ensure_eq!(watermarks(cx, &topic, 0, UNCOMMITTED)?, (0, 2), "watermarks");
    Ok(format!("error {code}"))
}

fn outside_transaction(cx: &Context) -> Verdict {
    let topic = cx.topic("outside", 1)?;
    let id = cx.transactional_id("outside");
    // The library registers the id; the batch then comes without AddPartitionsToTxn.
    let registered = crate::clients::transactional(cx, &id, &[])?;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(name(&id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = Wire::open(cx)?.call(4, &request)?;
    ensure_eq!(answer.error_code, 0, "the error code of InitProducerId");
    drop(registered);
    let writer = Writer {
        producer_id: answer.producer_id.0,
        epoch: answer.producer_epoch,
        sequence: 0,
        transactional: true,
        control: false,
    };
    let (code, _) = put(cx, &topic, Some(&id), &batch(writer, &[b"stray"])?)?;
    ensure!(code != 0, "a transactional batch was written that no transaction will ever end");
    ensure_empty(cx, &topic)?;
    Ok(format!("error {code}"))
}

struct Fetch {
    offset: i64,
    max_wait_ms: i32,
    max_bytes: i32,
}

fn fetch(cx: &Context, topic: &str, fetch: &Fetch) -> Result<PartitionData, Failure> {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(fetch.offset)
        .with_partition_max_bytes(fetch.max_bytes);
    let wanted = FetchTopic::default().with_topic(TopicName(name(topic))).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(fetch.max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(fetch.max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let answer = Wire::to_leader(cx, topic, 0)?.call(11, &request)?;
    ensure_eq!(answer.error_code, 0, "the error code of a fetch");
    answer.responses.into_iter().next().and_then(|t| t.partitions.into_iter().next()).doing("the partition")
}

fn larger_than_asked(cx: &Context) -> Verdict {
    let topic = cx.topic("larger", 1)?;
    let large = vec![7; 100_000];
    write(&producer(cx, &[])?, &topic, 0, [&large])?;
    write(&producer(cx, &[])?, &topic, 0, [&large])?;
    let got = fetch(cx, &topic, &Fetch { offset: 0, max_wait_ms: 1_000, max_bytes: 1_000 })?;
    let records = got.records.unwrap_or_default();
    ensure_eq!(got.error_code, 0, "the partition's error code");
    ensure_eq!(base_offset(&records), Some(0), "the first offset");
    ensure!(records.len() > 100_000, "only {} bytes: a reader with small limits would never get on", records.len());
    ensure!(records.len() < 200_000, "{} bytes: more than the one batch it has to be", records.len());
    Ok(format!("{} bytes for a limit of 1,000", records.len()))
}

fn waits(cx: &Context) -> Verdict {
    let topic = cx.topic("waits", 1)?;
    // A leader that has only just been told so may not know it yet.
    let (got, took) = until("a leader that knows that it is one", PATIENCE, || {
        let started = Instant::now();
        let got = fetch(cx, &topic, &Fetch { offset: 0, max_wait_ms: 700, max_bytes: 1_000_000 })?;
        Ok((!matches!(got.error_code, 3 | 6)).then_some((got, started.elapsed().as_millis())))
    })?;
    ensure_eq!(got.error_code, 0, "the partition's error code");
    ensure!(got.records.unwrap_or_default().is_empty(), "records came out of nowhere");
    // Both ends: a fetch that returns at once makes an idle reader spin.
    ensure!((500..8_000).contains(&took), "answered after {took} ms");
    Ok(format!("{took} ms of 700"))
}

fn fetch_outside(cx: &Context) -> Verdict {
    let topic = cx.topic("outside-the-log", 1)?;
    write(&producer(cx, &[])?, &topic, 0, ["only"])?;
    for offset in [5, i64::MAX] {
        let got = fetch(cx, &topic, &Fetch { offset, max_wait_ms: 500, max_bytes: 1_000_000 })?;
        ensure_eq!(got.error_code, 1, "the error code at offset {offset}");
    }
    let at_end = fetch(cx, &topic, &Fetch { offset: 1, max_wait_ms: 500, max_bytes: 1_000_000 })?;
    ensure_eq!((at_end.error_code, at_end.high_watermark), (0, 1), "the end itself");
    Ok(String::new())
}

fn commit_as(cx: &Context, topic: &str, group: &str, member: &str, generation: i32) -> Result<i16, Failure> {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(1);
    let wanted = OffsetCommitRequestTopic::default().with_name(TopicName(name(topic))).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(name(group)))
        .with_member_id(name(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![wanted]);
    let answer = Wire::to_coordinator(cx, group)?.call(7, &request)?;
    let partition = answer.topics.first().and_then(|t| t.partitions.first()).doing("the partition")?;
    Ok(partition.error_code)
}

fn foreign_commit(cx: &Context) -> Verdict {
    let topic = cx.topic("foreign", 1)?;
    let group = cx.group("foreign");
    let member = Member::join(cx, &group, &topic, &[])?;
    await_shares(&[&member], &[&topic], 1, REBALANCE)?;
    let list = cx.admin.inner().fetch_group_list(Some(&group), PATIENCE).doing("describing the group")?;
    let id = list.groups().first().and_then(|g| g.members().first()).doing("the member")?.id().to_owned();
    ensure_eq!(commit_as(cx, &topic, &group, "nobody", 1)?, 25, "a member nobody knows");
    ensure_eq!(commit_as(cx, &topic, &group, &id, 1_000)?, 22, "a generation to come");
    ensure_eq!(commit_as(cx, &topic, &group, "", -1)?, 25, "a commit past the members");
    let asker = consumer(cx, &group, &[])?;
    let now = crate::clients::committed(&asker, &topic, 0, PATIENCE).doing("committed offset")?;
    ensure_eq!(now, None, "the group's offset");
    Ok(String::new())
}

fn one_config(cx: &Context) -> Verdict {
    let topic = cx.topic_with("one-config", 1, &[("max.message.bytes", "123456")])?;
    let set = AlterableConfig::default().with_name(name("retention.ms")).with_value(Some(name("86400000")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name(&topic))
        .with_configs(vec![set.with_config_operation(0)]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = Wire::open(cx)?.call(1, &request)?;
    let code = answer.responses.first().doing("the resource")?.error_code;
    ensure_eq!(code, 0, "the error code");
    let value = |key: &str| -> Result<Option<String>, Failure> {
        let resource = ResourceSpecifier::Topic(&topic);
        let results = cx.wait(cx.admin.describe_configs([&resource], &cx.admin_options())).doing("describing")?;
        let resource = results.into_iter().next().doing("the answer")?.doing("the resource")?;
        Ok(resource.get(key).and_then(|entry| entry.value.clone()))
    };
    until(
        "the altered config",
        PATIENCE,
        || Ok((value("retention.ms")?.as_deref() == Some("86400000")).then_some(())),
    )?;
    ensure_eq!(value("max.message.bytes")?.as_deref(), Some("123456"), "the config that was not named");
    Ok(String::new())
}
