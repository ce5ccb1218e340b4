//! What the tests of the core share: a table of schemas, and a log in memory.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use runtime_core::{
    Batch, ContractNames, FoldOutcome, LogCorruption, OutputHeaders, OutputTopic, ParkingCommand, Record, Recovery,
    RuntimeRecord, ServiceContract,
    codec::{DecodeError, ReadSchema, RegisteredSchema, SchemaRef, Writers},
    decider::Decider,
    envelope::{Envelope, derived_id},
    message::{Message, RecordType, Written},
    partition_of, written_by,
};

use crate::probe::{Command, Event, Pinged, Probe, Source};

pub const PARTITIONS: i32 = 4;
pub const NOW: i64 = 1_760_000_000_000;
pub const INBOX: &str = "musiccorp.probe.inbox";
pub const SOURCE: &str = "musiccorp.source.events";
pub const EVENTS: &str = "musiccorp.probe.events";
pub const DEAD_LETTERS: &str = "dlq.musiccorp.probe";
pub const PARKED: &str = "musiccorp.probe.parked";
/// The id of a schema that cannot be fetched until it is registered.
pub const UNAVAILABLE_SCHEMA: u32 = 77;

/// A table of schemas in place of a registry. Clones share it.
#[derive(Clone, Default)]
pub struct SchemaTable(Rc<RefCell<BTreeMap<u32, TableEntry>>>);

struct TableEntry {
    text: String,
    parsed: Option<&'static ReadSchema>,
}

impl SchemaTable {
    /// The id of a schema, which is registered if it is new.
    pub fn id_of(&self, text: &str) -> u32 {
        let found = self.0.borrow().iter().find(|(_, entry)| entry.text == text).map(|(id, _)| *id);
        found.unwrap_or_else(|| {
            let id = u32::try_from(self.0.borrow().len()).unwrap() + 1;
            self.register_as(id, text);
            id
        })
    }

    pub fn register_as(&self, id: u32, text: &str) {
        self.0.borrow_mut().insert(id, TableEntry { text: text.to_owned(), parsed: None });
    }

    pub fn text_of(&self, id: u32) -> String {
        self.0.borrow()[&id].text.clone()
    }

    pub fn fetch(&self, schema: SchemaRef) -> Result<&'static ReadSchema, DecodeError> {
        let SchemaRef::Id(id) = schema else { panic!("ids only") };
        if id == UNAVAILABLE_SCHEMA && !self.0.borrow().contains_key(&id) {
            return Err(DecodeError::Unavailable { schema, source: "the registry is down".into() });
        }
        let mut entries = self.0.borrow_mut();
        let Some(TableEntry { text, parsed }) = entries.get_mut(&id) else {
            return Err(DecodeError::UnknownSchema { schema });
        };
        Ok(parsed.get_or_insert_with(|| {
            let registered = RegisteredSchema { id: Some(id), version: Some(1), text: text.as_str().into() };
            Box::leak(Box::new(ReadSchema::parse(schema, &registered).unwrap()))
        }))
    }

    fn writers(&self, records: &[RecordType]) -> Writers {
        Writers::with_ids("musiccorp", records, |_, text| Ok(self.id_of(text))).unwrap()
    }

    /// The contract of a probe, which knows no schema yet.
    pub fn contract(&self, probe: &Probe) -> ServiceContract {
        let names = ContractNames {
            system: "musiccorp",
            group: "musiccorp.probe",
            build: "test-build",
            partitions: PARTITIONS,
        };
        ServiceContract::of(probe, names, self.writers(&written_by::<Probe>())).unwrap()
    }
}

/// A record as a log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl StoredRecord {
    /// Lends the record as the core takes it.
    pub fn with<T>(&self, topic: &str, partition: i32, offset: i64, take: impl FnOnce(&Record<'_>) -> T) -> T {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        take(&Record { topic, partition, offset, timestamp_ms: self.timestamp_ms, key, value, headers: &headers })
    }

    pub fn envelope(&self, topic: &str, partition: i32, offset: i64) -> Envelope {
        self.with(topic, partition, offset, |record| record.envelope().unwrap())
    }

    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rev().find(|(known, _)| known == name)?;
        value.clone().map(|bytes| String::from_utf8(bytes).unwrap())
    }
}

/// Every topic of the probe and of its source, in memory.
#[derive(Clone, Default)]
pub struct Log {
    pub schemas: SchemaTable,
    pub records: BTreeMap<(String, i32), Vec<StoredRecord>>,
    written: u64,
}

impl Log {
    pub fn append(&mut self, topic: &str, partition: i32, record: StoredRecord) -> i64 {
        let records = self.records.entry((topic.to_owned(), partition)).or_default();
        records.push(record);
        i64::try_from(records.len()).unwrap() - 1
    }

