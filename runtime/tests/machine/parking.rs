//! What cannot work is parked, and only what comes for the same entity waits behind it.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use runtime::{
    core::{
        CrashCount, DropParked, MAX_CRASHES, Outcome, Parked, ParkingCommand, ParkingLimits, RetryParked, partition_of,
    },
    envelope::Position,
};

use crate::{
    probe::{Command, Count, Probe, Replied, UNBEARABLE},
    world::{DEAD, EVENTS, INBOX, NOW, PARKED, PARTITIONS, SOURCE, Stored, World},
};

const ORDER: &str = "order-1";

fn here() -> i32 {
    partition_of(ORDER.as_bytes(), PARTITIONS)
}

/// Another key of the same partition.
fn neighbour() -> String {
    (0..).map(|n| format!("k{n}")).find(|key| partition_of(key.as_bytes(), PARTITIONS) == here()).unwrap()
}

fn count(world: &mut World, key: &str, amount: i64) -> (i32, i64) {
    world.write(INBOX, key, &Command::from(Count { amount }))
}

/// A command for the order that cannot be read.
fn garbage(world: &mut World) -> Position {
    let value = Some(b"garbage".to_vec());
    let stored = Stored { timestamp_ms: NOW, key: Some(ORDER.into()), value, headers: Vec::new() };
    Position::new(INBOX, here(), world.append(INBOX, here(), stored))
}

fn parked(world: &World) -> Vec<Parked> {
    world.machine.tasks().flat_map(|task| task.parked().cloned()).collect()
}

fn places(world: &World) -> Vec<String> {
    parked(world).iter().map(|parked| parked.place.to_string()).collect()
}

fn retry(world: &mut World, place: &Position) {
    let command = RetryParked { place: place.to_string(), by: "ada".to_owned() };
    world.write(INBOX, ORDER, &ParkingCommand::from(command));
    world.settle();
}

fn give_up(world: &mut World, place: &Position) {
    let command = DropParked { place: place.to_string(), by: "ada".to_owned(), reason: "a test".to_owned() };
    world.write(INBOX, ORDER, &ParkingCommand::from(command));
    world.settle();
}

/// Hears the record until it is done with or held for good.
fn hear_again_and_again(world: &mut World, topic: &str, place: (i32, i64)) -> u32 {
    for tries in 1..=20 {
        match world.hear(topic, place) {
            Outcome::Failed(_) => world.machine.resume(place.0),
            Outcome::Done => return tries,
            other => panic!("{other:?}"),
        }
    }
    panic!("it is never done")
}

#[test]
fn what_cannot_be_read_is_parked_and_only_its_entity_waits() {
    let mut world = World::new();
    count(&mut world, ORDER, 1);
    let bad = garbage(&mut world);
    let behind = count(&mut world, ORDER, 10);
    world.ping("elsewhere", ORDER, "count", 100);
    count(&mut world, &neighbour(), 7);
    world.settle();
    assert_eq!((world.state(ORDER).total, world.state(&neighbour()).total), (1, 7));
    let waiting = parked(&world);
    assert_eq!(waiting.len(), 3);
    let failure = waiting[0].failure.as_ref().unwrap();
    assert_eq!((&waiting[0].place, failure.class.as_str(), failure.attempts), (&bad, "framing", 1));
    assert_eq!(waiting[0].value.as_deref(), Some(&b"garbage"[..]));
    assert_eq!(waiting[1].place, Position::new(INBOX, behind.0, behind.1));
    assert!(waiting[1..].iter().all(|parked| parked.failure.is_none() && *parked.entity == *ORDER));
    assert!(world.all_on(DEAD).is_empty());
}

#[test]
fn what_is_given_up_lets_the_rest_go_on_in_its_order() {
    let mut world = World::new();
    let bad = garbage(&mut world);
    for amount in 1..=3 {
        count(&mut world, ORDER, amount);
    }
    world.settle();
    give_up(&mut world, &bad);
    assert_eq!((world.state(ORDER).total, parked(&world).len()), (6, 0));
    let said: Vec<String> =
        world.all_on(EVENTS).iter().map(|(_, _, event)| event.text("ce_causeposition").unwrap()).collect();
    assert_eq!(said, [1, 2, 3].map(|offset| format!("{INBOX}/{}/{offset}", here())), "causes are where they first lay");
    let (_, _, gone) = world.all_on(PARKED).into_iter().find(|(_, _, stored)| stored.value.is_none()).unwrap();
    assert_eq!(gone.key, Some(bad.to_string().into_bytes()));
    assert_eq!(gone.text("musiccorp.parked.outcome").as_deref(), Some("dropped"));
    assert_eq!(gone.text("musiccorp.parked.words").as_deref(), Some("ada: a test"));
    count(&mut world, ORDER, 10);
    world.settle();
    assert_eq!(world.state(ORDER).total, 16);
}

