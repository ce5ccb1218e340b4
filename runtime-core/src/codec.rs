//! Avro bodies in Confluent's framing: from typed structs to bytes and back, without building an Avro `Value`.
//!
//! This module has the framing, one writer for each schema that a service writes with, and one reader for each schema id that it
//! has received. It decides whether an unreadable record may become readable (transient) or never will (permanent). It knows no
//! topics, and of the headers only the one that may carry a schema id. A body is read with the schema of its writer; the struct
//! takes the fields that it uses.

use std::{collections::HashMap, marker::PhantomData, sync::Arc, time::Duration};

use apache_avro::{Schema, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub use crate::datum::{CodecError, RecordReader, RecordWriter};
use crate::{
    guard::guarded,
    message::{Message, RecordType, Written},
};

/// The first byte of a framed body: a four-byte schema id follows.
pub const MAGIC_ID: u8 = 0;
/// The first byte of a schema header that carries a global id.
const MAGIC_GUID: u8 = 1;
/// The header that may carry the schema id instead of the body's prefix.
pub const SCHEMA_ID_HEADER: &str = "__value_schema_id";
/// The most memory that one string, byte field or array of a record may request: more than any record needs, and less than harms a
/// process.
const MAX_ALLOCATION_BYTES: usize = 4 << 20;
/// The system that schema files are written for. In another system their namespaces differ.
pub const SCHEMA_FILES_SYSTEM: &str = "musiccorp";

/// Why a schema could not be fetched: the error of the source that was asked.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// A schema as the registry returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// Its id, if the request returns it.
    pub id: Option<u32>,
    /// Its version within the subject, if the request returns it.
    pub version: Option<u32>,
    /// The schema.
    pub text: Arc<str>,
}

/// The reference of a body to the schema that it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaRef {
    /// The registry's id.
    Id(u32),
    /// The schema's global id.
    Guid(Uuid),
}

impl std::fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Guid(guid) => write!(f, "{guid}"),
        }
    }
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The record has no body.
    #[error("the record has no body")]
    NoBody,
    /// The body is not in Confluent's framing.
    #[error("the body does not start with a schema id: expected byte 0 and four bytes of id, found {found}")]
    NotFramed {
        /// Its first bytes.
        found: String,
    },
    /// The registry does not have the schema, and has given no other answer for as long as a schema may take to appear.
    #[error("schema {schema} is not in the registry")]
    UnknownSchema {
        /// The schema.
        schema: SchemaRef,
    },
    /// The registry does not have the schema yet. A replica may lag behind the record, so the schema may still appear.
    #[error(
        "schema {schema} is not in the registry, for {missing:.1?} so far; it is waited for until that is {patience:?}"
    )]
    MissingSchema {
        /// The schema.
        schema: SchemaRef,
        /// How long the registry has given this answer and no other.
        missing: Duration,
        /// How long it must give this answer until the record counts as unreadable.
        patience: Duration,
    },
    /// The registry's schema cannot be used.
    #[error("schema {schema} cannot be used")]
    UnusableSchema {
        /// The schema.
        schema: SchemaRef,
        /// Why.
        source: CodecError,
    },
    /// The body does not fit its schema or the struct.
    #[error("a body of {record} cannot be read")]
    Body {
        /// The record's full name.
        record: String,
        /// Why.
        source: CodecError,
    },
    /// The schema cannot be fetched now.
    #[error("schema {schema} cannot be got from the registry now")]
    Unavailable {
        /// The schema.
        schema: SchemaRef,
        /// Why.
        source: SourceError,
    },
}

impl DecodeError {
    /// True if the record may become readable, so the caller must wait and try again. If false, it never will.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::MissingSchema { .. })
    }
}

/// Splits a value into its schema and its body. `header` is the value of [`SCHEMA_ID_HEADER`], which has precedence over the
/// prefix.
///
/// # Errors
/// Neither header nor prefix names a schema.
pub fn unframe<'a>(value: &'a [u8], header: Option<&[u8]>) -> Result<(SchemaRef, &'a [u8]), DecodeError> {
    if let Some(header) = header {
        return schema_of_header(header).map(|schema| (schema, value)).ok_or_else(|| not_framed(header));
    }
    match value {
        [MAGIC_ID, a, b, c, d, body @ ..] => Ok((SchemaRef::Id(u32::from_be_bytes([*a, *b, *c, *d])), body)),
        _ => Err(not_framed(value)),
    }
}

fn schema_of_header(header: &[u8]) -> Option<SchemaRef> {
    match header {
        [MAGIC_ID, id @ ..] => Some(SchemaRef::Id(u32::from_be_bytes(id.try_into().ok()?))),
        [MAGIC_GUID, guid @ ..] => Some(SchemaRef::Guid(Uuid::from_slice(guid).ok()?)),
        _ => None,
    }
}

