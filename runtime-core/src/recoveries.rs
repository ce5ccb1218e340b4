//! The recovery of the partitions that one generation of the group has assigned: what to fetch, what to read, and when a partition
//! may decide.
//!
//! A driver calls [`Recoveries::step`], executes the step and reports the result. Other threads may open checkpoints:
//! [`RecoveryStart`] has all that this needs. A failure of the driver ends the attempt; the next attempt starts again with the
//! remaining partitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    FoldOutcome, LogCorruption, Record, Recovery, ServiceContract, Task,
    barrier::{Barrier, BarrierStep},
    codec::{DecodeError, ReadSchema, SchemaRef},
    decider::Decider,
    entity::MalformedCheckpoint,
    log_bounds::{AllBounds, LogLoss, check_inputs, check_own_log},
    time::TimestampMs,
};

/// The next step of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryStep {
    /// Fetch the group's committed offsets of every input as stable.
    FetchOffsets,
    /// Fetch the bounds of the own log and of the parked topic, and then those of every input, counting uncommitted records. In
    /// this order an input reaches at least as far as the causes in the own log.
    FetchBounds,
    /// Open the checkpoints, and read the own log behind them and the parked topic.
    Read,
    /// Do nothing: every partition has recovered or was refused.
    Done,
}

/// The group's committed offsets of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommittedOffsets {
    /// The offset of each input.
    pub inputs: Vec<Option<i64>>,
    /// How far the own log was known to reach: the highest [end in the metadata](crate::log_bounds::own_end_of) of an offset.
    pub own_end: i64,
}

/// A checkpoint from the store.
pub struct LoadedCheckpoint<P, E> {
    /// The offset of the own log to continue from.
    pub position: i64,
    /// The positions of the inputs, by topic.
    pub inputs: P,
    /// The entities, by key.
    pub entities: E,
}

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record, whatever its offset.
    Beginning,
    /// At this offset.
    Offset(i64),
}

/// A partition to read: topic, partition, and where the reader starts.
pub type ReadFrom = (Arc<str>, i32, StartAt);

/// The offsets and bounds that all partitions of an attempt start from.
pub struct RecoveryStart {
    contract: Arc<ServiceContract>,
    offsets: BTreeMap<i32, CommittedOffsets>,
    bounds: AllBounds,
}

/// A partition whose checkpoint is open.
pub struct Opened<D: Decider> {
    recovery: Recovery<D>,
    /// The error of a malformed checkpoint. The log is read from its beginning, and the driver discards the checkpoint.
    pub discarded: Option<MalformedCheckpoint>,
}

impl RecoveryStart {
    /// Opens a partition at its checkpoint, after checking the bounds of its own log.
    ///
    /// # Errors
    /// [`LogLoss`]: the worker must stop for good.
    pub fn open<'c, D: Decider>(
        &self,
        decider: &D,
        partition: i32,
        checkpoint: Option<
            LoadedCheckpoint<impl IntoIterator<Item = (&'c str, i64)>, impl IntoIterator<Item = (&'c str, &'c [u8])>>,
        >,
    ) -> Result<Opened<D>, LogLoss> {
        let Self { contract, offsets, bounds } = self;
        let noted = offsets.get(&partition).map_or(0, |offsets| offsets.own_end);
        let saved = checkpoint.as_ref().map(|checkpoint| checkpoint.position);
        check_own_log(contract, partition, bounds.of(&contract.events_topic, partition), noted, saved)?;
        let mut recovery = Recovery::new(decider.clone(), contract, partition);
        let mut discarded = None;
        if let Some(LoadedCheckpoint { position, inputs, entities }) = checkpoint
            && let Err(error) = recovery.resume(contract, position, inputs, entities)
        {
            recovery = Recovery::new(decider.clone(), contract, partition);
            discarded = Some(error);
        }
        Ok(Opened { recovery, discarded })
    }
}

/// A log that a partition reads up to the barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LogToRead {
    Own(i32),
    Parked(i32),
}

