//! Compressed records as a stream of plain bytes, piece by piece, up to a limit.
//!
//! Owns the codecs. A batch of a few kilobytes can inflate to gigabytes, so nothing here holds more than a piece of it: a block of
//! the codec, or its window. Knows no record. Exactly one stream is read and nothing may follow it: Apache Kafka and librdkafka
//! disagree about what comes after, so some readers would see other records than the broker has checked.

mod lz4;
mod snappy;
mod zstd;

use crate::records::{RecordBytes, RecordError};
use flate2::bufread::GzDecoder;
use lz4::Lz4Blocks;
use snappy::SnappyBlocks;
use std::io::Read;
use zstd::ZstdFrame;

/// Bytes that a streaming codec inflates at a time.
const PIECE_BYTES: usize = 32 * 1024;

/// The codecs of the record format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// The codec number of a batch is none that Kafka defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("codec {0} does not exist: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd")]
pub struct UnknownCodec(pub i16);

impl Codec {
    /// The codec that the low bits of a batch's attributes name; `None` for records that are not compressed.
    pub fn of(attributes: i16) -> Result<Option<Self>, UnknownCodec> {
        match attributes & 0x07 {
            0 => Ok(None),
            1 => Ok(Some(Codec::Gzip)),
            2 => Ok(Some(Codec::Snappy)),
            3 => Ok(Some(Codec::Lz4)),
            4 => Ok(Some(Codec::Zstd)),
            other => Err(UnknownCodec(other)),
        }
    }
}

/// The plain bytes of compressed records.
pub struct InflatedBytes<'a> {
    decoder: Decoder<'a>,
    /// The current piece; `start..` is not consumed yet.
    piece: Vec<u8>,
    start: usize,
    /// Bytes of earlier pieces.
    before: u64,
    limit: u64,
    /// For texts that cross pieces.
    scratch: Vec<u8>,
}

