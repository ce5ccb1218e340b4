//! The end of an input: the markers behind the last record are part of the committed position, so that an input that was consumed
//! to its end is never taken for a truncated one.

use std::{sync::atomic::Ordering, time::Duration};

use runtime_core::turn::Pace;

use crate::{
    ORDER,
    driver::Driver,
    here,
    log::{INBOX, SOURCE, key_in},
    ms,
    probe::{PANICS_IN_EVOLVE, Probe},
    unrelated,
};

/// How far the group has come in the order's partition of the source.
fn committed(driver: &Driver) -> Option<i64> {
    driver.offsets.get(&(here(), input_of(driver, SOURCE))).copied()
}

fn input_of(driver: &Driver, topic: &str) -> usize {
    driver.turn.contract().inputs.iter().position(|input| **input == *topic).unwrap()
}

/// Markers follow the last record of a topic in the order's partition, up to this end.
fn mark(driver: &mut Driver, topic: &str, end: i64) {
    driver.marked_ends.insert((topic.to_owned(), here()), end);
}

#[test]
fn the_position_behind_the_markers_of_an_input_is_committed_within_a_second_and_once() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "count", 1);
    driver.settle();
    assert_eq!(committed(&driver), Some(1));
    mark(&mut driver, SOURCE, 3);
    let commits = driver.commits.len();
    driver.run_for(ms(900));
    assert_eq!(driver.commits.len(), commits, "a commit of its own can wait");
    driver.run_for(ms(300));
    assert_eq!((committed(&driver), driver.commits.len()), (Some(3), commits + 1));
    assert_eq!(driver.commits[commits].outputs, 0);
    driver.run_for(ms(10_000));
    assert_eq!(driver.commits.len(), commits + 1, "nothing has moved since");
}

#[test]
fn a_commit_of_decisions_has_the_ends_that_were_reached_before() {
    let mut driver = Driver::owner();
    mark(&mut driver, INBOX, 7);
    driver.turn();
    driver.ping(ORDER, "count", 1);
    driver.turn();
    assert_eq!(driver.commits.len(), 1);
    assert_eq!(driver.offsets[&(here(), input_of(&driver, INBOX))], 7);
    driver.run_for(ms(3_000));
    assert_eq!(driver.commits.len(), 1);
}

#[test]
fn an_inbox_whose_end_moves_with_each_own_transaction_costs_one_commit_more() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "pass-on", 1);
    driver.settle();
    // The transaction with the command put a marker behind it. Commits of positions write no marker into an input.
    let friend = format!("{ORDER}-friend");
    let partition = runtime_core::partition_of(friend.as_bytes(), crate::PARTITIONS);
    driver.marked_ends.insert((INBOX.to_owned(), partition), driver.log.end(INBOX, partition) + 1);
    let commits = driver.commits.len();
    driver.run_for(ms(60_000));
    assert_eq!(driver.commits.len(), commits + 1);
}

#[test]
fn a_held_partition_moves_no_further_than_the_record_before_which_it_is_held() {
    let mut driver = Driver::owner();
    driver.probe.fragile.store(true, Ordering::SeqCst);
    driver.ping(ORDER, "count", 1);
    driver.settle();
    let (_, held_at) = driver.ping(ORDER, "panic", 1);
    driver.ping(ORDER, "count", 10);
    mark(&mut driver, SOURCE, 9);
    driver.run_for(ms(3_000));
    assert!(driver.turn.hold_reason(here()).is_some());
    assert_eq!(committed(&driver), Some(held_at), "the records behind it were delivered and not taken");
    driver.probe.fragile.store(false, Ordering::SeqCst);
    driver.run_for(ms(12_000));
    assert_eq!((driver.state(ORDER).total, committed(&driver)), (12, Some(9)));
}

#[test]
fn a_record_that_waits_for_a_batch_of_its_own_is_not_passed_by_the_end_behind_it() {
    let mut driver = Driver::owner();
    driver.probe.fragile.store(true, Ordering::SeqCst);
    driver.ping(ORDER, "count", 1);
    driver.settle();
    let (_, lost_at) = driver.ping(ORDER, "count", PANICS_IN_EVOLVE);
    mark(&mut driver, SOURCE, lost_at + 4);
    assert!(driver.try_turn().is_err());
    driver.restart();
    let until = driver.elapsed + Duration::from_secs(2);
    while driver.elapsed < until {
        let crashed = driver.try_turn().is_err();
        assert_eq!(committed(&driver), Some(lost_at), "it is not done with");
        if crashed {
            driver.restart();
        }
    }
}

#[test]
fn a_worker_that_stops_commits_the_ends_it_has_reached() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "count", 1);
    driver.settle();
    mark(&mut driver, SOURCE, 5);
    driver.turn();
    driver.turn.stop();
    let steps = driver.turn();
    let expected = ["snapshot fence", "ask positions", "commit in generation 1", "checkpoint", "stop"];
    assert_eq!(steps, expected);
    assert_eq!(committed(&driver), Some(5));
}

#[test]
fn a_worker_that_stops_behind_its_last_decision_asks_how_far_its_client_has_come() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "count", 1);
    driver.turn();
    assert_eq!(committed(&driver), Some(1));
    // The client has passed the marker, and has not reported the end yet.
    driver.pass(SOURCE, here(), 2);
    driver.turn.stop();
    driver.turn();
    assert_eq!(committed(&driver), Some(2));
}

#[test]
fn a_worker_that_stops_outside_its_group_commits_nothing() {
    let mut driver = Driver::owner();
    mark(&mut driver, SOURCE, 5);
    driver.turn();
    driver.generation = None;
    driver.turn.stop();
    assert_eq!(driver.turn(), ["snapshot fence", "ask positions", "checkpoint", "stop"]);
    assert_eq!(committed(&driver), Some(0));
}

#[test]
fn a_revocation_commits_the_ends_only_with_the_fence_of_their_generation() {
    let mut driver = Driver::owner();
    mark(&mut driver, SOURCE, 5);
    driver.turn();
    driver.revoke();
    driver.run_for(ms(3_000));
    assert_eq!(committed(&driver), Some(0), "its next owner reaches the end again");
    unrelated(&mut driver);
    driver.assign();
    driver.settle();
    assert!(driver.commits.iter().all(|commit| commit.generation == 2), "{:?}", driver.commits);
}

#[test]
fn positions_of_which_the_group_has_none_are_committed_after_a_recovery() {
    let mut driver = Driver::with(Pace::default(), Probe::default()).owning();
    driver.ping(ORDER, "count", 1);
    driver.ping(&key_in((here() + 1) % crate::PARTITIONS), "count", 1);
    driver.settle();
    driver.offsets.clear();
    driver.restart();
    driver.run_for(ms(1_500));
    assert_eq!(committed(&driver), Some(1), "recovered from the own log, and committed again");
}

#[test]
fn a_checkpoint_has_the_position_of_an_input_that_led_to_no_event() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "count", 1);
    driver.settle();
    let now = driver.now();
    assert_eq!(driver.turn.checkpoint(now).len(), 1);
    assert!(driver.turn.checkpoint(now).is_empty(), "nothing has changed");
    unrelated(&mut driver);
    mark(&mut driver, SOURCE, 5);
    driver.run_for(ms(1_500));
    let saved = driver.turn.checkpoint(driver.now());
    assert_eq!(saved.len(), 1);
    assert!(saved[0].entities.is_empty());
    let position = saved[0].positions.iter().find(|(topic, _)| **topic == *SOURCE);
    assert_eq!(position.map(|(_, next)| *next), Some(5), "it shows what was consumed if the group loses its offsets");
}
