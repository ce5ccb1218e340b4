//! One partition: appends hold its lock, reads happen outside the lock, and waiting readers wake when more data is visible to them.
//!
//! Owns the segments, the offsets (start, end, last stable) and the producers' state of one partition. Knows no topic
//! settings beyond [`LogSettings`], no coordinator and no connection.

use super::LogSettings;
use super::batch::{self, BatchHeader, TxnMarker};
use super::lookup;
use super::open::{self, LogOpenError};
use super::produced::{self, AppendContext, ProduceRefusal, ProduceRules};
use super::producers::{AbortedTxn, AppendDecision, PartitionProducers, PartitionTxn};
use super::segment::{Segment, SegmentSlice};
use crate::broker::sync::lock;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::Notify;

/// Kafka counts leader changes; a single node never has one.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// Wakes a fetch that waits for more data. A connection has one, however many partitions it fetches.
#[derive(Debug, Default)]
pub(crate) struct FetchWaiter(Notify);

impl FetchWaiter {
    pub(crate) async fn woken(&self) {
        self.0.notified().await;
    }
}

#[derive(Debug)]
pub(crate) struct Partition {
    name: String,
    log: Mutex<PartitionLog>,
}

#[derive(Debug)]
pub(super) struct PartitionLog {
    pub(super) dir: PathBuf,
    pub(super) settings: LogSettings,
    /// Never empty. Appends go to the last one.
    pub(super) segments: Vec<Segment>,
    pub(super) log_start: i64,
    pub(super) next_offset: i64,
    pub(super) producers: PartitionProducers,
    pub(super) unsynced: bool,
    waiters: Vec<WaitingFetch>,
    deleted: bool,
}

#[derive(Debug)]
struct WaitingFetch {
    waiter: Weak<FetchWaiter>,
    committed_only: bool,
}

/// The result of an append.
#[derive(Debug)]
pub(crate) struct AppendResult {
    pub base_offset: i64,
    pub log_start: i64,
    /// The append time that the broker set; -1 if the records keep the producer's timestamps.
    pub append_time_ms: i64,
    /// The file to sync before the acknowledgement, if the policy requires it.
    pub file: Arc<File>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadRequest {
    pub offset: i64,
    pub max_bytes: usize,
    pub committed_only: bool,
}

#[derive(Debug)]
pub(crate) struct ReadPlan {
    pub high_watermark: i64,
    pub last_stable: i64,
    pub log_start: i64,
    /// `None` if there is nothing to read yet.
    pub slice: Option<SegmentSlice>,
}

/// A position whose offset is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetQuery {
    Earliest,
    Latest {
        committed_only: bool,
    },
    /// A part of the log that this broker never has.
    None,
    /// The first record with the newest timestamp of the log.
    MaxTimestamp {
        committed_only: bool,
    },
    /// The first record at or after this time.
    At {
        time: i64,
        committed_only: bool,
    },
}

/// An offset and the timestamp of its record; -1 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetAndTimestamp {
    pub offset: i64,
    pub timestamp: i64,
}

impl Partition {
    /// Opens the directory, creating it if needed, and recovers the log.
    pub(crate) fn open(dir: &Path, settings: LogSettings, log_start: i64) -> Result<Self, LogOpenError> {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let opened = open::open(dir, log_start)?;
        let log = PartitionLog {
            dir: dir.to_path_buf(),
            settings,
            segments: opened.segments,
            log_start: opened.log_start,
            next_offset: opened.next_offset,
            producers: opened.producers,
            unsynced: false,
            waiters: Vec::new(),
            deleted: false,
        };
        Ok(Partition { name, log: Mutex::new(log) })
    }

