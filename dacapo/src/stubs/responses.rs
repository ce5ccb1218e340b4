//! Responses under idempotency keys: one per key, for ever, also after a restart.

use std::{
    collections::HashMap,
    fmt::Debug,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use super::journal::Journal;

/// What a stub remembers of its responses. A new response may depend on this state alone.
pub(super) trait ResponseState: Default {
    /// A response as the journal holds it.
    type Entry: Clone + Debug + Serialize + DeserializeOwned;

    /// The idempotency key that a response was given under.
    fn key(entry: &Self::Entry) -> &str;

    /// Applies a response.
    fn apply(&mut self, entry: &Self::Entry);
}

#[derive(Debug)]
struct RecordedResponses<S: ResponseState> {
    by_key: HashMap<String, S::Entry>,
    state: S,
}

impl<S: ResponseState> RecordedResponses<S> {
    fn add(&mut self, entry: S::Entry) {
        self.state.apply(&entry);
        self.by_key.insert(S::key(&entry).to_owned(), entry);
    }
}

/// All responses of a stub.
#[derive(Debug)]
pub(super) struct IdempotentResponses<S: ResponseState> {
    recorded: Mutex<RecordedResponses<S>>,
    journal: Journal,
}

impl<S: ResponseState> IdempotentResponses<S> {
    /// Restores what the journal of that name holds.
    pub(super) fn open(folder: Option<&Path>, journal: &str) -> io::Result<Self> {
        let (journal, entries) = Journal::open(folder, journal)?;
        let mut recorded = RecordedResponses { by_key: HashMap::new(), state: S::default() };
        entries.into_iter().for_each(|entry| recorded.add(entry));
        Ok(Self { recorded: Mutex::new(recorded), journal })
    }

    /// The earlier response under this key, or the new one that `decide` makes. A new response is journalled before it is returned.
    pub(super) fn once(&self, key: &str, decide: impl FnOnce(&S) -> S::Entry) -> io::Result<S::Entry> {
        let mut recorded = self.lock();
        if let Some(before) = recorded.by_key.get(key) {
            return Ok(before.clone());
        }
        let entry = decide(&recorded.state);
        self.journal.append(&entry)?;
        recorded.add(entry.clone());
        Ok(entry)
    }

    /// Reads the state.
    pub(super) fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.lock().state)
    }

    fn lock(&self) -> MutexGuard<'_, RecordedResponses<S>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
