//! Batches of an input that a client library cannot open, and an operator's decision to skip one.
//!
//! A batch whose compression or content is broken has no records that anyone could receive, so it can be neither decided nor parked.
//! Its partition of the input topic waits in front of it until an operator skips it. The decision is an event on the operators' own
//! topic: it names the reader, because each reader decides for itself, and a rebuild reads the same decisions.

use crate::envelope::Position;

crate::produces! {
    /// What operators decide about readers.
    pub enum OperatorEvent in "../schemas" {
        events of "operator" { BatchSkipped = 1 }
    }
}

/// The owner of the operators' topic.
pub const OPERATOR: &str = "operator";

/// An operator lets one reader continue behind a batch that it cannot open.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BatchSkipped {
    /// The position of the first record of the batch.
    pub position: String,
    /// The offset at which the reader continues.
    pub next_offset: i64,
    /// The reader: a consumer group, or the name of a view.
    pub reader: String,
    /// Why the batch cannot be read.
    pub defect: String,
    /// The operator.
    pub by: String,
    /// Why the operator skips it.
    pub reason: String,
    /// When the operator decided.
    pub occurred_at: i64,
}

impl BatchSkipped {
    /// The position of the first record of the batch, if it is one.
    #[must_use]
    pub fn first(&self) -> Option<Position> {
        self.position.parse().ok()
    }
}

/// A batch that was skipped, with its bytes.
#[derive(Debug, Clone, Copy)]
pub struct SkippedBatch<'a> {
    /// The operator's decision.
    pub decision: &'a BatchSkipped,
    /// The batch as the broker stores it.
    pub bytes: &'a [u8],
    /// The position from which the batch is the next one that could deliver a record.
    pub from: i64,
}
