//! Panics of an author's code in the core: each is the failure of a record or of a partition, and none unwinds out of the core. The
//! tests of the service run the same panics in a worker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "log/mod.rs"]
mod log;
#[path = "probe/mod.rs"]
mod probe;

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst};

use log::{EVENTS, Log, NOW, PARTITIONS, SOURCE};
use probe::{
    Probe,
    adder::{Adder, DEFAULT_PANICS},
};
use runtime_core::{
    ContractError, ContractNames, LogCorruption, MAX_CRASHES, Machine, ReceiveOutcome, Recovery, ServiceContract,
    codec::Writers, partition_of,
};

const ORDER: &str = "order-1";

fn here() -> i32 {
    partition_of(ORDER.as_bytes(), PARTITIONS)
}

/// A machine of an adder that owns every partition, recovered from checkpoints and from the log behind them.
fn recovered(log: &Log, saved: &BTreeMap<String, Vec<u8>>) -> Result<Machine<Adder>, String> {
    let mut contract = log.schemas.contract(&Probe::default());
    let mut machine = Machine::new(Adder, contract.clone());
    for partition in 0..PARTITIONS {
        let mut recovery = Recovery::new(Adder, &contract, partition);
        let of = |key: &&str| partition_of(key.as_bytes(), PARTITIONS) == partition;
        let keys: Vec<&str> = saved.keys().map(String::as_str).filter(of).collect();
        let entities = keys.iter().map(|key| (*key, saved[*key].as_slice()));
        let next = if keys.is_empty() { 0 } else { log.end(EVENTS, partition) };
        recovery.resume(&contract, next, [], entities).map_err(|error| error.to_string())?;
        log.fold_into(&mut recovery, &mut contract).map_err(|error| error.to_string())?;
        machine.adopt(recovery.finish(&contract, &[], NOW).unwrap());
    }
    Ok(machine)
}

fn receive(machine: &mut Machine<Adder>, log: &Log, offset: i64) -> ReceiveOutcome {
    let input = machine.contract().inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
    log.at(SOURCE, here(), offset).unwrap().with(SOURCE, here(), offset, |record| {
        loop {
            match machine.receive(input, record, NOW) {
                ReceiveOutcome::NeedsSchema(schema) => machine.learn(schema, log.schemas.fetch(schema)),
                outcome => return outcome,
            }
        }
    })
}

#[test]
fn a_default_state_that_panics_fails_the_record_the_partition_or_the_checkpoint() {
    let mut log = Log::default();
    let mut machine = recovered(&log, &BTreeMap::new()).unwrap();
    log.ping(ORDER, ORDER, "count", 1);
    DEFAULT_PANICS.store(true, SeqCst);
    for _ in 1..MAX_CRASHES {
        let ReceiveOutcome::Failed(failure) = receive(&mut machine, &log, 0) else { panic!("it must fail") };
        assert_eq!((failure.reason.as_str(), failure.loses_state), ("State::default panicked: injected panic", false));
        machine.resume(here());
    }
    assert_eq!(receive(&mut machine, &log, 0), ReceiveOutcome::Done, "it is parked");
    assert_eq!(machine.task(here()).unwrap().parked().count(), 1);
    // The decider is fixed, and broken again.
    DEFAULT_PANICS.store(false, SeqCst);
    let mut machine = recovered(&log, &BTreeMap::new()).unwrap();
    assert_eq!(receive(&mut machine, &log, 0), ReceiveOutcome::Done);
    let ends = log.append_batch(machine.batch());
    machine.committed(&ends, NOW);
    let entities = machine.save().remove(0).entities;
    let saved: BTreeMap<String, Vec<u8>> = entities.into_iter().map(|(key, bytes)| (key.to_string(), bytes)).collect();
    assert!(recovered(&log, &saved).is_ok());
    DEFAULT_PANICS.store(true, SeqCst);
    let refused = recovered(&log, &BTreeMap::new()).err().unwrap();
    assert!(refused.contains("own log at musiccorp.probe.events") && refused.contains("State::default"), "{refused}");
    let discarded = recovered(&log, &saved).err().unwrap();
    assert!(discarded.contains("checkpoint of an entity is malformed: State::default"), "{discarded}");
}

#[test]
fn shares_keys_with_that_panics_refuses_the_contract_by_name() {
    let probe = Probe { panics_in_shares_keys_with: true, ..Probe::default() };
    let names = ContractNames { system: "musiccorp", group: "g", build: "b", partitions: PARTITIONS };
    let writers = Writers::with_ids("musiccorp", &[], |_, _| Ok(1)).unwrap();
    let refused = ServiceContract::of(&probe, names, writers).err().unwrap();
    assert!(matches!(refused, ContractError::Panicked { service: "probe", owner: "source", .. }), "{refused}");
    assert!(refused.to_string().contains("injected panic in shares_keys_with"), "{refused}");
}

#[test]
fn a_recovered_state_over_which_the_decider_panics_refuses_its_partition_by_name() {
    for (mode, amount, what) in [
        ("ask", probe::PANICS_IN_PENDING, "pending panicked: injected panic in pending"),
        ("wake", probe::PANICS_IN_WAKE_AT, "wake_at panicked: injected panic in wake_at"),
    ] {
        let (mut log, probe) = (Log::default(), Probe::default());
        log.ping(ORDER, ORDER, mode, amount);
        let mut contract = log.schemas.contract(&probe);
        let mut machine = Machine::new(probe.clone(), contract.clone());
        let unread = contract.clone();
        let recovery = || Recovery::new(probe.clone(), &unread, here());
        machine.adopt(recovery().finish(&contract, &[], NOW).unwrap());
        let input = contract.inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
        log.at(SOURCE, here(), 0).unwrap().with(SOURCE, here(), 0, |record| {
            while let ReceiveOutcome::NeedsSchema(schema) = machine.receive(input, record, NOW) {
                machine.learn(schema, log.schemas.fetch(schema));
            }
        });
        let mut recovery = recovery();
        log.append_batch(machine.batch());
        log.fold_into(&mut recovery, &mut contract).unwrap();
        probe.fragile.store(true, SeqCst);
        let refused = recovery.finish(&contract, &[], NOW).err().unwrap();
        assert!(matches!(refused, LogCorruption::StatePanicked { .. }), "{refused}");
        let text = refused.to_string();
        let place = format!("entity {ORDER} in {EVENTS}/{}", here());
        assert!(text.contains(&place) && text.contains(what), "{text}");
    }
}
