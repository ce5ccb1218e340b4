//! Orders to be placed: read from a file, one JSON object a line, or generated from a seed.
//!
//! Every order has an idempotency key that is the same on every run, so a rerun places nothing twice.

mod file;
mod generate;

pub use file::{Line, Lines, digest};
pub use generate::{Generator, Mix, MixError};

use serde_json::Value;

/// An order as it is given to the order-processor's edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The idempotency key.
    pub key: String,
    /// What `POST /orders` takes as its body.
    pub body: Value,
    /// Ask for its cancellation as soon as it is placed.
    pub cancel: bool,
}
