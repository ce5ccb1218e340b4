//! The records inside a batch: one walk over their bytes, which checks every length and copies nothing.
//!
//! Owns the layout of a record. Knows neither codecs nor what a record means: `produced` decides what is refused, `lookup` finds
//! offsets.

/// A source of record bytes: the bytes of the batch themselves, or what they inflate to.
pub trait RecordBytes {
    fn byte(&mut self) -> Result<u8, RecordError>;
    fn skip(&mut self, count: usize) -> Result<(), RecordError>;
    /// Skips bytes that must be UTF-8.
    fn text(&mut self, count: usize) -> Result<(), RecordError>;
    /// Bytes consumed so far.
    fn position(&self) -> u64;
    /// Ensures that nothing is left.
    fn end(&mut self) -> Result<(), RecordError>;
}

/// The reason why bytes are not the records that the batch announces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the records end before the last one that the batch counts")]
    End,
    #[error("bytes follow the last record that the batch counts")]
    BytesLeft,
    #[error("a number is longer than its type")]
    Varint,
    #[error("a length of {0} is impossible")]
    Length(i64),
    #[error("the fields of a record do not fill its length")]
    Size,
    // librdkafka's bindings take the name of a header for text; some end the process at other bytes.
    #[error("the name of a header is not UTF-8")]
    HeaderName,
    #[error("a timestamp is outside of the range of 64 bits")]
    Timestamp,
    #[error("the compressed records cannot be read: {0}")]
    Unreadable(String),
    #[error("the records inflate to more than {limit} bytes")]
    TooLarge { limit: u64 },
}

/// The parts of a record that the broker judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFields {
    pub timestamp: i64,
    pub offset_delta: i32,
    pub has_key: bool,
}

/// The bytes of uncompressed records.
pub struct PlainBytes<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> PlainBytes<'a> {
    pub fn new(records: &'a [u8]) -> Self {
        PlainBytes { rest: records, length: records.len() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(RecordError::End)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl RecordBytes for PlainBytes<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, RecordError> {
        let (byte, rest) = self.rest.split_first().ok_or(RecordError::End)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), RecordError> {
        self.take(count).map(|_| ())
    }

    fn text(&mut self, count: usize) -> Result<(), RecordError> {
        std::str::from_utf8(self.take(count)?).map(|_| ()).map_err(|_| RecordError::HeaderName)
    }

    fn position(&self) -> u64 {
        (self.length - self.rest.len()) as u64
    }

    fn end(&mut self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::BytesLeft) }
    }
}

/// Walks over one record.
#[inline]
pub fn read_record(bytes: &mut impl RecordBytes, base_timestamp: i64) -> Result<RecordFields, RecordError> {
    let length = length(bytes)?;
    let end = bytes.position() + length as u64;
    bytes.byte()?; // attributes: none is defined
    let timestamp = base_timestamp.checked_add(varint64(bytes)?).ok_or(RecordError::Timestamp)?;
    let offset_delta = varint32(bytes)?;
    let has_key = skip_nullable(bytes, end)?;
    skip_nullable(bytes, end)?;
    let headers = self::length(bytes)?;
    // A header has two lengths at least, so a count that cannot be true ends the walk before it starts.
    if headers as u64 > end.saturating_sub(bytes.position()) / 2 {
        return Err(RecordError::Length(headers as i64));
    }
    for _ in 0..headers {
        let name = self::length(bytes)?;
        within(bytes, end, name)?;
        bytes.text(name)?;
        skip_nullable(bytes, end)?;
    }
    if bytes.position() == end { Ok(RecordFields { timestamp, offset_delta, has_key }) } else { Err(RecordError::Size) }
}

/// The key of the first record; `None` if there is none.
pub fn first_key(records: &[u8]) -> Option<&[u8]> {
    let mut bytes = PlainBytes::new(records);
    length(&mut bytes).ok()?;
    bytes.byte().ok()?;
    varint64(&mut bytes).ok()?;
    varint32(&mut bytes).ok()?;
    let size = length(&mut bytes).ok()?;
    bytes.take(size).ok()
}

fn within(bytes: &impl RecordBytes, end: u64, size: usize) -> Result<(), RecordError> {
    if size as u64 <= end.saturating_sub(bytes.position()) { Ok(()) } else { Err(RecordError::Size) }
}

/// Skips a key or a value. Returns whether there is one.
#[inline]
fn skip_nullable(bytes: &mut impl RecordBytes, end: u64) -> Result<bool, RecordError> {
    match varint32(bytes)? {
        -1 => Ok(false),
        size => {
            let size = usize::try_from(size).map_err(|_| RecordError::Length(i64::from(size)))?;
            within(bytes, end, size)?;
            bytes.skip(size)?;
            Ok(true)
        }
    }
}

#[inline]
fn length(bytes: &mut impl RecordBytes) -> Result<usize, RecordError> {
    let length = varint32(bytes)?;
    usize::try_from(length).map_err(|_| RecordError::Length(i64::from(length)))
}

/// Kafka's readers take at most five bytes for 32 bits.
#[inline]
fn varint32(bytes: &mut impl RecordBytes) -> Result<i32, RecordError> {
    let first = bytes.byte()?;
    if first & 0x80 == 0 {
        return Ok(i32::from(first >> 1) ^ -i32::from(first & 1));
    }
    i32::try_from(longer_varint(bytes, first, 5)?).map_err(|_| RecordError::Varint)
}

#[inline]
fn varint64(bytes: &mut impl RecordBytes) -> Result<i64, RecordError> {
    let first = bytes.byte()?;
    if first & 0x80 == 0 {
        return Ok(i64::from(first >> 1) ^ -i64::from(first & 1));
    }
    longer_varint(bytes, first, 10)
}

fn longer_varint(bytes: &mut impl RecordBytes, first: u8, bytes_max: u32) -> Result<i64, RecordError> {
    let mut raw = u64::from(first & 0x7f);
    for at in 1..bytes_max {
        let byte = bytes.byte()?;
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << (7 * at);
        if shifted >> (7 * at) != bits {
            return Err(RecordError::Varint);
        }
        raw |= shifted;
        if byte & 0x80 == 0 {
            return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
        }
    }
    Err(RecordError::Varint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Result<i64, RecordError> {
        varint64(&mut PlainBytes::new(bytes))
    }

    #[test]
    fn varints_are_read_up_to_the_ends_of_their_types() {
        assert_eq!(parsed(&[0]), Ok(0));
        assert_eq!(parsed(&[1]), Ok(-1));
        assert_eq!(parsed(&[0xac, 0x02]), Ok(150));
        assert_eq!(parsed(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(i64::MIN));
        assert_eq!(parsed(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(i64::MAX));
        assert_eq!(parsed(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03]), Err(RecordError::Varint));
        assert_eq!(varint32(&mut PlainBytes::new(&[0xff, 0xff, 0xff, 0xff, 0x0f])), Ok(i32::MIN));
        assert_eq!(varint32(&mut PlainBytes::new(&[0xff, 0xff, 0xff, 0xff, 0x1f])), Err(RecordError::Varint));
        assert_eq!(varint32(&mut PlainBytes::new(&[0xff; 8])), Err(RecordError::Varint));
        assert_eq!(parsed(&[0x80]), Err(RecordError::End));
    }

    #[test]
    fn a_header_count_that_cannot_be_true_ends_the_walk_at_once() {
        let record = [20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
        let read = read_record(&mut PlainBytes::new(&record), 0);
        assert_eq!(read, Err(RecordError::Length(i64::from(i32::MAX))));
    }
}
