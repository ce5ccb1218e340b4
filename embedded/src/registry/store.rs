//! State and journal together: under one lock, a change is decided, stored, then applied.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use avro_compat::Level;

use super::{
    error::RegistryApiError,
    journal::{JournalError, RegistryJournal},
    state::{RegistryChange, RegistryState},
};

/// The registry's state, durable when it has a journal.
#[derive(Debug)]
pub(super) struct RegistryStore {
    state: Mutex<StoreState>,
}

#[derive(Debug)]
struct StoreState {
    state: RegistryState,
    journal: Option<RegistryJournal>,
    closed: bool,
}

impl RegistryStore {
    /// Opens the journal in `directory`, or starts an empty store in memory.
    pub(super) fn open(directory: Option<&Path>, default_level: Level, fsync: bool) -> Result<Self, JournalError> {
        let mut state = RegistryState::new(default_level);
        let mut journal = None;
        if let Some(directory) = directory {
            let (opened, batches) = RegistryJournal::open::<Vec<RegistryChange>>(directory, fsync)?;
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
        Ok(Self { state: Mutex::new(StoreState { state, journal, closed: false }) })
    }

    /// Queries the state.
    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&RegistryState) -> Result<T, RegistryApiError>,
    ) -> Result<T, RegistryApiError> {
        query(&self.lock().state)
    }

    /// Decides a change, stores it, then applies it.
    pub(super) fn write<T>(
        &self,
        decide: impl FnOnce(&RegistryState) -> Result<(T, Vec<RegistryChange>), RegistryApiError>,
    ) -> Result<T, RegistryApiError> {
        let mut state = self.lock();
        let (result, changes) = decide(&state.state)?;
        if changes.is_empty() {
            return Ok(result);
        }
        if state.closed {
            return Err(RegistryApiError::Store("the registry is stopping".to_owned()));
        }
        if let Some(journal) = &mut state.journal {
            journal.append(&changes).map_err(|error| RegistryApiError::Store(error.to_string()))?;
        }
        for change in changes {
            state.state.apply(change).map_err(RegistryApiError::Store)?;
        }
        Ok(result)
    }

    /// Closes the file, so that another registry may open it. A connection that outlives the server can change nothing more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.journal = None;
    }

    /// A panic under the lock can only happen before the change is in the journal, so the state is unchanged.
    fn lock(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
