//! The checkpoints of one instance, as a disk keeps them: what was saved lately may be lost with the process, and what is found at
//! a start may be nothing, old or damaged.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use runtime::core::TaskCheckpoint;

use crate::chance::Chance;

/// A checkpoint of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) position: i64,
    pub(crate) positions: Vec<(Arc<str>, i64)>,
    pub(crate) entities: BTreeMap<Arc<str>, Rc<[u8]>>,
}

type Checkpoints = BTreeMap<i32, Kept>;

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
    pub(crate) fn load(&self, partition: i32) -> Option<Kept> {
        self.now.get(&partition).cloned()
    }

    /// One entity of a checkpoint.
    pub(crate) fn entity(&self, partition: i32, key: &str) -> Option<&[u8]> {
        self.now.get(&partition)?.entities.get(key).map(|bytes| &**bytes)
    }

    /// True if it was damaged so that it is ahead of its log: an operator deletes it then.
    pub(crate) fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    pub(crate) fn save(&mut self, saved: TaskCheckpoint) {
        let kept = self.now.entry(saved.partition).or_default();
        if saved.next < kept.position {
            return;
        }
        kept.position = saved.next;
        kept.positions = saved.positions;
        kept.entities.extend(saved.entities.into_iter().map(|(key, bytes)| (key, bytes.into())));
    }

    pub(crate) fn forget(&mut self, partition: i32) {
        self.now.remove(&partition);
    }

    /// Everything saved so far survives the process from here on.
    pub(crate) fn flush(&mut self) {
        self.old = std::mem::replace(&mut self.on_disk, self.now.clone());
    }

    /// The process is gone, and with it what was not flushed.
    pub(crate) fn crash(&mut self) {
        self.now = self.on_disk.clone();
    }

    /// Nothing is left.
    pub(crate) fn lose(&mut self) {
        *self = Self::default();
    }

    /// Somebody has put an older copy back.
    pub(crate) fn age(&mut self) {
        self.now = self.old.clone();
        self.on_disk = self.old.clone();
        self.is_ahead = false;
    }

    /// Some bytes are gone, or a position is nonsense. Answers whether there was anything to damage.
    pub(crate) fn damage(&mut self, chance: &mut Chance) -> bool {
        let Some(kept) = self.now.values_mut().next() else { return false };
        match kept.entities.values_mut().next() {
            Some(bytes) if chance.permille(700) => *bytes = Rc::from(&bytes[..bytes.len() / 2]),
            _ => {
                kept.position += 1_000;
                self.is_ahead = true;
            }
        }
        true
    }
}
