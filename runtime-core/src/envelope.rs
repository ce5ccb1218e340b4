//! The envelope of a record: CloudEvents attributes in binary mode, as record headers.
//!
//! This module has the header names, their limits, the ids derived from causes, and the conversions to and from headers. It knows
//! nothing of bodies. Reading is tolerant: an attribute that a foreign producer omits is taken from the record itself (its
//! position, key, timestamp). A malformed header is an error that names the header.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::time::{self, TimestampMs};

/// Header names.
pub mod header {
    /// The media type of the body.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The CloudEvents version.
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// The record's id.
    pub const ID: &str = "ce_id";
    /// The service that wrote it: `/<system>/<service>`.
    pub const SOURCE: &str = "ce_source";
    /// The Avro full name.
    pub const TYPE: &str = "ce_type";
    /// When it happened.
    pub const TIME: &str = "ce_time";
    /// The entity it is about: the record's key.
    pub const SUBJECT: &str = "ce_subject";
    /// The saga it belongs to.
    pub const CORRELATION_ID: &str = "ce_correlationid";
    /// The id of the record that caused it.
    pub const CAUSATION_ID: &str = "ce_causationid";
    /// The number of the event among those of its entity, from 1.
    pub const SEQUENCE: &str = "ce_sequence";
    /// The position of the record that caused it.
    pub const CAUSE_POSITION: &str = "ce_causeposition";
    /// The position of the record that the cause was forwarded from.
    pub const ORIGIN_POSITION: &str = "ce_originposition";
    /// The build that made the decision.
    pub const BUILD: &str = "ce_build";
    /// The trace it belongs to (W3C).
    pub const TRACEPARENT: &str = "traceparent";
}

/// The media type of every body.
pub const AVRO: &str = "application/avro";
/// The longest value of a header that is read.
pub const MAX_VALUE_BYTES: usize = 1_024;
/// The most headers that are read.
pub const MAX_HEADERS: usize = 128;

/// The namespace of derived ids that have no record as their cause. It is a random constant; changing it changes every such id.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f9d_7c1e_53a8_4b0c_9e42_d1c7_a50f_3b68);

/// The position of a record: topic, partition and offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Position {
    /// A position.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self { topic: topic.into(), partition, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// Text that is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position: expected topic/partition/offset")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let mut parts = text.rsplitn(3, '/');
        let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
        let offset: i64 = offset.and_then(|o| o.parse().ok()).ok_or(NotAPosition)?;
        let partition: i32 = partition.and_then(|p| p.parse().ok()).ok_or(NotAPosition)?;
        match topic {
            Some(topic) if !topic.is_empty() && offset >= 0 && partition >= 0 => {
                Ok(Self::new(topic, partition, offset))
            }
            _ => Err(NotAPosition),
        }
    }
}

/// The attributes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The record's id: always the same for the same fact.
    pub id: Uuid,
    /// The service that wrote it: `/<system>/<service>`; empty if a foreign producer omits it.
    pub source: Arc<str>,
    /// The Avro full name; empty if a foreign producer omits it. The schema of the body is authoritative.
    pub record_type: Arc<str>,
    /// When it happened.
    pub time_ms: TimestampMs,
    /// The entity it is about.
    pub subject: String,
    /// The saga it belongs to.
    pub correlation_id: String,
    /// The record that caused it.
    pub causation_id: Option<Uuid>,
    /// The number of the event among those of its entity, from 1. Only own events have it.
    pub sequence: Option<u64>,
    /// The position of the record that caused it.
    pub cause_position: Option<Position>,
    /// The position of the record that the cause was forwarded from.
    pub origin_position: Option<Position>,
    /// The build that made the decision.
    pub build: Option<Arc<str>>,
    /// The trace it belongs to (W3C).
    pub traceparent: Option<String>,
}

