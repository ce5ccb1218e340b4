//! What dacapo runs on when nothing else is there: a schema registry and a broker, in process.
//!
//! A default for development and single machines: one node, no replication, no authentication. Both speak the public
//! protocols, so any client and tool of theirs works. [`broker`] keeps records in Kafka's own format.

pub mod broker;
pub mod registry;
