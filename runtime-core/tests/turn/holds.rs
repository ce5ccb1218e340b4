//! Partitions that wait before a record, and records that cost a state.

use std::{sync::atomic::Ordering, time::Duration};

use runtime_core::{envelope::Position, turn::TurnError};

use crate::{
    ORDER,
    driver::Driver,
    here,
    log::{EVENTS, INBOX, PARKED, PARTITIONS, SOURCE, UNAVAILABLE_SCHEMA, key_in},
    ms,
    probe::{PANICS_IN_EVOLVE, PANICS_IN_PENDING},
};

/// A worker whose decider panics on the inputs that ask for it.
fn fragile() -> Driver {
    let driver = Driver::owner();
    driver.probe.fragile.store(true, Ordering::SeqCst);
    driver
}

/// How long each hold of the order's partition lasted.
fn rests(driver: &Driver) -> Vec<Duration> {
    let pauses = driver.times_of(&format!("pause {}", here()));
    let resumes = driver.times_of(&format!("resume [{}]", here()));
    pauses.iter().zip(&resumes).map(|(pause, resume)| *resume - *pause).collect()
}

/// Asserts that each rest is at least this long, and longer by no more than a wait for input.
fn assert_rests(found: &[Duration], expected: &[u64]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(*found >= ms(*expected) && *found < ms(*expected + 150), "{found:?} instead of {expected} ms");
    }
}

fn elsewhere() -> String {
    key_in((here() + 1) % PARTITIONS)
}

#[test]
fn a_held_partition_rests_twice_as_long_each_time_and_is_parked_at_the_fifth_crash() {
    let mut driver = fragile();
    let (partition, offset) = driver.ping(ORDER, "panic", 1);
    driver.ping(ORDER, "count", 10);
    let neighbour = elsewhere();
    driver.ping(&neighbour, "count", 100);
    driver.turn();
    assert!(driver.executed(&format!("pause {partition}")));
    let reason = driver.turn.hold_reason(partition).unwrap();
    assert_eq!(reason.position, Position::new(SOURCE, partition, offset));
    assert!(reason.reason.contains("injected panic in decide"), "{}", reason.reason);
    assert!(!driver.turn.consuming().contains(&partition));
    driver.settle();
    assert_eq!((driver.state(&neighbour).total, driver.state(ORDER).total), (100, 0), "only its partition waits");
    driver.run_for(ms(10_000));
    assert_rests(&rests(&driver), &[500, 1_000, 2_000, 4_000]);
    assert_eq!(driver.log.records_on(PARKED).len(), 2, "the record, and the one that waits behind it");
    assert!(driver.turn.hold_reason(partition).is_none());
    assert_eq!(driver.times_of(&format!("well {partition}")).len(), 1);
}

#[test]
fn a_partition_is_well_a_second_after_its_rest_and_its_next_rest_is_short_again() {
    let mut driver = fragile();
    let (partition, _) = driver.ping(ORDER, "panic", 1);
    driver.run_for(ms(1_000));
    driver.probe.fragile.store(false, Ordering::SeqCst);
    driver.run_for(ms(3_000));
    assert_rests(&rests(&driver), &[500, 1_000]);
    assert_eq!(driver.state(ORDER).total, 1);
    let well = driver.times_of(&format!("well {partition}"));
    let resumed = driver.times_of(&format!("resume [{partition}]"))[1];
    assert!(well[0] - resumed >= ms(900) && well[0] - resumed < ms(1_250), "{:?}", well[0] - resumed);
    driver.probe.fragile.store(true, Ordering::SeqCst);
    driver.ping(ORDER, "panic", 1);
    driver.run_for(ms(800));
    assert_rests(&rests(&driver), &[500, 1_000, 500]);
}

#[test]
fn a_schema_that_cannot_be_fetched_holds_its_partition_for_at_most_five_seconds_at_a_time() {
    let mut driver = Driver::owner();
    let (partition, _) = driver.write_with_schema(UNAVAILABLE_SCHEMA, ORDER);
    driver.run_for(ms(130_000));
    let rests = rests(&driver);
    assert_rests(&rests[..8], &[500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 5_000]);
    assert!(driver.log.records_on(PARKED).is_empty() && driver.commits.is_empty(), "nothing is given up");
    assert!(driver.turn.hold_reason(partition).unwrap().reason.contains("the registry is down"));
    assert!(driver.times_of(&format!("well {partition}")).is_empty());
}

#[test]
fn a_revocation_ends_every_hold() {
    let mut driver = fragile();
    let (partition, _) = driver.ping(ORDER, "panic", 1);
    driver.turn();
    driver.revoke();
    driver.turn();
    driver.probe.fragile.store(false, Ordering::SeqCst);
    driver.assign();
    driver.settle();
    assert_eq!(driver.state(ORDER).total, 1);
    driver.run_for(ms(3_000));
    assert!(driver.times_of(&format!("resume [{partition}]")).is_empty());
}

