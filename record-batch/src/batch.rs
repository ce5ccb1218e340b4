//! Record batches (format v2) as bytes: headers, checksums and transaction markers.
//!
//! Owns the layout of a batch. Knows no file, no topic and no producer state. Of the records inside it reads only a marker's key.

use crate::records;
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before the first record.
pub const HEADER_LEN: usize = 61;
/// Bytes that `batch_length` does not count: the base offset and the length field.
pub const PREFIX_LEN: usize = 12;
/// The start of the bytes that the checksum covers.
const CRC_FROM: usize = 21;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// Codec, timestamps' type, transactional, control, delete horizon.
const KNOWN_ATTRIBUTES: i16 = 0x7f;

/// The outcome that a transaction marker states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnMarker {
    Abort,
    Commit,
}

/// The fixed part of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
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
pub enum BatchError {
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
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
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

    /// The offset of the last record. A stored batch of an older version may state anything, so the sum saturates, and no batch
    /// ends before it begins.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta.max(0)))
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The bytes of the records, in a complete batch.
    pub fn records<'a>(&self, batch: &'a [u8]) -> Option<&'a [u8]> {
        batch.get(HEADER_LEN..self.size)
    }

    /// Whether the records carry the time of their arrival, which the header states for all of them.
    pub fn has_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// The attributes that this format defines, with the timestamps' type set.
    pub fn attributes_with_append_time(&self, append_time: bool) -> i16 {
        let kept = self.attributes & KNOWN_ATTRIBUTES & !LOG_APPEND_TIME;
        if append_time { kept | LOG_APPEND_TIME } else { kept }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The sequence number of the last record; sequences wrap to zero after the largest `i32`.
    pub fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }

    /// Checks that `bytes` contain the complete batch of this header, with the checksum it states.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), BatchError> {
        let body = bytes.get(CRC_FROM..self.size).ok_or(BatchError::Short)?;
        if crc32c::crc32c(body) == self.crc { Ok(()) } else { Err(BatchError::Crc) }
    }
}

fn field<const N: usize>(head: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

/// The batch's header with its offset in the log and the leader epoch filled in. The checksum covers neither field.
pub fn header_at_offset(batch: &[u8], base_offset: i64, leader_epoch: i32) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    head.copy_from_slice(&batch[..HEADER_LEN]);
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    head
}

/// The batch with other attributes and another largest timestamp. The checksum covers both, so it is recomputed.
pub fn rewritten(batch: &[u8], attributes: i16, max_timestamp: i64) -> Bytes {
    let mut bytes = BytesMut::from(batch);
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

/// The control batch that ends a transaction in one partition.
pub fn marker_batch(producer_id: i64, epoch: i16, marker: TxnMarker, coordinator_epoch: i32, now_ms: i64) -> Bytes {
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
pub fn marker_of(batch: &[u8]) -> Option<TxnMarker> {
    let header = BatchHeader::parse(batch).ok()?;
    match records::first_key(header.records(batch)?)? {
        [_, _, 0, 0] => Some(TxnMarker::Abort),
        [_, _, 0, 1] => Some(TxnMarker::Commit),
        _ => None,
    }
}

/// The offset after the last of these complete batches.
pub fn end_of(batches: &[u8]) -> Option<i64> {
    let mut rest = batches;
    let mut end = None;
    while let Ok(header) = BatchHeader::parse(rest) {
        end = Some(header.next_offset());
        rest = rest.get(header.size..).unwrap_or_default();
    }
    end
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
        let batch = marker_batch(7, 3, TxnMarker::Abort, 0, 1_000);
        let attributes = BatchHeader::parse(&batch).unwrap().attributes_with_append_time(true);
        let batch = rewritten(&batch, attributes, 5_000);
        let header = BatchHeader::parse(&batch).unwrap();
        header.verify(&batch).unwrap();
        assert_eq!((header.max_timestamp, header.has_append_time()), (5_000, true));
    }

    #[test]
    fn short_and_invalid_bytes_are_errors_not_panics() {
        let batch = marker_batch(7, 3, TxnMarker::Abort, 0, 1_000).to_vec();
        for length in 0..batch.len() {
            assert!(marker_of(&batch[..length]).is_none());
        }
        let mut invalid = batch;
        invalid[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
        assert_eq!(BatchHeader::parse(&invalid), Err(BatchError::Length(-1)));
    }

    #[test]
    fn offsets_of_a_stored_batch_neither_overflow_nor_run_backwards() {
        let mut batch = marker_batch(7, 3, TxnMarker::Abort, 0, 1_000).to_vec();
        batch[..8].copy_from_slice(&i64::MAX.to_be_bytes());
        batch[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(BatchHeader::parse(&batch).unwrap().next_offset(), i64::MAX);
        batch[..8].copy_from_slice(&5_i64.to_be_bytes());
        batch[23..27].copy_from_slice(&i32::MIN.to_be_bytes());
        assert_eq!(BatchHeader::parse(&batch).unwrap().next_offset(), 6);
    }
}
