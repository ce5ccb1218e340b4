//! A machine that owns every partition of a log in memory.

use std::collections::BTreeMap;

use runtime_core::{
    CrashCount, Limits, LogCorruption, Machine, Need, ParkingLimits, ReceiveOutcome, Recovery, envelope::Position,
    message::Written, partition_of,
};

pub(crate) use crate::log::{DEAD_LETTERS, EVENTS, INBOX, NOW, PARKED, PARTITIONS, SOURCE, StoredRecord};
use crate::{
    log::{Log, UNAVAILABLE_SCHEMA},
    probe::{Probe, State},
};

pub(crate) struct Fixture {
    pub(crate) log: Log,
    pub(crate) probe: Probe,
    pub(crate) machine: Machine<Probe>,
    pub(crate) limits: Limits,
    pub(crate) parking: ParkingLimits,
    pub(crate) crashes: BTreeMap<Position, CrashCount>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::of(Probe::default())
    }

    pub(crate) fn of(probe: Probe) -> Self {
        let log = Log::default();
        let machine = Machine::new(probe.clone(), log.schemas.contract(&probe));
        let (limits, parking, crashes) = (Limits::default(), ParkingLimits::default(), BTreeMap::new());
        let mut fixture = Self { log, probe, machine, limits, parking, crashes };
        fixture.recover_all(&[]);
        fixture
    }

    /// What a process does at its start: folds the own log of every partition, then decides.
    pub(crate) fn recover_all(&mut self, committed: &[Option<i64>]) {
        let mut contract = self.log.schemas.contract(&self.probe);
        (contract.limits, contract.parking) = (self.limits, self.parking);
        let mut machine = Machine::new(self.probe.clone(), contract.clone()).with_crashes(self.crashes.clone());
        for partition in 0..PARTITIONS {
            machine.adopt(self.recovered(partition).unwrap().finish(&contract, committed, NOW).unwrap());
        }
        self.machine = machine;
    }

    pub(crate) fn recovered(&self, partition: i32) -> Result<Recovery<Probe>, LogCorruption> {
        let mut contract = self.log.schemas.contract(&self.probe);
        let mut recovery = Recovery::new(self.probe.clone(), &contract, partition);
        self.log.fold_into(&mut recovery, &mut contract)?;
        Ok(recovery)
    }

    pub(crate) fn append(&mut self, topic: &str, partition: i32, record: StoredRecord) -> i64 {
        self.log.append(topic, partition, record)
    }

    pub(crate) fn write(&mut self, topic: &str, key: &str, body: &impl Written) -> (i32, i64) {
        self.log.write(topic, key, body)
    }

    pub(crate) fn ping(&mut self, key: &str, target: &str, mode: &str, amount: i64) -> (i32, i64) {
        self.log.ping(key, target, mode, amount)
    }

    pub(crate) fn receive(&mut self, topic: &str, (partition, offset): (i32, i64)) -> ReceiveOutcome {
        let input = self.machine.contract().inputs.iter().position(|input| **input == *topic).unwrap();
        let Self { log, machine, .. } = self;
        log.at(topic, partition, offset).unwrap().with(topic, partition, offset, |record| {
            loop {
                match machine.receive(input, record, NOW + 5) {
                    ReceiveOutcome::NeedsSchema(schema) | ReceiveOutcome::NeedsSchemaAnew(schema) => {
                        machine.learn(schema, log.schemas.fetch(schema));
                    }
                    outcome => return outcome,
                }
            }
        })
    }

    /// Handles parked records whose turn it is.
    pub(crate) fn drain_parked(&mut self) {
        while let Some(Need::Schema(schema)) = self.machine.need_to_drain() {
            self.machine.learn(schema, self.log.schemas.fetch(schema));
        }
        self.machine.drain_parked(NOW + 5);
    }

    /// The transaction of the open batch succeeds.
    pub(crate) fn commit(&mut self) {
        let ends = self.log.append_batch(self.machine.batch());
        self.machine.committed(&ends, NOW + 5);
    }

    /// Receives everything that lies on the inputs, one batch at a time, until nothing is left.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut is_done = true;
            for topic in [SOURCE, INBOX] {
                for partition in 0..PARTITIONS {
                    for offset in 0..self.log.end(topic, partition) {
                        is_done &= self.receive(topic, (partition, offset)) != ReceiveOutcome::Done;
                    }
                }
            }
            self.commit();
            while self.machine.may_drain() {
                self.drain_parked();
                self.commit();
            }
            if is_done {
                return;
            }
        }
    }

    pub(crate) fn state(&self, entity: &str) -> State {
        let owner = partition_of(entity.as_bytes(), PARTITIONS);
        self.machine.task(owner).unwrap().state(entity).cloned().unwrap_or_default()
    }

    pub(crate) fn records_on(&self, topic: &str) -> Vec<(i32, i64, StoredRecord)> {
        self.log.records_on(topic)
    }

    pub(crate) fn states(&self) -> BTreeMap<String, (u64, State)> {
        let tasks = self.machine.tasks();
        tasks.flat_map(|task| task.states()).map(|(k, (n, s))| (k.to_owned(), (n, s.clone()))).collect()
    }
}

/// The framing of a body whose schema cannot be fetched now.
pub(crate) fn body_of_unavailable_schema() -> Vec<u8> {
    [&[0][..], &UNAVAILABLE_SCHEMA.to_be_bytes()].concat()
}
