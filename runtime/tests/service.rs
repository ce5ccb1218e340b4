//! A whole service on a broker: exactly once through crashes, rebuilds, forwarding, dead letters, timers, effects, instances.
//!
//! Runs on the broker and registry in `DACAPO_TEST_KAFKA` and `DACAPO_TEST_REGISTRY`, else on the embedded pair.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "service/bounded.rs"]
mod bounded;
mod cluster;
#[path = "service/history.rs"]
mod history;
#[path = "cluster/operator.rs"]
mod operator;
#[path = "service/outages.rs"]
mod outages;
#[path = "service/panics.rs"]
mod panics;
#[path = "../../runtime-core/tests/probe/mod.rs"]
mod probe;
#[path = "cluster/raw.rs"]
mod raw;
#[path = "service/unreadable.rs"]
mod unreadable;
#[path = "service/upgrades.rs"]
mod upgrades;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cluster::{Cluster, PATIENCE};
use probe::{Command, Count, Event, Pinged, Probe, Replied, Request, Source};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use runtime::{
    Answer, Config, Due, Message, Perform, Unanswered,
    codec::{Readers, SchemaSource, Vocabulary},
    core::{DropParked, ParkingCommand, ParkingUpdate, Record, RetryParked, RuntimeRecord, partition_of},
    envelope::{Envelope, RecordMetadata},
    kafka::{TopicKind, TopicSpec},
    message::topic,
    publisher::{Authority, Outgoing, Publisher},
    service::{Running, start},
};
use uuid::Uuid;

/// Answers every effect and records it; while `silent` is set, it answers none.
#[derive(Clone, Default)]
struct RecordingPerformer {
    asked: Arc<Mutex<Vec<String>>>,
    silent: Arc<AtomicBool>,
}

impl Perform<Probe> for RecordingPerformer {
    async fn perform(&self, due: Due<Request>) -> Result<Answer<Command>, Unanswered> {
        self.asked.lock().unwrap().push(due.effect.0.clone());
        if self.silent.load(Ordering::SeqCst) {
            return Err(Unanswered::new("silent"));
        }
        let command = Replied { request: due.effect.0, amount: 100 }.into();
        Ok(Answer { outcome: "done".to_owned(), command })
    }
}

#[derive(Debug, Clone)]
struct StoredRecord {
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    envelope: Option<Envelope>,
}

impl StoredRecord {
    fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rev().find(|(known, _)| known == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

struct ServiceFixture {
    cluster: Cluster,
    source: Publisher,
    edge: Publisher,
    raw: BaseProducer,
    probe: Probe,
    world: RecordingPerformer,
}

impl ServiceFixture {
    async fn set() -> Self {
        Self::on(Cluster::start("probe").await).await
    }

    async fn on(cluster: Cluster) -> Self {
        let (system, partitions) = (cluster.config.system.clone(), cluster.config.partitions);
        let mut specs = TopicSpec::of_service(&system, "probe", partitions);
        specs.push(TopicSpec::new(topic(&system, "source", runtime::Channel::Events), partitions, TopicKind::Events));
        cluster.create(&specs).await;
        let runtimes = [RuntimeRecord::RECORDS, ParkingCommand::RECORDS].concat();
        let records = [Source::RECORDS, Event::RECORDS, Command::RECORDS, &runtimes].concat();
        cluster.register(&records);
        let source = publisher(&cluster, "source", Source::RECORDS);
        let edge = publisher(&cluster, "probe", Command::RECORDS);
        let raw = ClientConfig::new().set("bootstrap.servers", &cluster.config.bootstrap).create().unwrap();
        Self { cluster, source, edge, raw, probe: Probe::default(), world: RecordingPerformer::default() }
    }

    fn config(&self) -> Config {
        self.cluster.config.clone()
    }

    async fn start(&self) -> Running {
        self.start_as(self.config()).await
    }

    async fn start_as(&self, config: Config) -> Running {
        let running = start(config, self.probe.clone(), self.world.clone(), axum::Router::new()).await.unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
        running
    }

    async fn ping(&self, key: &str, target: &str, mode: &str, amount: i64) {
        self.pings([(key, target, mode, amount)]).await;
    }

    async fn pings<'a>(&self, pings: impl IntoIterator<Item = (&'a str, &'a str, &'a str, i64)>) {
        let batch = pings.into_iter().map(|(key, target, mode, amount)| {
            Outgoing::new(key, Pinged { target: target.to_owned(), mode: mode.to_owned(), amount })
        });
        self.source.publish::<Source>(batch, PATIENCE).await.unwrap();
    }

