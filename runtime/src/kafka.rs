//! Kafka: the clients with every setting and its reason, their names, headers and topics.
//!
//! It knows no record types: those are the business of `envelope` and `codec`.

pub mod admin;
pub mod client;
mod closing;
mod group_offsets;
pub mod headers;
mod liveness;

pub use admin::{Admin, AdminError, TopicKind, TopicPlan, TopicSpec};
pub use client::ClientLog;
pub(crate) use closing::close_within;
pub use group_offsets::{CommittedOffset, GroupOffsets, GroupOffsetsError};
pub(crate) use liveness::{BrokerLiveness, Connectivity};
