//! A log in memory and one worker's machine that owns every partition.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use runtime::{
    Message, Written,
    codec::{Readers, RegisteredSchema, SchemaRef, SchemaSource, Writers},
    core::{
        Contract, ContractNames, CrashCount, Folded, Limits, LogCorruption, Machine, Need, OutHeaders, Outcome,
        ParkingCommand, ParkingLimits, Record, Recovery, RuntimeRecord, Target, partition_of, written_by,
    },
    envelope::{Envelope, Position, derived_id},
    registry::RegistryError,
};

use crate::probe::{Command, Event, Pinged, Probe, Source, State};

pub(crate) const PARTITIONS: i32 = 4;
pub(crate) const NOW: i64 = 1_760_000_000_000;
pub(crate) const INBOX: &str = "musiccorp.probe.inbox";
pub(crate) const SOURCE: &str = "musiccorp.source.events";
pub(crate) const EVENTS: &str = "musiccorp.probe.events";
pub(crate) const DEAD: &str = "dlq.musiccorp.probe";
pub(crate) const PARKED: &str = "musiccorp.probe.parked";

#[derive(Default)]
pub(crate) struct Table(Mutex<Vec<String>>);

impl Table {
    pub(crate) fn id_of(&self, text: &str) -> u32 {
        let mut texts = self.0.lock().unwrap();
        let at = texts.iter().position(|known| known == text).unwrap_or_else(|| {
            texts.push(text.to_owned());
            texts.len() - 1
        });
        u32::try_from(at).unwrap() + 1
    }
}

impl SchemaSource for Table {
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, RegistryError> {
        let SchemaRef::Id(id) = schema else { panic!("ids only") };
        if id == 77 {
            let (url, operation) = ("table".to_owned(), "answer".to_owned());
            return Err(RegistryError::Unavailable { url, operation, reason: "out for lunch".to_owned() });
        }
        match self.0.lock().unwrap().get(id as usize - 1) {
            Some(text) => Ok(RegisteredSchema { id: Some(id), version: Some(1), text: text.as_str().into() }),
            None => Err(RegistryError::Refused {
                url: "table".to_owned(),
                operation: "find".to_owned(),
                code: 422,
                message: "no such schema".to_owned(),
            }),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Stored {
    pub(crate) fn envelope(&self, topic: &str, partition: i32, offset: i64) -> Envelope {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
        self.record(topic, partition, offset, &headers).envelope().unwrap()
    }

    pub(crate) fn record<'a>(
        &'a self,
        topic: &'a str,
        partition: i32,
        offset: i64,
        headers: &'a [(&'a str, Option<&'a [u8]>)],
    ) -> Record<'a> {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        Record { topic, partition, offset, timestamp_ms: self.timestamp_ms, key, value, headers }
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rev().find(|(known, _)| known == name)?;
        value.clone().map(|bytes| String::from_utf8(bytes).unwrap())
    }
}

/// A log in memory and one worker's machine that owns every partition.
pub(crate) struct World {
    pub(crate) table: Arc<Table>,
    pub(crate) log: BTreeMap<(String, i32), Vec<Stored>>,
    pub(crate) probe: Probe,
    pub(crate) machine: Machine<Probe>,
    pub(crate) said: u64,
    pub(crate) limits: Limits,
    pub(crate) parking: ParkingLimits,
    pub(crate) suspects: BTreeMap<Position, CrashCount>,
}

pub(crate) fn contract(table: &Arc<Table>, probe: &Probe) -> Contract {
    let ids = |_: &str, text: &str| Ok(table.id_of(text));
    let writers = Writers::with_ids("musiccorp", &written_by::<Probe>(), ids).unwrap();
    let names =
        ContractNames { system: "musiccorp", group: "musiccorp.probe", build: "test-build", partitions: PARTITIONS };
    Contract::of(probe, names, writers).unwrap()
}

fn readers(table: &Arc<Table>) -> Readers {
    Readers::new(Arc::clone(table) as Arc<dyn SchemaSource>)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(Probe::default())
    }

