//! The size limits of records: what each topic takes, and what a dead letter keeps if it does not fit.
//!
//! A size here is that of a record in a batch of its own, uncompressed and rounded up. So a broker takes every record within a
//! limit, whatever the compression. The driver reads the limits from the cluster. An operator may change them, so the driver
//! reads them again when a broker rejects a record as too large.

use crate::{OutputHeaders, envelope::MAX_VALUE_BYTES};

/// What a topic takes by default: Kafka's default of `max.message.bytes`.
pub const TOPIC_BYTES: usize = 1_048_588;
/// The limit that dead-letter topics are created with. [`TOPIC_BYTES`] limits inputs as compressed batches; their dead letters have
/// more headers and may compress less well. Every hosted Kafka allows this much.
pub const DEAD_LETTER_BYTES: usize = 8 << 20;
/// The header of a batch.
const BATCH_BYTES: usize = 61;
/// The overhead of a record and of a header: lengths and deltas at their longest.
const RECORD_BYTES: usize = 40;
const HEADER_BYTES: usize = 10;
/// The headers that a dead letter without its body may keep: enough for every header that a reader uses.
const KEPT_HEADERS_BYTES: usize = 64 << 10;

/// The largest batch that each topic a service writes to takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The own events topic.
    pub events: usize,
    /// The own inbox.
    pub inbox: usize,
    /// The dead-letter topic.
    pub dead_letters: usize,
    /// The topic of parked records.
    pub parked: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events: TOPIC_BYTES, inbox: TOPIC_BYTES, dead_letters: DEAD_LETTER_BYTES, parked: DEAD_LETTER_BYTES }
    }
}

impl Limits {
    /// The smallest of the limits.
    #[must_use]
    pub fn least(self) -> usize {
        self.events.min(self.inbox).min(self.dead_letters).min(self.parked)
    }

    /// The same limits for a client that sends no record larger than `most`.
    #[must_use]
    pub fn within(self, most: usize) -> Self {
        Self {
            events: self.events.min(most),
            inbox: self.inbox.min(most),
            dead_letters: self.dead_letters.min(most),
            parked: self.parked.min(most),
        }
    }
}

type Header = (String, Option<Vec<u8>>);

/// The size of a record with these headers, which carries `bytes` in its key and value.
pub(crate) fn size(bytes: usize, headers: &OutputHeaders) -> usize {
    let mut sum = BATCH_BYTES + RECORD_BYTES + bytes;
    match headers {
        OutputHeaders::Verbatim(headers) => sum += headers.iter().map(size_of).sum::<usize>(),
        OutputHeaders::Envelope(envelope) => {
            envelope.for_each_header(|name, value| sum += HEADER_BYTES + name.len() + value.len());
        }
    }
    sum
}

fn size_of((name, value): &Header) -> usize {
    HEADER_BYTES + name.len() + value.as_ref().map_or(0, Vec::len)
}

/// Reduces the headers of a record to those that a dead letter without its body keeps: headers within the length that is read, as
/// long as there is room. Returns whether all of them remain.
pub(crate) fn trim_headers(headers: &mut Vec<Header>) -> bool {
    let (before, mut left) = (headers.len(), KEPT_HEADERS_BYTES);
    headers.retain(|header| {
        let size = size_of(header);
        let kept = size <= left && header.1.as_ref().is_none_or(|value| value.len() <= MAX_VALUE_BYTES);
        left -= if kept { size } else { 0 };
        kept
    });
    headers.len() == before
}