#[test]
fn a_retry_that_fails_leaves_the_order_and_says_how_often() {
    let mut world = World::new();
    let bad = garbage(&mut world);
    count(&mut world, ORDER, 1);
    world.settle();
    let before = places(&world);
    retry(&mut world, &bad);
    retry(&mut world, &bad);
    assert_eq!(places(&world), before);
    assert_eq!(parked(&world)[0].failure.as_ref().unwrap().attempts, 3);
    assert_eq!(world.state(ORDER).total, 0);
}

#[test]
fn what_crashes_its_decider_so_often_is_parked_and_works_once_that_is_mended() {
    let mut world = World::new();
    world.probe.fragile.store(true, Ordering::SeqCst);
    let bad = world.ping(ORDER, ORDER, "panic", 5);
    let tries = hear_again_and_again(&mut world, SOURCE, bad);
    assert_eq!(tries, MAX_CRASHES);
    world.commit();
    world.ping(ORDER, ORDER, "count", 1);
    world.settle();
    let failure = parked(&world)[0].failure.clone().unwrap();
    assert_eq!((failure.class.as_str(), failure.attempts), ("crash", MAX_CRASHES));
    assert!(failure.reason.contains("told to"), "{}", failure.reason);
    let place = Position::new(SOURCE, bad.0, bad.1);
    retry(&mut world, &place);
    assert_eq!((parked(&world).len(), world.state(ORDER).total), (2, 0));
    world.probe.fragile.store(false, Ordering::SeqCst);
    retry(&mut world, &place);
    assert_eq!((parked(&world).len(), world.state(ORDER).total), (0, 6));
}

#[test]
fn what_evolve_does_not_bear_costs_no_state_when_it_is_tried_again() {
    let mut world = World::new();
    world.probe.fragile.store(true, Ordering::SeqCst);
    count(&mut world, ORDER, 3);
    world.settle();
    let bad = count(&mut world, ORDER, UNBEARABLE);
    let place = Position::new(INBOX, bad.0, bad.1);
    // Each time a state is lost the machine is thrown away; the next one is told.
    world.suspects = BTreeMap::from([(
        place.clone(),
        CrashCount { times: MAX_CRASHES, reason: "evolve panicked: over it".to_owned() },
    )]);
    world.recover_all(&[]);
    count(&mut world, ORDER, 4);
    world.settle();
    assert_eq!((parked(&world).len(), world.state(ORDER).total), (2, 3));
    retry(&mut world, &place);
    assert_eq!((parked(&world).len(), world.state(ORDER).total), (2, 3));
    world.probe.fragile.store(false, Ordering::SeqCst);
    retry(&mut world, &place);
    assert_eq!((parked(&world).len(), world.state(ORDER).total), (0, 7));
}

#[test]
fn whoever_takes_over_knows_what_waits() {
    let mut world = World::new();
    let bad = garbage(&mut world);
    for amount in [1, 2] {
        count(&mut world, ORDER, amount);
    }
    world.settle();
    let before = parked(&world);
    // The group's offsets are lost as well: what is parked is not parked again.
    world.recover_all(&[]);
    assert_eq!(parked(&world), before);
    world.settle();
    assert_eq!(parked(&world), before);
    assert_eq!(world.all_on(PARKED).len(), before.len());
    count(&mut world, ORDER, 4);
    world.settle();
    give_up(&mut world, &bad);
    assert_eq!(world.state(ORDER).total, 7);
    world.recover_all(&[]);
    assert!(parked(&world).is_empty());
}

#[test]
fn more_than_a_batch_holds_goes_on_in_its_order_and_newcomers_wait() {
    const MANY: i64 = 1_234;
    let mut world = World::new();
    let bad = garbage(&mut world);
    for amount in 1..=MANY {
        count(&mut world, ORDER, amount);
    }
    world.settle();
    let command = DropParked { place: bad.to_string(), by: "ada".to_owned(), reason: "a test".to_owned() };
    let asked = world.write(INBOX, ORDER, &ParkingCommand::from(command));
    let newcomer = count(&mut world, ORDER, 1_000_000);
    assert_eq!(world.hear(INBOX, asked), Outcome::Done);
    assert_eq!(world.hear(INBOX, newcomer), Outcome::Done);
    world.commit();
    let left = parked(&world).len();
    assert!(left > 100 && left < 1_234, "{left} are left behind the first batch");
    // Whoever takes over goes on by itself.
    world.recover_all(&[]);
    world.settle();
    assert_eq!((parked(&world).len(), world.state(ORDER).total), (0, MANY * (MANY + 1) / 2 + 1_000_000));
    let said: Vec<Position> = world
        .all_on(EVENTS)
        .iter()
        .map(|(_, _, event)| event.text("ce_causeposition").unwrap().parse().unwrap())
        .collect();
    assert!(said.is_sorted(), "in the order in which they came");
}

