//! The tables of batches, each with what Apache Kafka 4.3.1 answers.

use super::{INVALID_RECORD, INVALID_TIMESTAMP};
use crate::batch_bytes::{
    CODECS, GZIP, LZ4, RECORD, RawBatch, RawRecord, SNAPPY, ZSTD, compress, gzip, java_snappy, lz4, put_varint,
    record_at, records_at, snappy, zstd,
};
use crate::check::CheckFailure;
use crate::checks::records::now_ms;

const CORRUPT_MESSAGE: i16 = 2;
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;

/// How a batch that cannot be read is answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    Refused(i16),
    /// With this error, or with `UNKNOWN_SERVER_ERROR` as by Apache Kafka.
    RefusedByName(i16),
    /// Apache Kafka accepts it although it stops or misleads some readers. Another broker may refuse it as `INVALID_RECORD`.
    MayBeRefused,
}

pub(super) struct ProduceCase {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Records by which the log grows if the batch is accepted.
    pub(super) count: i64,
    pub(super) expected: Expected,
}

impl ProduceCase {
    fn new(name: impl Into<String>, bytes: Vec<u8>, expected: Expected) -> Self {
        let count = bytes.get(57..61).and_then(|count| count.try_into().ok()).map_or(0, i32::from_be_bytes);
        ProduceCase { name: name.into(), bytes, count: i64::from(count), expected }
    }

    pub(super) fn is_zstd(&self) -> bool {
        self.bytes.get(22).is_some_and(|attributes| attributes & 7 == ZSTD as u8)
    }
}

/// Three records, one millisecond apart.
fn three() -> Vec<u8> {
    records_at(&[0, 1, 2])
}

pub(super) fn accepted() -> Result<Vec<ProduceCase>, CheckFailure> {
    let now = now_ms()?;
    let mut cases = Vec::new();
    let mut add =
        |name: String, batch: RawBatch| cases.push(ProduceCase::new(name, batch.bytes(), Expected::Refused(0)));
    let of = |records: Vec<u8>, count| RawBatch::new(now, count, records);
    for codec in CODECS {
        add(format!("three records, codec {codec}"), of(three(), 3).compressed(codec));
        let headers = [header(b"", Some(b"x")), header(b"a\0b", None), header("ä".as_bytes(), Some(b""))].concat();
        let record = RawRecord { header_count: 3, headers: &headers, key: Some(b""), value: None, ..RECORD };
        add(format!("odd headers, codec {codec}"), of(record.bytes(), 1).compressed(codec));
        let large = RawRecord { value: Some(&[7; 100_000]), ..RECORD };
        add(format!("a record over several blocks, codec {codec}"), of(large.bytes(), 1).compressed(codec));
        let times = RawBatch { base_timestamp: -1, ..of(RECORD.bytes(), 1) };
        add(format!("a record without timestamp, codec {codec}"), times.compressed(codec));
    }
    let wrapped = |codec, records| RawBatch { attributes: codec, ..of(records, 3) };
    add("snappy without framing".into(), wrapped(SNAPPY, snappy(&three())));
    add("zstd with a window of 128 MiB".into(), wrapped(ZSTD, zstd(&three(), 17 << 3)));
    let mut two_chunks = java_snappy(&snappy(&record_at(0).bytes()));
    let second = snappy(&record_at(1).bytes());
    two_chunks.extend_from_slice(&(second.len() as i32).to_be_bytes());
    two_chunks.extend_from_slice(&second);
    add("snappy in two chunks".into(), RawBatch { attributes: SNAPPY, ..of(two_chunks, 2) });
    add("a sequence without producer id".into(), RawBatch { base_sequence: 5, producer_epoch: 0, ..of(three(), 3) });
    Ok(cases)
}

fn header(name: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, name.len() as i64);
    bytes.extend_from_slice(name);
    put_varint(&mut bytes, value.map_or(-1, |value| value.len() as i64));
    bytes.extend_from_slice(value.unwrap_or_default());
    bytes
}

/// A batch whose header may be corrected: the largest timestamp and the attributes with which it is stored.
pub(super) struct CorrectedCase {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) max_timestamp: i64,
    pub(super) attributes: i16,
}