    /// Writes a record as its owner would, under a new id. Returns its partition and its offset.
    pub fn write(&mut self, topic: &str, key: &str, body: &impl Written) -> (i32, i64) {
        self.written += 1;
        let all = [Source::RECORDS, Event::RECORDS, Command::RECORDS, RuntimeRecord::RECORDS, ParkingCommand::RECORDS];
        let mut value = Vec::new();
        let name = Arc::clone(self.schemas.writers(&all.concat()).encode(body, &mut value).unwrap());
        let id = derived_id(&["test", &self.written.to_string()]);
        let envelope = Envelope::new(id, "/test", name, NOW).about(key).correlated(format!("saga of {key}"));
        let headers = headers_of(&OutputHeaders::Envelope(Box::new(envelope)));
        let partition = partition_of(key.as_bytes(), PARTITIONS);
        let record = StoredRecord { timestamp_ms: NOW, key: Some(key.into()), value: Some(value), headers };
        (partition, self.append(topic, partition, record))
    }

    /// Writes a record of the source. `mode` and `amount` select what the probe does to `target`.
    pub fn ping(&mut self, key: &str, target: &str, mode: &str, amount: i64) -> (i32, i64) {
        let body = Pinged { target: target.to_owned(), mode: mode.to_owned(), amount };
        self.write(SOURCE, key, &Source::from(body))
    }

    /// Appends what a batch holds. Returns the ends of the own log.
    pub fn append_batch(&mut self, batch: &Batch) -> BTreeMap<i32, i64> {
        let mut ends = BTreeMap::new();
        for output in batch.outputs() {
            let (key, value) = (batch.key(output).map(<[u8]>::to_vec), batch.value(output).map(<[u8]>::to_vec));
            let topic = match output.to {
                OutputTopic::Events => EVENTS,
                OutputTopic::Inbox => INBOX,
                OutputTopic::DeadLetters => DEAD_LETTERS,
                OutputTopic::Parked => PARKED,
            };
            let headers = headers_of(&output.headers);
            let record = StoredRecord { timestamp_ms: output.timestamp_ms, key, value, headers };
            let partition = output.partition.unwrap_or(0);
            let offset = self.append(topic, partition, record);
            if topic == EVENTS {
                ends.insert(partition, offset + 1);
            }
        }
        ends
    }

    /// Every record of a topic, with its partition and its offset.
    pub fn records_on(&self, topic: &str) -> Vec<(i32, i64, StoredRecord)> {
        let of_topic = self.records.iter().filter(|((name, _), _)| name == topic);
        of_topic
            .flat_map(|((_, partition), records)| (0..).zip(records.clone()).map(|(o, record)| (*partition, o, record)))
            .collect()
    }

    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        let records = self.records.get(&(topic.to_owned(), partition)).map_or(0, Vec::len);
        i64::try_from(records).unwrap()
    }

    pub fn at(&self, topic: &str, partition: i32, offset: i64) -> Option<&StoredRecord> {
        self.records.get(&(topic.to_owned(), partition))?.get(usize::try_from(offset).ok()?)
    }

    /// Folds the parked topic and the own log of a partition into its recovery.
    pub fn fold_into<D: Decider>(
        &self,
        recovery: &mut Recovery<D>,
        contract: &mut ServiceContract,
    ) -> Result<(), LogCorruption> {
        let partition = recovery.partition();
        for offset in 0..self.end(PARKED, partition) {
            let record = self.at(PARKED, partition, offset).unwrap();
            record.with(PARKED, partition, offset, |record| recovery.fold_parked(contract, record))?;
        }
        for offset in 0..self.end(EVENTS, partition) {
            let record = self.at(EVENTS, partition, offset).unwrap();
            record.with(EVENTS, partition, offset, |record| {
                while let FoldOutcome::NeedsSchema(schema) = recovery.fold(contract, record)? {
                    contract.learn(schema, self.schemas.fetch(schema));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn headers_of(headers: &OutputHeaders) -> Vec<(String, Option<Vec<u8>>)> {
    match headers {
        OutputHeaders::Verbatim(headers) => headers.clone(),
        OutputHeaders::Envelope(envelope) => {
            let mut all = Vec::new();
            envelope.for_each_header(|name, value| all.push((name.to_owned(), Some(value.as_bytes().to_vec()))));
            all
        }
    }
}

/// A key of this partition.
pub fn key_in(partition: i32) -> String {
    (0..).map(|n| format!("k{n}")).find(|key| partition_of(key.as_bytes(), PARTITIONS) == partition).unwrap()
}
