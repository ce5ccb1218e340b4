//! How large a record may be: what each topic takes, and what is left of a dead letter that does not fit whole.
//!
//! Sizes are those of a record in a batch of its own, uncompressed, rounded up: what is within a limit here is taken by a broker,
//! whatever the codec. Where limits come from is the driver's business; an operator may change them, so a driver asks again when
//! a broker has found a record too large.

use crate::{OutputHeaders, envelope::MAX_VALUE_BYTES};

/// What a topic takes when nobody tells: the default of `max.message.bytes`.
pub const TOPIC_BYTES: usize = 1_048_588;
/// What a dead-letter topic is made to take. Inputs are held to [`TOPIC_BYTES`] as compressed batches; their letters carry
/// headers beside, and may compress less well. It is the most that every hosted Kafka allows.
pub const DEAD_LETTER_BYTES: usize = 8 << 20;
/// Before the first record of a batch.
const BATCH_BYTES: usize = 61;
/// Around a record, and around a header: lengths and deltas at their longest.
const RECORD_BYTES: usize = 40;
const HEADER_BYTES: usize = 10;
/// What may remain of the headers of a record that is laid aside in part: room for every header that a reader looks at.
const KEPT_HEADERS_BYTES: usize = 64 << 10;

/// The largest batch that each topic a service writes to takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The own events topic.
    pub events: usize,
    /// The own inbox.
    pub inbox: usize,
    /// The topic of dead letters.
    pub dead_letters: usize,
    /// The topic of what is parked.
    pub parked: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events: TOPIC_BYTES, inbox: TOPIC_BYTES, dead_letters: DEAD_LETTER_BYTES, parked: DEAD_LETTER_BYTES }
    }
}

impl Limits {
    /// What every one of the topics takes.
    #[must_use]
    pub fn least(self) -> usize {
        self.events.min(self.inbox).min(self.dead_letters).min(self.parked)
    }

    /// The same for a client that sends no record larger than `most`.
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

/// Leaves of a record's headers what may stay when it is laid aside in part: those that anybody reads, as far as there is room.
/// Answers whether all of them stay.
pub(crate) fn cut_headers(headers: &mut Vec<Header>) -> bool {
    let (before, mut left) = (headers.len(), KEPT_HEADERS_BYTES);
    headers.retain(|header| {
        let size = size_of(header);
        let kept = size <= left && header.1.as_ref().is_none_or(|value| value.len() <= MAX_VALUE_BYTES);
        left -= if kept { size } else { 0 };
        kept
    });
    headers.len() == before
}