    pub(crate) fn of(probe: Probe) -> Self {
        let table = Arc::new(Table::default());
        let machine = Machine::new(probe.clone(), contract(&table, &probe));
        let (limits, parking, suspects) = (Limits::default(), ParkingLimits::default(), BTreeMap::new());
        let mut world = Self { table, log: BTreeMap::new(), probe, machine, said: 0, limits, parking, suspects };
        world.recover_all(&[]);
        world
    }

    /// What a process does at its start: folds the own log of every partition, then decides.
    pub(crate) fn recover_all(&mut self, committed: &[Option<i64>]) {
        let mut limited = contract(&self.table, &self.probe);
        limited.limits = self.limits;
        limited.parking = self.parking;
        let mut machine = Machine::new(self.probe.clone(), limited).with_crashes(self.suspects.clone());
        for partition in 0..PARTITIONS {
            let task = self.recovered(partition).unwrap();
            let contract = contract(&self.table, &self.probe);
            machine.adopt(task.finish(&contract, committed, NOW).unwrap());
        }
        self.machine = machine;
    }

    pub(crate) fn recovered(&self, partition: i32) -> Result<Recovery<Probe>, LogCorruption> {
        let mut contract = contract(&self.table, &self.probe);
        let mut recovery = Recovery::new(self.probe.clone(), &contract, partition);
        self.fold_into(&mut recovery, &mut contract)?;
        Ok(recovery)
    }

