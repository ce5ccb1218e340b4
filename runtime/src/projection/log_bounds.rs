//! Whether the topics still hold what a view is folded from: all that was ever said. A topic that was cut is never taken for a
//! short one, and one that was made anew under a view not for more of the same: both are refused by name.
//!
//! A view keeps nothing from one life to the next, so of a topic that was made anew before its start it knows nothing.

use std::sync::Arc;

use crate::worker::Held;

/// A history that is no longer whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogBoundsError {
    #[error(
        "{topic}/{partition} begins at offset {first}: it was cut, and a view of a part of what was said is wrong; hint: restore the \
         topic, or accept the loss with allow_truncated in [views] (docs/operations.md, \"A topic of a view was cut\")"
    )]
    BeginningTruncated { topic: Arc<str>, partition: i32, first: i64 },
    #[error(
        "{topic}/{partition} holds {held}, but the view goes on from offset {position}: it was cut or made anew under the view; \
         hint: restore the topic, and start again (docs/operations.md, \"A topic of a view was cut\")"
    )]
    OutOfRange { topic: Arc<str>, partition: i32, held: Held, position: i64 },
}
