//! What is measured against: the shortest honest loop that reads, writes and commits offsets in transactions, without state, without
//! Avro, without looking at what it reads.

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

use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(30);
const BATCH: usize = 1_000;

/// The loop on its thread.
pub(crate) struct Raw {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Raw {
    pub(crate) fn start(stage: &Stage) -> anyhow::Result<Self> {
        let mut config = stage.client();
        config.set("group.id", stage.raw("raw")).set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create()?;
        let input = stage.raw("raw.in");
        consumer.subscribe(&[&input])?;
        let mut config = stage.client();
        config.set("transactional.id", stage.raw("raw")).set("linger.ms", "0").set("retry.backoff.ms", "2");
        let producer: BaseProducer = config.create()?;
        producer.init_transactions(PATIENCE)?;
        let (stop, output) = (Arc::new(AtomicBool::new(false)), stage.raw("raw.out"));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Acquire) {
                turn(&consumer, &producer, (&input, &output))?;
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().ok().context("the raw loop has panicked")?
    }
}

/// Takes what is there, and hands it on in one transaction.
fn turn(consumer: &BaseConsumer, producer: &BaseProducer, (input, output): (&str, &str)) -> anyhow::Result<()> {
    let Some(first) = consumer.poll(Duration::from_millis(50)) else { return Ok(()) };
    let group = consumer.group_metadata().context("the raw loop is in no group")?;
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
    producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)?;
    // librdkafka's own flush polls in slices of 100 ms.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        std::thread::park_timeout(Duration::from_micros(100));
    }
    Ok(producer.commit_transaction(PATIENCE)?)
}
