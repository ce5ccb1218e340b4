//! Calls to the author's code. A panic there fails one record or one partition, and never ends the worker.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::text::panic_message;

/// Calls the author's code. A panic becomes an error with the name of the called function and the message of the panic.
pub(crate) fn guarded<T>(what: &str, call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| format!("{what} panicked: {}", panic_message(panic.as_ref())))
}
