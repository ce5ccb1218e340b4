//! A record as a client delivers it.

use crate::{
    envelope::{Envelope, EnvelopeError, Position, RecordMetadata},
    time::TimestampMs,
};

/// One record as a client delivers it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp_ms: TimestampMs,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Record<'_> {
    /// Its position in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.topic, self.partition, self.offset)
    }

    /// Its key, if it is text.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        self.key.and_then(|key| std::str::from_utf8(key).ok())
    }

    /// Reads its envelope from its headers and its position.
    ///
    /// # Errors
    /// A header is malformed.
    pub fn envelope(&self) -> Result<Envelope, EnvelopeError> {
        let metadata = RecordMetadata {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key_text(),
        };
        Envelope::read(metadata, self.headers.iter().copied())
    }
}
