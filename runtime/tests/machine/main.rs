//! The core of the loop on a log in memory: what it decides, forwards, lays aside, remembers, and refuses to go on with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod parking;
#[path = "../probe/mod.rs"]
mod probe;
mod world;

use std::{collections::BTreeMap, sync::atomic::Ordering};

use probe::{Command, Count, Input, Replied, Source, State, Unrelated};
use runtime::{
    Message, TimerFired,
    core::{LogCorruption, Outcome, Recovery, RuntimeRecord, SavedTask, partition_of},
    envelope::{Position, derived_id},
};
use world::{DEAD, EVENTS, INBOX, NOW, PARTITIONS, SOURCE, Stored, World, contract};

/// Two keys that live in different partitions, and a key that lives with the first.
fn strangers() -> (&'static str, String, String) {
    let here = partition_of(b"order-1", PARTITIONS);
    let find = |same: bool| {
        (0..).map(|n| format!("k{n}")).find(|k| (partition_of(k.as_bytes(), PARTITIONS) == here) == same).unwrap()
    };
    ("order-1", find(false), find(true))
}

#[test]
fn an_event_says_where_it_comes_from() {
    let mut world = World::new();
    let place = world.ping("order-1", "order-1", "count", 3);
    assert_eq!(world.hear(SOURCE, place), Outcome::Done);
    world.commit();
    let (partition, offset, event) = world.all_on(EVENTS).pop().unwrap();
    assert_eq!(partition, partition_of(b"order-1", PARTITIONS));
    let envelope = event.envelope(EVENTS, partition, offset);
    let cause = derived_id(&["test", "1"]);
    assert_eq!(envelope.sequence, Some(1));
    assert_eq!(envelope.causation_id, Some(cause));
    assert_eq!(envelope.id, runtime::envelope::caused_id(cause, "com.musiccorp.probe.Counted", 0));
    assert_eq!(envelope.correlation_id, "saga of order-1");
    assert_eq!(envelope.cause_position, Some(Position::new(SOURCE, place.0, place.1)));
    assert_eq!((envelope.origin_position, envelope.build.as_deref()), (None, Some("test-build")));
    assert_eq!((&*envelope.source, &*envelope.record_type), ("/musiccorp/probe", "com.musiccorp.probe.Counted"));
    assert_eq!(world.state("order-1").total, 3);
}

#[test]
fn inputs_of_one_batch_see_each_other() {
    let mut world = World::new();
    let places: Vec<_> = (1..=3).map(|n| world.ping("order-1", "order-1", "count", n)).collect();
    for place in places {
        world.hear(SOURCE, place);
    }
    assert_eq!(world.machine.batch().inputs(), 3);
    world.commit();
    let sequences: Vec<_> =
        world.all_on(EVENTS).into_iter().map(|(p, o, s)| s.envelope(EVENTS, p, o).sequence.unwrap()).collect();
    assert_eq!((sequences, world.state("order-1").total), (vec![1, 2, 3], 6));
}

#[test]
fn a_repeated_id_is_dropped() {
    let mut world = World::new();
    let (partition, offset) = world.ping("order-1", "order-1", "count", 3);
    let twin = world.log[&(SOURCE.to_owned(), partition)][usize::try_from(offset).unwrap()].clone();
    world.append(SOURCE, partition, twin);
    world.settle();
    assert_eq!((world.all_on(EVENTS).len(), world.state("order-1").total), (1, 3));
    world.recover_all(&[]);
    world.settle();
    assert_eq!(world.all_on(EVENTS).len(), 1, "nor after a restart that reads everything again");
}

