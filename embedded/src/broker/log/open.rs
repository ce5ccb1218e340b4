//! Opening a partition: finds the segments, truncates incomplete writes, and restores the state from the files.
//!
//! Owns recovery and the snapshot files that shorten it. A snapshot is a cache: if it is missing or damaged, recovery reads the
//! segment instead.

use super::batch::{self, BatchHeader, HEADER_LEN, TxnMarker};
use super::partition::PartitionLog;
use super::producers::{AbortedTxn, PartitionProducer, PartitionProducers, PartitionTxn, RecentBatch};
use super::segment::{IndexEntry, Segment};
use bytes::{Buf, BufMut, BytesMut};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes read from a segment at a time during recovery.
const READ_BUFFER: usize = 1024 * 1024;
const SNAPSHOT_VERSION: u8 = 1;

/// The reason why a partition cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log in {dir}: is the directory readable and the disk not full?")]
pub(crate) struct LogOpenError {
    dir: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug)]
pub(super) struct RecoveredLog {
    pub segments: Vec<Segment>,
    pub log_start: i64,
    pub next_offset: i64,
    pub producers: PartitionProducers,
}

pub(super) fn open(dir: &Path, log_start: i64) -> Result<RecoveredLog, LogOpenError> {
    read_all(dir, log_start).map_err(|source| LogOpenError { dir: dir.to_path_buf(), source })
}

fn read_all(dir: &Path, log_start: i64) -> io::Result<RecoveredLog> {
    fs::create_dir_all(dir)?;
    let mut bases = segment_bases(dir)?;
    if bases.is_empty() {
        bases.push(log_start);
    }
    let mut log = RecoveredLog {
        segments: Vec::new(),
        log_start,
        next_offset: bases[0],
        producers: PartitionProducers::default(),
    };
    let snapshot = newest_snapshot(dir, &bases);
    for (at, base) in bases.iter().copied().enumerate() {
        let mut segment = Segment::open(dir, base)?;
        let length = segment.file().metadata()?.len();
        let closed = at + 1 < bases.len();
        let sound = match &snapshot {
            Some((last, _)) if base < *last => restore_closed(dir, &mut segment, length),
            Some((last, snapshot)) if base == *last => {
                log.restore(snapshot);
                segment.restore(snapshot.size, snapshot.index.clone(), snapshot.max_timestamp);
                true
            }
            _ => false,
        };
        if !sound || segment.size() < length {
            log.read_through(&mut segment, length)?;
        }
        let torn = segment.size() < length;
        if torn {
            truncate_torn_end(&mut segment, length)?;
        }
        log.segments.push(segment);
        if torn && closed {
            quarantine_segments(dir, &bases[at + 1..])?;
            break;
        }
    }
    log.log_start = log.log_start.max(log.segments[0].base_offset).min(log.next_offset);
    Ok(log)
}

fn segment_bases(dir: &Path) -> io::Result<Vec<i64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some("log"), Some(base)) = (path.extension().and_then(|ext| ext.to_str()), stem) {
            bases.push(base);
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

fn truncate_torn_end(segment: &mut Segment, length: u64) -> io::Result<()> {
    let size = segment.size();
    tracing::warn!(
        segment = %segment.path.display(), kept_bytes = size, truncated_bytes = length - size,
        "truncated an incomplete batch at the end of a segment"
    );
    segment.truncate(size)
}

/// Segments after a damaged one are no longer part of the log. They are renamed, not removed.
fn quarantine_segments(dir: &Path, bases: &[i64]) -> io::Result<()> {
    for base in bases {
        let path = dir.join(Segment::file_name(*base));
        tracing::error!(segment = %path.display(), "renamed an unreachable segment: an earlier segment is damaged");
        fs::rename(&path, path.with_extension("log.unreachable"))?;
    }
    Ok(())
}

/// Removes a segment and its snapshot. A file that cannot be removed is logged; it is harmless.
pub(super) fn remove_segment(segment: &Segment) {
    for path in [segment.path.clone(), snapshot_path(&segment.path)] {
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %path.display(), %error, "cannot remove an expired segment"),
        }
    }
}