pub(super) fn corrected() -> Result<Vec<CorrectedCase>, CheckFailure> {
    let now = now_ms()? - 10_000;
    let two = RawBatch::new(now, 2, records_at(&[0, 5_000]));
    let small = RawBatch { max_timestamp: now, ..two.clone() };
    let large = RawBatch { max_timestamp: now + 1_000_000_000_000, ..two.clone() };
    let sound = RawBatch { max_timestamp: now + 5_000, ..two };
    let horizon = RawBatch { attributes: 0x40, ..sound.clone() };
    let case = |name, batch: RawBatch, attributes| CorrectedCase {
        name,
        bytes: batch.bytes(),
        max_timestamp: now + 5_000,
        attributes,
    };
    Ok(vec![
        case("a sound batch", sound, 0),
        case("a largest timestamp that is too small", small, 0),
        case("a largest timestamp far ahead", large.clone(), 0),
        case("the same, compressed", large.compressed(GZIP), GZIP),
        case("a delete horizon", horizon, 0x40),
    ])
}

pub(super) fn refused() -> Result<Vec<ProduceCase>, CheckFailure> {
    let now = now_ms()?;
    Ok([framing(now), counts(now), lengths(now), headers_and_numbers(now), codecs(now), streams(now), producers(now)]
        .into_iter()
        .flatten()
        .map(|(name, bytes, expected)| ProduceCase::new(name, bytes, expected))
        .collect())
}

type Row = (String, Vec<u8>, Expected);

const INVALID: Expected = Expected::Refused(INVALID_RECORD);
const CORRUPT: Expected = Expected::Refused(CORRUPT_MESSAGE);

fn row(name: impl Into<String>, batch: &RawBatch, expected: Expected) -> Row {
    (name.into(), batch.bytes(), expected)
}

fn framing(now: i64) -> Vec<Row> {
    let sound = || RawBatch::new(now, 3, three());
    let whole = sound().bytes();
    let longer = RawBatch { length: Some(whole.len() as i32 - 12 + 10), ..sound() };
    vec![
        ("no bytes".into(), Vec::new(), INVALID),
        ("twenty bytes".into(), whole[..20].to_vec(), INVALID),
        ("two batches".into(), whole.repeat(2), INVALID),
        ("three bytes after the batch".into(), [&whole[..], b"abc"].concat(), Expected::MayBeRefused),
        ("seventy zeros after the batch".into(), [&whole[..], &[0; 70]].concat(), CORRUPT),
        row("a length beyond the bytes", &longer, INVALID),
        row("a length of 5", &RawBatch { length: Some(5), ..sound() }, CORRUPT),
        row("a length of -1", &RawBatch { length: Some(-1), ..sound() }, CORRUPT),
        row("a wrong checksum", &RawBatch { crc: Some(1), ..sound() }, CORRUPT),
        row("format 0", &RawBatch { magic: 0, ..sound() }, INVALID),
        row("format 1", &RawBatch { magic: 1, ..sound() }, INVALID),
        row("format 3", &RawBatch { magic: 3, ..sound() }, CORRUPT),
        row("format -1", &RawBatch { magic: -1, ..sound() }, CORRUPT),
        row("a base offset of 7", &RawBatch { base_offset: 7, ..sound() }, INVALID),
        row("a base offset of -1", &RawBatch { base_offset: -1, ..sound() }, INVALID),
        row("the largest base offset", &RawBatch { base_offset: i64::MAX, ..sound() }, INVALID),
    ]
}

fn counts(now: i64) -> Vec<Row> {
    let of = |count, records: Vec<u8>| RawBatch::new(now, count, records);
    let mut rows = vec![
        row("a count of 0", &RawBatch { last_offset_delta: 0, ..of(0, Vec::new()) }, INVALID),
        row("no records", &of(0, Vec::new()), INVALID),
        row("a count of -1", &RawBatch { last_offset_delta: 2, ..of(-1, three()) }, INVALID),
        row("a last offset too high", &RawBatch { last_offset_delta: 5, ..of(3, three()) }, INVALID),
        row("a last offset too low", &RawBatch { last_offset_delta: 1, ..of(3, three()) }, INVALID),
        row("40 bytes 0xff", &of(1, vec![0xff; 40]), Expected::RefusedByName(INVALID_RECORD)),
    ];
    for codec in CODECS {
        let compressed = |name: &str, batch: RawBatch, expected| {
            row(format!("{name}, codec {codec}"), &batch.compressed(codec), expected)
        };
        rows.push(compressed("a count of 2^31-1 with one record", of(i32::MAX, RECORD.bytes()), INVALID));
        rows.push(compressed("one record too few", of(3, records_at(&[0, 0])), INVALID));
        rows.push(compressed("one record too many", of(3, records_at(&[0; 4])), INVALID));
        rows.push(compressed("bytes after the records", of(3, [&three()[..], &[0; 3]].concat()), INVALID));
        // Apache Kafka compares the offsets inside compressed batches only.
        let deltas = if codec == 0 { Expected::MayBeRefused } else { Expected::RefusedByName(INVALID_RECORD) };
        rows.push(compressed("offset deltas 0, 0, 0", of(3, RECORD.bytes().repeat(3)), deltas));
        rows.push(compressed("an offset delta of 2^31-1", of(1, record_at(i64::from(i32::MAX)).bytes()), deltas));
        rows.push(compressed("an offset delta of -1", of(1, record_at(-1).bytes()), deltas));
    }
    rows
}