#[test]
fn a_record_that_cost_a_state_rests_is_then_tried_alone_and_is_parked_after_five_crashes() {
    for (mode, amount, reason) in [
        ("count", PANICS_IN_EVOLVE, "injected panic in evolve"),
        ("ask", PANICS_IN_PENDING, "injected panic in pending"),
    ] {
        let mut driver = fragile();
        driver.ping(ORDER, "count", 1);
        driver.settle();
        let (partition, offset) = driver.ping(ORDER, mode, amount);
        let place = Position::new(SOURCE, partition, offset);
        driver.ping(ORDER, "count", 10);
        for crashes in 1..=5 {
            assert_state_is_lost(&mut driver, &place, reason);
            assert_eq!(driver.carried.crashes[&place].times, crashes);
            driver.restart();
            // Another entity is decided meanwhile.
            driver.ping(&elsewhere(), "count", 1);
            if crashes < 5 {
                driver.turn();
                let held = driver.turn.hold_reason(partition).unwrap().reason.clone();
                assert!(held.contains(reason) && held.contains(&format!("{crashes} times")), "{held}");
            }
        }
        driver.settle();
        assert_eq!((driver.state(&elsewhere()).total, driver.state(ORDER).total), (5, 1));
        assert_eq!(driver.log.records_on(PARKED).len(), 2, "the record, and the one that waits behind it");
        assert_rests(&rests(&driver), &[500; 4]);
    }
}

/// Executes turns until the record has cost a state. Nothing of its batch is committed.
fn assert_state_is_lost(driver: &mut Driver, place: &Position, reason: &str) {
    for _ in 0..100 {
        let commits = driver.commits.len();
        match driver.try_turn() {
            Ok(_) => {}
            Err(TurnError::StateLost { position: lost, reason: why }) => {
                assert_eq!(lost, *place);
                assert!(why.contains(reason), "{why}");
                assert!(driver.commits.len() == commits || driver.executed(&keep(place)), "nothing of it is committed");
                return;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("no state was lost");
}

fn keep(place: &Position) -> String {
    format!("keep {place}")
}

#[test]
fn the_open_batch_is_committed_before_a_record_that_cost_a_state_is_tried() {
    let mut driver = fragile();
    let (partition, offset) = driver.ping(ORDER, "count", PANICS_IN_EVOLVE);
    let place = Position::new(SOURCE, partition, offset);
    assert_state_is_lost(&mut driver, &place, "evolve");
    driver.restart();
    driver.turn();
    driver.probe.fragile.store(false, Ordering::SeqCst);
    driver.elapsed += ms(500);
    driver.turn();
    assert!(driver.executed(&format!("resume [{partition}]")));
    // The partitions below are read first.
    assert!(partition > 0);
    let first = key_in(0);
    driver.ping(&first, "count", 7);
    let before = driver.commits.len();
    driver.settle();
    let inputs: Vec<usize> = driver.commits[before..].iter().map(|commit| commit.inputs).collect();
    assert_eq!((inputs, driver.times_of(&keep(&place)).len()), (vec![1, 1], 1));
    assert_eq!(driver.state(&first).total, 7);
    assert_eq!(driver.log.records_on(EVENTS).len(), 2);
}

#[test]
fn a_timer_waits_for_the_record_that_is_kept_until_the_open_batch_is_committed() {
    let mut driver = fragile();
    driver.ping(ORDER, "wake", driver.now().wall_ms + 5_000);
    driver.turn();
    let (partition, offset) = driver.ping(ORDER, "count", PANICS_IN_EVOLVE);
    let place = Position::new(SOURCE, partition, offset);
    assert_state_is_lost(&mut driver, &place, "evolve");
    driver.restart();
    driver.turn();
    driver.probe.fragile.store(false, Ordering::SeqCst);
    driver.elapsed += ms(500);
    driver.turn();
    assert!(driver.executed(&format!("resume [{partition}]")));
    driver.elapsed += ms(5_000);
    // Partition 0 is read first.
    driver.ping(&key_in(0), "count", 1);
    let steps = driver.turn();
    assert!(steps.contains(&keep(&place)), "{steps:?}");
    assert!(
        !steps.iter().any(|step| step == "ask positions"),
        "the client has delivered a record without a decision: {steps:?}"
    );
    assert!(driver.log.records_on(INBOX).is_empty(), "the timer overtakes nothing");
    driver.run_for(ms(2_000));
    assert_eq!(driver.state(ORDER).woken, 1);
}
