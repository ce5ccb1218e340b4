//! Record batches (format v2) as bytes: headers, checksums and transaction markers.
//!
//! Owns the layout of a batch. Knows no file, no topic and no producer state. It reads the records inside a batch only to find
//! timestamps and markers.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;

/// Bytes before the first record.
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes that `batch_length` does not count: the base offset and the length field.
const PREFIX_LEN: usize = 12;
/// The start of the bytes that the checksum covers.
const CRC_FROM: usize = 21;
const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const NO_TIMESTAMP: i64 = -1;

/// The outcome that a transaction marker states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxnMarker {
    Abort,
    Commit,
}

/// The fixed part of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub base_offset: i64,
    /// Length of the whole batch, header included.
    pub size: usize,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// The reason why bytes are not a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("fewer bytes than the batch header states")]
    Short,
    #[error("batch length {0} is impossible")]
    Length(i32),
    #[error("record format {0} is not supported, only 2 is")]
    Magic(i8),
    #[error("checksum does not match")]
    Crc,
}

impl BatchHeader {
    /// Reads a header; the records after it may be missing.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let head: &[u8; HEADER_LEN] =
            bytes.get(..HEADER_LEN).and_then(|head| head.try_into().ok()).ok_or(BatchError::Short)?;
        let length = i32::from_be_bytes(field(head, 8));
        let size = usize::try_from(length).map_err(|_| BatchError::Length(length))? + PREFIX_LEN;
        if size < HEADER_LEN {
            return Err(BatchError::Length(length));
        }
        let magic = i8::from_be_bytes(field(head, 16));
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        Ok(BatchHeader {
            base_offset: i64::from_be_bytes(field(head, 0)),
            size,
            crc: u32::from_be_bytes(field(head, 17)),
            attributes: i16::from_be_bytes(field(head, 21)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        })
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION_MASK != 0
    }

    /// The sequence number of the last record; sequences wrap to zero after the largest `i32`.
    pub(crate) fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }

    /// Checks that `bytes` contain the complete batch of this header, with the checksum it states.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<(), BatchError> {
        let body = bytes.get(CRC_FROM..self.size).ok_or(BatchError::Short)?;
        if crc32c::crc32c(body) == self.crc { Ok(()) } else { Err(BatchError::Crc) }
    }
}

fn field<const N: usize>(head: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

/// Validates the bytes that a client produced to one partition: exactly one sound data batch.
pub(crate) fn check_produced(bytes: &[u8]) -> Result<BatchHeader, ResponseError> {
    let header = BatchHeader::parse(bytes).map_err(|error| match error {
        BatchError::Magic(_) => ResponseError::UnsupportedForMessageFormat,
        _ => ResponseError::CorruptMessage,
    })?;
    if header.size > bytes.len() {
        return Err(ResponseError::CorruptMessage);
    }
    header.verify(bytes).map_err(|_| ResponseError::CorruptMessage)?;
    let count_matches = i64::from(header.last_offset_delta) + 1 == i64::from(header.record_count);
    let produced_by_client = !header.is_control() && header.attributes & LOG_APPEND_TIME == 0;
    let known_compression = header.attributes & COMPRESSION_MASK <= 4;
    let has_producer = !header.is_transactional() || header.producer_id >= 0;
    let is_single_batch = header.size == bytes.len();
    if is_single_batch
        && count_matches
        && header.record_count > 0
        && produced_by_client
        && known_compression
        && has_producer
    {
        Ok(header)
    } else {
        Err(ResponseError::InvalidRecord)
    }
}

/// Whether a timestamp of the batch is outside of `earliest..=latest`. Records without a timestamp are skipped.
///
/// Of a compressed batch only the header is checked, which holds the first and the largest timestamp: no codec is needed.
pub(crate) fn has_timestamp_outside(batch: &[u8], header: &BatchHeader, earliest: i64, latest: i64) -> bool {
    let outside = |at: i64| at != NO_TIMESTAMP && !(earliest..=latest).contains(&at);
    match RecordIter::new(batch) {
        Some(mut records) => {
            records.any(|record| outside(header.base_timestamp.saturating_add(record.timestamp_delta)))
        }
        None => outside(header.base_timestamp) || outside(header.max_timestamp),
    }
}

/// The batch's header with its offset in the log and the leader epoch filled in. The checksum covers neither field.
pub(crate) fn header_at_offset(batch: &[u8], base_offset: i64, leader_epoch: i32) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    head.copy_from_slice(&batch[..HEADER_LEN]);
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    head
}