#[test]
fn an_input_for_an_entity_of_another_partition_is_forwarded_and_decided_there() {
    let (order, stranger, _) = strangers();
    let mut world = World::new();
    let place = world.ping(order, &stranger, "count", 3);
    let original = world.log[&(SOURCE.to_owned(), place.0)][0].clone();
    world.settle();
    let (partition, offset, forwarded) = world.all_on(INBOX).pop().unwrap();
    assert_eq!(partition, partition_of(stranger.as_bytes(), PARTITIONS));
    assert_eq!((&forwarded.value, forwarded.timestamp_ms), (&original.value, original.timestamp_ms));
    let (was, is) = (original.envelope(SOURCE, place.0, 0), forwarded.envelope(INBOX, partition, offset));
    assert_eq!((is.id, &is.correlation_id, &is.subject), (was.id, &was.correlation_id, &was.subject));
    let (p, o, event) = world.all_on(EVENTS).pop().unwrap();
    let event = event.envelope(EVENTS, p, o);
    assert_eq!(event.subject, stranger);
    assert_eq!(event.cause_position, Some(Position::new(INBOX, partition, offset)));
    assert_eq!(event.origin_position, Some(Position::new(SOURCE, place.0, place.1)));
    assert_eq!(world.state(&stranger).total, 3);
    assert_eq!(world.all_on(INBOX).len(), 1, "forwarded once");
}

#[test]
fn an_entity_that_lives_here_is_decided_here_whatever_the_key() {
    let (order, _, neighbour) = strangers();
    let mut world = World::new();
    world.ping(order, &neighbour, "count", 3);
    world.settle();
    assert_eq!((world.state(&neighbour).total, world.all_on(INBOX).len()), (3, 0));
}

#[test]
fn a_forwarded_record_in_the_wrong_partition_is_laid_aside_not_passed_round() {
    let (order, stranger, _) = strangers();
    let mut world = World::new();
    let place = world.ping(order, &stranger, "count", 3);
    let mut astray = world.log[&(SOURCE.to_owned(), place.0)][0].clone();
    astray.headers.push(("ce_originposition".to_owned(), Some(b"musiccorp.source.events/0/0".to_vec())));
    let partition = partition_of(order.as_bytes(), PARTITIONS);
    world.append(INBOX, partition, astray);
    assert_eq!(world.hear(INBOX, (partition, 0)), Outcome::Done);
    world.commit();
    let (_, _, letter) = world.all_on(DEAD).pop().unwrap();
    assert_eq!(letter.text("musiccorp.errors.class").as_deref(), Some("routing"));
}

#[test]
fn a_command_to_another_entity_lies_in_its_partition() {
    let mut world = World::new();
    world.ping("order-1", "order-1", "pass-on", 9);
    world.settle();
    assert_eq!(world.state("order-1-friend").total, 9);
    let (partition, offset, command) = world.all_on(INBOX).pop().unwrap();
    assert_eq!(partition, partition_of(b"order-1-friend", PARTITIONS));
    let envelope = command.envelope(INBOX, partition, offset);
    assert_eq!((envelope.subject.as_str(), envelope.correlation_id.as_str()), ("order-1-friend", "saga of order-1"));
    assert_eq!((envelope.causation_id, envelope.sequence), (Some(derived_id(&["test", "1"])), None));
}

