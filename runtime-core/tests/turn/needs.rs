//! What a turn asks for before it can decide: schemas, and entities that were evicted from memory.

use runtime_core::{
    DropParked, Limits, MAX_CRASHES, ParkingCommand, RetryParked, envelope::Position, partition_of, turn::Pace,
};

use crate::{
    ORDER,
    driver::Driver,
    here,
    log::{EVENTS, INBOX, NOW, PARKED, PARTITIONS, SOURCE, StoredRecord, UNAVAILABLE_SCHEMA},
    ms,
    probe::{Command, Count, Probe},
};

/// How many parked records one batch takes.
const DRAINED: i64 = 500;

fn count(driver: &mut Driver, amount: i64) {
    driver.log.write(INBOX, ORDER, &Command::from(Count { amount }));
}

/// A command for the order that cannot be read.
fn unreadable(driver: &mut Driver) -> Position {
    let value = Some(b"garbage".to_vec());
    let record = StoredRecord { timestamp_ms: NOW, key: Some(ORDER.into()), value, headers: Vec::new() };
    Position::new(INBOX, here(), driver.log.append(INBOX, here(), record))
}

fn drop_parked(driver: &mut Driver, position: &Position) {
    let command = DropParked { position: position.to_string(), by: "ada".to_owned(), reason: "a test".to_owned() };
    driver.log.write(INBOX, ORDER, &ParkingCommand::from(command));
}

/// Another key of the order's partition.
fn neighbour() -> String {
    (0..).map(|n| format!("n{n}")).find(|key| partition_of(key.as_bytes(), PARTITIONS) == here()).unwrap()
}

fn parked(driver: &Driver) -> usize {
    driver.turn.machine().tasks().map(|task| task.parked().count()).sum()
}

#[test]
fn each_schema_is_fetched_once() {
    let mut driver = Driver::owner();
    for n in 0..10 {
        driver.ping(ORDER, "count", n);
        count(&mut driver, n);
    }
    driver.settle();
    assert_eq!(driver.times_of("fetch schema").len(), 2);
    assert_eq!(driver.state(ORDER).total, 90);
}

#[test]
fn a_schema_that_parked_records_need_is_fetched_before_they_are_handled() {
    let mut driver = Driver::owner();
    let bad = unreadable(&mut driver);
    (0..DRAINED + 100).for_each(|_| count(&mut driver, 1));
    driver.settle();
    assert_eq!(parked(&driver), 601);
    drop_parked(&mut driver, &bad);
    driver.turn();
    assert_eq!(parked(&driver), 100, "one batch takes no more");
    // The next owner knows no schema.
    driver.restart();
    let steps = driver.turn();
    assert_eq!(steps[..3], ["snapshot fence", "fetch schema", "gather"]);
    driver.settle();
    assert_eq!((parked(&driver), driver.state(ORDER).total), (0, 600));
}

/// Writes the same records for every driver: each entity is decided about again and again, in random order.
fn write_many(driver: &mut Driver) {
    for n in 0_i64..120 {
        let key = format!("order-{}", n % 7);
        let mode = ["count", "ask", "pass-on", "wake"][usize::try_from((n / 3) % 4).unwrap()];
        driver.log.ping(&key, &format!("order-{}", (n * 5) % 11), mode, n);
    }
}

#[test]
fn an_evicted_entity_is_loaded_before_it_is_decided_about_and_nothing_differs() {
    let run = |evicts: bool| {
        let pace = Pace { batch_inputs: 3, checkpoint_every: ms(0), ..Pace::default() };
        let mut driver = Driver::with(pace, Probe::default()).owning();
        driver.evicts = evicts;
        write_many(&mut driver);
        driver.run_for(ms(2_000));
        driver
    };
    let (kept, evicted) = (run(false), run(true));
    let loads = evicted.history.iter().filter(|(_, step)| step.starts_with("load ")).count();
    assert!(loads > 5, "{loads} loads");
    let written = |driver: &Driver| {
        let events = driver.log.records_on(EVENTS).into_iter();
        events.map(|(p, o, event)| (p, o, event.value.clone(), event.header("ce_id"))).collect::<Vec<_>>()
    };
    assert!(written(&kept).len() > 100);
    // Values have the time at which their cause was received, which is the same.
    assert_eq!(written(&evicted), written(&kept));
}