impl RecoveredLog {
    fn restore(&mut self, snapshot: &SegmentSnapshot) {
        self.next_offset = snapshot.next_offset;
        self.producers = PartitionProducers::restore(snapshot.producers.clone(), snapshot.aborted.clone());
    }

    /// Reads a segment after its restored part, checks every batch, and stops at the first damaged one.
    fn read_through(&mut self, segment: &mut Segment, length: u64) -> io::Result<()> {
        let mut file = File::open(&segment.path)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(segment.size()))?;
        let mut buffer = BytesMut::with_capacity(READ_BUFFER);
        let mut left = length - segment.size();
        loop {
            while let Some(header) = whole_batch(&buffer) {
                let bytes = &buffer[..header.size];
                if header.verify(bytes).is_err() || header.base_offset < self.next_offset.max(segment.base_offset) {
                    return Ok(());
                }
                let marker = if header.is_control() { batch::marker_of(bytes) } else { None };
                self.record_batch(segment, &header, marker);
                buffer.advance(header.size);
            }
            if left == 0 || BatchHeader::parse(&buffer).is_err() && buffer.len() >= HEADER_LEN {
                return Ok(());
            }
            left -= fill(&mut file, &mut buffer, left)?;
        }
    }

    fn record_batch(&mut self, segment: &mut Segment, header: &BatchHeader, marker: Option<TxnMarker>) {
        segment.record_batch(header, header.max_timestamp);
        self.producers.observe(header, marker);
        self.next_offset = header.next_offset();
    }
}

fn whole_batch(buffer: &[u8]) -> Option<BatchHeader> {
    BatchHeader::parse(buffer).ok().filter(|header| header.size <= buffer.len())
}

fn fill(file: &mut File, buffer: &mut BytesMut, left: u64) -> io::Result<u64> {
    let length = left.min(READ_BUFFER as u64);
    let at = buffer.len();
    buffer.resize(at + usize::try_from(length).unwrap_or(READ_BUFFER), 0);
    file.read_exact(&mut buffer[at..])?;
    Ok(length)
}

/// The snapshot file of a segment: its index, and the producers' state at that size.
struct SegmentSnapshot {
    size: u64,
    next_offset: i64,
    max_timestamp: i64,
    index: Vec<IndexEntry>,
    aborted: Vec<AbortedTxn>,
    producers: Vec<(i64, PartitionProducer)>,
}

fn snapshot_path(segment: &Path) -> PathBuf {
    segment.with_extension("state")
}

/// The newest segment with a sound snapshot, where recovery starts.
fn newest_snapshot(dir: &Path, bases: &[i64]) -> Option<(i64, SegmentSnapshot)> {
    bases.iter().rev().find_map(|base| {
        let segment = dir.join(Segment::file_name(*base));
        let length = fs::metadata(&segment).ok()?.len();
        let snapshot = read_snapshot(&snapshot_path(&segment))?;
        (snapshot.size <= length).then_some((*base, snapshot))
    })
}

/// A closed segment before the newest snapshot needs only its own index. Without a snapshot it is read to build the index.
fn restore_closed(dir: &Path, segment: &mut Segment, length: u64) -> bool {
    let path = snapshot_path(&dir.join(Segment::file_name(segment.base_offset)));
    match read_snapshot(&path) {
        Some(snapshot) if snapshot.size == length => {
            segment.restore(snapshot.size, snapshot.index, snapshot.max_timestamp);
            true
        }
        _ => false,
    }
}