#[test]
fn what_cannot_be_read_is_laid_aside_with_its_bytes_and_its_place() {
    let mut world = World::new();
    world.ping("order-1", "order-1", "count", 1);
    let partition = partition_of(b"order-1", PARTITIONS);
    let good = world.log[&(SOURCE.to_owned(), partition)][0].clone();
    let value = good.value.clone().unwrap();
    let with = |value: Option<Vec<u8>>| Stored { value, ..good.clone() };
    let other_magic = [&[9], &value[1..]].concat();
    let unknown_id = [&[0, 0, 0, 3, 232], &value[5..]].concat();
    let mut odd_header = good.clone();
    odd_header.headers.push(("ce_id".to_owned(), Some(b"not a uuid".to_vec())));
    let cases = [
        ("tombstone", with(None)),
        ("framing", with(Some(other_magic))),
        ("framing", with(Some(vec![0, 0]))),
        ("schema", with(Some(unknown_id))),
        ("body", with(Some(value[..value.len() - 1].to_vec()))),
        ("headers", odd_header),
        ("key", Stored { key: None, ..good.clone() }),
        ("key", Stored { key: Some(vec![0xff]), ..good.clone() }),
    ];
    for (_, stored) in &cases {
        world.append(SOURCE, partition, stored.clone());
    }
    world.ping("order-1", "order-1", "count", 1);
    world.settle();
    let letters = world.all_on(DEAD);
    assert_eq!(letters.len(), cases.len());
    for (offset, ((class, stored), (_, _, letter))) in (1..).zip(cases.iter().zip(&letters)) {
        assert_eq!((&letter.key, &letter.value), (&stored.key, &stored.value), "{class}");
        assert_eq!(letter.headers[..stored.headers.len()], stored.headers, "{class}");
        assert_eq!(letter.text("musiccorp.errors.class").as_deref(), Some(*class));
        assert_eq!(letter.text("__dlq.errors.topic").as_deref(), Some(SOURCE));
        assert_eq!(letter.text("__dlq.errors.partition"), Some(partition.to_string()));
        assert_eq!(letter.text("__dlq.errors.offset"), Some(i32::to_string(&offset)));
        assert_eq!(letter.text("__dlq.errors.group").as_deref(), Some("musiccorp.probe"));
        assert!(letter.text("__dlq.errors.message").is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(world.state("order-1").total, 2, "what stood before and behind them is decided");
}

#[test]
fn a_letter_that_its_topic_does_not_take_whole_keeps_what_anybody_reads() {
    let mut world = World::new();
    world.limits.dead_letters = 100_000;
    world.recover_all(&[]);
    let partition = partition_of(b"order-1", PARTITIONS);
    let header = |name: &str, value: Vec<u8>| (name.to_owned(), Some(value));
    let small = || header("ce_correlationid", b"saga-1".to_vec());
    let stored = |key: &[u8], value: usize, headers| Stored {
        timestamp_ms: NOW,
        key: Some(key.to_vec()),
        value: Some(vec![9; value]),
        headers,
    };
    let cases = [
        (None, stored(b"order-1", 90_000, vec![small()])),
        (Some("value"), stored(b"order-1", 100_000, vec![small()])),
        (Some("value,headers"), stored(b"order-1", 1, vec![header("huge", vec![b'x'; 100_000]), small()])),
        (
            Some("value,headers"),
            stored(b"order-1", 1, [vec![small()], vec![header("many", vec![b'x'; 900]); 200]].concat()),
        ),
        (Some("value,key"), stored(&vec![b'k'; 100_000], 1, vec![small()])),
    ];
    for (_, stored) in &cases {
        world.append(SOURCE, partition, stored.clone());
    }
    world.settle();
    let letters = world.all_on(DEAD);
    assert_eq!(letters.len(), cases.len());
    for (offset, ((omitted, stored), (_, _, letter))) in (0..).zip(cases.iter().zip(&letters)) {
        let left_out = |part: &str| omitted.is_some_and(|omitted| omitted.contains(part));
        assert_eq!(letter.text("musiccorp.errors.omitted").as_deref(), *omitted);
        assert_eq!(letter.value.is_none(), left_out("value"));
        assert_eq!(letter.key.is_none(), left_out("key"), "{:?}", letter.key.as_ref().map(Vec::len));
        let of_the_record = letter.headers.len() - 8 - usize::from(omitted.is_some());
        assert_eq!(of_the_record < stored.headers.len(), left_out("headers"));
        assert_eq!(letter.text("ce_correlationid").as_deref(), Some("saga-1"));
        assert_eq!(letter.text("musiccorp.errors.class").as_deref(), Some("framing"));
        assert_eq!(letter.text("__dlq.errors.offset"), Some(i32::to_string(&offset)), "where the rest lies");
        let bytes: usize =
            letter.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        assert!(bytes + letter.value.as_ref().map_or(0, Vec::len) < 100_000);
    }
}

#[test]
fn a_record_too_large_to_be_passed_on_is_laid_aside() {
    let mut world = World::new();
    world.limits.inbox = 10_000;
    world.recover_all(&[]);
    let elsewhere = (0..)
        .map(|n| format!("order-{n}"))
        .find(|key| partition_of(key.as_bytes(), PARTITIONS) != partition_of(b"order-1", PARTITIONS));
    let elsewhere = elsewhere.unwrap();
    world.ping("order-1", &elsewhere, &"x".repeat(10_000), 1);
    world.ping("order-1", &elsewhere, "count", 1);
    world.settle();
    let letters = world.all_on(DEAD);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].2.text("musiccorp.errors.class").as_deref(), Some("size"));
    assert!(letters[0].2.value.as_ref().is_some_and(|value| value.len() > 10_000), "it is whole");
    assert_eq!(world.state(&elsewhere).total, 1, "what stood behind it is decided");
}

