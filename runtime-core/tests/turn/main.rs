//! The turn of a worker, executed by a driver in memory: which steps it asks for, in which order, and when.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;
mod ends;
mod holds;
#[path = "../log/mod.rs"]
mod log;
mod needs;
#[path = "../probe/mod.rs"]
mod probe;

use std::time::Duration;

use driver::Driver;
use log::{EVENTS, INBOX, NOW, PARTITIONS, SOURCE};
use probe::{Probe, Source, Unrelated};
use runtime_core::{
    partition_of,
    turn::{Pace, Step, TurnError},
};

const ORDER: &str = "order-1";

fn here() -> i32 {
    partition_of(ORDER.as_bytes(), PARTITIONS)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An event that the probe does not consume: only its position is committed.
fn unrelated(driver: &mut Driver) {
    driver.log.write(SOURCE, ORDER, &Source::from(Unrelated { text: "x".to_owned() }));
}

#[test]
fn an_assignment_is_accepted_then_recovered_and_only_then_read() {
    let mut driver = Driver::new();
    driver.ping(ORDER, "count", 1);
    driver.assign();
    let steps = driver.turn();
    let expected = [
        "snapshot fence",
        "gather",
        "take change",
        "accept assignment",
        "recover",
        "take change",
        "take recovered",
        "resume [0, 1, 2, 3]",
        "end turn",
    ];
    assert_eq!(steps, expected);
    assert!(driver.commits.is_empty());
    driver.settle();
    assert_eq!(driver.state(ORDER).total, 1);
}

#[test]
fn one_turn_gathers_commits_takes_changes_and_performs_in_this_order() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "ask", 7);
    let steps = driver.turn();
    let expected =
        ["snapshot fence", "gather", "fetch schema", "commit in generation 1", "take change", "perform", "end turn"];
    assert_eq!(steps, expected);
    driver.ping(ORDER, "count", 1);
    let steps = driver.turn();
    let expected = ["snapshot fence", "gather", "commit in generation 1", "take change", "take reports", "end turn"];
    assert_eq!(steps, expected, "reports are looked for while effects are under way");
}

#[test]
fn a_batch_ends_at_its_limit_of_inputs() {
    let pace = Pace { batch_inputs: 10, ..Pace::default() };
    let mut driver = Driver::with(pace, Probe::default()).owning();
    for amount in 1..=25 {
        driver.ping(ORDER, "count", amount);
    }
    driver.settle();
    let inputs: Vec<usize> = driver.commits.iter().map(|commit| commit.inputs).collect();
    assert_eq!(inputs, [10, 10, 5]);
    assert_eq!(driver.state(ORDER).total, 325);
}

#[test]
fn a_batch_ends_at_its_limit_of_bytes() {
    let pace = Pace { batch_bytes: 100, ..Pace::default() };
    let mut driver = Driver::with(pace, Probe::default()).owning();
    for amount in 1..=25 {
        driver.ping(ORDER, "count", amount);
    }
    driver.settle();
    let largest = driver.commits.iter().map(|commit| commit.bytes / commit.outputs).max().unwrap();
    for commit in &driver.commits {
        assert!(commit.bytes < 100 + largest, "it ends with the record that reaches the limit: {commit:?}");
        assert!(commit.bytes >= 100 || commit.inputs == 25 % driver.commits[0].inputs, "{commit:?}");
    }
    assert!(driver.commits.len() > 3, "{:?}", driver.commits);
}

#[test]
fn a_large_batch_is_followed_by_a_rest_and_a_small_one_is_not() {
    let mut driver = Driver::owner();
    let gathered_in = |driver: &mut Driver, records: i64| {
        for n in 0..records {
            driver.ping(ORDER, "count", n);
        }
        driver.turn();
        let before = driver.elapsed;
        driver.ping(ORDER, "count", 1);
        driver.turn();
        driver.elapsed - before
    };
    assert_eq!(gathered_in(&mut driver, 3), ms(0));
    assert_eq!(gathered_in(&mut driver, 100), ms(5));
}

#[test]
fn positions_alone_are_committed_after_200_ms_and_decisions_at_once() {
    let mut driver = Driver::owner();
    unrelated(&mut driver);
    driver.turn();
    let began = driver.elapsed;
    assert_eq!((driver.turn.batch().inputs(), driver.commits.len()), (1, 0));
    driver.run_for(ms(50));
    unrelated(&mut driver);
    driver.turn();
    assert!(driver.commits.is_empty(), "after {:?}", driver.elapsed - began);
    assert!(!driver.executed("snapshot fence"), "an open batch keeps the fence of its beginning");
    driver.run_for(ms(50));
    let [commit] = &driver.commits[..] else { panic!("{:?}", driver.commits) };
    assert_eq!((commit.inputs, commit.outputs, commit.at - began), (2, 0, ms(200)));
    unrelated(&mut driver);
    driver.turn();
    driver.ping(ORDER, "count", 1);
    driver.turn();
    assert_eq!(driver.commits.len(), 2, "a decision takes the positions along");
    assert_eq!((driver.commits[1].inputs, driver.commits[1].at), (2, driver.elapsed));
}

