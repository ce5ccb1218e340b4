//! Record batches (format v2) as bytes: what a header says, whether a batch is whole, and how a transaction marker looks.
//!
//! Owns the layout of a batch. Knows no file, no topic and no producer state; records inside a batch are looked at only to
//! find a timestamp.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;

/// Bytes before the first record.
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes that `batch_length` does not count: the base offset and the length itself.
const PREFIX_LEN: usize = 12;
/// Where the part that the checksum covers begins.
const CRC_FROM: usize = 21;
const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const NO_TIMESTAMP: i64 = -1;

/// The end a transaction marker announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
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

/// Why bytes are not a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("fewer bytes than the batch says it has")]
    Short,
    #[error("batch length {0} is impossible")]
    Length(i32),
    #[error("record format {0} is not supported, only 2 is")]
    Magic(i8),
    #[error("checksum does not match")]
    Crc,
}

impl BatchHeader {
    /// Reads a header; the records behind it need not be there.
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

    /// Checks that `bytes` are one whole batch with this header and the checksum it names.
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

/// Accepts what a client sent for one partition: exactly one sound data batch.
pub(crate) fn check_produced(bytes: &[u8]) -> Result<BatchHeader, ResponseError> {
    let header = BatchHeader::parse(bytes).map_err(|error| match error {
        BatchError::Magic(_) => ResponseError::UnsupportedForMessageFormat,
        _ => ResponseError::CorruptMessage,
    })?;
    if header.size > bytes.len() {
        return Err(ResponseError::CorruptMessage);
    }
    header.verify(bytes).map_err(|_| ResponseError::CorruptMessage)?;
    let counted = i64::from(header.last_offset_delta) + 1 == i64::from(header.record_count);
    let produced_by_client = !header.is_control() && header.attributes & LOG_APPEND_TIME == 0;
    let known_compression = header.attributes & COMPRESSION_MASK <= 4;
    let owned = !header.is_transactional() || header.producer_id >= 0;
    let whole = header.size == bytes.len();
    if whole && counted && header.record_count > 0 && produced_by_client && known_compression && owned {
        Ok(header)
    } else {
        Err(ResponseError::InvalidRecord)
    }
}

/// Whether a timestamp of the batch lies outside of `earliest..=latest`. Records without one are not judged.
///
/// Of a compressed batch the header is believed, which holds the first record's and the largest: no codec is needed.
pub(crate) fn has_timestamp_outside(batch: &[u8], header: &BatchHeader, earliest: i64, latest: i64) -> bool {
    let outside = |at: i64| at != NO_TIMESTAMP && !(earliest..=latest).contains(&at);
    match Records::new(batch) {
        Some(mut records) => {
            records.any(|record| outside(header.base_timestamp.saturating_add(record.timestamp_delta)))
        }
        None => outside(header.base_timestamp) || outside(header.max_timestamp),
    }
}

/// The first bytes of a batch with its place in the log written in: both fields lie outside the checksum.
pub(crate) fn placed_header(batch: &[u8], base_offset: i64, leader_epoch: i32) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    head.copy_from_slice(&batch[..HEADER_LEN]);
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    head
}

