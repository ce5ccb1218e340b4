//! Topics: made, described, changed, removed; never made by accident.

use rdkafka::admin::{AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{COMMITTED, Put, consumer, producer, read, send, settle, watermarks, write};
use crate::context::{Context, PATIENCE, until};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Topics, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("a new topic has the partitions it was asked for, each with a leader", described),
    check("a topic cannot be made twice", twice),
    check("an illegal topic name is refused", illegal_name),
    check("a topic that is only validated is not made", validated),
    check("topic configs are stored, described and altered", configs),
    check("the configs of a broker are described", broker_configs),
    check("partitions can be added and not taken away", more_partitions),
    check("a deleted topic is gone, and its name starts again empty", deleted),
    check("an unknown topic is an error and is not made by asking for it", unknown),
];

fn described(cx: &Context) -> Verdict {
    let topic = cx.topic("described", 3)?;
    let metadata = cx.admin.inner().fetch_metadata(Some(&topic), PATIENCE).doing("metadata")?;
    let seen = metadata.topics().first().doing("the topic")?;
    let mut ids: Vec<i32> = seen.partitions().iter().map(|p| p.id()).collect();
    ids.sort_unstable();
    ensure_eq!(ids, vec![0, 1, 2], "partition ids");
    let brokers: Vec<i32> = metadata.brokers().iter().map(|b| b.id()).collect();
    for partition in seen.partitions() {
        ensure!(brokers.contains(&partition.leader()), "leader {} is none of the brokers", partition.leader());
        ensure!(partition.isr().contains(&partition.leader()), "the leader is not in sync: {:?}", partition.isr());
    }
    let whole = cx.admin.inner().fetch_metadata(None, PATIENCE).doing("metadata of all topics")?;
    ensure!(whole.topics().iter().any(|t| t.name() == topic), "{topic} is not in the list of all topics");
    Ok(format!("{} brokers", brokers.len()))
}

/// The code with which creating `topic` is refused.
fn refusal(cx: &Context, topic: &NewTopic<'_>) -> Result<RDKafkaErrorCode, Failure> {
    let results = cx.wait(cx.admin.create_topics([topic], &cx.admin_options())).doing("creating a topic")?;
    match results.into_iter().next().doing("the answer")? {
        Err((_, code)) => Ok(code),
        Ok(name) => Err(Failure::new(format!("{name} was made"))),
    }
}

fn twice(cx: &Context) -> Verdict {
    let topic = cx.topic("twice", 2)?;
    let code = refusal(cx, &NewTopic::new(&topic, 5, TopicReplication::Fixed(-1)))?;
    ensure_eq!(code, RDKafkaErrorCode::TopicAlreadyExists, "the code");
    cx.await_partitions(&topic, 2)?;
    Ok(code.to_string())
}

fn illegal_name(cx: &Context) -> Verdict {
    for name in ["a/b", "..", "space between", &"x".repeat(250)] {
        let code = refusal(cx, &NewTopic::new(name, 1, TopicReplication::Fixed(-1)))?;
        ensure_eq!(code, RDKafkaErrorCode::InvalidTopic, "the code for {name:?}");
    }
    Ok(String::new())
}

fn validated(cx: &Context) -> Verdict {
    let topic = cx.topic_name("validated");
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(-1));
    let results =
        cx.wait(cx.admin.create_topics([&new], &cx.admin_options().validate_only(true))).doing("validating a topic")?;
    ensure!(results.iter().all(Result::is_ok), "validation failed: {results:?}");
    let metadata = cx.admin.inner().fetch_metadata(None, PATIENCE).doing("metadata")?;
    ensure!(metadata.topics().iter().all(|t| t.name() != topic), "the topic was made");
    Ok(String::new())
}

fn config_of(cx: &Context, resource: ResourceSpecifier<'_>, name: &str) -> Result<Option<String>, Failure> {
    let results = cx.wait(cx.admin.describe_configs([&resource], &cx.admin_options())).doing("describing configs")?;
    let resource = results.into_iter().next().doing("the answer")?.doing("the resource")?;
    Ok(resource.get(name).and_then(|entry| entry.value.clone()))
}

fn configs(cx: &Context) -> Verdict {
    let asked = [("cleanup.policy", "compact"), ("max.message.bytes", "123456"), ("min.insync.replicas", "1")];
    let topic = cx.topic_with("configs", 1, &asked)?;
    let value = |name: &str| config_of(cx, ResourceSpecifier::Topic(&topic), name);
    for (name, wanted) in asked {
        ensure_eq!(value(name)?.as_deref(), Some(wanted), "{name} after creation");
    }
    ensure_eq!(value("retention.ms")?.as_deref(), Some("-1"), "retention.ms after creation");
    let altered = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "86400000");
    let results = cx.wait(cx.admin.alter_configs([&altered], &cx.admin_options())).doing("altering configs")?;
    ensure!(results.iter().all(Result::is_ok), "altering was refused: {results:?}");
    until(
        "the altered config",
        PATIENCE,
        || Ok((value("retention.ms")?.as_deref() == Some("86400000")).then_some(())),
    )?;
    // Altering states the whole set: what is not named falls back to the default.
    ensure_eq!(value("cleanup.policy")?.as_deref(), Some("delete"), "cleanup.policy after altering the others away");
    Ok(String::new())
}