fn lengths(now: i64) -> Vec<Row> {
    let mut rows = Vec::new();
    for codec in CODECS {
        let mut add = |name: &str, record: RawRecord<'_>, expected| {
            let batch = RawBatch::new(now, 1, record.bytes()).compressed(codec);
            rows.push(row(format!("{name}, codec {codec}"), &batch, expected));
        };
        // Apache Kafka does not compare a record's length with its fields inside compressed batches.
        let total = if codec == 0 { INVALID } else { Expected::MayBeRefused };
        add("a record's length too short", RawRecord { length: Some(3), ..RECORD }, total);
        add("a record's length too long", RawRecord { length: Some(100), ..RECORD }, total);
        add("a record's length of -5", RawRecord { length: Some(-5), ..RECORD }, total);
        add("a key beyond the record", RawRecord { key_length: Some(1000), ..RECORD }, INVALID);
        add("a value beyond the record", RawRecord { value_length: Some(1000), ..RECORD }, INVALID);
        add("a key length of -2", RawRecord { key_length: Some(-2), ..RECORD }, Expected::MayBeRefused);
        let value = RawRecord { value: None, value_length: Some(-2), ..RECORD };
        add("a value length of -2", value, Expected::MayBeRefused);
    }
    rows
}

fn headers_and_numbers(now: i64) -> Vec<Row> {
    let mut rows = Vec::new();
    let null_name = [1_u8, 0];
    let not_text = header(b"\xff\xfe", Some(b"x"));
    for codec in CODECS {
        let mut add = |name: &str, records: Vec<u8>, expected| {
            let batch = RawBatch::new(now, 1, records).compressed(codec);
            rows.push(row(format!("{name}, codec {codec}"), &batch, expected));
        };
        for count in [1000, i64::from(i32::MAX), -1] {
            add(&format!("{count} headers, none there"), RawRecord { header_count: count, ..RECORD }.bytes(), INVALID);
        }
        let without_name = RawRecord { header_count: 1, headers: &null_name, ..RECORD };
        add("a header without name", without_name.bytes(), INVALID);
        let odd = RawRecord { header_count: 1, headers: &not_text, ..RECORD };
        add("a header whose name is not text", odd.bytes(), Expected::MayBeRefused);
        add("a timestamp delta of eleven bytes", [&[26, 0][..], &[0xff; 11]].concat(), INVALID);
    }
    let bits = [&[18, 0, 0][..], b"\xff\xff\xff\xff\x7f\x01\x01\x00"].concat();
    rows.push(row("an offset delta with bits beyond its type", &RawBatch::new(now, 1, bits), Expected::MayBeRefused));
    let far = RawRecord { timestamp_delta: 1 << 62, ..RECORD }.bytes();
    let overflow = RawBatch::new(1 << 62, 1, far);
    rows.push(row("a timestamp beyond its type", &overflow, Expected::Refused(INVALID_TIMESTAMP)));
    rows
}

