//! Kafka's record batches (format v2) as bytes, without I/O: their headers, their records, and whether a reader can read them.
//!
//! The broker judges with it what clients produce; readers find with it why a client library hands out nothing. All bytes may come
//! from anyone: nothing here panics on them, and nothing inflates more of a compressed batch than a piece at a time.

pub mod batch;
pub mod inflate;
pub mod readable;
pub mod records;
