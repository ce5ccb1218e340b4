//! How an incarnation gathers records: it offers them to the turn one at a time, from random partitions, and reports how far it
//! has read.

use std::{rc::Rc, sync::Arc};

use runtime::{
    Decider,
    codec::DecodeError,
    core::turn::{Now, Offer},
};
use uuid::Uuid;

use super::{Incarnation, IncarnationEnd, StepOutcome};
use crate::{
    cluster::{Fetched, StoredRecord, TopicPartition},
    driver::{ServiceContext, Violation, World, faulty::BugSite, store::Store},
    faults::Fault,
    mutant::Mutant,
};

/// How far each partition of each input was fetched.
pub(super) struct FetchPositions {
    partitions: usize,
    next: Vec<i64>,
}

impl FetchPositions {
    pub(super) fn new(inputs: usize, partitions: i32) -> Self {
        let partitions = usize::try_from(partitions).unwrap_or(1);
        Self { partitions, next: vec![0; inputs * partitions] }
    }

    fn at(&self, input: usize, partition: i32) -> usize {
        input * self.partitions + usize::try_from(partition).unwrap_or(0)
    }

    pub(super) fn of(&self, input: usize, partition: i32) -> i64 {
        self.next[self.at(input, partition)]
    }

    pub(super) fn set(&mut self, input: usize, partition: i32, next: i64) {
        let at = self.at(input, partition);
        self.next[at] = next;
    }
}

impl<D: Decider> Incarnation<D> {
    /// Offers some of the available records, beginning at a random partition.
    pub(super) fn gather(
        &mut self,
        service: &ServiceContext<D>,
        store: &mut Store,
        world: &mut World,
        (process, now): (&str, Now),
    ) -> Result<StepOutcome, Violation> {
        let mut taken = false;
        if let Some((input, partition, offset)) = self.postponed.take()
            && self.reading.contains(&partition)
        {
            self.fetched.set(input, partition, offset);
            taken = self.offer_next(service, store, world, (input, partition), (process, now))?;
        }
        if !self.reading.is_empty() && self.postponed.is_none() {
            let (mut left, partitions) = (1 + world.random.below(8), self.reading.len() * service.inputs.len());
            let first = world.random.index(partitions);
            if self.read_all != Some(world.cluster.log.changes()) {
                let reading: Vec<i32> = self.reading.iter().copied().collect();
                for at in (first..partitions).chain(0..first) {
                    let next = (at / reading.len(), reading[at % reading.len()]);
                    while left > 0 && self.has_room() {
                        if !self.offer_next(service, store, world, next, (process, now))? {
                            break;
                        }
                        taken = true;
                        left -= 1;
                    }
                }
                self.read_all = (!taken && self.has_room()).then(|| world.cluster.log.changes());
            }
        }
        self.turn.gathering_ended(self.client.has_change());
        if self.is_out_of_range {
            let reason = "an input no longer has the records to continue from";
            return Ok(StepOutcome::Ended(IncarnationEnd::Failed(reason.to_owned())));
        }
        Ok(if taken { StepOutcome::Worked } else { StepOutcome::Idle })
    }

    fn has_room(&self) -> bool {
        self.turn.has_room() || self.filter.overfills()
    }

    /// Offers the next record of a partition of an input. Returns false if there is none, or if it must wait.
    fn offer_next(
        &mut self,
        service: &ServiceContext<D>,
        store: &mut Store,
        world: &mut World,
        (input, partition): (usize, i32),
        (process, now): (&str, Now),
    ) -> Result<bool, Violation> {
        let topic_partition = TopicPartition { topic: service.inputs[input], partition };
        let from = self.fetched.of(input, partition);
        let log = &world.cluster.log;
        if from < log.first(topic_partition) {
            self.is_out_of_range = true;
            return Ok(false);
        }
        let fetched = if world.is(Mutant::ReadUncommitted) {
            log.read_uncommitted(topic_partition, from)
        } else {
            log.read(topic_partition, from)
        };
        let (offset, stored) = match fetched {
            Fetched::End(position) => {
                // As the client does, it reports an end once.
                if position > from && !world.is(Mutant::ForgetEnds) {
                    self.turn.reached_end(partition);
                }
                self.fetched.set(input, partition, position);
                return Ok(false);
            }
            Fetched::Record { offset, stored } => (offset, stored),
        };
        let topic = Arc::clone(world.cluster.log.name(topic_partition.topic));
        if self.turn.skips(input, partition, offset, stored.value.as_deref(), now) {
            self.fetched.set(input, partition, offset + 1);
            return Ok(true);
        }
        inject_bug(service, world, &stored, process);
        let shown = if world.is(Mutant::NoDedupe) { Rc::new(without_id(&stored)) } else { Rc::clone(&stored) };
        let offered = self.offer(store, world, (input, partition, offset), &topic, &shown, now)?;
        world.trace.note(stored.header("ce_correlationid"), || {
            let name = stored.header("ce_type").and_then(|name| name.rsplit('.').next()).unwrap_or("?");
            let held = self.turn.hold_reason(partition).map(|held| held.reason.as_str()).unwrap_or_default();
            format!("{process} receives {topic}/{partition}/{offset} {name}: {offered:?} {held}")
        });
        if offered == Offer::CommitFirst {
            world.trace.sometimes("a record that lost a state is decided in a batch of its own");
            // The client has delivered it all the same.
            self.postponed = Some((input, partition, offset));
            self.fetched.set(input, partition, offset + 1);
            return Ok(false);
        }
        self.fetched.set(input, partition, offset + 1);
        Ok(true)
    }

