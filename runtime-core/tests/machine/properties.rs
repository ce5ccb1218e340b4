//! Whatever fails, a state is the fold of what was committed, and what is parked is what the parked topic has.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use proptest::{collection::vec, prelude::*};
use runtime_core::{
    DropParked, ParkedRecord, ParkingCommand, ReceiveOutcome, RetryParked, envelope::Position, partition_of,
};

use crate::{
    fixture::{Fixture, INBOX, NOW, PARTITIONS, SOURCE, StoredRecord},
    probe::{Command, Count, PANICS_IN_EVOLVE},
};

const ENTITIES: [&str; 3] = ["order-1", "order-2", "order-3"];

/// What happens next.
#[derive(Debug, Clone)]
enum Action {
    Count(usize, i64),
    PassOn(usize),
    Panic(usize),
    PanicInEvolve(usize),
    Unreadable(usize, usize),
    /// A readable record with a header of this many bytes.
    Large(usize, usize),
    Retry(usize),
    Drop(usize),
    /// The bugs of the decider appear, or are fixed.
    Fragile(bool),
    /// The limits of the parked topic and of the events topic.
    Limits(usize, usize),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let entity = || 0..ENTITIES.len();
    prop_oneof![
        4 => (entity(), 1..9_i64).prop_map(|(entity, amount)| Action::Count(entity, amount)),
        1 => entity().prop_map(Action::PassOn),
        2 => entity().prop_map(Action::Panic),
        1 => entity().prop_map(Action::PanicInEvolve),
        2 => (entity(), 1..6_000_usize).prop_map(|(entity, bytes)| Action::Unreadable(entity, bytes)),
        2 => (entity(), 1..6_000_usize).prop_map(|(entity, bytes)| Action::Large(entity, bytes)),
        3 => (0..9_usize).prop_map(Action::Retry),
        3 => (0..9_usize).prop_map(Action::Drop),
        2 => any::<bool>().prop_map(Action::Fragile),
        2 => (4_000..12_000_usize, 600..12_000_usize).prop_map(|(parked, events)| Action::Limits(parked, events)),
        1 => Just(Action::Restart),
    ]
}

/// A machine under the actions, and how far its group has come.
struct History {
    fixture: Fixture,
    next: BTreeMap<(&'static str, i32), i64>,
}

impl History {
    fn apply(&mut self, action: &Action) {
        let fixture = &mut self.fixture;
        match *action {
            Action::Count(entity, amount) => {
                fixture.write(INBOX, ENTITIES[entity], &Command::from(Count { amount }));
            }
            Action::PassOn(entity) => {
                fixture.ping(ENTITIES[entity], ENTITIES[entity], "pass-on", 1);
            }
            Action::Panic(entity) => {
                fixture.ping(ENTITIES[entity], ENTITIES[entity], "panic", 1);
            }
            Action::PanicInEvolve(entity) => {
                fixture.write(INBOX, ENTITIES[entity], &Command::from(Count { amount: PANICS_IN_EVOLVE }));
            }
            Action::Unreadable(entity, bytes) => {
                let (key, value) = (Some(ENTITIES[entity].into()), Some(vec![b'x'; bytes]));
                let stored = StoredRecord { timestamp_ms: NOW, key, value, headers: Vec::new() };
                fixture.append(INBOX, partition_of(ENTITIES[entity].as_bytes(), PARTITIONS), stored);
            }
            Action::Large(entity, bytes) => {
                let (partition, offset) = fixture.write(INBOX, ENTITIES[entity], &Command::from(Count { amount: 1 }));
                let records = fixture.log.records.get_mut(&(INBOX.to_owned(), partition)).unwrap();
                let record = &mut records[usize::try_from(offset).unwrap()];
                record.headers.push(("large".to_owned(), Some(vec![b'x'; bytes])));
            }
            Action::Retry(at) => self.operate(at, |position| RetryParked { position, by: "ada".to_owned() }.into()),
            Action::Drop(at) => {
                let drop = |position| DropParked { position, by: "ada".to_owned(), reason: "a test".to_owned() }.into();
                self.operate(at, drop);
            }
            Action::Fragile(fragile) => fixture.probe.fragile.store(fragile, Ordering::SeqCst),
            Action::Limits(parked, events) => {
                (fixture.limits.parked, fixture.limits.events) = (parked, events);
                self.restart();
            }
            Action::Restart => self.restart(),
        }
    }

