//! The projector: reads every event and shows where each saga stands.
//!
//! What a saga is comes from declaration files; nothing in this crate knows a business. The walk of a record: [`record`] (its
//! headers) → [`view`] (its story) → `standing` (what the declaration makes of it) → `index` (where lists find it).

pub mod api;
pub mod board;
pub mod client;
pub mod declaration;
pub mod digest;
mod fields;
pub mod http;
mod index;
mod names;
mod nearest;
mod parked;
mod present;
mod program;
pub mod query;
mod reading;
pub mod record;
pub mod render;
mod standing;
mod start;
pub mod status;
mod story;
pub mod verification;
pub mod view;

pub use board::Board;
pub use declaration::Declaration;
pub use present::first_difference;
pub use program::program;
pub use reading::AvroBodies;
pub use standing::{Flag, State};
pub use start::{Running, StartError, VerifyError, start, verify};
pub use view::View;
