//! The recovery of partitions: it executes the steps of the production [`Recoveries`] on the simulated cluster, a few records at a
//! time. The order of its questions, and when a partition may decide, is decided there.

use std::{collections::BTreeMap, sync::Arc};

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

use super::{Kit, Violation, World, store::Store};
use crate::{
    cluster::{Fetched, Place},
    mutant::Mutant,
};

/// How many records one step folds at most.
const RECORDS_A_STEP: u64 = 12;

/// The logs of a partition, as they are read.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    own: i64,
    parked: i64,
}

/// What one step came to.
pub(crate) struct Recovered<D: Decider> {
    pub(crate) tasks: Vec<Task<D>>,
    pub(crate) has_worked: bool,
}

/// Partitions that recover together.
pub(crate) struct Recovery<D: Decider> {
    recoveries: Recoveries<D>,
    reading: BTreeMap<i32, Reading>,
    readers: Readers,
    /// What a mutant asked too early.
    early_bounds: Option<AllBounds>,
    resumes_at_ms: i64,
}

impl<D: Decider> Recovery<D> {
    pub(crate) fn start(kit: &Kit<D>, readers: Readers, partitions: Vec<i32>) -> Self {
        let recoveries = Recoveries::new(kit.decider.clone(), kit.contract.without_schemas(), partitions);
        Self { recoveries, reading: BTreeMap::new(), readers, early_bounds: None, resumes_at_ms: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.recoveries.step() == RecoveryStep::Done
    }

    /// One step; `is_owner` says that the group still has the process for a member. The inner error is a log that does not hold what
    /// the store says.
    pub(crate) fn step(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        (now, is_owner): (Now, bool),
    ) -> Result<Result<Recovered<D>, String>, Violation> {
        let worked = |has_worked| Ok(Ok(Recovered { tasks: Vec::new(), has_worked }));
        match self.recoveries.step() {
            RecoveryStep::Done => worked(false),
            RecoveryStep::FetchOffsets => worked(self.fetch_offsets(kit, world)),
            RecoveryStep::FetchBounds => {
                let bounds = self.early_bounds.take().unwrap_or_else(|| self.bounds(kit, world));
                let start = self.recoveries.bounds_fetched(bounds);
                match self.open(kit, store, world, &start) {
                    Ok(()) => worked(true),
                    Err(loss) => Ok(Err(loss)),
                }
            }
            RecoveryStep::Read => {
                let has_worked = self.read(kit, world)?;
                let tasks = self.finish(kit, world, (now, is_owner))?;
                let has_worked = has_worked || !tasks.is_empty();
                if !has_worked {
                    world.trace.sometimes("a recovery waits at its barrier");
                }
                Ok(Ok(Recovered { tasks, has_worked }))
            }
        }
    }

    fn fetch_offsets(&mut self, kit: &Kit<D>, world: &mut World) -> bool {
        if world.is(Mutant::SwapQuestions) && self.early_bounds.is_none() {
            // The question that comes second is asked first.
            self.early_bounds = Some(self.bounds(kit, world));
            return true;
        }
        let is_careless = world.is(Mutant::UnstableOffsets);
        let group = world.cluster.group(kit.group);
        let of_partition = |partition: i32| -> Result<CommittedOffsets, ()> {
            let mut committed = CommittedOffsets::default();
            for topic in &kit.inputs {
                let place = Place { topic: *topic, partition };
                let found = if is_careless { group.offset(place) } else { group.stable_offset(place)? };
                committed.inputs.push(found.map(|offset| offset.next));
                committed.own_end = committed.own_end.max(found.map_or(0, |offset| offset.own_end));
            }
            Ok(committed)
        };
        let asked: Result<BTreeMap<i32, CommittedOffsets>, ()> =
            self.recoveries.left().iter().map(|partition| Ok((*partition, of_partition(*partition)?))).collect();
        match asked {
            Ok(offsets) => {
                self.recoveries.offsets_fetched(offsets);
                true
            }
            Err(()) => {
                world.trace.sometimes("a recovery waits for offsets to be stable");
                false
            }
        }
    }

    fn bounds(&self, kit: &Kit<D>, world: &World) -> AllBounds {
        let log = &world.cluster.log;
        let topics = || kit.inputs.iter().chain([&kit.events, &kit.parked]);
        let of = |topic: usize, partition: i32| {
            let end = log.high_watermark(Place { topic, partition });
            ((Arc::clone(log.name(topic)), partition), LogBounds { first: 0, end })
        };
        let left = self.recoveries.left();
        left.iter().flat_map(|partition| topics().map(move |topic| of(*topic, *partition))).collect()
    }

    fn open(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        start: &RecoveryStart,
    ) -> Result<(), String> {
        let partitions: Vec<i32> = self.recoveries.left().iter().copied().collect();
        for partition in partitions {
            let kept = store.load(partition);
            let had_checkpoint = kept.is_some();
            let checkpoint = kept.as_ref().map(|kept| LoadedCheckpoint {
                position: kept.position,
                inputs: kept.positions.iter().map(|(topic, position)| (&**topic, *position)),
                entities: kept.entities.iter().map(|(key, bytes)| (&**key, &**bytes)),
            });
            let opened = start.open(&kit.decider, partition, checkpoint).map_err(|loss| loss.to_string())?;
            if opened.discarded.is_some() {
                world.trace.sometimes("a damaged checkpoint is thrown away");
                store.forget(partition);
            } else if had_checkpoint {
                world.trace.sometimes("a recovery begins at a checkpoint");
            }
            let mut reading = Reading::default();
            for (topic, _, at) in self.recoveries.opened(opened) {
                let from = match at {
                    StartAt::Beginning => 0,
                    StartAt::Offset(offset) => offset,
                };
                let is_own = *topic == *kit.contract.events_topic;
                *(if is_own { &mut reading.own } else { &mut reading.parked }) = from;
            }
            self.reading.insert(partition, reading);
            self.tell_falsely_at_start(world, partition);
        }
        Ok(())
    }

    /// A false answer of the world: what a mutant has not read is said to be read.
    fn tell_falsely_at_start(&mut self, world: &World, partition: i32) {
        if world.is(Mutant::TrustStore) {
            self.recoveries.reached_own(partition, i64::MAX);
            self.recoveries.reached_parked(partition, i64::MAX);
        }
        if world.is(Mutant::ForgetParked) {
            self.recoveries.reached_parked(partition, i64::MAX);
        }
    }

    /// Reads some of what one of the partitions lacks. Returns whether there was any of it.
    fn read(&mut self, kit: &Kit<D>, world: &mut World) -> Result<bool, Violation> {
        let partitions: Vec<i32> = self.recoveries.reading().collect();
        if partitions.is_empty() || world.now_ms < self.resumes_at_ms {
            return Ok(false);
        }
        let partition = *world.chance.pick(&partitions);
        let mut reading = self.reading.get(&partition).copied().unwrap_or_default();
        let parked = Place { topic: kit.parked, partition };
        let mut has_worked =
            !world.is(Mutant::ForgetParked) && self.fold_from(world, parked, &mut reading.parked, u64::MAX)?;
        let most = 1 + world.chance.below(RECORDS_A_STEP);
        has_worked |= self.fold_from(world, Place { topic: kit.events, partition }, &mut reading.own, most)?;
        self.reading.insert(partition, reading);
        Ok(has_worked)
    }

    /// Folds the committed records of a log from a position on, at most so many. Returns whether there was any.
    fn fold_from(&mut self, world: &mut World, place: Place, next: &mut i64, most: u64) -> Result<bool, Violation> {
        let topic = Arc::clone(world.cluster.log.name(place.topic));
        let mut has_worked = false;
        for _ in 0..most {
            match world.cluster.log.read(place, *next) {
                Fetched::End(position) => {
                    *next = position;
                    let told = if world.is(Mutant::NoBarrier) { i64::MAX } else { position };
                    if *topic == *self.recoveries.contract().events_topic {
                        self.recoveries.reached_own(place.partition, told);
                    } else {
                        self.recoveries.reached_parked(place.partition, told);
                    }
                    break;
                }
                Fetched::Record { offset, stored } => {
                    let recoveries = &mut self.recoveries;
                    let readers = &self.readers;
                    let folded = stored.with_record(&topic, place.partition, offset, |record| {
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
                            return Err(Violation::new("no alarm on an own log", corruption.to_string()));
                        }
                    }
                    has_worked = true;
                }
            }
        }
        Ok(has_worked)
    }

    fn finish(
        &mut self,
        kit: &Kit<D>,
        world: &mut World,
        (now, is_owner): (Now, bool),
    ) -> Result<Vec<Task<D>>, Violation> {
        let ended = self.recoveries.finish(now.wall_ms);
        let mut tasks = Vec::new();
        for ended in ended.map_err(|loss| Violation::new("no log loses anything", loss.to_string()))? {
            match ended {
                RecoveryEnd::Refused(_, corruption) => {
                    return Err(Violation::new("no alarm on an own log", corruption.to_string()));
                }
                RecoveryEnd::Recovered(task) if is_owner => {
                    let mut truth = kit.truth.borrow_mut();
                    truth.catch_up(&world.cluster.log)?;
                    truth.compare(&task, &format!("{} after its recovery", D::NAME))?;
                    tasks.push(*task);
                }
                RecoveryEnd::Recovered(task) => {
                    // Others may have written behind its barrier. It decides in vain: the fence refuses it.
                    world.trace.sometimes("a recovery ends when its partition is somebody else's");
                    tasks.push(*task);
                }
            }
        }
        Ok(tasks)
    }
}
