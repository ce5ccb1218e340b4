//! Producers and readers for the checks.
//!
//! Every relevant librdkafka setting is explicit. Knows no check.

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

use crate::check::{CheckFailure, FailureContext};
use crate::context::{CheckContext, REQUEST_TIMEOUT};

pub(crate) type TestProducer = BaseProducer<DeliveryReports>;

/// Partition and offset of a delivered record, or the delivery error.
pub(crate) type DeliveryReport = Result<(i32, i64), KafkaError>;

/// The delivery reports by the number of the sent record.
#[derive(Default)]
pub(crate) struct DeliveryReports {
    sent: AtomicUsize,
    results: Mutex<BTreeMap<usize, DeliveryReport>>,
}

impl ClientContext for DeliveryReports {}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let report = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.results.lock().unwrap_or_else(PoisonError::into_inner).insert(number, report);
    }
}

/// A record to send; the client chooses every value that is `None`.
#[derive(Clone, Default)]
pub(crate) struct NewRecord<'a> {
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: Option<OwnedHeaders>,
}

/// Settings of a producer that neither loses nor duplicates records.
pub(crate) fn producer_config(cx: &CheckContext) -> ClientConfig {
    let mut config = cx.client_config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight", "5")
        .set("linger.ms", "5")
        .set("partitioner", "murmur2_random")
        // The suite must end; a service would retry for ever.
        .set("message.timeout.ms", "30000")
        .set("message.max.bytes", "4000000");
    config
}

pub(crate) fn producer(cx: &CheckContext, settings: &[(&str, &str)]) -> Result<TestProducer, CheckFailure> {
    let mut config = producer_config(cx);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create_with_context(DeliveryReports::default()).context("creating a producer")
}

/// A producer with initialized transactions.
pub(crate) fn transactional(
    cx: &CheckContext,
    id: &str,
    settings: &[(&str, &str)],
) -> Result<TestProducer, CheckFailure> {
    let mut all = vec![
        ("transactional.id", id),
        ("transaction.timeout.ms", "60000"),
        // After a commit the coordinator briefly returns CONCURRENT_TRANSACTIONS, and the default backoff is 100 ms.
        ("retry.backoff.ms", "2"),
    ];
    all.extend_from_slice(settings);
    let producer = producer(cx, &all)?;
    producer.init_transactions(REQUEST_TIMEOUT).context(format_args!("init transactions of {id}"))?;
    Ok(producer)
}

/// Queues a record without waiting for its delivery.
pub(crate) fn send(producer: &TestProducer, topic: &str, put: &NewRecord<'_>) -> Result<usize, CheckFailure> {
    let number = producer.context().sent.fetch_add(1, Ordering::Relaxed);
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        match producer.send(record(topic, put, number)) {
            Ok(()) => return Ok(number),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => return Err(CheckFailure(format!("sending to {topic}: {error}"))),
        }
    }
}

