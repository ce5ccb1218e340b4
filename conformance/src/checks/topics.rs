//! Topics are created, described, changed and deleted, and never created by accident.

use rdkafka::admin::{AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{COMMITTED, NewRecord, await_deliveries, consumer, producer, read, send, watermarks, write};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::TopicPair, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("a new topic has the requested partitions, each with a leader", described),
    check("a topic cannot be created twice", twice),
    check("an illegal topic name is refused", illegal_name),
    check("validating a topic does not create it", validated),
    check("topic configs are stored, described and altered", configs),
    check("the configs of a broker are described", broker_configs),
    check("partitions can be added and not removed", more_partitions),
    check("a deleted topic is gone, and a new topic of its name is empty", deleted),
    check("a request for an unknown topic is an error and does not create it", unknown),
];

fn described(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("described", 3)?;
    let metadata = cx.admin.inner().fetch_metadata(Some(&topic), REQUEST_TIMEOUT).context("metadata")?;
    let observed = metadata.topics().first().context("the topic")?;
    let mut ids: Vec<i32> = observed.partitions().iter().map(|p| p.id()).collect();
    ids.sort_unstable();
    ensure_eq!(ids, vec![0, 1, 2], "partition ids");
    let brokers: Vec<i32> = metadata.brokers().iter().map(|b| b.id()).collect();
    for partition in observed.partitions() {
        ensure!(brokers.contains(&partition.leader()), "leader {} is not one of the brokers", partition.leader());
        ensure!(partition.isr().contains(&partition.leader()), "the leader is not in sync: {:?}", partition.isr());
    }
    let whole = cx.admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).context("metadata of all topics")?;
    ensure!(whole.topics().iter().any(|t| t.name() == topic), "{topic} is not in the list of all topics");
    Ok(format!("{} brokers", brokers.len()))
}

/// The error code of creating `topic`.
fn refusal(cx: &CheckContext, topic: &NewTopic<'_>) -> Result<RDKafkaErrorCode, CheckFailure> {
    let results = cx.wait(cx.admin.create_topics([topic], &cx.admin_options())).context("creating a topic")?;
    match results.into_iter().next().context("the response")? {
        Err((_, code)) => Ok(code),
        Ok(name) => Err(CheckFailure::new(format!("{name} was created"))),
    }
}

fn twice(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("twice", 2)?;
    let code = refusal(cx, &NewTopic::new(&topic, 5, TopicReplication::Fixed(-1)))?;
    ensure_eq!(code, RDKafkaErrorCode::TopicAlreadyExists, "the code");
    cx.await_partitions(&topic, 2)?;
    Ok(code.to_string())
}

fn illegal_name(cx: &CheckContext) -> CheckResult {
    for name in ["a/b", "..", "space between", &"x".repeat(250)] {
        let code = refusal(cx, &NewTopic::new(name, 1, TopicReplication::Fixed(-1)))?;
        ensure_eq!(code, RDKafkaErrorCode::InvalidTopic, "the code for {name:?}");
    }
    Ok(String::new())
}

fn validated(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic_name("validated");
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(-1));
    let results = cx
        .wait(cx.admin.create_topics([&new], &cx.admin_options().validate_only(true)))
        .context("validating a topic")?;
    ensure!(results.iter().all(Result::is_ok), "validation failed: {results:?}");
    let metadata = cx.admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).context("metadata")?;
    ensure!(metadata.topics().iter().all(|t| t.name() != topic), "the topic was created");
    Ok(String::new())
}

fn config_of(cx: &CheckContext, resource: ResourceSpecifier<'_>, name: &str) -> Result<Option<String>, CheckFailure> {
    let results = cx.wait(cx.admin.describe_configs([&resource], &cx.admin_options())).context("describing configs")?;
    let resource = results.into_iter().next().context("the response")?.context("the resource")?;
    Ok(resource.get(name).and_then(|entry| entry.value.clone()))
}

