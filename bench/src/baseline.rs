//! The baseline: the shortest correct loop that reads, writes and commits offsets in transactions. It has no state and decodes
//! nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::environment::BenchEnvironment;

const TIMEOUT: Duration = Duration::from_secs(30);
const BATCH: usize = 1_000;

/// The loop and its thread.
pub(crate) struct BaselineLoop {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl BaselineLoop {
    pub(crate) fn start(environment: &BenchEnvironment) -> anyhow::Result<Self> {
        let mut config = environment.client();
        config.set("group.id", environment.baseline_name("baseline")).set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create()?;
        let input = environment.baseline_name("baseline.in");
        consumer.subscribe(&[&input])?;
        let mut config = environment.client();
        config
            .set("transactional.id", environment.baseline_name("baseline"))
            .set("linger.ms", "0")
            .set("retry.backoff.ms", "2");
        let producer: BaseProducer = config.create()?;
        producer.init_transactions(TIMEOUT)?;
        let (stop, output) = (Arc::new(AtomicBool::new(false)), environment.baseline_name("baseline.out"));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                forward_batch(&consumer, &producer, (&input, &output))?;
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().ok().context("the baseline has panicked")?
    }
}

/// Forwards the available records in one transaction.
fn forward_batch(
    consumer: &BaseConsumer,
    producer: &BaseProducer,
    (input, output): (&str, &str),
) -> anyhow::Result<()> {
    let Some(first) = consumer.poll(Duration::from_millis(50)) else { return Ok(()) };
    let group = consumer.group_metadata().context("the baseline has no group")?;
    producer.begin_transaction()?;
    let (mut offsets, mut next, mut taken) = (TopicPartitionList::new(), Some(first), 0);
    let mut ends = std::collections::BTreeMap::new();
    while let Some(message) = next {
        let message = message?;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(output).partition(message.partition());
        (record.key, record.payload) = (message.key(), message.payload());
        producer.send(record).map_err(|(error, _)| error)?;
        ends.insert(message.partition(), message.offset() + 1);
        taken += 1;
        next = if taken < BATCH { consumer.poll(Duration::ZERO) } else { None };
    }
    for (partition, end) in ends {
        offsets.add_partition_offset(input, partition, Offset::Offset(end))?;
    }
    producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?;
    // librdkafka's own flush polls in steps of 100 ms.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        std::thread::park_timeout(Duration::from_micros(100));
    }
    Ok(producer.commit_transaction(TIMEOUT)?)
}
