//! Reads committed records of whole partitions in batches, outside any group.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};

use super::{LogRecord, Positions, Topics, log_bounds::LogBoundsError};
use crate::{
    codec::{DecodeError, Readers, SCHEMA_ID_HEADER, SchemaRef},
    config::Config,
    core::log_bounds::LogBounds,
    envelope::Position,
    kafka::{
        BrokerLiveness, Connectivity,
        client::{self, ClientLog},
        close_within,
    },
    unreadable::is_about_a_batch,
};

/// The most records of one batch: enough to make the cost per batch negligible.
const MAX_BATCH: usize = 4_000;
/// How long a batch may take to fill once it has a record.
const GATHER: Duration = Duration::from_millis(20);
/// How often a missing topic is looked up again.
const MISSING_TOPIC_INTERVAL: Duration = Duration::from_millis(500);
/// How often an existing topic is checked for new partitions.
const NEW_PARTITION_INTERVAL: Duration = Duration::from_secs(30);

/// How long one request to the cluster may delay reading and stopping.
const MAX_REQUEST: Duration = Duration::from_secs(2);

/// Reads a set of topics.
pub(super) struct Reader {
    config: Config,
    purpose: String,
    consumer: BaseConsumer<ClientLog>,
    liveness: BrokerLiveness,
    readers: Readers,
    topics: Topics,
    known: HashMap<String, KnownTopic>,
    request: Duration,
}

struct KnownTopic {
    name: Arc<str>,
    partitions: i32,
    next_lookup: Instant,
}

/// A newly discovered partition, with its first offset and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// The result of one poll.
#[derive(Default)]
pub(super) struct PolledRecords<'a> {
    pub(super) messages: Vec<BorrowedMessage<'a>>,
    /// The end of a partition was reached.
    pub(super) reached_end: bool,
    pub(super) signs: BrokerSigns,
    /// The client cannot read a partition, and does not report which one.
    pub(super) cannot_read: bool,
    /// Reading has failed for good.
    pub(super) failure: Option<ReadFailure>,
}

/// What a poll shows about the client's brokers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BrokerSigns {
    /// A broker has sent something.
    received: bool,
    /// All connections are down.
    disconnected: bool,
}

/// Why reading has failed.
pub(super) enum ReadFailure {
    /// A partition does not have the next offset. The client does not report which one: [`Reader::explain`] finds out.
    NoSuchOffset,
    Other(String),
}

/// A record whose schema cannot be fetched now. Its partition waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WaitsForSchema {
    pub(super) position: Position,
    pub(super) reason: String,
}

impl Reader {
    pub(super) fn new(config: &Config, purpose: &str, readers: Readers, topics: Topics) -> KafkaResult<Self> {
        let (consumer, now) = (create_consumer(config, purpose)?, Instant::now());
        let known = topics
            .names()
            .map(|name| (name.clone(), KnownTopic { name: name.as_str().into(), partitions: 0, next_lookup: now }))
            .collect();
        let (config, purpose) = (config.clone(), purpose.to_owned());
        let request = config.timeouts.request.min(MAX_REQUEST);
        Ok(Self { config, purpose, consumer, liveness: BrokerLiveness::new(now), readers, topics, known, request })
    }

    /// Probes the brokers if a probe is due. Returns what is known about them. A client that has lost them must be replaced.
    pub(super) fn check_brokers(&mut self, signs: BrokerSigns) -> Option<Connectivity> {
        if signs.disconnected {
            self.liveness.suspect_loss();
        }
        if signs.received {
            self.liveness.received();
            return Some(Connectivity::Connected);
        }
        let topic = self.topics.names().next()?;
        self.liveness.probe(&self.consumer, topic)
    }

    /// Replaces the client by one that reads nothing yet.
    pub(super) fn replace_client(&mut self) -> KafkaResult<()> {
        tracing::warn!(reader = %self.purpose, "no broker answers: the client is replaced");
        let old = std::mem::replace(&mut self.consumer, create_consumer(&self.config, &self.purpose)?);
        // Closing waits for brokers; this thread must not.
        close_within(old, Duration::ZERO);
        self.liveness = BrokerLiveness::new(Instant::now());
        Ok(())
    }

