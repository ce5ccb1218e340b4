//! What a client may append: exactly one batch whose every byte a reader can read.
//!
//! Owns the rules and their order, which are Apache Kafka's, error code by error code (the `log` checks of the conformance suite
//! hold the table). The broker is stricter in one way: Kafka overlooks some faults that stop or mislead a reader, which are refused
//! here as `INVALID_RECORD` (docs/broker.md lists them). Knows no file and no producer state.

use super::LogSettings;
use super::batch::{BatchError, BatchHeader, PREFIX_LEN};
use super::inflate::{Codec, InflatedBytes};
use super::records::{PlainBytes, RecordBytes, RecordError, RecordFields, read_record};
use kafka_protocol::ResponseError;

const NO_TIMESTAMP: i64 = -1;
/// The shortest length that Kafka's oldest record format allows; the length is read before the format is known.
const LENGTH_MIN: i32 = 14;
/// Bytes up to and including the format number.
const MAGIC_END: usize = 17;
/// The first version of the request whose clients know zstd.
const ZSTD_SINCE: i16 = 7;
/// A topic with large messages must take large batches: they may inflate at least to this multiple of `max.message.bytes`.
const INFLATED_PER_BYTE: u64 = 4;
/// A batch can hold hundreds of thousands of refused records; a client needs a few to find the cause.
const RECORD_ERRORS_MAX: usize = 100;

/// The circumstances of a produce request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendContext {
    pub now_ms: i64,
    /// Version of the request.
    pub version: i16,
    /// The largest size that records may inflate to, unless the topic's own limit allows more.
    pub inflated_bytes_max: u64,
}

/// Why a batch is refused, in the terms of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProduceRefusal {
    pub error: ResponseError,
    pub message: Option<String>,
    /// The refused records: the position in the batch, and the reason.
    pub records: Vec<(i32, String)>,
}

impl From<ResponseError> for ProduceRefusal {
    fn from(error: ResponseError) -> Self {
        ProduceRefusal { error, message: None, records: Vec::new() }
    }
}

fn refused(error: ResponseError, message: impl Into<String>) -> ProduceRefusal {
    ProduceRefusal { error, message: Some(message.into()), records: Vec::new() }
}

/// The rules for one batch: the topic's settings at the time of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProduceRules {
    batch_bytes_max: usize,
    inflated_bytes_max: u64,
    zstd: bool,
    keys_required: bool,
    append_time: bool,
    earliest: i64,
    latest: i64,
}

impl ProduceRules {
    pub(crate) fn new(settings: &LogSettings, context: AppendContext) -> Self {
        let largest = settings.max_message_bytes as u64;
        ProduceRules {
            batch_bytes_max: settings.max_message_bytes,
            inflated_bytes_max: context.inflated_bytes_max.max(largest.saturating_mul(INFLATED_PER_BYTE)),
            zstd: context.version >= ZSTD_SINCE,
            keys_required: settings.compact,
            append_time: settings.stamp_on_arrival,
            earliest: context.now_ms.saturating_sub(settings.timestamp_before_max_ms),
            latest: context.now_ms.saturating_add(settings.timestamp_after_max_ms),
        }
    }
}

/// A batch that may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckedBatch {
    pub header: BatchHeader,
    /// The largest timestamp of its records, whatever the header states.
    pub max_timestamp: i64,
}

/// Validates the bytes that a client produced to one partition.
pub(crate) fn check(bytes: &[u8], rules: &ProduceRules) -> Result<CheckedBatch, ProduceRefusal> {
    check_frame(bytes)?;
    let header =
        BatchHeader::parse(bytes).map_err(|error| refused(ResponseError::CorruptMessage, error.to_string()))?;
    let codec = Codec::of(header.attributes);
    if codec == Ok(Some(Codec::Zstd)) && !rules.zstd {
        let why = format!("clients that speak produce versions before {ZSTD_SINCE} cannot read zstd");
        return Err(refused(ResponseError::UnsupportedCompressionType, why));
    }
    if let Some(rest) = bytes.get(header.size..).filter(|rest| !rest.is_empty()) {
        return Err(refused_rest(rest));
    }
    if header.base_offset != 0 {
        let why = format!("the first offset is {}, a client's batch starts at 0", header.base_offset);
        return Err(refused(ResponseError::InvalidRecord, why));
    }
    if header.size > rules.batch_bytes_max {
        let why = format!("the batch has {} bytes, max.message.bytes is {}", header.size, rules.batch_bytes_max);
        return Err(refused(ResponseError::MessageTooLarge, why));
    }
    header.verify(bytes).map_err(|error| refused(ResponseError::CorruptMessage, error.to_string()))?;
    check_header(&header).map_err(|why| refused(ResponseError::InvalidRecord, why))?;
    let codec = codec.map_err(|unknown| refused(ResponseError::UnsupportedCompressionType, unknown.to_string()))?;
    let records = header.records(bytes).unwrap_or_default();
    let max_timestamp = match codec {
        None => check_records(&mut PlainBytes::new(records), &header, rules),
        Some(codec) => InflatedBytes::new(codec, records, rules.inflated_bytes_max)
            .map_err(|error| unreadable(&error))
            .and_then(|mut inflated| check_records(&mut inflated, &header, rules)),
    }?;
    Ok(CheckedBatch { header, max_timestamp })
}

