//! Record batches built byte by byte, sound ones and malformed ones. No library writes the latter.
//!
//! Owns the layout of a batch as a producer writes it. Knows no check.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// The codecs by their number in a batch's attributes.
pub(crate) const GZIP: i16 = 1;
pub(crate) const SNAPPY: i16 = 2;
pub(crate) const LZ4: i16 = 3;
pub(crate) const ZSTD: i16 = 4;
pub(crate) const CODECS: [i16; 5] = [0, GZIP, SNAPPY, LZ4, ZSTD];

/// One record; every length is counted unless it is overwritten.
#[derive(Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) key_length: Option<i64>,
    pub(crate) value_length: Option<i64>,
    pub(crate) header_count: i64,
    /// What follows the count of headers: the headers themselves, or anything else.
    pub(crate) headers: &'a [u8],
    pub(crate) length: Option<i64>,
}

pub(crate) const RECORD: RawRecord<'static> = RawRecord {
    timestamp_delta: 0,
    offset_delta: 0,
    key: None,
    value: Some(b"v"),
    key_length: None,
    value_length: None,
    header_count: 0,
    headers: b"",
    length: None,
};

/// The record at this position of its batch.
pub(crate) fn record_at(offset_delta: i64) -> RawRecord<'static> {
    RawRecord { offset_delta, ..RECORD }
}

/// Records at the positions 0, 1, 2, …, as many as there are deltas.
pub(crate) fn records_at(timestamp_deltas: &[i64]) -> Vec<u8> {
    (0..)
        .zip(timestamp_deltas)
        .flat_map(|(at, delta)| RawRecord { timestamp_delta: *delta, ..record_at(at) }.bytes())
        .collect()
}

impl RawRecord<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = vec![0];
        put_varint(&mut body, self.timestamp_delta);
        put_varint(&mut body, self.offset_delta);
        for (bytes, length) in [(self.key, self.key_length), (self.value, self.value_length)] {
            put_varint(&mut body, length.unwrap_or_else(|| bytes.map_or(-1, |bytes| bytes.len() as i64)));
            body.extend_from_slice(bytes.unwrap_or_default());
        }
        put_varint(&mut body, self.header_count);
        body.extend_from_slice(self.headers);
        let mut record = Vec::new();
        put_varint(&mut record, self.length.unwrap_or(body.len() as i64));
        record.extend_from_slice(&body);
        record
    }
}

/// The zigzag encoding of all numbers in a record.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_unsigned(out: &mut Vec<u8>, mut raw: u64) {
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// A batch: its header fields, and the bytes behind the header.
#[derive(Clone)]
pub(crate) struct RawBatch {
    pub(crate) base_offset: i64,
    pub(crate) length: Option<i32>,
    pub(crate) magic: i8,
    pub(crate) crc: Option<u32>,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) count: i32,
    pub(crate) records: Vec<u8>,
}

impl RawBatch {
    /// `count` records of one time, sound unless `records` are not.
    pub(crate) fn new(timestamp: i64, count: i32, records: Vec<u8>) -> Self {
        RawBatch {
            base_offset: 0,
            length: None,
            magic: 2,
            crc: None,
            attributes: 0,
            last_offset_delta: count.wrapping_sub(1),
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
            records,
        }
    }

    /// The same batch with its records compressed.
    pub(crate) fn compressed(mut self, codec: i16) -> Self {
        self.records = compress(codec, &self.records);
        self.attributes |= codec;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut covered = Vec::new();
        covered.extend_from_slice(&self.attributes.to_be_bytes());
        covered.extend_from_slice(&self.last_offset_delta.to_be_bytes());
        covered.extend_from_slice(&self.base_timestamp.to_be_bytes());
        covered.extend_from_slice(&self.max_timestamp.to_be_bytes());
        covered.extend_from_slice(&self.producer_id.to_be_bytes());
        covered.extend_from_slice(&self.producer_epoch.to_be_bytes());
        covered.extend_from_slice(&self.base_sequence.to_be_bytes());
        covered.extend_from_slice(&self.count.to_be_bytes());
        covered.extend_from_slice(&self.records);
        let mut batch = Vec::new();
        batch.extend_from_slice(&self.base_offset.to_be_bytes());
        batch.extend_from_slice(&self.length.unwrap_or(9 + covered.len() as i32).to_be_bytes());
        batch.extend_from_slice(&(-1_i32).to_be_bytes());
        batch.extend_from_slice(&self.magic.to_be_bytes());
        batch.extend_from_slice(&self.crc.unwrap_or_else(|| crc32c::crc32c(&covered)).to_be_bytes());
        batch.extend_from_slice(&covered);
        batch
    }
}

/// Compresses, or at least wraps: a stream that stores its content is as valid as any.
pub(crate) fn compress(codec: i16, plain: &[u8]) -> Vec<u8> {
    match codec {
        GZIP => gzip(plain),
        SNAPPY => java_snappy(&snappy(plain)),
        LZ4 => lz4(plain),
        ZSTD => zstd(plain, 0x58),
        _ => plain.to_vec(),
    }
}

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // A vector takes all bytes.
    encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// One block of literals.
pub(crate) fn snappy(plain: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    put_unsigned(&mut block, plain.len() as u64);
    for literal in plain.chunks(60) {
        block.push((literal.len() as u8 - 1) << 2);
        block.extend_from_slice(literal);
    }
    block
}

/// The framing of the Java library around one block.
pub(crate) fn java_snappy(block: &[u8]) -> Vec<u8> {
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    framed.extend_from_slice(&(block.len() as i32).to_be_bytes());
    framed.extend_from_slice(block);
    framed
}

/// A frame of independent stored blocks. The last byte of the header is its checksum.
pub(crate) fn lz4(plain: &[u8]) -> Vec<u8> {
    let mut frame = b"\x04\x22\x4d\x18\x60\x40\x82".to_vec();
    for block in plain.chunks(64 * 1024) {
        frame.extend_from_slice(&(block.len() as u32 | 0x8000_0000).to_le_bytes());
        frame.extend_from_slice(block);
    }
    frame.extend_from_slice(&0_u32.to_le_bytes());
    frame
}

/// A frame with one stored block, for a window that the descriptor states.
pub(crate) fn zstd(plain: &[u8], window: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    frame.extend_from_slice(&((plain.len() as u32) << 3 | 1).to_le_bytes()[..3]);
    frame.extend_from_slice(plain);
    frame
}
