//! Transactions are all or nothing for `read_committed` readers, whichever process crashes.

use crate::support::*;
use embedded::broker::Broker;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

fn at(topic: &str, offset: i64) -> TopicPartitionList {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    offsets
}

fn group_member(broker: &Broker, group: &str) -> BaseConsumer {
    client(broker)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "100")
        .create()
        .unwrap()
}

fn committed(consumer: &BaseConsumer, topic: &str) -> Offset {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition(topic, 0);
    consumer.committed_offsets(offsets, TIMEOUT).unwrap().elements()[0].offset()
}

#[test]
fn committed_records_are_visible_and_aborted_ones_are_not() {
    let broker = start();
    create_topic(&broker, "tx", 1);
    let producer = transactional(&broker, "t");
    for (round, commit) in [(0, true), (1, false), (2, true), (3, false)] {
        producer.begin_transaction().unwrap();
        send(&producer, "tx", 0, (0..5).map(|n| format!("{round}/{n}")));
        if commit {
            producer.commit_transaction(TIMEOUT).unwrap();
        } else {
            producer.abort_transaction(TIMEOUT).unwrap();
        }
    }
    let received = read_all(&broker, "tx", 0, "read_committed");
    assert_eq!(received, ["0/0", "0/1", "0/2", "0/3", "0/4", "2/0", "2/1", "2/2", "2/3", "2/4"]);
    assert_eq!(read_all(&broker, "tx", 0, "read_uncommitted").len(), 20);
}

#[test]
fn an_open_transaction_hides_later_records() {
    let broker = start();
    create_topic(&broker, "tx", 1);
    let open = transactional(&broker, "t");
    open.begin_transaction().unwrap();
    send(&open, "tx", 0, ["open".to_owned()]);
    send(&producer(&broker, &[]), "tx", 0, ["after".to_owned()]);
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), Vec::<String>::new());
    let committed_reader = reader(&broker, "tx", 0, "read_committed");
    // A `read_committed` client receives the last stable offset as its high watermark, as in Kafka.
    assert_eq!(committed_reader.fetch_watermarks("tx", 0, TIMEOUT).unwrap(), (0, 0));
    let plain_reader = reader(&broker, "tx", 0, "read_uncommitted");
    assert_eq!(plain_reader.fetch_watermarks("tx", 0, TIMEOUT).unwrap(), (0, 2));
    open.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), ["open", "after"]);
}

#[test]
fn a_waiting_reader_is_woken_by_the_commit() {
    let broker = start();
    create_topic(&broker, "tx", 1);
    let consumer: BaseConsumer =
        client(&broker).set("group.id", "g").set("fetch.wait.max.ms", "10000").create().unwrap();
    consumer.assign(&at("tx", 0)).unwrap();
    let producer = transactional(&broker, "t");
    producer.begin_transaction().unwrap();
    send(&producer, "tx", 0, numbered(0..3));
    assert!(consumer.poll(Duration::from_millis(300)).is_none());
    producer.commit_transaction(TIMEOUT).unwrap();
    let woken = consumer.poll(Duration::from_secs(5));
    assert_eq!(value_of(&woken.unwrap().unwrap()), "0");
}

#[test]
fn a_second_producer_with_the_same_transactional_id_fences_the_first() {
    let broker = start();
    create_topic(&broker, "tx", 1);
    let first = transactional(&broker, "t");
    first.begin_transaction().unwrap();
    send(&first, "tx", 0, ["lost".to_owned()]);
    let second = transactional(&broker, "t");
    let refused = first.commit_transaction(TIMEOUT).unwrap_err();
    assert!(matches!(
        refused.rdkafka_error_code(),
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
    ));
    second.begin_transaction().unwrap();
    send(&second, "tx", 0, ["kept".to_owned()]);
    second.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), ["kept"]);
}

#[test]
fn offsets_are_committed_with_the_transaction_or_not_at_all() {
    let broker = start();
    create_topic(&broker, "in", 1);
    create_topic(&broker, "out", 1);
    send(&producer(&broker, &[]), "in", 0, numbered(0..10));
    let consumer = group_member(&broker, "g");
    consumer.subscribe(&["in"]).unwrap();
    eventually("it has the partition", || {
        drop(consumer.poll(Duration::from_millis(20)));
        consumer.assignment().unwrap().count() == 1
    });
    let producer = transactional(&broker, "t");
    let process = |offset: i64| {
        producer.begin_transaction().unwrap();
        send(&producer, "out", 0, [offset.to_string()]);
        let metadata = consumer.group_metadata().unwrap();
        producer.send_offsets_to_transaction(&at("in", offset), &metadata, TIMEOUT).unwrap();
    };
    process(4);
    producer.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(committed(&consumer, "in"), Offset::Offset(4));
    process(7);
    producer.abort_transaction(TIMEOUT).unwrap();
    assert_eq!(committed(&consumer, "in"), Offset::Offset(4));
}

#[test]
fn a_stable_fetch_fails_while_a_transaction_may_change_the_offset() {
    let broker = start();
    create_topic(&broker, "in", 1);
    let consumer = group_member(&broker, "g");
    consumer.commit(&at("in", 1), CommitMode::Sync).unwrap();
    let producer = transactional(&broker, "t");
    producer.begin_transaction().unwrap();
    let metadata = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&at("in", 9), &metadata, TIMEOUT).unwrap();
    // librdkafka requires stable offsets and retries until its deadline.
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition("in", 0);
    assert!(consumer.committed_offsets(offsets, Duration::from_millis(300)).is_err());
    producer.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(committed(&consumer, "in"), Offset::Offset(9));
}

