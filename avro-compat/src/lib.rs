//! Avro compatibility: whether a reader schema can decode data of a writer schema, and which versions a level compares.
//!
//! Pure functions of parsed schemas: no network, no files, no registry. The embedded registry and the contract tools for
//! `schemas/` both use them, so the two always agree. Start at [`Level::check`]; [`walk::check`] compares two schemas.

pub mod level;
pub mod walk;

pub use level::{IncompatibleVersion, Level, UnknownLevel};
pub use walk::{ErrorType, Incompatibility, Role, check};
