//! Batches that a client library cannot open: which partition they hold up, why, and what an operator decided about them.
//!
//! librdkafka hands out no record of such a batch, retries for ever, and reports an error without a place. So a reader that sees such
//! an error asks an inspector, which fetches the next batch of each partition as the broker stores it and looks for the fault.
//! The reader leaves the partition out of what it reads until the batch can be read, or until an operator has decided to skip it.

mod decisions;
mod inspect;
mod inspector;
mod raw_fetch;
mod watch;

use self::inspector::{Found, Inspected, Inspector};
pub use self::{
    decisions::DecisionsError,
    inspect::{InspectError, UnreadableBatch, inspect},
};
pub(crate) use self::{
    inspect::is_about_a_batch,
    inspector::PartitionAt,
    watch::{Partition, ReaderName, Skip, Watch},
};
pub use crate::core::unreadable::{BatchSkipped, OPERATOR, OperatorEvent};