fn configs(cx: &CheckContext) -> CheckResult {
    let request = [("cleanup.policy", "compact"), ("max.message.bytes", "123456"), ("min.insync.replicas", "1")];
    let topic = cx.topic_with("configs", 1, &request)?;
    let value = |name: &str| config_of(cx, ResourceSpecifier::Topic(&topic), name);
    for (name, expected) in request {
        ensure_eq!(value(name)?.as_deref(), Some(expected), "{name} after creation");
    }
    ensure_eq!(value("retention.ms")?.as_deref(), Some("-1"), "retention.ms after creation");
    let altered = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "86400000");
    let results = cx.wait(cx.admin.alter_configs([&altered], &cx.admin_options())).context("altering configs")?;
    ensure!(results.iter().all(Result::is_ok), "altering was refused: {results:?}");
    wait_until("the altered config", REQUEST_TIMEOUT, || {
        Ok((value("retention.ms")?.as_deref() == Some("86400000")).then_some(()))
    })?;
    // Altering replaces all configs: those that the request omits return to their defaults.
    ensure_eq!(value("cleanup.policy")?.as_deref(), Some("delete"), "cleanup.policy after altering");
    Ok(String::new())
}

fn broker_configs(cx: &CheckContext) -> CheckResult {
    let metadata = cx.admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).context("metadata")?;
    let id = metadata.brokers().first().context("a broker")?.id();
    let resource = ResourceSpecifier::Broker(id);
    let results = cx.wait(cx.admin.describe_configs([&resource], &cx.admin_options())).context("describing configs")?;
    let broker = results.into_iter().next().context("the response")?.context("the broker")?;
    ensure!(!broker.entries.is_empty(), "no config at all");
    Ok(format!("{} entries", broker.entries.len()))
}

fn more_partitions(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("more", 2)?;
    let results = cx
        .wait(cx.admin.create_partitions([&NewPartitions::new(&topic, 5)], &cx.admin_options()))
        .context("adding partitions")?;
    ensure!(results.iter().all(Result::is_ok), "adding was refused: {results:?}");
    cx.await_partitions(&topic, 5)?;
    write(&producer(cx, &[])?, &topic, 4, ["here"])?;
    ensure_eq!(read(cx, &topic, 4, COMMITTED)?.len(), 1, "records in the new partition");
    let fewer = cx
        .wait(cx.admin.create_partitions([&NewPartitions::new(&topic, 3)], &cx.admin_options()))
        .context("removing partitions")?;
    match fewer.into_iter().next().context("the response")? {
        Err((_, RDKafkaErrorCode::InvalidPartitions)) => Ok("fewer: invalid partitions".to_owned()),
        other => Err(CheckFailure::new(format!("removing partitions gave {other:?}"))),
    }
}

fn deleted(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("deleted", 1)?;
    write(&producer(cx, &[])?, &topic, 0, ["old", "old"])?;
    let delete = || cx.wait(cx.admin.delete_topics(&[&topic], &cx.admin_options())).context("deleting");
    ensure!(delete()?.iter().all(Result::is_ok), "deleting was refused");
    wait_until("the topic to be gone", REQUEST_TIMEOUT, || {
        let metadata = cx.admin.inner().fetch_metadata(Some(&topic), REQUEST_TIMEOUT).context("metadata")?;
        let error = metadata.topics().first().and_then(|t| t.error());
        Ok((error == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)).then_some(()))
    })?;
    match delete()?.into_iter().next().context("the response")? {
        Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
        other => return Err(CheckFailure::new(format!("deleting it again gave {other:?}"))),
    }
    // The broker may still be deleting the old topic.
    wait_until("the name to be free", REQUEST_TIMEOUT, || {
        Ok(cx.create(&NewTopic::new(&topic, 1, TopicReplication::Fixed(-1))).ok())
    })?;
    cx.await_partitions(&topic, 1)?;
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (0, 0), "watermarks of the new topic");
    Ok(String::new())
}

fn unknown(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic_name("unknown");
    // The client requests auto-creation; the broker must not create the topic.
    let client = consumer(cx, &cx.group("auto-create"), &[("allow.auto.create.topics", "true")])?;
    let metadata = client.fetch_metadata(Some(&topic), REQUEST_TIMEOUT).context("metadata")?;
    let error = metadata.topics().first().context("the topic")?.error();
    ensure_eq!(error, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART), "the error in the metadata");
    let producer = producer(cx, &[("allow.auto.create.topics", "true"), ("message.timeout.ms", "5000")])?;
    let deliveries = match send(&producer, &topic, &NewRecord { value: Some(b"x"), ..NewRecord::default() }) {
        Ok(_) => await_deliveries(&producer)?,
        Err(_) => Vec::new(),
    };
    ensure!(deliveries.iter().all(Result::is_err), "a record was accepted: {deliveries:?}");
    let whole = cx.admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).context("metadata of all topics")?;
    ensure!(whole.topics().iter().all(|t| t.name() != topic), "the request created the topic");
    Ok(deliveries.first().map_or_else(String::new, |result| format!("{result:?}")))
}