fn record<'a>(topic: &'a str, put: &NewRecord<'a>, number: usize) -> BaseRecord<'a, [u8], [u8], usize> {
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

/// Waits for the delivery of every sent record. Returns the delivery reports in the order of sending.
pub(crate) fn await_deliveries(producer: &TestProducer) -> Result<Vec<DeliveryReport>, CheckFailure> {
    // Not flush: it polls in steps of 100 ms, which would dominate checks that wait often.
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut left = producer.in_flight_count();
    while left > 0 {
        // One poll returns one report. It must not wait: librdkafka's timeouts have a resolution of milliseconds.
        producer.poll(Duration::ZERO);
        let remaining = producer.in_flight_count();
        if remaining == left {
            if Instant::now() >= deadline {
                return Err(CheckFailure(format!("{left} records undelivered")));
            }
            std::thread::park_timeout(Duration::from_micros(200));
        }
        left = remaining;
    }
    let results = std::mem::take(&mut *producer.context().results.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(results.into_values().collect())
}

/// Writes values to one partition and returns their offsets.
pub(crate) fn write<V: AsRef<[u8]>>(
    producer: &TestProducer,
    topic: &str,
    partition: i32,
    values: impl IntoIterator<Item = V>,
) -> Result<Vec<i64>, CheckFailure> {
    for value in values {
        let put = NewRecord { partition: Some(partition), value: Some(value.as_ref()), ..NewRecord::default() };
        send(producer, topic, &put)?;
    }
    let deliveries = await_deliveries(producer)?;
    deliveries
        .into_iter()
        .map(|report| report.map(|(_, offset)| offset).context(format_args!("writing {topic}")))
        .collect()
}

/// A record that a reader received.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReadRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: rdkafka::message::Timestamp,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl ReadRecord {
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

pub(crate) fn texts(records: &[ReadRecord]) -> Vec<String> {
    records.iter().map(ReadRecord::text).collect()
}

pub(crate) const COMMITTED: &str = "read_committed";
pub(crate) const UNCOMMITTED: &str = "read_uncommitted";

/// Settings of a consumer without automatic commits and offset resets.
pub(crate) fn consumer_config(cx: &CheckContext, group: &str) -> ClientConfig {
    let mut config = cx.client_config();
    config
        .set("group.id", group)
        .set("group.protocol", "classic")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An invalid position must be an error, not be reset.
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

pub(crate) fn consumer(
    cx: &CheckContext,
    group: &str,
    settings: &[(&str, &str)],
) -> Result<BaseConsumer, CheckFailure> {
    let mut config = consumer_config(cx, group);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().context("creating a consumer")
}

/// A reader of one partition. Its group has no members and no commits.
pub(crate) fn reader(
    cx: &CheckContext,
    topic: &str,
    partition: i32,
    isolation: &str,
    from: Offset,
) -> Result<BaseConsumer, CheckFailure> {
    let consumer = consumer(cx, &format!("{topic}-reader"), &[("isolation.level", isolation)])?;
    assign(&consumer, &[(topic, partition, from)])?;
    Ok(consumer)
}

pub(crate) fn offsets(positions: &[(&str, i32, Offset)]) -> Result<TopicPartitionList, CheckFailure> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in positions {
        list.add_partition_offset(topic, *partition, *offset).context("listing an offset")?;
    }
    Ok(list)
}

pub(crate) fn assign(consumer: &BaseConsumer, positions: &[(&str, i32, Offset)]) -> Result<(), CheckFailure> {
    consumer.assign(&offsets(positions)?).context("assigning partitions")
}

/// Reads until the reader of one partition reports the end of the partition.
pub(crate) fn read_to_end(consumer: &BaseConsumer) -> Result<Vec<ReadRecord>, CheckFailure> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut records = Vec::new();
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(ReadRecord::of(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
            Some(Err(error)) => return Err(CheckFailure(format!("reading after {} records: {error}", records.len()))),
            None => {}
        }
    }
    Err(CheckFailure(format!("no end of the partition after {} records", records.len())))
}

/// All records of one partition that are visible to a new reader.
pub(crate) fn read(
    cx: &CheckContext,
    topic: &str,
    partition: i32,
    isolation: &str,
) -> Result<Vec<ReadRecord>, CheckFailure> {
    read_to_end(&reader(cx, topic, partition, isolation, Offset::Beginning)?)
}

/// Reads `count` records from the assigned partitions.
pub(crate) fn read_count(
    consumer: &BaseConsumer,
    count: usize,
    limit: Duration,
) -> Result<Vec<ReadRecord>, CheckFailure> {
    let deadline = Instant::now() + limit;
    let mut records = Vec::new();
    while records.len() < count {
        if Instant::now() >= deadline {
            return Err(CheckFailure(format!(
                "only {} of {count} records within {} s",
                records.len(),
                limit.as_secs()
            )));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(ReadRecord::of(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(CheckFailure(format!("reading after {} records: {error}", records.len()))),
        }
    }
    Ok(records)
}

/// Polls until an error other than the end of a partition occurs, and returns it.
pub(crate) fn poll_for_error(consumer: &BaseConsumer, limit: Duration) -> Result<KafkaError, CheckFailure> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Ok(error),
            Some(Ok(message)) => {
                return Err(CheckFailure(format!("read offset {} instead of an error", message.offset())));
            }
        }
    }
    Err(CheckFailure(format!("no error within {} s", limit.as_secs())))
}

/// Low and high watermark at this isolation level.
pub(crate) fn watermarks(
    cx: &CheckContext,
    topic: &str,
    partition: i32,
    isolation: &str,
) -> Result<(i64, i64), CheckFailure> {
    let consumer = consumer(cx, &format!("{topic}-watermarks"), &[("isolation.level", isolation)])?;
    consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).context(format_args!("watermarks of {topic}"))
}

/// The consumer's position in a partition; `None` before its first read.
pub(crate) fn position(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<Option<i64>, CheckFailure> {
    let all = consumer.position().context("asking for the position")?;
    Ok(offset_in(&all, topic, partition))
}

/// The group's committed offset of a partition.
pub(crate) fn committed(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    limit: Duration,
) -> Result<Option<i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let response = consumer.committed_offsets(list, limit)?;
    if let Some(element) = response.find_partition(topic, partition) {
        element.error()?;
    }
    Ok(offset_in(&response, topic, partition))
}

fn offset_in(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}
