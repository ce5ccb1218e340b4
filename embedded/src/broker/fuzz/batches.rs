//! Inputs that are nearly right: batches of generated records in every codec, and frames around them, each with a few faults at one
//! of its layers. A fault below the checksum leaves the checksum right.

use super::NOW_MS;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::write::GzEncoder;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestHeader, TopicName, TransactionalId};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::fmt;
use std::io::Write;

/// Bytes that a failure prints so that they can be written to the corpus.
#[derive(Clone)]
pub(super) struct Input(pub(super) Bytes);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A fault at one place of some bytes.
#[derive(Debug, Clone)]
enum Fault {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Append(Vec<u8>),
}

impl Fault {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        match self {
            Fault::Append(more) => bytes.extend_from_slice(more),
            _ if bytes.is_empty() => {}
            Fault::Set(at, value) => bytes[at.index(length)] = *value,
            Fault::Flip(at, bit) => bytes[at.index(length)] ^= 1 << (bit % 8),
            Fault::Cut(at) => bytes.truncate(at.index(length)),
            Fault::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
}

/// Bytes that lengths and counts are made of come more often.
fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(1), Just(2), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => (any::<Index>(), any_byte()).prop_map(|(at, value)| Fault::Set(at, value)),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Fault::Flip(at, bit)),
        1 => any::<Index>().prop_map(Fault::Cut),
        1 => (any::<Index>(), vec(any_byte(), 1..12)).prop_map(|(at, more)| Fault::Insert(at, more)),
        1 => vec(any_byte(), 1..70).prop_map(Fault::Append),
    ]
}

/// The layers of a batch, from the inside out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Records,
    Compressed,
    /// From the attributes on: what the checksum covers.
    Covered,
    Whole,
}