/// How the recovery of a partition ended.
pub enum RecoveryEnd<D: Decider> {
    /// It may decide.
    Recovered(Box<Task<D>>),
    /// It must not decide: until an operator has acted if [that is final](LogCorruption::is_final), else until it moves.
    Refused(i32, LogCorruption),
}

/// The partitions that recover together.
pub struct Recoveries<D: Decider> {
    decider: D,
    contract: Arc<ServiceContract>,
    left: BTreeSet<i32>,
    barrier: Barrier<LogToRead>,
    offsets: BTreeMap<i32, CommittedOffsets>,
    start: Option<Arc<RecoveryStart>>,
    reading: BTreeMap<i32, Recovery<D>>,
}

impl<D: Decider> Recoveries<D> {
    /// A recovery of these partitions.
    pub fn new(decider: D, contract: ServiceContract, partitions: impl IntoIterator<Item = i32>) -> Self {
        Self {
            decider,
            contract: Arc::new(contract),
            left: partitions.into_iter().collect(),
            barrier: Barrier::default(),
            offsets: BTreeMap::new(),
            start: None,
            reading: BTreeMap::new(),
        }
    }

    /// The next step.
    #[must_use]
    pub fn step(&self) -> RecoveryStep {
        if self.left.is_empty() {
            return RecoveryStep::Done;
        }
        match self.barrier.step() {
            BarrierStep::FetchOffsets => RecoveryStep::FetchOffsets,
            BarrierStep::FetchEnds => RecoveryStep::FetchBounds,
            BarrierStep::Read => RecoveryStep::Read,
        }
    }

    /// The partitions that have not recovered yet.
    #[must_use]
    pub fn left(&self) -> &BTreeSet<i32> {
        &self.left
    }

    /// The partitions that are read now.
    pub fn reading(&self) -> impl ExactSizeIterator<Item = i32> {
        self.reading.keys().copied()
    }

    /// The contract, with the schemas that this recovery has received.
    #[must_use]
    pub fn contract(&self) -> &ServiceContract {
        &self.contract
    }

    /// Takes the group's committed offsets, fetched as stable.
    pub fn offsets_fetched(&mut self, offsets: BTreeMap<i32, CommittedOffsets>) {
        self.offsets = offsets;
        self.barrier.offsets_fetched();
    }

    /// Takes the bounds, fetched after the offsets by a client that sees uncommitted records.
    pub fn bounds_fetched(&mut self, bounds: AllBounds) -> Arc<RecoveryStart> {
        let contract = &self.contract;
        let logs = self.left.iter().flat_map(|partition| {
            let end = |topic| bounds.of(topic, *partition).end;
            [
                (LogToRead::Own(*partition), end(&contract.events_topic)),
                (LogToRead::Parked(*partition), end(&contract.parked_topic)),
            ]
        });
        self.barrier.ends_fetched(logs.collect::<Vec<_>>());
        let start =
            RecoveryStart { contract: Arc::clone(contract), offsets: std::mem::take(&mut self.offsets), bounds };
        Arc::clone(self.start.insert(Arc::new(start)))
    }

    /// Takes a partition with an open checkpoint. Returns the partitions of the topics to read; none if there is nothing to read.
    pub fn opened(&mut self, opened: Opened<D>) -> Vec<ReadFrom> {
        let Some(start) = &self.start else { return Vec::new() };
        let (contract, mut recovery) = (&self.contract, opened.recovery);
        let partition = recovery.partition();
        let end = |topic| start.bounds.of(topic, partition).end;
        recovery.asked_at(end(&contract.events_topic), end(&contract.parked_topic));
        let parked = start.bounds.of(&contract.parked_topic, partition);
        if parked.first == parked.end {
            // The client reports no end for a topic without records, so the barrier must not wait for one.
            self.barrier.reached(&LogToRead::Parked(partition), parked.end);
        }
        self.barrier.reached(&LogToRead::Own(partition), recovery.next());
        let mut read = Vec::new();
        if !self.is_at_barrier(partition) {
            read.push((Arc::clone(&contract.events_topic), partition, StartAt::Offset(recovery.next())));
            if !self.barrier.is_passed(&LogToRead::Parked(partition)) {
                read.push((Arc::clone(&contract.parked_topic), partition, StartAt::Beginning));
            }
        }
        self.reading.insert(partition, recovery);
        read
    }

