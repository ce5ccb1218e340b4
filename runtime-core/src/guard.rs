//! Calls of an author's code. A panic there is that record's or that partition's failure, never the worker's end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::text::panic_message;

/// Calls an author's code. A panic is an error that names what panicked, and with which message.
pub(crate) fn guarded<T>(what: &str, call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| format!("{what} panicked: {}", panic_message(panic.as_ref())))
}
