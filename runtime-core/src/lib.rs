//! The core of a service's runtime: everything that is decided without I/O.
//!
//! A service is a [`decider::Decider`]. Its records have an [`envelope`] and a [`codec`]; a [`Recovery`] folds its log up to the
//! barrier; a [`Machine`] decides one batch of inputs; and the [`turn`] says what a worker does when. A driver executes those
//! steps: the Kafka worker in production, the simulated cluster in the simulation. The same code runs in both.
//!
//! This crate has no sockets, no files, no threads, no clock and no randomness, and `clippy.toml` forbids them. Nothing in it
//! depends on the iteration order of a hash map.

mod batch;
pub mod codec;
mod contract;
pub mod decider;
mod effects;
mod entity;
pub mod envelope;
mod limits;
mod machine;
pub mod message;
mod parking;
mod partition;
mod record;
mod recovery;
pub mod state;
mod task;
pub mod text;
pub mod time;
mod timers;
mod tolerant;

pub use batch::{Batch, OutHeaders, Output, Target};
pub use contract::{Contract, ContractError, ContractNames, RuntimeRecord, written_by};
pub use entity::{HANDLED_CAUSES, MalformedCheckpoint};
pub use limits::{DEAD_LETTER_BYTES, Limits, TOPIC_BYTES};
pub use machine::Machine;
pub use parking::{
    CRASHES_AT_MOST, DropParked, Left, NotParked, Parked, ParkedNews, ParkingCommand, ParkingLimits, RetryParked,
    Verdict,
};
pub use partition::partition_of;
pub use record::Record;
pub use recovery::{Alarm, Folded, Recovery};
pub use task::{Failure, Outcome, SavedEntity, SavedTask, Stage, Task};
