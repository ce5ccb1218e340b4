//! Records: acknowledged records can be read, also after a restart and after an incomplete write.

use crate::support::*;
use embedded::broker::{Broker, BrokerConfig, BrokerStartError, Fsync};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[test]
fn records_are_read_in_order_with_headers_and_timestamps() {
    let broker = start();
    create_topic(&broker, "orders", 1);
    let producer = producer(&broker, &[]);
    for n in 0..100 {
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&n.to_string()) });
        let value = format!("v{n}");
        let record = BaseRecord::to("orders").key("k").payload(&value).headers(headers).timestamp(1_000 + n);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    let consumer = reader(&broker, "orders", 0, "read_committed");
    let mut received = 0;
    eventually("100 records", || {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            assert_eq!(message.offset(), received);
            assert_eq!(message.timestamp().to_millis(), Some(1_000 + received));
            assert_eq!(message.headers().unwrap().get(0).value, Some(received.to_string().as_bytes()));
            received += 1;
        }
        received == 100
    });
}

#[test]
fn compressed_batches_are_stored_unchanged() {
    let broker = start();
    create_topic(&broker, "packed", 1);
    for codec in ["gzip", "snappy", "lz4"] {
        let producer = producer(&broker, &[("compression.type", codec), ("linger.ms", "20")]);
        send(&producer, "packed", 0, (0..200).map(|n| format!("{codec} {n} {}", "x".repeat(100))));
    }
    let values = read_all(&broker, "packed", 0, "read_committed");
    assert_eq!(values.len(), 600);
    assert!(values[599].starts_with("lz4 199 "));
}

#[test]
fn a_restart_keeps_records_topics_settings_and_identity() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    let identity = broker.cluster_id().to_owned();
    create_topic_with(&broker, "orders", 3, &[("retention.ms", "-1")]);
    send(&producer(&broker, &[]), "orders", 2, numbered(0..500));
    let began = Instant::now();
    block_on(broker.stop());
    assert!(began.elapsed() < Duration::from_secs(2));
    let broker = start_in(dir.path());
    assert_eq!(broker.cluster_id(), identity);
    assert_eq!(read_all(&broker, "orders", 2, "read_committed"), numbered(0..500).collect::<Vec<_>>());
    assert_eq!(crate::admin::setting(&broker, "orders", "retention.ms"), "-1");
    send(&producer(&broker, &[]), "orders", 2, numbered(500..510));
    assert_eq!(read_all(&broker, "orders", 2, "read_committed").len(), 510);
}

fn newest_segment(dir: &Path, partition: &str) -> PathBuf {
    let mut segments: Vec<PathBuf> = fs::read_dir(dir.join("logs").join(partition))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .collect();
    segments.sort();
    segments.pop().unwrap()
}

#[test]
fn an_incomplete_batch_at_the_end_is_truncated_and_writing_continues() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "incomplete", 1);
    send(&producer(&broker, &[]), "incomplete", 0, numbered(0..50));
    block_on(broker.stop());
    let segment = newest_segment(dir.path(), "incomplete-0");
    let whole = fs::read(&segment).unwrap();
    // A crash during a write leaves the beginning of a further batch.
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(&whole[..70]).unwrap();
    let broker = start_in(dir.path());
    assert_eq!(fs::metadata(&segment).unwrap().len(), whole.len() as u64);
    send(&producer(&broker, &[]), "incomplete", 0, numbered(50..60));
    assert_eq!(read_all(&broker, "incomplete", 0, "read_committed"), numbered(0..60).collect::<Vec<_>>());
}

#[test]
fn a_damaged_last_batch_is_truncated_if_no_snapshot_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    create_topic(&broker, "damaged", 1);
    let producer = producer(&broker, &[]);
    for n in 0..10 {
        send(&producer, "damaged", 0, numbered(n..n + 1));
    }
    drop(producer);
    block_on(broker.stop());
    let segment = newest_segment(dir.path(), "damaged-0");
    fs::remove_file(segment.with_extension("state")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(&segment, bytes).unwrap();
    let broker = start_in(dir.path());
    assert_eq!(read_all(&broker, "damaged", 0, "read_committed"), numbered(0..9).collect::<Vec<_>>());
}

