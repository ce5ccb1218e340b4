//! Checkpoints of entity states: a cache beside the log, never the truth.
//!
//! Owns where checkpoints are kept and when they are discarded. A checkpoint is a position in the own events topic and every state
//! folded up to it, saved atomically. A store that cannot be opened, or that belongs to another cluster, group, topic or build, is
//! discarded, and the log is folded again from the beginning: that costs only time. A checkpoint ahead of its log is not discarded
//! here: it proves that the log has lost records, and the worker decides what to do about that. Saving never blocks a worker.
//! The store knows entities by their keys only.

mod disk;
mod memory;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use disk::DiskStore;
pub use memory::MemoryStore;

use crate::config::Config;

/// The version of the layout on disk. A new number discards every store that an older program wrote.
const FORMAT: u32 = 1;

/// What a store belongs to. A store whose header differs is discarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreHeader {
    format: u32,
    /// The cluster that has the log.
    pub cluster_id: String,
    /// The consumer group.
    pub group: String,
    /// The own events topic.
    pub topic: String,
    /// The build whose `evolve` made the states. Another build may fold the same events to other states, or serialize them
    /// differently.
    pub build: String,
}

impl StoreHeader {
    /// The header of a store that belongs to these.
    pub fn new(
        cluster_id: impl Into<String>,
        group: impl Into<String>,
        topic: impl Into<String>,
        build: impl Into<String>,
    ) -> Self {
        Self {
            format: FORMAT,
            cluster_id: cluster_id.into(),
            group: group.into(),
            topic: topic.into(),
            build: build.into(),
        }
    }
}

/// Everything folded from a partition of the own log up to a position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The offset of the next event to fold.
    pub position: i64,
    /// Data of the saver's own, which the store does not interpret.
    pub note: Vec<u8>,
    /// Each entity's key and its state, serialized with [`to_bytes`](crate::core::state::to_bytes).
    pub entities: Vec<(String, Vec<u8>)>,
}

/// The difference between a partition's checkpoint and the one saved before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointDelta {
    /// The offset of the next event to fold.
    pub position: i64,
    /// Data of the saver's own, which the store does not interpret.
    pub note: Vec<u8>,
    /// The states that changed; `None` removes an entity.
    pub entities: Vec<(String, Option<Vec<u8>>)>,
}

/// A store that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("store {path} is in use by another process; hint: give each instance its own data directory or name")]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot {operation} store {path}")]
    Directory {
        /// The failed operation.
        operation: &'static str,
        /// The store's directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Keeps checkpoints. Shared by the workers of an instance; a partition has one owner at a time.
pub trait Checkpoints: Send + Sync {
    /// The last checkpoint of a partition; `None` if there is none, or if it cannot be read.
    fn load(&self, partition: i32) -> Option<Checkpoint>;

    /// Queues a delta, which is soon saved atomically with its position. Never waits for the disk. A delta behind an earlier one is
    /// ignored: it comes from a worker that has lost the partition.
    fn save(&self, partition: i32, delta: CheckpointDelta);

    /// Discards a partition's checkpoint.
    fn discard(&self, partition: i32);

    /// Waits, at most `patience`, until every queued delta is saved. Returns whether all of them are.
    fn flush(&self, patience: Duration) -> bool;
}

/// Opens the store of a service's instance: on disk if there is a data directory, else in memory.
///
/// # Errors
/// Another process has the store open, or its directory cannot be created. A damaged store is no error: it is discarded.
pub fn open(config: &Config, header: &StoreHeader) -> Result<Arc<dyn Checkpoints>, StoreError> {
    match &config.data_dir {
        None => Ok(Arc::new(MemoryStore::default())),
        Some(data) => Ok(Arc::new(DiskStore::open(&path(data, config), header)?)),
    }
}

fn path(data: &Path, config: &Config) -> PathBuf {
    data.join("stores").join(&config.system).join(&config.service).join(config.instance.as_deref().unwrap_or("unnamed"))
}