    fn topic(&self, service: &str, channel: runtime::Channel) -> String {
        topic(&self.cluster.config.system, service, channel)
    }

    fn dead_letters(&self) -> Vec<StoredRecord> {
        self.read(&format!("dlq.{}.probe", self.cluster.config.system))
    }

    /// The original positions of parked records, each with the class of its failure.
    fn parked(&self) -> BTreeMap<String, Option<String>> {
        let topic = runtime::message::parked_topic(&self.cluster.config.system, "probe");
        let mut parked = BTreeMap::new();
        for seen in self.read(&topic) {
            let headers: Vec<_> = seen.headers.iter().map(|(n, v)| (n.as_str(), Some(v.as_slice()))).collect();
            let record = Record {
                topic: &topic,
                partition: seen.partition,
                offset: seen.offset,
                timestamp_ms: 0,
                key: seen.key.as_deref(),
                value: seen.value.as_deref(),
                headers: &headers,
            };
            match ParkingUpdate::read(&self.cluster.config.system, &record).unwrap() {
                ParkingUpdate::Parked(waits) => {
                    parked.insert(waits.position.to_string(), waits.failure.map(|failure| failure.class));
                }
                ParkingUpdate::Released(left) => drop(parked.remove(&left.position.to_string())),
            }
        }
        parked
    }

    /// Writes an operator's command to the probe's inbox.
    fn ask(&self, key: &str, command: impl Into<ParkingCommand>) {
        let config = &self.cluster.config;
        let writers = self.cluster.registry.writers(&config.system, ParkingCommand::RECORDS).unwrap();
        let mut value = Vec::new();
        writers.encode(&command.into(), &mut value).unwrap();
        let partition = partition_of(key.as_bytes(), config.partitions);
        self.put(&self.topic("probe", runtime::Channel::Inbox), partition, Some(key.as_bytes()), Some(&value), &[]);
    }

    fn events(&self) -> Vec<StoredRecord> {
        self.read(&self.topic("probe", runtime::Channel::Events))
    }

    fn bodies(&self) -> Vec<(String, Event)> {
        let readers = Readers::new(Arc::new(self.cluster.registry.clone()) as Arc<dyn SchemaSource>);
        let vocabulary = Vocabulary::<Event>::new(&self.cluster.config.system);
        let events = self.events().into_iter();
        events
            .map(|seen| {
                let decoded = readers.decode(seen.value.as_deref(), None).unwrap();
                (String::from_utf8(seen.key.unwrap()).unwrap(), vocabulary.read(&decoded).unwrap().unwrap())
            })
            .collect()
    }

    fn counted(&self) -> i64 {
        let amount = |event: &Event| if let Event::Counted(counted) = event { counted.amount } else { 0 };
        self.bodies().iter().map(|(_, event)| amount(event)).sum()
    }

