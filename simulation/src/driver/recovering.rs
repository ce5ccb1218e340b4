//! A partition on its way to the barrier, step by step: stable committed offsets, then the ends of the own log and of what is
//! parked with open transactions counted, then the folds of committed records until they have passed these ends.

use std::collections::{BTreeMap, BTreeSet};

use runtime::{
    Decider,
    codec::Readers,
    core::{Contract, Folded, Record, Recovery, Task},
};

use super::{Kit, Violation, World, store::Store};
use crate::{
    cluster::{Fetched, Place},
    mutant::Mutant,
};

/// How many records one step folds at most.
const RECORDS_A_STEP: u64 = 12;

struct Fold<D: Decider> {
    recovery: Recovery<D>,
    mark: i64,
    position: i64,
    parked_mark: i64,
    parked_position: i64,
    committed: Vec<Option<i64>>,
}

impl<D: Decider> Fold<D> {
    /// Folds what is parked up to its end. Answers whether there was any of it.
    fn fold_parked(&mut self, contract: &Contract, world: &World, place: Place) -> Result<bool, Violation> {
        let topic = world.cluster.log.name(place.topic);
        let mut worked = false;
        loop {
            match world.cluster.log.read(place, self.parked_position) {
                Fetched::End(position) => {
                    self.parked_position = position;
                    return Ok(worked);
                }
                Fetched::Record { offset, stored } => {
                    let fold = |record: &Record<'_>| self.recovery.fold_parked(contract, record);
                    let folded = stored.with_record(topic, place.partition, offset, fold);
                    folded.map_err(|alarm| Violation::new("what is parked can be read", alarm.to_string()))?;
                    self.parked_position = offset + 1;
                    worked = true;
                }
            }
        }
    }
}

/// Partitions that recover together.
pub(crate) struct Recovering<D: Decider> {
    wanted: BTreeSet<i32>,
    committed: Option<BTreeMap<i32, Vec<Option<i64>>>>,
    folds: BTreeMap<i32, Fold<D>>,
    contract: Contract,
    readers: Readers,
    resumes_at_ms: i64,
}

