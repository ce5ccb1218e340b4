//! The partitions that a view waits with, while it reads the others on: those in front of a record whose schema is not available, and
//! those in front of a batch that the client cannot read.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{error::KafkaResult, message::BorrowedMessage};

use super::{
    LogRecord, Positions,
    reader::{Reader, WaitsForSchema},
};
use crate::{
    codec::SchemaRef,
    envelope::Position,
    health::DegradedPiece,
    unreadable::{Partition, PartitionAt, Skip, Watch},
};

/// The first and the longest pause before a schema is asked for again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the registry is asked for a schema that it did not have for long.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The most schemas that are asked for again.
const MAX_LACKING: usize = 64;

/// A partition in front of a record whose schema is not available.
struct SchemaWait {
    position: Position,
    reason: String,
    retry_at: Instant,
    pause: Duration,
    /// The client reads on from the record, which may be decoded now.
    is_retried: bool,
}

/// The holds of one view, and the partitions that its client reads.
pub(super) struct Holds {
    /// `None` for the view that the watch itself uses.
    watch: Option<Watch>,
    schemas: BTreeMap<Partition, SchemaWait>,
    reading: BTreeSet<Partition>,
    /// Partitions that the client must read on from another position.
    moved: BTreeSet<Partition>,
    /// The schemas of records that were passed over, because the registry did not have them for long.
    lacking: VecDeque<SchemaRef>,
    ask_at: Instant,
}

impl Holds {
    pub(super) fn new(watch: Option<Watch>) -> Self {
        Self {
            watch,
            schemas: BTreeMap::new(),
            reading: BTreeSet::new(),
            moved: BTreeSet::new(),
            lacking: VecDeque::new(),
            ask_at: Instant::now(),
        }
    }

