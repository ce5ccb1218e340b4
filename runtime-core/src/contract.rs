//! What one service reads and writes: its topics, and its record types with their schema ids.
//!
//! This module maps schemas to the record types of the service. It fetches no schema: reading a record of an unknown schema returns
//! the schema's id, and the driver reports what it found.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    Limits, ParkingCommand, ParkingLimits, Record,
    codec::{CodecError, DecodeError, Decoded, ReadSchema, SCHEMA_ID_HEADER, SchemaRef, Writers, unframe},
    decider::{Decider, TimerFired},
    envelope,
    guard::guarded,
    message::{Channel, Message, RecordType, Written, parked_topic, topic},
    text::chain,
};

crate::produces! {
    /// The records that the runtime itself writes to a service's inbox.
    pub enum RuntimeRecord in "../schemas" {
        inbox of "runtime" { TimerFired = 1 }
    }
}

/// The owner of the records that the runtime writes to any service's inbox.
const RUNTIME: &str = "runtime";

/// A service whose enums contradict the rules.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// It lists a record of another service's inbox, which only that service may read.
    #[error("service {service} consumes {record} on the inbox of {owner}; a service reads no inbox but its own")]
    ForeignInbox {
        /// The service.
        service: &'static str,
        /// The record.
        record: &'static str,
        /// The owner of the inbox.
        owner: &'static str,
    },
    /// `shares_keys_with` panicked.
    #[error("service {service} cannot tell whether it shares keys with {owner}: {reason}")]
    Panicked {
        /// The service.
        service: &'static str,
        /// The owner that it was called with.
        owner: &'static str,
        /// What panicked, and with which message.
        reason: String,
    },
    /// It writes a record type of another service.
    #[error("service {service} writes {record} of {owner}; a service writes its own records only")]
    NotItsOwn {
        /// The service.
        service: &'static str,
        /// The record.
        record: &'static str,
        /// The owner of the record type.
        owner: &'static str,
    },
}

/// Short names of record types by their full names. Every recovery copies the contract and shares its names.
type RecordNames = Arc<BTreeMap<String, &'static str>>;

#[derive(Clone, Copy)]
struct KnownSchema {
    schema: &'static ReadSchema,
    /// The short name, if the service consumes it.
    received: Option<&'static str>,
    /// The short name, if it is an event of the service.
    event: Option<&'static str>,
    /// The short name, if it is a parking command.
    parking: Option<&'static str>,
    /// True if it is a record type of the service, whether or not this build has it.
    is_own: bool,
}

/// Why a schema could not be fetched, for the record that needs it.
#[derive(Debug, Clone)]
struct SchemaFailure {
    kind: SchemaFailureKind,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SchemaFailureKind {
    /// It may be fetched later.
    Transient,
    /// The registry does not have it, and has said so for as long as it may take to appear.
    Unknown,
    /// The registry has it, and it cannot be used.
    Unusable,
}

/// Why a record can never be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordDefect {
    /// The kind, one word for tables.
    pub(crate) class: &'static str,
    /// What is wrong.
    pub(crate) message: String,
}

/// The result of reading a value.
#[derive(Debug)]
pub(crate) enum ReadOutcome<M> {
    Body(M),
    /// An operator's command about a parked record.
    Parking(ParkingCommand),
    /// The service does not list the record type.
    NotConsumed,
    /// A command of the service's own that this build does not have. Another build has sent it, and it must not be skipped.
    OfAnotherBuild(String),
    Unreadable(RecordDefect),
    /// The schema cannot be fetched now.
    SchemaUnavailable(String),
    /// The driver must fetch the schema.
    NeedsSchema(SchemaRef),
}

