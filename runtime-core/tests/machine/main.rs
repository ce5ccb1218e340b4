//! The core of the loop on a log in memory: what it decides, forwards, dead-letters, remembers, and refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod builds;
mod fixture;
#[path = "../log/mod.rs"]
mod log;
mod parking;
#[path = "../probe/mod.rs"]
mod probe;
mod properties;

use std::{collections::BTreeMap, sync::atomic::Ordering};

use fixture::{
    DEAD_LETTERS, EVENTS, Fixture, INBOX, NOW, PARTITIONS, SOURCE, StoredRecord, body_of_unavailable_schema,
};
use probe::{Command, Count, Input, Replied, Source, State, Unrelated};
use runtime_core::{
    LogCorruption, ReceiveOutcome, Recovery, RuntimeRecord, TaskCheckpoint,
    decider::TimerFired,
    envelope::{Position, derived_id},
    message::Message,
    partition_of,
};

/// Two keys that live in different partitions, and a key that lives with the first.
fn keys() -> (&'static str, String, String) {
    let here = partition_of(b"order-1", PARTITIONS);
    let find = |same: bool| {
        (0..).map(|n| format!("k{n}")).find(|k| (partition_of(k.as_bytes(), PARTITIONS) == here) == same).unwrap()
    };
    ("order-1", find(false), find(true))
}

#[test]
fn an_event_names_its_cause_and_its_source() {
    let mut fixture = Fixture::new();
    let place = fixture.ping("order-1", "order-1", "count", 3);
    assert_eq!(fixture.receive(SOURCE, place), ReceiveOutcome::Done);
    fixture.commit();
    let (partition, offset, event) = fixture.records_on(EVENTS).pop().unwrap();
    assert_eq!(partition, partition_of(b"order-1", PARTITIONS));
    let envelope = event.envelope(EVENTS, partition, offset);
    let cause = derived_id(&["test", "1"]);
    assert_eq!(envelope.sequence, Some(1));
    assert_eq!(envelope.causation_id, Some(cause));
    assert_eq!(envelope.id, runtime_core::envelope::caused_id(cause, "com.musiccorp.probe.Counted", 0));
    assert_eq!(envelope.correlation_id, "saga of order-1");
    assert_eq!(envelope.cause_position, Some(Position::new(SOURCE, place.0, place.1)));
    assert_eq!((envelope.origin_position, envelope.build.as_deref()), (None, Some("test-build")));
    assert_eq!((&*envelope.source, &*envelope.record_type), ("/musiccorp/probe", "com.musiccorp.probe.Counted"));
    assert_eq!(fixture.state("order-1").total, 3);
}

#[test]
fn inputs_of_one_batch_see_each_other() {
    let mut fixture = Fixture::new();
    let places: Vec<_> = (1..=3).map(|n| fixture.ping("order-1", "order-1", "count", n)).collect();
    for place in places {
        fixture.receive(SOURCE, place);
    }
    assert_eq!(fixture.machine.batch().inputs(), 3);
    fixture.commit();
    let sequences: Vec<_> =
        fixture.records_on(EVENTS).into_iter().map(|(p, o, s)| s.envelope(EVENTS, p, o).sequence.unwrap()).collect();
    assert_eq!((sequences, fixture.state("order-1").total), (vec![1, 2, 3], 6));
}

#[test]
fn a_repeated_id_is_dropped() {
    let mut fixture = Fixture::new();
    let (partition, offset) = fixture.ping("order-1", "order-1", "count", 3);
    let twin = fixture.log.records[&(SOURCE.to_owned(), partition)][usize::try_from(offset).unwrap()].clone();
    fixture.append(SOURCE, partition, twin);
    fixture.settle();
    assert_eq!((fixture.records_on(EVENTS).len(), fixture.state("order-1").total), (1, 3));
    fixture.recover_all(&[]);
    fixture.settle();
    assert_eq!(fixture.records_on(EVENTS).len(), 1, "nor after a restart that reads everything again");
}

