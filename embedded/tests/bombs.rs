//! Compressed batches that inflate to gigabytes: refused, and never held in memory. One test in a process of its own, because it
//! measures the process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use embedded::broker::{Broker, BrokerConfig};
use flate2::write::GzEncoder;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use std::io::{Read, Write};
use std::net::TcpStream;

const INFLATED_BYTES: usize = 512 * 1024 * 1024;
/// What the broker may need for its buffers and for the windows of the codecs: a fraction of what the batches inflate to.
const MEMORY_MAX_KB: u64 = 64 * 1024;
const MESSAGE_TOO_LARGE: i16 = 10;
const VERSION: i16 = 8;

fn peak_memory_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").parse().ok()
}

/// The start of a record whose value has `INFLATED_BYTES` zeros.
fn record_head() -> Vec<u8> {
    let mut varint = Vec::new();
    let mut raw = INFLATED_BYTES << 1;
    while raw >= 0x80 {
        varint.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    varint.push(raw as u8);
    // The length of the record: its fields and the value; then attributes, deltas, no key.
    let mut head = varint.clone();
    head[0] += 2 * 10;
    head.extend_from_slice(&[0, 0, 0, 1]);
    head.extend_from_slice(&varint);
    head
}

fn gzip() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&record_head()).unwrap();
    let zeros = vec![0; 1024 * 1024];
    (0..INFLATED_BYTES / zeros.len()).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.write_all(&[0]).unwrap();
    encoder.finish().unwrap()
}

/// Blocks that repeat one byte, in a frame whose window is the largest that readers allow.
fn zstd() -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3];
    let head = record_head();
    frame.extend_from_slice(&((head.len() as u32) << 3).to_le_bytes()[..3]);
    frame.extend_from_slice(&head);
    let block = 128 * 1024_u32;
    for _ in 0..INFLATED_BYTES as u32 / block {
        frame.extend_from_slice(&(block << 3 | 2).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame.extend_from_slice(&[(1 << 3) | 1, 0, 0, 0]);
    frame
}

fn lz4() -> Vec<u8> {
    let mut frame = b"\x04\x22\x4d\x18\x60\x70\x73".to_vec();
    let mut put = |plain: &[u8]| {
        let block = lz4_flex::block::compress(plain);
        frame.extend_from_slice(&(block.len() as u32).to_le_bytes());
        frame.extend_from_slice(&block);
    };
    put(&record_head());
    let zeros = vec![0; 4 * 1024 * 1024];
    // As many as fit into a batch; they inflate to more than the limit.
    (0..60).for_each(|_| put(&zeros));
    frame.extend_from_slice(&[0; 4]);
    frame
}

/// One block that announces everything.
fn snappy() -> Vec<u8> {
    let mut block = vec![0x80, 0x80, 0x80, 0x80, 0x02, 0, 0];
    // A copy of 64 bytes from one byte before.
    (0..300_000).for_each(|_| block.extend_from_slice(&[0xfe, 1, 0]));
    block
}

fn batch(codec: i16, records: &[u8]) -> Vec<u8> {
    let mut covered = codec.to_be_bytes().to_vec();
    covered.extend_from_slice(&0_i32.to_be_bytes());
    covered.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes().repeat(2));
    covered.extend_from_slice(&[0xff; 14]);
    covered.extend_from_slice(&1_i32.to_be_bytes());
    covered.extend_from_slice(records);
    let mut batch = vec![0; 8];
    batch.extend_from_slice(&(9 + covered.len() as i32).to_be_bytes());
    batch.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 2]);
    batch.extend_from_slice(&crc32c::crc32c(&covered).to_be_bytes());
    batch.extend_from_slice(&covered);
    batch
}

fn produce(stream: &mut TcpStream, records: Vec<u8>) -> (i16, Option<String>) {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records.into()));
    let name = TopicName(StrBytes::from_static_str("bombs"));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![topic]);
    let mut frame = bytes::BytesMut::new();
    let api = ApiKey::Produce;
    let header = RequestHeader::default().with_request_api_key(api as i16).with_request_api_version(VERSION);
    header.encode(&mut frame, api.request_header_version(VERSION)).unwrap();
    request.encode(&mut frame, VERSION).unwrap();
    stream.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
    stream.write_all(&frame).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut response = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut response).unwrap();
    let mut response = bytes::Bytes::from(response);
    ResponseHeader::decode(&mut response, api.response_header_version(VERSION)).unwrap();
    let response = ProduceResponse::decode(&mut response, VERSION).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.error_message.as_ref().map(|why| why.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_inflate_to_gigabytes_are_refused_and_take_no_memory() {
    let bombs = [("gzip", batch(1, &gzip())), ("snappy", batch(2, &snappy())), ("lz4", batch(3, &lz4()))];
    let bombs = bombs.into_iter().chain([("zstd", batch(4, &zstd()))]).collect::<Vec<_>>();
    let broker = Broker::start(BrokerConfig::default()).unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    let topic = NewTopic::new("bombs", 1, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let mut stream = TcpStream::connect(broker.addr()).unwrap();
    for (codec, bomb) in bombs {
        let before = peak_memory_kb();
        assert!(bomb.len() < 1024 * 1024, "{codec}: {} bytes are refused for their size", bomb.len());
        let (code, why) = produce(&mut stream, bomb);
        assert_eq!(code, MESSAGE_TOO_LARGE, "{codec}: {why:?}");
        assert!(why.is_some_and(|why| why.contains("inflate")), "{codec}: the reason");
        if let (Some(before), Some(after)) = (before, peak_memory_kb()) {
            let grown = after - before;
            eprintln!("{codec}: the process grew by {grown} kB");
            assert!(grown < MEMORY_MAX_KB, "{codec}: the process grew by {grown} kB");
        }
    }
    broker.stop().await;
}
