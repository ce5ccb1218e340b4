//! The recovery of partitions: it executes the steps of the production [`Recoveries`] on the simulated cluster, a few records at
//! a time. [`Recoveries`] decides the order of the steps, and when a partition may decide.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use runtime::{
    Decider,
    codec::Readers,
    core::{
        FoldOutcome, Task,
        log_bounds::{AllBounds, LogBounds},
        recoveries::{
            CommittedOffsets, LoadedCheckpoint, Recoveries, RecoveryEnd, RecoveryStart, RecoveryStep, StartAt,
        },
        turn::Now,
    },
};

use super::{ServiceContext, Violation, World, store::Store};
use crate::{
    cluster::{Fetched, TopicPartition},
    mutant::Mutant,
};

/// The maximum of records that one step folds.
const RECORDS_A_STEP: u64 = 12;

/// How far the logs of a partition have been read.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    own: i64,
    parked: i64,
}

/// The result of one step.
pub(crate) struct Recovered<D: Decider> {
    pub(crate) tasks: Vec<Task<D>>,
    pub(crate) has_worked: bool,
}

/// Partitions that recover together.
pub(crate) struct RecoveryDriver<D: Decider> {
    recoveries: Recoveries<D>,
    reading: BTreeMap<i32, Reading>,
    readers: Readers,
    /// The bounds that a mutant has fetched too early.
    early_bounds: Option<AllBounds>,
    /// The partitions of which the group has no committed offset.
    without_offsets: BTreeSet<i32>,
    resumes_at_ms: i64,
}