#[test]
fn a_decision_that_no_topic_takes_holds_its_partition_and_says_so() {
    let mut world = World::new();
    (world.limits.events, world.limits.inbox) = (10_000, 10_000);
    world.recover_all(&[]);
    let at = world.ping("order-1", "order-1", "ask", 1);
    assert_eq!(world.hear(SOURCE, at), Outcome::Done);
    let long = format!("order-1{}", "x".repeat(5_000));
    let key = (0..).map(|n| format!("{long}{n}")).find(|key| partition_of(key.as_bytes(), PARTITIONS) == at.0).unwrap();
    let at = world.ping("order-1", &key, "ask", 2);
    let Outcome::Failed(failure) = world.hear(SOURCE, at) else { panic!("an event of 10,000 bytes is said") };
    assert!(
        failure.reason.contains("an event cannot be said: it has up to 15") && !failure.loses_state,
        "{}",
        failure.reason
    );
    assert!(failure.reason.contains("raise max.message.bytes"), "{}", failure.reason);
}

#[test]
fn a_registry_that_cannot_be_asked_holds_the_partition_and_loses_nothing() {
    let mut world = World::new();
    let partition = partition_of(b"order-1", PARTITIONS);
    let strange = Stored {
        timestamp_ms: NOW,
        key: Some(b"order-1".to_vec()),
        value: Some(vec![0, 0, 0, 0, 77]),
        headers: vec![],
    };
    world.append(SOURCE, partition, strange);
    assert!(matches!(world.hear(SOURCE, (partition, 0)), Outcome::Unready(reason) if reason.contains("out for lunch")));
    assert_eq!(world.machine.held().count(), 1);
    assert!(world.machine.batch().is_empty());
}

#[test]
fn a_type_nobody_listed_is_passed_over() {
    let mut world = World::new();
    world.write(SOURCE, "order-1", &Source::from(Unrelated { text: "x".to_owned() }));
    let (partition, offset) = (partition_of(b"order-1", PARTITIONS), 0);
    let value = world.log[&(SOURCE.to_owned(), partition)][0].value.clone().unwrap();
    assert!(!world.machine.contract().is_not_consumed(&value), "not known yet");
    assert_eq!(world.hear(SOURCE, (partition, offset)), Outcome::Done);
    assert!(world.machine.contract().is_not_consumed(&value));
    assert_eq!((world.machine.batch().outputs().len(), world.machine.batch().positions().count()), (0, 1));
}

#[test]
fn a_decider_that_panics_holds_its_partition_only_and_skips_nothing() {
    let (order, stranger, _) = strangers();
    let mut world = World::new();
    world.probe.fragile.store(true, Ordering::SeqCst);
    let bad = world.ping(order, order, "panic", 1);
    let behind = world.ping(order, order, "count", 1);
    let elsewhere = world.ping(&stranger, &stranger, "count", 1);
    let Outcome::Failed(failure) = world.hear(SOURCE, bad) else { panic!("it was told to fail") };
    assert_eq!((failure.place, failure.loses_state), (Position::new(SOURCE, bad.0, bad.1), false));
    assert!(failure.reason.contains("told to"), "{}", failure.reason);
    assert_eq!(world.hear(SOURCE, behind), Outcome::Ignored, "it waits behind");
    assert_eq!(world.hear(SOURCE, elsewhere), Outcome::Done);
    world.commit();
    assert_eq!((world.state(&stranger).total, world.state(order).total), (1, 0));
    world.probe.fragile.store(false, Ordering::SeqCst);
    world.machine.resume(bad.0);
    world.settle();
    assert_eq!(world.state(order).total, 2);
}

