//! Inputs at a constant rate, and a reader of the decisions.
//!
//! Latency starts at the scheduled send: an input that could not be sent in time counts from its scheduled time, so a stall adds to
//! the latency of every input it delayed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use runtime::{
    Channel, clock,
    envelope::{Envelope, derived_id},
    message::topic,
};

use crate::{
    environment::{BenchEnvironment, PARTITIONS},
    meter::{SourceEvent, Ticked},
};

/// Makes the body as long as that of an ordinary event, in bytes.
const PADDING: usize = 230;

/// The bench's clock: microseconds since its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BenchClock(Instant);

impl BenchClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_us(self) -> i64 {
        i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn sleep_until(self, at_us: i64) {
        let left = u64::try_from(at_us - self.now_us()).unwrap_or(0);
        if left > 0 {
            std::thread::park_timeout(Duration::from_micros(left));
        }
    }
}

/// The key of the input with this number.
pub(crate) type KeyFunction = fn(u64) -> String;

/// Sends `rate` inputs per second for `seconds`. Blocks.
pub(crate) fn send_inputs(
    environment: &BenchEnvironment,
    to: &str,
    clock: BenchClock,
    (rate, seconds): (u64, u64),
    key_of: KeyFunction,
) -> anyhow::Result<()> {
    let producer = producer(environment)?;
    let begin_us = clock.now_us();
    for number in 0..rate * seconds {
        let scheduled_us = begin_us + i64::try_from(number * 1_000_000 / rate)?;
        clock.sleep_until(scheduled_us);
        send_input(environment, &producer, to, &key_of(number), scheduled_us)?;
    }
    Ok(producer.flush(Duration::from_secs(30))?)
}

pub(crate) fn producer(environment: &BenchEnvironment) -> anyhow::Result<ThreadedProducer<DefaultProducerContext>> {
    let mut config = environment.client();
    config.set("linger.ms", "0").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
    config.set("queue.buffering.max.messages", "1000000");
    Ok(config.create()?)
}

/// Sends one input.
pub(crate) fn send_input(
    environment: &BenchEnvironment,
    producer: &ThreadedProducer<DefaultProducerContext>,
    to: &str,
    key: &str,
    scheduled_us: i64,
) -> anyhow::Result<()> {
    let mut value = Vec::with_capacity(300);
    let body = SourceEvent::from(Ticked { intended_us: scheduled_us, padding: "x".repeat(PADDING) });
    let name = Arc::clone(environment.writers.encode(&body, &mut value)?);
    let id = derived_id(&["tick", key, &scheduled_us.to_string()]);
    let envelope = Envelope::new(id, "/bench/source", name, clock::now_ms()).about(key);
    let mut record =
        BaseRecord::to(to).key(key).payload(&value).headers(runtime::kafka::headers::to_headers(&envelope));
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((error, back)) if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull) => {
                record = back;
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error).context("cannot send an input"),
        }
    }
}

/// One visible decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VisibleDecision {
    pub(crate) key: String,
    pub(crate) partition: i32,
    pub(crate) scheduled_us: i64,
    pub(crate) visible_us: i64,
}

/// Reads decisions from the topic's current end on its own thread. Its channel must have room for every decision that is not taken
/// yet, else a full channel adds latency.
pub(crate) struct DecisionReader {
    /// Dropped before the thread: a reader that waits for room in the channel would never see the stop flag.
    pub(crate) decisions: Receiver<VisibleDecision>,
    _reader: ReaderThread,
}

struct ReaderThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DecisionReader {
    pub(crate) fn start(
        environment: &BenchEnvironment,
        of: &str,
        clock: BenchClock,
        room: usize,
    ) -> anyhow::Result<Self> {
        let mut config: ClientConfig = environment.client();
        config
            .set("group.id", "bench-watch")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            // The current end: a reader that starts at `Offset::End` resolves it later.
            let end = end_of(&consumer, of, partition)?;
            all.add_partition_offset(of, partition, Offset::Offset(end))?;
        }
        consumer.assign(&all)?;
        let (sender, decisions) = mpsc::sync_channel(room);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
                let Some(scheduled_us) = message.payload().and_then(scheduled_us_of) else { continue };
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let decision =
                    VisibleDecision { key, partition: message.partition(), scheduled_us, visible_us: clock.now_us() };
                if sender.send(decision).is_err() {
                    return;
                }
            }
        });
        Ok(Self { decisions, _reader: ReaderThread { stop, thread: Some(thread) } })
    }

    /// Takes `count` decisions, or fewer if none arrives for `timeout`.
    pub(crate) fn take(&self, count: usize, timeout: Duration) -> Vec<VisibleDecision> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            match self.decisions.recv_timeout(timeout) {
                Ok(decision) => taken.push(decision),
                Err(_) => break,
            }
        }
        taken
    }
}