#[derive(Debug, Clone)]
struct RecordModel {
    timestamp_delta: i64,
    offset_delta: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn record() -> impl Strategy<Value = RecordModel> {
    let bytes = || option::of(prop_oneof![9 => vec(any_byte(), 0..40), 1 => vec(Just(7_u8), 60_000..70_000)]);
    let delta = prop_oneof![20 => -5_i64..2_000, 1 => any::<i64>()];
    let offset = option::weighted(0.01, prop_oneof![-2_i64..5, any::<i64>()]);
    let headers = vec(("[a-z]{0,5}|ä", option::of(vec(any_byte(), 0..8))), 0..4);
    (delta, offset, bytes(), bytes(), headers).prop_map(|(timestamp_delta, offset_delta, key, value, headers)| {
        RecordModel { timestamp_delta, offset_delta, key, value, headers }
    })
}

impl RecordModel {
    fn put(&self, at: usize, out: &mut Vec<u8>) {
        let mut body = vec![0];
        put_varint(&mut body, self.timestamp_delta);
        put_varint(&mut body, self.offset_delta.unwrap_or(at as i64));
        put_bytes(&mut body, self.key.as_deref());
        put_bytes(&mut body, self.value.as_deref());
        put_varint(&mut body, self.headers.len() as i64);
        for (name, value) in &self.headers {
            put_bytes(&mut body, Some(name.as_bytes()));
            put_bytes(&mut body, value.as_deref());
        }
        put_varint(out, body.len() as i64);
        out.extend_from_slice(&body);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// A batch of generated records with up to three faults.
fn generated() -> impl Strategy<Value = Input> {
    let layer = select(vec![Layer::Records, Layer::Compressed, Layer::Covered, Layer::Whole]);
    let faults = prop_oneof![2 => vec((layer.clone(), fault()), 0..1), 3 => vec((layer, fault()), 1..4)];
    let attributes = prop_oneof![30 => 0_i16..5, 1 => any::<i16>()];
    let timestamp = prop_oneof![9 => NOW_MS - 9_000..NOW_MS, 1 => any::<i64>(), 1 => Just(-1)];
    (vec(record(), 1..20), attributes, timestamp, any::<u8>(), faults).prop_map(
        |(records, attributes, timestamp, variant, faults)| {
            let at_layer = |layer: Layer, bytes: &mut Vec<u8>| {
                faults.iter().filter(|(at, _)| *at == layer).for_each(|(_, fault)| fault.apply(bytes));
            };
            let mut plain = Vec::new();
            records.iter().enumerate().for_each(|(at, record)| record.put(at, &mut plain));
            at_layer(Layer::Records, &mut plain);
            let mut compressed = compress(attributes & 7, variant, &plain);
            at_layer(Layer::Compressed, &mut compressed);
            let mut covered = Vec::new();
            covered.put_i16(attributes);
            covered.put_i32(records.len() as i32 - 1);
            covered.put_i64(timestamp);
            covered.put_i64(timestamp);
            covered.put_slice(&[0xff; 14]);
            covered.put_i32(records.len() as i32);
            covered.extend_from_slice(&compressed);
            at_layer(Layer::Covered, &mut covered);
            let mut whole = wrap(&covered);
            at_layer(Layer::Whole, &mut whole);
            Input(whole.into())
        },
    )
}

fn wrap(covered: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    whole.put_i64(0);
    whole.put_i32(9 + covered.len() as i32);
    whole.put_i32(-1);
    whole.put_i8(2);
    whole.put_u32(crc32c::crc32c(covered));
    whole.extend_from_slice(covered);
    whole
}

/// A file of the corpus with up to three faults, whose checksum is right in most cases.
fn mutated(corpus: Vec<(String, Bytes)>) -> impl Strategy<Value = Input> {
    let files: Vec<Bytes> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    (select(files), vec(fault(), 0..4), prop::bool::weighted(0.9)).prop_map(|(file, faults, sum)| {
        let mut bytes = file.to_vec();
        faults.iter().for_each(|fault| fault.apply(&mut bytes));
        let covered = bytes.get(21..).filter(|_| sum).map(wrap);
        Input(covered.unwrap_or(bytes).into())
    })
}

pub(super) fn any_batch(corpus: Vec<(String, Bytes)>) -> impl Strategy<Value = Input> {
    let random = vec(any_byte(), 0..200).prop_map(|bytes| Input(bytes.into()));
    prop_oneof![6 => generated(), 5 => mutated(corpus), 1 => random]
}

/// The codecs with the settings that their clients use.
fn compress(codec: i16, variant: u8, plain: &[u8]) -> Vec<u8> {
    match codec {
        1 => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(u32::from(variant % 10)));
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        2 => snappy(variant, plain),
        3 => lz4(variant, plain),
        4 => {
            use ruzstd::encoding::{CompressionLevel, compress_to_vec};
            let level =
                if variant.is_multiple_of(2) { CompressionLevel::Uncompressed } else { CompressionLevel::Fastest };
            compress_to_vec(plain, level)
        }
        _ => plain.to_vec(),
    }
}

fn snappy(variant: u8, plain: &[u8]) -> Vec<u8> {
    let block = |plain: &[u8]| snap::raw::Encoder::new().compress_vec(plain).unwrap();
    if variant.is_multiple_of(2) {
        return block(plain);
    }
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for chunk in plain.chunks(if variant % 4 == 1 { 32 * 1024 } else { 100 }) {
        let chunk = block(chunk);
        framed.put_i32(chunk.len() as i32);
        framed.extend_from_slice(&chunk);
    }
    framed
}

fn lz4(variant: u8, plain: &[u8]) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let mut info = FrameInfo::new();
    info.block_mode = if variant.is_multiple_of(16) { BlockMode::Linked } else { BlockMode::Independent };
    info.block_size = if variant & 1 == 0 { BlockSize::Max64KB } else { BlockSize::Max4MB };
    info.block_checksums = variant & 2 != 0;
    info.content_checksum = variant & 4 != 0;
    info.content_size = (variant & 8 != 0).then_some(plain.len() as u64);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A produce request for the partition of the fuzzed topic.
pub(super) fn produce_frame(version: i16, transactional_id: Option<&str>, acks: i16, records: Bytes) -> Bytes {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(TopicName(text("fuzzed"))).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
        .with_acks(acks)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![topic]);
    let mut frame = BytesMut::new();
    header(ApiKey::Produce, version, &mut frame);
    request.encode(&mut frame, version).unwrap();
    frame.freeze()
}

fn header(api: ApiKey, version: i16, out: &mut BytesMut) {
    RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("fuzz")))
        .encode(out, api.request_header_version(version))
        .unwrap();
}

/// Requests whose bodies are random: those that create nothing on the disk.
const RANDOM_BODIES: [ApiKey; 14] = [
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::SyncGroup,
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
    ApiKey::DescribeConfigs,
    ApiKey::DeleteRecords,
];

pub(super) fn any_frame(corpus: Vec<(String, Bytes)>) -> impl Strategy<Value = Input> {
    let id = option::weighted(0.2, Just("fuzz"));
    let produce = (any_batch(corpus), 3_i16..=11, id, -2_i16..3, vec(fault(), 0..3), prop::bool::weighted(0.5))
        .prop_map(|(batch, version, id, acks, faults, faulty)| {
            let mut frame = produce_frame(version, id, acks, batch.0).to_vec();
            faults.iter().filter(|_| faulty).for_each(|fault| fault.apply(&mut frame));
            Input(frame.into())
        });
    let other = (select(&RANDOM_BODIES[..]), 0_i16..17, vec(any_byte(), 0..120)).prop_map(|(api, version, body)| {
        let mut frame = BytesMut::new();
        header(api, version.min(api.valid_versions().max), &mut frame);
        frame.extend_from_slice(&body);
        Input(frame.freeze())
    });
    let random = vec(any_byte(), 0..60).prop_map(|bytes| Input(bytes.into()));
    prop_oneof![6 => produce, 4 => other, 1 => random]
}