#[test]
fn a_partition_of_many_segments_reads_as_one_log_and_retention_removes_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig { housekeeping_interval: Duration::from_millis(50), ..config_in(dir.path()) };
    let broker = Broker::start(config.clone()).unwrap();
    create_topic_with(&broker, "rolled", 1, &[("segment.bytes", "4096"), ("retention.ms", "-1")]);
    let values: Vec<String> = (0..300).map(|n| format!("{n:0100}")).collect();
    let sender = producer(&broker, &[]);
    for chunk in values.chunks(10) {
        send(&sender, "rolled", 0, chunk.to_vec());
    }
    drop(sender);
    assert_eq!(read_all(&broker, "rolled", 0, "read_committed"), values);
    block_on(broker.stop());
    let broker = Broker::start(config).unwrap();
    assert_eq!(read_all(&broker, "rolled", 0, "read_committed"), values);
    crate::admin::alter(&broker, "rolled", &[("retention.bytes", "10000")]);
    let consumer = reader(&broker, "rolled", 0, "read_committed");
    eventually("the oldest segments are gone", || consumer.fetch_watermarks("rolled", 0, TIMEOUT).unwrap().0 > 100);
    let (low, high) = consumer.fetch_watermarks("rolled", 0, TIMEOUT).unwrap();
    assert_eq!(high, 300);
    let left = read_all(&broker, "rolled", 0, "read_committed");
    assert_eq!(left, values[usize::try_from(low).unwrap()..]);
}

#[test]
fn a_waiting_reader_is_woken_by_a_record() {
    let broker = start();
    create_topic(&broker, "quick", 1);
    let consumer: BaseConsumer = waiting_reader(&broker);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("quick", 0, Offset::Beginning).unwrap();
    consumer.assign(&offsets).unwrap();
    assert!(consumer.poll(Duration::from_millis(300)).is_none());
    let producer = producer(&broker, &[]);
    let began = Instant::now();
    send(&producer, "quick", 0, numbered(0..1));
    eventually("the record", || consumer.poll(Duration::from_millis(10)).is_some());
    // The fetch waits up to five seconds; a wake-up takes milliseconds.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

fn waiting_reader(broker: &Broker) -> BaseConsumer {
    let mut config: ClientConfig = client(broker);
    config.set("group.id", "g").set("fetch.wait.max.ms", "5000").set("enable.auto.commit", "false");
    config.create().unwrap()
}

#[test]
fn offsets_are_found_by_time() {
    let broker = start();
    create_topic(&broker, "timed", 1);
    let producer = producer(&broker, &[("linger.ms", "20")]);
    for n in 0..1_000_i64 {
        let value = n.to_string();
        let record = BaseRecord::to("timed").key("k").payload(&value).timestamp(10_000 + n * 10);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    let consumer = reader(&broker, "timed", 0, "read_committed");
    let find = |time: i64| {
        let mut requested = TopicPartitionList::new();
        requested.add_partition_offset("timed", 0, Offset::Offset(time)).unwrap();
        consumer.offsets_for_times(requested, TIMEOUT).unwrap().elements()[0].offset()
    };
    assert_eq!(find(0), Offset::Offset(0));
    assert_eq!(find(10_000 + 5_550), Offset::Offset(555));
    assert_eq!(find(10_000 + 5_551), Offset::Offset(556));
    assert_eq!(find(1_000_000), Offset::End);
}

#[test]
fn every_sync_policy_keeps_acknowledged_records() {
    for fsync in [Fsync::Never, Fsync::Interval(10), Fsync::Always] {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { fsync, ..config_in(dir.path()) };
        let broker = Broker::start(config.clone()).unwrap();
        create_topic(&broker, "kept", 1);
        send(&producer(&broker, &[]), "kept", 0, numbered(0..20));
        block_on(broker.stop());
        let broker = Broker::start(config).unwrap();
        assert_eq!(read_all(&broker, "kept", 0, "read_committed").len(), 20, "{fsync:?}");
    }
}

#[test]
fn a_second_broker_on_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_in(dir.path());
    assert!(matches!(Broker::start(config_in(dir.path())), Err(BrokerStartError::InUse { .. })));
    drop(broker);
    eventually("the lock is free", || Broker::start(config_in(dir.path())).is_ok());
}

#[test]
fn the_error_for_a_taken_port_names_the_address() {
    let broker = start();
    let config = BrokerConfig { listen: broker.addr(), ..BrokerConfig::default() };
    assert!(matches!(Broker::start(config), Err(BrokerStartError::Listen { addr, .. }) if addr == broker.addr()));
}