#[test]
fn an_input_for_an_entity_of_another_partition_is_forwarded_and_decided_there() {
    let (order, other, _) = keys();
    let mut fixture = Fixture::new();
    let place = fixture.ping(order, &other, "count", 3);
    let original = fixture.log.records[&(SOURCE.to_owned(), place.0)][0].clone();
    fixture.settle();
    let (partition, offset, forwarded) = fixture.records_on(INBOX).pop().unwrap();
    assert_eq!(partition, partition_of(other.as_bytes(), PARTITIONS));
    assert_eq!((&forwarded.value, forwarded.timestamp_ms), (&original.value, original.timestamp_ms));
    let (was, is) = (original.envelope(SOURCE, place.0, 0), forwarded.envelope(INBOX, partition, offset));
    assert_eq!((is.id, &is.correlation_id, &is.subject), (was.id, &was.correlation_id, &was.subject));
    let (p, o, event) = fixture.records_on(EVENTS).pop().unwrap();
    let event = event.envelope(EVENTS, p, o);
    assert_eq!(event.subject, other);
    assert_eq!(event.cause_position, Some(Position::new(INBOX, partition, offset)));
    assert_eq!(event.origin_position, Some(Position::new(SOURCE, place.0, place.1)));
    assert_eq!(fixture.state(&other).total, 3);
    assert_eq!(fixture.records_on(INBOX).len(), 1, "forwarded once");
}

#[test]
fn an_entity_that_lives_here_is_decided_here_whatever_the_key() {
    let (order, _, neighbour) = keys();
    let mut fixture = Fixture::new();
    fixture.ping(order, &neighbour, "count", 3);
    fixture.settle();
    assert_eq!((fixture.state(&neighbour).total, fixture.records_on(INBOX).len()), (3, 0));
}

#[test]
fn a_forwarded_record_in_the_wrong_partition_is_dead_lettered_and_not_forwarded_again() {
    let (order, other, _) = keys();
    let mut fixture = Fixture::new();
    let place = fixture.ping(order, &other, "count", 3);
    let mut astray = fixture.log.records[&(SOURCE.to_owned(), place.0)][0].clone();
    astray.headers.push(("ce_originposition".to_owned(), Some(b"musiccorp.source.events/0/0".to_vec())));
    let partition = partition_of(order.as_bytes(), PARTITIONS);
    fixture.append(INBOX, partition, astray);
    assert_eq!(fixture.receive(INBOX, (partition, 0)), ReceiveOutcome::Done);
    fixture.commit();
    let (_, _, dead_letter) = fixture.records_on(DEAD_LETTERS).pop().unwrap();
    assert_eq!(dead_letter.header("musiccorp.errors.class").as_deref(), Some("routing"));
}

#[test]
fn a_command_to_another_entity_is_appended_to_its_partition() {
    let mut fixture = Fixture::new();
    fixture.ping("order-1", "order-1", "pass-on", 9);
    fixture.settle();
    assert_eq!(fixture.state("order-1-friend").total, 9);
    let (partition, offset, command) = fixture.records_on(INBOX).pop().unwrap();
    assert_eq!(partition, partition_of(b"order-1-friend", PARTITIONS));
    let envelope = command.envelope(INBOX, partition, offset);
    assert_eq!((envelope.subject.as_str(), envelope.correlation_id.as_str()), ("order-1-friend", "saga of order-1"));
    assert_eq!((envelope.causation_id, envelope.sequence), (Some(derived_id(&["test", "1"])), None));
}