#[test]
fn nothing_is_asked_of_the_outside_world_for_who_waits() {
    let mut world = World::new();
    world.ping(ORDER, ORDER, "ask", 1);
    world.settle();
    let bad = garbage(&mut world);
    world.settle();
    assert!(world.machine.due_effects(10, NOW + 1_000_000).is_empty());
    world.recover_all(&[]);
    assert!(world.machine.due_effects(10, NOW + 1_000_000).is_empty());
    // An answer that comes all the same waits, once.
    let answer = Command::from(Replied { request: format!("{ORDER}/1"), amount: 5 });
    let (partition, offset) = world.write(INBOX, ORDER, &answer);
    let again = world.log[&(INBOX.to_owned(), partition)][usize::try_from(offset).unwrap()].clone();
    world.append(INBOX, partition, again);
    world.settle();
    assert_eq!(parked(&world).len(), 2);
    give_up(&mut world, &bad);
    assert_eq!((world.state(ORDER).total, world.machine.pending_effects()), (5, 0));
    world.ping(ORDER, ORDER, "ask", 2);
    world.settle();
    assert_eq!(world.machine.due_effects(10, NOW + 1_000_000).len(), 1);
}

#[test]
fn a_full_car_park_stops_its_partition_and_says_so() {
    let mut world = World::new();
    world.parking = ParkingLimits { records: 2, ..ParkingLimits::default() };
    world.recover_all(&[]);
    let bad = garbage(&mut world);
    count(&mut world, ORDER, 1);
    let over = count(&mut world, ORDER, 2);
    world.settle();
    let (_, stage) = world.machine.held().next().unwrap();
    assert_eq!(stage.place, Position::new(INBOX, over.0, over.1));
    assert!(stage.reason.contains("parking is full: 2 records"), "{}", stage.reason);
    // More room, as an operator gives it.
    world.parking = ParkingLimits::default();
    world.recover_all(&[]);
    world.settle();
    give_up(&mut world, &bad);
    assert_eq!(world.state(ORDER).total, 3);
}

#[test]
fn a_key_that_says_nothing_about_the_entity_makes_a_dead_letter() {
    for keyed_alike in [false, true] {
        let mut world = World::of(Probe { keyed_alike, ..Probe::default() });
        world.recover_all(&[]);
        let stored = |key: &str| Stored { timestamp_ms: NOW, key: Some(key.into()), value: None, headers: Vec::new() };
        world.append(SOURCE, here(), stored(ORDER));
        // Under a key of another partition, or none at all, nobody knows whose it is.
        world.append(SOURCE, (here() + 1) % PARTITIONS, stored(ORDER));
        world.append(SOURCE, here(), Stored { key: None, ..stored(ORDER) });
        world.settle();
        let shown = (parked(&world).len(), world.all_on(DEAD).len());
        assert_eq!(shown, if keyed_alike { (1, 2) } else { (0, 3) });
    }
}

#[test]
fn a_dead_letter_is_written_once_although_the_group_has_lost_its_offsets() {
    let mut world = World::new();
    let stored = |key| Stored { timestamp_ms: NOW, key, value: Some(vec![1]), headers: Vec::new() };
    world.append(SOURCE, here(), stored(None));
    world.append(INBOX, here(), stored(Some(vec![0xff])));
    world.settle();
    // Of an entity's record that was parked and given up, no event tells either.
    let bad = garbage(&mut world);
    world.settle();
    give_up(&mut world, &bad);
    let before = (world.all_on(DEAD).len(), world.all_on(PARKED).len());
    assert_eq!((before, parked(&world).len()), ((2, 4), 0));
    world.recover_all(&[]);
    world.settle();
    assert_eq!((world.all_on(DEAD).len(), world.all_on(PARKED).len()), before);
    // The topic is compacted: the tombstones tell as much as what they took away.
    let kept = world.log.get_mut(&(PARKED.to_owned(), here())).unwrap();
    kept.retain(|stored| stored.value.is_none());
    world.recover_all(&[]);
    world.settle();
    assert_eq!((world.all_on(DEAD).len(), world.all_on(PARKED).len()), (2, 3));
}

#[test]
fn who_asks_for_what_does_not_wait_changes_nothing() {
    let mut world = World::new();
    let bad = garbage(&mut world);
    let behind = count(&mut world, ORDER, 1);
    world.settle();
    let before = parked(&world);
    let behind = Position::new(INBOX, behind.0, behind.1);
    for place in [&behind, &Position::new(INBOX, here(), 99)] {
        retry(&mut world, place);
        assert_eq!(parked(&world), before);
    }
    // What waits behind another one may be given up all the same.
    give_up(&mut world, &behind);
    assert_eq!(places(&world), [bad.to_string()]);
    give_up(&mut world, &bad);
    assert_eq!((parked(&world).len(), world.state(ORDER).total), (0, 0));
}

#[test]
fn somebody_elses_record_on_the_parked_topic_stops_the_task() {
    let mut world = World::new();
    let stored = Stored { timestamp_ms: NOW, key: Some(b"x".to_vec()), value: None, headers: Vec::new() };
    world.append(PARKED, here(), stored);
    let refused = world.recovered(here()).err().unwrap().to_string();
    assert!(refused.contains("not a parked record: its key is no place"), "{refused}");
}
