//! The LZ4 frame format, as far as Kafka's own readers support it: independent blocks, no dictionary.

use crate::records::RecordError;
use std::hash::Hasher;
use twox_hash::XxHash32;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// The version bits of the flags, and the bits that must be zero.
const VERSION: u8 = 0x40;
const VERSION_MASK: u8 = 0xC0;
const RESERVED_FLAGS: u8 = 0x03;
const INDEPENDENT_BLOCKS: u8 = 0x20;
const BLOCK_CHECKSUM: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
/// Marks a block that is stored, not compressed.
const STORED: u32 = 0x8000_0000;

pub(super) struct Lz4Blocks<'a> {
    rest: &'a [u8],
    flags: u8,
    block_max: usize,
    content_size: Option<u64>,
    content: XxHash32,
    inflated: u64,
    ended: bool,
}

impl<'a> Lz4Blocks<'a> {
    pub(super) fn new(compressed: &'a [u8]) -> Result<Self, RecordError> {
        let mut rest = compressed;
        if take::<4>(&mut rest)? != MAGIC {
            return Err(unreadable("not a frame"));
        }
        let descriptor = rest;
        let [flags, sizes] = take(&mut rest)?;
        if flags & VERSION_MASK != VERSION || flags & RESERVED_FLAGS != 0 || flags & INDEPENDENT_BLOCKS == 0 {
            return Err(unreadable("a version, a dictionary or dependent blocks that readers do not support"));
        }
        let block_max = match sizes {
            0x40 => 64 * 1024,
            0x50 => 256 * 1024,
            0x60 => 1024 * 1024,
            0x70 => 4 * 1024 * 1024,
            _ => return Err(unreadable("an unknown block size")),
        };
        let content_size = if flags & CONTENT_SIZE == 0 { None } else { Some(u64::from_le_bytes(take(&mut rest)?)) };
        let described = &descriptor[..descriptor.len() - rest.len()];
        let [checksum] = take(&mut rest)?;
        if XxHash32::oneshot(0, described).to_le_bytes()[1] != checksum {
            return Err(unreadable("the checksum of the frame's header does not match"));
        }
        Ok(Lz4Blocks {
            rest,
            flags,
            block_max,
            content_size,
            content: XxHash32::with_seed(0),
            inflated: 0,
            ended: false,
        })
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Inflates the next block. Returns false at the end of the frame.
    pub(super) fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, RecordError> {
        piece.clear();
        if self.ended {
            return Ok(false);
        }
        let head = u32::from_le_bytes(take(&mut self.rest)?);
        if head == 0 {
            self.ended = true;
            return self.end().map(|()| false);
        }
        let size = (head & !STORED) as usize;
        if size > self.block_max {
            return Err(unreadable("a block larger than the frame allows"));
        }
        let (block, rest) = self.rest.split_at_checked(size).ok_or_else(truncated)?;
        self.rest = rest;
        if self.flags & BLOCK_CHECKSUM != 0 && u32::from_le_bytes(take(&mut self.rest)?) != XxHash32::oneshot(0, block)
        {
            return Err(unreadable("the checksum of a block does not match"));
        }
        if head & STORED == 0 {
            piece.resize(self.block_max, 0);
            let inflated =
                lz4_flex::block::decompress_into(block, piece).map_err(|error| unreadable(&error.to_string()))?;
            piece.truncate(inflated);
        } else {
            piece.extend_from_slice(block);
        }
        self.inflated += piece.len() as u64;
        if self.flags & CONTENT_CHECKSUM != 0 {
            self.content.write(piece);
        }
        Ok(true)
    }

    fn end(&mut self) -> Result<(), RecordError> {
        if self.flags & CONTENT_CHECKSUM != 0 && u32::from_le_bytes(take(&mut self.rest)?) != self.content.finish_32() {
            return Err(unreadable("the checksum of the frame does not match"));
        }
        if self.content_size.is_some_and(|size| size != self.inflated) {
            return Err(unreadable("the size of the frame does not match"));
        }
        Ok(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (head, tail) = rest.split_first_chunk().ok_or_else(truncated)?;
    *rest = tail;
    Ok(*head)
}

fn unreadable(what: &str) -> RecordError {
    RecordError::Unreadable(format!("lz4: {what}"))
}

fn truncated() -> RecordError {
    unreadable("the stream is truncated")
}
