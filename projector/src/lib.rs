//! The projector: reads every event and shows where each saga stands.
//!
//! What a saga is comes from declaration files; nothing in this crate knows a business. The walk of a record: [`record`] (its
//! headers) → [`view`] (its story) → `standing` (what the declaration makes of it) → `index` (where lists find it).

pub mod api;
pub mod declaration;
mod index;
mod names;
mod nearest;
mod present;
pub mod query;
pub mod record;
mod standing;
mod story;
pub mod view;

pub use declaration::Declaration;
pub use present::first_difference;
pub use standing::{Flag, State};
pub use view::View;
