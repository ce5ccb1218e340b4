//! Zstandard: one frame, with a window no larger than the records may be.

use super::read_piece;
use crate::records::RecordError;
use ruzstd::decoding::{DEFAULT_MAX_WINDOW_SIZE, FrameDecoder, StreamingDecoder};
use std::io::{Chain, Cursor, Read};

/// The magic number, the descriptor of the frame and, without the flag below, of the window.
const HEAD_LEN: usize = 6;
const DESCRIPTOR_AT: usize = 4;
const WINDOW_AT: usize = 5;
/// The frame is its own window, and has no descriptor of one.
const SINGLE_SEGMENT: u8 = 0x20;
/// The smallest window is 2^10.
const WINDOW_LOG_MIN: u32 = 10;
/// A block may be this large unless the window is smaller.
const BLOCK_BYTES_MAX: u64 = 128 * 1024;
/// Buffers of larger windows are reserved at once. Growing step by step would copy them, and hold two.
const RESERVED_FROM: u64 = 4 * 1024 * 1024;

type Source<'a> = Chain<Cursor<[u8; HEAD_LEN]>, &'a [u8]>;

pub(super) struct ZstdFrame<'a> {
    stream: StreamingDecoder<Source<'a>, FrameDecoder>,
    window: u64,
    /// Bytes returned so far.
    returned: u64,
    limit: u64,
}

impl<'a> ZstdFrame<'a> {
    /// A frame may state its size; a larger one is refused before anything is inflated. Windows over 128 MiB are refused by the
    /// decoder, as they are by Apache Kafka.
    pub(super) fn new(compressed: &'a [u8], limit: u64) -> Result<Self, RecordError> {
        let (head, rest) = compressed.split_first_chunk().ok_or_else(truncated)?;
        let mut head: [u8; HEAD_LEN] = *head;
        let window = shrink_window(&mut head, limit);
        let source = || Cursor::new(head).chain(rest);
        let mut decoder = FrameDecoder::new();
        if window >= RESERVED_FROM {
            decoder.init(source()).map_err(unreadable)?;
        }
        let decoder = StreamingDecoder::new_with_decoder(source(), decoder).map_err(unreadable)?;
        if decoder.decoder.content_size() > limit {
            return Err(RecordError::TooLarge { limit });
        }
        Ok(ZstdFrame { stream: decoder, window, returned: 0, limit })
    }

    /// Bytes behind the frame.
    pub(super) fn left(&self) -> usize {
        let (head, rest) = self.stream.get_ref().get_ref();
        HEAD_LEN - usize::try_from(head.position()).unwrap_or(HEAD_LEN).min(HEAD_LEN) + rest.len()
    }

    /// Inflates the next piece. Returns false at the end.
    pub(super) fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, RecordError> {
        let more = read_piece(&mut self.stream, piece)?;
        self.returned += piece.len() as u64;
        // Before the end, a window of bytes is inflated that is not returned yet.
        if more && !self.stream.decoder.is_finished() && self.returned + self.window > self.limit {
            return Err(RecordError::TooLarge { limit: self.limit });
        }
        Ok(more)
    }

    /// The decoder reads the frame's size and checksum but leaves the comparison to its caller.
    pub(super) fn check_end(&self, inflated: u64) -> Result<(), RecordError> {
        let decoder = &self.stream.decoder;
        let stated = decoder.content_size();
        let sum = decoder.get_checksum_from_data();
        if (stated != 0 && stated != inflated) || sum.is_some_and(|sum| decoder.get_calculated_checksum() != Some(sum))
        {
            return Err(unreadable("the size or the checksum of the frame does not match"));
        }
        Ok(())
    }
}

/// The decoder holds a whole window before it returns the first byte. Records within the limit never reach further back than the
/// limit, so a larger window is replaced by the smallest one that holds them. Returns the window's size.
fn shrink_window(head: &mut [u8; HEAD_LEN], limit: u64) -> u64 {
    if head[DESCRIPTOR_AT] & SINGLE_SEGMENT != 0 {
        return 0;
    }
    let (log, eighths) = (WINDOW_LOG_MIN + u32::from(head[WINDOW_AT] >> 3), u64::from(head[WINDOW_AT] & 7));
    let stated = (1_u64 << log) + (1_u64 << log) / 8 * eighths;
    let needed = limit.max(BLOCK_BYTES_MAX);
    if stated > DEFAULT_MAX_WINDOW_SIZE || stated <= needed {
        return stated;
    }
    // The smallest window that holds the limit: a power of two and some eighths of it. The stated one is larger, so there is one.
    let base = 1_u64 << needed.ilog2();
    let eighths = (needed - base).div_ceil(base / 8);
    let (base, eighths) = if eighths == 8 { (base * 2, 0) } else { (base, eighths) };
    head[WINDOW_AT] = u8::try_from(u64::from(base.ilog2() - WINDOW_LOG_MIN) << 3 | eighths).unwrap_or(head[WINDOW_AT]);
    base + base / 8 * eighths
}

fn unreadable(error: impl std::fmt::Display) -> RecordError {
    RecordError::Unreadable(format!("zstd: {error}"))
}

fn truncated() -> RecordError {
    unreadable("the stream is truncated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_shrunk_to_the_smallest_that_holds_the_limit() {
        let shrunk = |window: u8, limit: u64| {
            let mut head = [0x28, 0xb5, 0x2f, 0xfd, 0, window];
            (shrink_window(&mut head, limit), head[WINDOW_AT])
        };
        let mib = 1024 * 1024;
        assert_eq!(shrunk(17 << 3, 32 * mib), (32 * mib, 15 << 3));
        assert_eq!(shrunk(17 << 3, 32 * mib + 1), (36 * mib, 15 << 3 | 1));
        assert_eq!(shrunk(17 << 3, 63 * mib), (64 * mib, 16 << 3));
        assert_eq!(shrunk(11 << 3, 1_000), (128 * 1024, 7 << 3), "a block still fits");
        assert_eq!(shrunk(11 << 3, 32 * mib), (2 * mib, 11 << 3), "a smaller window is kept");
        assert_eq!(shrunk(18 << 3, 32 * mib), (256 * mib, 18 << 3), "one that no reader allows is left to the decoder");
    }
}
