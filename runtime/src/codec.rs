//! Schemas for readers: a cache of every schema that a record has named, in front of a source that may block.
//!
//! Decides whether a schema missing at the registry may still appear (transient) or never will (permanent). Framing and bodies are
//! the business of `runtime_core::codec`, whose items are re-exported here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

pub use runtime_core::codec::*;

use crate::config::default;

/// Schemas live as long as the process, so their number is bounded. A system has hundreds of schemas, not thousands.
const MAX_READERS: usize = 4_096;

/// Why a source did not return a schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaSourceError {
    /// The source cannot be asked now: another attempt may succeed.
    #[error("the source of schemas is unavailable")]
    Unavailable(#[source] SourceError),
    /// The source does not have the schema.
    #[error("the source does not have the schema")]
    NotFound(#[source] SourceError),
    /// The source refuses the request.
    #[error("the source refuses to return the schema")]
    Refused(#[source] SourceError),
}

/// Where schemas come from: the registry, or a table in tests and simulations.
pub trait SchemaSource: Send + Sync {
    /// Returns the schema with this id. May block, up to a deadline.
    ///
    /// # Errors
    /// [`SchemaSourceError`].
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, SchemaSourceError>;

    /// How long the source must report a schema as missing, without interruption, before the schema counts as missing for good.
    fn patience(&self) -> Duration {
        default::SCHEMA
    }

    /// Time since a fixed moment, by the clock that measures `patience`. A simulation has a clock of its own.
    fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// The schemas that a process knows, by its source.
type SharedSchemas = Mutex<HashMap<String, (Weak<Known>, Weak<Absent>, Weak<Mutex<Parsed>>)>>;

type Known = RwLock<HashMap<SchemaRef, &'static ReadSchema>>;
type Absent = Mutex<HashMap<SchemaRef, Absence>>;

/// Parsed schemas, each with its text: a parsed schema lives as long as the process, so no schema is parsed twice.
type Parsed = HashMap<SchemaRef, (Arc<str>, &'static ReadSchema)>;

/// Reads framed bodies of any schema. Clones share the cache.
#[derive(Clone)]
pub struct Readers {
    source: Arc<dyn SchemaSource>,
    known: Arc<Known>,
    absent: Arc<Absent>,
    parsed: Arc<Mutex<Parsed>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Readers")
    }
}

/// A schema that the registry does not have. A replica of the registry may lag behind the record, so the schema counts as missing
/// only after the registry has reported so for `patience` without interruption. That result is then cached for a while.
#[derive(Debug, Clone, Copy)]
struct Absence {
    answers: u32,
    since: Duration,
    last: Duration,
}

impl Absence {
    /// Two answers far apart prove nothing about the time between them.
    const MIN_ANSWERS: u32 = 3;
    const CACHED_FOR: Duration = Duration::from_secs(60);
    const MAX_ENTRIES: usize = 10_000;

    fn first(now: Duration) -> Self {
        Self { answers: 1, since: now, last: now }
    }

    fn again(self, now: Duration) -> Self {
        Self { answers: self.answers.saturating_add(1), last: now, ..self }
    }

    fn lasted(self) -> Duration {
        self.last.saturating_sub(self.since)
    }

    fn is_settled(self, patience: Duration) -> bool {
        self.answers >= Self::MIN_ANSWERS && self.lasted() >= patience
    }

    fn is_cached(self, now: Duration, patience: Duration) -> bool {
        self.is_settled(patience) && now.saturating_sub(self.last) < Self::CACHED_FOR
    }
}

impl Readers {
    /// Readers that get their schemas from `source`.
    #[must_use]
    pub fn new(source: Arc<dyn SchemaSource>) -> Self {
        Self { source, known: Arc::default(), absent: Arc::default(), parsed: Arc::default() }
    }

    /// Readers that get their schemas from `source`, and share them with all readers of this process that ask a source of this name.
    /// What one part of a process has read, no other part asks for again.
    #[must_use]
    pub fn shared(name: &str, source: Arc<dyn SchemaSource>) -> Self {
        static SHARED: OnceLock<SharedSchemas> = OnceLock::new();
        let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|_, (known, ..)| known.strong_count() > 0);
        if let Some((known, absent, parsed)) = shared.get(name)
            && let (Some(known), Some(absent), Some(parsed)) = (known.upgrade(), absent.upgrade(), parsed.upgrade())
        {
            return Self { source, known, absent, parsed };
        }
        let readers = Self::new(source);
        let (known, absent) = (Arc::downgrade(&readers.known), Arc::downgrade(&readers.absent));
        shared.insert(name.to_owned(), (known, absent, Arc::downgrade(&readers.parsed)));
        readers
    }

    /// Readers with an empty cache and another source, which share the schemas that these readers have parsed.
    #[must_use]
    pub fn asking(&self, source: Arc<dyn SchemaSource>) -> Self {
        Self { source, known: Arc::default(), absent: Arc::default(), parsed: Arc::clone(&self.parsed) }
    }

    /// Finds the schema of a record's value and splits off its body. Asks the source only for schemas that are not cached.
    ///
    /// # Errors
    /// [`DecodeError`]; retry later if it is transient.
    pub fn decode<'a>(&self, value: Option<&'a [u8]>, header: Option<&[u8]>) -> Result<Decoded<'a>, DecodeError> {
        let (schema, body) = unframe(value.ok_or(DecodeError::NoBody)?, header)?;
        Ok(Decoded { schema: self.schema(schema)?, body })
    }

    /// The schema with this id, from the cache or the source.
    ///
    /// # Errors
    /// [`DecodeError`]; retry later if it is transient.
    pub fn schema(&self, schema: SchemaRef) -> Result<&'static ReadSchema, DecodeError> {
        match self.known(schema) {
            Some(reader) => Ok(reader),
            None => self.fetch(schema),
        }
    }

    /// The schema with this id. Asks the source if it is not cached, also if the source did not have it a moment ago: for an
    /// operator who has just registered it.
    ///
    /// # Errors
    /// [`DecodeError`]; retry later if it is transient.
    pub fn schema_anew(&self, schema: SchemaRef) -> Result<&'static ReadSchema, DecodeError> {
        match self.known(schema) {
            Some(reader) => Ok(reader),
            None => self.ask(schema),
        }
    }

    /// The same readers, which also know the schemas that a service writes with: it reads its own records without the source.
    #[must_use]
    pub fn with_written(self, service: &str, writers: &Writers) -> Self {
        for (schema, registered) in writers.schemas() {
            if self.known(schema).is_none()
                && let Err(error) = self.add(schema, registered)
            {
                tracing::warn!(service, %error, "a schema is fetched again when a record needs it");
            }
        }
        self
    }

    fn known(&self, schema: SchemaRef) -> Option<&'static ReadSchema> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&schema).copied()
    }

    fn fetch(&self, schema: SchemaRef) -> Result<&'static ReadSchema, DecodeError> {
        if self.is_absent(schema, self.source.elapsed()) {
            return Err(DecodeError::UnknownSchema { schema });
        }
        self.ask(schema)
    }

    fn ask(&self, schema: SchemaRef) -> Result<&'static ReadSchema, DecodeError> {
        let unusable = |source| DecodeError::UnusableSchema { schema, source };
        let answer = self.source.schema(schema);
        if !matches!(answer, Err(SchemaSourceError::NotFound(_))) {
            self.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(&schema);
        }
        match answer {
            Ok(registered) => self.add(schema, registered),
            Err(SchemaSourceError::NotFound(_)) => Err(self.note_absence(schema, self.source.elapsed())),
            Err(SchemaSourceError::Unavailable(source)) => Err(DecodeError::Unavailable { schema, source }),
            Err(SchemaSourceError::Refused(source)) => Err(unusable(CodecError::new(source))),
        }
    }

    fn add(&self, schema: SchemaRef, registered: RegisteredSchema) -> Result<&'static ReadSchema, DecodeError> {
        let unusable = |source| DecodeError::UnusableSchema { schema, source };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = known.get(&schema) {
            return Ok(reader);
        }
        if known.len() >= MAX_READERS {
            return Err(unusable(CodecError::new(format!("more than {MAX_READERS} schemas are in use"))));
        }
        let reader = self.parse(schema, registered).map_err(unusable)?;
        known.insert(schema, reader);
        Ok(reader)
    }

    fn parse(&self, schema: SchemaRef, registered: RegisteredSchema) -> Result<&'static ReadSchema, CodecError> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, reader)) = parsed.get(&schema)
            && (Arc::ptr_eq(text, &registered.text) || *text == registered.text)
            && reader.version == registered.version
        {
            return Ok(reader);
        }
        let reader: &'static ReadSchema = Box::leak(Box::new(ReadSchema::parse(schema, &registered)?));
        parsed.insert(schema, (registered.text, reader));
        Ok(reader)
    }

    fn is_absent(&self, schema: SchemaRef, now: Duration) -> bool {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(&schema).is_some_and(|absence| absence.is_cached(now, self.source.patience()))
    }

    fn note_absence(&self, schema: SchemaRef, now: Duration) -> DecodeError {
        let patience = self.source.patience();
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= Absence::MAX_ENTRIES {
            absent.retain(|_, absence| absence.is_cached(now, patience));
        }
        let absence = absent.entry(schema).and_modify(|a| *a = a.again(now)).or_insert_with(|| Absence::first(now));
        if absence.is_settled(patience) {
            DecodeError::UnknownSchema { schema }
        } else {
            DecodeError::MissingSchema { schema, missing: absence.lasted(), patience }
        }
    }
}