/// The batch with its arrival time in place of its records' timestamps. The checksum covers the field, so it is recomputed.
pub(crate) fn with_append_time(batch: &[u8], now_ms: i64) -> Bytes {
    let mut bytes = BytesMut::from(batch);
    let attributes = i16::from_be_bytes([bytes[21], bytes[22]]) | LOG_APPEND_TIME;
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[35..43].copy_from_slice(&now_ms.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

/// The control batch that ends a transaction in one partition.
pub(crate) fn marker_batch(
    producer_id: i64,
    epoch: i16,
    marker: TxnMarker,
    coordinator_epoch: i32,
    now_ms: i64,
) -> Bytes {
    let mut record = BytesMut::with_capacity(16);
    record.put_u8(0); // attributes
    record.put_u8(0); // timestamp delta
    record.put_u8(0); // offset delta
    record.put_u8(zigzag(4)); // key length
    record.put_i16(0); // key version
    record.put_i16(if marker == TxnMarker::Commit { 1 } else { 0 });
    record.put_u8(zigzag(6)); // value length
    record.put_i16(0); // value version
    record.put_i32(coordinator_epoch);
    record.put_u8(0); // headers
    let mut covered = BytesMut::with_capacity(64);
    covered.put_i16(TRANSACTIONAL | CONTROL);
    covered.put_i32(0); // last offset delta
    covered.put_i64(now_ms);
    covered.put_i64(now_ms);
    covered.put_i64(producer_id);
    covered.put_i16(epoch);
    covered.put_i32(-1); // base sequence
    covered.put_i32(1); // record count
    covered.put_u8(zigzag(u8::try_from(record.len()).unwrap_or(u8::MAX)));
    covered.put_slice(&record);
    let mut batch = BytesMut::with_capacity(CRC_FROM + covered.len());
    batch.put_i64(0);
    batch.put_i32(i32::try_from(CRC_FROM - PREFIX_LEN + covered.len()).unwrap_or(i32::MAX));
    batch.put_i32(0); // leader epoch
    batch.put_i8(2);
    batch.put_u32(crc32c::crc32c(&covered));
    batch.put_slice(&covered);
    batch.freeze()
}

/// Zigzag encoding of a length below 64: one byte.
fn zigzag(length: u8) -> u8 {
    length << 1
}

/// The outcome that a control batch states; `None` for control records that are not transaction markers.
pub(crate) fn marker_of(batch: &[u8]) -> Option<TxnMarker> {
    let mut records = RecordIter::new(batch)?;
    let record = records.next()?;
    match record.key? {
        [_, _, 0, 0] => Some(TxnMarker::Abort),
        [_, _, 0, 1] => Some(TxnMarker::Commit),
        _ => None,
    }
}

/// The offset after the last of these complete batches.
pub(crate) fn end_of(batches: &[u8]) -> Option<i64> {
    let mut rest = batches;
    let mut end = None;
    while let Ok(header) = BatchHeader::parse(rest) {
        end = Some(header.last_offset() + 1);
        rest = rest.get(header.size..).unwrap_or_default();
    }
    end
}

/// Offset and timestamp of the first record at or after `target`, in one complete batch.
///
/// For a compressed batch this is the batch's first offset: reading from there misses nothing, and no codec is needed.
pub(crate) fn first_at_or_after(batch: &[u8], target: i64) -> Option<(i64, i64)> {
    let header = BatchHeader::parse(batch).ok()?;
    if header.max_timestamp < target {
        return None;
    }
    if header.attributes & LOG_APPEND_TIME != 0 {
        return Some((header.base_offset, header.max_timestamp));
    }
    if header.is_compressed() {
        return Some((header.base_offset, header.base_timestamp.max(target)));
    }
    RecordIter::new(batch)?
        .map(|record| {
            (
                header.base_offset.saturating_add(record.offset_delta),
                header.base_timestamp.saturating_add(record.timestamp_delta),
            )
        })
        .find(|(_, timestamp)| *timestamp >= target)
}

/// The parts of a record that the broker reads.
pub(crate) struct RecordHeader<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i64,
    pub key: Option<&'a [u8]>,
}

/// The records of an uncompressed batch; iteration ends at bytes that are no record.
pub(crate) struct RecordIter<'a> {
    rest: &'a [u8],
}

