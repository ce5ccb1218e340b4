//! Chaos in small, and the zombie: on the embedded broker, or on the one that the environment names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod short;
mod zombie;

use std::path::{Path, PathBuf};

/// Broker and registry that are there already, if the environment names them.
fn named() -> Option<(String, String)> {
    Some((std::env::var("DACAPO_TEST_KAFKA").ok()?, std::env::var("DACAPO_TEST_REGISTRY").ok()?))
}

/// The executable that plays every process.
fn executable() -> PathBuf {
    env!("CARGO_BIN_EXE_chaos").into()
}

/// A name that no other test on a shared cluster has.
fn system(folder: &Path) -> String {
    let unique = folder.file_name().unwrap().to_string_lossy().to_lowercase();
    let unique: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("chaos{}{unique}", std::process::id())
}