    fn operate(&mut self, at: usize, command: impl Fn(String) -> ParkingCommand) {
        let parked = self.parked();
        let Some(parked) = parked.get(at % parked.len().max(1)) else { return };
        self.fixture.write(INBOX, &parked.entity, &command(parked.position.to_string()));
    }

    fn parked(&self) -> Vec<ParkedRecord> {
        self.fixture.machine.tasks().flat_map(|task| task.parked().cloned()).collect()
    }

    /// The next process folds the logs, and its group has lost its offsets.
    fn restart(&mut self) {
        // An event that was produced while the decider had no bug stays in its log.
        let fragile = self.fixture.probe.fragile.swap(false, Ordering::SeqCst);
        self.fixture.recover_all(&[]);
        self.fixture.probe.fragile.store(fragile, Ordering::SeqCst);
        self.next.clear();
    }

    /// Receives and commits until nothing is left but what is held.
    fn settle(&mut self) {
        for round in 0..200 {
            for partition in 0..PARTITIONS {
                self.fixture.machine.resume(partition);
            }
            let mut is_done = true;
            for (topic, partition) in
                [INBOX, SOURCE].into_iter().flat_map(|topic| (0..PARTITIONS).map(move |p| (topic, p)))
            {
                match self.receive(topic, partition) {
                    Some(moved) => is_done &= !moved,
                    None => return self.settle_again(round),
                }
            }
            self.commit();
            while self.fixture.machine.may_drain() {
                self.fixture.drain_parked();
                self.commit();
            }
            if is_done {
                return;
            }
        }
    }

    /// A state was lost: the batch is dropped, and the next incarnation knows the record.
    fn settle_again(&mut self, round: u32) {
        self.restart();
        if round < 100 {
            self.settle();
        }
    }

    /// Receives what is left of a partition of an input. Returns whether anything was, or `None` if a state was lost.
    fn receive(&mut self, topic: &'static str, partition: i32) -> Option<bool> {
        let mut has_moved = false;
        let from = self.next.get(&(topic, partition)).copied().unwrap_or(0);
        for offset in from..self.fixture.log.end(topic, partition) {
            match self.fixture.receive(topic, (partition, offset)) {
                ReceiveOutcome::Failed(failure) if failure.loses_state => {
                    self.fixture.crashes.entry(failure.position).or_default().add(&failure.reason);
                    return None;
                }
                ReceiveOutcome::Failed(_) => return Some(true),
                _ => has_moved = true,
            }
            self.next.insert((topic, partition), offset + 1);
        }
        Some(has_moved)
    }

    /// Commits, and compares what is in memory with what the next owner would find.
    fn commit(&mut self) {
        self.fixture.commit();
        for partition in 0..PARTITIONS {
            let task = self.fixture.machine.task(partition).unwrap();
            let contract = self.fixture.log.schemas.contract(&self.fixture.probe);
            let fragile = self.fixture.probe.fragile.swap(false, Ordering::SeqCst);
            let recovered = self.fixture.recovered(partition).unwrap().finish(&contract, &[], NOW).unwrap();
            self.fixture.probe.fragile.store(fragile, Ordering::SeqCst);
            assert_eq!(task.states(), recovered.states(), "the states of partition {partition}");
            let parked = |records: Vec<&ParkedRecord>| -> Vec<(Position, bool)> {
                records.iter().map(|parked| (parked.position.clone(), parked.failure.is_some())).collect()
            };
            assert_eq!(
                parked(task.parked().collect()),
                parked(recovered.parked().collect()),
                "what {partition} has parked"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_is_the_fold_of_what_was_committed_whatever_fails(actions in vec(action(), 1..24)) {
        let mut history = History { fixture: Fixture::new(), next: BTreeMap::new() };
        for action in &actions {
            history.apply(action);
            history.settle();
        }
        // With every bug fixed and room for everything, an operator gets all of it done.
        history.fixture.probe.fragile.store(false, Ordering::SeqCst);
        history.apply(&Action::Limits(1 << 20, 1 << 20));
        history.settle();
        for _ in 0..200 {
            if history.parked().is_empty() {
                break;
            }
            history.apply(&Action::Drop(0));
            history.settle();
        }
        prop_assert_eq!(history.parked().len(), 0);
        prop_assert_eq!(history.fixture.machine.held().count(), 0);
    }
}