    /// Every committed record of a topic, up to its current end.
    fn read(&self, topic: &str) -> Vec<StoredRecord> {
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.cluster.config.bootstrap)
            .set("group.id", "look")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            // The end shows in an empty response, which the broker delays for this long.
            .set("fetch.wait.max.ms", "10")
            .create()
            .unwrap();
        let mut left: BTreeSet<i32> = (0..self.cluster.config.partitions).collect();
        let mut all = TopicPartitionList::new();
        for partition in &left {
            all.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        reader.assign(&all).unwrap();
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            assert!(Instant::now() < deadline, "{topic} could not be read to its end");
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let pairs: Vec<(&str, Option<&[u8]>)> = message
                        .headers()
                        .map(|headers| headers.iter().map(|h| (h.key, h.value)).collect())
                        .unwrap_or_default();
                    let bare = RecordMetadata {
                        topic,
                        partition: message.partition(),
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis().unwrap(),
                        key: message.key().and_then(|key| std::str::from_utf8(key).ok()),
                    };
                    seen.push(StoredRecord {
                        partition: message.partition(),
                        offset: message.offset(),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers: pairs.iter().map(|(n, v)| ((*n).to_owned(), v.unwrap_or_default().to_vec())).collect(),
                        envelope: Envelope::read(bare, pairs).ok(),
                    });
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                    left.remove(&partition);
                }
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => {}
            }
        }
        seen
    }

    /// Waits until `look` returns a value.
    async fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = tokio::task::block_in_place(|| look(self)) {
                return found;
            }
            assert!(Instant::now() < deadline, "did not happen: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_counted(&self, total: i64) {
        self.until(&format!("a total of {total}"), |stage| (stage.counted() >= total).then_some(())).await;
    }

    fn put(&self, topic: &str, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &str)]) {
        let owned = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).headers(owned);
        (record.key, record.payload) = (key, value);
        self.raw.send(record).map_err(|(error, _)| error).unwrap();
        self.raw.flush(PATIENCE).unwrap();
    }
}

fn publisher(cluster: &Cluster, service: &str, records: &[runtime::RecordType]) -> Publisher {
    let config = cluster.config.for_service(service);
    let writers = cluster.registry.writers(&config.system, records).unwrap();
    Publisher::new(&config, Authority::Service, writers).unwrap()
}

