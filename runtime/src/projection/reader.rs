//! Gets committed records out of whole partitions, in batches, in no group.

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
    codec::{DecodeError, Decoded, Readers, SCHEMA_ID_HEADER},
    config::Config,
    kafka::{
        BrokerLiveness, Connectivity,
        client::{self, ClientLog},
    },
    worker::{Held, let_go},
};

/// The most records handed on at once: enough that what a batch costs is spread thin.
const MAX_BATCH: usize = 4_000;
/// How long a batch may be gathered once it has a record.
const GATHER: Duration = Duration::from_millis(20);
/// How often a topic that is not there is looked for.
const LOOK_FOR_MISSING: Duration = Duration::from_millis(500);
/// How often a topic that is there is asked for more partitions.
const LOOK_FOR_MORE: Duration = Duration::from_secs(30);

/// How long one question to the cluster may hold up reading, and stopping.
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
    look_again: Instant,
}

/// A partition that has come to be known, with its ends at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// What came of one poll.
#[derive(Default)]
pub(super) struct PolledRecords<'a> {
    pub(super) messages: Vec<BorrowedMessage<'a>>,
    /// The end of some partition was reached.
    pub(super) met_an_end: bool,
    pub(super) signs: BrokerSigns,
    /// Reading cannot go on.
    pub(super) failure: Option<ReadFailure>,
}

/// What a poll says of the client's brokers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BrokerSigns {
    /// Something came from one.
    heard: bool,
    /// All connections are lost.
    disconnected: bool,
}

/// Why reading cannot go on.
pub(super) enum ReadFailure {
    /// A partition does not have the offset to go on from. The client does not tell which: [`Reader::explain`] finds out.
    NoSuchOffset,
    Other(String),
}

impl Reader {
    pub(super) fn new(config: &Config, purpose: &str, readers: Readers, topics: Topics) -> KafkaResult<Self> {
        let (consumer, now) = (make_consumer(config, purpose)?, Instant::now());
        let known = topics
            .names()
            .map(|name| (name.clone(), KnownTopic { name: name.as_str().into(), partitions: 0, look_again: now }))
            .collect();
        let (config, purpose) = (config.clone(), purpose.to_owned());
        let request = config.timeouts.request.min(MAX_REQUEST);
        Ok(Self { config, purpose, consumer, liveness: BrokerLiveness::new(now), readers, topics, known, request })
    }

    /// Looks whether brokers still answer, if the signs give a reason to. A client that has lost them is replaced: what was read goes
    /// on being read, each partition from `positions`, else from its beginning. Answers whether brokers are there, if that is news.
    pub(super) fn check_brokers(
        &mut self,
        signs: BrokerSigns,
        positions: impl FnOnce() -> Positions,
    ) -> KafkaResult<Option<bool>> {
        if signs.disconnected {
            self.liveness.suspect_loss();
        }
        if signs.heard {
            self.liveness.received();
            return Ok(Some(true));
        }
        let Some(topic) = self.topics.names().next() else { return Ok(None) };
        let standing = self.liveness.probe(&self.consumer, topic);
        if standing == Some(Connectivity::Lost) {
            tracing::warn!(reader = %self.purpose, "no broker answers: the client is replaced");
            self.renew(&positions())?;
        }
        Ok(standing.map(|standing| standing == Connectivity::Connected))
    }

    fn renew(&mut self, positions: &Positions) -> KafkaResult<()> {
        let read = self.consumer.assignment()?;
        let old = std::mem::replace(&mut self.consumer, make_consumer(&self.config, &self.purpose)?);
        // Closing waits for brokers, and nobody else needs to.
        let_go(old, Duration::ZERO);
        self.liveness = BrokerLiveness::new(Instant::now());
        let elements = read.elements();
        self.assign_at(elements.iter().map(|element| {
            let (topic, partition) = (element.topic(), element.partition());
            let from = positions.get(topic, partition).map_or_else(|| self.beginning(topic), Offset::Offset);
            (topic, partition, from)
        }))
    }