    fn is_at_barrier(&self, partition: i32) -> bool {
        self.barrier.is_passed(&LogToRead::Own(partition)) && self.barrier.is_passed(&LogToRead::Parked(partition))
    }

    /// Takes a schema that the driver fetched.
    pub fn learn(&mut self, schema: SchemaRef, found: Result<&'static ReadSchema, DecodeError>) {
        // Threads that load checkpoints may share the contract; they need no schema.
        Arc::make_mut(&mut self.contract).learn(schema, found);
    }

    /// Forgets which schemas could not be fetched.
    pub fn forget_failures(&mut self) {
        Arc::make_mut(&mut self.contract).forget_failures();
    }

    /// Folds a record of the own log or of the parked topic. An error ends the partition's recovery.
    ///
    /// # Errors
    /// [`LogCorruption`]: the partition is refused.
    pub fn receive(&mut self, record: &Record<'_>) -> Result<FoldOutcome, LogCorruption> {
        let Some(recovery) = self.reading.get_mut(&record.partition) else { return Ok(FoldOutcome::Taken) };
        let folded = if *record.topic == *self.contract.parked_topic {
            recovery.fold_parked(&self.contract, record).map(|()| FoldOutcome::Taken)
        } else {
            recovery.fold(&self.contract, record)
        };
        if folded.is_err() {
            self.reading.remove(&record.partition);
            self.left.remove(&record.partition);
        }
        folded
    }

    /// Notes that a reader of committed records has read the own log up to this position.
    pub fn reached_own(&mut self, partition: i32, position: i64) {
        let folded = self.reading.get(&partition).map_or(0, Recovery::next);
        self.barrier.reached(&LogToRead::Own(partition), position.max(folded));
    }

    /// Notes that a reader of committed records has read the parked topic up to this position.
    pub fn reached_parked(&mut self, partition: i32, position: i64) {
        self.barrier.reached(&LogToRead::Parked(partition), position);
    }

    /// Ends the recovery of partitions that have reached the barrier since the last call.
    ///
    /// # Errors
    /// [`LogLoss`]: an input no longer has the records that the partition must continue from. The worker must stop for good.
    pub fn finish(&mut self, now_ms: TimestampMs) -> Result<Vec<RecoveryEnd<D>>, LogLoss> {
        let reached: Vec<i32> =
            self.reading.keys().copied().filter(|partition| self.is_at_barrier(*partition)).collect();
        reached.into_iter().filter_map(|partition| self.finish_one(partition, now_ms).transpose()).collect()
    }

    fn finish_one(&mut self, partition: i32, now_ms: TimestampMs) -> Result<Option<RecoveryEnd<D>>, LogLoss> {
        let (Some(recovery), Some(start)) = (self.reading.remove(&partition), &self.start) else { return Ok(None) };
        let offsets = start.offsets.get(&partition).map_or(&[][..], |committed| &committed.inputs);
        // The fold may contain events that were appended after the bounds were fetched; their causes prove nothing.
        let committed = offsets.iter().copied().chain(std::iter::repeat(None));
        let reached = recovery.witnessed().iter().zip(committed).map(|(witnessed, committed)| committed.or(*witnessed));
        let reached: Vec<Option<i64>> = reached.collect();
        let mut ended = recovery.finish(&self.contract, offsets, now_ms);
        if let Ok(task) = &mut ended {
            check_inputs(&self.contract, task, &reached, &start.bounds)?;
        }
        self.left.remove(&partition);
        Ok(Some(match ended {
            Ok(task) => RecoveryEnd::Recovered(Box::new(task)),
            Err(corruption) => RecoveryEnd::Refused(partition, corruption),
        }))
    }

    /// The decider.
    #[must_use]
    pub fn decider(&self) -> &D {
        &self.decider
    }
}
