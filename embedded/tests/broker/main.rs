//! The broker as librdkafka sees it. One binary; `support` holds what the stories share.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod admin;
mod groups;
mod records;
mod support;
mod transactions;
mod wire;