#[test]
fn a_change_of_the_group_first_commits_the_open_batch_under_the_fence_of_its_beginning() {
    let mut driver = Driver::owner();
    unrelated(&mut driver);
    driver.turn();
    driver.revoke();
    driver.assign();
    let steps = driver.turn();
    let expected = [
        "gather",
        "commit in generation 1",
        "take change",
        "give back",
        "checkpoint",
        "release",
        "take change",
        "accept assignment",
        "recover",
        "take change",
        "take recovered",
        "resume [0, 1, 2, 3]",
        "end turn",
    ];
    assert_eq!(steps, expected);
    driver.ping(ORDER, "count", 1);
    driver.settle();
    assert_eq!(driver.commits[1].generation, 2);
}

#[test]
fn a_change_that_comes_after_the_gathering_finds_the_batch_committed_as_well() {
    let mut driver = Driver::owner();
    unrelated(&mut driver);
    driver.turn();
    // The gathering ends without a change; the change is there when it is looked for.
    assert_eq!(driver.turn.batch().inputs(), 1);
    driver.turn.revoked();
    let steps = driver.turn();
    let expected = ["commit in generation 1", "give back", "checkpoint", "release", "take change", "end turn"];
    assert_eq!(steps, expected);
    assert_eq!(driver.turn.machine().tasks().count(), 0);
}

#[test]
fn after_a_revocation_nothing_is_received_or_performed_until_the_next_assignment() {
    let mut driver = Driver::owner();
    driver.revoke();
    driver.turn();
    driver.ping(ORDER, "ask", 1);
    driver.run_for(ms(500));
    assert!(driver.commits.is_empty() && driver.performed.is_empty());
    assert_eq!(driver.turn.assignment().count(), 0);
    driver.assign();
    driver.settle();
    assert_eq!((driver.commits.len(), driver.performed.len()), (1, 1));
}

#[test]
fn a_batch_of_a_worker_that_is_in_no_group_is_not_committed() {
    let mut driver = Driver::owner();
    driver.generation = None;
    driver.ping(ORDER, "count", 1);
    assert_eq!(driver.try_turn(), Err(TurnError::NoMembership));
    assert!(driver.commits.is_empty());
}

#[test]
fn every_position_is_committed_again_after_half_an_hour() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "count", 1);
    driver.settle();
    driver.elapsed += Duration::from_secs(29 * 60);
    driver.run_for(ms(1_000));
    assert_eq!(driver.commits.len(), 1, "nothing has moved");
    driver.elapsed += Duration::from_secs(60);
    driver.run_for(ms(1_000));
    let [_, again] = &driver.commits[..] else { panic!("{:?}", driver.commits) };
    assert_eq!((again.inputs, again.outputs), (0, 0));
    let inputs = driver.turn.contract().inputs.len();
    assert_eq!(again.positions.len(), inputs * usize::try_from(PARTITIONS).unwrap());
    let source = driver.turn.contract().inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
    assert!(again.positions.contains(&(source, here(), 1)), "{:?}", again.positions);
}

#[test]
fn positions_that_are_due_in_the_turn_of_a_rebalance_are_committed_in_the_new_generation() {
    let mut driver = Driver::owner();
    assert!(matches!(driver.turn.next(driver.now()), Step::SnapshotFence));
    driver.turn.fence(Some(1));
    driver.elapsed += Duration::from_secs(31 * 60);
    driver.revoke();
    driver.assign();
    driver.turn();
    assert!(driver.executed("take recovered") && driver.commits.is_empty());
    driver.run_for(ms(1_000));
    let [again] = &driver.commits[..] else { panic!("{:?}", driver.commits) };
    assert_eq!((again.generation, again.inputs), (2, 0));
}

#[test]
fn effects_are_performed_between_batches_only() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "ask", 1);
    driver.turn();
    let due = driver.performed.pop().unwrap();
    let at = driver.turn.machine().next_due();
    driver.turn.effect_unanswered(due.partition, &due.effect_key, None, driver.now(), 0);
    assert_eq!(at, None, "it is under way");
    driver.elapsed += ms(199);
    unrelated(&mut driver);
    driver.turn();
    driver.run_for(ms(150));
    assert!(
        !driver.turn.batch().is_empty() && driver.performed.is_empty(),
        "a batch is open, though the effect is due"
    );
    driver.run_for(ms(100));
    assert_eq!((driver.commits.len(), driver.performed.len()), (2, 1));
    assert_eq!(driver.performed[0].due.attempt, 1);
}

