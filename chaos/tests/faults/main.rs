//! A few faults, and a zombie: on the embedded broker, or on the broker that the environment names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod no_brokers;
mod short;
mod zombie;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(90);
/// The interval between two checks of an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The external broker and registry, if the environment names them.
fn external() -> Option<(String, String)> {
    Some((std::env::var("DACAPO_TEST_KAFKA").ok()?, std::env::var("DACAPO_TEST_REGISTRY").ok()?))
}

/// Waits for a condition.
async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The executable that runs as every process.
fn executable() -> PathBuf {
    env!("CARGO_BIN_EXE_chaos").into()
}

/// A system name that is unique on a shared cluster.
fn system(folder: &Path) -> String {
    let unique = folder.file_name().unwrap().to_string_lossy().to_lowercase();
    let unique: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("chaos{}{unique}", std::process::id())
}