/// Asserts that the sequence of each entity is 1, 2, 3 … and that no id occurs twice.
fn assert_whole(events: &[StoredRecord]) {
    let mut last: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for event in events {
        let envelope = event.envelope.as_ref().unwrap();
        let due = last.entry(event.key.as_deref().unwrap()).or_default();
        *due += 1;
        assert_eq!(envelope.sequence, Some(*due), "of {}", envelope.subject);
        assert!(ids.insert(envelope.id), "{} twice", envelope.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_decides_its_input_and_stops_within_seconds() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    stage.pings((1..=20).map(|n| ("order-1", "order-1", "count", n))).await;
    stage.edge.publish::<Command>([Outgoing::new("order-2", Count { amount: 5 })], PATIENCE).await.unwrap();
    stage.until_counted(215).await;
    let asked = Instant::now();
    assert!(running.stop().await);
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    assert_whole(&stage.events());
    let first = &stage.events()[0];
    assert_eq!(first.partition, partition_of(first.key.as_deref().unwrap(), stage.cluster.config.partitions));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_is_decided_once_across_crashes() {
    let stage = ServiceFixture::set().await;
    let mut total = 0;
    for round in 0..3_i64 {
        let running = stage.start().await;
        let keys: Vec<String> = (0..200).map(|n| format!("order-{}", n % 17)).collect();
        stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
        total += 200;
        if round == 1 {
            stage.until_counted(total - 150).await;
        }
        running.crash().await;
    }
    let running = stage.start().await;
    stage.until_counted(total).await;
    assert!(running.stop().await);
    assert_eq!(stage.counted(), total);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_the_store_has_no_visible_effect() {
    let stage = ServiceFixture::set().await;
    let data = tempfile::tempdir().unwrap();
    let config = Config { data_dir: Some(data.path().to_owned()), instance: Some("a".to_owned()), ..stage.config() };
    let running = stage.start_as(config.clone()).await;
    let keys: Vec<String> = (0..50).map(|n| format!("order-{}", n % 7)).collect();
    stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.ping("order-1", "order-1", "ask", 9).await;
    stage.until_counted(50).await;
    stage.until("the accepted answer", |stage| has_accepted(stage).then_some(())).await;
    assert!(running.stop().await);
    let (events, asked) = (stage.events().len(), stage.world.asked.lock().unwrap().len());
    for forget in [false, true] {
        if forget {
            std::fs::remove_dir_all(data.path()).unwrap();
        }
        let running = stage.start_as(config.clone()).await;
        stage.ping("order-1", "order-1", "count", 1).await;
        let total = if forget { 52 } else { 51 };
        stage.until_counted(total).await;
        assert!(running.stop().await);
        assert_eq!(stage.counted(), total);
    }
    assert_eq!(stage.events().len(), events + 2, "only the requested events were written");
    assert_eq!(stage.world.asked.lock().unwrap().len(), asked, "no effect was performed again");
    assert_whole(&stage.events());
}

fn has_accepted(stage: &ServiceFixture) -> bool {
    stage.bodies().iter().any(|(_, event)| matches!(event, Event::ReplyAccepted(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_for_another_partition_is_forwarded_once() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    let pings: Vec<(String, String)> = (0..40).map(|n| (format!("order-{n}"), format!("customer-{}", n % 5))).collect();
    stage.pings(pings.iter().map(|(key, target)| (key.as_str(), target.as_str(), "count", 1))).await;
    stage.until_counted(40).await;
    assert!(running.stop().await);
    let events = stage.events();
    assert_eq!(events.len(), 40);
    assert_whole(&events);
    let partitions = stage.cluster.config.partitions;
    for event in events {
        let envelope = event.envelope.unwrap();
        assert_eq!(event.partition, partition_of(envelope.subject.as_bytes(), partitions));
        let cause = envelope.cause_position.unwrap();
        match envelope.origin_position {
            Some(origin) => assert!(cause.topic.ends_with(".inbox") && origin.topic.ends_with("source.events")),
            None => assert!(cause.topic.ends_with("source.events")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_record_becomes_a_dead_letter_and_the_rest_continues() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    let (source, partition) = (stage.topic("source", runtime::Channel::Events), 0);
    let key = (0..).map(|n| format!("order-{n}")).find(|key| partition_of(key.as_bytes(), 2) == partition).unwrap();
    let key_bytes = Some(key.as_bytes());
    stage.ping(&key, &key, "count", 1).await;
    let good = stage.read(&source)[0].value.clone().unwrap();
    stage.put(&source, partition, key_bytes, Some(b"\x09\x00\x00\x00\x01x"), &[("foreign", "header")]);
    stage.put(&source, partition, key_bytes, Some(b"\x00\x7f\xff\xff\xf0x"), &[]);
    stage.put(&source, partition, key_bytes, Some(&good[..good.len() - 1]), &[]);
    stage.put(&source, partition, key_bytes, None, &[]);
    stage.put(&source, partition, None, Some(&good), &[]);
    stage.put(&source, partition, key_bytes, Some(&good), &[("ce_id", "not a uuid")]);
    stage.put(&source, partition, key_bytes, Some(&good), &[("foreign", "header")]);
    stage.ping(&key, &key, "count", 10).await;
    stage.until_counted(12).await;
    assert!(running.stop().await);
    let letters = stage.dead_letters();
    let classes: Vec<String> =
        letters.iter().map(|l| l.header(&format!("{}.errors.class", stage.cluster.config.system)).unwrap()).collect();
    assert_eq!(sorted(classes), ["body", "framing", "headers", "key", "schema", "tombstone"]);
    for letter in &letters {
        let offset: i64 = letter.header("__dlq.errors.offset").unwrap().parse().unwrap();
        let original =
            stage.read(&source).into_iter().find(|seen| (seen.partition, seen.offset) == (0, offset)).unwrap();
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value));
        assert_eq!(letter.headers[..original.headers.len()], original.headers);
        assert_eq!(letter.header("__dlq.errors.topic"), Some(source.clone()));
    }
}

/// A record that makes a batch of exactly this size: a topic accepts it to the byte.
fn filling(batch: usize, key: &str, header: (&str, &str)) -> Vec<u8> {
    let varint = |number: usize| (1..).find(|bytes| number << 1 < 1 << (7 * bytes)).unwrap();
    let text = |text: &str| varint(text.len()) + text.len();
    let record = |value: usize| 3 + text(key) + varint(value) + value + 1 + text(header.0) + text(header.1);
    let size = |value: usize| 61 + varint(record(value)) + record(value);
    let value = (0..=batch).rev().find(|value| size(*value) <= batch).unwrap();
    assert_eq!(size(value), batch);
    vec![b'x'; value]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_at_the_size_limit_becomes_a_complete_dead_letter() {
    let mut stage = ServiceFixture::set().await;
    let bootstrap = stage.cluster.config.bootstrap.clone();
    stage.raw =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("message.max.bytes", "2000000").create().unwrap();
    let running = stage.start().await;
    let key = (0..).map(|n| format!("order-{n}")).find(|key| partition_of(key.as_bytes(), 2) == 0).unwrap();
    let elsewhere = (0..).map(|n| format!("order-{n}")).find(|key| partition_of(key.as_bytes(), 2) == 1).unwrap();
    let (source, inbox) =
        (stage.topic("source", runtime::Channel::Events), stage.topic("probe", runtime::Channel::Inbox));
    let largest = filling(1_048_588, &key, ("foreign", "header"));
    // In the inbox its key names its entity, so it is parked; it must not block the other entity.
    let fits = |other: &String| partition_of(other.as_bytes(), 2) == 0 && other.len() == key.len();
    let waiting = (0..).map(|n| format!("waits-{n}")).find(fits).unwrap();
    for (topic, key) in [(&source, &key), (&inbox, &waiting)] {
        stage.put(topic, 0, Some(key.as_bytes()), Some(&largest), &[("foreign", "header")]);
        assert_eq!(stage.read(topic).len(), 1, "{topic} takes it");
        stage.put(topic, 0, Some(key.as_bytes()), Some(&[&largest[..], b"x"].concat()), &[("foreign", "header")]);
        assert_eq!(stage.read(topic).len(), 1, "{topic} takes no byte more");
    }
    // A readable record of another entity: with the headers that forwarding adds, it exceeds the limit of the inbox.
    let long = "y".repeat(200_000);
    stage.ping(&key, &elsewhere, &long, 1).await;
    let readable = stage.read(&source).pop().unwrap().value.unwrap();
    let padding = "z".repeat(1_048_400 - readable.len());
    stage.put(&source, 0, Some(key.as_bytes()), Some(&readable), &[("padding", &padding)]);
    stage.ping(&key, &key, "count", 10).await;
    stage.until_counted(10).await;
    assert!(running.stop().await);
    let letters = stage.dead_letters();
    let class = format!("{}.errors.class", stage.cluster.config.system);
    let classes: Vec<String> = letters.iter().map(|letter| letter.header(&class).unwrap()).collect();
    assert_eq!(sorted(classes), ["framing", "size"]);
    // The parked topic also has tombstones.
    let parked = stage.read(&runtime::message::parked_topic(&stage.cluster.config.system, "probe"));
    let [parked] = &parked.iter().filter(|record| record.value.is_some()).collect::<Vec<_>>()[..] else { panic!() };
    assert!(parked.value.as_ref() == Some(&largest), "it is complete");
    for letter in letters {
        let is_largest = letter.header(&class).unwrap() == "framing";
        assert!(letter.value.as_ref() == Some(if is_largest { &largest } else { &readable }), "it is complete");
        assert_eq!(letter.headers[0].0, if is_largest { "foreign" } else { "padding" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_over_the_configured_limit_is_written_without_its_body() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    let letters = format!("dlq.{}.probe", stage.cluster.config.system);
    let change = AlterConfig::new(ResourceSpecifier::Topic(&letters)).set("max.message.bytes", "100000");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &stage.cluster.config.bootstrap).create().unwrap();
    admin.alter_configs([&change], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let key = (0..).map(|n| format!("order-{n}")).find(|key| partition_of(key.as_bytes(), 2) == 0).unwrap();
    let source = stage.topic("source", runtime::Channel::Events);
    // Incompressible, because brokers limit the stored size.
    let noise: Vec<u8> =
        (0..31_250).flat_map(|n| *Uuid::new_v5(&Uuid::NAMESPACE_OID, &[n as u8, (n >> 8) as u8]).as_bytes()).collect();
    let noise = [&[9], &noise[..]].concat();
    stage.put(&source, 0, Some(key.as_bytes()), Some(&noise), &[("foreign", "header")]);
    stage.ping(&key, &key, "count", 10).await;
    // The service read the larger limit at its start, so it learns the new one from the error and restarts its worker.
    stage.until_counted(10).await;
    assert!(running.stop().await);
    let letter = stage.dead_letters().pop().unwrap();
    assert_eq!((letter.key.as_deref(), letter.value.map(|value| value.len())), (Some(key.as_bytes()), None));
    let header = |name: &str| {
        letter
            .headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!(header("foreign").as_deref(), Some("header"));
    assert_eq!(header("__dlq.errors.offset").as_deref(), Some("0"), "the position of the body");
    let message = header("__dlq.errors.message").unwrap();
    assert!(message.contains("without its value") && message.contains("this topic takes 100000"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_records_survive_their_owner_and_are_retried_or_dropped() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    let keys = key_per_partition();
    let (order, other) = (&keys[0], &keys[1]);
    let neighbour = (0..).map(|n| format!("n-{n}")).find(|key| partition_of(key.as_bytes(), 2) == 0).unwrap();
    let inbox = stage.topic("probe", runtime::Channel::Inbox);
    // A null body, as a deletion has: parking it must not delete anything.
    for value in [Some(&b"garbage"[..]), None] {
        stage.put(&inbox, 0, Some(order.as_bytes()), value, &[("foreign", "header")]);
    }
    // The two topics may be consumed in either order.
    stage.until("the garbage parked", |stage| (stage.parked().len() == 2).then_some(())).await;
    stage
        .pings([
            (order.as_str(), order.as_str(), "count", 1),
            (neighbour.as_str(), neighbour.as_str(), "count", 10),
            (other.as_str(), other.as_str(), "count", 100),
        ])
        .await;
    stage.until_counted(110).await;
    let source = stage.topic("source", runtime::Channel::Events);
    let first = format!("{inbox}/0/0");
    let expected = BTreeMap::from([
        (first.clone(), Some("framing".to_owned())),
        (format!("{inbox}/0/1"), None),
        (format!("{source}/0/0"), None),
    ]);
    assert_eq!(stage.until("all of it parked", |stage| Some(stage.parked()).filter(|p| p.len() == 3)).await, expected);
    assert_eq!(stage.counted(), 110, "only one entity waits");
    running.crash().await;
    let running = stage.start().await;
    stage.ask(order, RetryParked { position: first.clone(), by: "ada".to_owned() });
    stage.pings([(order.as_str(), order.as_str(), "count", 1_000)]).await;
    stage.until("the next one to wait", |stage| (stage.parked().len() == 4).then_some(())).await;
    let give_up = |position: String| DropParked { position, by: "ada".to_owned(), reason: "a test".to_owned() };
    stage.ask(order, give_up(first));
    let second = |stage: &ServiceFixture| {
        (stage.parked().get(&format!("{inbox}/0/1"))?.as_deref() == Some("tombstone")).then_some(())
    };
    stage.until("the second to be judged", second).await;
    assert!(running.stop().await);
    let running = stage.start().await;
    stage.ask(order, give_up(format!("{inbox}/0/1")));
    stage.until_counted(1_111).await;
    assert_eq!(stage.until("nothing to wait", |stage| Some(stage.parked()).filter(BTreeMap::is_empty)).await.len(), 0);
    assert!(running.stop().await);
    assert_whole(&stage.events());
    assert!(stage.dead_letters().is_empty());
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_decider_is_unready_with_the_position_and_skips_nothing() {
    let stage = ServiceFixture::set().await;
    stage.probe.fragile.store(true, Ordering::SeqCst);
    let running = stage.start().await;
    let keys = key_per_partition();
    stage.ping(&keys[0], &keys[0], "panic", 1).await;
    stage.ping(&keys[0], &keys[0], "count", 10).await;
    stage.ping(&keys[1], &keys[1], "count", 100).await;
    stage.until_counted(100).await;
    let place = format!("{}/0/0", stage.topic("source", runtime::Channel::Events));
    stage
        .until("a degraded service", |_| {
            let health = running.health();
            (health.is_ready && health.is_degraded && health.text.contains(&place)).then_some(())
        })
        .await;
    assert_eq!(stage.counted(), 100, "later records of the partition wait");
    stage.probe.fragile.store(false, Ordering::SeqCst);
    stage.until_counted(111).await;
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready again").unwrap();
    assert!(running.stop().await);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_that_fell_due_while_the_service_was_down_fires_once() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    stage.ping("order-1", "order-1", "wake", runtime::clock::now_ms() + 300).await;
    stage.until("the timer set", |stage| (!stage.events().is_empty()).then_some(())).await;
    stage.until("the wake-up", |stage| (woken(stage) == 1).then_some(())).await;
    stage.ping("order-1", "order-1", "wake", runtime::clock::now_ms() + 200).await;
    stage.until("the timer set", |stage| (stage.events().len() >= 3).then_some(())).await;
    running.crash().await;
    let running = stage.start().await;
    stage.until("the wake-up", |stage| (woken(stage) == 2).then_some(())).await;
    assert!(running.stop().await);
    let running = stage.start().await;
    stage.ping("order-1", "order-1", "count", 1).await;
    stage.until_counted(1).await;
    assert!(running.stop().await);
    assert_eq!(woken(&stage), 2);
    assert_whole(&stage.events());
}

fn woken(stage: &ServiceFixture) -> usize {
    stage.bodies().iter().filter(|(_, event)| matches!(event, Event::Woken(_))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_runs_again_only_while_it_is_pending() {
    let stage = ServiceFixture::set().await;
    stage.world.silent.store(true, Ordering::SeqCst);
    let running = stage.start().await;
    stage.ping("order-1", "order-1", "ask", 1).await;
    let asked = |stage: &ServiceFixture| stage.world.asked.lock().unwrap().len();
    stage.until("a second attempt", |stage| (asked(stage) >= 2).then_some(())).await;
    running.crash().await;
    let before = asked(&stage);
    stage.world.silent.store(false, Ordering::SeqCst);
    let running = stage.start().await;
    stage.until("the accepted answer", |stage| has_accepted(stage).then_some(())).await;
    assert!(running.stop().await);
    let after = asked(&stage);
    assert!(after > before);
    let running = stage.start().await;
    stage.ping("order-1", "order-1", "count", 1).await;
    stage.until_counted(1).await;
    assert!(running.stop().await);
    assert_eq!(asked(&stage), after, "an answered effect is not performed again");
    let inbox = stage.read(&stage.topic("probe", runtime::Channel::Inbox));
    let envelope = inbox[0].envelope.as_ref().unwrap();
    assert_eq!(envelope.id, runtime::envelope::answer_id("probe", "order-1/1", "done"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_the_partitions_and_hand_them_over() {
    let stage = ServiceFixture::set().await;
    let first = stage.start().await;
    let keys: Vec<String> = (0..300).map(|n| format!("order-{}", n % 23)).collect();
    stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
    let second = stage.start().await;
    stage.until("partitions on both", |_| (first.deciding() == 1 && second.deciding() == 1).then_some(())).await;
    stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.until_counted(400).await;
    assert!(first.stop().await);
    stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.until("both partitions on one", |_| (second.deciding() == 2).then_some(())).await;
    stage.until_counted(900).await;
    assert!(second.stop().await);
    assert_eq!(stage.counted(), 900);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_instance_name_stops_the_fenced_instance_with_a_clear_error() {
    let stage = ServiceFixture::set().await;
    let config = Config { instance: Some("blue".to_owned()), ..stage.config() };
    let first = stage.start_as(config.clone()).await;
    let second = start(config, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    let reason = stage
        .until("one of them stopped", |_| {
            let all = [first.health(), second.health()];
            all.iter().find(|health| !health.is_live).map(|health| health.text.clone())
        })
        .await;
    assert!(reason.contains("another process runs under the name"), "{reason}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unregistered_schemas_and_differing_topics_are_refused() {
    let stage = ServiceFixture::set().await;
    let other = Config { system: format!("{}x", stage.cluster.config.system), ..stage.config() };
    let refused = start(other, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await;
    let error = runtime::telemetry::chain(&refused.err().expect("no schemas"));
    assert!(error.contains("dacapo schemas register"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_with_different_partition_counts_are_refused() {
    let stage = ServiceFixture::set().await;
    let system = format!("{}y", stage.cluster.config.system);
    let mut specs = TopicSpec::of_service(&system, "probe", 2);
    specs.push(TopicSpec::new(topic(&system, "source", runtime::Channel::Events), 3, TopicKind::Events));
    stage.cluster.create(&specs).await;
    for record in [Event::RECORDS, Command::RECORDS, RuntimeRecord::RECORDS].concat() {
        let text = runtime::codec::in_system(record.schema.unwrap(), &system).into_owned();
        stage.cluster.registry.register(&record.full_name(&system), &text).unwrap();
    }
    let other = Config { system, ..stage.config() };
    let refused = start(other, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await;
    let error = runtime::telemetry::chain(&refused.err().expect("topics differ"));
    assert!(error.contains("same number of partitions") && error.contains("source.events has 3"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_evolve_loses_nothing_and_blocks_its_partition_only() {
    let stage = ServiceFixture::set().await;
    stage.probe.fragile.store(true, Ordering::SeqCst);
    let running = stage.start().await;
    let keys = key_per_partition();
    stage.ping(&keys[0], &keys[0], "count", 1).await;
    stage.ping(&keys[0], &keys[0], "count", probe::PANICS_IN_EVOLVE).await;
    stage.ping(&keys[0], &keys[0], "count", 10).await;
    stage.ping(&keys[1], &keys[1], "count", 100).await;
    let said = |stage: &ServiceFixture| stage.events().len();
    stage.until("what is well to go on", |stage| (said(stage) == 2).then_some(())).await;
    stage.until("a degraded service", |_| running.health().is_degraded.then_some(())).await;
    stage.probe.fragile.store(false, Ordering::SeqCst);
    stage.until("all of it", |stage| (said(stage) == 4).then_some(())).await;
    assert!(running.stop().await);
    assert_whole(&stage.events());
}

/// A key for each of the two partitions.
fn key_per_partition() -> Vec<String> {
    let of = |partition| (0..).map(|n| format!("order-{n}")).find(|key| partition_of(key.as_bytes(), 2) == partition);
    (0..2).map(|partition| of(partition).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_unavailable_at_the_start_or_later_is_retried() {
    let mut stage = ServiceFixture::on(Cluster::start_embedded("probe").await).await;
    stage.ping("order-1", "order-1", "count", 1).await;
    stage.cluster.stop_broker().await;
    let config = Config {
        timeouts: runtime::config::Timeouts { request: Duration::from_secs(1), ..stage.config().timeouts },
        ..stage.config()
    };
    let running = start(config, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    let health = running.health();
    assert!(health.is_live && !health.is_ready, "{}", health.text);
    stage.cluster.restart_broker();
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    stage.until_counted(1).await;
    stage.cluster.stop_broker().await;
    stage.until("an unready service", |_| (!running.health().is_ready).then_some(())).await;
    stage.cluster.restart_broker();
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready again").unwrap();
    stage.ping("order-1", "order-1", "count", 10).await;
    stage.until_counted(11).await;
    assert!(running.stop().await);
    assert_whole(&stage.events());
}
