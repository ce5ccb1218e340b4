//! The broker, tested with librdkafka. One binary; `support` has the shared helpers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod groups;
mod records;
mod support;
mod transactions;
mod wire;
