//! What becomes of a record that a task receives, and why a partition takes no more.

use std::sync::Arc;

use crate::{codec::SchemaRef, envelope::Position};

/// The result of receiving an input.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiveOutcome {
    /// It is decided on, forwarded, parked, dead-lettered, dropped as a repetition, or skipped. Its position is in the batch.
    Done,
    /// It is ignored: the partition is not owned or is held, or the record was received before.
    Ignored,
    /// Its schema must be fetched. Then the driver offers the same record again. Nothing has changed.
    NeedsSchema(SchemaRef),
    /// The record is an operator's command about a parked record, whose schema must be fetched anew, whatever is remembered of it.
    /// Then the driver offers the same record again. Nothing has changed.
    NeedsSchemaAnew(SchemaRef),
    /// This entity must be loaded. Then the driver offers the same record again. Nothing has changed.
    NeedsEntity(Arc<str>),
    /// It is a command of the service that this build does not have. The partition is held before it, for a build that has it.
    OfAnotherBuild(String),
    /// Its schema cannot be fetched now. The partition is held, and the record is retried when the hold ends.
    SchemaUnavailable(String),
    /// The service's own code failed on it. The partition is held, or the machine must be discarded.
    Failed(DeciderFailure),
}

impl ReceiveOutcome {
    /// True if the driver must fetch something and offer the record again.
    pub(crate) fn is_a_need(&self) -> bool {
        matches!(self, Self::NeedsSchema(_) | Self::NeedsSchemaAnew(_) | Self::NeedsEntity(_))
    }
}

/// The service's own code failed on a record.
#[derive(Debug, Clone, PartialEq)]
pub struct DeciderFailure {
    /// The record.
    pub position: Position,
    /// What failed and how.
    pub reason: String,
    /// True if a state was lost: the batch must not be committed, and the machine must be discarded.
    pub loses_state: bool,
}

/// How often the service's own code has failed on a record that blocks its partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashCount {
    /// The number of failures.
    pub times: u32,
    /// What failed last, and how.
    pub reason: String,
}

impl CrashCount {
    /// Counts one more failure.
    pub fn add(&mut self, reason: &str) {
        self.times = self.times.saturating_add(1);
        reason.clone_into(&mut self.reason);
    }
}

/// Why a partition takes no input.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldReason {
    /// The position of the record before which it is held.
    pub position: Position,
    /// Why.
    pub reason: String,
}
