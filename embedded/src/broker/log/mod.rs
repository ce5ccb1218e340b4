//! The log: record batches in append-only segment files, one directory per partition.
//!
//! Owns what is on disk for records. Knows no topic names beyond a directory, no group, no coordinator and no connection.

pub(crate) mod batch;
mod open;
mod partition;
mod producers;
mod segment;

pub(crate) use batch::{Marker, end_of};
pub(crate) use open::OpenError;
pub(crate) use partition::{Appended, Found, LEADER_EPOCH, Partition, ReadAsk, ReadView, Seek, Waiter};

/// The settings of a topic that its partitions obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub max_message_bytes: usize,
    /// `None` keeps for ever.
    pub retention_ms: Option<i64>,
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy` names `delete`.
    pub delete: bool,
    /// `cleanup.policy` names `compact`.
    pub compact: bool,
    /// Records carry the time of their arrival, not their producer's.
    pub stamp_on_arrival: bool,
    /// How far a producer's timestamp may lie behind and ahead of the broker's clock.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub producer_idle_ms: i64,
}
