//! The recovery of the partitions that one generation of the group has assigned: what to fetch, what to read, and when a
//! partition may decide.
//!
//! A driver asks [`Recoveries::step`] and reports what it found. Checkpoints may be opened on other threads: [`RecoveryStart`] has
//! all that it takes. A failure of the driver ends the attempt; the next one begins anew with the partitions that are left.

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

/// What a driver must do next for a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryStep {
    /// Fetch the group's committed offsets of every input, as stable.
    FetchOffsets,
    /// Fetch the bounds of the own log and of the parked topic, then those of every input, uncommitted records counted. In this order
    /// the inputs reach at least as far as the own log says.
    FetchBounds,
    /// Open checkpoints, and read the own log and the parked topic behind them.
    Read,
    /// Nothing: every partition has recovered or was refused.
    Done,
}

/// What the group has committed for a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommittedOffsets {
    /// The offset of each input.
    pub inputs: Vec<Option<i64>>,
    /// How far the own log was known to reach: the highest [end in the metadata](crate::log_bounds::own_end_of) of an offset.
    pub own_end: i64,
}

/// A checkpoint as the store has it.
pub struct LoadedCheckpoint<P, E> {
    /// The offset of the own log to continue from.
    pub position: i64,
    /// The positions of the inputs, by topic.
    pub inputs: P,
    /// The entities, by key.
    pub entities: E,
}

/// Where to begin to read a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// Its first record, whichever offset that has.
    Beginning,
    /// This offset.
    Offset(i64),
}

/// A log to be read: topic, partition, and where to begin.
pub type ReadFrom = (Arc<str>, i32, StartAt);

/// What all partitions of an attempt start from.
pub struct RecoveryStart {
    contract: Arc<ServiceContract>,
    offsets: BTreeMap<i32, CommittedOffsets>,
    bounds: AllBounds,
}

/// A partition whose checkpoint is open.
pub struct Opened<D: Decider> {
    recovery: Recovery<D>,
    /// The checkpoint was malformed, so the log is read from its beginning. The driver discards the checkpoint.
    pub discarded: Option<MalformedCheckpoint>,
}

impl RecoveryStart {
    /// Opens a partition at its checkpoint, if the own log is still what it was.
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

/// A log that is read at the barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Log {
    Own(i32),
    Parked(i32),
}

/// How the recovery of a partition ended.
pub enum RecoveryEnd<D: Decider> {
    /// It may decide.
    Recovered(Box<Task<D>>),
    /// It must not decide until an operator has acted.
    Refused(i32, LogCorruption),
}

/// The partitions that recover together.
pub struct Recoveries<D: Decider> {
    decider: D,
    contract: Arc<ServiceContract>,
    left: BTreeSet<i32>,
    barrier: Barrier<Log>,
    offsets: BTreeMap<i32, CommittedOffsets>,
    start: Option<Arc<RecoveryStart>>,
    reading: BTreeMap<i32, Recovery<D>>,
}

impl<D: Decider> Recoveries<D> {
    /// The recovery of these partitions.
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

    /// What to do next.
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

    /// The partitions that are being read.
    pub fn reading(&self) -> impl ExactSizeIterator<Item = i32> {
        self.reading.keys().copied()
    }

    /// The contract, to learn schemas with.
    #[must_use]
    pub fn contract(&self) -> &ServiceContract {
        &self.contract
    }

    /// The group's committed offsets, fetched as stable.
    pub fn offsets_fetched(&mut self, offsets: BTreeMap<i32, CommittedOffsets>) {
        self.offsets = offsets;
        self.barrier.offsets_fetched();
    }

    /// The bounds, fetched after that by a client that sees uncommitted records.
    pub fn bounds_fetched(&mut self, bounds: AllBounds) -> Arc<RecoveryStart> {
        let contract = &self.contract;
        let logs = self.left.iter().flat_map(|partition| {
            let end = |topic| bounds.of(topic, *partition).end;
            [
                (Log::Own(*partition), end(&contract.events_topic)),
                (Log::Parked(*partition), end(&contract.parked_topic)),
            ]
        });
        self.barrier.ends_fetched(logs.collect::<Vec<_>>());
        let start =
            RecoveryStart { contract: Arc::clone(contract), offsets: std::mem::take(&mut self.offsets), bounds };
        Arc::clone(self.start.insert(Arc::new(start)))
    }

