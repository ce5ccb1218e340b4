//! Fuzz targets: any batch, and any frame.
//!
//! Each target runs for `DACAPO_FUZZ_SECONDS` (15 by default; an hour is 3600) on inputs that are nearly right, because random bytes
//! end at the first check. `embedded/corpus` holds seeds and past failures; every run replays them first. A failure prints the
//! input in hexadecimal: write it to a file in the corpus.

mod batches;
mod readers;

use super::context::ClientConnection;
use super::dispatch::{self, FrameError};
use super::log::batch::{BatchHeader, marker_batch};
use super::log::{AppendContext, LogSettings, OffsetQuery, Partition, ReadRequest, TxnMarker, end_of};
use super::{Broker, BrokerConfig};
use batches::{any_batch, any_frame, produce_frame};
use bytes::{Bytes, BytesMut};
use kafka_protocol::records::Record;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The clock of all batches.
const NOW_MS: i64 = 1_700_000_000_000;
/// No input may grow the process by more, whatever it announces.
const MEMORY_GROWTH_MAX_KB: u64 = 400 * 1024;
/// A fetch or a join may wait for other clients, which do not exist here.
const WAIT: Duration = Duration::from_millis(5);

fn budget() -> Duration {
    let seconds = std::env::var("DACAPO_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

/// Runs the property on fresh inputs until the time is over. A failure is reduced to the smallest input that fails.
fn fuzz<S: Strategy>(strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let until = Instant::now() + budget();
    let before = peak_memory_kb();
    let mut cases = 0;
    while Instant::now() < until {
        let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
        match TestRunner::new(config).run(strategy, &property) {
            Ok(()) => cases += 100,
            Err(TestError::Fail(why, input)) => panic!("after {cases} cases: {why}\n{input:?}"),
            Err(TestError::Abort(why)) => panic!("after {cases} cases: {why}"),
        }
    }
    let grown = peak_memory_kb().saturating_sub(before);
    eprintln!("{cases} cases, memory grew by {grown} kB at most");
    assert!(grown < MEMORY_GROWTH_MAX_KB, "memory grew by {grown} kB");
}

/// The largest resident size of this process so far; zero where the system does not tell.
fn peak_memory_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The corpus files, in order.
fn corpus() -> Vec<(String, Bytes)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/batches");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read(path).unwrap().into())).collect()
}

struct FuzzedLog {
    dir: tempfile::TempDir,
    partition: Partition,
}

fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 64 * 1024,
        segment_ms: i64::MAX,
        max_message_bytes: 1024 * 1024,
        retention_ms: None,
        retention_bytes: None,
        delete: true,
        compact: false,
        stamp_on_arrival: false,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        producer_idle_ms: i64::MAX,
    }
}

impl FuzzedLog {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let partition = Partition::open(&dir.path().join("fuzzed-0"), settings(), 0).unwrap();
        FuzzedLog { dir, partition }
    }

    /// Appends a batch and checks everything that follows from the answer. Returns whether it was accepted.
    fn append(&self, bytes: &Bytes) -> Result<bool, TestCaseError> {
        let log = &self.partition;
        let before = log.next_offset();
        let context = AppendContext { now_ms: NOW_MS, version: 11, inflated_bytes_max: 32 * 1024 * 1024 };
        let Ok(appended) = log.append(bytes, context) else {
            ensure(log.next_offset() == before, "a refused batch moved the log")?;
            return Ok(false);
        };
        if appended.base_offset < before {
            ensure(log.next_offset() == before, "a repeated batch moved the log")?;
            return Ok(true);
        }
        let stored = self.stored(before)?;
        let header = BatchHeader::parse(&stored).map_err(failed)?;
        ensure(appended.base_offset == before && header.base_offset == before, "the batch has another offset")?;
        ensure(log.next_offset() - before == i64::from(header.record_count), "the log moved by another count")?;
        header.verify(&stored).map_err(failed)?;
        let records = readers::read(&stored).map_err(|why| failed(format!("{why:#}")))?;
        ensure(records.len() as i64 == i64::from(header.record_count), "another reader finds another count")?;
        self.look_up_each(before, &records, header.max_timestamp)?;
        Ok(true)
    }

    fn stored(&self, offset: i64) -> Result<Bytes, TestCaseError> {
        let request = ReadRequest { offset, max_bytes: 1, committed_only: false };
        let plan = self.partition.read(request, None).map_err(failed)?;
        plan.slice.ok_or_else(|| failed("nothing to read"))?.read().map_err(failed)
    }

    /// Look-ups find what a search through the other reader's records finds.
    fn look_up_each(&self, base: i64, records: &[Record], max_timestamp: i64) -> Result<(), TestCaseError> {
        self.partition.delete_before(base).map_err(failed)?;
        let newest = records.iter().map(|record| record.timestamp).max().unwrap_or(-1).max(-1);
        ensure(newest == max_timestamp, "the stored largest timestamp is another")?;
        for (at, record) in records.iter().enumerate() {
            ensure(record.offset == base + at as i64, "another reader finds another offset")?;
        }
        for record in records.iter().take(3).filter(|record| record.timestamp >= 0) {
            let expected = records.iter().find(|other| other.timestamp >= record.timestamp).map(|other| other.offset);
            let query = OffsetQuery::At { time: record.timestamp, committed_only: false };
            let found = self.partition.seek(query).map_err(failed)?;
            ensure(Some(found.offset) == expected, "a look-up finds another record")?;
        }
        Ok(())
    }

    /// The log is the same after it is opened again, with and without its snapshots.
    fn reopen(&self) {
        let dir = self.dir.path().join("fuzzed-0");
        let reopened = Partition::open(&dir, settings(), 0).unwrap();
        assert_eq!(reopened.next_offset(), self.partition.next_offset());
    }
}

