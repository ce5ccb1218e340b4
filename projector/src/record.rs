//! What the fold is given: one record of a topic, as its headers describe it.
//!
//! Bodies stay closed. Where a declaration needs a field of one, the caller opens it through [`Bodies`]; this module does not
//! know how a body is encoded, nor where records come from.

use uuid::Uuid;

/// One record as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The topic it was read from.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// The value is framed as Avro, and its schema is known. Where nobody has looked, the frame alone is judged.
    pub readable: bool,
}

/// A body that was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The full name of its type.
    pub type_name: String,
    /// Its fields.
    pub fields: serde_json::Value,
}

/// Why a body could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It can never be opened.
    #[error("the body cannot be read: {0}")]
    Unreadable(String),
    /// Something needed for it is not at hand: try the same record again.
    #[error("the body cannot be read yet: {0}")]
    Unavailable(String),
}

/// Opens bodies.
pub trait Bodies {
    /// Opens one.
    ///
    /// # Errors
    /// [`BodyError`].
    fn open(&self, value: &[u8]) -> Result<Body, BodyError>;
}

/// Says of every body that it cannot be read: for declarations that need none.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClosedBodies;

impl Bodies for ClosedBodies {
    fn open(&self, _: &[u8]) -> Result<Body, BodyError> {
        Err(BodyError::Unreadable("bodies are not opened here".to_owned()))
    }
}

/// Why a record is in no saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unplaced {
    /// Nothing says which saga it belongs to.
    NoCorrelation,
    /// Nothing says what it is.
    NoType,
    /// A header is not text, or too long to be a name.
    BadHeader,
    /// The value is not what its content type says, or a needed field of it cannot be read.
    UnreadableBody,
    /// The view has seen too many different names, topics or sagas to take another.
    Full,
}

impl Unplaced {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::NoCorrelation, Self::NoType, Self::BadHeader, Self::UnreadableBody, Self::Full];

    /// As replies name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCorrelation => "no-correlation",
            Self::NoType => "no-type",
            Self::BadHeader => "bad-header",
            Self::UnreadableBody => "unreadable-body",
            Self::Full => "full",
        }
    }
}

/// The headers of one record that a saga is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Envelope<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) source: Option<&'a str>,
    pub(crate) correlation: Option<&'a str>,
    pub(crate) causation: Option<&'a str>,
    pub(crate) build: Option<&'a str>,
    pub(crate) sequence: u32,
    pub(crate) avro: bool,
}

impl<'a> Envelope<'a> {
    /// Reads the headers; `correlation` are the names of headers that may carry the saga's id, the first one that is there wins.
    pub(crate) fn read(headers: &[(&str, &'a [u8])], correlation: &[String]) -> Result<Self, Unplaced> {
        let mut envelope = Self::default();
        let mut best = usize::MAX;
        for (name, value) in headers {
            if let Some(rank) = correlation.iter().position(|known| known == name).filter(|rank| *rank < best) {
                best = rank;
                envelope.correlation = Some(text(value)?);
            }
            match *name {
                "ce_id" => envelope.id = Some(text(value)?),
                "ce_type" => envelope.event = Some(text(value)?),
                "ce_source" => envelope.source = Some(text(value)?),
                "ce_causationid" => envelope.causation = Some(text(value)?),
                "ce_build" => envelope.build = Some(text(value)?),
                "ce_sequence" => envelope.sequence = text(value)?.parse().unwrap_or_default(),
                "content-type" => envelope.avro = *value == b"application/avro",
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// A header's text. Names and ids are short: a long one is somebody else's data.
fn text(value: &[u8]) -> Result<&str, Unplaced> {
    let text = std::str::from_utf8(value).map_err(|_| Unplaced::BadHeader)?;
    if text.is_empty() || text.len() > TEXT_MAX { Err(Unplaced::BadHeader) } else { Ok(text) }
}

/// The longest name or id that is taken.
pub(crate) const TEXT_MAX: usize = 256;

/// The id of the schema that a Confluent-framed value was written with; 0 if it is not framed.
pub(crate) fn schema_id(value: Option<&[u8]>) -> u32 {
    match value {
        Some([0, a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

/// An id as 16 bytes. One that is not a UUID gets the UUIDv5 of its text, so that causes still find their events.
pub(crate) fn id_bytes(text: &str) -> [u8; 16] {
    Uuid::try_parse(text).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes())).into_bytes()
}

/// The id of a record that has none: its place, which is as unique.
pub(crate) fn place_id(record: &Record<'_>) -> [u8; 16] {
    id_bytes(&format!("{}/{}/{}", record.topic, record.partition, record.offset))
}

/// The text of a field at a dotted path. Only texts, numbers and booleans are values to compare with.
pub(crate) fn field(fields: &serde_json::Value, path: &str) -> Option<String> {
    let found = path.split('.').try_fold(fields, |value, part| value.get(part))?;
    match found {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
