//! Schemas as readers meet them: a cache of every schema id ever met, before a source that may block.
//!
//! Owns whether a schema that the registry does not have may still come (transient) or never will (permanent). The framing and
//! the bodies are the business of `runtime_core::codec`, whose items are exported here too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

pub use runtime_core::codec::*;

use crate::{config::default, registry::RegistryError};

/// Readers live as long as the process, so their number is bounded. A system has hundreds of schemas, not thousands.
const MAX_READERS: usize = 4_096;

/// Where schemas come from: the registry, or a table in tests and simulations.
pub trait SchemaSource: Send + Sync {
    /// The schema of this id. May block, with a deadline.
    ///
    /// # Errors
    /// [`RegistryError`].
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, RegistryError>;

    /// How long it has to say without a break that it does not have a schema, to be believed.
    fn patience(&self) -> Duration {
        default::SCHEMA
    }

    /// Time since a fixed moment, by the clock that patience with the source is measured with. A simulation has its own.
    fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// Schemas that were parsed, with the text each was parsed from: a schema lives as long as the process, so nobody parses it twice.
type Parsed = HashMap<SchemaRef, (Arc<str>, &'static ReadSchema)>;

/// Reads framed bodies of any schema. Clones share the readers.
#[derive(Clone)]
pub struct Readers {
    source: Arc<dyn SchemaSource>,
    known: Arc<RwLock<HashMap<SchemaRef, &'static ReadSchema>>>,
    absent: Arc<Mutex<HashMap<SchemaRef, Absence>>>,
    parsed: Arc<Mutex<Parsed>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Readers")
    }
}

/// A schema the registry does not have. A replica of the registry may lag behind the record, so the answer is not believed until it
/// has been given for a while without another one in between; after that it stands for a while without being asked for.
#[derive(Debug, Clone, Copy)]
struct Absence {
    answers: u32,
    since: Duration,
    last: Duration,
}

impl Absence {
    /// Two answers far apart say nothing of the time between them.
    const LEAST_ANSWERS: u32 = 3;
    const STANDS_FOR: Duration = Duration::from_secs(60);
    const MOST: usize = 10_000;

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
        self.answers >= Self::LEAST_ANSWERS && self.lasted() >= patience
    }

    fn stands(self, now: Duration, patience: Duration) -> bool {
        self.is_settled(patience) && now.saturating_sub(self.last) < Self::STANDS_FOR
    }
}

impl Readers {
    /// Readers that get their schemas from `source`.
    #[must_use]
    pub fn new(source: Arc<dyn SchemaSource>) -> Self {
        Self { source, known: Arc::default(), absent: Arc::default(), parsed: Arc::default() }
    }

    /// Readers that know nothing yet and ask another source, but parse no schema again that these have parsed.
    #[must_use]
    pub fn asking(&self, source: Arc<dyn SchemaSource>) -> Self {
        Self { source, known: Arc::default(), absent: Arc::default(), parsed: Arc::clone(&self.parsed) }
    }

    /// Finds the schema of a record's value and splits off its body. Asks the source only for a schema never met before.
    ///
    /// # Errors
    /// [`DecodeError`]; wait and try again if it is transient.
    pub fn decode<'a>(&self, value: Option<&'a [u8]>, header: Option<&[u8]>) -> Result<Decoded<'a>, DecodeError> {
        let (schema, body) = unframe(value.ok_or(DecodeError::NoBody)?, header)?;
        Ok(Decoded { schema: self.schema(schema)?, body })
    }

    /// The reader of a schema.
    ///
    /// # Errors
    /// [`DecodeError`]; wait and try again if it is transient.
    pub fn schema(&self, schema: SchemaRef) -> Result<&'static ReadSchema, DecodeError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&schema).copied();
        match known {
            Some(reader) => Ok(reader),
            None => self.fetch(schema),
        }
    }

    fn fetch(&self, schema: SchemaRef) -> Result<&'static ReadSchema, DecodeError> {
        if self.is_absent(schema, self.source.elapsed()) {
            return Err(DecodeError::UnknownSchema { schema });
        }
        let unusable = |source| DecodeError::UnusableSchema { schema, source };
        let answer = self.source.schema(schema);
        if !answer.as_ref().is_err_and(RegistryError::is_not_found) {
            self.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(&schema);
        }
        match answer {
            Ok(registered) => {
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
            Err(source) if source.is_not_found() => Err(self.note_absence(schema, self.source.elapsed())),
            Err(source) if source.is_transient() => Err(DecodeError::Unavailable { schema, source: Box::new(source) }),
            Err(source) => Err(unusable(CodecError::new(source))),
        }
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
        absent.get(&schema).is_some_and(|absence| absence.stands(now, self.source.patience()))
    }

    fn note_absence(&self, schema: SchemaRef, now: Duration) -> DecodeError {
        let patience = self.source.patience();
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= Absence::MOST {
            absent.retain(|_, absence| absence.stands(now, patience));
        }
        let absence = absent.entry(schema).and_modify(|a| *a = a.again(now)).or_insert_with(|| Absence::first(now));
        if absence.is_settled(patience) {
            DecodeError::UnknownSchema { schema }
        } else {
            DecodeError::MissingSchema { schema, missing: absence.lasted(), patience }
        }
    }
}
