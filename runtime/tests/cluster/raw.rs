//! Requests on the wire, for what the client library does not do: batches that it cannot read, and those of another producer.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime},
};

const ZSTD: i16 = 4;

/// The producer that a batch names: its id, its epoch, and the sequence number of the first record.
pub type BatchProducer = (i64, i16, i32);

const NO_PRODUCER: BatchProducer = (-1, -1, -1);

/// A batch of records, compressed with zstd: valid, and unreadable for a client that was built without it.
pub fn zstd_batch(records: &[(&str, &[u8])]) -> Vec<u8> {
    batch(ZSTD, records.len() as i32, NO_PRODUCER, &stored_in_zstd(&encoded(records)))
}

/// Takes the next sequence numbers of the producer that has written the record at an offset, so that the broker refuses its next one.
pub fn steal_sequence(address: &str, topic: &str, partition: i32, offset: i64) {
    let written = fetch_raw(address, topic, partition, offset);
    let number = |at: usize| i32::from_be_bytes(written[at..at + 4].try_into().expect("four bytes"));
    let producer = i64::from_be_bytes(written[43..51].try_into().expect("eight bytes"));
    let epoch = i16::from_be_bytes(written[51..53].try_into().expect("two bytes"));
    let stolen = [("stolen", &b"a"[..]), ("stolen", &b"b"[..]), ("stolen", &b"c"[..])];
    let next = number(53) + number(57);
    append_raw(address, topic, partition, &batch(0, 3, (producer, epoch, next), &encoded(&stolen)));
}

fn encoded(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut plain = Vec::new();
    for (delta, (key, value)) in records.iter().enumerate() {
        let mut record = vec![0];
        [0, delta as i64].iter().for_each(|number| varint(&mut record, *number));
        for bytes in [key.as_bytes(), value] {
            varint(&mut record, bytes.len() as i64);
            record.extend_from_slice(bytes);
        }
        varint(&mut record, 0);
        varint(&mut plain, record.len() as i64);
        plain.extend(record);
    }
    plain
}

/// A zstd frame with one block that is not compressed.
fn stored_in_zstd(plain: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    let block = (plain.len() as u32) << 3 | 1;
    frame.extend_from_slice(&block.to_le_bytes()[..3]);
    frame.extend_from_slice(plain);
    frame
}

fn varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A batch with these bytes for records.
pub fn batch(codec: i16, count: i32, (producer, epoch, sequence): BatchProducer, records: &[u8]) -> Vec<u8> {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    let now_ms = now.as_millis() as i64;
    let mut covered = Vec::new();
    covered.extend_from_slice(&codec.to_be_bytes());
    covered.extend_from_slice(&(count - 1).to_be_bytes());
    [now_ms, now_ms, producer].iter().for_each(|number: &i64| covered.extend_from_slice(&number.to_be_bytes()));
    covered.extend_from_slice(&epoch.to_be_bytes());
    covered.extend_from_slice(&sequence.to_be_bytes());
    covered.extend_from_slice(&count.to_be_bytes());
    covered.extend_from_slice(records);
    let mut batch = vec![0; 8];
    batch.extend_from_slice(&(covered.len() as i32 + 9).to_be_bytes());
    batch.extend_from_slice(&(-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&crc32c::crc32c(&covered).to_be_bytes());
    batch.extend(covered);
    batch
}

/// Appends a batch as it is to a partition that the broker at `address` leads. Returns the offset of its first record.
pub fn append_raw(address: &str, topic: &str, partition: i32, batch: &[u8]) -> i64 {
    let mut request = Vec::new();
    request.extend_from_slice(&[0, 0, 0, 7]); // Produce, version 7
    request.extend_from_slice(&1_i32.to_be_bytes()); // correlation id
    text(&mut request, "raw");
    request.extend_from_slice(&[0xff, 0xff]); // no transactional id
    request.extend_from_slice(&[0xff, 0xff]); // acks of all replicas
    [10_000, 1].iter().for_each(|number: &i32| request.extend_from_slice(&number.to_be_bytes())); // timeout, topics
    text(&mut request, topic);
    let length = batch.len() as i32;
    [1, partition, length].iter().for_each(|number| request.extend_from_slice(&number.to_be_bytes()));
    request.extend_from_slice(batch);
    let response = call(address, &request);
    // Correlation id, one topic with its name, one partition with its number.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let error = i16::from_be_bytes(response[at..at + 2].try_into().expect("two bytes"));
    assert_eq!(error, 0, "the batch is not appended");
    i64::from_be_bytes(response[at + 2..at + 10].try_into().expect("eight bytes"))
}

/// The batch with the record at an offset, of a partition that the broker at `address` leads.
fn fetch_raw(address: &str, topic: &str, partition: i32, offset: i64) -> Vec<u8> {
    let mut request = vec![0, 1, 0, 4]; // Fetch, version 4
    request.extend_from_slice(&1_i32.to_be_bytes()); // correlation id
    text(&mut request, "raw");
    // Replica, longest wait, least and most bytes.
    [-1, 1_000, 1, 1 << 20].iter().for_each(|number: &i32| request.extend_from_slice(&number.to_be_bytes()));
    request.push(0); // uncommitted records as well
    request.extend_from_slice(&1_i32.to_be_bytes());
    text(&mut request, topic);
    [1, partition].iter().for_each(|number: &i32| request.extend_from_slice(&number.to_be_bytes()));
    request.extend_from_slice(&offset.to_be_bytes());
    request.extend_from_slice(&(1_i32 << 20).to_be_bytes());
    let response = call(address, &request);
    // Correlation id, throttle time, one topic with its name, one partition: number, error, two ends, no aborted transaction.
    let at = 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 2 + 8 + 8 + 4;
    response[at + 4..].to_vec()
}

fn call(address: &str, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a broker");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(&[&(request.len() as i32).to_be_bytes()[..], request].concat()).expect("a request");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a response");
    let mut response = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut response).expect("a whole response");
    response
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
