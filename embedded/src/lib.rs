//! What dacapo runs on when nothing else is there: a schema registry and a broker, in process.
//!
//! A default for development and single machines. Both speak the public protocols, so any client and tool of theirs works.

pub mod registry;