impl<D: Decider> RecoveryDriver<D> {
    pub(crate) fn start(service: &ServiceContext<D>, readers: Readers, partitions: Vec<i32>) -> Self {
        let recoveries = Recoveries::new(service.decider.clone(), service.contract.without_schemas(), partitions);
        Self {
            recoveries,
            reading: BTreeMap::new(),
            readers,
            early_bounds: None,
            without_offsets: BTreeSet::new(),
            resumes_at_ms: 0,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.recoveries.step() == RecoveryStep::Done
    }

    /// One step; `is_owner` means that the process is still a member of the present generation. The inner error is a log that
    /// lacks records which the store proves.
    pub(crate) fn step(
        &mut self,
        service: &ServiceContext<D>,
        store: &mut Store,
        world: &mut World,
        (now, is_owner): (Now, bool),
    ) -> Result<Result<Recovered<D>, String>, Violation> {
        let worked = |has_worked| Ok(Ok(Recovered { tasks: Vec::new(), has_worked }));
        match self.recoveries.step() {
            RecoveryStep::Done => worked(false),
            RecoveryStep::FetchOffsets => worked(self.fetch_offsets(service, world)),
            RecoveryStep::FetchBounds => {
                let bounds = self.early_bounds.take().unwrap_or_else(|| self.bounds(service, world));
                let start = self.recoveries.bounds_fetched(bounds);
                match self.open(service, store, world, &start) {
                    Ok(()) => worked(true),
                    Err(loss) => Ok(Err(loss)),
                }
            }
            RecoveryStep::Read => {
                let has_worked = self.read(service, world)?;
                let tasks = match self.finish(service, world, (now, is_owner))? {
                    Ok(tasks) => tasks,
                    Err(loss) => return Ok(Err(loss)),
                };
                let has_worked = has_worked || !tasks.is_empty();
                if !has_worked {
                    world.trace.sometimes("a recovery waits at its barrier");
                }
                Ok(Ok(Recovered { tasks, has_worked }))
            }
        }
    }

    fn fetch_offsets(&mut self, service: &ServiceContext<D>, world: &mut World) -> bool {
        if world.is(Mutant::SwapFetches) && self.early_bounds.is_none() {
            // The second step is executed first.
            self.early_bounds = Some(self.bounds(service, world));
            return true;
        }
        let ignores_pending = world.is(Mutant::UnstableOffsets);
        let group = world.cluster.group(service.group);
        let of_partition = |partition: i32| -> Result<CommittedOffsets, ()> {
            let mut committed = CommittedOffsets::default();
            for topic in &service.inputs {
                let topic_partition = TopicPartition { topic: *topic, partition };
                let found = if ignores_pending {
                    group.offset(topic_partition)
                } else {
                    group.stable_offset(topic_partition)?
                };
                committed.inputs.push(found.map(|offset| offset.next));
                committed.own_end = committed.own_end.max(found.map_or(0, |offset| offset.own_end));
            }
            Ok(committed)
        };
        let fetched: Result<BTreeMap<i32, CommittedOffsets>, ()> =
            self.recoveries.left().iter().map(|partition| Ok((*partition, of_partition(*partition)?))).collect();
        match fetched {
            Ok(offsets) => {
                let has_none = |of: &CommittedOffsets| of.inputs.iter().all(Option::is_none);
                let without = offsets.iter().filter(|(_, of)| has_none(of));
                self.without_offsets = without.map(|(partition, _)| *partition).collect();
                self.recoveries.offsets_fetched(offsets);
                true
            }
            Err(()) => {
                world.trace.sometimes("a recovery waits for offsets to be stable");
                false
            }
        }
    }

    fn bounds(&self, service: &ServiceContext<D>, world: &World) -> AllBounds {
        let log = &world.cluster.log;
        let topics = || service.inputs.iter().chain([&service.events, &service.parked]);
        let of = |topic: usize, partition: i32| {
            let topic_partition = TopicPartition { topic, partition };
            let first = if world.is(Mutant::NoLogStart) { 0 } else { log.first(topic_partition) };
            ((Arc::clone(log.name(topic)), partition), LogBounds { first, end: log.high_watermark(topic_partition) })
        };
        let left = self.recoveries.left();
        left.iter().flat_map(|partition| topics().map(move |topic| of(*topic, *partition))).collect()
    }

    fn open(
        &mut self,
        service: &ServiceContext<D>,
        store: &mut Store,
        world: &mut World,
        start: &RecoveryStart,
    ) -> Result<(), String> {
        let partitions: Vec<i32> = self.recoveries.left().iter().copied().collect();
        for partition in partitions {
            let loaded = store.load(partition);
            let had_checkpoint = loaded.is_some();
            let checkpoint = loaded.as_ref().map(|loaded| LoadedCheckpoint {
                position: loaded.position,
                inputs: loaded.positions.iter().map(|(topic, position)| (&**topic, *position)),
                entities: loaded.entities.iter().map(|(key, bytes)| (&**key, &**bytes)),
            });
            let opened = start.open(&service.decider, partition, checkpoint).map_err(|loss| loss.to_string())?;
            if opened.discarded.is_some() {
                world.trace.sometimes("a malformed checkpoint is discarded");
                store.forget(partition);
            } else if had_checkpoint {
                world.trace.sometimes("a recovery starts at a checkpoint");
            }
            let mut reading = Reading::default();
            for (topic, _, at) in self.recoveries.opened(opened) {
                let from = match at {
                    StartAt::Beginning => 0,
                    StartAt::Offset(offset) => offset,
                };
                let is_own = *topic == *service.contract.events_topic;
                *(if is_own { &mut reading.own } else { &mut reading.parked }) = from;
            }
            self.reading.insert(partition, reading);
            self.report_false_positions(world, partition);
        }
        Ok(())
    }

    /// The false answer of a mutant: reports logs as read that were not read.
    fn report_false_positions(&mut self, world: &World, partition: i32) {
        if world.is(Mutant::TrustStore) {
            self.recoveries.reached_own(partition, i64::MAX);
            self.recoveries.reached_parked(partition, i64::MAX);
        }
        if world.is(Mutant::ForgetParked) {
            self.recoveries.reached_parked(partition, i64::MAX);
        }
    }

    /// Reads some of the missing records of one partition. Returns whether there were any.
    fn read(&mut self, service: &ServiceContext<D>, world: &mut World) -> Result<bool, Violation> {
        let partitions: Vec<i32> = self.recoveries.reading().collect();
        if partitions.is_empty() || world.now_ms < self.resumes_at_ms {
            return Ok(false);
        }
        let partition = *world.random.pick(&partitions);
        let mut reading = self.reading.get(&partition).copied().unwrap_or_default();
        let parked = TopicPartition { topic: service.parked, partition };
        let mut has_worked =
            !world.is(Mutant::ForgetParked) && self.fold_from(world, parked, &mut reading.parked, u64::MAX)?;
        let max_records = 1 + world.random.below(RECORDS_A_STEP);
        has_worked |=
            self.fold_from(world, TopicPartition { topic: service.events, partition }, &mut reading.own, max_records)?;
        self.reading.insert(partition, reading);
        Ok(has_worked)
    }

    /// Folds the committed records of a log from a position on, up to a maximum. Returns whether there were any.
    fn fold_from(
        &mut self,
        world: &mut World,
        topic_partition: TopicPartition,
        next: &mut i64,
        max_records: u64,
    ) -> Result<bool, Violation> {
        let topic = Arc::clone(world.cluster.log.name(topic_partition.topic));
        let mut has_worked = false;
        for _ in 0..max_records {
            match world.cluster.log.read(topic_partition, *next) {
                Fetched::End(position) => {
                    *next = position;
                    let reported = if world.is(Mutant::NoBarrier) { i64::MAX } else { position };
                    if *topic == *self.recoveries.contract().events_topic {
                        self.recoveries.reached_own(topic_partition.partition, reported);
                    } else {
                        self.recoveries.reached_parked(topic_partition.partition, reported);
                    }
                    break;
                }
                Fetched::Record { offset, stored } => {
                    let recoveries = &mut self.recoveries;
                    let readers = &self.readers;
                    let folded = stored.with_record(&topic, topic_partition.partition, offset, |record| {
                        loop {
                            match recoveries.receive(record) {
                                Ok(FoldOutcome::NeedsSchema(schema)) => {
                                    recoveries.learn(schema, readers.schema(schema));
                                }
                                folded => return folded,
                            }
                        }
                    });
                    match folded {
                        Ok(FoldOutcome::Taken | FoldOutcome::NeedsSchema(_)) => *next = offset + 1,
                        Ok(FoldOutcome::SchemaUnavailable(_)) => {
                            world.trace.sometimes("a recovery waits for a schema");
                            self.recoveries.forget_failures();
                            self.resumes_at_ms = world.now_ms + 100;
                            return Ok(has_worked);
                        }
                        Err(corruption) => {
                            return Err(Violation::new("the own log is not corrupt", corruption.to_string()));
                        }
                    }
                    has_worked = true;
                }
            }
        }
        Ok(has_worked)
    }

    /// Ends the recoveries that have reached the barrier. The inner error is an input that lacks unread records.
    fn finish(
        &mut self,
        service: &ServiceContext<D>,
        world: &mut World,
        (now, is_owner): (Now, bool),
    ) -> Result<Result<Vec<Task<D>>, String>, Violation> {
        let ended = match self.recoveries.finish(now.wall_ms) {
            Ok(ended) => ended,
            Err(loss) => return Ok(Err(loss.to_string())),
        };
        let mut tasks = Vec::new();
        for ended in ended {
            match ended {
                RecoveryEnd::Refused(_, corruption) => {
                    return Err(Violation::new("the own log is not corrupt", corruption.to_string()));
                }
                RecoveryEnd::Recovered(task) if is_owner => {
                    if self.without_offsets.contains(&task.partition()) && task.own_next() > 0 {
                        world.trace.sometimes("input positions are recovered from the own log");
                    }
                    let mut reference = service.reference.borrow_mut();
                    reference.catch_up(&world.cluster.log)?;
                    reference.compare(&task, &format!("{} after its recovery", D::NAME))?;
                    tasks.push(*task);
                }
                RecoveryEnd::Recovered(task) => {
                    // The new owner may have written behind this barrier. The fence refuses what this process decides.
                    world.trace.sometimes("a recovery ends after its partition was reassigned");
                    tasks.push(*task);
                }
            }
        }
        Ok(Ok(tasks))
    }
}