/// A malformed header. The error is permanent: the record never becomes readable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {header} {problem}")]
pub struct EnvelopeError {
    /// The header's name.
    pub header: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The metadata of a record outside its headers.
#[derive(Debug, Clone, Copy)]
pub struct RecordMetadata<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp.
    pub timestamp_ms: TimestampMs,
    /// The key, if it is text.
    pub key: Option<&'a str>,
}

impl Envelope {
    /// The envelope of a record without a cause.
    pub fn new(id: Uuid, source: impl Into<Arc<str>>, record_type: impl Into<Arc<str>>, time_ms: TimestampMs) -> Self {
        Self {
            id,
            source: source.into(),
            record_type: record_type.into(),
            time_ms,
            subject: String::new(),
            correlation_id: String::new(),
            causation_id: None,
            sequence: None,
            cause_position: None,
            origin_position: None,
            build: None,
            traceparent: None,
        }
    }

    /// Sets the entity that it is about.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Sets the saga that it belongs to.
    #[must_use]
    pub fn correlated(mut self, correlation_id: impl Into<String>) -> Self {
        self.correlation_id = correlation_id.into();
        self
    }

    /// Calls `each` with every header, in a fixed order.
    pub fn for_each_header(&self, mut each: impl FnMut(&'static str, &str)) {
        each(header::CONTENT_TYPE, AVRO);
        each(header::SPEC_VERSION, "1.0");
        let mut id = Uuid::encode_buffer();
        each(header::ID, self.id.hyphenated().encode_lower(&mut id));
        each(header::SOURCE, &self.source);
        each(header::TYPE, &self.record_type);
        each(header::TIME, &time::rfc3339(self.time_ms));
        each(header::SUBJECT, &self.subject);
        each(header::CORRELATION_ID, &self.correlation_id);
        if let Some(causation_id) = self.causation_id {
            each(header::CAUSATION_ID, causation_id.hyphenated().encode_lower(&mut id));
        }
        if let Some(sequence) = self.sequence {
            each(header::SEQUENCE, &sequence.to_string());
        }
        if let Some(position) = &self.cause_position {
            each(header::CAUSE_POSITION, &position.to_string());
        }
        if let Some(position) = &self.origin_position {
            each(header::ORIGIN_POSITION, &position.to_string());
        }
        if let Some(build) = &self.build {
            each(header::BUILD, build);
        }
        if let Some(traceparent) = &self.traceparent {
            each(header::TRACEPARENT, traceparent);
        }
    }

    /// Reads the envelope of a record. If a header appears twice, the last one counts. Unknown headers are ignored.
    ///
    /// # Errors
    /// A header is malformed.
    pub fn read<'h>(
        metadata: RecordMetadata<'_>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Result<Self, EnvelopeError> {
        let raw = RawHeaders::collect(headers);
        let key = metadata.key.unwrap_or_default();
        let subject = text(header::SUBJECT, raw.subject)?.unwrap_or(key).to_owned();
        Ok(Self {
            id: parsed(header::ID, raw.id, "is not a UUID", |t| Uuid::parse_str(t).ok())?
                .unwrap_or_else(|| id_of_position(metadata.topic, metadata.partition, metadata.offset)),
            source: text(header::SOURCE, raw.source)?.unwrap_or_default().into(),
            record_type: text(header::TYPE, raw.record_type)?.unwrap_or_default().into(),
            time_ms: parsed(header::TIME, raw.time, "is not an RFC 3339 time", time::parse_rfc3339)?
                .unwrap_or(metadata.timestamp_ms),
            correlation_id: text(header::CORRELATION_ID, raw.correlation_id)?.unwrap_or(&subject).to_owned(),
            subject,
            causation_id: parsed(header::CAUSATION_ID, raw.causation_id, "is not a UUID", |t| Uuid::parse_str(t).ok())?,
            sequence: parsed(header::SEQUENCE, raw.sequence, "is not a number from 1", |t| {
                t.parse().ok().filter(|n| *n > 0)
            })?,
            cause_position: position(header::CAUSE_POSITION, raw.cause_position)?,
            origin_position: position(header::ORIGIN_POSITION, raw.origin_position)?,
            build: text(header::BUILD, raw.build)?.map(Into::into),
            traceparent: text(header::TRACEPARENT, raw.traceparent)?.map(str::to_owned),
        })
    }
}

