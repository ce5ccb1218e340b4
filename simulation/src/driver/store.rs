//! The checkpoints of one instance, as a disk keeps them: recent checkpoints may be lost with the process, and a start may find
//! the store empty, old or damaged.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use runtime::core::TaskCheckpoint;

use crate::random::SeededRandom;

/// A checkpoint of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checkpoint {
    pub(crate) position: i64,
    pub(crate) positions: Vec<(Arc<str>, i64)>,
    pub(crate) entities: BTreeMap<Arc<str>, Rc<[u8]>>,
}

type Checkpoints = BTreeMap<i32, Checkpoint>;

/// The store of one instance.
#[derive(Debug, Default)]
pub(crate) struct Store {
    now: Checkpoints,
    on_disk: Checkpoints,
    old: Checkpoints,
    is_ahead: bool,
}

impl Store {
    /// The checkpoint of a partition.
    pub(crate) fn load(&self, partition: i32) -> Option<Checkpoint> {
        self.now.get(&partition).cloned()
    }

    /// One entity of a checkpoint.
    pub(crate) fn entity(&self, partition: i32, key: &str) -> Option<&[u8]> {
        self.now.get(&partition)?.entities.get(key).map(|bytes| &**bytes)
    }

    /// True if the damage made the store appear ahead of its log. An operator then deletes it.
    pub(crate) fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    pub(crate) fn save(&mut self, saved: TaskCheckpoint) {
        let checkpoint = self.now.entry(saved.partition).or_default();
        if saved.next < checkpoint.position {
            return;
        }
        checkpoint.position = saved.next;
        checkpoint.positions = saved.positions;
        checkpoint.entities.extend(saved.entities.into_iter().map(|(key, bytes)| (key, bytes.into())));
    }

    pub(crate) fn forget(&mut self, partition: i32) {
        self.now.remove(&partition);
    }

    /// Everything saved so far survives a crash from here on.
    pub(crate) fn flush(&mut self) {
        self.old = std::mem::replace(&mut self.on_disk, self.now.clone());
    }

    /// The process has crashed: what was not flushed is lost.
    pub(crate) fn crash(&mut self) {
        self.now = self.on_disk.clone();
    }

    /// Empties the store.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Restores an older copy.
    pub(crate) fn restore_old(&mut self) {
        self.now = self.old.clone();
        self.on_disk = self.old.clone();
        self.is_ahead = false;
    }

    /// Truncates some bytes, or makes a position wrong. Returns whether there was anything to damage.
    pub(crate) fn damage(&mut self, random: &mut SeededRandom) -> bool {
        let Some(checkpoint) = self.now.values_mut().next() else { return false };
        match checkpoint.entities.values_mut().next() {
            Some(bytes) if random.permille(700) => *bytes = Rc::from(&bytes[..bytes.len() / 2]),
            _ => {
                checkpoint.position += 1_000;
                self.is_ahead = true;
            }
        }
        true
    }
}
