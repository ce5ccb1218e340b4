//! Whether data written with one Avro schema can be read with another, and which versions of a subject must be.
//!
//! A pure walk over parsed schemas: no network, no files, no registry. The embedded registry answers with it and the contract
//! tools check `schemas/` with it, so both always agree. Start at [`Level::check`]; the walk itself is [`walk::check`].

pub mod level;
pub mod walk;

pub use level::{Level, Refusal, UnknownLevel};
pub use walk::{ErrorType, Incompatibility, Role, check};