#[test]
fn no_more_effects_are_under_way_than_the_limit_allows() {
    let mut driver = Driver::owner();
    for n in 0..300 {
        driver.ping(&format!("order-{n}"), "ask", n);
    }
    driver.run_for(ms(1_000));
    assert_eq!((driver.performed.len(), driver.turn.machine().in_flight()), (256, 256));
    assert_eq!(driver.turn.machine().pending_effects(), 300);
    for due in driver.performed.drain(..100).collect::<Vec<_>>() {
        driver.answer(due);
    }
    driver.run_for(ms(100));
    assert_eq!((driver.performed.len(), driver.turn.machine().in_flight()), (200, 200), "156 and the last 44");
}

#[test]
fn a_stop_commits_the_open_batch_saves_a_checkpoint_and_then_stops() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "count", 1);
    driver.turn();
    unrelated(&mut driver);
    driver.turn();
    driver.turn.stop();
    let steps = driver.turn();
    assert_eq!(steps, ["ask positions", "commit in generation 1", "checkpoint", "stop"]);
    assert_eq!(driver.evict_all(), 1, "everything is saved");
}

#[test]
fn a_stop_in_the_middle_of_a_turn_commits_what_was_gathered() {
    let mut driver = Driver::owner();
    unrelated(&mut driver);
    driver.turn.stop();
    let mut steps = driver.turn();
    assert_eq!(steps, ["snapshot fence", "ask positions", "checkpoint", "stop"], "nothing was gathered");
    driver = Driver::owner();
    driver.turn();
    unrelated(&mut driver);
    driver.turn.next(driver.now());
    driver.turn.stop();
    steps = driver.turn();
    assert_eq!(steps.last().map(String::as_str), Some("end turn"));
    steps = driver.turn();
    assert_eq!(steps, ["snapshot fence", "ask positions", "checkpoint", "stop"]);
}

#[test]
fn checkpoints_are_saved_every_five_seconds() {
    let mut driver = Driver::owner();
    driver.run_for(ms(11_000));
    let times = driver.times_of("checkpoint");
    assert_eq!(times.len(), 2, "{times:?}");
    assert!(times[1] - times[0] >= ms(5_000) && times[1] - times[0] < ms(5_200), "{times:?}");
}

#[test]
fn a_timer_asks_for_the_ends_before_the_positions_and_fires_once_they_are_reached() {
    let mut driver = Driver::owner();
    let due_at = driver.now().wall_ms + 1_000;
    driver.ping(ORDER, "wake", due_at);
    driver.settle();
    assert!(driver.times_of("ask ends").is_empty());
    driver.elapsed += ms(1_000);
    let steps = driver.turn();
    let expected =
        ["snapshot fence", "gather", "ask ends", "ask positions", "commit in generation 1", "take change", "end turn"];
    assert_eq!(steps, expected);
    assert_eq!(driver.log.records_on(INBOX).len(), 1);
    driver.settle();
    assert_eq!(driver.state(ORDER).woken, 1);
    driver.run_for(ms(1_000));
    assert_eq!((driver.times_of("ask ends").len(), driver.state(ORDER).woken), (1, 1), "it fires once");
}

#[test]
fn a_timer_waits_for_the_records_that_were_there_first() {
    let pace = Pace { batch_inputs: 1, ..Pace::default() };
    let mut driver = Driver::with(pace, Probe::default()).owning();
    let due_at = driver.now().wall_ms + 1_000;
    driver.ping(ORDER, "wake", due_at);
    driver.settle();
    for _ in 0..3 {
        driver.ping(ORDER, "count", 1);
    }
    driver.elapsed += ms(1_000);
    driver.settle();
    let own: Vec<Option<String>> =
        driver.log.records_on(EVENTS).iter().map(|(_, _, event)| event.header("ce_type")).collect();
    let names = own.into_iter().map(|name| name.unwrap().rsplit('.').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names, ["Scheduled", "Counted", "Counted", "Counted", "Woken"]);
}

#[test]
fn the_ends_are_not_asked_for_in_every_turn_when_they_are_unknown() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "wake", NOW);
    driver.turn();
    let mut asked = 0;
    for _ in 0..10 {
        // The question stays without an answer.
        loop {
            match driver.turn.next(driver.now()) {
                Step::FetchEnds { .. } => asked += 1,
                Step::EndTurn => break,
                Step::SnapshotFence => driver.turn.fence(Some(1)),
                _ => {}
            }
        }
        driver.elapsed += ms(5);
    }
    assert_eq!(asked, 3, "in 50 ms, every 20 ms");
}