#[test]
fn an_entity_with_something_due_or_parked_or_unsaved_is_not_evicted() {
    let mut driver = Driver::owner();
    driver.ping(ORDER, "count", 1);
    driver.turn();
    assert_eq!(driver.evict_all(), 0, "it is in no checkpoint yet");
    driver.elapsed += ms(5_000);
    driver.turn();
    unreadable(&mut driver);
    driver.turn();
    assert_eq!(driver.evict_all(), 0, "something of it is parked");
    let (asks, wakes) = ("order-2", "order-3");
    driver.ping(asks, "ask", 1);
    driver.ping(wakes, "wake", NOW + 1_000_000);
    driver.turn();
    driver.elapsed += ms(5_000);
    driver.turn();
    assert!(driver.executed("checkpoint"));
    assert_eq!(driver.evict_all(), 0, "an effect, a timer and a parked record are due");
}

/// An order with an unreadable record and `waiting` counts behind it, then a record that is parked under the order because its schema is
/// in no registry. It is about the neighbour, which has a total of 1,000 and is evicted.
fn with_parked_record_about_an_evicted_entity(waiting: i64) -> (Driver, Position) {
    let probe = Probe { keyed_alike: true, ..Probe::default() };
    let pace = Pace { checkpoint_every: ms(0), ..Pace::default() };
    let mut driver = Driver::with(pace, probe).owning();
    driver.ping(&neighbour(), "count", 1_000);
    driver.settle();
    let bad = unreadable(&mut driver);
    driver.settle();
    (0..waiting).for_each(|_| count(&mut driver, 1));
    driver.settle();
    let (partition, offset) = driver.log.ping(ORDER, &neighbour(), "count", 5);
    let records = driver.log.records.get_mut(&(SOURCE.to_owned(), partition)).unwrap();
    let value = records[usize::try_from(offset).unwrap()].value.as_mut().unwrap();
    let known = std::mem::replace(&mut value[4], 99);
    driver.settle();
    assert_eq!(parked(&driver), usize::try_from(waiting).unwrap() + 2);
    // Its schema is registered after all: the same text under the id 99.
    let text = driver.log.schemas.text_of(u32::from(known));
    driver.log.schemas.register_as(99, &text);
    assert_eq!(driver.evict_all(), 1);
    (driver, bad)
}

#[test]
fn an_evicted_entity_is_loaded_before_parked_records_about_it_are_handled() {
    // 499 counts end the first batch one before the record, 500 with it, 501 one after it.
    for waiting in [0, DRAINED - 2, DRAINED - 1, DRAINED, DRAINED + 1] {
        let (mut driver, bad) = with_parked_record_about_an_evicted_entity(waiting);
        drop_parked(&mut driver, &bad);
        driver.settle();
        driver.settle();
        assert_eq!(parked(&driver), 0, "behind {waiting}");
        assert_eq!((driver.state(ORDER).total, driver.state(&neighbour()).total), (waiting, 1_005), "behind {waiting}");
        assert_eq!(driver.times_of(&format!("load {}", neighbour())).len(), 1, "behind {waiting}");
    }
}

#[test]
fn parked_records_that_were_handled_before_one_that_fails_are_not_lost() {
    for waiting in [0, 10] {
        let (mut driver, bad) = with_large_parked_record(waiting, 7_000);
        lower_the_limit(&mut driver);
        drop_parked(&mut driver, &bad);
        driver.run_for(ms(2_000));
        assert!(driver.turn.hold_reason(here()).is_some());
        let events = usize::try_from(waiting).unwrap();
        assert_eq!(
            (driver.log.records_on(EVENTS).len(), driver.state(ORDER).total, parked(&driver)),
            (events, waiting, 1)
        );
        driver.restart();
        assert_eq!((driver.state(ORDER).total, parked(&driver)), (waiting, 1), "and so it is for the next owner");
    }
}

