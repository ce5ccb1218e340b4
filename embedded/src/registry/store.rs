//! State and journal together: a change is decided, stored, then applied, under one lock.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use avro_compat::Level;

use super::{
    error::RegistryError,
    journal::{Journal, JournalError},
    state::{Change, State},
};

/// The registry's state, durable when it has a journal.
#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    journal: Option<Journal>,
    closed: bool,
}

impl Store {
    /// Opens the journal in `directory`, or starts an empty store in memory.
    pub(super) fn open(directory: Option<&Path>, default_level: Level, fsync: bool) -> Result<Self, JournalError> {
        let mut state = State::new(default_level);
        let mut journal = None;
        if let Some(directory) = directory {
            let (opened, batches) = Journal::open::<Vec<Change>>(directory, fsync)?;
            for (index, change) in
                batches.into_iter().enumerate().flat_map(|(i, batch)| batch.into_iter().map(move |c| (i, c)))
            {
                // The journal's first line is its header.
                let damaged =
                    |reason| JournalError::Damaged { path: directory.join("registry.log"), line: index + 2, reason };
                state.apply(change).map_err(damaged)?;
            }
            journal = Some(opened);
        }
        Ok(Self { inner: Mutex::new(Inner { state, journal, closed: false }) })
    }

    /// Answers from the state.
    pub(super) fn read<T>(&self, ask: impl FnOnce(&State) -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        ask(&self.lock().state)
    }

    /// Decides a change, stores it, applies it.
    pub(super) fn write<T>(
        &self,
        decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut inner = self.lock();
        let (answer, changes) = decide(&inner.state)?;
        if changes.is_empty() {
            return Ok(answer);
        }
        if inner.closed {
            return Err(RegistryError::Store("the registry is stopping".to_owned()));
        }
        if let Some(journal) = &mut inner.journal {
            journal.append(&changes).map_err(|error| RegistryError::Store(error.to_string()))?;
        }
        for change in changes {
            inner.state.apply(change).map_err(RegistryError::Store)?;
        }
        Ok(answer)
    }

    /// Lets go of the file, so that another registry may open it. A connection that outlives the server can change nothing more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.journal = None;
    }

    /// A panic under the lock can only come before the journal took the change, so the state is as it was.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