    /// Topic and partition number, as in `orders-3`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Validates a produced batch, assigns its offsets, and appends it.
    pub(crate) fn append(&self, bytes: &Bytes, context: AppendContext) -> Result<AppendResult, ProduceRefusal> {
        let now_ms = context.now_ms;
        let rules = {
            let log = lock(&self.log);
            log.check_usable()?;
            ProduceRules::new(&log.settings, context)
        };
        // Outside of the lock: compressed records take time to inflate.
        let checked = produced::check(bytes, &rules)?;
        let mut header = checked.header;
        let mut log = lock(&self.log);
        log.check_usable()?;
        if let AppendDecision::Duplicate { base_offset } = log.producers.check_batch(&header)? {
            return Ok(log.appended(base_offset));
        }
        let stamp = log.settings.stamp_on_arrival;
        header.base_offset = log.next_offset;
        header.max_timestamp = if stamp { now_ms } else { checked.max_timestamp };
        header.attributes = header.attributes_with_append_time(stamp);
        let is_as_sent =
            (header.max_timestamp, header.attributes) == (checked.header.max_timestamp, checked.header.attributes);
        let written = if is_as_sent {
            log.write(&header, bytes, None, now_ms)
        } else {
            log.write(&header, &batch::rewritten(bytes, header.attributes, header.max_timestamp), None, now_ms)
        };
        written.map_err(|error| self.storage_error(&error))?;
        Ok(AppendResult { append_time_ms: if stamp { now_ms } else { -1 }, ..log.appended(header.base_offset) })
    }

    /// Appends the marker that ends a producer's transaction in this partition, unless the transaction was never announced here.
    /// Readers stay asleep: [`Self::wake_readers`] wakes them once every partition of the transaction has its marker, so that one
    /// fetch returns all of it.
    pub(crate) fn end_txn(
        &self,
        producer_id: i64,
        epoch: i16,
        marker: TxnMarker,
        now_ms: i64,
    ) -> Result<Option<Arc<File>>, ResponseError> {
        let bytes = batch::marker_batch(producer_id, epoch, marker, 0, now_ms);
        let mut header = BatchHeader::parse(&bytes).map_err(|_| ResponseError::UnknownServerError)?;
        let mut log = lock(&self.log);
        log.check_usable()?;
        if log.producers.txn_of(producer_id) == PartitionTxn::None {
            return Ok(None);
        }
        header.base_offset = log.next_offset;
        log.write(&header, &bytes, Some(marker), now_ms).map_err(|error| self.storage_error(&error))?;
        Ok(log.segments.last().map(|segment| Arc::clone(segment.file())))
    }

    /// Wakes every reader that waits on this partition.
    pub(crate) fn wake_readers(&self) {
        lock(&self.log).wake(|_| true);
    }

    /// Announces a transaction, so that its records are accepted.
    pub(crate) fn announce_txn(&self, producer_id: i64, epoch: i16) {
        lock(&self.log).producers.announce(producer_id, epoch);
    }

