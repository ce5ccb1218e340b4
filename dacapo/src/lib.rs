//! The `dacapo` command: all of MusicCorp in one process, and the tools to look at it.

pub mod audit;
pub mod outside;
