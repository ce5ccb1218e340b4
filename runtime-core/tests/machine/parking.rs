//! A record that cannot be handled is parked, and only later records of the same entity wait behind it.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use runtime_core::{
    CrashCount, DropParked, MAX_CRASHES, ParkedRecord, ParkingCommand, ParkingLimits, ReceiveOutcome, RetryParked,
    envelope::Position, partition_of,
};

use crate::{
    fixture::{DEAD_LETTERS, EVENTS, Fixture, INBOX, NOW, PARKED, PARTITIONS, SOURCE, StoredRecord},
    probe::{Command, Count, PANICS_IN_EVOLVE, Probe, Replied},
};

const ORDER: &str = "order-1";

fn here() -> i32 {
    partition_of(ORDER.as_bytes(), PARTITIONS)
}

/// Another key of the same partition.
fn neighbour() -> String {
    (0..).map(|n| format!("k{n}")).find(|key| partition_of(key.as_bytes(), PARTITIONS) == here()).unwrap()
}

fn count(fixture: &mut Fixture, key: &str, amount: i64) -> (i32, i64) {
    fixture.write(INBOX, key, &Command::from(Count { amount }))
}

/// A command for the order that cannot be read.
fn garbage(fixture: &mut Fixture) -> Position {
    let value = Some(b"garbage".to_vec());
    let stored = StoredRecord { timestamp_ms: NOW, key: Some(ORDER.into()), value, headers: Vec::new() };
    Position::new(INBOX, here(), fixture.append(INBOX, here(), stored))
}

fn parked(fixture: &Fixture) -> Vec<ParkedRecord> {
    fixture.machine.tasks().flat_map(|task| task.parked().cloned()).collect()
}

fn places(fixture: &Fixture) -> Vec<String> {
    parked(fixture).iter().map(|parked| parked.position.to_string()).collect()
}

fn retry(fixture: &mut Fixture, position: &Position) {
    let command = RetryParked { position: position.to_string(), by: "ada".to_owned() };
    fixture.write(INBOX, ORDER, &ParkingCommand::from(command));
    fixture.settle();
}

fn drop_parked(fixture: &mut Fixture, position: &Position) {
    let command = DropParked { position: position.to_string(), by: "ada".to_owned(), reason: "a test".to_owned() };
    fixture.write(INBOX, ORDER, &ParkingCommand::from(command));
    fixture.settle();
}

/// Receives the record until it is done. Returns how many attempts that took.
fn receive_until_done(fixture: &mut Fixture, topic: &str, place: (i32, i64)) -> u32 {
    for tries in 1..=20 {
        match fixture.receive(topic, place) {
            ReceiveOutcome::Failed(_) => fixture.machine.resume(place.0),
            ReceiveOutcome::Done => return tries,
            other => panic!("{other:?}"),
        }
    }
    panic!("the record is never done")
}

#[test]
fn an_unreadable_record_is_parked_and_only_its_entity_waits() {
    let mut fixture = Fixture::new();
    count(&mut fixture, ORDER, 1);
    let bad = garbage(&mut fixture);
    let behind = count(&mut fixture, ORDER, 10);
    fixture.ping("elsewhere", ORDER, "count", 100);
    count(&mut fixture, &neighbour(), 7);
    fixture.settle();
    assert_eq!((fixture.state(ORDER).total, fixture.state(&neighbour()).total), (1, 7));
    let waiting = parked(&fixture);
    assert_eq!(waiting.len(), 3);
    let failure = waiting[0].failure.as_ref().unwrap();
    assert_eq!((&waiting[0].position, failure.class.as_str(), failure.attempts), (&bad, "framing", 1));
    assert_eq!(waiting[0].value.as_deref(), Some(&b"garbage"[..]));
    assert_eq!(waiting[1].position, Position::new(INBOX, behind.0, behind.1));
    assert!(waiting[1..].iter().all(|parked| parked.failure.is_none() && *parked.entity == *ORDER));
    assert!(fixture.records_on(DEAD_LETTERS).is_empty());
}

