//! The log: record batches in append-only segment files, one directory per partition.
//!
//! Owns the record files on disk. Knows no topic beyond its directory, no group, no coordinator and no connection.

mod lookup;
mod open;
mod partition;
mod produced;
mod producers;
mod segment;

pub(crate) use open::LogOpenError;
pub(crate) use partition::{
    AppendResult, FetchWaiter, LEADER_EPOCH, OffsetAndTimestamp, OffsetQuery, Partition, ReadPlan, ReadRequest,
};
pub(crate) use produced::{AppendContext, ProduceRefusal};
pub(crate) use record_batch::batch::{self, TxnMarker, end_of};
use record_batch::{inflate, records};

/// The topic settings that apply to its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub max_message_bytes: usize,
    /// `None` keeps records for ever.
    pub retention_ms: Option<i64>,
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy` names `delete`.
    pub delete: bool,
    /// `cleanup.policy` names `compact`.
    pub compact: bool,
    /// The broker stamps records with their arrival time instead of the producer's.
    pub stamp_on_arrival: bool,
    /// How far a producer's timestamp may be behind and ahead of the broker's clock.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub producer_idle_ms: i64,
}
