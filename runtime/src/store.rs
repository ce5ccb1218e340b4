//! Checkpoints of entity states: a cache beside the log, never the truth.
//!
//! Owns where checkpoints are kept, when they are thrown away, and how a state becomes bytes. A checkpoint is a position in the
//! own log and everything folded up to it, saved as one. Whatever is doubtful (cannot be opened, belongs to another cluster,
//! group, topic or build) is put aside, and the log is folded again from the beginning: only time is lost. A checkpoint ahead of
//! its log is not doubtful: it witnesses that the log has lost something, and what to make of that is not decided here. Saving never
//! makes a worker wait. It knows nothing of entities but their keys.

mod disk;
mod memory;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use disk::Disk;
pub use memory::Memory;

use crate::config::Config;

/// The layout on disk. Another number makes every store of an older program foreign.
const FORMAT: u32 = 1;

/// What a store belongs to. One that says anything else is foreign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: u32,
    /// The cluster the log lies on.
    pub cluster_id: String,
    /// The consumer group.
    pub group: String,
    /// The own events topic.
    pub topic: String,
    /// The build whose `evolve` made the states. Another one may fold the same events to other states, or shape them otherwise.
    pub build: String,
}

impl Header {
    /// The header of a store for these.
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
    /// The offset to go on folding from.
    pub position: i64,
    /// What the saver wants to know again besides, in its own form.
    pub note: Vec<u8>,
    /// Each entity's key and state, in the form of [`to_bytes`](crate::core::state::to_bytes).
    pub entities: Vec<(String, Vec<u8>)>,
}

/// What changed since the last save of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The offset to go on folding from.
    pub position: i64,
    /// What the saver wants to know again besides.
    pub note: Vec<u8>,
    /// The states that changed; `None` for an entity that is no more.
    pub entities: Vec<(String, Option<Vec<u8>>)>,
}

/// A store that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("store {path} is in use by another process; hint: give each instance its own data directory or name")]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory cannot be used at all.
    #[error("cannot {operation} store {path}")]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// The store's directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Keeps checkpoints. Shared by the workers of an instance; a partition has one owner at a time.
pub trait Checkpoints: Send + Sync {
    /// The last checkpoint of a partition; none if there is none, or none that can be trusted.
    fn load(&self, partition: i32) -> Option<Checkpoint>;

    /// Takes over a change, to be saved as one with its position soon. Never waits for a disk. A change that is behind what was
    /// taken over before is passed over: it comes from an owner that has lost the partition.
    fn save(&self, partition: i32, change: Change);

    /// Throws a partition's checkpoint away.
    fn forget(&self, partition: i32);

    /// Waits until everything taken over is saved, at most `patience`. Answers whether it is.
    fn flush(&self, patience: Duration) -> bool;
}

/// Opens the store of a service's instance: on disk if there is a data directory, else in memory.
///
/// # Errors
/// Another process has the store, or its directory cannot be made. A store that is there and broken is no error.
pub fn open(config: &Config, header: &Header) -> Result<Arc<dyn Checkpoints>, StoreError> {
    match &config.data_dir {
        None => Ok(Arc::new(Memory::default())),
        Some(data) => Ok(Arc::new(Disk::open(&path(data, config), header)?)),
    }
}

fn path(data: &Path, config: &Config) -> PathBuf {
    data.join("stores").join(&config.system).join(&config.service).join(config.instance.as_deref().unwrap_or("unnamed"))
}
