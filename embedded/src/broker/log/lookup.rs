//! Offsets by time, inside one batch.
//!
//! Owns how a timestamp is found among records, compressed or not. Knows no file: `partition` chooses the batches.

use super::batch::BatchHeader;
use super::inflate::{Codec, InflatedBytes};
use super::partition::OffsetAndTimestamp;
use super::records::{PlainBytes, RecordBytes, RecordError, read_record};

/// A batch of an older version of the broker may inflate to anything; the walk holds only a piece of it, but it takes its time.
const INFLATED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The first record of a complete batch that is at or after `target` and has an offset of at least `from`.
///
/// Of a batch that an older version accepted and that cannot be read, the first offset is returned: a reader that starts there
/// misses nothing.
pub(crate) fn first_at_or_after(batch: &[u8], target: i64, from: i64) -> Option<OffsetAndTimestamp> {
    let header = BatchHeader::parse(batch).ok()?;
    if header.max_timestamp < target || header.last_offset() < from {
        return None;
    }
    let found = |offset: i64, timestamp| OffsetAndTimestamp { offset, timestamp };
    if header.has_append_time() {
        return Some(found(header.base_offset.max(from), header.max_timestamp));
    }
    match search(&header, batch, target, from) {
        Ok(record) => record.map(|(offset, timestamp)| found(offset, timestamp)),
        Err(_) => Some(found(header.base_offset.max(from), header.base_timestamp.max(target))),
    }
}

fn search(header: &BatchHeader, batch: &[u8], target: i64, from: i64) -> Result<Option<(i64, i64)>, RecordError> {
    let records = header.records(batch).ok_or(RecordError::End)?;
    match Codec::of(header.attributes).map_err(|unknown| RecordError::Unreadable(unknown.to_string()))? {
        None => search_records(&mut PlainBytes::new(records), header, target, from),
        Some(codec) => {
            search_records(&mut InflatedBytes::new(codec, records, INFLATED_BYTES_MAX)?, header, target, from)
        }
    }
}

fn search_records(
    bytes: &mut impl RecordBytes,
    header: &BatchHeader,
    target: i64,
    from: i64,
) -> Result<Option<(i64, i64)>, RecordError> {
    for _ in 0..header.record_count {
        let record = read_record(bytes, header.base_timestamp)?;
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        if record.timestamp >= target && offset >= from {
            return Ok(Some((offset, record.timestamp)));
        }
    }
    Ok(None)
}
