//! Whether a stored batch can be read, and if not, why.

use crate::batch::{BatchError, BatchHeader};
use crate::inflate::{Codec, InflatedBytes, UnknownCodec};
use crate::records::{PlainBytes, RecordBytes, RecordError, read_record};

/// What a reader can read.
#[derive(Debug, Clone, Copy)]
pub struct ReaderLimits {
    /// Whether its client library inflates zstd.
    pub zstd: bool,
    /// The most bytes that one batch may inflate to.
    pub inflated_bytes: u64,
}

/// Why a batch cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no whole batch, or its checksum does not match.
    #[error("{0}")]
    Batch(#[from] BatchError),
    /// Its codec does not exist.
    #[error("{0}")]
    UnknownCodec(#[from] UnknownCodec),
    /// The client library of this build does not know its codec.
    #[error("it is compressed with {0:?}, which the client library of this build cannot inflate")]
    UnsupportedCodec(Codec),
    /// Its records are not what it announces.
    #[error("{0}")]
    Records(#[from] RecordError),
    /// It announces another number of records than offsets.
    #[error("it counts {records} records and {offsets} offsets")]
    Count {
        /// The records that its header counts.
        records: i32,
        /// The offsets that its header spans.
        offsets: i64,
    },
}

/// Checks that a reader with these limits can read every record of the first batch of `bytes`.
///
/// # Errors
/// [`Unreadable`].
pub fn check(bytes: &[u8], limits: ReaderLimits) -> Result<BatchHeader, Unreadable> {
    let header = BatchHeader::parse(bytes)?;
    header.verify(bytes)?;
    let records = header.records(bytes).unwrap_or_default();
    match Codec::of(header.attributes)? {
        None => check_records(&mut PlainBytes::new(records), &header)?,
        Some(Codec::Zstd) if !limits.zstd => return Err(Unreadable::UnsupportedCodec(Codec::Zstd)),
        Some(codec) => {
            check_records(&mut InflatedBytes::new(codec, records, limits.inflated_bytes)?, &header)?;
        }
    }
    Ok(header)
}

/// A compacted batch has fewer records than offsets, never more.
fn check_records(bytes: &mut impl RecordBytes, header: &BatchHeader) -> Result<(), Unreadable> {
    let offsets = i64::from(header.last_offset_delta) + 1;
    if header.record_count < 0 || i64::from(header.record_count) > offsets {
        return Err(Unreadable::Count { records: header.record_count, offsets });
    }
    for _ in 0..header.record_count {
        read_record(bytes, header.base_timestamp)?;
    }
    Ok(bytes.end()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{TxnMarker, marker_batch, rewritten};

    const LIMITS: ReaderLimits = ReaderLimits { zstd: false, inflated_bytes: 1 << 20 };

    #[test]
    fn a_sound_batch_can_be_read() {
        assert!(check(&marker_batch(7, 3, TxnMarker::Commit, 0, 1_000), LIMITS).is_ok());
    }

    #[test]
    fn a_batch_whose_content_is_not_what_its_codec_names_cannot_be_read() {
        let batch = marker_batch(7, 3, TxnMarker::Commit, 0, 1_000);
        let with_codec = |codec: i16| check(&rewritten(&batch, 0x30 | codec, 1_000), LIMITS);
        for codec in [1, 2, 3] {
            assert!(matches!(with_codec(codec), Err(Unreadable::Records(_))), "codec {codec}");
        }
        assert_eq!(with_codec(4), Err(Unreadable::UnsupportedCodec(Codec::Zstd)));
        assert!(matches!(with_codec(5), Err(Unreadable::UnknownCodec(_))));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_and_no_panic() {
        let batch = marker_batch(7, 3, TxnMarker::Commit, 0, 1_000).to_vec();
        for length in 0..batch.len() {
            assert!(check(&batch[..length], LIMITS).is_err(), "{length} bytes");
        }
        for at in 16..batch.len() {
            let mut flipped = batch.clone();
            flipped[at] ^= 0x55;
            assert!(check(&flipped, LIMITS).is_err(), "byte {at}");
        }
    }
}
