//! Answers under idempotency keys: one per key, for ever, also after a restart.
//!
//! Whoever answers here has a memory made of what it answered; what a new key is answered may depend on that memory alone.

use std::{
    collections::HashMap,
    fmt::Debug,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use super::journal::Journal;

/// What an answer leaves behind in whoever gave it.
pub(super) trait Memory: Default {
    /// An answer, as it stands in the journal.
    type Entry: Clone + Debug + Serialize + DeserializeOwned;

    /// The idempotency key that an answer was given under.
    fn key(entry: &Self::Entry) -> &str;

    /// Takes an answer in.
    fn enter(&mut self, entry: &Self::Entry);
}

#[derive(Debug)]
struct Book<M: Memory> {
    by_key: HashMap<String, M::Entry>,
    memory: M,
}

impl<M: Memory> Book<M> {
    fn enter(&mut self, entry: M::Entry) {
        self.memory.enter(&entry);
        self.by_key.insert(M::key(&entry).to_owned(), entry);
    }
}

/// Everything that was answered.
#[derive(Debug)]
pub(super) struct Answers<M: Memory> {
    book: Mutex<Book<M>>,
    journal: Journal,
}

impl<M: Memory> Answers<M> {
    /// Brings back what the journal of that name holds.
    pub(super) fn open(folder: Option<&Path>, journal: &str) -> io::Result<Self> {
        let (journal, entries) = Journal::open(folder, journal)?;
        let mut book = Book { by_key: HashMap::new(), memory: M::default() };
        entries.into_iter().for_each(|entry| book.enter(entry));
        Ok(Self { book: Mutex::new(book), journal })
    }

    /// What was answered under the key before, or what `decide` answers now. Recorded before it is told.
    pub(super) fn once(&self, key: &str, decide: impl FnOnce(&M) -> M::Entry) -> io::Result<M::Entry> {
        let mut book = self.book();
        if let Some(before) = book.by_key.get(key) {
            return Ok(before.clone());
        }
        let entry = decide(&book.memory);
        self.journal.append(&entry)?;
        book.enter(entry.clone());
        Ok(entry)
    }

    /// Looks at the memory.
    pub(super) fn read<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.book().memory)
    }

    fn book(&self) -> MutexGuard<'_, Book<M>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
