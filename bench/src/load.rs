//! Inputs at a steady rate, and a reader of what is decided about them.
//!
//! The clock is that of the intended send: an input that could not be sent in time has waited from the moment it was due, so a stall
//! is counted against everything that it held up.

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
    meter::{Source, Ticked},
    stage::{PARTITIONS, Stage},
};

/// How long an ordinary event is, in bytes of its body.
const PADDING: usize = 230;

/// The bench's clock: microseconds since it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_us(self) -> i64 {
        i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn rest_until(self, at_us: i64) {
        let left = u64::try_from(at_us - self.now_us()).unwrap_or(0);
        if left > 0 {
            std::thread::park_timeout(Duration::from_micros(left));
        }
    }
}

/// Whose input the `number`th is.
pub(crate) type KeyOf = fn(u64) -> String;

/// Sends `rate` inputs a second for a while. Blocks.
pub(crate) fn send(
    stage: &Stage,
    to: &str,
    clock: Clock,
    (rate, seconds): (u64, u64),
    key_of: KeyOf,
) -> anyhow::Result<()> {
    let producer = producer(stage)?;
    let begin_us = clock.now_us();
    for number in 0..rate * seconds {
        let intended_us = begin_us + i64::try_from(number * 1_000_000 / rate)?;
        clock.rest_until(intended_us);
        tick(stage, &producer, to, &key_of(number), intended_us)?;
    }
    Ok(producer.flush(Duration::from_secs(30))?)
}

pub(crate) fn producer(stage: &Stage) -> anyhow::Result<ThreadedProducer<DefaultProducerContext>> {
    let mut config = stage.client();
    config.set("linger.ms", "0").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
    config.set("queue.buffering.max.messages", "1000000");
    Ok(config.create()?)
}

/// Sends one input.
pub(crate) fn tick(
    stage: &Stage,
    producer: &ThreadedProducer<DefaultProducerContext>,
    to: &str,
    key: &str,
    intended_us: i64,
) -> anyhow::Result<()> {
    let mut value = Vec::with_capacity(300);
    let body = Source::from(Ticked { intended_us, padding: "x".repeat(PADDING) });
    let name = Arc::clone(stage.writers.encode(&body, &mut value)?);
    let id = derived_id(&["tick", key, &intended_us.to_string()]);
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

/// One decision that became visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) key: String,
    pub(crate) partition: i32,
    pub(crate) intended_us: i64,
    pub(crate) seen_us: i64,
}

/// Reads what is decided, from where the topic ends now, on a thread of its own. There is room for so many that nobody has taken
/// yet; with less than come, taking them late would show as latency.
pub(crate) struct Watch {
    /// Goes first: a reader without room would never see that it is to stop.
    pub(crate) seen: Receiver<Seen>,
    _reader: Reader,
}

struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(stage: &Stage, of: &str, clock: Clock, room: usize) -> anyhow::Result<Self> {
        let mut config: ClientConfig = stage.client();
        config
            .set("group.id", "bench-watch")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            // The end as it is now: a reader that starts at "the end" finds out later where that is.
            let end = end_of(&consumer, of, partition)?;
            all.add_partition_offset(of, partition, Offset::Offset(end))?;
        }
        consumer.assign(&all)?;
        let (tell, seen) = mpsc::sync_channel(room);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Acquire) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
                let Some(intended_us) = message.payload().and_then(intended_of) else { continue };
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let seen = Seen { key, partition: message.partition(), intended_us, seen_us: clock.now_us() };
                if tell.send(seen).is_err() {
                    return;
                }
            }
        });
        Ok(Self { seen, _reader: Reader { stop, thread: Some(thread) } })
    }

    /// Everything up to `count` decisions, or what came until nothing more does for a while.
    pub(crate) fn take(&self, count: usize, patience: Duration) -> Vec<Seen> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            match self.seen.recv_timeout(patience) {
                Ok(seen) => taken.push(seen),
                Err(_) => break,
            }
        }
        taken
    }
}

/// Where a partition ends. A topic that has just been made may have no leader that knows of it yet.
fn end_of(consumer: &BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<i64> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let until = Instant::now() + PATIENCE;
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok((_, end)) => return Ok(end),
            Err(_) if Instant::now() < until => std::thread::park_timeout(Duration::from_millis(100)),
            Err(error) => return Err(error).with_context(|| format!("cannot ask for the end of {topic}/{partition}")),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the reader of decisions has panicked");
        }
    }
}

/// The first field of both records' bodies, behind the frame: Avro's zigzag varint.
fn intended_of(value: &[u8]) -> Option<i64> {
    let mut number: u64 = 0;
    for (at, byte) in value.get(5..)?.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return i64::try_from(number >> 1).ok().map(|half| if number & 1 == 0 { half } else { -half - 1 });
        }
    }
    None
}

/// The topic that the measured service hears.
pub(crate) fn inputs(stage: &Stage) -> String {
    topic(&stage.config.system, "source", Channel::Events)
}

/// The topic that it says things on.
pub(crate) fn decisions(stage: &Stage) -> String {
    topic(&stage.config.system, "meter", Channel::Events)
}

/// How long things took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<i64>);

impl Times {
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

pub(crate) fn head(unit: &str) -> String {
    format!("{unit:<34} {:>8} {:>9} {:>9} {:>9} {:>9}", "count", "p50", "p99", "p99.9", "max")
}

/// Times per key class.
pub(crate) fn by<K: Ord>(seen: &[Seen], from_us: i64, class: impl Fn(&Seen) -> K) -> BTreeMap<K, Times> {
    let mut classes: BTreeMap<K, Vec<i64>> = BTreeMap::new();
    for seen in seen.iter().filter(|seen| seen.intended_us >= from_us) {
        classes.entry(class(seen)).or_default().push(seen.seen_us - seen.intended_us);
    }
    classes.into_iter().map(|(class, times)| (class, Times::of(times))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_is_read_behind_the_frame() {
        let framed = |body: &[u8]| [&[0, 0, 0, 0, 9][..], body].concat();
        assert_eq!(intended_of(&framed(&[0x02])), Some(1));
        assert_eq!(intended_of(&framed(&[0x01])), Some(-1));
        assert_eq!(intended_of(&framed(&[0xd8, 0x04, 0xff])), Some(300));
        assert_eq!(intended_of(&framed(&[0x80])), None);
        assert_eq!(intended_of(&[0, 0]), None);
    }

    #[test]
    fn a_row_tells_the_shares_in_milliseconds() {
        let times = Times::of((1..=1_000).rev().map(|us| us * 10).collect());
        let row = times.row("x");
        let told: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(told, ["x", "1000", "5.01", "9.90", "9.99", "10.00"]);
        assert!(Times::default().row("none").contains(" 0 "));
    }
}
