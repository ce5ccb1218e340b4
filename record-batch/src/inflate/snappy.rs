//! Snappy: a single block, or the framing of the Java library, which most clients write.

use crate::records::RecordError;

/// Magic, version and lowest compatible version of the Java framing. The blocks follow, each after its length.
const JAVA_MAGIC: &[u8] = b"\x82SNAPPY\0";
const JAVA_HEADER_LEN: usize = 16;
/// No sequence of snappy elements inflates to more than this many times its size: a three-byte copy yields 64 bytes.
const RATIO_MAX: u64 = 22;

pub(super) struct SnappyBlocks<'a> {
    rest: &'a [u8],
    java: bool,
    started: bool,
}

impl<'a> SnappyBlocks<'a> {
    pub(super) fn new(compressed: &'a [u8]) -> Self {
        match compressed.get(JAVA_HEADER_LEN..) {
            Some(rest) if compressed.starts_with(JAVA_MAGIC) => SnappyBlocks { rest, java: true, started: false },
            _ => SnappyBlocks { rest: compressed, java: false, started: false },
        }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Inflates the next block, whose announced size is checked first. Returns false at the end.
    pub(super) fn next(&mut self, piece: &mut Vec<u8>, left: u64, limit: u64) -> Result<bool, RecordError> {
        piece.clear();
        if self.rest.is_empty() && (self.java || self.started) {
            return Ok(false);
        }
        self.started = true;
        let block = if self.java { self.java_block()? } else { std::mem::take(&mut self.rest) };
        let size = snap::raw::decompress_len(block).map_err(unreadable)?;
        if size as u64 > left {
            return Err(RecordError::TooLarge { limit });
        }
        if size as u64 > (block.len() as u64).saturating_mul(RATIO_MAX) {
            return Err(RecordError::Unreadable(format!(
                "a snappy block announces {size} bytes, more than it can hold"
            )));
        }
        piece.resize(size, 0);
        snap::raw::Decoder::new().decompress(block, piece).map_err(unreadable)?;
        Ok(true)
    }

    fn java_block(&mut self) -> Result<&'a [u8], RecordError> {
        let (length, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(unreadable)?;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(block)
    }
}

fn unreadable(error: impl std::fmt::Display) -> RecordError {
    RecordError::Unreadable(format!("snappy: {error}"))
}

fn truncated() -> RecordError {
    unreadable("the stream is truncated")
}
