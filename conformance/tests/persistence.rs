//! The embedded broker and registry keep their data across restarts, also on another port.

use std::path::Path;
use std::time::Duration;

use embedded::broker::{Broker, BrokerConfig};
use embedded::registry::{Level, Registry, RegistryConfig};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);
const TOPIC: &str = "kept";

fn broker(directory: &Path) -> Broker {
    Broker::start(BrokerConfig { data_dir: Some(directory.to_owned()), ..BrokerConfig::default() })
        .expect("the broker starts")
}

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap()).set("allow.auto.create.topics", "false");
    config
}

fn transactional(broker: &Broker) -> BaseProducer {
    let producer: BaseProducer = config(broker)
        .set("transactional.id", "keeper")
        .set("transaction.timeout.ms", "60000")
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    producer.init_transactions(TIMEOUT).expect("init transactions");
    producer
}

fn write(producer: &BaseProducer, values: &[&str]) {
    for value in values {
        producer.send(BaseRecord::<str, str>::to(TOPIC).partition(0).payload(value)).expect("queued");
    }
    producer.flush(TIMEOUT).expect("delivered");
}

fn consumer(broker: &Broker, isolation: &str) -> BaseConsumer {
    config(broker)
        .set("group.id", "readers")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()
        .expect("a consumer")
}

fn offset_list(offset: i64) -> TopicPartitionList {
    let mut offset_list = TopicPartitionList::new();
    offset_list.add_partition_offset(TOPIC, 0, Offset::Offset(offset)).expect("an offset");
    offset_list
}

fn read(broker: &Broker, isolation: &str) -> Vec<String> {
    let consumer = consumer(broker, isolation);
    consumer.assign(&offset_list(0)).expect("assigned");
    let mut values = Vec::new();
    loop {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => values.push(String::from_utf8_lossy(message.payload().expect("a value")).into_owned()),
            Some(Err(KafkaError::PartitionEOF(_))) => return values,
            other => panic!("after {values:?}: {other:?}"),
        }
    }
}

async fn create_topic(broker: &Broker) {
    let admin: AdminClient<DefaultClientContext> = config(broker).create().expect("an admin client");
    let topic =
        NewTopic::new(TOPIC, 2, TopicReplication::Fixed(1)).set("retention.ms", "-1").set("max.message.bytes", "54321");
    let results = admin.create_topics([&topic], &AdminOptions::new()).await.expect("a response");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

async fn topic_config(broker: &Broker, name: &str) -> Option<String> {
    let admin: AdminClient<DefaultClientContext> = config(broker).create().expect("an admin client");
    let results =
        admin.describe_configs([&ResourceSpecifier::Topic(TOPIC)], &AdminOptions::new()).await.expect("a response");
    results.into_iter().next()?.ok()?.get(name)?.value.clone()
}

/// Writes records, an aborted and an open transaction, committed offsets and configs.
async fn fill(broker: &Broker) -> BaseProducer {
    create_topic(broker).await;
    let producer = transactional(broker);
    for (values, commit) in [(["a", "b"], true), (["x", "y"], false), (["c", "d"], true)] {
        producer.begin_transaction().expect("begun");
        write(&producer, &values);
        if commit {
            producer.commit_transaction(TIMEOUT).expect("committed");
        } else {
            producer.abort_transaction(TIMEOUT).expect("aborted");
        }
    }
    consumer(broker, "read_committed").commit(&offset_list(4), CommitMode::Sync).expect("offsets committed");
    producer.begin_transaction().expect("begun");
    write(&producer, &["open"]);
    producer
}

async fn ensure_everything_survived(broker: &Broker) {
    assert_eq!(topic_config(broker, "max.message.bytes").await.as_deref(), Some("54321"));
    // The open transaction is still open: its records exist and are hidden.
    assert_eq!(read(broker, "read_committed"), ["a", "b", "c", "d"]);
    assert_eq!(read(broker, "read_uncommitted"), ["a", "b", "x", "y", "c", "d", "open"]);
    let stable = consumer(broker, "read_committed").fetch_watermarks(TOPIC, 0, TIMEOUT).expect("watermarks");
    assert_eq!(stable, (0, 9), "three transactions of two records and a marker are stable, the open one is not");
    let committed = consumer(broker, "read_committed").committed_offsets(offset_list(0), TIMEOUT).expect("offsets");
    assert_eq!(committed.find_partition(TOPIC, 0).expect("the partition").offset(), Offset::Offset(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_transactions_offsets_and_configs_survive_a_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = broker(directory.path());
    let producer = fill(&first).await;
    drop(producer);
    first.stop().await;

    let second = broker(directory.path());
    ensure_everything_survived(&second).await;
    // The next producer with the transactional id aborts the open transaction and continues.
    let producer = transactional(&second);
    assert_eq!(read(&second, "read_committed"), ["a", "b", "c", "d"]);
    producer.begin_transaction().expect("begun");
    write(&producer, &["e"]);
    producer.commit_transaction(TIMEOUT).expect("committed");
    assert_eq!(read(&second, "read_committed"), ["a", "b", "c", "d", "e"]);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_broker_that_is_dropped_without_a_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = broker(directory.path());
    let producer = fill(&first).await;
    drop(first);
    drop(producer);
    let second = broker(directory.path());
    ensure_everything_survived(&second).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_and_levels_survive_a_stop_of_the_registry() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || {
        Registry::start(RegistryConfig {
            data_dir: Some(directory.path().to_owned()),
            listen: ([127, 0, 0, 1], 0).into(),
            default_level: Level::FullTransitive,
            fsync: false,
        })
    };
    let client = reqwest::Client::new();
    let body = r#"{"schema":"{\"type\":\"record\",\"name\":\"A\",\"fields\":[]}"}"#;
    let first = start().await.expect("the registry starts");
    let register = |address: String| client.post(format!("{address}/subjects/A/versions")).body(body).send();
    let id = register(first.url()).await.expect("sent").text().await.expect("an id");
    let level = client.put(format!("{}/config/A", first.url())).body(r#"{"compatibility":"NONE"}"#).send().await;
    assert!(level.expect("sent").status().is_success());
    first.stop().await;

    let second = start().await.expect("the registry starts again");
    let config = client.get(format!("{}/config/A", second.url())).send().await.expect("sent").text().await;
    assert!(config.expect("a level").contains("NONE"));
    assert_eq!(register(second.url()).await.expect("sent").text().await.expect("an id"), id);
    second.stop().await;
}
