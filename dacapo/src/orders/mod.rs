//! Orders to place: read from a file with one JSON object a line, or generated from a seed.
//!
//! The idempotency key of an order is the same in every run, so a second run places no order twice.

mod args;
mod file;
mod generate;

pub use args::{OrderMixArgs, OrdersArgs, run};
pub use file::{InputLine, InputLines, digest};
pub use generate::{OrderGenerator, OrderMix, OrderMixError};

use serde_json::Value;

/// An order as the HTTP API of the order-processor takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The idempotency key.
    pub key: String,
    /// The body of `POST /orders`.
    pub body: Value,
    /// Whether its cancellation is requested as soon as it is placed.
    pub cancel: bool,
}
