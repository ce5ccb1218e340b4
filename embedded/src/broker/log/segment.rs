//! One segment file: appends and position look-ups.
//!
//! Owns the file and a sparse index in memory. Knows no producer and no retention rule. A read is a [`SegmentSlice`], which
//! happens outside the partition's lock.

use super::batch::{BatchHeader, HEADER_LEN};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The distance between index entries, in bytes.
const INDEX_INTERVAL: u64 = 16 * 1024;
/// The exact positions of this many newest batches are kept, because nearly all readers are there.
const RECENT_BATCHES: usize = 256;
/// Bytes read beyond the request, so that skipping to the requested batch rarely needs a second read.
const READ_AHEAD: u64 = 4 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub offset: i64,
    pub position: u64,
    /// Largest timestamp of the batches before this one in the segment.
    pub max_before: i64,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub base_offset: i64,
    pub path: PathBuf,
    file: Arc<File>,
    size: u64,
    index: Vec<IndexEntry>,
    recent: VecDeque<(i64, u64)>,
    max_timestamp: i64,
    /// The time of the first append; decides when the segment is closed for its age.
    first_append_ms: Option<i64>,
}

impl Segment {
    pub(crate) fn file_name(base_offset: i64) -> String {
        format!("{base_offset:020}.log")
    }

