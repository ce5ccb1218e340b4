//! Topics are created, grown, changed and deleted.

use crate::support::*;
use embedded::broker::{Broker, BrokerConfig};
use rdkafka::admin::{AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

pub(crate) fn setting(broker: &Broker, topic: &str, name: &str) -> String {
    let described = block_on(admin(broker).describe_configs([&ResourceSpecifier::Topic(topic)], &options())).unwrap();
    described[0].as_ref().unwrap().get(name).unwrap().value.clone().unwrap()
}

pub(crate) fn alter(broker: &Broker, topic: &str, settings: &[(&str, &str)]) {
    let change = settings
        .iter()
        .fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |change, (key, value)| change.set(key, value));
    block_on(admin(broker).alter_configs([&change], &options())).unwrap()[0].as_ref().unwrap();
}

fn create(broker: &Broker, topic: &NewTopic<'_>) -> Result<String, (String, RDKafkaErrorCode)> {
    block_on(admin(broker).create_topics([topic], &options())).unwrap().remove(0)
}

fn code<T>(result: Result<T, (String, RDKafkaErrorCode)>) -> Option<RDKafkaErrorCode> {
    result.err().map(|(_, code)| code)
}

#[test]
fn a_topic_is_created_once_with_its_settings() {
    let broker = start();
    create_topic_with(&broker, "orders", 4, &[("cleanup.policy", "compact")]);
    assert_eq!(setting(&broker, "orders", "cleanup.policy"), "compact");
    assert_eq!(setting(&broker, "orders", "retention.ms"), "604800000");
    let again = create(&broker, &NewTopic::new("orders", 4, TopicReplication::Fixed(1)));
    assert_eq!(code(again), Some(RDKafkaErrorCode::TopicAlreadyExists));
    let metadata = admin(&broker).inner().fetch_metadata(Some("orders"), TIMEOUT).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 4);
}

#[test]
fn invalid_topics_are_refused() {
    let broker = start();
    let cases = [
        (NewTopic::new("a/b", 1, TopicReplication::Fixed(1)), RDKafkaErrorCode::InvalidTopic),
        (NewTopic::new("..", 1, TopicReplication::Fixed(1)), RDKafkaErrorCode::InvalidTopic),
        (NewTopic::new("a", 1, TopicReplication::Fixed(3)), RDKafkaErrorCode::InvalidReplicationFactor),
        (NewTopic::new("a", 5_000, TopicReplication::Fixed(1)), RDKafkaErrorCode::InvalidPartitions),
        (NewTopic::new("a", 1, TopicReplication::Fixed(1)).set("no.such", "1"), RDKafkaErrorCode::InvalidConfig),
        (
            NewTopic::new("a", 1, TopicReplication::Fixed(1)).set("retention.ms", "long"),
            RDKafkaErrorCode::InvalidConfig,
        ),
    ];
    for (topic, expected) in cases {
        assert_eq!(code(create(&broker, &topic)), Some(expected), "{}", topic.name);
    }
}

#[test]
fn a_request_for_an_unknown_topic_creates_it_only_if_so_configured() {
    let broker = start();
    let requested = |broker: &Broker| {
        let consumer = reader(broker, "unknown", 0, "read_committed");
        consumer.fetch_metadata(Some("unknown"), TIMEOUT).unwrap().topics()[0].partitions().len()
    };
    assert_eq!(requested(&broker), 0);
    let auto_creating =
        Broker::start(BrokerConfig { auto_create_topics: true, default_partitions: 3, ..BrokerConfig::default() });
    let auto_creating = auto_creating.unwrap();
    let producer = producer(&auto_creating, &[]);
    send(&producer, "unknown", 2, numbered(0..3));
    assert_eq!(read_all(&auto_creating, "unknown", 2, "read_committed").len(), 3);
}

#[test]
fn partitions_can_be_added_but_not_removed() {
    let broker = start();
    create_topic(&broker, "grows", 1);
    let grow = |count: usize| {
        block_on(admin(&broker).create_partitions([&NewPartitions::new("grows", count)], &options())).unwrap().remove(0)
    };
    assert_eq!(code(grow(3)), None);
    assert_eq!(code(grow(2)), Some(RDKafkaErrorCode::InvalidPartitions));
    send(&producer(&broker, &[]), "grows", 2, numbered(0..3));
    assert_eq!(read_all(&broker, "grows", 2, "read_committed").len(), 3);
}

#[test]
fn a_deleted_topic_stays_deleted_after_a_restart_and_can_be_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "brief", 1);
    send(&producer(&broker, &[]), "brief", 0, numbered(0..5));
    let delete = |broker: &Broker| block_on(admin(broker).delete_topics(&["brief"], &options())).unwrap().remove(0);
    assert_eq!(code(delete(&broker)), None);
    assert_eq!(code(delete(&broker)), Some(RDKafkaErrorCode::UnknownTopicOrPartition));
    block_on(broker.stop());
    let broker = start_in(dir.path());
    create_topic(&broker, "brief", 1);
    assert_eq!(read_all(&broker, "brief", 0, "read_committed"), Vec::<String>::new());
}

#[test]
fn deleted_records_stay_deleted_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "trimmed", 1);
    send(&producer(&broker, &[]), "trimmed", 0, numbered(0..10));
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("trimmed", 0, Offset::Offset(7)).unwrap();
    let deleted = block_on(admin(&broker).delete_records(&before, &options())).unwrap();
    assert_eq!(deleted.elements()[0].offset(), Offset::Offset(7));
    block_on(broker.stop());
    let broker = start_in(dir.path());
    let consumer = reader(&broker, "trimmed", 0, "read_committed");
    assert_eq!(consumer.fetch_watermarks("trimmed", 0, TIMEOUT).unwrap(), (7, 10));
    assert_eq!(read_all(&broker, "trimmed", 0, "read_committed"), ["7", "8", "9"]);
}

#[test]
fn changed_settings_take_effect_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "tuned", 1);
    alter(&broker, "tuned", &[("max.message.bytes", "1000")]);
    let producer = producer(&broker, &[]);
    let large = "x".repeat(5_000);
    producer
        .send(rdkafka::producer::BaseRecord::<(), str>::to("tuned").partition(0).payload(&large))
        .map_err(|(error, _)| error)
        .unwrap();
    rdkafka::producer::Producer::flush(&producer, TIMEOUT).unwrap();
    assert!(rdkafka::producer::Producer::context(&producer).0.lock().unwrap()[0].is_err());
    block_on(broker.stop());
    assert_eq!(setting(&start_in(dir.path()), "tuned", "max.message.bytes"), "1000");
}

#[test]
fn the_broker_describes_its_own_settings() {
    let broker = start();
    let described = block_on(admin(&broker).describe_configs([&ResourceSpecifier::Broker(1)], &options())).unwrap();
    let entry = described[0].as_ref().unwrap().get("auto.create.topics.enable").unwrap();
    assert_eq!(entry.value.as_deref(), Some("false"));
}
