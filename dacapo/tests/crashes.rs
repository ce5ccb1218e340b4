//! The process is killed under load at random moments and started again on the same data; everything settles and the books are
//! clean. Three kills on each broker; `DACAPO_KILLS=20` asks for more.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::{PATIENCE, Place, ground, wait_until_ended};

#[test]
fn killed_at_random_moments_nothing_is_lost() {
    let kills: u32 = std::env::var("DACAPO_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3);
    let ground = ground();
    let place = Place::new(&ground);
    let seed = std::process::id();
    let orders = (200 + 100 * kills).to_string();
    let args = [
        &["--orders", &orders, "--seed", "11", "--outside-latency-ms", "2", "--outside-failures", "5"][..],
        // Every way out: called off in a race, refused by the courier once, answered by the gateway too late or never.
        &["--cancelled", "10", "--delayed", "10", "--silent-charges", "5"],
        &["--charge-deadline-ms", "3000", "--courier-deadline-ms", "3000", "--dispatch-pause-ms", "100"],
    ]
    .concat();
    for kill in 0..kills {
        let system = place.start(&args);
        let after = moment(seed, kill);
        std::thread::park_timeout(after);
        system.kill();
        eprintln!("{ground:?}: kill {} came {} ms after it was up", kill + 1, after.as_millis());
    }
    let last = place.up(&[&args[..], &["--until-settled"]].concat()).spawn().unwrap();
    let settled = wait_until_ended(last, PATIENCE * 2);
    let log = place.log();
    assert!(settled && log.contains("audit: clean"), "after {kills} kills on {ground:?} (seed {seed}):\n{log}");
}

/// A moment between 50 ms and 2 s, drawn from a seed.
fn moment(seed: u32, kill: u32) -> Duration {
    let mut drawn = u64::from(seed) << 32 | u64::from(kill);
    drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_millis(50 + (drawn ^ (drawn >> 31)) % 1_950)
}