    /// The client has reported that it cannot read a partition.
    pub(super) fn suspect(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.suspect();
        }
    }

    /// The client was replaced by one that reads nothing yet.
    pub(super) fn client_replaced(&mut self) {
        self.reading.clear();
        if let Some(watch) = &mut self.watch {
            watch.suspect_hang();
        }
    }

    /// Holds a partition in front of a record. Each further pause is twice as long.
    fn wait(&mut self, waits: WaitsForSchema) {
        let WaitsForSchema { position, reason } = waits;
        let partition = (Arc::clone(&position.topic), position.partition);
        let last = self.schemas.get(&partition).map(|wait| wait.pause);
        let pause = last.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        tracing::warn!(%position, reason, ?pause, "waiting for a schema");
        self.schemas.insert(
            partition,
            SchemaWait { position, reason, retry_at: Instant::now() + pause, pause, is_retried: false },
        );
    }

    /// True if a message of this partition may be folded: the client reads it from where the view has got to.
    pub(super) fn admits(&self, partition: &Partition) -> bool {
        self.reading.contains(partition) && self.schemas.get(partition).is_none_or(|wait| wait.is_retried)
    }

    /// True if no partition waits for a schema, so that every message may be folded.
    pub(super) fn are_empty(&self) -> bool {
        self.schemas.is_empty()
    }

    /// The records that may be folded: without those behind a record whose schema is not available, in its partition. This may ask
    /// the registry, so call it while nothing is locked.
    pub(super) fn admit<'m>(&mut self, reader: &'m Reader, messages: &'m [BorrowedMessage<'_>]) -> Vec<LogRecord<'m>> {
        let mut records = Vec::with_capacity(messages.len());
        for message in messages {
            if !self.are_empty() && !reader.partition_of(message).is_some_and(|partition| self.admits(&partition)) {
                continue;
            }
            match reader.record(message) {
                Ok(Some(record)) => {
                    if !self.are_empty() {
                        self.schemas.remove(&(Arc::clone(record.topic), record.partition));
                    }
                    if let Some(schema) = record.lacks {
                        self.lacks(schema);
                    }
                    records.push(record);
                }
                Ok(None) => {}
                Err(waits) => self.wait(waits),
            }
        }
        records
    }

    fn lacks(&mut self, schema: SchemaRef) {
        if self.lacking.len() < MAX_LACKING && !self.lacking.contains(&schema) {
            self.lacking.push_back(schema);
        }
    }

    /// True if the registry has one of the schemas now that records were passed over for. Asks for one of them at a time.
    pub(super) fn has_found_again(&mut self, reader: &Reader) -> bool {
        if self.lacking.is_empty() || Instant::now() < self.ask_at {
            return false;
        }
        self.ask_at = Instant::now() + ASK_EVERY;
        let Some(schema) = self.lacking.pop_front() else { return false };
        let is_found = reader.has_schema(schema);
        if !is_found {
            self.lacking.push_back(schema);
        }
        is_found
    }

    /// Everything is read again from the beginning.
    pub(super) fn start_again(&mut self) {
        self.moved.extend(self.reading.iter().cloned());
        self.schemas.clear();
        self.lacking.clear();
        if let Some(watch) = &mut self.watch {
            watch.released();
        }
    }

    /// The client reads these partitions from now on.
    pub(super) fn started(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        self.reading.extend(partitions);
    }

    /// The client reads these partitions no more, and they are not needed any more.
    pub(super) fn stopped(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.reading.remove(partition);
            self.schemas.remove(partition);
        }
    }

    /// Inspects partitions if that is due. Returns the skips that operators have decided.
    pub(super) fn watch(&mut self, positions: &Positions) -> Vec<Skip> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        let at = |(topic, partition, position): (&Arc<str>, i32, i64)| PartitionAt {
            topic: Arc::clone(topic),
            partition,
            position,
        };
        watch.watch(|| positions.iter().map(at).collect());
        watch.take_skips()
    }

    /// A batch was skipped.
    pub(super) fn skipped(&mut self, skip: &Skip) {
        self.moved.insert((Arc::clone(&skip.batch.topic), skip.batch.partition));
        if let Some(watch) = &mut self.watch {
            watch.skipped(&skip.batch);
        }
    }

    /// Makes the client read what is not held, each partition on from its position.
    pub(super) fn reconcile(&mut self, reader: &Reader, positions: &Positions) -> KafkaResult<()> {
        let now = Instant::now();
        let (mut starting, mut stopping) = (Vec::new(), Vec::new());
        for (topic, partition, position) in positions.iter() {
            let key = (Arc::clone(topic), partition);
            let paused = self.schemas.get(&key).filter(|wait| !wait.is_retried);
            // The client has delivered the record that the partition waits in front of, and perhaps more.
            let is_ahead = paused.is_some() || self.moved.contains(&key);
            let waits = paused.is_some_and(|wait| now < wait.retry_at);
            let is_wanted = !waits && self.watch.as_ref().is_none_or(|watch| watch.admits(topic, partition));
            match (is_wanted, self.reading.contains(&key)) {
                (true, true) if is_ahead => {
                    stopping.push(key.clone());
                    starting.push((key, position));
                }
                (true, false) => starting.push((key, position)),
                (false, true) => stopping.push(key),
                (true, true) | (false, false) => {}
            }
        }
        self.moved.clear();
        reader.unassign(stopping.iter().map(|(topic, partition)| (&**topic, *partition)))?;
        reader.assign(starting.iter().map(|((topic, partition), position)| (&**topic, *partition, *position)))?;
        for partition in &stopping {
            self.reading.remove(partition);
        }
        for (partition, _) in &starting {
            if let Some(wait) = self.schemas.get_mut(partition) {
                wait.is_retried = true;
            }
        }
        self.reading.extend(starting.into_iter().map(|(partition, _)| partition));
        Ok(())
    }

    /// The partitions that wait until somebody acts. A view is up to date without them; a schema is waited for.
    pub(super) fn stopped_partitions(&self) -> BTreeSet<Partition> {
        self.watch.iter().flat_map(|watch| watch.issues().map(|(partition, _)| partition.clone())).collect()
    }

    /// The ends of the partitions that wait in front of a batch.
    pub(super) fn ends(&self) -> Vec<(Partition, i64)> {
        let left_out = self.watch.iter().flat_map(Watch::left_out);
        left_out.map(|batch| ((Arc::clone(&batch.topic), batch.partition), batch.end)).collect()
    }

    /// The places at which partitions wait, and why.
    pub(super) fn pieces(&self) -> Vec<DegradedPiece> {
        let issues = self.watch.iter().flat_map(|watch| watch.issues().map(|(_, piece)| piece.clone()));
        let waits = self.schemas.values().map(|wait| {
            let reason = format!("its partition of this topic waits for a schema: {}", wait.reason);
            DegradedPiece::new(wait.position.to_string(), reason)
        });
        issues.chain(waits).collect()
    }
}