impl<D: Decider> Recovering<D> {
    pub(crate) fn start(kit: &Kit<D>, readers: Readers, wanted: BTreeSet<i32>) -> Self {
        let contract = kit.contract.without_schemas();
        Self { wanted, committed: None, folds: BTreeMap::new(), contract, readers, resumes_at_ms: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    /// One step; `is_owner` says that the group still holds the process for a member. Answers the partitions that may decide, and
    /// whether anything was done.
    pub(crate) fn step(
        &mut self,
        kit: &Kit<D>,
        store: &mut Store,
        world: &mut World,
        (now_ms, is_owner): (i64, bool),
    ) -> Result<(Vec<Task<D>>, bool), Violation> {
        if self.committed.is_none() {
            return Ok((Vec::new(), self.ask_offsets(kit, world)));
        }
        if self.folds.is_empty() {
            self.place_marks(kit, store, world);
            return Ok((Vec::new(), true));
        }
        let Some(partition) = self.folds.keys().nth(world.chance.index(self.folds.len())).copied() else {
            return Ok((Vec::new(), false));
        };
        let worked = self.fold(kit, world, partition)?;
        let Some(fold) = self.folds.get(&partition) else { return Ok((Vec::new(), worked)) };
        let is_at_marks = fold.position >= fold.mark && fold.parked_position >= fold.parked_mark;
        let is_caught_up = is_at_marks || world.is(Mutant::TrustStore);
        if worked || !is_caught_up {
            if !worked && !is_caught_up {
                world.trace.sometimes("a recovery waits at its barrier");
            }
            return Ok((Vec::new(), worked));
        }
        Ok((self.finish(kit, world, partition, (now_ms, is_owner))?.into_iter().collect(), true))
    }

    fn ask_offsets(&mut self, kit: &Kit<D>, world: &mut World) -> bool {
        let is_careless = world.is(Mutant::UnstableOffsets);
        let group = world.cluster.group(kit.group);
        let offset = |place| if is_careless { Ok(group.offset(place)) } else { group.stable_offset(place) };
        let of_partition = |partition: i32| -> Result<Vec<Option<i64>>, ()> {
            kit.inputs.iter().map(|topic| offset(Place { topic: *topic, partition })).collect()
        };
        let asked: Result<BTreeMap<i32, Vec<Option<i64>>>, ()> =
            self.wanted.iter().map(|partition| Ok((*partition, of_partition(*partition)?))).collect();
        if asked.is_err() {
            world.trace.sometimes("a recovery waits for offsets to be stable");
        }
        self.committed = asked.ok();
        self.committed.is_some()
    }

    fn place_marks(&mut self, kit: &Kit<D>, store: &mut Store, world: &mut World) {
        let mut committed = self.committed.clone().unwrap_or_default();
        for partition in &self.wanted {
            let place = Place { topic: kit.events, partition: *partition };
            let mark = if world.is(Mutant::NoBarrier) { 0 } else { world.cluster.log.high_watermark(place) };
            let mut recovery = Recovery::new(kit.decider.clone(), &self.contract, *partition);
            if let Some(kept) = store.load(*partition, world.cluster.log.high_watermark(place)) {
                let entities = kept.entities.iter().map(|(key, bytes)| (&**key, &**bytes));
                let positions = kept.positions.iter().map(|(topic, position)| (&**topic, *position));
                if recovery.resume(&self.contract, kept.position, positions, entities).is_ok() {
                    world.trace.sometimes("a recovery begins at a checkpoint");
                } else {
                    world.trace.sometimes("a damaged checkpoint is thrown away");
                    store.forget(*partition);
                    recovery = Recovery::new(kit.decider.clone(), &self.contract, *partition);
                }
            }
            let position = recovery.next();
            let parked = Place { topic: kit.parked, partition: *partition };
            let is_careless = world.is(Mutant::NoBarrier) || world.is(Mutant::ForgetParked);
            let parked_mark = if is_careless { 0 } else { world.cluster.log.high_watermark(parked) };
            let committed = committed.remove(partition).unwrap_or_else(|| vec![None; kit.inputs.len()]);
            self.folds
                .insert(*partition, Fold { recovery, mark, position, parked_mark, parked_position: 0, committed });
        }
    }

    /// Folds some records of one partition. Answers false at the end.
    fn fold(&mut self, kit: &Kit<D>, world: &mut World, partition: i32) -> Result<bool, Violation> {
        let Some(fold) = self.folds.get_mut(&partition) else { return Ok(false) };
        if world.is(Mutant::TrustStore) || world.now_ms < self.resumes_at_ms {
            return Ok(false);
        }
        let place = Place { topic: kit.events, partition };
        let topic = world.cluster.log.name(kit.events).clone();
        let mut worked = !world.is(Mutant::ForgetParked)
            && fold.fold_parked(&self.contract, world, Place { topic: kit.parked, partition })?;
        for _ in 0..=world.chance.below(RECORDS_A_STEP) {
            match world.cluster.log.read(place, fold.position) {
                Fetched::End(position) => {
                    fold.position = position;
                    break;
                }
                Fetched::Record { offset, stored } => {
                    let folded = stored.with_record(&topic, partition, offset, |record| {
                        loop {
                            match fold.recovery.fold(&self.contract, record) {
                                Ok(Folded::NeedsSchema(schema)) => {
                                    self.contract.learn(schema, self.readers.schema(schema));
                                }
                                folded => return folded,
                            }
                        }
                    });
                    match folded {
                        Ok(Folded::Taken | Folded::NeedsSchema(_)) => fold.position = offset + 1,
                        Ok(Folded::Unready(_)) => {
                            world.trace.sometimes("a recovery waits for a schema");
                            self.contract.forget_failures();
                            self.resumes_at_ms = world.now_ms + 100;
                            return Ok(false);
                        }
                        Err(alarm) => return Err(Violation::new("no alarm on an own log", alarm.to_string())),
                    }
                    worked = true;
                }
            }
        }
        Ok(worked)
    }

    fn finish(
        &mut self,
        kit: &Kit<D>,
        world: &mut World,
        partition: i32,
        (now_ms, is_owner): (i64, bool),
    ) -> Result<Option<Task<D>>, Violation> {
        let Some(fold) = self.folds.remove(&partition) else { return Ok(None) };
        self.wanted.remove(&partition);
        if fold.committed.iter().all(Option::is_none) && fold.recovery.next() > 0 {
            world.trace.sometimes("input positions are recovered from the own log");
        }
        let task = fold.recovery.finish(&self.contract, &fold.committed, now_ms);
        if is_owner {
            let mut truth = kit.truth.borrow_mut();
            truth.catch_up(&world.cluster.log)?;
            truth.compare(partition, &task.states(), &format!("{} after its recovery", D::NAME))?;
        } else {
            // Others may have gone on behind its mark. It decides in vain: the fence refuses it.
            world.trace.sometimes("a recovery ends when its partition is somebody else's");
        }
        Ok(Some(task))
    }
}