enum Decoder<'a> {
    Gzip(GzDecoder<&'a [u8]>),
    Snappy(SnappyBlocks<'a>),
    Lz4(Lz4Blocks<'a>),
    Zstd(Box<ZstdFrame<'a>>),
}

impl<'a> InflatedBytes<'a> {
    /// Starts to inflate; more than `limit` bytes are an error.
    pub fn new(codec: Codec, compressed: &'a [u8], limit: u64) -> Result<Self, RecordError> {
        let decoder = match codec {
            Codec::Gzip => Decoder::Gzip(GzDecoder::new(compressed)),
            Codec::Snappy => Decoder::Snappy(SnappyBlocks::new(compressed)),
            Codec::Lz4 => Decoder::Lz4(Lz4Blocks::new(compressed)?),
            Codec::Zstd => Decoder::Zstd(Box::new(ZstdFrame::new(compressed, limit)?)),
        };
        Ok(InflatedBytes { decoder, piece: Vec::new(), start: 0, before: 0, limit, scratch: Vec::new() })
    }

    fn rest(&self) -> &[u8] {
        &self.piece[self.start..]
    }

    /// Inflates the next piece. Returns false at the end of the stream.
    fn next_piece(&mut self) -> Result<bool, RecordError> {
        self.before += self.piece.len() as u64;
        self.start = 0;
        let left = self.limit - self.before.min(self.limit);
        let more = match &mut self.decoder {
            Decoder::Gzip(decoder) => read_piece(decoder, &mut self.piece)?,
            Decoder::Zstd(frame) => frame.next(&mut self.piece)?,
            Decoder::Snappy(blocks) => blocks.next(&mut self.piece, left, self.limit)?,
            Decoder::Lz4(blocks) => blocks.next(&mut self.piece)?,
        };
        if self.piece.len() as u64 > left {
            return Err(RecordError::TooLarge { limit: self.limit });
        }
        if !more {
            self.check_end()?;
        }
        Ok(more)
    }

    fn check_end(&self) -> Result<(), RecordError> {
        let left = match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref().len(),
            Decoder::Snappy(blocks) => blocks.left(),
            Decoder::Lz4(blocks) => blocks.left(),
            Decoder::Zstd(frame) => {
                frame.check_end(self.before)?;
                frame.left()
            }
        };
        if left == 0 {
            Ok(())
        } else {
            Err(RecordError::Unreadable(format!("{left} bytes follow the compressed stream")))
        }
    }
}

fn read_piece(decoder: &mut impl Read, piece: &mut Vec<u8>) -> Result<bool, RecordError> {
    piece.resize(PIECE_BYTES, 0);
    let read = decoder.read(piece).map_err(|error| RecordError::Unreadable(error.to_string()))?;
    piece.truncate(read);
    Ok(read > 0)
}

impl RecordBytes for InflatedBytes<'_> {
    fn byte(&mut self) -> Result<u8, RecordError> {
        loop {
            if let Some(byte) = self.piece.get(self.start) {
                self.start += 1;
                return Ok(*byte);
            }
            if !self.next_piece()? {
                return Err(RecordError::End);
            }
        }
    }

    fn skip(&mut self, count: usize) -> Result<(), RecordError> {
        let mut left = count;
        loop {
            let here = self.rest().len().min(left);
            self.start += here;
            left -= here;
            if left == 0 {
                return Ok(());
            }
            if !self.next_piece()? {
                return Err(RecordError::End);
            }
        }
    }

    fn text(&mut self, count: usize) -> Result<(), RecordError> {
        let whole = self.piece.get(self.start..self.start.saturating_add(count));
        if let Some(whole) = whole {
            std::str::from_utf8(whole).map_err(|_| RecordError::HeaderName)?;
            self.start += count;
            return Ok(());
        }
        self.scratch.clear();
        while self.scratch.len() < count {
            let here = self.rest().len().min(count - self.scratch.len());
            self.scratch.extend_from_slice(&self.piece[self.start..self.start + here]);
            self.start += here;
            if self.scratch.len() < count && !self.next_piece()? {
                return Err(RecordError::End);
            }
        }
        std::str::from_utf8(&self.scratch).map(|_| ()).map_err(|_| RecordError::HeaderName)
    }

    fn position(&self) -> u64 {
        self.before + self.start as u64
    }

    fn end(&mut self) -> Result<(), RecordError> {
        loop {
            if !self.rest().is_empty() {
                return Err(RecordError::BytesLeft);
            }
            if !self.next_piece()? {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The number of bytes, or the error.
    fn inflate(codec: Codec, compressed: &[u8], limit: u64) -> Result<u64, RecordError> {
        let mut bytes = InflatedBytes::new(codec, compressed, limit)?;
        loop {
            match bytes.byte() {
                Ok(_) => {}
                Err(RecordError::End) => return bytes.end().map(|()| bytes.position()),
                Err(error) => return Err(error),
            }
        }
    }

    fn compressed(plain: &[u8]) -> Vec<(Codec, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(plain).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(
            lz4_flex::frame::FrameInfo::new().content_checksum(true).block_checksums(true),
            Vec::new(),
        );
        lz4.write_all(plain).unwrap();
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        vec![
            (Codec::Gzip, gzip.finish().unwrap()),
            (Codec::Snappy, snap::raw::Encoder::new().compress_vec(plain).unwrap()),
            (Codec::Lz4, lz4.finish().unwrap()),
            (Codec::Zstd, ruzstd::encoding::compress_to_vec(plain, level)),
        ]
    }

    #[test]
    fn a_stream_is_inflated_up_to_its_limit_and_not_beyond() {
        let plain = vec![7; 300_000];
        for (codec, stream) in compressed(&plain) {
            assert_eq!(inflate(codec, &stream, 300_000), Ok(300_000), "{codec:?}");
            for limit in [0, 1, 299_999] {
                assert_eq!(inflate(codec, &stream, limit), Err(RecordError::TooLarge { limit }), "{codec:?}");
            }
        }
    }

    #[test]
    fn every_truncation_of_a_stream_is_an_error() {
        for (codec, stream) in compressed(&(0..600_u32).flat_map(u32::to_be_bytes).collect::<Vec<u8>>()) {
            assert_eq!(inflate(codec, &stream, 10_000), Ok(2_400), "{codec:?}");
            for length in 0..stream.len() {
                let inflated = inflate(codec, &stream[..length], 10_000);
                assert!(inflated.is_err(), "{codec:?} at {length} of {}: {inflated:?}", stream.len());
            }
            assert!(inflate(codec, &[&stream[..], b"x"].concat(), 10_000).is_err(), "{codec:?} with a byte behind it");
        }
    }
}