/// The batch with the time of its arrival in place of its records' own. This lies inside the checksum, which is made anew.
pub(crate) fn stamped(batch: &[u8], now_ms: i64) -> Bytes {
    let mut bytes = BytesMut::from(batch);
    let attributes = i16::from_be_bytes([bytes[21], bytes[22]]) | LOG_APPEND_TIME;
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[35..43].copy_from_slice(&now_ms.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

/// The control batch that ends a transaction in one partition.
pub(crate) fn marker_batch(producer_id: i64, epoch: i16, marker: Marker, coordinator_epoch: i32, now_ms: i64) -> Bytes {
    let mut record = BytesMut::with_capacity(16);
    record.put_u8(0); // attributes
    record.put_u8(0); // timestamp delta
    record.put_u8(0); // offset delta
    record.put_u8(zigzag(4)); // key length
    record.put_i16(0); // key version
    record.put_i16(if marker == Marker::Commit { 1 } else { 0 });
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

/// Zigzag of a small length: one byte as long as it is below 64.
fn zigzag(length: u8) -> u8 {
    length << 1
}

/// Which end a control batch announces; `None` for control records that are no transaction markers.
pub(crate) fn marker_of(batch: &[u8]) -> Option<Marker> {
    let mut records = Records::new(batch)?;
    let record = records.next()?;
    match record.key? {
        [_, _, 0, 0] => Some(Marker::Abort),
        [_, _, 0, 1] => Some(Marker::Commit),
        _ => None,
    }
}

/// The offset behind the last of these whole batches.
pub(crate) fn end_of(batches: &[u8]) -> Option<i64> {
    let mut rest = batches;
    let mut end = None;
    while let Ok(header) = BatchHeader::parse(rest) {
        end = Some(header.last_offset() + 1);
        rest = rest.get(header.size..).unwrap_or_default();
    }
    end
}

/// Offset and timestamp of the first record at or after `target`, in one whole batch.
///
/// A compressed batch is answered by its own first offset: reading from there misses nothing, and no codec is needed.
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
    Records::new(batch)?
        .map(|record| {
            (
                header.base_offset.saturating_add(record.offset_delta),
                header.base_timestamp.saturating_add(record.timestamp_delta),
            )
        })
        .find(|(_, timestamp)| *timestamp >= target)
}

/// One record as far as the broker looks into it.
pub(crate) struct RecordView<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i64,
    pub key: Option<&'a [u8]>,
}

/// The records of an uncompressed batch; ends early on bytes that are no record.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn new(batch: &'a [u8]) -> Option<Self> {
        let header = BatchHeader::parse(batch).ok()?;
        if header.is_compressed() {
            return None;
        }
        batch.get(HEADER_LEN..header.size).map(|rest| Records { rest })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
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
        Some(RecordView { timestamp_delta, offset_delta, key })
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
    fn a_marker_is_a_sound_batch_that_says_its_end() {
        for marker in [Marker::Commit, Marker::Abort] {
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
    fn a_flipped_bit_is_noticed() {
        let mut batch = marker_batch(7, 3, Marker::Commit, 0, 1_000).to_vec();
        let last = batch.len() - 1;
        batch[last] ^= 1;
        assert_eq!(BatchHeader::parse(&batch).unwrap().verify(&batch), Err(BatchError::Crc));
    }

    #[test]
    fn a_client_may_not_send_a_marker() {
        let batch = marker_batch(7, 3, Marker::Commit, 0, 1_000);
        assert_eq!(check_produced(&batch), Err(ResponseError::InvalidRecord));
    }

    #[test]
    fn placing_a_batch_leaves_its_checksum_valid() {
        let batch = marker_batch(7, 3, Marker::Abort, 0, 1_000);
        let mut placed = placed_header(&batch, 42, 5).to_vec();
        placed.extend_from_slice(&batch[HEADER_LEN..]);
        let header = BatchHeader::parse(&placed).unwrap();
        assert_eq!(header.base_offset, 42);
        header.verify(&placed).unwrap();
    }

    #[test]
    fn a_stamped_batch_is_sound_and_of_its_arrival() {
        let batch = stamped(&marker_batch(7, 3, Marker::Abort, 0, 1_000), 5_000);
        let header = BatchHeader::parse(&batch).unwrap();
        header.verify(&batch).unwrap();
        assert_eq!(header.max_timestamp, 5_000);
        assert_eq!(first_at_or_after(&batch, 2_000), Some((0, 5_000)));
    }

    #[test]
    fn short_and_absurd_bytes_are_errors_not_panics() {
        let batch = marker_batch(7, 3, Marker::Abort, 0, 1_000).to_vec();
        for cut in 0..batch.len() {
            assert!(check_produced(&batch[..cut]).is_err());
            assert!(marker_of(&batch[..cut]).is_none());
        }
        let mut absurd = batch;
        absurd[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
        assert_eq!(BatchHeader::parse(&absurd), Err(BatchError::Length(-1)));
    }
}
