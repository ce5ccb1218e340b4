//! The runtime of dacapo: the only crate that knows Kafka, the schema registry and the local store.
//!
//! A service is a [`decider::Decider`]. What a worker does when is decided in [`core`], without I/O; this crate executes it on
//! Kafka, and adds what a service needs besides: its HTTP API, projections, a publisher, settings, health and telemetry.

pub mod clock;
pub mod codec;
pub mod config;
pub mod edge;
pub mod external_service;
pub mod health;
pub mod http;
pub mod kafka;
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
pub mod worker;

pub use runtime_core as core;
pub use runtime_core::{consumes, decider, envelope, message, produces};

pub use config::{Args, Config, Secret};
pub use decider::{
    Answer, Decider, Decision, Due, Effect, NoEffect, NothingToPerform, Perform, Received, TimerFired, TimestampMs,
    Unanswered,
};
pub use message::{Channel, Message, NoCommand, RecordType, Written};
pub use service::{NoSettings, Program, Running, start};