#[test]
fn a_member_of_an_old_generation_cannot_commit_in_a_transaction() {
    let broker = start();
    create_topic(&broker, "in", 2);
    let old = group_member(&broker, "g");
    old.subscribe(&["in"]).unwrap();
    eventually("it has both partitions", || {
        drop(old.poll(Duration::from_millis(20)));
        old.assignment().unwrap().count() == 2
    });
    let stale = old.group_metadata().unwrap();
    let new = group_member(&broker, "g");
    new.subscribe(&["in"]).unwrap();
    eventually("they share", || {
        for member in [&old, &new] {
            drop(member.poll(Duration::from_millis(20)));
        }
        new.assignment().unwrap().count() == 1
    });
    let producer = transactional(&broker, "t");
    producer.begin_transaction().unwrap();
    let refused = producer.send_offsets_to_transaction(&at("in", 3), &stale, TIMEOUT).unwrap_err();
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::IllegalGeneration));
    producer.abort_transaction(TIMEOUT).unwrap();
}

#[test]
fn a_member_from_before_a_restart_cannot_commit_in_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "in", 1);
    let member = group_member(&broker, "g");
    member.subscribe(&["in"]).unwrap();
    eventually("it has the partition", || {
        drop(member.poll(Duration::from_millis(20)));
        member.assignment().unwrap().count() == 1
    });
    let stale = member.group_metadata().unwrap();
    drop(member);
    block_on(broker.stop());
    let broker = start_in(dir.path());
    let producer = transactional(&broker, "t");
    producer.begin_transaction().unwrap();
    let refused = producer.send_offsets_to_transaction(&at("in", 3), &stale, TIMEOUT).unwrap_err();
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::UnknownMemberId));
}

fn abandoned(broker: &Broker, id: &str, timeout_ms: &str) -> BaseProducer<DeliveryReports> {
    let producer = producer(
        broker,
        &[("transactional.id", id), ("transaction.timeout.ms", timeout_ms), ("message.timeout.ms", timeout_ms)],
    );
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "tx", 0, ["abandoned".to_owned()]);
    producer
}

#[test]
fn an_expired_transaction_is_aborted_and_its_producer_is_fenced() {
    let broker = start();
    create_topic(&broker, "tx", 1);
    let slow = abandoned(&broker, "t", "1000");
    send(&producer(&broker, &[]), "tx", 0, ["after".to_owned()]);
    let reader = reader(&broker, "tx", 0, "read_committed");
    eventually("the transaction is aborted", || reader.fetch_watermarks("tx", 0, TIMEOUT).unwrap().1 == 3);
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), ["after"]);
    assert!(slow.commit_transaction(TIMEOUT).is_err());
}

#[test]
fn an_open_transaction_survives_a_restart_until_its_producer_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "tx", 1);
    let dead = abandoned(&broker, "t", "60000");
    drop(broker); // the producer is not informed
    drop(dead);
    let broker = start_in(dir.path());
    send(&producer(&broker, &[]), "tx", 0, ["after".to_owned()]);
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), Vec::<String>::new());
    let next = transactional(&broker, "t");
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), ["after"]);
    next.begin_transaction().unwrap();
    send(&next, "tx", 0, ["next".to_owned()]);
    next.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), ["after", "next"]);
}

#[test]
fn a_producer_can_finish_its_transaction_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    let port = broker.addr();
    create_topic(&broker, "tx", 1);
    let consumer = group_member(&broker, "g");
    let metadata = consumer.group_metadata().unwrap();
    let producer = transactional(&broker, "t");
    producer.begin_transaction().unwrap();
    send(&producer, "tx", 0, numbered(0..2));
    producer.send_offsets_to_transaction(&at("tx", 1), &metadata, TIMEOUT).unwrap();
    block_on(broker.stop());
    let mut again = None;
    eventually("the port is free again", || {
        let config = embedded::broker::BrokerConfig { listen: port, ..config_in(dir.path()) };
        again = Broker::start(config).ok();
        again.is_some()
    });
    let broker = again.unwrap();
    send(&producer, "tx", 0, numbered(2..4));
    producer.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(read_all(&broker, "tx", 0, "read_committed"), ["0", "1", "2", "3"]);
    assert_eq!(committed(&group_member(&broker, "g"), "tx"), Offset::Offset(1));
}

#[test]
fn a_restart_keeps_aborted_transactions() {
    let dir = tempfile::tempdir().unwrap();
    for state_is_kept in [true, false] {
        let topic = if state_is_kept { "kept" } else { "rebuilt" };
        let broker = start_in(dir.path());
        create_topic(&broker, topic, 1);
        let producer = transactional(&broker, topic);
        for (value, commit) in [("no", false), ("yes", true)] {
            producer.begin_transaction().unwrap();
            send(&producer, topic, 0, [value.to_owned()]);
            if commit {
                producer.commit_transaction(TIMEOUT).unwrap();
            } else {
                producer.abort_transaction(TIMEOUT).unwrap();
            }
        }
        drop(producer);
        block_on(broker.stop());
        if !state_is_kept {
            let state = dir.path().join("logs").join(format!("{topic}-0")).join("00000000000000000000.state");
            std::fs::remove_file(state).unwrap();
        }
        let broker = start_in(dir.path());
        assert_eq!(read_all(&broker, topic, 0, "read_committed"), ["yes"]);
        assert_eq!(read_all(&broker, topic, 0, "read_uncommitted"), ["no", "yes"]);
        block_on(broker.stop());
    }
}