fn broker_configs(cx: &Context) -> Verdict {
    let metadata = cx.admin.inner().fetch_metadata(None, PATIENCE).doing("metadata")?;
    let id = metadata.brokers().first().doing("a broker")?.id();
    let resource = ResourceSpecifier::Broker(id);
    let results = cx.wait(cx.admin.describe_configs([&resource], &cx.admin_options())).doing("describing configs")?;
    let broker = results.into_iter().next().doing("the answer")?.doing("the broker")?;
    ensure!(!broker.entries.is_empty(), "no config at all");
    Ok(format!("{} entries", broker.entries.len()))
}

fn more_partitions(cx: &Context) -> Verdict {
    let topic = cx.topic("more", 2)?;
    let results = cx
        .wait(cx.admin.create_partitions([&NewPartitions::new(&topic, 5)], &cx.admin_options()))
        .doing("adding partitions")?;
    ensure!(results.iter().all(Result::is_ok), "adding was refused: {results:?}");
    cx.await_partitions(&topic, 5)?;
    write(&producer(cx, &[])?, &topic, 4, ["here"])?;
    ensure_eq!(read(cx, &topic, 4, COMMITTED)?.len(), 1, "records in the new partition");
    let fewer = cx
        .wait(cx.admin.create_partitions([&NewPartitions::new(&topic, 3)], &cx.admin_options()))
        .doing("taking partitions away")?;
    match fewer.into_iter().next().doing("the answer")? {
        Err((_, RDKafkaErrorCode::InvalidPartitions)) => Ok("fewer: invalid partitions".to_owned()),
        other => Err(Failure::new(format!("taking partitions away gave {other:?}"))),
    }
}

fn deleted(cx: &Context) -> Verdict {
    let topic = cx.topic("deleted", 1)?;
    write(&producer(cx, &[])?, &topic, 0, ["old", "old"])?;
    let delete = || cx.wait(cx.admin.delete_topics(&[&topic], &cx.admin_options())).doing("deleting");
    ensure!(delete()?.iter().all(Result::is_ok), "deleting was refused");
    until("the topic to be gone", PATIENCE, || {
        let metadata = cx.admin.inner().fetch_metadata(Some(&topic), PATIENCE).doing("metadata")?;
        let error = metadata.topics().first().and_then(|t| t.error());
        Ok((error == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)).then_some(()))
    })?;
    match delete()?.into_iter().next().doing("the answer")? {
        Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
        other => return Err(Failure::new(format!("deleting it again gave {other:?}"))),
    }
    // The broker may still be sweeping the old one away.
    until("the name to be free again", PATIENCE, || {
        Ok(cx.create(&NewTopic::new(&topic, 1, TopicReplication::Fixed(-1))).ok())
    })?;
    cx.await_partitions(&topic, 1)?;
    ensure_eq!(watermarks(cx, &topic, 0, COMMITTED)?, (0, 0), "watermarks of the new topic");
    Ok(String::new())
}

fn unknown(cx: &Context) -> Verdict {
    let topic = cx.topic_name("unknown");
    // A client that would like it made: the broker must not agree.
    let curious = consumer(cx, &cx.group("curious"), &[("allow.auto.create.topics", "true")])?;
    let metadata = curious.fetch_metadata(Some(&topic), PATIENCE).doing("metadata")?;
    let error = metadata.topics().first().doing("the topic")?.error();
    ensure_eq!(error, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART), "the error in the metadata");
    let producer = producer(cx, &[("allow.auto.create.topics", "true"), ("message.timeout.ms", "5000")])?;
    let settled = match send(&producer, &topic, &Put { value: Some(b"x"), ..Put::default() }) {
        Ok(_) => settle(&producer)?,
        Err(_) => Vec::new(),
    };
    ensure!(settled.iter().all(Result::is_err), "a record was accepted: {settled:?}");
    let whole = cx.admin.inner().fetch_metadata(None, PATIENCE).doing("metadata of all topics")?;
    ensure!(whole.topics().iter().all(|t| t.name() != topic), "the topic was made by asking for it");
    Ok(settled.first().map_or_else(String::new, |result| format!("{result:?}")))
}
