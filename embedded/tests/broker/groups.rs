//! Groups: partition assignment and committed offsets.

use crate::support::*;
use embedded::broker::Broker;
use rdkafka::admin::GroupResult;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::Duration;

fn member(broker: &Broker, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut config = client(broker);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "100");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// Polls every member, so that each takes part in the group, and ignores the records. Returns the sizes of their assignments.
fn assignments(members: &[&BaseConsumer]) -> Vec<usize> {
    members
        .iter()
        .map(|member| {
            drop(member.poll(Duration::from_millis(20)));
            member.assignment().unwrap().count()
        })
        .collect()
}

#[test]
fn two_members_share_the_partitions_and_the_remaining_one_takes_over() {
    for assignor in ["range", "cooperative-sticky"] {
        let broker = start();
        create_topic(&broker, "shared", 6);
        let settings = [("partition.assignment.strategy", assignor)];
        let first = member(&broker, "g", &settings);
        let second = member(&broker, "g", &settings);
        first.subscribe(&["shared"]).unwrap();
        eventually("the first member has all", || assignments(&[&first]) == [6]);
        second.subscribe(&["shared"]).unwrap();
        eventually("both have half", || assignments(&[&first, &second]) == [3, 3]);
        drop(second);
        eventually("the first member has all again", || assignments(&[&first]) == [6]);
    }
}

#[test]
fn every_record_is_read_once_across_joins_and_leaves() {
    let broker = start();
    create_topic(&broker, "work", 4);
    let producer = producer(&broker, &[]);
    for partition in 0..4 {
        send(&producer, "work", partition, (0..250).map(|n| format!("{partition}/{n}")));
    }
    let settings = [("partition.assignment.strategy", "cooperative-sticky")];
    let mut members = vec![member(&broker, "g", &settings)];
    members[0].subscribe(&["work"]).unwrap();
    let mut received = BTreeSet::new();
    let mut polls = 0;
    eventually("all records", || {
        polls += 1;
        if polls == 50 {
            let late = member(&broker, "g", &settings);
            late.subscribe(&["work"]).unwrap();
            members.push(late);
        }
        for member in &members {
            if let Some(Ok(message)) = member.poll(Duration::from_millis(5)) {
                received.insert(value_of(&message));
                // A commit during a rebalance is refused; the record is then delivered again.
                drop(member.commit_message(&message, CommitMode::Sync));
            }
        }
        received.len() == 1_000
    });
}

#[test]
fn committed_offsets_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "resumed", 1);
    send(&producer(&broker, &[]), "resumed", 0, numbered(0..10));
    let consumer = member(&broker, "g", &[]);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("resumed", 0, Offset::Offset(6)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    drop(consumer);
    block_on(broker.stop());
    let broker = start_in(dir.path());
    let consumer = member(&broker, "g", &[]);
    consumer.subscribe(&["resumed"]).unwrap();
    let mut first = None;
    eventually("the first record", || {
        first = first.or_else(|| consumer.poll(Duration::from_millis(100)).map(|message| message.unwrap().offset()));
        first.is_some()
    });
    assert_eq!(first, Some(6));
}

/// Plain numbers: a list from librdkafka keeps its consumer alive.
fn owned_partitions(member: &BaseConsumer) -> Vec<i32> {
    member.assignment().unwrap().elements().iter().map(|element| element.partition()).collect()
}

#[test]
fn a_static_member_returns_to_its_partitions_without_a_rebalance() {
    let broker = start();
    create_topic(&broker, "static", 4);
    let static_member = |id: &str| member(&broker, "g", &[("group.instance.id", id)]);
    let (left, right) = (static_member("left"), static_member("right"));
    left.subscribe(&["static"]).unwrap();
    right.subscribe(&["static"]).unwrap();
    eventually("both have half", || assignments(&[&left, &right]) == [2, 2]);
    let stays = right.group_metadata().unwrap();
    let before = owned_partitions(&left);
    drop(left); // a static member does not leave the group
    let left = static_member("left");
    left.subscribe(&["static"]).unwrap();
    eventually("it has its half again", || assignments(&[&left, &right]) == [2, 2]);
    assert_eq!(owned_partitions(&left), before);
    // The generation is unchanged: its offsets are still accepted.
    let producer = transactional(&broker, "t");
    producer.begin_transaction().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("static", 0, Offset::Offset(0)).unwrap();
    producer.send_offsets_to_transaction(&offsets, &stays, TIMEOUT).unwrap();
    producer.commit_transaction(TIMEOUT).unwrap();
}

#[test]
fn a_second_member_with_the_same_instance_id_fences_the_first() {
    let broker = start();
    create_topic(&broker, "static", 1);
    let settings = [("group.instance.id", "only")];
    let older = member(&broker, "g", &settings);
    older.subscribe(&["static"]).unwrap();
    eventually("it has the partition", || assignments(&[&older]) == [1]);
    let newer = member(&broker, "g", &settings);
    newer.subscribe(&["static"]).unwrap();
    eventually("the newer one has it", || assignments(&[&newer]) == [1]);
    let mut fenced = false;
    eventually("the older one is fenced", || {
        if let Some(Err(KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code))) =
            older.poll(Duration::from_millis(50))
        {
            fenced |= matches!(code, RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId);
        }
        fenced
    });
}

#[test]
fn a_commit_from_outside_a_group_with_members_is_refused() {
    let broker = start();
    create_topic(&broker, "owned", 1);
    let inside = member(&broker, "g", &[]);
    inside.subscribe(&["owned"]).unwrap();
    eventually("it has the partition", || assignments(&[&inside]) == [1]);
    let outside = member(&broker, "g", &[]);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("owned", 0, Offset::Offset(5)).unwrap();
    outside.assign(&offsets).unwrap();
    let refused = outside.commit(&offsets, CommitMode::Sync).unwrap_err();
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::UnknownMemberId));
}

#[test]
fn groups_are_listed_and_deleted_when_empty() {
    let broker = start();
    create_topic(&broker, "listed", 1);
    let consumer = member(&broker, "g", &[]);
    consumer.subscribe(&["listed"]).unwrap();
    eventually("it has the partition", || assignments(&[&consumer]) == [1]);
    let listed = consumer.fetch_group_list(Some("g"), TIMEOUT).unwrap();
    let group = &listed.groups()[0];
    assert_eq!((group.name(), group.state(), group.members().len()), ("g", "Stable", 1));
    let delete = || -> GroupResult { block_on(admin(&broker).delete_groups(&["g"], &options())).unwrap().remove(0) };
    assert_eq!(delete().unwrap_err().1, RDKafkaErrorCode::NonEmptyGroup);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("listed", 0, Offset::Offset(0)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    drop(consumer);
    eventually("it is deleted", || delete().is_ok());
}