/// The end of a partition. A new topic may not have a leader yet.
fn end_of(consumer: &BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<i64> {
    const TIMEOUT: Duration = Duration::from_secs(30);
    let until = Instant::now() + TIMEOUT;
    loop {
        match consumer.fetch_watermarks(topic, partition, TIMEOUT) {
            Ok((_, end)) => return Ok(end),
            Err(_) if Instant::now() < until => std::thread::park_timeout(Duration::from_millis(100)),
            Err(error) => return Err(error).with_context(|| format!("cannot ask for the end of {topic}/{partition}")),
        }
    }
}

impl Drop for ReaderThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the reader of decisions has panicked");
        }
    }
}

/// The first field of both records' bodies, after the wire format's prefix: Avro's zigzag varint.
fn scheduled_us_of(value: &[u8]) -> Option<i64> {
    let mut number: u64 = 0;
    for (at, byte) in value.get(5..)?.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return i64::try_from(number >> 1).ok().map(|half| if number & 1 == 0 { half } else { -half - 1 });
        }
    }
    None
}

/// The topic that the measured service consumes.
pub(crate) fn inputs(environment: &BenchEnvironment) -> String {
    topic(&environment.config.system, "source", Channel::Events)
}

/// The topic that it produces to.
pub(crate) fn decisions(environment: &BenchEnvironment) -> String {
    topic(&environment.config.system, "meter", Channel::Events)
}

/// Sorted latencies in microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(Vec<i64>);

impl Latencies {
    pub(crate) fn of(mut times_us: Vec<i64>) -> Self {
        times_us.sort_unstable();
        Self(times_us)
    }

    fn at(&self, share: f64) -> f64 {
        // A share of a count of measurements; both are far below where a float loses whole numbers.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the count")]
        let index = ((self.0.len().saturating_sub(1)) as f64 * share).round() as usize;
        self.0.get(index).map_or(0.0, |us| *us as f64 / 1_000.0)
    }

    /// One row of the report, in milliseconds.
    pub(crate) fn row(&self, what: &str) -> String {
        let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|share| self.at(share));
        format!("{what:<34} {:>8} {p50:>9.2} {p99:>9.2} {p999:>9.2} {most:>9.2}", self.0.len())
    }
}

pub(crate) fn header(unit: &str) -> String {
    format!("{unit:<34} {:>8} {:>9} {:>9} {:>9} {:>9}", "count", "p50", "p99", "p99.9", "max")
}

/// Latencies by class.
pub(crate) fn latencies_by<K: Ord>(
    decisions: &[VisibleDecision],
    from_us: i64,
    class: impl Fn(&VisibleDecision) -> K,
) -> BTreeMap<K, Latencies> {
    let mut classes: BTreeMap<K, Vec<i64>> = BTreeMap::new();
    for decision in decisions.iter().filter(|decision| decision.scheduled_us >= from_us) {
        classes.entry(class(decision)).or_default().push(decision.visible_us - decision.scheduled_us);
    }
    classes.into_iter().map(|(class, latencies)| (class, Latencies::of(latencies))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_is_read_after_the_prefix() {
        let framed = |body: &[u8]| [&[0, 0, 0, 0, 9][..], body].concat();
        assert_eq!(scheduled_us_of(&framed(&[0x02])), Some(1));
        assert_eq!(scheduled_us_of(&framed(&[0x01])), Some(-1));
        assert_eq!(scheduled_us_of(&framed(&[0xd8, 0x04, 0xff])), Some(300));
        assert_eq!(scheduled_us_of(&framed(&[0x80])), None);
        assert_eq!(scheduled_us_of(&[0, 0]), None);
    }

    #[test]
    fn a_row_lists_the_percentiles_in_milliseconds() {
        let times = Latencies::of((1..=1_000).rev().map(|us| us * 10).collect());
        let row = times.row("x");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["x", "1000", "5.01", "9.90", "9.99", "10.00"]);
        assert!(Latencies::default().row("none").contains(" 0 "));
    }
}
