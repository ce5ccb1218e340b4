//! One batch, one transaction: events, commands and input positions become visible together, or not at all.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::KafkaError,
    producer::{BaseRecord, Producer},
    types::RDKafkaErrorCode,
};

use super::{
    history,
    member::{Told, Undelivered},
    transactor::{TransactionalProducer, Transactor},
};
use crate::{
    core::{Batch, Contract, Machine, Output, Target},
    decider::Decider,
    kafka::headers::of_output,
};

/// The shortest pause between two looks for deliveries. librdkafka's own flush would poll in slices of 100 ms.
const SLICE: Duration = Duration::from_micros(100);

/// A transaction that did not commit for certain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("cannot {step}")]
    Kafka { step: &'static str, source: Box<KafkaError> },
    #[error("a record for {} was not appended: {}", .0.topic, .0.error)]
    Delivery(Undelivered),
    #[error(
        "the own log {topic}/{partition} took an event at its offset {end}, but reached {known} before: it was made anew"
    )]
    Rewound { topic: String, partition: i32, end: i64, known: i64 },
    #[error("the records of a transaction were not acknowledged within {0:?}")]
    TooLate(Duration),
    #[error("a call about a transaction did not come back within {0:?}; its producer is left behind")]
    StaysAway(Duration),
    #[error("there is no thread to wait for transactions on")]
    Thread(#[source] std::io::Error),
}

impl CommitError {
    pub(crate) fn kafka(step: &'static str) -> impl Fn(KafkaError) -> Self {
        move |source| Self::Kafka { step, source: Box::new(source) }
    }

    /// True if another producer has this one's transactional id.
    pub(super) fn is_fenced(&self) -> bool {
        let Self::Kafka { .. } = self else { return false };
        matches!(
            self.code(),
            Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
        )
    }

    /// True if a topic takes less than it did when it was last asked.
    pub(super) fn is_too_large(&self) -> bool {
        self.code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
    }

    fn code(&self) -> Option<RDKafkaErrorCode> {
        match self {
            Self::Kafka { source, .. } => match source.as_ref() {
                KafkaError::Transaction(error) => Some(error.code()),
                other => other.rdkafka_error_code(),
            },
            Self::Delivery(undelivered) => undelivered.error.rdkafka_error_code(),
            Self::Rewound { .. } | Self::TooLate(_) | Self::StaysAway(_) | Self::Thread(_) => None,
        }
    }
}

/// Commits a batch. The group metadata must be of the moment at which the batch began: a later one would pass the fence for
/// partitions that were lost meanwhile.
pub(super) fn commit<D: Decider>(
    transactor: &Transactor,
    machine: &Machine<D>,
    group: &Arc<ConsumerGroupMetadata>,
    patience: Duration,
) -> Result<Told, CommitError> {
    let (contract, batch, deadline) = (machine.contract(), machine.batch(), Instant::now() + patience);
    let producer = transactor.producer();
    producer.begin_transaction().map_err(CommitError::kafka("begin a transaction"))?;
    for output in batch.outputs() {
        send(producer, contract, batch, output, deadline)?;
    }
    let offsets = offsets_of(machine).map_err(CommitError::kafka("list input positions"))?;
    let (topic, known) = (Arc::clone(&contract.events_topic), own_ends(machine));
    transactor.commit(offsets, Arc::clone(group), deadline, patience, move |told| goes_on(&topic, &known, told))
}

/// How far the own log is known to reach.
fn own_ends<D: Decider>(machine: &Machine<D>) -> BTreeMap<i32, i64> {
    machine.tasks().map(|task| (task.partition(), task.own_next())).collect()
}

/// What was appended to the own log lies behind what was there; else it is another log under the same name.
fn goes_on(topic: &str, known: &BTreeMap<i32, i64>, told: &Told) -> Result<(), CommitError> {
    for (partition, end) in &told.own_ends {
        let known = known.get(partition).copied().unwrap_or(0);
        if known > *end {
            return Err(CommitError::Rewound { topic: topic.to_owned(), partition: *partition, end: end - 1, known });
        }
    }
    Ok(())
}

fn send(
    producer: &TransactionalProducer,
    contract: &Contract,
    batch: &Batch,
    output: &Output,
    deadline: Instant,
) -> Result<(), CommitError> {
    let topic = match output.to {
        Target::Events => &contract.events_topic,
        Target::Inbox => &contract.inputs[0],
        Target::DeadLetters => &contract.dead_letter_topic,
        Target::Parked => &contract.parked_topic,
    };
    let mut record: BaseRecord<'_, [u8], [u8]> =
        BaseRecord::to(topic).timestamp(output.timestamp_ms).headers(of_output(&output.headers));
    record.partition = output.partition;
    record.key = batch.key(output);
    record.payload = batch.value(output);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < deadline => {
                record = back;
                producer.poll(Duration::ZERO);
                std::thread::park_timeout(SLICE);
            }
            Err((source, _)) => return Err(CommitError::kafka("hand a record to the producer")(source)),
        }
    }
}

/// The positions of the inputs, each with how far the own log is known to reach: see [`history`].
fn offsets_of<D: Decider>(machine: &Machine<D>) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::new();
    for ((input, partition), next) in machine.batch().positions() {
        let mut offset = offsets.add_partition(&machine.contract().inputs[input], partition);
        offset.set_offset(Offset::Offset(next))?;
        if let Some(task) = machine.task(partition) {
            offset.set_metadata(history::note(task.own_next()));
        }
    }
    Ok(offsets)
}

/// Waits until every record is acknowledged. One poll takes one report of deliveries, so it looks again at once while there are
/// reports, and pauses only when there are none; the longer it has waited, the longer.
pub(crate) fn deliver(
    producer: &TransactionalProducer,
    deadline: Instant,
    patience: Duration,
) -> Result<(), CommitError> {
    let since = Instant::now();
    let mut left = producer.in_flight_count();
    while left > 0 {
        producer.poll(Duration::ZERO);
        let now_left = producer.in_flight_count();
        if now_left == left {
            if Instant::now() >= deadline {
                return Err(CommitError::TooLate(patience));
            }
            std::thread::park_timeout(SLICE.max(since.elapsed() / 8));
        }
        left = now_left;
    }
    Ok(())
}
