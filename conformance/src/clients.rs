//! Producers and readers for the checks: what was delivered where, what a reader sees up to the end of a partition.
//!
//! Every librdkafka setting that matters here is stated. Knows no check.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::check::{Doing, Failure};
use crate::context::{Context, PATIENCE};

pub(crate) type TestProducer = BaseProducer<Deliveries>;

/// Partition and offset of a delivered record.
pub(crate) type Delivery = Result<(i32, i64), KafkaError>;

/// Where each record went, by the number it was sent under.
#[derive(Default)]
pub(crate) struct Deliveries {
    sent: AtomicUsize,
    results: Mutex<BTreeMap<usize, Delivery>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let place = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.results.lock().unwrap_or_else(PoisonError::into_inner).insert(number, place);
    }
}

/// A record to send; everything not given is left to the client.
#[derive(Clone, Default)]
pub(crate) struct Put<'a> {
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: Option<OwnedHeaders>,
}

/// Settings of a producer that may lose nothing and double nothing.
pub(crate) fn producer_config(cx: &Context) -> ClientConfig {
    let mut config = cx.client_config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight", "5")
        .set("linger.ms", "5")
        .set("partitioner", "murmur2_random")
        // The suite must end: a service would wait for ever instead.
        .set("message.timeout.ms", "30000")
        .set("message.max.bytes", "4000000");
    config
}

pub(crate) fn producer(cx: &Context, settings: &[(&str, &str)]) -> Result<TestProducer, Failure> {
    let mut config = producer_config(cx);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create_with_context(Deliveries::default()).doing("creating a producer")
}

/// A producer whose transactions are open for business.
pub(crate) fn transactional(cx: &Context, id: &str, settings: &[(&str, &str)]) -> Result<TestProducer, Failure> {
    let mut all = vec![
        ("transactional.id", id),
        ("transaction.timeout.ms", "60000"),
        // After each commit the coordinator says "concurrent transactions" for a moment; the default sleeps 100 ms.
        ("retry.backoff.ms", "2"),
    ];
    all.extend_from_slice(settings);
    let producer = producer(cx, &all)?;
    producer.init_transactions(PATIENCE).doing(format_args!("init transactions of {id}"))?;
    Ok(producer)
}

/// Queues records without waiting for their delivery.
pub(crate) fn send(producer: &TestProducer, topic: &str, put: &Put<'_>) -> Result<usize, Failure> {
    let number = producer.context().sent.fetch_add(1, Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match producer.send(record(topic, put, number)) {
            Ok(()) => return Ok(number),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => return Err(Failure(format!("sending to {topic}: {error}"))),
        }
    }
}

fn record<'a>(topic: &'a str, put: &Put<'a>, number: usize) -> BaseRecord<'a, [u8], [u8], usize> {
    let mut record = BaseRecord::with_opaque_to(topic, number);
    if let Some(partition) = put.partition {
        record = record.partition(partition);
    }
    if let Some(key) = put.key {
        record = record.key(key);
    }
    if let Some(value) = put.value {
        record = record.payload(value);
    }
    if let Some(timestamp) = put.timestamp {
        record = record.timestamp(timestamp);
    }
    if let Some(headers) = put.headers.clone() {
        record = record.headers(headers);
    }
    record
}

/// Waits for everything sent and says where each record went, in the order of sending.
pub(crate) fn settle(producer: &TestProducer) -> Result<Vec<Delivery>, Failure> {
    // Not flush: it polls in slices of 100 ms, and a check that settles often would do nothing else.
    let deadline = Instant::now() + PATIENCE;
    let mut left = producer.in_flight_count();
    while left > 0 {
        // One poll takes one report. It does not wait: librdkafka counts in milliseconds, and a poll of one would spin through it.
        producer.poll(Duration::ZERO);
        let now_left = producer.in_flight_count();
        if now_left == left {
            if Instant::now() >= deadline {
                return Err(Failure(format!("{left} records undelivered")));
            }
            std::thread::park_timeout(Duration::from_micros(200));
        }
        left = now_left;
    }
    let results = std::mem::take(&mut *producer.context().results.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(results.into_values().collect())
}

/// Writes values to one partition and gives their offsets.
pub(crate) fn write<V: AsRef<[u8]>>(
    producer: &TestProducer,
    topic: &str,
    partition: i32,
    values: impl IntoIterator<Item = V>,
) -> Result<Vec<i64>, Failure> {
    for value in values {
        let put = Put { partition: Some(partition), value: Some(value.as_ref()), ..Put::default() };
        send(producer, topic, &put)?;
    }
    let settled = settle(producer)?;
    settled.into_iter().map(|place| place.map(|(_, offset)| offset).doing(format_args!("writing {topic}"))).collect()
}

/// What a reader got.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Got {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: rdkafka::message::Timestamp,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Got {
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

pub(crate) fn texts(got: &[Got]) -> Vec<String> {
    got.iter().map(Got::text).collect()
}

pub(crate) const COMMITTED: &str = "read_committed";
pub(crate) const UNCOMMITTED: &str = "read_uncommitted";

/// Settings of a consumer that commits only when told and starts only where told.
pub(crate) fn consumer_config(cx: &Context, group: &str) -> ClientConfig {
    let mut config = cx.client_config();
    config
        .set("group.id", group)
        .set("group.protocol", "classic")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that is not there must show, not be mended.
        .set("auto.offset.reset", "error")
        .set("isolation.level", COMMITTED)
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .set("max.poll.interval.ms", "60000")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "100");
    config
}

