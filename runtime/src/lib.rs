//! The runtime of dacapo: the only crate that knows Kafka, Avro, the schema registry and the local store.
//!
//! A service is a [`decider::Decider`]; everything else (idempotence, transactions, ownership, recovery, effects, timers, health)
//! is done here.

pub mod clock;
pub mod codec;
pub mod config;
pub mod core;
pub mod decider;
pub mod edge;
pub mod envelope;
pub mod health;
pub mod http;
pub mod kafka;
pub mod message;
pub mod outside;
pub mod projection;
pub mod publisher;
pub mod registry;
pub mod request;
pub mod schemas;
pub mod service;
pub mod store;
pub mod table;
pub mod telemetry;
pub mod testing;
mod tolerant;
pub mod worker;

pub use config::{Args, Config, Secret};
pub use decider::{
    Answer, Decider, Decision, Due, Effect, NoEffect, NothingToPerform, Perform, Received, TimerFired, TimestampMs,
    Unanswered,
};
pub use message::{Channel, Message, NoCommand, RecordType, Written};
pub use service::{NoSettings, Program, Running, start};