/// The last value of each known header.
#[derive(Default)]
struct RawHeaders<'h> {
    id: Option<&'h [u8]>,
    source: Option<&'h [u8]>,
    record_type: Option<&'h [u8]>,
    time: Option<&'h [u8]>,
    subject: Option<&'h [u8]>,
    correlation_id: Option<&'h [u8]>,
    causation_id: Option<&'h [u8]>,
    sequence: Option<&'h [u8]>,
    cause_position: Option<&'h [u8]>,
    origin_position: Option<&'h [u8]>,
    build: Option<&'h [u8]>,
    traceparent: Option<&'h [u8]>,
}

impl<'h> RawHeaders<'h> {
    fn collect(headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>) -> Self {
        let mut raw = Self::default();
        for (name, value) in headers.into_iter().take(MAX_HEADERS) {
            match name {
                header::ID => raw.id = value,
                header::SOURCE => raw.source = value,
                header::TYPE => raw.record_type = value,
                header::TIME => raw.time = value,
                header::SUBJECT => raw.subject = value,
                header::CORRELATION_ID => raw.correlation_id = value,
                header::CAUSATION_ID => raw.causation_id = value,
                header::SEQUENCE => raw.sequence = value,
                header::CAUSE_POSITION => raw.cause_position = value,
                header::ORIGIN_POSITION => raw.origin_position = value,
                header::BUILD => raw.build = value,
                header::TRACEPARENT => raw.traceparent = value,
                _ => {}
            }
        }
        raw
    }
}

fn text<'h>(header: &'static str, value: Option<&'h [u8]>) -> Result<Option<&'h str>, EnvelopeError> {
    let Some(bytes) = value else { return Ok(None) };
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(EnvelopeError { header, problem: "is longer than 1024 bytes" });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| EnvelopeError { header, problem: "is not UTF-8 text" })?;
    if has_control_characters(text) {
        return Err(EnvelopeError { header, problem: "has control characters in it" });
    }
    Ok(Some(text).filter(|t| !t.is_empty()))
}

/// Most text is ASCII, whose control characters are single bytes.
fn has_control_characters(text: &str) -> bool {
    if text.is_ascii() { text.bytes().any(|byte| byte.is_ascii_control()) } else { text.chars().any(char::is_control) }
}

fn parsed<T>(
    header: &'static str,
    value: Option<&[u8]>,
    problem: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, EnvelopeError> {
    match text(header, value)? {
        Some(text) => parse(text).map(Some).ok_or(EnvelopeError { header, problem }),
        None => Ok(None),
    }
}

fn position(header: &'static str, value: Option<&[u8]>) -> Result<Option<Position>, EnvelopeError> {
    parsed(header, value, "is not topic/partition/offset", |t| t.parse().ok())
}

/// The source of a service's records.
#[must_use]
pub fn source(system: &str, service: &str) -> Arc<str> {
    format!("/{system}/{service}").into()
}

/// The id of the `index`th record of type `full_name` that a record caused. The same cause always gives the same id.
#[must_use]
pub fn caused_id(cause: Uuid, full_name: &str, index: usize) -> Uuid {
    Uuid::new_v5(&cause, format!("{full_name}/{index}").as_bytes())
}

/// The id of an effect's answer. Receiving the same answer twice gives the same record.
#[must_use]
pub fn answer_id(service: &str, effect_key: &str, outcome: &str) -> Uuid {
    derived_id(&["answer", service, effect_key, outcome])
}

/// The id of a command about `entity` with this body. Sending the same command twice gives the same record.
#[must_use]
pub fn command_id(full_name: &str, entity: &str, body: &[u8]) -> Uuid {
    let mut name = joined(&["command", full_name, entity]);
    name.extend_from_slice(body);
    Uuid::new_v5(&NAMESPACE, &name)
}

/// The id of a record whose producer set none.
#[must_use]
pub fn id_of_position(topic: &str, partition: i32, offset: i64) -> Uuid {
    // The text is part of every such id, and stays.
    derived_id(&["place", topic, &partition.to_string(), &offset.to_string()])
}

/// An id derived from a list of texts. Different lists give different ids.
#[must_use]
pub fn derived_id(parts: &[&str]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, &joined(parts))
}