/// The contract of one service in one system.
#[derive(Clone)]
pub struct ServiceContract {
    /// The service.
    pub service: &'static str,
    /// Its consumer group.
    pub group: Arc<str>,
    /// The source (`ce_source`) of its records.
    pub source: Arc<str>,
    /// The build that decides.
    pub build: Arc<str>,
    /// How many partitions every topic of the system has.
    pub partitions: i32,
    /// The topics that it reads; the first is its own inbox.
    pub inputs: Vec<Arc<str>>,
    /// The topic of its events.
    pub events_topic: Arc<str>,
    /// The topic of its dead letters.
    pub dead_letter_topic: Arc<str>,
    /// The topic of its parked records: those that failed, and those behind a failed record of the same entity.
    pub parked_topic: Arc<str>,
    /// How many records and bytes may be parked in one partition.
    pub parking: ParkingLimits,
    /// The prefix of the headers of dead letters that Kafka has no name for.
    pub system: Arc<str>,
    /// The largest batches that its topics take. They have the defaults until a driver sets them.
    pub limits: Limits,
    /// The prefix of the full names of the service's own record types.
    own_namespace: Arc<str>,
    received: RecordNames,
    events: RecordNames,
    parking_commands: RecordNames,
    /// For each input, whether its record keys are entities of this service.
    shares_keys: Arc<[bool]>,
    timer: bool,
    writers: Writers,
    known: HashMap<SchemaRef, KnownSchema>,
    /// Schemas that could not be fetched, for the one record that needs them.
    failed: HashMap<SchemaRef, SchemaFailure>,
}

/// The record types that `D` writes, and those that the runtime writes for it. Their schemas must be registered before the start.
#[must_use]
pub fn written_by<D: Decider>() -> Vec<RecordType> {
    let own = D::Event::RECORDS.iter().chain(D::Command::RECORDS);
    let timers = if consumes_timers::<D>() { RuntimeRecord::RECORDS } else { &[] };
    own.chain(timers).copied().collect()
}

fn consumes_timers<D: Decider>() -> bool {
    D::Input::RECORDS.iter().any(|record| record.owner == RUNTIME && record.channel == Channel::Inbox)
}

