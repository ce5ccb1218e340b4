//! Reads and writes records with a plain Kafka client. It enforces no rule, so a test can break any.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    producer::{DeliveryResult, ProducerContext, ThreadedProducer},
};
use runtime::schemas::{json::json_to_avro, parse};
use serde_json::Value;

use super::Http;

/// A producer context that requires every record to be acknowledged.
pub(crate) struct Acknowledged;

impl rdkafka::ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "the broker must acknowledge the record: {result:?}");
    }
}

/// A producer without idempotence or transactions.
pub(crate) fn producer(bootstrap: &str) -> ThreadedProducer<Acknowledged> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("message.max.bytes", "2000000").set("partitioner", "murmur2_random");
    config.create_with_context(Acknowledged).unwrap()
}

/// The id of a subject's first version.
pub(crate) fn schema_id(registry: &str, subject: &str) -> u32 {
    let (status, found) = Http::new().get(&format!("{registry}/subjects/{subject}/versions/1"));
    assert_eq!(status, 200, "{subject}: {found}");
    u32::try_from(found["id"].as_u64().unwrap()).unwrap()
}

/// A body in the Confluent wire format.
pub(crate) fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

/// The example of a record type as Avro, after a change.
pub(crate) fn encoded(path: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let read = |end: &str| {
        let file = format!("{}/../schemas/{path}/{end}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let mut example = serde_json::from_str(&read("v1.example.json")).unwrap();
    change(&mut example);
    json_to_avro(&parse(&read("v1.avsc")).unwrap(), &example).unwrap()
}

/// A record of a topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl TopicRecord {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// All committed records of a topic.
pub(crate) fn read_all(bootstrap: &str, topic: &str) -> Vec<TopicRecord> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "nobody");
    config.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let patience = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(Some(topic), patience).unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut found, mut ends) = (Vec::new(), 0);
    while ends < assignment.count() {
        match consumer.poll(patience).unwrap_or_else(|| panic!("the end of {topic} is not reached")) {
            Ok(message) => found.push(TopicRecord {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message
                    .headers()
                    .into_iter()
                    .flat_map(|headers| headers.iter())
                    .map(|header| {
                        (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
                    })
                    .collect(),
            }),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ends += 1,
            Err(error) => panic!("{topic}: {error}"),
        }
    }
    found
}
