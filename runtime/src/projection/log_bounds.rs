//! Whether topics still hold the complete history that a view is folded from. A truncated topic must not pass for a short one, nor
//! a topic that was recreated under a view for a continuation: both stop the view with the partition's name.
//!
//! A view keeps no state between runs, so it cannot detect a topic that was recreated before its start.

use std::sync::Arc;

use crate::core::log_bounds::LogBounds;

/// A partition that no longer holds the records that a view needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogBoundsError {
    #[error(
        "{topic}/{partition} begins at offset {first}: it was truncated, and a view of a part of its records is wrong; hint: restore the \
         topic, or accept the loss with allow_truncated in [views] (docs/operations.md, \"A topic of a view was truncated\")"
    )]
    BeginningTruncated { topic: Arc<str>, partition: i32, first: i64 },
    #[error(
        "{topic}/{partition} holds {held}, but the view continues from offset {position}: it was truncated or recreated under the view; \
         hint: restore the topic, and restart (docs/operations.md, \"A topic of a view was truncated\")"
    )]
    OutOfRange { topic: Arc<str>, partition: i32, held: LogBounds, position: i64 },
}
