//! What happened: a hash that must be the same for the same seed, marks of what was seen, and on demand a story for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::cluster::{Reply, Stored};

/// The record of one history.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    now_ms: i64,
    seen: BTreeSet<&'static str>,
    story: Option<Vec<Line>>,
}

/// A line of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The saga it belongs to, if one.
    pub saga: Option<String>,
    /// What happened.
    pub text: String,
}

impl Trace {
    pub(crate) fn new(tells: bool) -> Self {
        Self { story: tells.then(Vec::new), ..Self::default() }
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

    /// Something that should be seen now and then has been seen.
    pub(crate) fn sometimes(&mut self, what: &'static str) {
        self.seen.insert(what);
    }

    /// Something happened; `text` is made only for a story.
    pub(crate) fn tell(&mut self, saga: Option<&str>, text: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let text = format!("{:>8} ms  {}", self.now_ms, text());
            story.push(Line { saga: saga.map(str::to_owned), text });
        }
    }

    pub(crate) fn appended(&mut self, topic: &str, partition: i32, offset: i64, stored: &Stored, in_transaction: bool) {
        self.mix(topic.as_bytes());
        self.mix_number(u64::try_from(offset).unwrap_or_default() << 8 | u64::try_from(partition).unwrap_or_default());
        self.mix_number(stored.timestamp_ms.unsigned_abs());
        self.mix(stored.key.as_deref().unwrap_or_default());
        self.mix(stored.value.as_deref().unwrap_or_default());
        for (_, value) in &stored.headers {
            self.mix(value.as_deref().unwrap_or_default());
        }
        let saga = stored.header("ce_correlationid").or_else(|| stored.header("ce_subject"));
        self.tell(saga, || {
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
        self.tell(None, || format!("transaction {tx} {}", if commits { "committed" } else { "aborted" }));
    }

    pub(crate) fn arrived_late(&mut self, reply: &Reply) {
        self.mix_number(77);
        self.sometimes(match reply {
            Reply::Done { .. } => "a request that was given up is carried out late",
            Reply::Fenced => "a late request of a dead producer is fenced",
            Reply::NotAMember => "late offsets of a member that is none any more are refused",
            Reply::Busy | Reply::NoTransaction | Reply::TooLarge => "a late request comes to nothing",
        });
        self.tell(None, || format!("a late request arrived: {reply:?}"));
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash ^ self.events
    }

    /// What was seen of what should be seen now and then.
    #[must_use]
    pub fn seen(&self) -> &BTreeSet<&'static str> {
        &self.seen
    }

    /// The story, if one was asked for.
    #[must_use]
    pub fn story(&self) -> &[Line] {
        self.story.as_deref().unwrap_or_default()
    }
}

/// How often something was seen, over many histories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sightings(BTreeMap<&'static str, u64>);

impl Sightings {
    /// Adds one history.
    pub fn add(&mut self, trace: &Trace) {
        for what in &trace.seen {
            *self.0.entry(what).or_default() += 1;
        }
    }

    /// Adds what others saw.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// In how many histories something was seen.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Everything that was seen.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(what, times)| (*what, *times))
    }
}