    /// Opens or creates the file; the index is filled by [`Segment::record_batch`] or [`Segment::restore`].
    pub(crate) fn open(dir: &Path, base_offset: i64) -> io::Result<Self> {
        let path = dir.join(Self::file_name(base_offset));
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        Ok(Segment {
            base_offset,
            path,
            file: Arc::new(file),
            size: 0,
            index: Vec::new(),
            recent: VecDeque::new(),
            max_timestamp: i64::MIN,
            first_append_ms: None,
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    pub(crate) fn first_append_ms(&self) -> Option<i64> {
        self.first_append_ms
    }

    pub(crate) fn index(&self) -> &[IndexEntry] {
        &self.index
    }

    /// Restores a closed segment from its snapshot.
    pub(crate) fn restore(&mut self, size: u64, index: Vec<IndexEntry>, max_timestamp: i64) {
        self.size = size;
        self.index = index;
        self.max_timestamp = max_timestamp;
    }

    /// Adds a batch at the known end of the segment to the index.
    pub(crate) fn record_batch(&mut self, batch: &BatchHeader, now_ms: i64) {
        let due = self.index.last().is_none_or(|last| self.size - last.position >= INDEX_INTERVAL);
        if due {
            self.index.push(IndexEntry {
                offset: batch.base_offset,
                position: self.size,
                max_before: self.max_timestamp,
            });
        }
        if self.recent.len() == RECENT_BATCHES {
            self.recent.pop_front();
        }
        self.recent.push_back((batch.base_offset, self.size));
        self.size += batch.size as u64;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        self.first_append_ms.get_or_insert(now_ms);
    }

    /// Writes one batch at the end with a single system call. A failed write is truncated.
    pub(crate) fn append(&mut self, head: &[u8], rest: &[u8]) -> io::Result<()> {
        let written = write_both(&self.file, head, rest);
        if written.is_err() {
            self.file.set_len(self.size)?;
        }
        written
    }

    /// Truncates the file at `size`: the bytes after it are no sound batch.
    pub(crate) fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.file.sync_data()
    }

    /// A position at or before the batch that contains `offset`.
    fn floor(&self, offset: i64) -> u64 {
        if self.recent.front().is_some_and(|(first, _)| *first <= offset) {
            let after = self.recent.partition_point(|(base, _)| *base <= offset);
            return self.recent[after - 1].1;
        }
        let after = self.index.partition_point(|entry| entry.offset <= offset);
        after.checked_sub(1).map_or(0, |at| self.index[at].position)
    }

    /// The slice for a fetch from `offset` up to, not including, `until`.
    pub(crate) fn slice(&self, offset: i64, until: i64, max_bytes: usize) -> SegmentSlice {
        SegmentSlice {
            file: Arc::clone(&self.file),
            position: self.floor(offset),
            end: self.size,
            offset,
            until,
            max_bytes,
        }
    }

    /// The slice that contains the first batch with a timestamp at or after `target`.
    pub(crate) fn slice_by_time(&self, target: i64) -> SegmentSlice {
        let after = self.index.partition_point(|entry| entry.max_before < target);
        let position = after.checked_sub(1).map_or(0, |at| self.index[at].position);
        SegmentSlice {
            file: Arc::clone(&self.file),
            position,
            end: self.size,
            offset: self.base_offset,
            until: i64::MAX,
            max_bytes: 64 * 1024,
        }
    }
}

fn write_both(mut file: &File, head: &[u8], rest: &[u8]) -> io::Result<()> {
    let mut done = file.write_vectored(&[IoSlice::new(head), IoSlice::new(rest)])?;
    if done < head.len() {
        file.write_all(&head[done..])?;
        done = head.len();
    }
    file.write_all(&rest[done - head.len()..])
}

/// A read that was planned under the lock and happens outside of it.
#[derive(Debug)]
pub(crate) struct SegmentSlice {
    file: Arc<File>,
    position: u64,
    end: u64,
    offset: i64,
    until: i64,
    max_bytes: usize,
}

/// Where the requested batches are in a buffer.
enum BatchSearch {
    Range {
        from: usize,
        to: usize,
    },
    /// These bytes contain no requested batch; continue after them.
    Skip(usize),
    /// The first requested batch starts here and does not fit.
    Larger {
        at: usize,
        size: usize,
    },
    Nothing,
}

impl SegmentSlice {
    /// Complete batches: the one that contains the offset and those after it. As in Kafka, at least one batch is returned,
    /// whatever its size, so that no reader gets stuck.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        let mut position = self.position;
        while position < self.end {
            let length = (self.max_bytes as u64 + READ_AHEAD).min(self.end - position);
            let mut bytes = self.bytes_at(position, length)?;
            match self.pick(&bytes) {
                BatchSearch::Range { from, to } => {
                    bytes.truncate(to);
                    return Ok(bytes.split_off(from).freeze());
                }
                BatchSearch::Skip(0) | BatchSearch::Nothing => break,
                BatchSearch::Skip(passed) => position += passed as u64,
                BatchSearch::Larger { at, size } if size as u64 <= self.end - position => {
                    return Ok(self.bytes_at(position + at as u64, size as u64)?.freeze());
                }
                BatchSearch::Larger { .. } => break,
            }
        }
        Ok(Bytes::new())
    }

    fn bytes_at(&self, position: u64, length: u64) -> io::Result<BytesMut> {
        let mut bytes = BytesMut::zeroed(usize::try_from(length).unwrap_or(usize::MAX));
        self.file.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }

    fn pick(&self, bytes: &[u8]) -> BatchSearch {
        let mut at = 0;
        let mut from = None;
        while let Ok(batch) = BatchHeader::parse(&bytes[at..]) {
            if batch.base_offset >= self.until {
                break;
            }
            let wanted = batch.last_offset() >= self.offset;
            let next = at + batch.size;
            if wanted && from.is_none() && next > bytes.len() {
                return BatchSearch::Larger { at, size: batch.size };
            }
            let first = *from.get_or_insert(at);
            if next > bytes.len() || (wanted && first != at && next - first > self.max_bytes) {
                break;
            }
            if !wanted {
                from = None;
            }
            at = next;
        }
        match from {
            Some(from) if from < at => BatchSearch::Range { from, to: at },
            _ if at > 0 && bytes.len() - at < HEADER_LEN => BatchSearch::Skip(at),
            _ => BatchHeader::parse(&bytes[at..]).map_or(BatchSearch::Nothing, |batch| {
                if batch.base_offset >= self.until { BatchSearch::Nothing } else { BatchSearch::Skip(at + batch.size) }
            }),
        }
    }

    /// Visits batch by batch and returns the first result of `visit`.
    pub(crate) fn find<T>(&self, mut visit: impl FnMut(&BatchHeader, &[u8]) -> Option<T>) -> io::Result<Option<T>> {
        let mut position = self.position;
        let mut head = [0; HEADER_LEN];
        while position + HEADER_LEN as u64 <= self.end {
            self.file.read_exact_at(&mut head, position)?;
            let Ok(batch) = BatchHeader::parse(&head) else { break };
            if position + batch.size as u64 > self.end {
                break;
            }
            let bytes = self.bytes_at(position, batch.size as u64)?;
            if let Some(found) = visit(&batch, &bytes) {
                return Ok(Some(found));
            }
            position += batch.size as u64;
        }
        Ok(None)
    }
}