    /// Offers a record until the turn has all that it needs for it.
    fn offer(
        &mut self,
        store: &mut Store,
        world: &mut World,
        (input, partition, offset): (usize, i32, i64),
        topic: &str,
        shown: &StoredRecord,
        now: Now,
    ) -> Result<Offer, Violation> {
        loop {
            let offer = shown.with_record(topic, partition, offset, |record| self.turn.offer(input, record, now));
            match offer {
                Offer::NeedsSchemaAnew(schema) => self.turn.learn(schema, self.readers.schema_anew(schema)),
                Offer::NeedsSchema(schema) => {
                    let found = self.readers.schema(schema);
                    if world.is(Mutant::TransientIsPoison) && found.as_ref().is_err_and(DecodeError::is_transient) {
                        return Ok(Offer::Taken);
                    }
                    self.turn.learn(schema, found);
                }
                Offer::NeedsEntity(key) => {
                    if let StepOutcome::Ended(_) = self.load_entity(store, world, partition, &key)? {
                        return Ok(Offer::CommitFirst);
                    }
                }
                offer => return Ok(offer),
            }
        }
    }

    pub(super) fn load_entity(
        &mut self,
        store: &mut Store,
        world: &mut World,
        partition: i32,
        key: &str,
    ) -> Result<StepOutcome, Violation> {
        world.trace.sometimes("an entity is loaded from the store");
        let loaded = store.entity(partition, key).map(|bytes| self.turn.load(partition, key, bytes));
        match loaded {
            Some(Ok(())) => Ok(StepOutcome::Idle),
            _ => Err(Violation::new("an evicted entity is in the store", format!("{key} of partition {partition}"))),
        }
    }

    pub(super) fn fetch_ends(&mut self, service: &ServiceContext<D>, world: &World, partitions: &[i32], now: Now) {
        for partition in partitions {
            let end = |topic: &usize| {
                let topic_partition = TopicPartition { topic: *topic, partition: *partition };
                if world.is(Mutant::TimersOvertake) { 0 } else { world.cluster.log.stable_end(topic_partition) }
            };
            self.turn.ends(*partition, now.wall_ms, service.inputs.iter().map(end).collect());
        }
    }

    pub(super) fn read_positions(
        &mut self,
        service: &ServiceContext<D>,
        world: &mut World,
        partitions: &[i32],
        now: Now,
    ) {
        for partition in partitions {
            let reached: Vec<i64> = (0..service.inputs.len()).map(|input| self.fetched.of(input, *partition)).collect();
            let has_timer = self.turn.machine().waits_for_positions().contains(partition);
            let before = self.turn.batch().outputs().len();
            self.turn.reached(*partition, &reached, now);
            if has_timer {
                let fired = self.turn.batch().outputs().len() > before;
                world.trace.sometimes(if fired { "a timer fires" } else { "a timer waits for earlier input" });
            }
        }
    }
}

/// Gives the decider a bug that this input triggers, if the fault is injected.
fn inject_bug<D: Decider>(service: &ServiceContext<D>, world: &mut World, stored: &StoredRecord, process: &str) {
    if world.injects(Fault::DeciderBug, process)
        && let Some(id) = stored.header("ce_id").and_then(|id| Uuid::parse_str(id).ok())
    {
        let loses_state = world.faults.extent().permille(300);
        service.bugs.fail_on(id, if loses_state { BugSite::Evolve } else { BugSite::Decide });
    }
}

/// The same record without its id, so that it is not recognised as handled.
fn without_id(stored: &StoredRecord) -> StoredRecord {
    let mut shown = stored.clone();
    for (name, value) in &mut shown.headers {
        if name == "ce_id" {
            *value = None;
        }
    }
    shown
}