impl<'a> RecordIter<'a> {
    pub(crate) fn new(batch: &'a [u8]) -> Option<Self> {
        let header = BatchHeader::parse(batch).ok()?;
        if header.is_compressed() {
            return None;
        }
        batch.get(HEADER_LEN..header.size).map(|rest| RecordIter { rest })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let mut record = self.rest.get(..length)?;
        self.rest = &self.rest[length..];
        record = record.get(1..)?;
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        let key = match varint(&mut record)? {
            length if length < 0 => None,
            length => Some(record.get(..usize::try_from(length).ok()?)?),
        };
        Some(RecordHeader { timestamp_delta, offset_delta, key })
    }
}

fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let folded = i64::try_from(raw >> 1).ok()?;
            return Some(if raw & 1 == 0 { folded } else { !folded });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_a_sound_batch_that_states_its_outcome() {
        for marker in [TxnMarker::Commit, TxnMarker::Abort] {
            let batch = marker_batch(7, 3, marker, 0, 1_000);
            let header = BatchHeader::parse(&batch).unwrap();
            assert_eq!(header.size, batch.len());
            header.verify(&batch).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch), (7, 3));
            assert_eq!(marker_of(&batch), Some(marker));
        }
    }

    #[test]
    fn a_flipped_bit_fails_the_checksum() {
        let mut batch = marker_batch(7, 3, TxnMarker::Commit, 0, 1_000).to_vec();
        let last = batch.len() - 1;
        batch[last] ^= 1;
        assert_eq!(BatchHeader::parse(&batch).unwrap().verify(&batch), Err(BatchError::Crc));
    }

    #[test]
    fn a_marker_from_a_client_is_refused() {
        let batch = marker_batch(7, 3, TxnMarker::Commit, 0, 1_000);
        assert_eq!(check_produced(&batch), Err(ResponseError::InvalidRecord));
    }

    #[test]
    fn filling_in_the_offset_keeps_the_checksum_valid() {
        let batch = marker_batch(7, 3, TxnMarker::Abort, 0, 1_000);
        let mut placed = header_at_offset(&batch, 42, 5).to_vec();
        placed.extend_from_slice(&batch[HEADER_LEN..]);
        let header = BatchHeader::parse(&placed).unwrap();
        assert_eq!(header.base_offset, 42);
        header.verify(&placed).unwrap();
    }

    #[test]
    fn a_batch_with_append_time_is_sound_and_carries_that_time() {
        let batch = with_append_time(&marker_batch(7, 3, TxnMarker::Abort, 0, 1_000), 5_000);
        let header = BatchHeader::parse(&batch).unwrap();
        header.verify(&batch).unwrap();
        assert_eq!(header.max_timestamp, 5_000);
        assert_eq!(first_at_or_after(&batch, 2_000), Some((0, 5_000)));
    }

    #[test]
    fn short_and_invalid_bytes_are_errors_not_panics() {
        let batch = marker_batch(7, 3, TxnMarker::Abort, 0, 1_000).to_vec();
        for length in 0..batch.len() {
            assert!(check_produced(&batch[..length]).is_err());
            assert!(marker_of(&batch[..length]).is_none());
        }
        let mut invalid = batch;
        invalid[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
        assert_eq!(BatchHeader::parse(&invalid), Err(BatchError::Length(-1)));
    }
}