fn not_framed(bytes: &[u8]) -> DecodeError {
    const SHOWN: usize = 8;
    let start: Vec<String> = bytes.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
    DecodeError::NotFramed { found: format!("{} bytes starting [{}]", bytes.len(), start.join(" ")) }
}

/// A parsed schema of a writer, which reads the bodies written with it.
pub struct ReadSchema {
    /// The reference in records.
    pub schema: SchemaRef,
    /// The record's full name.
    pub full_name: String,
    /// Its version within its subject, if the registry returned it.
    pub version: Option<u32>,
    /// The schema.
    pub avro: &'static Schema,
    datum: GenericDatumReader<'static>,
}

impl std::fmt::Debug for ReadSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (schema {})", self.full_name, self.schema)
    }
}

impl ReadSchema {
    /// The record's short name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.full_name.rsplit('.').next().unwrap_or(&self.full_name)
    }

    /// Parses a registered schema. The result lives as long as the process, so the caller must bound the number of schemas.
    ///
    /// # Errors
    /// The text is not an Avro schema, or not the schema of a record.
    pub fn parse(schema: SchemaRef, registered: &RegisteredSchema) -> Result<Self, CodecError> {
        // The schema comes from outside. A panic of the parser must not end the worker.
        guarded("parsing the schema", || Self::build(schema, registered)).map_err(CodecError::new)?
    }

    fn build(schema: SchemaRef, registered: &RegisteredSchema) -> Result<Self, CodecError> {
        // The first call of a process sets the limit, and every call sets the same one.
        apache_avro::util::max_allocation_bytes(MAX_ALLOCATION_BYTES);
        let avro = Schema::parse_str(&registered.text).map_err(CodecError::new)?;
        let Schema::Record(record) = &avro else {
            return Err(CodecError::new("it is not a record"));
        };
        let full_name = record.name.fullname(None);
        // It lives as long as the process. There is one for each schema id, and the caller bounds their number.
        let avro: &'static Schema = Box::leak(Box::new(avro));
        let datum = GenericDatumReader::builder(avro).build().map_err(CodecError::new)?;
        Ok(Self { schema, full_name, version: registered.version, avro, datum })
    }
}

/// A body with the schema it was written with.
#[derive(Debug, Clone, Copy)]
pub struct Decoded<'a> {
    /// The schema.
    pub schema: &'static ReadSchema,
    /// The bytes after the prefix.
    pub body: &'a [u8],
}

impl<'a> Decoded<'a> {
    /// The body as [`Message::read`] takes it.
    #[must_use]
    pub fn record(&self) -> RecordReader<'a> {
        RecordReader::new(&self.schema.datum, self.body)
    }

    /// Reads the body into a struct that has the name of the record and the fields that it uses.
    ///
    /// # Errors
    /// [`DecodeError::Body`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.record().read().map_err(|source| self.error(source))
    }

    /// The error of a body that cannot be read.
    #[must_use]
    pub fn error(&self, source: CodecError) -> DecodeError {
        DecodeError::Body { record: self.schema.full_name.clone(), source }
    }
}

/// The record types of a [`Message`] enum, by their full names in one system.
#[derive(Debug)]
pub struct Vocabulary<M> {
    records: HashMap<String, &'static RecordType>,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message> Vocabulary<M> {
    /// The vocabulary of `M` in a system.
    #[must_use]
    pub fn new(system: &str) -> Self {
        let records = M::RECORDS.iter().map(|record| (record.full_name(system), record)).collect();
        Self { records, messages: PhantomData }
    }

    /// The record type with this full name, if `M` has it.
    #[must_use]
    pub fn find(&self, full_name: &str) -> Option<&'static RecordType> {
        self.records.get(full_name).copied()
    }

    /// Reads a body. Returns `None` if `M` has no such record type.
    ///
    /// # Errors
    /// [`DecodeError::Body`].
    pub fn read(&self, decoded: &Decoded<'_>) -> Result<Option<M>, DecodeError> {
        match self.find(&decoded.schema.full_name) {
            Some(record) => M::read(record.name, &decoded.record()).map_err(|source| decoded.error(source)),
            None => Ok(None),
        }
    }
}

/// The schema of a record in a system. Schema files are written for the default system; this replaces their namespaces.
#[must_use]
pub fn in_system<'a>(text: &'a str, system: &str) -> std::borrow::Cow<'a, str> {
    if system == SCHEMA_FILES_SYSTEM {
        return text.into();
    }
    let namespace = format!("\"com.{SCHEMA_FILES_SYSTEM}.");
    text.replace(&namespace, &format!("\"com.{system}.")).into()
}