#[test]
fn a_rebuild_from_the_log_gives_the_same_states_and_says_nothing() {
    let mut world = World::new();
    for n in 0..60_i64 {
        let key = format!("order-{}", n % 7);
        let mode = ["count", "ask", "pass-on", "wake"][usize::try_from(n % 4).unwrap()];
        world.ping(&key, &format!("order-{}", n % 5), mode, n);
    }
    world.settle();
    let (before, events) = (world.states(), world.all_on(EVENTS).len());
    assert!(events >= 60 && before.len() > 5);
    let saved = world.machine.save();
    world.recover_all(&[]);
    assert_eq!(world.states(), before);
    world.settle();
    assert_eq!(world.all_on(EVENTS).len(), events, "everything was handled before");
    assert_eq!(resumed(&world, saved), before, "from checkpoints");
}

/// What a start from the checkpoints in `saved` and the log behind them comes to.
fn resumed(world: &World, saved: Vec<SavedTask>) -> BTreeMap<String, (u64, State)> {
    let mut states = BTreeMap::new();
    for task in saved {
        let mut contract = contract(&world.table, &world.probe);
        let mut recovery = Recovery::new(world.probe.clone(), &contract, task.partition);
        let entities = task.entities.iter().map(|(key, bytes)| (&**key, bytes.as_slice()));
        let positions = task.positions.iter().map(|(topic, position)| (&**topic, *position));
        recovery.resume(&contract, task.next, positions, entities).unwrap();
        world.fold_into(&mut recovery, &mut contract).unwrap();
        let task = recovery.finish(&contract, &[], NOW).unwrap();
        states.extend(
            task.states().into_iter().map(|(key, (sequence, state))| (key.to_owned(), (sequence, state.clone()))),
        );
    }
    states
}

#[test]
fn the_first_checkpoint_after_a_recovery_holds_what_was_folded_from_the_log() {
    let mut world = World::new();
    for n in 0..40 {
        let key = format!("order-{}", n % 9);
        world.ping(&key, &key, "count", n);
    }
    world.settle();
    // A crash before anything was saved: the next life folds all of it from the log.
    world.recover_all(&[]);
    // Then one entity of each partition changes, and a checkpoint moves past everything.
    for n in 0..9 {
        let key = format!("order-{n}");
        world.ping(&key, &key, "count", 100);
    }
    world.settle();
    let saved = world.machine.save();
    let entities: usize = saved.iter().map(|task| task.entities.len()).sum();
    assert_eq!(entities, world.states().len(), "all entities, not only those that changed since");
    // And once more: what is saved is not saved again, what changes is.
    assert!(world.machine.save().is_empty());
    assert_eq!(resumed(&world, saved), world.states());
}

#[test]
fn entities_that_only_the_recovery_touched_are_saved_too() {
    let mut world = World::new();
    for n in 0..9 {
        let key = format!("order-{n}");
        world.ping(&key, &key, "count", n);
    }
    world.settle();
    world.recover_all(&[]);
    let saved = world.machine.save();
    assert_eq!(resumed(&world, saved), world.states());
}

#[test]
fn positions_come_from_the_log_when_the_group_has_lost_them() {
    let mut world = World::new();
    let (partition, _) = world.ping("order-1", "order-1", "count", 1);
    world.ping("order-1", "order-1", "count", 1);
    world.settle();
    let inputs = world.machine.contract().inputs.clone();
    let at = inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
    world.recover_all(&[]);
    assert_eq!(world.machine.task(partition).unwrap().positions()[at], 2);
    world.recover_all(&vec![Some(1); inputs.len()]);
    assert_eq!(world.machine.task(partition).unwrap().positions()[at], 1, "the group's own word goes first");
}