/// An order with an unreadable record, `waiting` counts behind it, and at last an unreadable record of this many bytes. The parked topic
/// takes 10,000 bytes.
fn with_large_parked_record(waiting: i64, bytes: usize) -> (Driver, Position) {
    let mut driver = Driver::new();
    driver.limits = Limits { parked: 10_000, ..Limits::default() };
    driver.restart();
    let bad = unreadable(&mut driver);
    (0..waiting).for_each(|_| count(&mut driver, 1));
    let value = Some(vec![b'x'; bytes]);
    let record = StoredRecord { timestamp_ms: NOW, key: Some(ORDER.into()), value, headers: Vec::new() };
    driver.log.append(INBOX, here(), record);
    driver.run_for(ms(300));
    (driver, bad)
}

/// An operator lowers the limit of the parked topic below the size of a record that is parked.
fn lower_the_limit(driver: &mut Driver) {
    driver.limits.parked = 6_000;
    driver.restart();
}

#[test]
fn a_record_that_could_wait_can_be_parked_again_when_its_turn_fails() {
    let waits = |bytes: &usize| parked(&with_large_parked_record(0, *bytes).0) == 2;
    let largest = (5_000..10_000).rev().step_by(10).find(waits).unwrap();
    for bytes in [largest, largest - 10, largest - 500] {
        let (mut driver, bad) = with_large_parked_record(3, bytes);
        drop_parked(&mut driver, &bad);
        driver.run_for(ms(2_000));
        assert!(driver.turn.hold_reason(here()).is_none(), "{:?}", driver.turn.hold_reason(here()));
        let task = driver.turn.machine().task(here()).unwrap();
        let failure = task.parked().next().unwrap().failure.clone().unwrap();
        assert_eq!((task.parked_size().0, driver.state(ORDER).total, &*failure.class), (1, 3, "framing"));
    }
}

#[test]
fn parked_records_whose_turn_fails_again_and_again_hold_their_partition_each_time() {
    let (mut driver, bad) = with_large_parked_record(DRAINED, 7_000);
    assert_eq!(parked(&driver), 502);
    lower_the_limit(&mut driver);
    drop_parked(&mut driver, &bad);
    driver.run_for(ms(10_000));
    let reason = driver.turn.hold_reason(here()).unwrap();
    assert!(reason.reason.contains("cannot be parked"), "{}", reason.reason);
    assert!(!driver.turn.consuming().contains(&here()));
    assert_eq!(driver.times_of(&format!("pause {}", here())).len(), 5, "{:?}", driver.history);
    assert!(driver.times_of(&format!("well {}", here())).is_empty());
}

#[test]
fn an_evicted_entity_is_loaded_before_an_operator_retries_a_record_about_it() {
    let (mut driver, bad) = with_parked_record_about_an_evicted_entity(0);
    let command = RetryParked { position: bad.to_string(), by: "ada".to_owned() };
    driver.log.write(INBOX, ORDER, &ParkingCommand::from(command));
    driver.settle();
    assert_eq!(driver.times_of(&format!("load {}", neighbour())).len(), 1, "it may be handled in the same batch");
    assert_eq!((parked(&driver), driver.state(&neighbour()).total), (2, 1_000));
}

#[test]
fn a_record_about_an_evicted_entity_that_crashes_is_parked_like_any_other() {
    let pace = Pace { checkpoint_every: ms(0), ..Pace::default() };
    let mut driver = Driver::with(pace, Probe::default()).owning();
    driver.ping(ORDER, "count", 1);
    driver.settle();
    driver.evicts = true;
    driver.turn();
    driver.probe.fragile.store(true, std::sync::atomic::Ordering::SeqCst);
    driver.ping(ORDER, "panic", 10);
    driver.run_for(ms(10_000));
    assert_eq!(parked(&driver), 1);
    let records = driver.log.records_on(PARKED);
    assert_eq!(records[0].2.header("__dlq.errors.delivery.count"), Some(MAX_CRASHES.to_string()));
}

