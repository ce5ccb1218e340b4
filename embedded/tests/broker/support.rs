//! Shared helpers: one broker for each test, and clients that wait for conditions with a deadline.

use embedded::broker::{Broker, BrokerConfig};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, DeliveryResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest wait for any condition or request.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn start() -> Broker {
    Broker::start(BrokerConfig::default()).unwrap()
}

pub(crate) fn start_in(dir: &Path) -> Broker {
    Broker::start(config_in(dir)).unwrap()
}

pub(crate) fn config_in(dir: &Path) -> BrokerConfig {
    BrokerConfig { data_dir: Some(dir.to_path_buf()), ..BrokerConfig::default() }
}

pub(crate) fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap()).set("client.id", "test");
    config
}

pub(crate) fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    client(broker).create().unwrap()
}

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

pub(crate) fn create_topic(broker: &Broker, name: &str, partitions: i32) {
    create_topic_with(broker, name, partitions, &[]);
}

pub(crate) fn create_topic_with(broker: &Broker, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let topic = settings
        .iter()
        .fold(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| topic.set(key, value));
    let results = block_on(admin(broker).create_topics([&topic], &options())).unwrap();
    results[0].as_ref().unwrap();
}

/// Collects the offset of each delivered record, or the delivery error.
#[derive(Clone, Default)]
pub(crate) struct DeliveryReports(pub(crate) Arc<Mutex<Vec<Result<i64, String>>>>);

impl ClientContext for DeliveryReports {}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.lock().unwrap().push(outcome);
    }
}

pub(crate) fn producer(broker: &Broker, settings: &[(&str, &str)]) -> BaseProducer<DeliveryReports> {
    let mut config = client(broker);
    config.set("linger.ms", "0").set("enable.idempotence", "true");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create_with_context(DeliveryReports::default()).unwrap()
}

pub(crate) fn transactional(broker: &Broker, id: &str) -> BaseProducer<DeliveryReports> {
    let producer =
        producer(broker, &[("transactional.id", id), ("transaction.timeout.ms", "10000"), ("retry.backoff.ms", "2")]);
    producer.init_transactions(TIMEOUT).unwrap();
    producer
}

pub(crate) fn send(
    producer: &BaseProducer<DeliveryReports>,
    topic: &str,
    partition: i32,
    values: impl IntoIterator<Item = String>,
) {
    for value in values {
        let record = BaseRecord::to(topic).partition(partition).key("k").payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

pub(crate) fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| n.to_string())
}

/// A consumer without group membership, at the beginning of one partition.
pub(crate) fn reader(broker: &Broker, topic: &str, partition: i32, isolation: &str) -> BaseConsumer {
    let consumer: BaseConsumer = client(broker)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&offsets).unwrap();
    consumer
}

pub(crate) fn value_of(message: &BorrowedMessage<'_>) -> String {
    String::from_utf8(message.payload().unwrap_or_default().to_vec()).unwrap()
}

/// All values up to the current end of the partition at this isolation level.
pub(crate) fn read_all(broker: &Broker, topic: &str, partition: i32, isolation: &str) -> Vec<String> {
    let consumer = reader(broker, topic, partition, isolation);
    let deadline = Instant::now() + TIMEOUT;
    let mut values = Vec::new();
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => values.push(value_of(&message)),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return values,
            Some(Err(error)) => panic!("cannot read {topic}/{partition}: {error}"),
            None => {}
        }
    }
    panic!("no end of {topic}/{partition} within {TIMEOUT:?}");
}

/// Repeats the check until it succeeds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        std::thread::yield_now();
    }
}
