//! The `dacapo` command: all of MusicCorp in one process, and the tools to look at it.

pub mod audit;
pub mod cli;
pub mod contract;
pub mod draws;
pub mod endpoints;
pub mod events;
pub mod health;
pub mod orders;
pub mod output;
pub mod outside;
pub mod parked;
pub mod prepare;
pub mod replay;
pub mod sagas;
pub mod schemas;
pub mod seed;
pub mod seeding;
pub mod send;
pub mod service;
pub mod signals;
pub mod target;
pub mod topics;
pub mod up;
