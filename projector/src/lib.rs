//! The projector: consumes every event of a system and shows the status of each saga.
//!
//! A saga is declared in a TOML file; this crate knows no business. A record passes through these modules in order: [`record`]
//! (its headers), [`view`] (the saga it belongs to), `progress` (the saga's progress, derived from the declaration) and `index`
//! (the lists the saga appears in).

pub mod api;
pub mod board;
pub mod client;
pub mod declaration;
pub mod digest;
mod fields;
pub mod http;
mod index;
mod interner;
mod nearest;
mod parked;
mod present;
mod program;
mod progress;
pub mod query;
mod reading;
pub mod record;
pub mod render;
mod saga_records;
mod start;
pub mod status;
mod time;
pub mod verification;
pub mod view;

pub use board::Board;
pub use declaration::Declaration;
pub use present::first_difference;
pub use program::program;
pub use progress::{LifecycleState, SagaFlag};
pub use reading::AvroBodyDecoder;
pub use start::{RunningProjector, StartError, VerifyError, start, verify};
pub use view::SagaView;