impl ServiceContract {
    /// The contract of `D` in a system.
    ///
    /// # Errors
    /// Its enums break the rules about which service reads and writes which record.
    pub fn of<D: Decider>(decider: &D, names: ContractNames<'_>, writers: Writers) -> Result<Self, ContractError> {
        let ContractNames { system, group, build, partitions } = names;
        let inbox = topic(system, D::NAME, Channel::Inbox);
        let mut others = BTreeMap::new();
        for record in D::Input::RECORDS {
            match record.channel {
                Channel::Events | Channel::State => {
                    others.insert(record.topic(system), record.owner);
                }
                Channel::Inbox if record.owner == D::NAME || record.owner == RUNTIME => {}
                Channel::Inbox => {
                    let (record, owner) = (record.name, record.owner);
                    return Err(ContractError::ForeignInbox { service: D::NAME, record, owner });
                }
            }
        }
        if let Some(foreign) = D::Event::RECORDS.iter().chain(D::Command::RECORDS).find(|r| r.owner != D::NAME) {
            return Err(ContractError::NotItsOwn { service: D::NAME, record: foreign.name, owner: foreign.owner });
        }
        let names = |records: &'static [RecordType]| -> RecordNames {
            Arc::new(records.iter().map(|r| (r.full_name(system), r.name)).collect())
        };
        Ok(Self {
            service: D::NAME,
            group: group.into(),
            source: envelope::source(system, D::NAME),
            build: build.into(),
            partitions,
            shares_keys: shares_keys(decider, others.values().copied())?,
            inputs: std::iter::once(inbox).chain(others.into_keys()).map(Into::into).collect(),
            events_topic: topic(system, D::NAME, Channel::Events).into(),
            dead_letter_topic: format!("dlq.{group}").into(),
            parked_topic: parked_topic(system, D::NAME).into(),
            parking: ParkingLimits::default(),
            system: system.into(),
            limits: Limits::default(),
            own_namespace: own_namespace(system, D::NAME),
            received: names(D::Input::RECORDS),
            events: names(D::Event::RECORDS),
            parking_commands: names(ParkingCommand::RECORDS),
            timer: consumes_timers::<D>(),
            writers,
            known: HashMap::new(),
            failed: HashMap::new(),
        })
    }

    /// The same contract without any schema, for another process.
    #[must_use]
    pub fn without_schemas(&self) -> Self {
        Self { known: HashMap::new(), failed: HashMap::new(), ..self.clone() }
    }

    /// Takes the schema that the driver fetched. A failure counts only for the record that needs the schema; the next record
    /// requests it again.
    pub fn learn(&mut self, schema: SchemaRef, found: Result<&'static ReadSchema, DecodeError>) {
        match found {
            Ok(found) => {
                let of = |names: &RecordNames| names.get(&found.full_name).copied();
                let known = KnownSchema {
                    schema: found,
                    received: of(&self.received),
                    event: of(&self.events),
                    parking: of(&self.parking_commands),
                    is_own: found.full_name.starts_with(&*self.own_namespace),
                };
                self.known.insert(schema, known);
            }
            Err(error) => {
                let kind = match &error {
                    error if error.is_transient() => SchemaFailureKind::Transient,
                    DecodeError::UnknownSchema { .. } => SchemaFailureKind::Unknown,
                    _ => SchemaFailureKind::Unusable,
                };
                self.failed.insert(schema, SchemaFailure { kind, reason: chain(&error) });
            }
        }
    }

    /// The schema that must be fetched before this record can be read.
    pub(crate) fn missing_schema(&self, record: &Record<'_>) -> Option<SchemaRef> {
        let (schema, _) = framed(record).ok()?;
        (!self.known.contains_key(&schema) && !self.failed.contains_key(&schema)).then_some(schema)
    }

    /// Forgets which schemas could not be fetched.
    pub fn forget_failures(&mut self) {
        self.failed.clear();
    }

    /// True if the service consumes timers.
    #[must_use]
    pub fn consumes_timers(&self) -> bool {
        self.timer
    }

    /// True if the service is known not to consume the record type of this value. It reads only the schema id.
    #[must_use]
    pub fn is_not_consumed(&self, value: &[u8]) -> bool {
        let is_foreign = |known: &KnownSchema| known.received.is_none() && known.parking.is_none() && !known.is_own;
        unframe(value, None).is_ok_and(|(schema, _)| self.known.get(&schema).is_some_and(is_foreign))
    }

    pub(crate) fn input_of(&self, topic: &str) -> Option<usize> {
        self.inputs.iter().position(|input| **input == *topic)
    }

    /// Reads an input.
    pub(crate) fn read_input<I: Message>(&self, record: &Record<'_>) -> ReadOutcome<I> {
        self.look_up(record).map_or_else(ReadOutcome::from, |(known, body)| self.open_input(record, &known, body))
    }

    /// Reads an own event. Its schema was registered before it was produced, so a registry that does not have it is no proof against
    /// the event: it is asked again until it has.
    pub(crate) fn read_event<E: Message>(&self, record: &Record<'_>) -> ReadOutcome<E> {
        match self.look_up(record) {
            Ok((known, body)) => known.event.map_or(ReadOutcome::NotConsumed, |name| open(name, &known, body)),
            Err(NotOpened::UnknownSchema(reason)) => ReadOutcome::SchemaUnavailable(reason),
            Err(reason) => reason.into(),
        }
    }

    /// The schema of a record of the service's own type that this build does not have, if the record is one.
    pub(crate) fn of_another_build(&self, record: &Record<'_>) -> Option<&'static ReadSchema> {
        let (schema, _) = framed(record).ok()?;
        let known = self.known.get(&schema).filter(|known| known.is_own && known.event.is_none())?;
        Some(known.schema)
    }

    fn open_input<I: Message>(&self, record: &Record<'_>, known: &KnownSchema, body: &[u8]) -> ReadOutcome<I> {
        match (known.received, known.parking) {
            (Some(name), _) => open(name, known, body),
            // Operators send their commands to the inbox only.
            (None, Some(name)) if *record.topic == *self.inputs[0] => match open::<ParkingCommand>(name, known, body) {
                ReadOutcome::Body(command) => ReadOutcome::Parking(command),
                ReadOutcome::Unreadable(defect) => ReadOutcome::Unreadable(defect),
                ReadOutcome::Parking(_)
                | ReadOutcome::NotConsumed
                | ReadOutcome::OfAnotherBuild(_)
                | ReadOutcome::SchemaUnavailable(_)
                | ReadOutcome::NeedsSchema(_) => ReadOutcome::NotConsumed,
            },
            (None, None) if known.is_own && *record.topic == *self.inputs[0] => {
                let (name, schema, build) = (&known.schema.full_name, known.schema.schema, &self.build);
                ReadOutcome::OfAnotherBuild(format!(
                    "the command {name} (schema {schema}) was sent by another build, and this build ({build}) does not have it; hint: \
                     finish the upgrade (docs/operations.md, \"Builds differ\")"
                ))
            }
            (None, _) => ReadOutcome::NotConsumed,
        }
    }

    fn look_up<'r>(&self, record: &Record<'r>) -> Result<(KnownSchema, &'r [u8]), NotOpened> {
        let (schema, body) = framed(record)
            .map_err(|error| NotOpened::Unreadable(RecordDefect { class: class_of(&error), message: chain(&error) }))?;
        if let Some(known) = self.known.get(&schema) {
            return Ok((*known, body));
        }
        Err(match self.failed.get(&schema).cloned() {
            None => NotOpened::NeedsSchema(schema),
            Some(SchemaFailure { kind: SchemaFailureKind::Transient, reason }) => NotOpened::SchemaUnavailable(reason),
            Some(SchemaFailure { kind: SchemaFailureKind::Unknown, reason }) => NotOpened::UnknownSchema(reason),
            Some(SchemaFailure { kind: SchemaFailureKind::Unusable, reason }) => {
                NotOpened::Unreadable(RecordDefect { class: "schema", message: reason })
            }
        })
    }

    /// True if the record keys of this input are entities of this service, whatever the bodies contain.
    pub(crate) fn shares_keys(&self, input: usize) -> bool {
        self.shares_keys.get(input).copied().unwrap_or(false)
    }

    /// Appends a framed body to `out`. Returns the record's full name.
    pub(crate) fn write<W: Written>(&self, body: &W, out: &mut Vec<u8>) -> Result<&Arc<str>, CodecError> {
        self.writers.encode(body, out)
    }

    /// The writers, for records that are written outside the machine.
    #[must_use]
    pub fn writers(&self) -> &Writers {
        &self.writers
    }
}