/// A schema that a producer cannot write with. The producer refuses to start.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The registry was not reached, or does not have the schema.
    #[error(
        "the schema of {subject} compiled into this program is not known to the registry; hint: `dacapo schemas register`"
    )]
    NotRegistered {
        /// The subject.
        subject: String,
        /// The registry's answer.
        source: SourceError,
    },
    /// The registry is unavailable.
    #[error("cannot look up the schema of {subject}")]
    Unavailable {
        /// The subject.
        subject: String,
        /// Why.
        source: SourceError,
    },
    /// The compiled schema cannot be used.
    #[error("the schema of {subject} compiled into this program cannot be used")]
    Unusable {
        /// The subject.
        subject: String,
        /// Why.
        source: CodecError,
    },
}

impl WriterError {
    /// True if a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

struct RecordWriting {
    record: RecordType,
    full_name: Arc<str>,
    id: u32,
    text: Arc<str>,
    prefix: [u8; 5],
    datum: GenericDatumWriter<'static>,
}

/// Writes framed bodies of the records that a service produces. Clones share the writers.
#[derive(Clone)]
pub struct Writers {
    writings: Vec<Arc<RecordWriting>>,
}

impl std::fmt::Debug for Writers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.writings.iter().map(|w| &w.full_name)).finish()
    }
}

impl Writers {
    /// Writers with the schema ids that `id_of(subject, schema text)` returns.
    ///
    /// # Errors
    /// The error of `id_of`; [`WriterError::Unusable`] if a text is not an Avro schema.
    pub fn with_ids(
        system: &str,
        records: &[RecordType],
        mut id_of: impl FnMut(&str, &str) -> Result<u32, WriterError>,
    ) -> Result<Self, WriterError> {
        let mut writings = Vec::with_capacity(records.len());
        for record in records {
            let subject = record.full_name(system);
            let unusable = |source| WriterError::Unusable { subject: subject.clone(), source };
            let text = record.schema.ok_or_else(|| unusable(CodecError::new("it is only read")))?;
            let text = in_system(text, system);
            let id = id_of(&subject, &text)?;
            let [a, b, c, d] = id.to_be_bytes();
            let datum = writer_of(&text, &subject).map_err(unusable)?;
            let prefix = [MAGIC_ID, a, b, c, d];
            let (full_name, text) = (subject.as_str().into(), text.as_ref().into());
            writings.push(Arc::new(RecordWriting { record: *record, full_name, id, text, prefix, datum }));
        }
        Ok(Self { writings })
    }

    /// No writers, for a program that produces bodies that are framed already.
    #[must_use]
    pub fn none() -> Self {
        Self { writings: Vec::new() }
    }

    /// The schemas that these writers write with, by their ids.
    pub fn schemas(&self) -> impl Iterator<Item = (SchemaRef, RegisteredSchema)> {
        self.writings.iter().map(|writing| {
            let RecordWriting { id, text, .. } = &**writing;
            (SchemaRef::Id(*id), RegisteredSchema { id: Some(*id), version: None, text: Arc::clone(text) })
        })
    }

    /// The writers of both.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.writings.extend(others.writings.iter().cloned());
        self
    }

    /// Appends the framed body of a message to `out`. Returns the record's full name.
    ///
    /// # Errors
    /// The struct does not fit its schema, or there is no writer for the record. `out` is unchanged.
    pub fn encode<M: Written>(&self, message: &M, out: &mut Vec<u8>) -> Result<&Arc<str>, CodecError> {
        let record = message.record();
        let Some(writing) = self.writings.iter().find(|w| is_same(&w.record, record)) else {
            return Err(CodecError::new(format!("no writer for {} of {}", record.name, record.owner)));
        };
        let start = out.len();
        out.extend_from_slice(&writing.prefix);
        let written = message.write(&mut RecordWriter::new(&writing.datum, out));
        match written {
            Ok(()) => Ok(&writing.full_name),
            Err(e) => {
                out.truncate(start);
                Err(e)
            }
        }
    }
}

/// Whether two record types are the same. The text of the schema is not compared: it is long, and owner, channel and name suffice.
fn is_same(a: &RecordType, b: &RecordType) -> bool {
    a.name == b.name && a.channel == b.channel && a.owner == b.owner
}

fn writer_of(text: &str, full_name: &str) -> Result<GenericDatumWriter<'static>, CodecError> {
    let schema = Schema::parse_str(text).map_err(CodecError::new)?;
    match &schema {
        Schema::Record(record) if record.name.fullname(None) == full_name => {}
        Schema::Record(record) => {
            return Err(CodecError::new(format!("it is the schema of {}", record.name.fullname(None))));
        }
        _ => return Err(CodecError::new("it is not a record")),
    }
    // It lives as long as the process. There is one for each record type and start.
    let schema: &'static Schema = Box::leak(Box::new(schema));
    GenericDatumWriter::builder(schema).build().map_err(CodecError::new)
}