    /// Plans a read. If there is nothing to read yet, the waiter is registered.
    pub(crate) fn read(
        &self,
        request: ReadRequest,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> Result<ReadPlan, ResponseError> {
        let mut log = lock(&self.log);
        log.check_usable()?;
        if request.offset < log.log_start || request.offset > log.next_offset {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let last_stable = log.last_stable();
        let until = if request.committed_only { last_stable } else { log.next_offset };
        let slice = if request.offset < until {
            log.segment_of(request.offset).map(|segment| segment.slice(request.offset, until, request.max_bytes))
        } else {
            None
        };
        if let (None, Some(waiter)) = (&slice, waiter) {
            log.wait(waiter, request.committed_only);
        }
        Ok(ReadPlan { high_watermark: log.next_offset, last_stable, log_start: log.log_start, slice })
    }

    /// Aborted transactions with a record in `from..to`.
    pub(crate) fn aborted_between(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        lock(&self.log).producers.aborted_between(from, to)
    }

    pub(crate) fn next_offset(&self) -> i64 {
        lock(&self.log).next_offset
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        lock(&self.log).segments.iter().map(Segment::size).sum()
    }

    /// Looks up an offset by position or time. As in Apache Kafka, transaction markers count as records of their time, and a reader
    /// of committed records finds nothing at or after the last stable offset.
    pub(crate) fn seek(&self, seek: OffsetQuery) -> Result<OffsetAndTimestamp, ResponseError> {
        let at = |offset| OffsetAndTimestamp { offset, timestamp: -1 };
        let (slices, target, from, until) = {
            let log = lock(&self.log);
            log.check_usable()?;
            let until = |committed_only| if committed_only { log.last_stable() } else { log.next_offset };
            match seek {
                OffsetQuery::Earliest => return Ok(at(log.log_start)),
                OffsetQuery::Latest { committed_only } => return Ok(at(until(committed_only))),
                OffsetQuery::None => return Ok(at(-1)),
                OffsetQuery::MaxTimestamp { committed_only } => {
                    let newest = log.max_timestamp();
                    (log.slices_for_time(newest), newest, i64::MIN, until(committed_only))
                }
                OffsetQuery::At { time, committed_only } => {
                    (log.slices_for_time(time), time, log.log_start, until(committed_only))
                }
            }
        };
        for slice in slices {
            let found = slice
                .find(|_, bytes| lookup::first_at_or_after(bytes, target, from))
                .map_err(|error| self.storage_error(&error))?;
            if let Some(found) = found {
                return Ok(if found.offset < until { found } else { at(-1) });
            }
        }
        Ok(at(-1))
    }

    /// Raises the start of the log and removes the segments below it. Returns the new start.
    pub(crate) fn delete_before(&self, offset: i64) -> Result<i64, ResponseError> {
        let mut log = lock(&self.log);
        log.check_usable()?;
        let offset = if offset == -1 { log.next_offset } else { offset };
        if offset < 0 || offset > log.next_offset {
            return Err(ResponseError::OffsetOutOfRange);
        }
        if offset > log.log_start {
            log.log_start = offset;
            log.remove_segments_below_start();
        }
        Ok(log.log_start)
    }

    /// Applies retention: removes closed segments that are too old or exceed the size. Returns the new start of the log if it
    /// moved.
    pub(crate) fn retain(&self, now_ms: i64) -> Option<i64> {
        let mut log = lock(&self.log);
        let idle_before = now_ms.saturating_sub(log.settings.producer_idle_ms);
        let before = log.log_start;
        log.expire(now_ms);
        let start = log.log_start;
        log.producers.forget(start, idle_before);
        (start != before).then_some(start)
    }

    pub(crate) fn set_settings(&self, settings: LogSettings) {
        lock(&self.log).settings = settings;
    }

    /// Forces the data that the operating system still buffers to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let file = {
            let mut log = lock(&self.log);
            if !std::mem::take(&mut log.unsynced) {
                return Ok(());
            }
            log.segments.last().map(|segment| Arc::clone(segment.file()))
        };
        file.map_or(Ok(()), |file| file.sync_data())
    }

    /// Writes the snapshot of the newest segment, which spares the next open from reading it.
    pub(crate) fn checkpoint(&self) -> io::Result<()> {
        let log = lock(&self.log);
        if log.deleted { Ok(()) } else { open::write_snapshot(&log) }
    }

    /// Refuses further requests and removes the files.
    pub(crate) fn delete(&self, suffix: &str) -> io::Result<()> {
        let mut log = lock(&self.log);
        log.deleted = true;
        log.wake(|_| true);
        let renamed = log.dir.with_file_name(format!("{}{suffix}", self.name));
        std::fs::rename(&log.dir, &renamed)?;
        std::fs::remove_dir_all(renamed)
    }

    /// Producers whose transaction has records here.
    pub(crate) fn open_producers(&self) -> Vec<(i64, i16)> {
        lock(&self.log).producers.open_producers()
    }

    /// For each producer: id, epoch, last sequence, last timestamp, first offset of its open transaction.
    pub(crate) fn producers(&self) -> Vec<(i64, i16, i32, i64, i64)> {
        let log = lock(&self.log);
        log.producers
            .iter()
            .map(|(id, producer)| {
                let sequence = producer.recent.back().map_or(-1, |batch| batch.last_sequence);
                let first_open = match producer.txn {
                    PartitionTxn::Open { first_offset } => first_offset,
                    PartitionTxn::None | PartitionTxn::Announced => -1,
                };
                (id, producer.epoch, sequence, producer.last_timestamp, first_open)
            })
            .collect()
    }

    fn storage_error(&self, error: &io::Error) -> ResponseError {
        tracing::error!(partition = self.name, %error, "cannot use the log of a partition");
        ResponseError::KafkaStorageError
    }
}

impl PartitionLog {
    fn check_usable(&self) -> Result<(), ResponseError> {
        if self.deleted { Err(ResponseError::UnknownTopicOrPartition) } else { Ok(()) }
    }

    fn appended(&self, base_offset: i64) -> AppendResult {
        let file = Arc::clone(self.active().file());
        AppendResult { base_offset, log_start: self.log_start, append_time_ms: -1, file }
    }

