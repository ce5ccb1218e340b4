//! One segment file: appending to it and finding places in it.
//!
//! Owns the file and a sparse index in memory. Knows no producer and no retention rule. Reads are handed out as a [`Slice`]
//! so that they happen outside the partition's lock.

use super::batch::{BatchHeader, HEADER_LEN};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One index entry about every so many bytes.
const INDEX_INTERVAL: u64 = 16 * 1024;
/// The places of this many newest batches are known exactly: that is where nearly all readers are.
const RECENT_BATCHES: usize = 256;
/// Read a little more than asked, so that skipping to the wanted batch rarely needs a second read.
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
    /// When the first batch came in; decides when the segment is closed for age.
    first_append_ms: Option<i64>,
}

impl Segment {
    pub(crate) fn file_name(base_offset: i64) -> String {
        format!("{base_offset:020}.log")
    }

    /// Opens or makes the file; the index is fed by [`Segment::note`] or [`Segment::restore`].
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

    /// Takes over what a snapshot says of a closed segment.
    pub(crate) fn restore(&mut self, size: u64, index: Vec<IndexEntry>, max_timestamp: i64) {
        self.size = size;
        self.index = index;
        self.max_timestamp = max_timestamp;
    }

    /// Notes a batch that lies at the end of what is known so far.
    pub(crate) fn note(&mut self, batch: &BatchHeader, now_ms: i64) {
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

    /// Writes one batch at the end with a single system call. What a failed write left behind is cut off again.
    pub(crate) fn append(&mut self, head: &[u8], rest: &[u8]) -> io::Result<()> {
        let written = write_both(&self.file, head, rest);
        if written.is_err() {
            self.file.set_len(self.size)?;
        }
        written
    }

    /// Cuts the file off at `size`: what lies behind it is no sound batch.
    pub(crate) fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.file.sync_data()
    }

    /// A place at or before the batch that holds `offset`.
    fn floor(&self, offset: i64) -> u64 {
        if self.recent.front().is_some_and(|(first, _)| *first <= offset) {
            let after = self.recent.partition_point(|(base, _)| *base <= offset);
            return self.recent[after - 1].1;
        }
        let after = self.index.partition_point(|entry| entry.offset <= offset);
        after.checked_sub(1).map_or(0, |at| self.index[at].position)
    }

    /// What to read for a fetch from `offset` up to, not including, `until`.
    pub(crate) fn slice(&self, offset: i64, until: i64, max_bytes: usize) -> Slice {
        Slice { file: Arc::clone(&self.file), position: self.floor(offset), end: self.size, offset, until, max_bytes }
    }

    /// What to read to find the first batch with a timestamp at or after `target`.
    pub(crate) fn slice_by_time(&self, target: i64) -> Slice {
        let after = self.index.partition_point(|entry| entry.max_before < target);
        let position = after.checked_sub(1).map_or(0, |at| self.index[at].position);
        Slice {
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

/// A read that was decided under the lock and is done outside of it.
#[derive(Debug)]
pub(crate) struct Slice {
    file: Arc<File>,
    position: u64,
    end: u64,
    offset: i64,
    until: i64,
    max_bytes: usize,
}

/// Where the wanted batches lie in a buffer.
enum Pick {
    Range {
        from: usize,
        to: usize,
    },
    /// Nothing wanted in these bytes; go on behind them.
    Skip(usize),
    /// The first wanted batch begins here and does not fit.
    Larger {
        at: usize,
        size: usize,
    },
    Nothing,
}

impl Slice {
    /// Whole batches: the one that holds the offset and those behind it. Always at least one if there is one, however
    /// large, as Kafka does, so that no reader gets stuck.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        let mut position = self.position;
        while position < self.end {
            let want = (self.max_bytes as u64 + READ_AHEAD).min(self.end - position);
            let mut bytes = self.bytes_at(position, want)?;
            match self.pick(&bytes) {
                Pick::Range { from, to } => {
                    bytes.truncate(to);
                    return Ok(bytes.split_off(from).freeze());
                }
                Pick::Skip(0) | Pick::Nothing => break,
                Pick::Skip(passed) => position += passed as u64,
                Pick::Larger { at, size } if size as u64 <= self.end - position => {
                    return Ok(self.bytes_at(position + at as u64, size as u64)?.freeze());
                }
                Pick::Larger { .. } => break,
            }
        }
        Ok(Bytes::new())
    }

    fn bytes_at(&self, position: u64, length: u64) -> io::Result<BytesMut> {
        let mut bytes = BytesMut::zeroed(usize::try_from(length).unwrap_or(usize::MAX));
        self.file.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }

    fn pick(&self, bytes: &[u8]) -> Pick {
        let mut at = 0;
        let mut from = None;
        while let Ok(batch) = BatchHeader::parse(&bytes[at..]) {
            if batch.base_offset >= self.until {
                break;
            }
            let wanted = batch.last_offset() >= self.offset;
            let next = at + batch.size;
            if wanted && from.is_none() && next > bytes.len() {
                return Pick::Larger { at, size: batch.size };
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
            Some(from) if from < at => Pick::Range { from, to: at },
            _ if at > 0 && bytes.len() - at < HEADER_LEN => Pick::Skip(at),
            _ => BatchHeader::parse(&bytes[at..]).map_or(Pick::Nothing, |batch| {
                if batch.base_offset >= self.until { Pick::Nothing } else { Pick::Skip(at + batch.size) }
            }),
        }
    }

    /// Walks batch by batch from here and answers the first thing `look` finds.
    pub(crate) fn find<T>(&self, mut look: impl FnMut(&BatchHeader, &[u8]) -> Option<T>) -> io::Result<Option<T>> {
        let mut position = self.position;
        let mut head = [0; HEADER_LEN];
        while position + HEADER_LEN as u64 <= self.end {
            self.file.read_exact_at(&mut head, position)?;
            let Ok(batch) = BatchHeader::parse(&head) else { break };
            if position + batch.size as u64 > self.end {
                break;
            }
            let bytes = self.bytes_at(position, batch.size as u64)?;
            if let Some(found) = look(&batch, &bytes) {
                return Ok(Some(found));
            }
            position += batch.size as u64;
        }
        Ok(None)
    }
}
