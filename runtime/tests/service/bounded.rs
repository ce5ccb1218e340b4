//! Memory stays bounded under load: a long backlog with one hot entity, large records, a slow view. Each case runs in a process of
//! its own, which measures how much its resident memory grows.
//!
//! A case has 40,000 records, or as many as `DACAPO_BACKLOG` says; the bounds do not depend on the number.

#![expect(clippy::print_stderr, reason = "what was measured is shown to whoever asks for it")]

use std::{
    process::Command as Process,
    sync::atomic::{AtomicU64, AtomicUsize},
};

use runtime::projection::{LiveView, LogRecord, Projection, Topics};

use super::*;

/// Names the case that a process measures.
const CASE: &str = "DACAPO_BOUNDED_CASE";
/// The padding of every record, which makes the backlog larger than any bound.
const PADDING: usize = 3_000;
/// The bound in MiB: the queues of a client hold 16 and 32 MiB at most, the broker runs in the same process, and the allocator keeps
/// some freed memory.
const BOUND: u64 = 96;

fn backlog() -> usize {
    std::env::var("DACAPO_BACKLOG").ok().and_then(|records| records.parse().ok()).unwrap_or(40_000)
}

/// Runs a case in a process of its own: the same test, which finds its name in the environment and measures.
fn measured(case: &str, measure: impl Future<Output = u64>) {
    if !std::path::Path::new("/proc/self/status").exists() {
        return eprintln!("skipped: this system does not say how much memory is resident");
    }
    if std::env::var(CASE).is_ok_and(|named| named == case) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let grown = runtime.block_on(measure);
        assert!(grown <= BOUND, "{case}: {grown} MiB more were resident, the bound is {BOUND}");
        return eprintln!("{case}: {grown} MiB");
    }
    let name = format!("bounded::{case}");
    let mut process = Process::new(std::env::current_exe().unwrap());
    let output = process.args(["--exact", &name, "--nocapture"]).env(CASE, case).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    eprint!("{}", said.lines().filter(|line| line.starts_with(case)).collect::<Vec<_>>().join("\n"));
}

/// The largest resident memory seen so far, in MiB.
#[derive(Clone)]
struct Peak {
    before: u64,
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Peak {
    fn watch() -> Self {
        let peak = Self { before: resident(), most: Arc::default(), over: Arc::default() };
        let watching = peak.clone();
        std::thread::spawn(move || {
            while !watching.over.load(Ordering::Acquire) {
                watching.most.fetch_max(resident(), Ordering::AcqRel);
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        peak
    }

    fn grown(&self) -> u64 {
        self.over.store(true, Ordering::Release);
        self.most.load(Ordering::Acquire).saturating_sub(self.before)
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Writes this many pings to the source, a quarter of them for one entity; each counts one. They take more memory than the bound
/// allows.
async fn pile_up(stage: &ServiceFixture, records: usize, padding: usize) {
    stage.ping("hot", "hot", "count", 1).await;
    let source = stage.topic("source", runtime::Channel::Events);
    let prefix = stage.read(&source)[0].value.clone().unwrap()[..5].to_vec();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &stage.cluster.config.bootstrap)
        .set("message.max.bytes", "2000000")
        .set("queue.buffering.max.kbytes", "8192")
        .create()
        .unwrap();
    let padding = "x".repeat(padding);
    for number in 1..records {
        let key = if number % 4 == 0 { "hot".to_owned() } else { format!("order-{}", number % 997) };
        let value = [&prefix[..], &pinged(&key)].concat();
        let headers = OwnedHeaders::new().insert(Header { key: "padding", value: Some(&padding) });
        let partition = partition_of(key.as_bytes(), stage.cluster.config.partitions);
        let mut record = BaseRecord::to(&source).partition(partition).key(&key).payload(&value).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
            record = back;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(3 * PATIENCE).unwrap();
}

/// The body of a ping that counts one: target, mode, amount.
fn pinged(target: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len() * 2).unwrap()], text.as_bytes()].concat();
    [text(target), text("count"), vec![2]].concat()
}

/// The end of the service's own log.
fn said(stage: &ServiceFixture, asker: &BaseConsumer) -> i64 {
    let own = stage.topic("probe", runtime::Channel::Events);
    (0..stage.cluster.config.partitions).map(|p| asker.fetch_watermarks(&own, p, PATIENCE).unwrap().1).sum()
}

/// Lets the service process a backlog while its health is checked. Returns by how much its memory grew.
async fn work_off(records: usize, padding: usize) -> u64 {
    let stage = ServiceFixture::set().await;
    pile_up(&stage, records, padding).await;
    let asker: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &stage.cluster.config.bootstrap).create().unwrap();
    let peak = Peak::watch();
    let running = stage.start().await;
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let now = said(&stage, &asker);
        if now > last {
            (last, moved) = (now, Instant::now());
        }
        let health = running.health();
        assert!(health.is_live && health.is_ready, "a backlog does not make it unready: {}", health.text);
        if now >= i64::try_from(records).unwrap() {
            break;
        }
        assert!(moved.elapsed() < 2 * PATIENCE, "it stopped at {now} of {records}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let grown = peak.grown();
    assert!(running.stop().await);
    grown
}

#[test]
fn a_long_backlog_with_a_hot_entity() {
    measured("a_long_backlog_with_a_hot_entity", work_off(backlog(), PADDING));
}

#[test]
fn records_of_a_megabyte() {
    measured("records_of_a_megabyte", work_off(150, 1_000_000));
}

/// A projection that blocks until it is released.
#[derive(Clone, Default)]
struct Slow {
    goes_on: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
}

impl Projection for Slow {
    fn apply(&mut self, _: &LogRecord<'_>) {
        while !self.goes_on.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.taken.fetch_add(1, Ordering::AcqRel);
    }
}

async fn folded_slowly(records: usize) -> u64 {
    let stage = ServiceFixture::set().await;
    pile_up(&stage, records, PADDING).await;
    let peak = Peak::watch();
    let readers = Readers::new(Arc::new(stage.cluster.registry.clone()) as Arc<dyn SchemaSource>);
    let topics = Topics::decoded([stage.topic("source", runtime::Channel::Events)]);
    let slow = Slow::default();
    let view = LiveView::start(&stage.cluster.config, "slow", readers, topics, slow.clone()).unwrap();
    // Wait until the client's queues are full: its memory stops growing.
    let (mut most, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        let now = resident();
        if now > most {
            (most, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!view.caught_up(), "it reports that it is behind");
    slow.goes_on.store(true, Ordering::Release);
    view.wait_until_caught_up(10 * PATIENCE).await.unwrap();
    assert_eq!(slow.taken.load(Ordering::Acquire), records);
    peak.grown()
}

#[test]
fn a_slow_view() {
    measured("a_slow_view", folded_slowly(backlog()));
}