#[test]
fn an_unreadable_record_is_dead_lettered_with_its_bytes_and_its_position() {
    let mut fixture = Fixture::new();
    fixture.ping("order-1", "order-1", "count", 1);
    let partition = partition_of(b"order-1", PARTITIONS);
    let good = fixture.log.records[&(SOURCE.to_owned(), partition)][0].clone();
    let value = good.value.clone().unwrap();
    let with = |value: Option<Vec<u8>>| StoredRecord { value, ..good.clone() };
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
        ("key", StoredRecord { key: None, ..good.clone() }),
        ("key", StoredRecord { key: Some(vec![0xff]), ..good.clone() }),
    ];
    for (_, stored) in &cases {
        fixture.append(SOURCE, partition, stored.clone());
    }
    fixture.ping("order-1", "order-1", "count", 1);
    fixture.settle();
    let dead_letters = fixture.records_on(DEAD_LETTERS);
    assert_eq!(dead_letters.len(), cases.len());
    for (offset, ((class, stored), (_, _, dead_letter))) in (1..).zip(cases.iter().zip(&dead_letters)) {
        assert_eq!((&dead_letter.key, &dead_letter.value), (&stored.key, &stored.value), "{class}");
        assert_eq!(dead_letter.headers[..stored.headers.len()], stored.headers, "{class}");
        assert_eq!(dead_letter.header("musiccorp.errors.class").as_deref(), Some(*class));
        assert_eq!(dead_letter.header("__dlq.errors.topic").as_deref(), Some(SOURCE));
        assert_eq!(dead_letter.header("__dlq.errors.partition"), Some(partition.to_string()));
        assert_eq!(dead_letter.header("__dlq.errors.offset"), Some(i32::to_string(&offset)));
        assert_eq!(dead_letter.header("__dlq.errors.group").as_deref(), Some("musiccorp.probe"));
        assert!(dead_letter.header("__dlq.errors.message").is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(fixture.state("order-1").total, 2, "the records before and behind them are decided");
}

#[test]
fn a_dead_letter_that_is_too_large_for_its_topic_keeps_the_headers_that_readers_need() {
    let mut fixture = Fixture::new();
    fixture.limits.dead_letters = 100_000;
    fixture.recover_all(&[]);
    let partition = partition_of(b"order-1", PARTITIONS);
    let header = |name: &str, value: Vec<u8>| (name.to_owned(), Some(value));
    let small = || header("ce_correlationid", b"saga-1".to_vec());
    let stored = |key: &[u8], value: usize, headers| StoredRecord {
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
        fixture.append(SOURCE, partition, stored.clone());
    }
    fixture.settle();
    let dead_letters = fixture.records_on(DEAD_LETTERS);
    assert_eq!(dead_letters.len(), cases.len());
    for (offset, ((omitted, stored), (_, _, dead_letter))) in (0..).zip(cases.iter().zip(&dead_letters)) {
        let is_omitted = |part: &str| omitted.is_some_and(|omitted| omitted.contains(part));
        assert_eq!(dead_letter.header("musiccorp.errors.omitted").as_deref(), *omitted);
        assert_eq!(dead_letter.value.is_none(), is_omitted("value"));
        assert_eq!(dead_letter.key.is_none(), is_omitted("key"), "{:?}", dead_letter.key.as_ref().map(Vec::len));
        let kept_headers = dead_letter.headers.len() - 8 - usize::from(omitted.is_some());
        assert_eq!(kept_headers < stored.headers.len(), is_omitted("headers"));
        assert_eq!(dead_letter.header("ce_correlationid").as_deref(), Some("saga-1"));
        assert_eq!(dead_letter.header("musiccorp.errors.class").as_deref(), Some("framing"));
        assert_eq!(
            dead_letter.header("__dlq.errors.offset"),
            Some(i32::to_string(&offset)),
            "the position of the whole record"
        );
        let bytes: usize =
            dead_letter.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        assert!(bytes + dead_letter.value.as_ref().map_or(0, Vec::len) < 100_000);
    }
}

#[test]
fn a_record_that_is_too_large_to_be_forwarded_is_dead_lettered() {
    let mut fixture = Fixture::new();
    fixture.limits.inbox = 10_000;
    fixture.recover_all(&[]);
    let elsewhere = (0..)
        .map(|n| format!("order-{n}"))
        .find(|key| partition_of(key.as_bytes(), PARTITIONS) != partition_of(b"order-1", PARTITIONS));
    let elsewhere = elsewhere.unwrap();
    fixture.ping("order-1", &elsewhere, &"x".repeat(10_000), 1);
    fixture.ping("order-1", &elsewhere, "count", 1);
    fixture.settle();
    let dead_letters = fixture.records_on(DEAD_LETTERS);
    assert_eq!(dead_letters.len(), 1);
    assert_eq!(dead_letters[0].2.header("musiccorp.errors.class").as_deref(), Some("size"));
    assert!(dead_letters[0].2.value.as_ref().is_some_and(|value| value.len() > 10_000), "it is whole");
    assert_eq!(fixture.state(&elsewhere).total, 1, "the record behind it is decided");
}

#[test]
fn a_decision_that_is_too_large_for_its_topic_holds_its_partition_and_reports_the_size() {
    let mut fixture = Fixture::new();
    (fixture.limits.events, fixture.limits.inbox) = (10_000, 10_000);
    fixture.recover_all(&[]);
    let at = fixture.ping("order-1", "order-1", "ask", 1);
    assert_eq!(fixture.receive(SOURCE, at), ReceiveOutcome::Done);
    let long = format!("order-1{}", "x".repeat(5_000));
    let key = (0..).map(|n| format!("{long}{n}")).find(|key| partition_of(key.as_bytes(), PARTITIONS) == at.0).unwrap();
    let at = fixture.ping("order-1", &key, "ask", 2);
    let ReceiveOutcome::Failed(failure) = fixture.receive(SOURCE, at) else {
        panic!("an event of 10,000 bytes is written")
    };
    assert!(
        failure.reason.contains("an event cannot be produced: it has up to 15") && !failure.loses_state,
        "{}",
        failure.reason
    );
    assert!(failure.reason.contains("raise max.message.bytes"), "{}", failure.reason);
}

#[test]
fn an_unavailable_registry_holds_the_partition_and_loses_nothing() {
    let mut fixture = Fixture::new();
    let partition = partition_of(b"order-1", PARTITIONS);
    let unreadable = StoredRecord {
        timestamp_ms: NOW,
        key: Some(b"order-1".to_vec()),
        value: Some(body_of_unavailable_schema()),
        headers: vec![],
    };
    fixture.append(SOURCE, partition, unreadable);
    assert!(
        matches!(fixture.receive(SOURCE, (partition, 0)), ReceiveOutcome::SchemaUnavailable(reason) if reason.contains("the registry is down"))
    );
    assert_eq!(fixture.machine.held().count(), 1);
    assert!(fixture.machine.batch().is_empty());
}

#[test]
fn a_record_type_that_is_not_consumed_is_skipped() {
    let mut fixture = Fixture::new();
    fixture.write(SOURCE, "order-1", &Source::from(Unrelated { text: "x".to_owned() }));
    let (partition, offset) = (partition_of(b"order-1", PARTITIONS), 0);
    let value = fixture.log.records[&(SOURCE.to_owned(), partition)][0].value.clone().unwrap();
    assert!(!fixture.machine.contract().is_not_consumed(&value), "not known yet");
    assert_eq!(fixture.receive(SOURCE, (partition, offset)), ReceiveOutcome::Done);
    assert!(fixture.machine.contract().is_not_consumed(&value));
    assert_eq!((fixture.machine.batch().outputs().len(), fixture.machine.batch().positions().count()), (0, 1));
}

#[test]
fn a_decider_that_panics_holds_its_partition_only_and_skips_nothing() {
    let (order, other, _) = keys();
    let mut fixture = Fixture::new();
    fixture.probe.fragile.store(true, Ordering::SeqCst);
    let bad = fixture.ping(order, order, "panic", 1);
    let behind = fixture.ping(order, order, "count", 1);
    let elsewhere = fixture.ping(&other, &other, "count", 1);
    let ReceiveOutcome::Failed(failure) = fixture.receive(SOURCE, bad) else { panic!("the probe must panic") };
    assert_eq!((failure.position, failure.loses_state), (Position::new(SOURCE, bad.0, bad.1), false));
    assert!(failure.reason.contains("injected panic"), "{}", failure.reason);
    assert_eq!(fixture.receive(SOURCE, behind), ReceiveOutcome::Ignored, "it waits behind");
    assert_eq!(fixture.receive(SOURCE, elsewhere), ReceiveOutcome::Done);
    fixture.commit();
    assert_eq!((fixture.state(&other).total, fixture.state(order).total), (1, 0));
    fixture.probe.fragile.store(false, Ordering::SeqCst);
    fixture.machine.resume(bad.0);
    fixture.settle();
    assert_eq!(fixture.state(order).total, 2);
}

#[test]
fn a_rebuild_from_the_log_gives_the_same_states_and_writes_nothing() {
    let mut fixture = Fixture::new();
    for n in 0..60_i64 {
        let key = format!("order-{}", n % 7);
        let mode = ["count", "ask", "pass-on", "wake"][usize::try_from(n % 4).unwrap()];
        fixture.ping(&key, &format!("order-{}", n % 5), mode, n);
    }
    fixture.settle();
    let (before, events) = (fixture.states(), fixture.records_on(EVENTS).len());
    assert!(events >= 60 && before.len() > 5);
    let saved = fixture.machine.save();
    fixture.recover_all(&[]);
    assert_eq!(fixture.states(), before);
    fixture.settle();
    assert_eq!(fixture.records_on(EVENTS).len(), events, "everything was handled before");
    assert_eq!(resumed(&fixture, saved), before, "from checkpoints");
}

/// The states after a start from the checkpoints in `saved` and the log behind them.
fn resumed(fixture: &Fixture, saved: Vec<TaskCheckpoint>) -> BTreeMap<String, (u64, State)> {
    let mut states = BTreeMap::new();
    for task in saved {
        let mut contract = fixture.log.schemas.contract(&fixture.probe);
        let mut recovery = Recovery::new(fixture.probe.clone(), &contract, task.partition);
        let entities = task.entities.iter().map(|(key, bytes)| (&**key, bytes.as_slice()));
        let positions = task.positions.iter().map(|(topic, position)| (&**topic, *position));
        recovery.resume(&contract, task.next, positions, entities).unwrap();
        fixture.log.fold_into(&mut recovery, &mut contract).unwrap();
        let task = recovery.finish(&contract, &[], NOW).unwrap();
        states.extend(
            task.states().into_iter().map(|(key, (sequence, state))| (key.to_owned(), (sequence, state.clone()))),
        );
    }
    states
}

#[test]
fn the_first_checkpoint_after_a_recovery_has_everything_that_was_folded_from_the_log() {
    let mut fixture = Fixture::new();
    for n in 0..40 {
        let key = format!("order-{}", n % 9);
        fixture.ping(&key, &key, "count", n);
    }
    fixture.settle();
    // A crash before anything was saved: the next incarnation folds all of it from the log.
    fixture.recover_all(&[]);
    // Then one entity of each partition changes, and a checkpoint moves past everything.
    for n in 0..9 {
        let key = format!("order-{n}");
        fixture.ping(&key, &key, "count", 100);
    }
    fixture.settle();
    let saved = fixture.machine.save();
    let entities: usize = saved.iter().map(|task| task.entities.len()).sum();
    assert_eq!(entities, fixture.states().len(), "all entities, not only those that changed since");
    // And once more: what is saved is not saved again, what changes is.
    assert!(fixture.machine.save().is_empty());
    assert_eq!(resumed(&fixture, saved), fixture.states());
}

#[test]
fn entities_that_only_the_recovery_changed_are_saved_too() {
    let mut fixture = Fixture::new();
    for n in 0..9 {
        let key = format!("order-{n}");
        fixture.ping(&key, &key, "count", n);
    }
    fixture.settle();
    fixture.recover_all(&[]);
    let saved = fixture.machine.save();
    assert_eq!(resumed(&fixture, saved), fixture.states());
}

#[test]
fn positions_come_from_the_log_when_the_group_has_lost_them() {
    let mut fixture = Fixture::new();
    let (partition, _) = fixture.ping("order-1", "order-1", "count", 1);
    fixture.ping("order-1", "order-1", "count", 1);
    fixture.settle();
    let inputs = fixture.machine.contract().inputs.clone();
    let at = inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
    fixture.recover_all(&[]);
    assert_eq!(fixture.machine.task(partition).unwrap().positions()[at], 2);
    fixture.recover_all(&vec![Some(1); inputs.len()]);
    assert_eq!(fixture.machine.task(partition).unwrap().positions()[at], 1, "the group's offset takes precedence");
}

#[test]
fn a_corrupt_own_log_stops_the_task() {
    let mut fixture = Fixture::new();
    for n in 1..=3 {
        fixture.ping("order-1", "order-1", "count", n);
    }
    fixture.settle();
    let partition = partition_of(b"order-1", PARTITIONS);
    let log = (EVENTS.to_owned(), partition);
    let whole = fixture.log.records[&log].clone();
    let corruption = |fixture: &Fixture| fixture.recovered(partition).map(|_| ()).unwrap_err();

    fixture.log.records.insert(log.clone(), [&whole[..1], &whole[2..]].concat());
    assert!(matches!(corruption(&fixture), LogCorruption::Sequence { expected: 2, found: 3, .. }), "a gap");

    fixture.log.records.insert(log.clone(), [&whole[..], &whole[2..]].concat());
    assert!(fixture.recovered(partition).is_ok(), "the same record twice is a repeat");

    let mut forged = whole.clone();
    forged[2].headers.retain(|(name, _)| name != "ce_id");
    forged[2].headers.push(("ce_id".to_owned(), Some(whole[1].header("ce_id").unwrap().into_bytes())));
    fixture.log.records.insert(log.clone(), forged);
    assert!(matches!(corruption(&fixture), LogCorruption::TwoContents { .. }), "one id, two contents");

    let mut foreign = whole;
    foreign[2].value = Some(vec![1, 2, 3]);
    fixture.log.records.insert(log, foreign);
    assert!(matches!(corruption(&fixture), LogCorruption::Unreadable { .. }), "not a record of ours");
}

#[test]
fn an_effect_is_due_after_its_event_is_committed_and_until_it_is_answered() {
    let mut fixture = Fixture::new();
    let (partition, offset) = fixture.ping("order-1", "order-1", "ask", 7);
    fixture.receive(SOURCE, (partition, offset));
    assert!(fixture.machine.due_effects(9, NOW + 5).is_empty(), "not before the commit");
    fixture.commit();
    let due = fixture.machine.due_effects(9, NOW + 5);
    assert_eq!(
        (due.len(), due[0].due.effect.0.as_str(), due[0].due.correlation_id.as_str()),
        (1, "order-1/7", "saga of order-1")
    );
    fixture.recover_all(&[]);
    assert_eq!(fixture.machine.due_effects(9, NOW + 5).len(), 1, "derived again after a restart");
    let reply = Replied { request: "order-1/7".to_owned(), amount: 5 };
    fixture.write(INBOX, "order-1", &Command::from(reply));
    fixture.settle();
    assert_eq!((fixture.machine.pending_effects(), fixture.state("order-1").total), (0, 5));
    fixture.recover_all(&[]);
    assert!(fixture.machine.due_effects(9, NOW + 5).is_empty(), "a rebuild performs none that was answered");
}

#[test]
fn a_timer_fires_once_after_the_input_that_was_there_first() {
    let mut fixture = Fixture::new();
    let (partition, _) = fixture.ping("order-1", "order-1", "wake", NOW + 100);
    fixture.settle();
    assert!(fixture.machine.needs_ends(NOW + 99).is_empty());
    assert_eq!(fixture.machine.needs_ends(NOW + 100), vec![partition]);
    fixture.ping("order-1", "order-1", "count", 1);
    let source = fixture.machine.contract().inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
    let mut ends = vec![0; fixture.machine.contract().inputs.len()];
    ends[source] = 2;
    fixture.machine.ends_known(partition, NOW + 100, ends);
    fixture.machine.reached(partition, &[], NOW + 100);
    fixture.machine.reached(partition, &[0, 0], NOW + 100);
    assert!(fixture.machine.batch().is_empty(), "one input was there first");
    fixture.receive(SOURCE, (partition, 1));
    fixture.machine.reached(partition, &[0, 0], NOW + 100);
    fixture.commit();
    assert_eq!(fixture.records_on(INBOX).len(), 1);
    fixture.settle();
    assert_eq!((fixture.state("order-1").woken, fixture.state("order-1").total), (1, 1));
    assert!(fixture.machine.needs_ends(NOW + 1_000).is_empty());
    let repeat = RuntimeRecord::from(TimerFired { due_at: NOW + 100 });
    fixture.write(INBOX, "order-1", &repeat);
    fixture.settle();
    assert_eq!(fixture.state("order-1").woken, 1, "no longer awaited");
}

#[test]
fn a_command_in_the_inbox_is_decided() {
    let mut fixture = Fixture::new();
    fixture.write(INBOX, "order-1", &Command::from(Count { amount: 4 }));
    fixture.settle();
    assert_eq!(fixture.state("order-1").total, 4);
    assert_eq!(Input::RECORDS.len(), 4);
}

#[test]
fn an_evicted_entity_is_never_decided_about_without_its_state() {
    let mut fixture = Fixture::new();
    let (partition, _) = fixture.ping("order-1", "order-1", "count", 1);
    fixture.settle();
    let (key, bytes) = fixture.machine.save().remove(0).entities.remove(0);
    assert!(fixture.machine.evict(partition, &key));
    let next = fixture.ping("order-1", "order-1", "count", 10);
    // Asked which entity to load, the decider panics; asked which entity to decide about, it does not.
    fixture.probe.entity_panics_once.store(true, Ordering::SeqCst);
    let ReceiveOutcome::Failed(failure) = fixture.receive(SOURCE, next) else { panic!("it must fail") };
    assert!(failure.reason.contains("is not loaded") && !failure.loses_state, "{}", failure.reason);
    fixture.machine.resume(partition);
    assert_eq!(fixture.receive(SOURCE, next), ReceiveOutcome::NeedsEntity(key.clone()));
    fixture.machine.load(partition, &key, &bytes).unwrap();
    assert_eq!(fixture.receive(SOURCE, next), ReceiveOutcome::Done);
    assert_eq!(fixture.state("order-1").total, 11);
}
