//! Measures the broker's throughput: `cargo run --release -p dacapo-embedded --example measure [BOOTSTRAP]`.
//!
//! Without an address it starts its own broker. It prints messages per second, and percentiles of the duration of a transaction
//! that writes one record to each of eight partitions and the offsets of one group.

use anyhow::{Context, Result};
use embedded::broker::{Broker, BrokerConfig};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

const MESSAGES: usize = 1_000_000;
const MESSAGE_BYTES: usize = 300;
const PARTITIONS: i32 = 8;
const TRANSACTIONS: usize = 2_000;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A delivery callback that does nothing: without one librdkafka flushes in steps of ten milliseconds.
struct IgnoreDeliveries;

impl ClientContext for IgnoreDeliveries {}

impl ProducerContext for IgnoreDeliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are the output of this program")]
async fn main() -> Result<()> {
    let (broker, bootstrap) = match std::env::args().nth(1) {
        Some(bootstrap) => (None, bootstrap),
        None => {
            let broker = Broker::start(BrokerConfig::default())?;
            let bootstrap = broker.bootstrap();
            (Some(broker), bootstrap)
        }
    };
    let topic = format!("measure-{}", std::process::id());
    let admin: AdminClient<DefaultClientContext> = client(&bootstrap).create()?;
    let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await?;
    for idempotent in ["false", "true"] {
        let rate = produce(&bootstrap, &topic, idempotent)?;
        println!("produce, {MESSAGE_BYTES} bytes, idempotence {idempotent}: {rate:.0} messages/s");
    }
    println!("consume: {:.0} messages/s", consume(&bootstrap, &topic)?);
    let mut took = transactions(&bootstrap, &topic)?;
    took.sort_unstable();
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!("transaction over {PARTITIONS} partitions: p50 {:?}, p99 {:?}", percentile(50), percentile(99));
    if let Some(broker) = broker {
        broker.stop().await;
    }
    Ok(())
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn produce(bootstrap: &str, topic: &str, idempotent: &str) -> Result<f64> {
    let producer: BaseProducer<IgnoreDeliveries> = client(bootstrap)
        .set("enable.idempotence", idempotent)
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(IgnoreDeliveries)?;
    let payload = vec![b'x'; MESSAGE_BYTES];
    let started = Instant::now();
    for number in 0..MESSAGES {
        let partition = i32::try_from(number)? % PARTITIONS;
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            anyhow::ensure!(error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "{error}");
            producer.poll(Duration::from_millis(1));
            record = back;
        }
    }
    producer.flush(TIMEOUT)?;
    Ok(rate(MESSAGES, started.elapsed()))
}

fn consume(bootstrap: &str, topic: &str) -> Result<f64> {
    let consumer: BaseConsumer =
        client(bootstrap).set("group.id", "measure").set("enable.auto.commit", "false").create()?;
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        offsets.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&offsets)?;
    let started = Instant::now();
    for _ in 0..2 * MESSAGES {
        consumer.poll(TIMEOUT).context("no message in time")??;
    }
    Ok(rate(2 * MESSAGES, started.elapsed()))
}

fn transactions(bootstrap: &str, topic: &str) -> Result<Vec<Duration>> {
    let producer: BaseProducer<IgnoreDeliveries> = client(bootstrap)
        .set("transactional.id", "measure")
        .set("linger.ms", "0")
        .set("retry.backoff.ms", "2")
        .create_with_context(IgnoreDeliveries)?;
    producer.init_transactions(TIMEOUT)?;
    let consumer: BaseConsumer = client(bootstrap).set("group.id", "measure-transactions").create()?;
    let metadata = consumer.group_metadata().context("the consumer has no group")?;
    let payload = vec![b'x'; MESSAGE_BYTES];
    let mut took = Vec::with_capacity(TRANSACTIONS);
    for number in 0..TRANSACTIONS {
        let started = Instant::now();
        producer.begin_transaction()?;
        for partition in 0..PARTITIONS {
            let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(&payload);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, 0, Offset::Offset(i64::try_from(number)?))?;
        // A commit waits for records in flight in steps of a hundred milliseconds.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        producer.send_offsets_to_transaction(&offsets, &metadata, TIMEOUT)?;
        producer.commit_transaction(TIMEOUT)?;
        took.push(started.elapsed());
    }
    Ok(took)
}

fn rate(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
