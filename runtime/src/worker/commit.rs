//! Commits a batch as one transaction: events, commands and input positions become visible together, or not at all.

use std::{
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
    deliveries::Deliveries,
    transactor::{CommitError, TransactionalProducer, Transactor},
};
use crate::{
    core::{Batch, Output, OutputTopic, ServiceContract, log_bounds, turn::Turn},
    decider::Decider,
    kafka::headers::of_output,
};

/// The pause before a full queue of the producer is tried again.
const SLICE: Duration = Duration::from_micros(100);

/// Commits the open batch. `fence` is the group metadata from the moment at which the batch began.
pub(super) fn commit<D: Decider>(
    transactor: &Transactor,
    turn: &Turn<D, Arc<ConsumerGroupMetadata>>,
    fence: Arc<ConsumerGroupMetadata>,
    patience: Duration,
) -> Result<Deliveries, CommitError> {
    let (contract, batch, deadline) = (turn.contract(), turn.batch(), Instant::now() + patience);
    let producer = transactor.producer();
    producer.begin_transaction().map_err(CommitError::kafka("begin a transaction"))?;
    for output in batch.outputs() {
        produce(producer, contract, batch, output, deadline)?;
    }
    let offsets = offsets_of(turn).map_err(CommitError::kafka("list input positions"))?;
    let (topic, known) = (Arc::clone(&contract.events_topic), turn.own_ends());
    transactor.commit(offsets, fence, deadline, patience, move |deliveries| {
        log_bounds::check_appended(&topic, &known, &deliveries.own_ends).map_err(CommitError::LogLoss)
    })
}

fn produce(
    producer: &TransactionalProducer,
    contract: &ServiceContract,
    batch: &Batch,
    output: &Output,
    deadline: Instant,
) -> Result<(), CommitError> {
    let topic = match output.to {
        OutputTopic::Events => &contract.events_topic,
        OutputTopic::Inbox => &contract.inputs[0],
        OutputTopic::DeadLetters => &contract.dead_letter_topic,
        OutputTopic::Parked => &contract.parked_topic,
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
            Err((source, _)) => return Err(CommitError::kafka("pass a record to the producer")(source)),
        }
    }
}

fn offsets_of<D: Decider, F: Clone>(turn: &Turn<D, F>) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::new();
    for (input, partition, next, metadata) in turn.offsets() {
        let mut offset = offsets.add_partition(&turn.contract().inputs[input], partition);
        offset.set_offset(Offset::Offset(next))?;
        offset.set_metadata(metadata);
    }
    Ok(offsets)
}
