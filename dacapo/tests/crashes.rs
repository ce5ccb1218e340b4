//! The process is killed under load at random moments and restarted on the same data; then everything settles and the audit is clean.
//! Three kills on each broker; `DACAPO_KILLS=20` sets another number.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::{PATIENCE, Setup, exits_with_success, infrastructure};

#[test]
fn kills_at_random_moments_lose_nothing() {
    let kills: u32 = std::env::var("DACAPO_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3);
    let infrastructure = infrastructure();
    let setup = Setup::new(&infrastructure);
    let seed = std::process::id();
    let orders = (200 + 100 * kills).to_string();
    let args = [
        &["--orders", &orders, "--seed", "11", "--stub-latency-ms", "2", "--stub-failures", "5"][..],
        // Every outcome: cancelled concurrently, refused by the courier once, answered by the gateway too late or never.
        &["--cancelled", "10", "--delayed", "10", "--silent-charges", "5"],
        &["--charge-deadline-ms", "3000", "--courier-deadline-ms", "3000", "--dispatch-pause-ms", "100"],
    ]
    .concat();
    for kill in 0..kills {
        let system = setup.start(&args);
        let after = moment(seed, kill);
        std::thread::park_timeout(after);
        system.kill();
        eprintln!("{infrastructure:?}: kill {} came {} ms after it was up", kill + 1, after.as_millis());
    }
    let last = setup.up(&[&args[..], &["--until-settled"]].concat()).spawn().unwrap();
    let settled = exits_with_success(last, PATIENCE * 2);
    let log = setup.log();
    assert!(settled && log.contains("audit: clean"), "after {kills} kills on {infrastructure:?} (seed {seed}):\n{log}");
}

/// A delay between 50 ms and 2 s, drawn from a seed.
fn moment(seed: u32, kill: u32) -> Duration {
    let mut random = u64::from(seed) << 32 | u64::from(kill);
    random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_millis(50 + (random ^ (random >> 31)) % 1_950)
}