#[test]
fn the_records_behind_a_dropped_one_are_handled_in_their_order() {
    let mut fixture = Fixture::new();
    let bad = garbage(&mut fixture);
    for amount in 1..=3 {
        count(&mut fixture, ORDER, amount);
    }
    fixture.settle();
    drop_parked(&mut fixture, &bad);
    assert_eq!((fixture.state(ORDER).total, parked(&fixture).len()), (6, 0));
    let causes: Vec<String> =
        fixture.records_on(EVENTS).iter().map(|(_, _, event)| event.header("ce_causeposition").unwrap()).collect();
    assert_eq!(
        causes,
        [1, 2, 3].map(|offset| format!("{INBOX}/{}/{offset}", here())),
        "the cause is the position in the input"
    );
    let (_, _, gone) = fixture.records_on(PARKED).into_iter().find(|(_, _, stored)| stored.value.is_none()).unwrap();
    assert_eq!(gone.key, Some(bad.to_string().into_bytes()));
    assert_eq!(gone.header("musiccorp.parked.outcome").as_deref(), Some("dropped"));
    assert_eq!(gone.header("musiccorp.parked.words").as_deref(), Some("ada: a test"));
    count(&mut fixture, ORDER, 10);
    fixture.settle();
    assert_eq!(fixture.state(ORDER).total, 16);
}

#[test]
fn a_retry_that_fails_keeps_the_order_and_counts_the_attempts() {
    let mut fixture = Fixture::new();
    let bad = garbage(&mut fixture);
    count(&mut fixture, ORDER, 1);
    fixture.settle();
    let before = places(&fixture);
    retry(&mut fixture, &bad);
    retry(&mut fixture, &bad);
    assert_eq!(places(&fixture), before);
    assert_eq!(parked(&fixture)[0].failure.as_ref().unwrap().attempts, 3);
    assert_eq!(fixture.state(ORDER).total, 0);
}

#[test]
fn a_record_that_crashes_the_decider_five_times_is_parked_and_works_once_the_decider_is_fixed() {
    let mut fixture = Fixture::new();
    fixture.probe.fragile.store(true, Ordering::SeqCst);
    let bad = fixture.ping(ORDER, ORDER, "panic", 5);
    let tries = receive_until_done(&mut fixture, SOURCE, bad);
    assert_eq!(tries, MAX_CRASHES);
    fixture.commit();
    fixture.ping(ORDER, ORDER, "count", 1);
    fixture.settle();
    let failure = parked(&fixture)[0].failure.clone().unwrap();
    assert_eq!((failure.class.as_str(), failure.attempts), ("crash", MAX_CRASHES));
    assert!(failure.reason.contains("injected panic"), "{}", failure.reason);
    let place = Position::new(SOURCE, bad.0, bad.1);
    retry(&mut fixture, &place);
    assert_eq!((parked(&fixture).len(), fixture.state(ORDER).total), (2, 0));
    fixture.probe.fragile.store(false, Ordering::SeqCst);
    retry(&mut fixture, &place);
    assert_eq!((parked(&fixture).len(), fixture.state(ORDER).total), (0, 6));
}

#[test]
fn a_retry_over_which_evolve_panics_costs_no_state() {
    let mut fixture = Fixture::new();
    fixture.probe.fragile.store(true, Ordering::SeqCst);
    count(&mut fixture, ORDER, 3);
    fixture.settle();
    let bad = count(&mut fixture, ORDER, PANICS_IN_EVOLVE);
    let place = Position::new(INBOX, bad.0, bad.1);
    // Each time a state is lost the machine is dropped; the next one gets the crash counts.
    fixture.crashes = BTreeMap::from([(
        place.clone(),
        CrashCount { times: MAX_CRASHES, reason: "evolve panicked: over it".to_owned() },
    )]);
    fixture.recover_all(&[]);
    count(&mut fixture, ORDER, 4);
    fixture.settle();
    assert_eq!((parked(&fixture).len(), fixture.state(ORDER).total), (2, 3));
    retry(&mut fixture, &place);
    assert_eq!((parked(&fixture).len(), fixture.state(ORDER).total), (2, 3));
    fixture.probe.fragile.store(false, Ordering::SeqCst);
    retry(&mut fixture, &place);
    assert_eq!((parked(&fixture).len(), fixture.state(ORDER).total), (0, 7));
}