/// The checks before the header is read, for which Kafka distinguishes bytes that end early from bytes that are no batch.
fn check_frame(bytes: &[u8]) -> Result<(), ProduceRefusal> {
    let missing =
        || refused(ResponseError::InvalidRecord, "a produce request needs one complete batch for each partition");
    let length = bytes.get(8..PREFIX_LEN).and_then(|length| length.try_into().ok()).map(i32::from_be_bytes);
    let length = length.ok_or_else(missing)?;
    if length < LENGTH_MIN {
        return Err(refused(ResponseError::CorruptMessage, BatchError::Length(length).to_string()));
    }
    let magic = bytes.get(MAGIC_END - 1).copied().ok_or_else(missing)?.cast_signed();
    if !(0..=2).contains(&magic) {
        return Err(refused(ResponseError::CorruptMessage, BatchError::Magic(magic).to_string()));
    }
    if usize::try_from(length).is_ok_and(|length| length + PREFIX_LEN > bytes.len()) {
        return Err(missing());
    }
    if magic == 2 { Ok(()) } else { Err(refused(ResponseError::InvalidRecord, BatchError::Magic(magic).to_string())) }
}

/// A request holds one batch for each partition. Kafka drops a rest that is too short for a batch; here the client is told.
fn refused_rest(rest: &[u8]) -> ProduceRefusal {
    match check_frame(rest) {
        Err(refusal) if refusal.error == ResponseError::CorruptMessage => refusal,
        _ => {
            let why = format!("{} bytes follow the only batch that a request may hold", rest.len());
            refused(ResponseError::InvalidRecord, why)
        }
    }
}

fn check_header(header: &BatchHeader) -> Result<(), &'static str> {
    if header.record_count <= 0 {
        return Err("a batch holds at least one record");
    }
    if i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count) {
        return Err("the count of records and the last offset do not match");
    }
    if header.is_control() {
        return Err("clients cannot write control records");
    }
    if header.is_transactional() && header.producer_id < 0 {
        return Err("a transactional batch needs a producer id");
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err("a batch with a producer id needs an epoch and a sequence number");
    }
    Ok(())
}

/// Walks over all records. Returns the largest timestamp.
fn check_records(
    bytes: &mut impl RecordBytes,
    header: &BatchHeader,
    rules: &ProduceRules,
) -> Result<i64, ProduceRefusal> {
    let mut max_timestamp = NO_TIMESTAMP;
    let mut refused_records = RefusedRecords::default();
    for index in 0..header.record_count {
        let record = read_record(bytes, header.base_timestamp).map_err(|error| unreadable(&error))?;
        if record.offset_delta != index {
            let why = format!("record {index} has the offset delta {}", record.offset_delta);
            return Err(refused(ResponseError::InvalidRecord, why));
        }
        max_timestamp = max_timestamp.max(record.timestamp);
        if rules.refuses(&record, header) {
            refused_records.add(index, &record, rules);
        }
    }
    bytes.end().map_err(|error| unreadable(&error))?;
    refused_records.into_result().map(|()| max_timestamp)
}

fn unreadable(error: &RecordError) -> ProduceRefusal {
    let code = match error {
        // A producer that can splits such a batch and sends the halves.
        RecordError::TooLarge { .. } => ResponseError::MessageTooLarge,
        RecordError::Timestamp => ResponseError::InvalidTimestamp,
        _ => ResponseError::InvalidRecord,
    };
    refused(code, error.to_string())
}

impl ProduceRules {
    #[inline]
    fn refuses(&self, record: &RecordFields, header: &BatchHeader) -> bool {
        (self.keys_required && !record.has_key)
            || (self.append_time && header.has_append_time())
            || (!self.append_time && self.is_outside(record.timestamp))
    }

    /// Retention and look-ups by time depend on the producers' timestamps, and a producer's clock may be wrong.
    #[inline]
    fn is_outside(&self, timestamp: i64) -> bool {
        timestamp != NO_TIMESTAMP && !(self.earliest..=self.latest).contains(&timestamp)
    }
}

#[derive(Debug, Default)]
struct RefusedRecords {
    first: Vec<(i32, String)>,
    count: usize,
    timestamps: bool,
}

impl RefusedRecords {
    fn add(&mut self, index: i32, record: &RecordFields, rules: &ProduceRules) {
        self.count += 1;
        let keyless = rules.keys_required && !record.has_key;
        self.timestamps |= !keyless;
        if self.first.len() == RECORD_ERRORS_MAX {
            return;
        }
        let why = if keyless {
            "a compacted topic needs a key for every record".to_owned()
        } else if rules.append_time {
            "the topic has LogAppendTime: the broker sets that type of timestamp, not the producer".to_owned()
        } else {
            let (timestamp, earliest, latest) = (record.timestamp, rules.earliest, rules.latest);
            format!("timestamp {timestamp} is outside of [{earliest}, {latest}]")
        };
        self.first.push((index, why));
    }

    fn into_result(self) -> Result<(), ProduceRefusal> {
        let Some((index, why)) = self.first.first() else { return Ok(()) };
        let error = if self.timestamps { ResponseError::InvalidTimestamp } else { ResponseError::InvalidRecord };
        let message = Some(format!("{} records are refused, the first at {index}: {why}", self.count));
        Err(ProduceRefusal { error, message, records: self.first })
    }
}