/// The prefix of the full names of a service's record types.
fn own_namespace(system: &str, service: &'static str) -> Arc<str> {
    let of = |name| RecordType { owner: service, channel: Channel::Events, name, schema: None };
    of("").full_name(system).into()
}

/// Whether the inbox and each other input share keys with the service's entities. The decider is asked once, at the start, where a
/// panic is an error that names the service.
fn shares_keys<D: Decider>(
    decider: &D,
    owners: impl Iterator<Item = &'static str>,
) -> Result<Arc<[bool]>, ContractError> {
    let shares = |owner| {
        let panicked = |reason| ContractError::Panicked { service: D::NAME, owner, reason };
        guarded("shares_keys_with", || decider.shares_keys_with(owner)).map_err(panicked)
    };
    std::iter::once(Ok(true)).chain(owners.map(shares)).collect()
}

/// The names that a contract consists of.
#[derive(Debug, Clone, Copy)]
pub struct ContractNames<'a> {
    /// The system.
    pub system: &'a str,
    /// The consumer group.
    pub group: &'a str,
    /// The build that decides.
    pub build: &'a str,
    /// How many partitions every topic of the system has.
    pub partitions: i32,
}

fn framed<'r>(record: &Record<'r>) -> Result<(SchemaRef, &'r [u8]), DecodeError> {
    let header = record.headers.iter().rev().find(|(name, _)| *name == SCHEMA_ID_HEADER);
    unframe(record.value.ok_or(DecodeError::NoBody)?, header.and_then(|(_, value)| *value))
}

fn open<M: Message>(name: &str, known: &KnownSchema, body: &[u8]) -> ReadOutcome<M> {
    match M::read(name, &Decoded { schema: known.schema, body }.record()) {
        Ok(Some(body)) => ReadOutcome::Body(body),
        Ok(None) => ReadOutcome::NotConsumed,
        Err(e) => {
            let message = format!("the body of {name} cannot be read with schema {}: {e}", known.schema.schema);
            ReadOutcome::Unreadable(RecordDefect { class: "body", message })
        }
    }
}

/// Why the schema of a record is not at hand.
enum NotOpened {
    Unreadable(RecordDefect),
    SchemaUnavailable(String),
    UnknownSchema(String),
    NeedsSchema(SchemaRef),
}

impl<M> From<NotOpened> for ReadOutcome<M> {
    fn from(reason: NotOpened) -> Self {
        match reason {
            NotOpened::Unreadable(defect) => Self::Unreadable(defect),
            NotOpened::SchemaUnavailable(reason) => Self::SchemaUnavailable(reason),
            NotOpened::UnknownSchema(message) => Self::Unreadable(RecordDefect { class: "schema", message }),
            NotOpened::NeedsSchema(schema) => Self::NeedsSchema(schema),
        }
    }
}

fn class_of(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::NoBody => "tombstone",
        DecodeError::NotFramed { .. } => "framing",
        DecodeError::UnknownSchema { .. }
        | DecodeError::MissingSchema { .. }
        | DecodeError::UnusableSchema { .. }
        | DecodeError::Unavailable { .. } => "schema",
        DecodeError::Body { .. } => "body",
    }
}
