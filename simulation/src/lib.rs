//! Seeded simulation of a whole choreography: the production core, real deciders and codecs, on a simulated cluster, in one
//! thread, from one seed.
//!
//! Kafka, the registry, stores, clocks and external services are simulated, and so are their failures: a process crashes between
//! any two steps, a request arrives late or twice or gets a wrong reply, a group rebalances while a member is paused. The same
//! seed gives the same run, to the last byte. Promises are checked during the run and at its end.
//!
//! The walk of a run: [`simulated_run`] (which process acts next) → `driver` (one step of a process) → `cluster` (the effect of a
//! request) → [`musiccorp`] (what must hold). A [`Scenario`] puts a user's own service under simulation; docs/simulation.md shows
//! how.

pub mod campaign;
mod cluster;
mod driver;
mod faults;
pub mod musiccorp;
mod mutant;
mod operator;
mod random;
mod registry;
mod setup;
mod shrink;
pub mod simulated_run;
mod trace;
mod workload;

pub use cluster::{Cluster, Fetched, Headers, Log, StoredRecord, TopicPartition};
pub use driver::{ExternalService, NoExternalService, Violation, World};
pub use faults::{Fault, Faults};
pub use mutant::Mutant;
pub use random::SeededRandom;
pub use setup::{Fixtures, ScenarioSetup};
pub use shrink::shrink;
pub use simulated_run::{Plan, SimulatedRun, run};
pub use trace::{Sightings, Trace, TraceLine};
pub use workload::{Client, ReadPositions, Scenario, Snapshot, Workload};