    /// A checkpoint is open. Returns the logs to read behind it; none if there is nothing behind it.
    pub fn opened(&mut self, opened: Opened<D>) -> Vec<ReadFrom> {
        let Some(start) = &self.start else { return Vec::new() };
        let (contract, mut recovery) = (&self.contract, opened.recovery);
        let partition = recovery.partition();
        let end = |topic| start.bounds.of(topic, partition).end;
        recovery.asked_at(end(&contract.events_topic), end(&contract.parked_topic));
        let parked = start.bounds.of(&contract.parked_topic, partition);
        if parked.first == parked.end {
            // Nothing to read is nothing to wait for: no end would be reported with a position.
            self.barrier.reached(&Log::Parked(partition), parked.end);
        }
        self.barrier.reached(&Log::Own(partition), recovery.next());
        let mut read = Vec::new();
        if !self.is_at_barrier(partition) {
            read.push((Arc::clone(&contract.events_topic), partition, StartAt::Offset(recovery.next())));
            if !self.barrier.is_passed(&Log::Parked(partition)) {
                read.push((Arc::clone(&contract.parked_topic), partition, StartAt::Beginning));
            }
        }
        self.reading.insert(partition, recovery);
        read
    }

    fn is_at_barrier(&self, partition: i32) -> bool {
        self.barrier.is_passed(&Log::Own(partition)) && self.barrier.is_passed(&Log::Parked(partition))
    }

    /// Takes what was found when a schema was asked for.
    pub fn learn(&mut self, schema: SchemaRef, found: Result<&'static ReadSchema, DecodeError>) {
        // Loaders may still have the contract as it was: they need no schema.
        Arc::make_mut(&mut self.contract).learn(schema, found);
    }

    /// Forgets which schemas could not be had.
    pub fn forget_failures(&mut self) {
        Arc::make_mut(&mut self.contract).forget_failures();
    }

    /// Folds a record of the own log or of the parked topic. A corrupt log ends the partition's recovery: see the error.
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

    /// The reader of committed records has read everything of the own log before this position.
    pub fn reached_own(&mut self, partition: i32, position: i64) {
        let folded = self.reading.get(&partition).map_or(0, Recovery::next);
        self.barrier.reached(&Log::Own(partition), position.max(folded));
    }

    /// The reader of committed records has read everything of the parked topic before this position.
    pub fn reached_parked(&mut self, partition: i32, position: i64) {
        self.barrier.reached(&Log::Parked(partition), position);
    }

    /// The partitions that have reached the barrier since the last call.
    ///
    /// # Errors
    /// [`LogLoss`]: an input no longer holds what the partition has to continue from; the worker must stop for good.
    pub fn finish(&mut self, now_ms: TimestampMs) -> Result<Vec<RecoveryEnd<D>>, LogLoss> {
        let reached: Vec<i32> =
            self.reading.keys().copied().filter(|partition| self.is_at_barrier(*partition)).collect();
        reached.into_iter().filter_map(|partition| self.finish_one(partition, now_ms).transpose()).collect()
    }

    fn finish_one(&mut self, partition: i32, now_ms: TimestampMs) -> Result<Option<RecoveryEnd<D>>, LogLoss> {
        let (Some(recovery), Some(start)) = (self.reading.remove(&partition), &self.start) else { return Ok(None) };
        let offsets = start.offsets.get(&partition).map_or(&[][..], |committed| &committed.inputs);
        // Events may be folded that came after the bounds were asked for: their causes bear no witness.
        let committed = offsets.iter().copied().chain(std::iter::repeat(None));
        let reached = recovery.witnessed().iter().zip(committed).map(|(witnessed, committed)| committed.or(*witnessed));
        let reached: Vec<i64> = reached.map(|reached| reached.unwrap_or(0)).collect();
        let ended = recovery.finish(&self.contract, offsets, now_ms);
        if let Ok(task) = &ended {
            check_inputs(&self.contract, task, &reached, &start.bounds)?;
        }
        self.left.remove(&partition);
        Ok(Some(match ended {
            Ok(task) => RecoveryEnd::Recovered(Box::new(task)),
            Err(corruption) => RecoveryEnd::Refused(partition, corruption),
        }))
    }

    /// The decider that recovers.
    #[must_use]
    pub fn decider(&self) -> &D {
        &self.decider
    }
}
