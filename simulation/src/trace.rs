//! What happened in a run: a hash that must be the same for the same seed, the situations that occurred, and on request lines of
//! text for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::cluster::{Reply, StoredRecord};

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    now_ms: i64,
    seen: BTreeSet<&'static str>,
    lines: Option<Vec<TraceLine>>,
}

/// A line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceLine {
    /// The saga it belongs to, if any.
    pub saga: Option<String>,
    /// What happened.
    pub text: String,
}

impl Trace {
    pub(crate) fn new(keeps_lines: bool) -> Self {
        Self { lines: keeps_lines.then(Vec::new), ..Self::default() }
    }

    pub(crate) fn at(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    fn mix(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.mix_number(u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.mix_number(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    pub(crate) fn mix_number(&mut self, number: u64) {
        self.events += 1;
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Records that a situation has occurred which must occur in some runs.
    pub(crate) fn sometimes(&mut self, situation: &'static str) {
        self.seen.insert(situation);
    }

    /// Adds a line; `text` is called only if lines are kept.
    pub(crate) fn note(&mut self, saga: Option<&str>, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let text = format!("{:>8} ms  {}", self.now_ms, text());
            lines.push(TraceLine { saga: saga.map(str::to_owned), text });
        }
    }

    pub(crate) fn appended(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        stored: &StoredRecord,
        in_transaction: bool,
    ) {
        self.mix(topic.as_bytes());
        self.mix_number(u64::try_from(offset).unwrap_or_default() << 8 | u64::try_from(partition).unwrap_or_default());
        self.mix_number(stored.timestamp_ms.unsigned_abs());
        self.mix(stored.key.as_deref().unwrap_or_default());
        self.mix(stored.value.as_deref().unwrap_or_default());
        for (_, value) in &stored.headers {
            self.mix(value.as_deref().unwrap_or_default());
        }
        let saga = stored.header("ce_correlationid").or_else(|| stored.header("ce_subject"));
        self.note(saga, || {
            let mut text = format!("appended {topic}/{partition}/{offset}");
            let name = stored.header("ce_type").and_then(|name| name.rsplit('.').next()).unwrap_or("?");
            let key = String::from_utf8_lossy(stored.key.as_deref().unwrap_or_default());
            let open = if in_transaction { " (open)" } else { "" };
            // Writing to a string does not fail.
            let _written = write!(text, " {name} of {key}{open}");
            if let Some(sequence) = stored.header("ce_sequence") {
                let _written = write!(text, " no. {sequence}");
            }
            if let Some(cause) = stored.header("ce_causeposition") {
                let _written = write!(text, ", caused by {cause}");
            }
            text
        });
    }

    pub(crate) fn ended(&mut self, tx: usize, commits: bool) {
        self.mix_number((tx as u64) << 1 | u64::from(commits));
        self.note(None, || format!("transaction {tx} {}", if commits { "committed" } else { "aborted" }));
    }

    pub(crate) fn arrived_late(&mut self, reply: &Reply) {
        self.mix_number(77);
        self.sometimes(match reply {
            Reply::Done { .. } => "a late request takes effect",
            Reply::Fenced => "a late request of a fenced producer is refused",
            Reply::NotAMember => "late offsets of a former member are refused",
            Reply::Busy | Reply::NoTransaction | Reply::TooLarge => "a late request has no effect",
        });
        self.note(None, || format!("a late request arrived: {reply:?}"));
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash ^ self.events
    }

    /// The situations that occurred.
    #[must_use]
    pub fn seen(&self) -> &BTreeSet<&'static str> {
        &self.seen
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn lines(&self) -> &[TraceLine] {
        self.lines.as_deref().unwrap_or_default()
    }
}

/// In how many runs each situation occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sightings(BTreeMap<&'static str, u64>);

impl Sightings {
    /// Adds one run.
    pub fn add(&mut self, trace: &Trace) {
        for situation in &trace.seen {
            *self.0.entry(situation).or_default() += 1;
        }
    }

    /// Adds the sightings of other runs.
    pub fn merge(&mut self, other: &Self) {
        for (situation, times) in &other.0 {
            *self.0.entry(situation).or_default() += times;
        }
    }

    /// In how many runs a situation occurred.
    #[must_use]
    pub fn of(&self, situation: &str) -> u64 {
        self.0.get(situation).copied().unwrap_or(0)
    }

    /// Every situation that occurred, and in how many runs.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(situation, times)| (*situation, *times))
    }
}
