//! A second reader of batches: the codec of the clients, with whole-buffer decompression. It shares no walk with the broker.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use kafka_protocol::records::{Compression, Record, RecordBatchDecoder};
use std::io::Read;

pub(super) fn read(batch: &Bytes) -> Result<Vec<Record>> {
    let mut bytes = batch.clone();
    let decoded = RecordBatchDecoder::decode_with_custom_compression(&mut bytes, Some(inflate))?;
    ensure!(bytes.is_empty(), "{} bytes left", bytes.len());
    Ok(decoded.records)
}

fn inflate(compressed: &mut Bytes, codec: Compression) -> Result<Bytes> {
    let mut plain = Vec::new();
    match codec {
        Compression::None => return Ok(compressed.clone()),
        Compression::Gzip => drop(MultiGzDecoder::new(&compressed[..]).read_to_end(&mut plain)?),
        Compression::Lz4 => drop(lz4_flex::frame::FrameDecoder::new(&compressed[..]).read_to_end(&mut plain)?),
        Compression::Zstd => {
            let mut decoder = ruzstd::decoding::FrameDecoder::new();
            plain.reserve(4 * 1024 * 1024);
            decoder.decode_all_to_vec(&compressed[..], &mut plain)?;
        }
        Compression::Snappy => plain = snappy(compressed)?,
    }
    Ok(plain.into())
}

fn snappy(compressed: &[u8]) -> Result<Vec<u8>> {
    let Some(mut chunks) = compressed.strip_prefix(b"\x82SNAPPY\0").and_then(|rest| rest.get(8..)) else {
        return Ok(snap::raw::Decoder::new().decompress_vec(compressed)?);
    };
    let mut plain = Vec::new();
    while !chunks.is_empty() {
        let (length, rest) = chunks.split_first_chunk().context("a chunk's length")?;
        let (chunk, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).context("a chunk")?;
        plain.extend(snap::raw::Decoder::new().decompress_vec(chunk)?);
        chunks = rest;
    }
    Ok(plain)
}
