//! A rolling upgrade: records that a newer build has written come to an older one, which does not have their types.

use runtime_core::{
    FoldOutcome, LogCorruption, ReceiveOutcome, Recovery,
    envelope::{Envelope, Position, derived_id},
    partition_of,
};

use crate::{
    fixture::{EVENTS, Fixture, INBOX, NOW, PARTITIONS, StoredRecord},
    probe::{Command, Count},
};

const ORDER: &str = "order-1";
/// The schema of a type that only the newer build has.
const NEW_SCHEMA: u32 = 500;

fn here() -> i32 {
    partition_of(ORDER.as_bytes(), PARTITIONS)
}

/// A record of a type that this build does not have, as `source` writes it.
fn new_record(fixture: &Fixture, name: &str, source: &str, sequence: Option<u64>) -> StoredRecord {
    let (namespace, short) = name.rsplit_once('.').unwrap();
    let text = format!(r#"{{"type":"record","name":"{short}","namespace":"{namespace}","fields":[]}}"#);
    fixture.log.schemas.register_as(NEW_SCHEMA, &text);
    let envelope = Envelope::new(derived_id(&["new", name]), source, name, NOW).about(ORDER).correlated("saga");
    let envelope = Envelope { sequence, build: Some("build-2".into()), ..envelope };
    let mut headers = Vec::new();
    envelope.for_each_header(|name, value| headers.push((name.to_owned(), Some(value.as_bytes().to_vec()))));
    let value = [&[0][..], &NEW_SCHEMA.to_be_bytes()].concat();
    StoredRecord { timestamp_ms: NOW, key: Some(ORDER.into()), value: Some(value), headers }
}

/// A probe that has counted once, and then an event of a type that it does not have.
fn with_new_event(name: &str, source: &str) -> LogCorruption {
    let mut fixture = Fixture::new();
    fixture.ping(ORDER, ORDER, "count", 1);
    fixture.settle();
    let event = new_record(&fixture, name, source, Some(2));
    fixture.append(EVENTS, here(), event);
    assert!(fixture.recovered((here() + 1) % PARTITIONS).is_ok(), "other partitions go on");
    fixture.recovered(here()).err().unwrap()
}

#[test]
fn an_own_event_that_this_build_does_not_have_holds_its_partition_and_is_no_corruption() {
    let held = with_new_event("com.musiccorp.probe.Shipped", "/musiccorp/probe");
    assert!(!held.is_final(), "{held}");
    let said = held.to_string();
    let place =
        format!("{EVENTS}/{}/1 has the event com.musiccorp.probe.Shipped (schema 500) of build build-2", here());
    assert!(said.starts_with(&place) && said.contains("this build (test-build)") && said.contains("upgrade"), "{said}");
}

#[test]
fn a_foreign_record_in_the_own_log_is_a_corruption_whatever_it_is_called() {
    for (name, source) in [
        ("com.musiccorp.probe.Shipped", "/musiccorp/source"),
        ("com.musiccorp.probe2.Shipped", "/musiccorp/probe"),
        ("com.musiccorp.source.Pinged2", "/musiccorp/probe"),
    ] {
        let refused = with_new_event(name, source);
        assert!(matches!(refused, LogCorruption::Unreadable { .. }) && refused.is_final(), "{name}: {refused}");
    }
}

#[test]
fn an_own_command_that_this_build_does_not_have_is_not_skipped() {
    let mut fixture = Fixture::new();
    let command = new_record(&fixture, "com.musiccorp.probe.Ship", "/musiccorp/probe", None);
    let value = command.value.clone().unwrap();
    let offset = fixture.append(INBOX, here(), command);
    let behind = fixture.write(INBOX, ORDER, &Command::from(Count { amount: 3 }));
    for _ in 0..2 {
        let received = fixture.receive(INBOX, (here(), offset));
        let ReceiveOutcome::OfAnotherBuild(reason) = received else { panic!("{received:?}") };
        assert!(reason.contains("com.musiccorp.probe.Ship (schema 500)") && reason.contains("test-build"), "{reason}");
        assert!(!fixture.machine.contract().is_not_consumed(&value), "nor passed over by its schema alone");
        let (held, at) = fixture.machine.held().next().unwrap();
        assert_eq!((held, &at.position), (here(), &Position::new(INBOX, here(), offset)));
        assert_eq!(fixture.receive(INBOX, behind), ReceiveOutcome::Ignored, "it waits behind it");
        assert!(fixture.machine.batch().is_empty());
        fixture.machine.resume(here());
    }
}

#[test]
fn a_command_of_the_same_name_on_another_topic_is_skipped() {
    let mut fixture = Fixture::new();
    let record = new_record(&fixture, "com.musiccorp.probe.Ship", "/musiccorp/probe", None);
    let offset = fixture.append(crate::SOURCE, here(), record);
    assert_eq!(fixture.receive(crate::SOURCE, (here(), offset)), ReceiveOutcome::Done);
}

#[test]
fn an_own_event_whose_schema_the_registry_has_lost_is_no_corruption() {
    let mut fixture = Fixture::new();
    fixture.ping(ORDER, ORDER, "count", 1);
    fixture.settle();
    let mut event = fixture.log.at(EVENTS, here(), 0).unwrap().clone();
    event.value.as_mut().unwrap()[1..5].copy_from_slice(&NEW_SCHEMA.to_be_bytes());
    let mut contract = fixture.log.schemas.contract(&fixture.probe);
    let mut recovery = Recovery::new(fixture.probe.clone(), &contract, here());
    let folded = event.with(EVENTS, here(), 0, |record| {
        while let FoldOutcome::NeedsSchema(schema) = recovery.fold(&contract, record).unwrap() {
            contract.learn(schema, fixture.log.schemas.fetch(schema));
        }
        recovery.fold(&contract, record).unwrap()
    });
    assert!(matches!(&folded, FoldOutcome::SchemaUnavailable(reason) if reason.contains("schema 500")), "{folded:?}");
}