pub(crate) fn consumer(cx: &Context, group: &str, settings: &[(&str, &str)]) -> Result<BaseConsumer, Failure> {
    let mut config = consumer_config(cx, group);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().doing("creating a consumer")
}

/// A reader of one partition, in a group that never joins nor commits.
pub(crate) fn reader(
    cx: &Context,
    topic: &str,
    partition: i32,
    isolation: &str,
    from: Offset,
) -> Result<BaseConsumer, Failure> {
    let consumer = consumer(cx, &format!("{topic}-reader"), &[("isolation.level", isolation)])?;
    assign(&consumer, &[(topic, partition, from)])?;
    Ok(consumer)
}

pub(crate) fn offsets(places: &[(&str, i32, Offset)]) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in places {
        list.add_partition_offset(topic, *partition, *offset).doing("listing an offset")?;
    }
    Ok(list)
}

pub(crate) fn assign(consumer: &BaseConsumer, places: &[(&str, i32, Offset)]) -> Result<(), Failure> {
    consumer.assign(&offsets(places)?).doing("assigning partitions")
}

/// Reads on until the reader of one partition says that it is at the end.
pub(crate) fn read_to_end(consumer: &BaseConsumer) -> Result<Vec<Got>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut got = Vec::new();
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => got.push(Got::of(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(got),
            Some(Err(error)) => return Err(Failure(format!("reading after {} records: {error}", got.len()))),
            None => {}
        }
    }
    Err(Failure(format!("no end of the partition after {} records", got.len())))
}

/// All that a fresh reader sees of one partition.
pub(crate) fn read(cx: &Context, topic: &str, partition: i32, isolation: &str) -> Result<Vec<Got>, Failure> {
    read_to_end(&reader(cx, topic, partition, isolation, Offset::Beginning)?)
}

/// Reads until `count` records have come, from whatever is assigned.
pub(crate) fn read_count(consumer: &BaseConsumer, count: usize, limit: Duration) -> Result<Vec<Got>, Failure> {
    let deadline = Instant::now() + limit;
    let mut got = Vec::new();
    while got.len() < count {
        if Instant::now() >= deadline {
            return Err(Failure(format!("only {} of {count} records within {} s", got.len(), limit.as_secs())));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => got.push(Got::of(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(Failure(format!("reading after {} records: {error}", got.len()))),
        }
    }
    Ok(got)
}

/// Polls until an error other than an end of partition comes, and gives it.
pub(crate) fn poll_for_error(consumer: &BaseConsumer, limit: Duration) -> Result<KafkaError, Failure> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Ok(error),
            Some(Ok(message)) => {
                return Err(Failure(format!("read offset {} where an error was due", message.offset())));
            }
        }
    }
    Err(Failure(format!("no error within {} s", limit.as_secs())))
}

/// Low and high watermark as this isolation level sees them.
pub(crate) fn watermarks(cx: &Context, topic: &str, partition: i32, isolation: &str) -> Result<(i64, i64), Failure> {
    let consumer = consumer(cx, &format!("{topic}-watermarks"), &[("isolation.level", isolation)])?;
    consumer.fetch_watermarks(topic, partition, PATIENCE).doing(format_args!("watermarks of {topic}"))
}

/// Where the consumer stands in a partition; none before it has read anything.
pub(crate) fn position(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<Option<i64>, Failure> {
    let all = consumer.position().doing("asking for the position")?;
    Ok(offset_in(&all, topic, partition))
}

/// What the group has committed for a partition.
pub(crate) fn committed(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    limit: Duration,
) -> Result<Option<i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let answer = consumer.committed_offsets(list, limit)?;
    if let Some(element) = answer.find_partition(topic, partition) {
        element.error()?;
    }
    Ok(offset_in(&answer, topic, partition))
}

fn offset_in(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}