    /// Topics that are not there, as far as is known.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing: Vec<String> =
            self.known.iter().filter(|(_, known)| known.partitions == 0).map(|(name, _)| name.clone()).collect();
        missing.sort();
        missing
    }

    /// Looks for topics and partitions that are due to be looked for. The caller assigns what was found, and learns why not all
    /// could be looked for.
    pub(super) fn discover(&mut self) -> (Vec<FoundPartition>, KafkaResult<()>) {
        let now = Instant::now();
        let due: Vec<String> =
            self.known.iter().filter(|(_, known)| known.look_again <= now).map(|(name, _)| name.clone()).collect();
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
        let wait = if known.partitions == 0 { LOOK_FOR_MISSING } else { LOOK_FOR_MORE };
        known.look_again = Instant::now() + wait;
        Ok(found)
    }

    /// Holds partitions that were found to their beginnings.
    pub(super) fn hold_to_beginnings(&self, found: &[FoundPartition]) -> Result<(), LogBoundsError> {
        for FoundPartition { topic, partition, start, .. } in found.iter().filter(|found| found.start > 0) {
            if self.must_be_whole(topic) {
                return Err(LogBoundsError::BeginningTruncated {
                    topic: Arc::clone(topic),
                    partition: *partition,
                    first: *start,
                });
            }
            tracing::warn!(%topic, partition, first = start, "the topic was cut: what was said before is not in the view");
        }
        Ok(())
    }

    fn must_be_whole(&self, topic: &str) -> bool {
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

    /// Starts reading partitions at these offsets.
    pub(super) fn assign<'p>(&self, places: impl IntoIterator<Item = (&'p str, i32, i64)>) -> KafkaResult<()> {
        self.assign_at(places.into_iter().map(|(topic, partition, offset)| (topic, partition, Offset::Offset(offset))))
    }

    /// Starts reading partitions at their beginnings. That is the offset 0 where a topic must be whole: if it is not there, that is
    /// a failure.
    pub(super) fn assign_from_beginning<'p>(
        &self,
        places: impl IntoIterator<Item = (&'p str, i32)>,
    ) -> KafkaResult<()> {
        self.assign_at(places.into_iter().map(|(topic, partition)| (topic, partition, self.beginning(topic))))
    }

    fn beginning(&self, topic: &str) -> Offset {
        if self.must_be_whole(topic) { Offset::Offset(0) } else { Offset::Beginning }
    }

    fn assign_at<'p>(&self, places: impl IntoIterator<Item = (&'p str, i32, Offset)>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in places {
            list.add_partition_offset(topic, partition, offset)?;
        }
        if list.count() == 0 { Ok(()) } else { self.consumer.incremental_assign(&list) }
    }

    /// Stops reading a partition.
    pub(super) fn unassign(&self, topic: &str, partition: i32) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        self.consumer.incremental_unassign(&list)
    }

    /// Waits for records, at most `patience`, and takes what is there.
    pub(super) fn poll(&self, patience: Duration) -> PolledRecords<'_> {
        let mut batch = PolledRecords::default();
        let mut wait = patience;
        let mut gather_until = None;
        while batch.messages.len() < MAX_BATCH && batch.failure.is_none() {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => batch.messages.push(message),
                Some(Err(KafkaError::PartitionEOF(_))) => batch.met_an_end = true,
                Some(Err(error)) => {
                    batch.signs.disconnected |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
                    batch.failure = failure_of(&error);
                }
            }
            wait = Duration::ZERO;
            if *gather_until.get_or_insert_with(|| Instant::now() + GATHER) < Instant::now() {
                break;
            }
        }
        batch.signs.heard = batch.met_an_end || !batch.messages.is_empty();
        batch
    }

    /// Says of a failure which partition it is about, given how far each was read.
    pub(super) fn explain(&self, failure: ReadFailure, positions: &Positions) -> String {
        match failure {
            ReadFailure::NoSuchOffset => match self.lost(positions) {
                Ok(Some(lost)) => lost.to_string(),
                // It is there again, or cannot be asked for.
                Ok(None) | Err(_) => "the log does not have the offset to go on from: it was cut or lost".to_owned(),
            },
            ReadFailure::Other(reason) => reason,
        }
    }

    fn lost(&self, positions: &Positions) -> KafkaResult<Option<LogBoundsError>> {
        for element in self.consumer.assignment()?.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let position = positions.get(topic, partition).unwrap_or(0);
            let (first, end) = self.consumer.fetch_watermarks(topic, partition, self.request)?;
            let topic = Arc::from(topic);
            if position == 0 && first > 0 {
                return Ok(Some(LogBoundsError::BeginningTruncated { topic, partition, first }));
            } else if !(first..=end).contains(&position) {
                return Ok(Some(LogBoundsError::OutOfRange { topic, partition, held: Held { first, end }, position }));
            }
        }
        Ok(None)
    }

    /// Where reading stands, past commit markers and aborted records. Only true at the end of a partition.
    pub(super) fn positions_at_ends(&self) -> KafkaResult<Vec<(Arc<str>, i32, i64)>> {
        let list = self.consumer.position()?;
        let places = list.elements();
        Ok(places
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

    /// The record of a message. A schema that cannot be got now is waited for: `pause` waits a while and answers whether to go on.
    pub(super) fn record<'m>(
        &'m self,
        message: &'m BorrowedMessage<'_>,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Option<LogRecord<'m>> {
        let topic = &self.known.get(message.topic())?.name;
        let (decoded, trouble) = match self.decode(message, pause)? {
            Ok(decoded) => (Some(decoded), None),
            Err(DecodeError::NoBody) => (None, None),
            Err(_) if self.topics.is_raw(topic) => (None, None),
            Err(error) => (None, Some(crate::telemetry::chain(&error))),
        };
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
        let record = LogRecord::new(topic, message.partition(), message.offset(), timestamp_ms).carrying(
            message.key(),
            message.headers(),
            message.payload(),
            decoded,
        );
        if let Some(trouble) = trouble {
            record.note(&trouble);
        }
        Some(record)
    }

    /// `None` if the pause was broken off. A body on a raw topic may be anything, so a schema that the registry does not have is not
    /// waited for there.
    fn decode<'m>(
        &self,
        message: &'m BorrowedMessage<'_>,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Option<Result<Decoded<'m>, DecodeError>> {
        let mut wait = Duration::from_millis(50);
        loop {
            let decoded = self.readers.decode(message.payload(), schema_header(message));
            match decoded {
                Err(error @ DecodeError::MissingSchema { .. }) if self.topics.is_raw(message.topic()) => {
                    return Some(Err(error));
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(
                        topic = message.topic(),
                        partition = message.partition(),
                        offset = message.offset(),
                        error = crate::telemetry::chain(&error),
                        "waiting for a schema"
                    );
                    if !pause(wait) {
                        return None;
                    }
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
                decoded => return Some(decoded),
            }
        }
    }
}

fn schema_header<'m>(message: &'m BorrowedMessage<'_>) -> Option<&'m [u8]> {
    use rdkafka::message::Headers;
    message.headers()?.iter().filter(|header| header.key == SCHEMA_ID_HEADER).last()?.value
}

fn make_consumer(config: &Config, purpose: &str) -> KafkaResult<BaseConsumer<ClientLog>> {
    client::log_reader(config, purpose).create_with_context(ClientLog::new(purpose))
}

/// Errors that reading does not recover from by itself. The others librdkafka retries, and logs.
fn failure_of(error: &KafkaError) -> Option<ReadFailure> {
    let other = |reason: String| Some(ReadFailure::Other(reason));
    match error {
        KafkaError::MessageConsumptionFatal(code) => other(format!("the consumer failed: {code}")),
        KafkaError::MessageConsumption(code) => match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Some(ReadFailure::NoSuchOffset),
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed => {
                other(format!("reading is not allowed: {code}"))
            }
            RDKafkaErrorCode::BadMessage => other(format!("the log is damaged: {code}")),
            _ => None,
        },
        _ => None,
    }
}