#[test]
fn the_next_owner_knows_what_is_parked() {
    let mut fixture = Fixture::new();
    let bad = garbage(&mut fixture);
    for amount in [1, 2] {
        count(&mut fixture, ORDER, amount);
    }
    fixture.settle();
    let before = parked(&fixture);
    // The group's offsets are lost as well: what is parked is not parked again.
    fixture.recover_all(&[]);
    assert_eq!(parked(&fixture), before);
    fixture.settle();
    assert_eq!(parked(&fixture), before);
    assert_eq!(fixture.records_on(PARKED).len(), before.len());
    count(&mut fixture, ORDER, 4);
    fixture.settle();
    drop_parked(&mut fixture, &bad);
    assert_eq!(fixture.state(ORDER).total, 7);
    fixture.recover_all(&[]);
    assert!(parked(&fixture).is_empty());
}

#[test]
fn more_parked_records_than_a_batch_holds_are_handled_in_their_order_before_newer_ones() {
    const MANY: i64 = 1_234;
    let mut fixture = Fixture::new();
    let bad = garbage(&mut fixture);
    for amount in 1..=MANY {
        count(&mut fixture, ORDER, amount);
    }
    fixture.settle();
    let command = DropParked { position: bad.to_string(), by: "ada".to_owned(), reason: "a test".to_owned() };
    let asked = fixture.write(INBOX, ORDER, &ParkingCommand::from(command));
    let newer = count(&mut fixture, ORDER, 1_000_000);
    assert_eq!(fixture.receive(INBOX, asked), ReceiveOutcome::Done);
    assert_eq!(fixture.receive(INBOX, newer), ReceiveOutcome::Done);
    fixture.commit();
    let left = parked(&fixture).len();
    assert!(left > 100 && left < 1_234, "{left} are left behind the first batch");
    // The next owner continues by itself.
    fixture.recover_all(&[]);
    fixture.settle();
    assert_eq!((parked(&fixture).len(), fixture.state(ORDER).total), (0, MANY * (MANY + 1) / 2 + 1_000_000));
    let causes: Vec<Position> = fixture
        .records_on(EVENTS)
        .iter()
        .map(|(_, _, event)| event.header("ce_causeposition").unwrap().parse().unwrap())
        .collect();
    assert!(causes.is_sorted(), "in the order in which they were received");
}

#[test]
fn no_effect_is_performed_for_an_entity_that_has_parked_records() {
    let mut fixture = Fixture::new();
    fixture.ping(ORDER, ORDER, "ask", 1);
    fixture.settle();
    let bad = garbage(&mut fixture);
    fixture.settle();
    assert!(fixture.machine.due_effects(10, NOW + 1_000_000).is_empty());
    fixture.recover_all(&[]);
    assert!(fixture.machine.due_effects(10, NOW + 1_000_000).is_empty());
    // An answer that arrives all the same waits, once.
    let answer = Command::from(Replied { request: format!("{ORDER}/1"), amount: 5 });
    let (partition, offset) = fixture.write(INBOX, ORDER, &answer);
    let again = fixture.log.records[&(INBOX.to_owned(), partition)][usize::try_from(offset).unwrap()].clone();
    fixture.append(INBOX, partition, again);
    fixture.settle();
    assert_eq!(parked(&fixture).len(), 2);
    drop_parked(&mut fixture, &bad);
    assert_eq!((fixture.state(ORDER).total, fixture.machine.pending_effects()), (5, 0));
    fixture.ping(ORDER, ORDER, "ask", 2);
    fixture.settle();
    assert_eq!(fixture.machine.due_effects(10, NOW + 1_000_000).len(), 1);
}