    pub(super) fn active(&self) -> &Segment {
        self.segments.last().expect("a log has at least one segment: open creates it, removal keeps it")
    }

    fn write(&mut self, header: &BatchHeader, bytes: &[u8], marker: Option<TxnMarker>, now_ms: i64) -> io::Result<()> {
        self.roll_if_due(header.size as u64, now_ms)?;
        let stable_before = self.last_stable();
        let head = batch::header_at_offset(bytes, header.base_offset, LEADER_EPOCH);
        let active = self.segments.last_mut().expect("a log has at least one segment");
        active.append(&head, &bytes[head.len()..])?;
        active.record_batch(header, now_ms);
        self.producers.observe(header, marker);
        self.next_offset = header.next_offset();
        self.unsynced = true;
        if marker.is_none() {
            let stable_moved = self.last_stable() != stable_before;
            self.wake(|waiting| stable_moved || !waiting.committed_only);
        }
        Ok(())
    }

    fn roll_if_due(&mut self, coming: u64, now_ms: i64) -> io::Result<()> {
        let active = self.active();
        let aged =
            active.first_append_ms().is_some_and(|first| now_ms.saturating_sub(first) >= self.settings.segment_ms);
        let full = active.size() + coming > self.settings.segment_bytes;
        if active.size() == 0 || !(full || aged) {
            return Ok(());
        }
        // The snapshot of a closed segment spares the next open from reading it; without a snapshot open reads the segment.
        if let Err(error) = open::write_snapshot(self) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot write the snapshot of a closed segment");
        }
        let next = Segment::open(&self.dir, self.next_offset)?;
        self.segments.push(next);
        Ok(())
    }

    /// The first offset that a `read_committed` reader may not see yet.
    fn last_stable(&self) -> i64 {
        self.producers.first_open().unwrap_or(self.next_offset)
    }

    fn segment_of(&self, offset: i64) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        self.segments.get(after.checked_sub(1)?)
    }

    fn max_timestamp(&self) -> i64 {
        self.segments.iter().map(Segment::max_timestamp).max().unwrap_or(i64::MIN)
    }

    fn slices_for_time(&self, target: i64) -> Vec<SegmentSlice> {
        self.segments
            .iter()
            .filter(|segment| segment.size() > 0 && segment.max_timestamp() >= target)
            .map(|segment| segment.slice_by_time(target))
            .collect()
    }

    fn wait(&mut self, waiter: &Arc<FetchWaiter>, committed_only: bool) {
        let is_same_fetch = |waiting: &WaitingFetch| std::ptr::eq(waiting.waiter.as_ptr(), Arc::as_ptr(waiter));
        if let Some(known) = self.waiters.iter_mut().find(|waiting| is_same_fetch(waiting)) {
            known.committed_only = committed_only;
            return;
        }
        self.waiters.retain(|waiting| waiting.waiter.strong_count() > 0);
        self.waiters.push(WaitingFetch { waiter: Arc::downgrade(waiter), committed_only });
    }

    fn wake(&mut self, should_wake: impl Fn(&WaitingFetch) -> bool) {
        self.waiters.retain(|waiting| {
            if !should_wake(waiting) {
                return true;
            }
            if let Some(waiter) = waiting.waiter.upgrade() {
                waiter.0.notify_one();
            }
            false
        });
    }

    fn remove_segments_below_start(&mut self) {
        while self.segments.len() > 1 && self.segments[1].base_offset <= self.log_start {
            let removed = self.segments.remove(0);
            open::remove_segment(&removed);
        }
    }

    fn expire(&mut self, now_ms: i64) {
        if !self.settings.delete {
            return;
        }
        let mut total: u64 = self.segments.iter().map(Segment::size).sum();
        while self.segments.len() > 1 {
            let oldest = &self.segments[0];
            let aged =
                self.settings.retention_ms.is_some_and(|keep| oldest.max_timestamp() < now_ms.saturating_sub(keep));
            let large = self.settings.retention_bytes.is_some_and(|keep| total - oldest.size() >= keep);
            let next = self.segments[1].base_offset;
            if !(aged || large) || next > self.last_stable() {
                return;
            }
            total -= oldest.size();
            self.log_start = self.log_start.max(next);
            self.remove_segments_below_start();
        }
    }
}