fn ensure(condition: bool, why: &'static str) -> Result<(), TestCaseError> {
    if condition { Ok(()) } else { Err(failed(why)) }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes the error by value")]
fn failed(why: impl ToString) -> TestCaseError {
    TestCaseError::fail(why.to_string())
}

#[test]
fn the_corpus_of_batches_is_accepted_or_refused_whole() {
    let log = FuzzedLog::open();
    for (name, bytes) in corpus() {
        let accepted = log.append(&bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(accepted || !name.starts_with("sound"), "{name} is refused");
        assert!(!accepted || !name.starts_with("bomb"), "{name} is accepted");
    }
    log.reopen();
}

#[test]
fn any_batch_is_accepted_and_readable_or_refused_without_a_trace() {
    let log = FuzzedLog::open();
    let (accepted, all) = (Cell::new(0), Cell::new(0));
    fuzz(&any_batch(corpus()), |batch| {
        accepted.set(accepted.get() + u64::from(log.append(&batch.0)?));
        all.set(all.get() + 1);
        Ok(())
    });
    eprintln!("{} of {} batches accepted", accepted.get(), all.get());
    assert!((all.get() / 20..all.get()).contains(&accepted.get()), "the inputs no longer test both outcomes");
    log.reopen();
}

/// Opens a log that holds this batch, as an older version may have accepted it, and a sound one behind it. Fetches must come to an
/// end and move forward; look-ups must answer.
fn open_and_read(batch: &Bytes) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().map_err(failed)?;
    let dir = dir.path().join("stored-0");
    fs::create_dir(&dir).map_err(failed)?;
    let mut stored = batch.to_vec();
    if let Some(base) = stored.first_chunk_mut() {
        *base = 0_i64.to_be_bytes();
    }
    let next = BatchHeader::parse(&stored).map_or(0, |header| header.next_offset());
    stored.extend_from_slice(&marker_batch(7, 0, TxnMarker::Commit, 0, NOW_MS));
    let at = batch.len();
    stored[at..at + 8].copy_from_slice(&next.to_be_bytes());
    fs::write(dir.join("00000000000000000000.log"), stored).map_err(failed)?;
    for _with_snapshot in [false, true] {
        let log = Partition::open(&dir, settings(), 0).map_err(failed)?;
        let mut offset = 0;
        while let Some(slice) =
            log.read(ReadRequest { offset, max_bytes: 1, committed_only: false }, None).map_err(failed)?.slice
        {
            let Some(end) = end_of(&slice.read().map_err(failed)?) else { break };
            ensure(end > offset, "a fetch does not move forward")?;
            offset = end;
        }
        for committed_only in [false, true] {
            for time in [0, NOW_MS, NOW_MS + 1_000, i64::MAX] {
                log.seek(OffsetQuery::At { time, committed_only }).map_err(failed)?;
            }
            log.seek(OffsetQuery::MaxTimestamp { committed_only }).map_err(failed)?;
        }
        log.retain(NOW_MS);
        log.checkpoint().map_err(failed)?;
    }
    Ok(())
}

#[test]
fn a_stored_corpus_is_opened_fetched_and_looked_up() {
    for (name, bytes) in corpus() {
        open_and_read(&bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[test]
fn any_stored_batch_is_opened_fetched_and_looked_up() {
    fuzz(&any_batch(corpus()), |batch| open_and_read(&batch.0));
}

/// A broker behind its dispatcher, without a socket.
struct FuzzedBroker {
    broker: Broker,
    connection: ClientConnection,
    runtime: tokio::runtime::Runtime,
}

impl FuzzedBroker {
    fn start() -> Self {
        let broker = Broker::start(BrokerConfig::default()).unwrap();
        let shared = &broker.shared;
        shared.topics.create("fuzzed", 1, Default::default()).unwrap();
        let connection = ClientConnection::new(std::sync::Arc::clone(shared), ([127, 0, 0, 1], 1).into());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        FuzzedBroker { broker, connection, runtime }
    }

    /// Handles one frame, as a connection does. Returns the response, or why the connection would be closed.
    fn handle(&self, frame: &Bytes) -> Option<Result<BytesMut, FrameError>> {
        let limit = if dispatch::may_wait(frame) { WAIT } else { Duration::MAX };
        self.runtime.block_on(async {
            let mut out = BytesMut::new();
            let responded = dispatch::respond(&self.connection, frame.clone(), &mut out);
            let responded = tokio::time::timeout(limit, responded).await.ok()?;
            Some(responded.map(|()| out))
        })
    }

    fn check(&self, frame: &Bytes) -> Result<(), TestCaseError> {
        let handled = self.handle(frame);
        if let Some(Err(error @ FrameError::Unencodable { .. })) = handled {
            return Err(failed(format!("{error:?}")));
        }
        if let Some(Ok(response)) = handled {
            let announced = response.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
            ensure(announced.is_none_or(|length| length + 4 == response.len()), "the response has another length")?;
        }
        Ok(())
    }
}

#[test]
fn the_corpus_in_produce_requests_is_answered() {
    let fuzzed = FuzzedBroker::start();
    for (name, bytes) in corpus() {
        for version in [3, 7, 8, 9, 11] {
            let frame = produce_frame(version, None, 1, bytes.clone());
            let response = fuzzed.handle(&frame).unwrap().unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(response.len() > 20, "{name}: no response in version {version}");
        }
    }
    drop(fuzzed.broker);
}

#[test]
fn any_frame_is_answered_or_ends_its_connection() {
    let fuzzed = FuzzedBroker::start();
    fuzz(&any_frame(corpus()), |frame| fuzzed.check(&frame.0));
}