#[test]
fn a_full_parking_holds_its_partition_and_reports_it() {
    let mut fixture = Fixture::new();
    fixture.parking = ParkingLimits { records: 2, ..ParkingLimits::default() };
    fixture.recover_all(&[]);
    let bad = garbage(&mut fixture);
    count(&mut fixture, ORDER, 1);
    let over = count(&mut fixture, ORDER, 2);
    fixture.settle();
    let (_, hold) = fixture.machine.held().next().unwrap();
    assert_eq!(hold.position, Position::new(INBOX, over.0, over.1));
    assert!(hold.reason.contains("parking is full: 2 records"), "{}", hold.reason);
    // An operator raises the limit.
    fixture.parking = ParkingLimits::default();
    fixture.recover_all(&[]);
    fixture.settle();
    drop_parked(&mut fixture, &bad);
    assert_eq!(fixture.state(ORDER).total, 3);
}

#[test]
fn an_unreadable_record_whose_key_does_not_name_its_entity_is_dead_lettered() {
    for keyed_alike in [false, true] {
        let mut fixture = Fixture::of(Probe { keyed_alike, ..Probe::default() });
        fixture.recover_all(&[]);
        let stored =
            |key: &str| StoredRecord { timestamp_ms: NOW, key: Some(key.into()), value: None, headers: Vec::new() };
        fixture.append(SOURCE, here(), stored(ORDER));
        // Under a key of another partition, or none at all, its entity is unknown.
        fixture.append(SOURCE, (here() + 1) % PARTITIONS, stored(ORDER));
        fixture.append(SOURCE, here(), StoredRecord { key: None, ..stored(ORDER) });
        fixture.settle();
        let shown = (parked(&fixture).len(), fixture.records_on(DEAD_LETTERS).len());
        assert_eq!(shown, if keyed_alike { (1, 2) } else { (0, 3) });
    }
}

#[test]
fn a_dead_letter_is_written_once_although_the_group_has_lost_its_offsets() {
    let mut fixture = Fixture::new();
    let stored = |key| StoredRecord { timestamp_ms: NOW, key, value: Some(vec![1]), headers: Vec::new() };
    fixture.append(SOURCE, here(), stored(None));
    fixture.append(INBOX, here(), stored(Some(vec![0xff])));
    fixture.settle();
    // No event names a record that was parked and dropped either.
    let bad = garbage(&mut fixture);
    fixture.settle();
    drop_parked(&mut fixture, &bad);
    let before = (fixture.records_on(DEAD_LETTERS).len(), fixture.records_on(PARKED).len());
    assert_eq!((before, parked(&fixture).len()), ((2, 4), 0));
    fixture.recover_all(&[]);
    fixture.settle();
    assert_eq!((fixture.records_on(DEAD_LETTERS).len(), fixture.records_on(PARKED).len()), before);
    // The topic is compacted: the tombstones alone must do.
    let kept = fixture.log.records.get_mut(&(PARKED.to_owned(), here())).unwrap();
    kept.retain(|stored| stored.value.is_none());
    fixture.recover_all(&[]);
    fixture.settle();
    assert_eq!((fixture.records_on(DEAD_LETTERS).len(), fixture.records_on(PARKED).len()), (2, 3));
}

#[test]
fn a_command_for_a_record_that_is_not_parked_changes_nothing() {
    let mut fixture = Fixture::new();
    let bad = garbage(&mut fixture);
    let behind = count(&mut fixture, ORDER, 1);
    fixture.settle();
    let before = parked(&fixture);
    let behind = Position::new(INBOX, behind.0, behind.1);
    for place in [&behind, &Position::new(INBOX, here(), 99)] {
        retry(&mut fixture, place);
        assert_eq!(parked(&fixture), before);
    }
    // A record that waits behind another one may be dropped all the same.
    drop_parked(&mut fixture, &behind);
    assert_eq!(places(&fixture), [bad.to_string()]);
    drop_parked(&mut fixture, &bad);
    assert_eq!((parked(&fixture).len(), fixture.state(ORDER).total), (0, 0));
}

#[test]
fn a_foreign_record_on_the_parked_topic_stops_the_task() {
    let mut fixture = Fixture::new();
    let stored = StoredRecord { timestamp_ms: NOW, key: Some(b"x".to_vec()), value: None, headers: Vec::new() };
    fixture.append(PARKED, here(), stored);
    let refused = fixture.recovered(here()).err().unwrap().to_string();
    assert!(refused.contains("not a parked record: its key is not a position"), "{refused}");
}