    pub(crate) fn fold_into(
        &self,
        recovery: &mut Recovery<Probe>,
        contract: &mut Contract,
    ) -> Result<(), LogCorruption> {
        let partition = recovery.partition();
        let parked = self.log.get(&(PARKED.to_owned(), partition)).into_iter().flatten();
        for (offset, stored) in (0..).zip(parked) {
            let headers: Vec<_> = stored.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
            recovery.fold_parked(contract, &stored.record(PARKED, partition, offset, &headers))?;
        }
        let Some(records) = self.log.get(&(EVENTS.to_owned(), partition)) else { return Ok(()) };
        for (offset, stored) in (0..).zip(records) {
            let headers: Vec<_> = stored.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
            let record = stored.record(EVENTS, partition, offset, &headers);
            while let Folded::NeedsSchema(schema) = recovery.fold(contract, &record)? {
                contract.learn(schema, readers(&self.table).schema(schema));
            }
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, topic: &str, partition: i32, stored: Stored) -> i64 {
        let records = self.log.entry((topic.to_owned(), partition)).or_default();
        records.push(stored);
        i64::try_from(records.len()).unwrap() - 1
    }

    /// Writes a record as its owner would, under a new id.
    pub(crate) fn write(&mut self, topic: &str, key: &str, body: &impl Written) -> (i32, i64) {
        self.said += 1;
        let writers = Writers::with_ids("musiccorp", &all_records(), |_, text| Ok(self.table.id_of(text))).unwrap();
        let mut value = Vec::new();
        let name = Arc::clone(writers.encode(body, &mut value).unwrap());
        let id = derived_id(&["test", &self.said.to_string()]);
        let envelope = Envelope::new(id, "/test", name, NOW).about(key).correlated(format!("saga of {key}"));
        let mut headers = Vec::new();
        envelope.for_each_header(|name, value| headers.push((name.to_owned(), Some(value.as_bytes().to_vec()))));
        let partition = partition_of(key.as_bytes(), PARTITIONS);
        let stored = Stored { timestamp_ms: NOW, key: Some(key.into()), value: Some(value), headers };
        (partition, self.append(topic, partition, stored))
    }

    pub(crate) fn ping(&mut self, key: &str, target: &str, mode: &str, amount: i64) -> (i32, i64) {
        let body = Pinged { target: target.to_owned(), mode: mode.to_owned(), amount };
        self.write(SOURCE, key, &Source::from(body))
    }

    pub(crate) fn hear(&mut self, topic: &str, (partition, offset): (i32, i64)) -> Outcome {
        let input = self.machine.contract().inputs.iter().position(|input| **input == *topic).unwrap();
        let stored = self.log[&(topic.to_owned(), partition)][usize::try_from(offset).unwrap()].clone();
        let headers: Vec<_> = stored.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
        let record = stored.record(topic, partition, offset, &headers);
        loop {
            match self.machine.receive(input, &record, NOW + 5) {
                Outcome::NeedsSchema(schema) => self.machine.learn(schema, readers(&self.table).schema(schema)),
                outcome => return outcome,
            }
        }
    }

    /// Handles what waits and has its turn.
    pub(crate) fn go_on(&mut self) {
        while let Some(Need::Schema(schema)) = self.machine.need_to_drain() {
            self.machine.learn(schema, readers(&self.table).schema(schema));
        }
        self.machine.drain_parked(NOW + 5);
    }

    /// The transaction of the open batch succeeds.
    pub(crate) fn commit(&mut self) {
        let mut ends = BTreeMap::new();
        let batch = self.machine.batch();
        let mut appended = Vec::new();
        for output in batch.outputs() {
            let headers = match &output.headers {
                OutHeaders::Verbatim(headers) => headers.clone(),
                OutHeaders::Envelope(envelope) => {
                    let mut headers = Vec::new();
                    envelope.for_each_header(|n, v| headers.push((n.to_owned(), Some(v.as_bytes().to_vec()))));
                    headers
                }
            };
            let key = batch.key(output).map(<[u8]>::to_vec);
            let value = batch.value(output).map(<[u8]>::to_vec);
            let topic = match output.to {
                Target::Events => EVENTS,
                Target::Inbox => INBOX,
                Target::DeadLetters => DEAD,
                Target::Parked => PARKED,
            };
            let stored = Stored { timestamp_ms: output.timestamp_ms, key, value, headers };
            appended.push((topic, output.partition.unwrap_or(0), stored));
        }
        for (topic, partition, stored) in appended {
            let offset = self.append(topic, partition, stored);
            if topic == EVENTS {
                ends.insert(partition, offset + 1);
            }
        }
        self.machine.committed(&ends, NOW + 5);
    }

    /// Hears everything that lies on the inputs, one batch at a time, until nothing is left.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut heard = false;
            for topic in [SOURCE, INBOX] {
                for partition in 0..PARTITIONS {
                    let count = self.log.get(&(topic.to_owned(), partition)).map_or(0, Vec::len);
                    for offset in 0..i64::try_from(count).unwrap() {
                        heard |= self.hear(topic, (partition, offset)) == Outcome::Done;
                    }
                }
            }
            self.commit();
            while self.machine.may_drain() {
                self.go_on();
                self.commit();
            }
            if !heard {
                return;
            }
        }
    }

    pub(crate) fn state(&self, entity: &str) -> State {
        let owner = partition_of(entity.as_bytes(), PARTITIONS);
        self.machine.task(owner).unwrap().state(entity).cloned().unwrap_or_default()
    }

    pub(crate) fn all_on(&self, topic: &str) -> Vec<(i32, i64, Stored)> {
        let of_topic = self.log.iter().filter(|((name, _), _)| name == topic);
        of_topic.flat_map(|((_, p), records)| (0..).zip(records.clone()).map(|(o, s)| (*p, o, s))).collect()
    }

    pub(crate) fn states(&self) -> BTreeMap<String, (u64, State)> {
        let tasks = self.machine.tasks();
        tasks.flat_map(|task| task.states()).map(|(k, (n, s))| (k.to_owned(), (n, s.clone()))).collect()
    }
}

pub(crate) fn all_records() -> Vec<runtime::RecordType> {
    let all = [Source::RECORDS, Event::RECORDS, Command::RECORDS, RuntimeRecord::RECORDS, ParkingCommand::RECORDS];
    all.concat()
}
