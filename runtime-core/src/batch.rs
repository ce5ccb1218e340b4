//! The records that one transaction appends, and the input positions that it commits. Keys and values share one buffer, which the
//! next batch reuses.

use std::{collections::BTreeMap, ops::Range};

use crate::{decider::TimestampMs, envelope::Envelope};

/// The topic of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputTopic {
    /// The own events topic.
    Events,
    /// The own inbox.
    Inbox,
    /// The dead-letter topic.
    DeadLetters,
    /// The topic of parked records.
    Parked,
}

/// The headers of an output.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputHeaders {
    /// The envelope of a record that the runtime writes itself.
    Envelope(Box<Envelope>),
    /// The headers of a record that is written unchanged, in their order.
    Verbatim(Vec<(String, Option<Vec<u8>>)>),
}

/// One record to append.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The topic.
    pub to: OutputTopic,
    /// The partition; with `None` the partitioner chooses it.
    pub partition: Option<i32>,
    /// The record's timestamp.
    pub timestamp_ms: TimestampMs,
    /// The headers.
    pub headers: OutputHeaders,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

/// The open batch.
#[derive(Debug, Default)]
pub struct Batch {
    outputs: Vec<Output>,
    bytes: Vec<u8>,
    inputs: usize,
    positions: BTreeMap<(usize, i32), i64>,
}

/// A point in the batch to which it can be rolled back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Savepoint {
    outputs: usize,
    bytes: usize,
}

impl Batch {
    /// The records to append, in order.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The key of one of its outputs.
    #[must_use]
    pub fn key(&self, output: &Output) -> Option<&[u8]> {
        output.key.clone().and_then(|range| self.bytes.get(range))
    }

    /// The value of one of its outputs.
    #[must_use]
    pub fn value(&self, output: &Output) -> Option<&[u8]> {
        output.value.clone().and_then(|range| self.bytes.get(range))
    }

    /// The positions to commit: the index of the input and the partition, with the offset to read next.
    pub fn positions(&self) -> impl Iterator<Item = ((usize, i32), i64)> {
        self.positions.iter().map(|(input, next)| (*input, *next))
    }

    /// The number of inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The bytes of its keys and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// True if there is nothing to append and no position to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.positions.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.outputs.clear();
        self.bytes.clear();
        self.positions.clear();
        self.inputs = 0;
    }

    pub(crate) fn moved(&mut self, input: usize, partition: i32, next: i64) {
        self.positions.insert((input, partition), next);
    }

    pub(crate) fn count_input(&mut self) {
        self.inputs += 1;
    }

    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint { outputs: self.outputs.len(), bytes: self.bytes.len() }
    }

    pub(crate) fn rollback_to(&mut self, savepoint: Savepoint) {
        self.outputs.truncate(savepoint.outputs);
        self.bytes.truncate(savepoint.bytes);
    }

    /// Appends bytes to the buffer and returns their range.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Lets `write` append to the buffer, and returns the range that it wrote and its result.
    pub(crate) fn put_with<T, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
    ) -> Result<(Range<usize>, T), E> {
        let start = self.bytes.len();
        let written = write(&mut self.bytes)?;
        Ok((start..self.bytes.len(), written))
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    pub(crate) fn append(
        &mut self,
        to: OutputTopic,
        partition: Option<i32>,
        timestamp_ms: TimestampMs,
        headers: OutputHeaders,
        (key, value): (Option<Range<usize>>, Option<Range<usize>>),
    ) {
        self.outputs.push(Output { to, partition, timestamp_ms, headers, key, value });
    }
}