fn codecs(now: i64) -> Vec<Row> {
    let mut rows = Vec::new();
    let names = Expected::RefusedByName(INVALID_RECORD);
    for codec in [GZIP, SNAPPY, LZ4, ZSTD] {
        let mut add = |name: &str, records: Vec<u8>| {
            let batch = RawBatch { attributes: codec, ..RawBatch::new(now, 3, records) };
            rows.push(row(format!("{name}, codec {codec}"), &batch, names));
        };
        let whole = compress(codec, &three());
        add("bytes that are not of the codec", b"not compressed at all".to_vec());
        add("uncompressed records", three());
        add("half of the stream", whole[..whole.len() / 2].to_vec());
        add("the stream without its last eleven bytes", whole[..whole.len() - 11].to_vec());
        add("the stream without its last byte", whole[..whole.len() - 1].to_vec());
    }
    for codec in [5, 6, 7] {
        let batch = RawBatch { attributes: codec, ..RawBatch::new(now, 3, three()) };
        rows.push(row(format!("codec {codec}"), &batch, Expected::RefusedByName(UNSUPPORTED_COMPRESSION_TYPE)));
    }
    rows
}

fn streams(now: i64) -> Vec<Row> {
    let names = Expected::RefusedByName(INVALID_RECORD);
    let may = Expected::MayBeRefused;
    let (zipped, framed) = (gzip(&three()), lz4(&three()));
    let checksum_at = zipped.len() - 8;
    let after = |stream: &[u8]| [stream, b"xxx"].concat();
    let two = |one: fn(&[u8]) -> Vec<u8>| {
        [one(&record_at(0).bytes()), one(&[record_at(1).bytes(), record_at(2).bytes()].concat())].concat()
    };
    let patched = |stream: &[u8], at: usize, byte: u8| {
        let mut stream = stream.to_vec();
        stream[at] = byte;
        stream
    };
    let java = java_snappy(&snappy(&three()));
    let long_block = [&java[..16], &[0x7f, 0xff, 0xff, 0xff], &java[20..]].concat();
    let negative_block = [&java[..16], &[0xff, 0xff, 0xff, 0xf0], &java[20..]].concat();
    [
        ("bytes after the gzip stream", GZIP, after(&zipped), may),
        ("zeros after the gzip stream", GZIP, [&zipped[..], &[0; 20]].concat(), may),
        ("two gzip streams", GZIP, two(gzip), may),
        ("a wrong gzip checksum", GZIP, patched(&zipped, checksum_at, zipped[checksum_at] ^ 1), names),
        ("a gzip header alone", GZIP, zipped[..10].to_vec(), names),
        ("bytes after the lz4 frame", LZ4, after(&framed), may),
        ("two lz4 frames", LZ4, two(lz4), INVALID),
        ("an lz4 frame without end", LZ4, framed[..framed.len() - 4].to_vec(), names),
        ("a wrong checksum of an lz4 header", LZ4, patched(&framed, 6, 0x99), names),
        // The checksum of this header is right.
        ("an lz4 frame of dependent blocks", LZ4, patched(&patched(&framed, 4, 0x40), 6, 0xc0), names),
        ("bytes after the zstd frame", ZSTD, after(&zstd(&three(), 0x58)), names),
        ("a zstd window of 256 MiB", ZSTD, zstd(&three(), 18 << 3), names),
        ("a zstd window of 2 GiB", ZSTD, zstd(&three(), 21 << 3), names),
        ("bytes after a snappy block", SNAPPY, after(&snappy(&three())), names),
        ("bytes after the last snappy chunk", SNAPPY, after(&java), may),
        ("a snappy chunk beyond the bytes", SNAPPY, long_block, names),
        ("a snappy chunk of negative length", SNAPPY, negative_block, names),
    ]
    .into_iter()
    .map(|(name, codec, records, expected)| {
        row(name, &RawBatch { attributes: codec, ..RawBatch::new(now, 3, records) }, expected)
    })
    .collect()
}

fn producers(now: i64) -> Vec<Row> {
    let sound = || RawBatch::new(now, 3, three());
    let producer = RawBatch { producer_id: 77, producer_epoch: 0, base_sequence: 0, ..sound() };
    let control = RawBatch { attributes: 0x30, ..producer.clone() };
    let unsequenced = RawBatch { base_sequence: -1, ..producer.clone() };
    vec![
        row("control records", &RawBatch { attributes: 0x20, ..sound() }, INVALID),
        row("a marker", &control, Expected::Refused(TRANSACTIONAL_ID_AUTHORIZATION_FAILED)),
        row(
            "a transactional batch without producer",
            &RawBatch { attributes: 0x10, ..sound() },
            Expected::Refused(TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        ),
        row("a producer without sequence", &unsequenced, INVALID),
        row("a producer with a negative epoch", &RawBatch { producer_epoch: -1, ..producer }, Expected::MayBeRefused),
    ]
}