/// An order with an unreadable record, and behind it a count whose schema cannot be fetched. Returns where both are.
fn with_waiting_record_of_an_unavailable_schema(driver: &mut Driver) -> (Position, Position) {
    let bad = unreadable(driver);
    driver.settle();
    let (partition, offset) = driver.log.write(INBOX, ORDER, &Command::from(Count { amount: 7 }));
    driver.settle();
    assert_eq!(parked(driver), 2);
    // The process that parked it had its schema; the next one has not.
    let parked = driver.log.records.get_mut(&(PARKED.to_owned(), partition)).unwrap().last_mut().unwrap();
    parked.value.as_mut().unwrap()[1..5].copy_from_slice(&UNAVAILABLE_SCHEMA.to_be_bytes());
    driver.restart();
    (bad, Position::new(INBOX, partition, offset))
}

#[test]
fn a_waiting_record_whose_schema_cannot_be_fetched_does_not_fail_but_waits_for_it() {
    let mut driver = Driver::owner();
    let (bad, _) = with_waiting_record_of_an_unavailable_schema(&mut driver);
    drop_parked(&mut driver, &bad);
    driver.run_for(ms(20_000));
    let reason = driver.turn.hold_reason(here()).unwrap().reason.clone();
    assert!(reason.contains("the registry is down"), "{reason}");
    let failures = |driver: &Driver| {
        let task = driver.turn.machine().task(here()).unwrap();
        task.parked().map(|parked| parked.failure.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(failures(&driver), [false], "the registry's outage is no failure of the record");
    let text = driver.log.schemas.text_of(schema_of_count(&driver));
    driver.log.schemas.register_as(UNAVAILABLE_SCHEMA, &text);
    driver.run_for(ms(31_000));
    assert_eq!((driver.state(ORDER).total, parked(&driver)), (7, 0));
    assert!(driver.turn.hold_reason(here()).is_none());
}

/// The id of the schema that counts are written with.
fn schema_of_count(driver: &Driver) -> u32 {
    let count = driver.log.records_on(INBOX).into_iter().find_map(|(_, _, record)| record.value.filter(|v| v[0] == 0));
    u32::from_be_bytes(count.unwrap()[1..5].try_into().unwrap())
}

#[test]
fn an_operator_who_retries_a_record_has_its_schema_fetched_anew() {
    const LATE: u32 = 88;
    let mut driver = Driver::owner();
    let (partition, offset) = driver.log.write(INBOX, ORDER, &Command::from(Count { amount: 7 }));
    let text = driver.log.schemas.text_of(schema_of_count(&driver));
    let records = driver.log.records.get_mut(&(INBOX.to_owned(), partition)).unwrap();
    records[0].value.as_mut().unwrap()[1..5].copy_from_slice(&LATE.to_be_bytes());
    driver.settle();
    assert_eq!((parked(&driver), driver.state(ORDER).total), (1, 0), "no registry has the schema");
    let command = RetryParked { position: Position::new(INBOX, partition, offset).to_string(), by: "ada".to_owned() };
    driver.log.schemas.register_as(LATE, &text);
    driver.log.write(INBOX, ORDER, &ParkingCommand::from(command));
    driver.settle();
    assert_eq!(driver.times_of("fetch schema anew").len(), 1);
    assert_eq!((parked(&driver), driver.state(ORDER).total), (0, 7));
}

#[test]
fn an_operator_who_retries_a_failed_record_while_the_registry_is_down_gets_the_reason_at_once() {
    let mut driver = Driver::owner();
    let bad = unreadable(&mut driver);
    driver.settle();
    let records = driver.log.records.get_mut(&(PARKED.to_owned(), here())).unwrap();
    records[0].value = Some([&[0][..], &UNAVAILABLE_SCHEMA.to_be_bytes(), &[14]].concat());
    driver.restart();
    let command = RetryParked { position: bad.to_string(), by: "ada".to_owned() };
    driver.log.write(INBOX, ORDER, &ParkingCommand::from(command));
    count(&mut driver, 1);
    driver.log.write(INBOX, &neighbour(), &Command::from(Count { amount: 3 }));
    driver.settle();
    let task = driver.turn.machine().task(here()).unwrap();
    let failure = task.parked().next().unwrap().failure.clone().unwrap();
    assert_eq!((failure.class.as_str(), failure.attempts), ("schema", 2));
    assert!(failure.reason.contains("the registry is down"), "{}", failure.reason);
    assert_eq!((parked(&driver), driver.state(&neighbour()).total), (2, 3), "other entities go on");
}