    /// The topics that were missing when last looked up.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing: Vec<String> =
            self.known.iter().filter(|(_, known)| known.partitions == 0).map(|(name, _)| name.clone()).collect();
        missing.sort();
        missing
    }

    /// Looks up the topics that are due. Returns the new partitions, which the caller assigns, and the error that stopped the lookup.
    pub(super) fn discover(&mut self) -> (Vec<FoundPartition>, KafkaResult<()>) {
        let now = Instant::now();
        let due: Vec<String> =
            self.known.iter().filter(|(_, known)| known.next_lookup <= now).map(|(name, _)| name.clone()).collect();
        let mut found = Vec::new();
        for name in due {
            match self.new_partitions(&name) {
                Ok(more) => found.extend(more),
                Err(error) => return (found, Err(error)),
            }
        }
        (found, Ok(()))
    }

    fn new_partitions(&mut self, name: &str) -> KafkaResult<Vec<FoundPartition>> {
        let count = self.partition_count(name)?;
        let Some(known) = self.known.get_mut(name) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for partition in known.partitions..count {
            let (start, end) = self.consumer.fetch_watermarks(name, partition, self.request)?;
            found.push(FoundPartition { topic: Arc::clone(&known.name), partition, start, end });
        }
        known.partitions = count.max(known.partitions);
        let wait = if known.partitions == 0 { MISSING_TOPIC_INTERVAL } else { NEW_PARTITION_INTERVAL };
        known.next_lookup = Instant::now() + wait;
        Ok(found)
    }

    /// Refuses new partitions that begin after offset 0, unless their topic may be truncated.
    pub(super) fn check_beginnings(&self, found: &[FoundPartition]) -> Result<(), LogBoundsError> {
        for FoundPartition { topic, partition, start, .. } in found.iter().filter(|found| found.start > 0) {
            if self.must_be_complete(topic) {
                return Err(LogBoundsError::BeginningTruncated {
                    topic: Arc::clone(topic),
                    partition: *partition,
                    first: *start,
                });
            }
            tracing::warn!(%topic, partition, first = start, "the topic was truncated: earlier records are not in the view");
        }
        Ok(())
    }

    fn must_be_complete(&self, topic: &str) -> bool {
        !self.topics.is_raw(topic) && !self.config.allow_truncated.contains(topic)
    }

    fn partition_count(&self, topic: &str) -> KafkaResult<i32> {
        let metadata = self.consumer.fetch_metadata(Some(topic), self.request)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(0) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(0),
            Some(code) => Err(KafkaError::MetadataFetch(code)),
        }
    }

    /// Starts reading partitions at these offsets; at 0 from the beginning. Of a topic that must be complete that is offset 0, and its
    /// absence is a failure.
    pub(super) fn assign<'p>(&self, partitions: impl IntoIterator<Item = (&'p str, i32, i64)>) -> KafkaResult<()> {
        self.assign_at(
            partitions.into_iter().map(|(topic, partition, offset)| (topic, partition, self.offset(topic, offset))),
        )
    }

    fn offset(&self, topic: &str, offset: i64) -> Offset {
        if offset == 0 && !self.must_be_complete(topic) { Offset::Beginning } else { Offset::Offset(offset) }
    }

    fn assign_at<'p>(&self, partitions: impl IntoIterator<Item = (&'p str, i32, Offset)>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in partitions {
            list.add_partition_offset(topic, partition, offset)?;
        }
        if list.count() == 0 { Ok(()) } else { self.consumer.incremental_assign(&list) }
    }

    /// Stops reading partitions.
    pub(super) fn unassign<'p>(&self, partitions: impl IntoIterator<Item = (&'p str, i32)>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(topic, partition);
        }
        if list.count() == 0 { Ok(()) } else { self.consumer.incremental_unassign(&list) }
    }

    /// Waits at most `patience` for records, and returns those available.
    pub(super) fn poll(&self, patience: Duration) -> PolledRecords<'_> {
        let mut batch = PolledRecords::default();
        let mut wait = patience;
        let mut gather_until = None;
        while batch.messages.len() < MAX_BATCH && batch.failure.is_none() {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => batch.messages.push(message),
                Some(Err(KafkaError::PartitionEOF(_))) => batch.reached_end = true,
                Some(Err(error)) => {
                    batch.signs.disconnected |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
                    batch.cannot_read |= is_about_a_batch(&error);
                    batch.failure = failure_of(&error);
                }
            }
            wait = Duration::ZERO;
            if *gather_until.get_or_insert_with(|| Instant::now() + GATHER) < Instant::now() {
                break;
            }
        }
        batch.signs.received = batch.reached_end || !batch.messages.is_empty();
        batch
    }

    /// Describes a failure with its partition, given the positions read so far.
    pub(super) fn explain(&self, failure: ReadFailure, positions: &Positions) -> String {
        match failure {
            ReadFailure::NoSuchOffset => match self.out_of_bounds(positions) {
                Ok(Some(error)) => error.to_string(),
                // The offset has reappeared, or the bounds cannot be queried.
                Ok(None) | Err(_) => "the log does not have the next offset: it was truncated or lost".to_owned(),
            },
            ReadFailure::Other(reason) => reason,
        }
    }

    fn out_of_bounds(&self, positions: &Positions) -> KafkaResult<Option<LogBoundsError>> {
        for element in self.consumer.assignment()?.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let position = positions.get(topic, partition).unwrap_or(0);
            let (first, end) = self.consumer.fetch_watermarks(topic, partition, self.request)?;
            let topic = Arc::from(topic);
            if position == 0 && first > 0 {
                return Ok(Some(LogBoundsError::BeginningTruncated { topic, partition, first }));
            } else if !(first..=end).contains(&position) {
                return Ok(Some(LogBoundsError::OutOfRange {
                    topic,
                    partition,
                    held: LogBounds { first, end },
                    position,
                }));
            }
        }
        Ok(None)
    }

    /// The positions of the consumer, past commit markers and aborted records. They are exact only at the end of a partition.
    pub(super) fn positions_at_ends(&self) -> KafkaResult<Vec<(Arc<str>, i32, i64)>> {
        let list = self.consumer.position()?;
        let elements = list.elements();
        Ok(elements
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(next) => {
                    let known = self.known.get(element.topic())?;
                    Some((Arc::clone(&known.name), element.partition(), next))
                }
                _ => None,
            })
            .collect())
    }

    /// True if the registry has a schema now. Asks it.
    pub(super) fn has_schema(&self, schema: SchemaRef) -> bool {
        self.readers.schema_anew(schema).is_ok()
    }

    /// The partition of a message, if its topic is read.
    pub(super) fn partition_of(&self, message: &BorrowedMessage<'_>) -> Option<(Arc<str>, i32)> {
        Some((Arc::clone(&self.known.get(message.topic())?.name), message.partition()))
    }

    /// The record of a message; `None` if its topic is not read. A body on a raw topic may be anything, so there a schema that the
    /// registry does not have is not waited for.
    ///
    /// # Errors
    /// Its schema cannot be fetched now.
    pub(super) fn record<'m>(
        &'m self,
        message: &'m BorrowedMessage<'_>,
    ) -> Result<Option<LogRecord<'m>>, WaitsForSchema> {
        let Some(known) = self.known.get(message.topic()) else { return Ok(None) };
        let topic = &known.name;
        let mut lacks = None;
        let (decoded, problem) = match self.readers.decode(message.payload(), schema_header(message)) {
            Ok(decoded) => (Some(decoded), None),
            Err(DecodeError::NoBody) => (None, None),
            Err(DecodeError::MissingSchema { .. }) if self.topics.is_raw(topic) => (None, None),
            Err(error) if error.is_transient() => {
                let position = Position::new(Arc::clone(topic), message.partition(), message.offset());
                return Err(WaitsForSchema { position, reason: crate::telemetry::chain(&error) });
            }
            Err(_) if self.topics.is_raw(topic) => (None, None),
            Err(error) => {
                if let DecodeError::UnknownSchema { schema } = &error {
                    lacks = Some(*schema);
                }
                (None, Some(crate::telemetry::chain(&error)))
            }
        };
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
        let mut record = LogRecord::new(topic, message.partition(), message.offset(), timestamp_ms).with_content(
            message.key(),
            message.headers(),
            message.payload(),
            decoded,
        );
        record.lacks = lacks;
        if let Some(problem) = problem {
            record.note(&problem);
        }
        Ok(Some(record))
    }
}

fn schema_header<'m>(message: &'m BorrowedMessage<'_>) -> Option<&'m [u8]> {
    use rdkafka::message::Headers;
    message.headers()?.iter().filter(|header| header.key == SCHEMA_ID_HEADER).last()?.value
}

fn create_consumer(config: &Config, purpose: &str) -> KafkaResult<BaseConsumer<ClientLog>> {
    client::log_reader(config, purpose).create_with_context(ClientLog::new(purpose))
}

/// The failure, if librdkafka does not recover from the error by itself. It retries and logs the others.
fn failure_of(error: &KafkaError) -> Option<ReadFailure> {
    let other = |reason: String| Some(ReadFailure::Other(reason));
    match error {
        KafkaError::MessageConsumptionFatal(code) => other(format!("the consumer failed: {code}")),
        KafkaError::MessageConsumption(code) => match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Some(ReadFailure::NoSuchOffset),
            RDKafkaErrorCode::GroupAuthorizationFailed => other(format!("reading is not allowed: {code}")),
            _ => None,
        },
        _ => None,
    }
}
