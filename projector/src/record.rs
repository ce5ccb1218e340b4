//! The input of the fold: one record of a topic, with its headers.
//!
//! Bodies stay encoded. Where a declaration selects by a field of a body, [`BodyDecoder`] decodes it. This module knows neither
//! the encoding of bodies nor the source of records.

use uuid::Uuid;

/// One record as it was read.
#[derive(Debug, Clone, Copy)]
pub struct ProjectedRecord<'a> {
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
    /// True if the value is framed as Avro and its schema is known. The frame alone decides where no schema was looked up.
    pub readable: bool,
}

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedBody {
    /// The full name of its type.
    pub type_name: String,
    /// Its fields.
    pub fields: serde_json::Value,
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body can never be decoded.
    #[error("the body cannot be read: {0}")]
    Unreadable(String),
    /// Something that decoding requires is not available: fold the same record again later.
    #[error("the body cannot be read yet: {0}")]
    Unavailable(String),
}

/// Decodes bodies.
pub trait BodyDecoder {
    /// Decodes one body.
    ///
    /// # Errors
    /// [`BodyError`].
    fn decode(&self, value: &[u8]) -> Result<DecodedBody, BodyError>;
}

/// Decodes nothing: for declarations that select by no field.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBodyDecoder;

impl BodyDecoder for NoBodyDecoder {
    fn decode(&self, _: &[u8]) -> Result<DecodedBody, BodyError> {
        Err(BodyError::Unreadable("bodies are not decoded here".to_owned()))
    }
}

/// Why a record is in no saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnplacedReason {
    /// No header or field has a correlation id.
    NoCorrelation,
    /// Neither a header nor a schema names its type.
    NoType,
    /// A header is not text, or is too long for a name.
    BadHeader,
    /// The value does not match its content type, or a selected field of it cannot be read.
    UnreadableBody,
    /// The view has reached its limit of different names, topics or sagas.
    Full,
}

impl UnplacedReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::NoCorrelation, Self::NoType, Self::BadHeader, Self::UnreadableBody, Self::Full];

    /// The name in replies.
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

/// The headers of a record that the fold uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RecordHeaders<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) source: Option<&'a str>,
    pub(crate) correlation: Option<&'a str>,
    pub(crate) causation: Option<&'a str>,
    pub(crate) build: Option<&'a str>,
    pub(crate) sequence: u32,
    pub(crate) avro: bool,
}

impl<'a> RecordHeaders<'a> {
    /// Reads the headers. `correlation` lists the headers that may have the correlation id; the first one that has a value is used.
    /// An empty header is absent.
    pub(crate) fn read(headers: &[(&str, &'a [u8])], correlation: &[String]) -> Result<Self, UnplacedReason> {
        let mut parsed = Self::default();
        let mut best = usize::MAX;
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            if let Some(rank) = correlation.iter().position(|known| known == name).filter(|rank| *rank < best) {
                best = rank;
                parsed.correlation = Some(text(value)?);
            }
            match *name {
                "ce_id" => parsed.id = Some(text(value)?),
                "ce_type" => parsed.event = Some(text(value)?),
                "ce_source" => parsed.source = Some(text(value)?),
                "ce_causationid" => parsed.causation = Some(text(value)?),
                "ce_build" => parsed.build = Some(text(value)?),
                "ce_sequence" => parsed.sequence = text(value)?.parse().unwrap_or_default(),
                "content-type" => parsed.avro = *value == b"application/avro",
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// The text of a header. Names and ids are short; a long value is foreign data.
fn text(value: &[u8]) -> Result<&str, UnplacedReason> {
    let text = std::str::from_utf8(value).map_err(|_| UnplacedReason::BadHeader)?;
    if text.len() > TEXT_MAX { Err(UnplacedReason::BadHeader) } else { Ok(text) }
}

/// The longest name or id that the projector accepts.
pub(crate) const TEXT_MAX: usize = 256;

/// The schema id of a Confluent-framed value; 0 if the value is not framed.
pub(crate) fn schema_id(value: Option<&[u8]>) -> u32 {
    match value {
        Some([0, a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

/// An id as 16 bytes. An id that is not a UUID becomes the UUIDv5 of its text, so causes still match their events.
pub(crate) fn id_bytes(text: &str) -> [u8; 16] {
    Uuid::try_parse(text).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes())).into_bytes()
}

/// The id of a record without an id: derived from its position, which is unique.
pub(crate) fn position_id(record: &ProjectedRecord<'_>) -> [u8; 16] {
    id_bytes(&format!("{}/{}/{}", record.topic, record.partition, record.offset))
}

/// The text of a field at a dotted path. Only strings, numbers and booleans can be compared.
pub(crate) fn field(fields: &serde_json::Value, path: &str) -> Option<String> {
    let found = path.split('.').try_fold(fields, |value, part| value.get(part))?;
    match found {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_header_is_an_absent_one() {
        let correlation = ["saga".to_owned(), "ce_correlationid".to_owned()];
        let headers: [(&str, &[u8]); 6] = [
            ("saga", b""),
            ("ce_correlationid", b"order-1"),
            ("ce_id", b""),
            ("ce_source", b""),
            ("ce_build", b""),
            ("ce_sequence", b""),
        ];
        let read = RecordHeaders::read(&headers, &correlation).expect("headers that can be read");
        assert_eq!(read, RecordHeaders { correlation: Some("order-1"), ..RecordHeaders::default() });
        assert!(RecordHeaders::read(&[("ce_source", &[0xff])], &correlation).is_err(), "no text");
    }
}
