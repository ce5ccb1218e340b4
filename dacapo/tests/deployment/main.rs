//! MusicCorp as several processes: the instances of `dacapo up --instances`, services started one by one, and the topology of
//! `docker-compose.yml`, which is checked against the programs and run as plain processes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checks;
mod compose;
mod files;
mod instances;
mod processes;
mod service;
#[path = "../support/mod.rs"]
mod support;
