//! Kafka: the clients with every setting and its reason, the names they carry, and the topics.
//!
//! It knows no records: what travels is the business of `envelope` and `codec`.

pub mod admin;
pub mod client;
mod contact;
pub mod headers;

pub use admin::{Admin, AdminError, TopicKind, TopicPlan, TopicSpec};
pub use client::ClientLog;
pub(crate) use contact::{Contact, Standing};
