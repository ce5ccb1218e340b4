//! Seeded simulation of a whole choreography: the production core, real deciders and codecs, on a simulated cluster, in one
//! thread, from one seed.
//!
//! Kafka, the registry, stores, clocks and the outside world are simulated, and so is everything that can happen to them: processes
//! die between any two steps, requests arrive late or twice or are answered wrongly, groups rebalance under members that stand
//! still. The same seed gives the same history to the last byte. What must hold is looked after in the middle and at the end.
//!
//! The walk of a history: [`history`] (whose turn it is) → `driver` (one step of a process) → `cluster` (what a request does) →
//! [`musiccorp`] (what must hold). A user's own service is put under simulation by a [`Scenario`]; docs/simulation.md shows how.

pub mod campaign;
mod cast;
mod chance;
mod cluster;
mod driver;
mod faults;
pub mod history;
pub mod musiccorp;
mod mutant;
mod operator;
mod registry;
mod shrink;
mod trace;

pub use cast::{Cast, Workshop};
pub use chance::Chance;
pub use cluster::{Cluster, Fetched, Headers, Log, Place, Stored};
pub use driver::{Nobody, Outside, Violation, World};
pub use faults::{Fault, Faults};
pub use history::{Finale, Hand, History, Plan, Play, Positions, Scenario, play};
pub use mutant::Mutant;
pub use shrink::shrink;
pub use trace::{Line, Sightings, Trace};
