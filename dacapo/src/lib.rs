//! The `dacapo` command: all of MusicCorp in one process, and the tools to look at it.

pub mod audit;
pub mod cli;
pub mod endpoints;
pub mod events;
pub mod health;
pub mod load_sample_data;
pub mod musiccorp;
pub mod orders;
pub mod output;
pub mod parked;
pub mod prepare;
pub mod process;
pub mod replay;
pub mod rng;
pub mod sagas;
pub mod sample_data;
pub mod schemas;
pub mod send;
pub mod service;
pub mod signals;
pub mod stubs;
pub mod target;
pub mod topics;
pub mod up;
