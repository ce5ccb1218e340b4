//! Checkpoints in memory, which end with the process. They serve a partition that leaves a worker and returns to it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Checkpoint, CheckpointDelta, Checkpoints};

/// Checkpoints in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    partitions: Mutex<HashMap<i32, PartitionCheckpoint>>,
}

#[derive(Debug, Default)]
struct PartitionCheckpoint {
    position: i64,
    note: Vec<u8>,
    entities: HashMap<String, Vec<u8>>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, PartitionCheckpoint>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpoints for MemoryStore {
    fn load(&self, partition: i32) -> Option<Checkpoint> {
        let partitions = self.lock();
        let saved = partitions.get(&partition)?;
        let entities = saved.entities.iter().map(|(key, state)| (key.clone(), state.clone())).collect();
        Some(Checkpoint { position: saved.position, note: saved.note.clone(), entities })
    }

    fn save(&self, partition: i32, delta: CheckpointDelta) {
        let mut partitions = self.lock();
        let saved = partitions.entry(partition).or_default();
        if delta.position < saved.position {
            return;
        }
        saved.position = delta.position;
        saved.note = delta.note;
        for (key, state) in delta.entities {
            match state {
                Some(state) => saved.entities.insert(key, state),
                None => saved.entities.remove(&key),
            };
        }
    }

    fn discard(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    fn flush(&self, _: Duration) -> bool {
        true
    }
}