/// The parts with their lengths, so that different lists have different bytes.
fn joined(parts: &[&str]) -> Vec<u8> {
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata<'a>() -> RecordMetadata<'a> {
        RecordMetadata {
            topic: "musiccorp.payment.events",
            partition: 3,
            offset: 42,
            timestamp_ms: 1_000,
            key: Some("order-1"),
        }
    }

    fn full() -> Envelope {
        Envelope {
            causation_id: Some(derived_id(&["cause"])),
            sequence: Some(7),
            cause_position: Some(Position::new("musiccorp.payment.inbox", 3, 41)),
            origin_position: Some(Position::new("musiccorp.warehouse.events", 0, 9)),
            build: Some("0.1.0+abc".into()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            ..Envelope::new(
                derived_id(&["id"]),
                source("musiccorp", "payment"),
                "com.musiccorp.payment.PaymentTaken",
                5,
            )
            .about("order-1")
            .correlated("order-1")
        }
    }

    fn read(pairs: &[(&str, &[u8])]) -> Result<Envelope, EnvelopeError> {
        Envelope::read(metadata(), pairs.iter().map(|(name, value)| (*name, Some(*value))))
    }

    #[test]
    fn an_envelope_survives_its_headers() {
        let mut headers = Vec::new();
        full().for_each_header(|name, value| headers.push((name, value.to_owned())));
        let pairs: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        assert_eq!(read(&pairs), Ok(full()));
    }

    #[test]
    fn what_is_missing_comes_from_the_record_itself() {
        let envelope = read(&[]).expect("no header is malformed");
        assert_eq!(envelope.id, id_of_position("musiccorp.payment.events", 3, 42));
        assert_eq!((envelope.subject.as_str(), envelope.correlation_id.as_str()), ("order-1", "order-1"));
        assert_eq!((envelope.time_ms, envelope.sequence, envelope.causation_id), (1_000, None, None));
    }

    #[test]
    fn the_last_of_two_equal_headers_counts() {
        let envelope =
            read(&[("ce_subject", b"first"), ("ce_subject", b"second")]).expect("a repeated header is not an error");
        assert_eq!(envelope.subject, "second");
    }

    #[test]
    fn a_malformed_header_is_named() {
        let long = vec![b'x'; MAX_VALUE_BYTES + 1];
        let cases: [(&str, &[u8]); 8] = [
            ("ce_id", b"not a uuid"),
            ("ce_causationid", b"17"),
            ("ce_time", b"yesterday"),
            ("ce_sequence", b"0"),
            ("ce_causeposition", b"topic/-1/3"),
            ("ce_subject", b"\xff\xfe"),
            ("ce_correlationid", b"two\nlines"),
            ("ce_subject", &long),
        ];
        for (name, value) in cases {
            assert_eq!(read(&[(name, value)]).expect_err(name).header, name);
        }
    }

    #[test]
    fn a_position_survives_its_text() {
        let position = Position::new("a.b", 0, 12);
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "a", "a/1", "/1/2", "a/x/2", "a/1/-2"] {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text}");
        }
    }

    #[test]
    fn different_parts_give_different_ids() {
        assert_ne!(derived_id(&["ab", "c"]), derived_id(&["a", "bc"]));
        let cause = derived_id(&["cause"]);
        assert_eq!(caused_id(cause, "x.Y", 0), caused_id(cause, "x.Y", 0));
        assert_ne!(caused_id(cause, "x.Y", 0), caused_id(cause, "x.Y", 1));
        assert_ne!(command_id("x.Y", "e", b"1"), command_id("x.Y", "e", b"2"));
    }
}
