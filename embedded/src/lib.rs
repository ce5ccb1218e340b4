//! A Kafka broker and a schema registry in process: dacapo's default when no others are configured.
//!
//! They serve development and single machines: one node, no replication, no authentication. Both implement the public
//! protocols, so any Kafka or registry client works with them. [`broker`] stores records in Kafka's own format.

pub mod broker;
pub mod registry;