/// Writes the snapshot of the newest segment.
pub(super) fn write_snapshot(log: &PartitionLog) -> io::Result<()> {
    let segment = log.active();
    let mut bytes = BytesMut::new();
    bytes.put_u8(SNAPSHOT_VERSION);
    bytes.put_u64(segment.size());
    bytes.put_i64(log.next_offset);
    bytes.put_i64(segment.max_timestamp());
    put_list(&mut bytes, segment.index().iter(), |bytes, entry| {
        bytes.put_i64(entry.offset);
        bytes.put_u64(entry.position);
        bytes.put_i64(entry.max_before);
    });
    put_list(&mut bytes, log.producers.aborted().iter(), |bytes, txn| {
        bytes.put_i64(txn.producer_id);
        bytes.put_i64(txn.first_offset);
        bytes.put_i64(txn.last_offset);
    });
    let known: Vec<_> = log.producers.iter().collect();
    put_list(&mut bytes, known.iter(), |bytes, (id, producer)| put_producer(bytes, *id, producer));
    bytes.put_u32(crc32c::crc32c(&bytes));
    let path = snapshot_path(&segment.path);
    let replacement = path.with_extension("state.new");
    fs::write(&replacement, &bytes)?;
    fs::rename(replacement, path)
}

fn put_list<T>(bytes: &mut BytesMut, items: impl ExactSizeIterator<Item = T>, put: impl Fn(&mut BytesMut, T)) {
    bytes.put_u32(u32::try_from(items.len()).unwrap_or(u32::MAX));
    for item in items {
        put(bytes, item);
    }
}

fn put_producer(bytes: &mut BytesMut, id: i64, producer: &PartitionProducer) {
    bytes.put_i64(id);
    bytes.put_i16(producer.epoch);
    bytes.put_i64(producer.last_timestamp);
    bytes.put_i64(match producer.txn {
        PartitionTxn::Open { first_offset } => first_offset,
        PartitionTxn::None | PartitionTxn::Announced => -1, // the coordinator announces it again
    });
    put_list(bytes, producer.recent.iter(), |bytes, batch| {
        bytes.put_i32(batch.first_sequence);
        bytes.put_i32(batch.last_sequence);
        bytes.put_i64(batch.base_offset);
    });
}

fn read_snapshot(path: &Path) -> Option<SegmentSnapshot> {
    let bytes = fs::read(path).ok()?;
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc32c::crc32c(body).to_be_bytes() != *crc {
        return None;
    }
    let mut body = body;
    if body.try_get_u8().ok()? != SNAPSHOT_VERSION {
        return None;
    }
    let size = body.try_get_u64().ok()?;
    let next_offset = body.try_get_i64().ok()?;
    let max_timestamp = body.try_get_i64().ok()?;
    let index = get_list(&mut body, |body| {
        let offset = body.try_get_i64().ok()?;
        let position = body.try_get_u64().ok()?;
        Some(IndexEntry { offset, position, max_before: body.try_get_i64().ok()? })
    })?;
    let aborted = get_list(&mut body, |body| {
        let producer_id = body.try_get_i64().ok()?;
        let first_offset = body.try_get_i64().ok()?;
        Some(AbortedTxn { producer_id, first_offset, last_offset: body.try_get_i64().ok()? })
    })?;
    let producers = get_list(&mut body, get_producer)?;
    Some(SegmentSnapshot { size, next_offset, max_timestamp, index, aborted, producers })
}

fn get_list<T>(body: &mut &[u8], get: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = body.try_get_u32().ok()?;
    (0..count).map(|_| get(body)).collect()
}

fn get_producer(body: &mut &[u8]) -> Option<(i64, PartitionProducer)> {
    let id = body.try_get_i64().ok()?;
    let epoch = body.try_get_i16().ok()?;
    let last_timestamp = body.try_get_i64().ok()?;
    let first_open = body.try_get_i64().ok()?;
    let recent = get_list(body, |body| {
        let first_sequence = body.try_get_i32().ok()?;
        let last_sequence = body.try_get_i32().ok()?;
        Some(RecentBatch { first_sequence, last_sequence, base_offset: body.try_get_i64().ok()? })
    })?;
    let txn = if first_open >= 0 { PartitionTxn::Open { first_offset: first_open } } else { PartitionTxn::None };
    Some((id, PartitionProducer { epoch, recent: recent.into(), txn, last_timestamp }))
}
