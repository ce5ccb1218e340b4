//! Checkpoints that end with the process: a partition that leaves a worker and comes back is found where it was.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Change, Checkpoint, Checkpoints};

/// Checkpoints in memory.
#[derive(Debug, Default)]
pub struct Memory {
    partitions: Mutex<HashMap<i32, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    position: i64,
    note: Vec<u8>,
    entities: HashMap<String, Vec<u8>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Kept>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpoints for Memory {
    fn load(&self, partition: i32) -> Option<Checkpoint> {
        let partitions = self.lock();
        let kept = partitions.get(&partition)?;
        let entities = kept.entities.iter().map(|(key, state)| (key.clone(), state.clone())).collect();
        Some(Checkpoint { position: kept.position, note: kept.note.clone(), entities })
    }

    fn save(&self, partition: i32, change: Change) {
        let mut partitions = self.lock();
        let kept = partitions.entry(partition).or_default();
        if change.position < kept.position {
            return;
        }
        kept.position = change.position;
        kept.note = change.note;
        for (key, state) in change.entities {
            match state {
                Some(state) => kept.entities.insert(key, state),
                None => kept.entities.remove(&key),
            };
        }
    }

    fn forget(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    fn flush(&self, _: Duration) -> bool {
        true
    }
}
