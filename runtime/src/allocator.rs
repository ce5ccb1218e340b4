//! The memory allocator of every process that links this crate.
//!
//! It is set here and not in each `main.rs`, so that no program can forget it. The allocator overrides `malloc` as well, for the
//! Kafka client's C code.

/// A worker allocates a dozen small strings for each record, on many threads; with the C library's allocator that took a fifth of
/// `dacapo up`'s time and a third of the projector's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