#[test]
fn a_broken_own_log_stops_the_task() {
    let mut world = World::new();
    for n in 1..=3 {
        world.ping("order-1", "order-1", "count", n);
    }
    world.settle();
    let partition = partition_of(b"order-1", PARTITIONS);
    let log = (EVENTS.to_owned(), partition);
    let whole = world.log[&log].clone();
    let alarm = |world: &World| world.recovered(partition).map(|_| ()).unwrap_err();

    world.log.insert(log.clone(), [&whole[..1], &whole[2..]].concat());
    assert!(matches!(alarm(&world), LogCorruption::Sequence { expected: 2, found: 3, .. }), "a gap");

    world.log.insert(log.clone(), [&whole[..], &whole[2..]].concat());
    assert!(world.recovered(partition).is_ok(), "the same record twice is a repeat");

    let mut forged = whole.clone();
    forged[2].headers.retain(|(name, _)| name != "ce_id");
    forged[2].headers.push(("ce_id".to_owned(), Some(whole[1].text("ce_id").unwrap().into_bytes())));
    world.log.insert(log.clone(), forged);
    assert!(matches!(alarm(&world), LogCorruption::TwoContents { .. }), "one id, two contents");

    let mut foreign = whole;
    foreign[2].value = Some(vec![1, 2, 3]);
    world.log.insert(log, foreign);
    assert!(matches!(alarm(&world), LogCorruption::Unreadable { .. }), "not a record of ours");
}

#[test]
fn an_effect_is_due_after_its_event_is_committed_and_until_it_is_answered() {
    let mut world = World::new();
    let (partition, offset) = world.ping("order-1", "order-1", "ask", 7);
    world.hear(SOURCE, (partition, offset));
    assert!(world.machine.due_effects(9, NOW + 5).is_empty(), "not before the commit");
    world.commit();
    let due = world.machine.due_effects(9, NOW + 5);
    assert_eq!(
        (due.len(), due[0].due.effect.0.as_str(), due[0].due.correlation_id.as_str()),
        (1, "order-1/7", "saga of order-1")
    );
    world.recover_all(&[]);
    assert_eq!(world.machine.due_effects(9, NOW + 5).len(), 1, "derived again after a restart");
    let reply = Replied { request: "order-1/7".to_owned(), amount: 5 };
    world.write(INBOX, "order-1", &Command::from(reply));
    world.settle();
    assert_eq!((world.machine.pending_effects(), world.state("order-1").total), (0, 5));
    world.recover_all(&[]);
    assert!(world.machine.due_effects(9, NOW + 5).is_empty(), "a rebuild performs none that was answered");
}

#[test]
fn a_timer_fires_once_after_the_input_that_was_there_first() {
    let mut world = World::new();
    let (partition, _) = world.ping("order-1", "order-1", "wake", NOW + 100);
    world.settle();
    assert!(world.machine.wants_ends(NOW + 99).is_empty());
    assert_eq!(world.machine.wants_ends(NOW + 100), vec![partition]);
    world.ping("order-1", "order-1", "count", 1);
    let source = world.machine.contract().inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
    let mut ends = vec![0; world.machine.contract().inputs.len()];
    ends[source] = 2;
    world.machine.ends_known(partition, NOW + 100, ends);
    world.machine.reached(partition, &[], NOW + 100);
    world.machine.reached(partition, &[0, 0], NOW + 100);
    assert!(world.machine.batch().is_empty(), "one input was there first");
    world.hear(SOURCE, (partition, 1));
    world.machine.reached(partition, &[0, 0], NOW + 100);
    world.commit();
    assert_eq!(world.all_on(INBOX).len(), 1);
    world.settle();
    assert_eq!((world.state("order-1").woken, world.state("order-1").total), (1, 1));
    assert!(world.machine.wants_ends(NOW + 1_000).is_empty());
    let repeat = RuntimeRecord::from(TimerFired { due_at: NOW + 100 });
    world.write(INBOX, "order-1", &repeat);
    world.settle();
    assert_eq!(world.state("order-1").woken, 1, "no longer awaited");
}

#[test]
fn a_command_from_the_edge_is_decided() {
    let mut world = World::new();
    world.write(INBOX, "order-1", &Command::from(Count { amount: 4 }));
    world.settle();
    assert_eq!(world.state("order-1").total, 4);
    assert_eq!(Input::RECORDS.len(), 4);
}
