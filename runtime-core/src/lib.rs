//! The core of a service's runtime: every rule, and no I/O.
//!
//! A service is a [`decider::Decider`]. Its records have an [`envelope`] and a [`codec`]. A [`Recovery`] folds the service's log up
//! to the barrier, a [`Machine`] decides one batch of inputs, and a [`turn`] returns the steps of a worker in their order. A driver
//! executes the steps: the Kafka worker in production, the simulated cluster in the simulation. Both run the same code.
//!
//! This crate uses no sockets, files, threads, clocks or random numbers, and `clippy.toml` forbids them. No result depends on the
//! iteration order of a hash map.

pub mod backoff;
pub mod barrier;
mod batch;
pub mod codec;
mod contract;
pub mod datum;
pub mod decider;
mod due;
mod effects;
mod entity;
pub mod envelope;
pub mod fencing;
mod guard;
mod limits;
pub mod log_bounds;
mod machine;
pub mod message;
mod parking;
mod partition;
mod record;
pub mod recoveries;
mod recovery;
pub mod state;
mod task;
pub mod text;
pub mod time;
mod timers;
mod tolerant;
pub mod turn;
pub mod unreadable;

pub use batch::{Batch, Output, OutputHeaders, OutputTopic};
pub use contract::{ContractError, ContractNames, RuntimeRecord, ServiceContract, written_by};
pub use entity::{HANDLED_CAUSES, MalformedCheckpoint};
pub use limits::{DEAD_LETTER_BYTES, Limits, TOPIC_BYTES};
pub use machine::{DueEffect, Machine, Need};
pub use parking::{
    DropParked, MAX_CRASHES, MalformedParkedRecord, ParkedRecord, ParkingCommand, ParkingLimits, ParkingUpdate,
    RecordFailure, ReleasedRecord, RetryParked,
};
pub use partition::partition_of;
pub use record::Record;
pub use recovery::{FoldOutcome, LogCorruption, Recovery};
pub use task::{CrashCount, DeciderFailure, EntityCheckpoint, HoldReason, ReceiveOutcome, Task, TaskCheckpoint};
