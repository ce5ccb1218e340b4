//! The recovery of partitions: the order of its questions, what a checkpoint spares it, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "log/mod.rs"]
mod log;
#[path = "probe/mod.rs"]
mod probe;

use std::{collections::BTreeMap, sync::Arc};

use log::{EVENTS, INBOX, Log, NOW, PARKED, PARTITIONS, SOURCE, StoredRecord, key_in};
use probe::Probe;
use runtime_core::{
    FoldOutcome, LogCorruption, Machine, ReceiveOutcome, Task, TaskCheckpoint,
    log_bounds::{AllBounds, LogBounds, LogLoss},
    recoveries::{
        CommittedOffsets, LoadedCheckpoint, Opened, ReadFrom, Recoveries, RecoveryEnd, RecoveryStart, RecoveryStep,
        StartAt,
    },
};

/// A log of the probe, and what its group has committed.
struct Fixture {
    log: Log,
    probe: Probe,
    bounds: BTreeMap<(&'static str, i32), LogBounds>,
    offsets: BTreeMap<i32, CommittedOffsets>,
}

impl Fixture {
    fn new() -> Self {
        Self { log: Log::default(), probe: Probe::default(), bounds: BTreeMap::new(), offsets: BTreeMap::new() }
    }

    /// A log on which this many counts of one were decided in each partition, everything committed. Returns its checkpoints too.
    fn after_counts(counts: usize) -> (Self, Vec<TaskCheckpoint>) {
        let mut fixture = Self::new();
        let contract = fixture.log.schemas.contract(&fixture.probe);
        let mut machine = Machine::new(fixture.probe.clone(), contract.clone());
        let source = contract.inputs.iter().position(|topic| **topic == *SOURCE).unwrap();
        for partition in 0..PARTITIONS {
            let recovery = runtime_core::Recovery::new(fixture.probe.clone(), &contract, partition);
            machine.adopt(recovery.finish(&contract, &[], NOW).unwrap());
            for offset in 0..i64::try_from(counts).unwrap() {
                let key = key_in(partition);
                fixture.log.ping(&key, &key, "count", 1);
                let record = fixture.log.at(SOURCE, partition, offset).unwrap();
                record.with(SOURCE, partition, offset, |record| {
                    while let ReceiveOutcome::NeedsSchema(schema) = machine.receive(source, record, NOW) {
                        machine.learn(schema, fixture.log.schemas.fetch(schema));
                    }
                });
            }
        }
        let ends = fixture.log.append_batch(machine.batch());
        machine.committed(&ends, NOW);
        for task in machine.tasks() {
            let inputs = task.positions().iter().map(|position| Some(*position)).collect();
            let committed = CommittedOffsets { inputs, own_end: task.own_next() };
            fixture.offsets.insert(task.partition(), committed);
        }
        let saved = machine.save();
        (fixture, saved)
    }

    fn recoveries(&self, partitions: impl IntoIterator<Item = i32>) -> Recoveries<Probe> {
        Recoveries::new(self.probe.clone(), self.log.schemas.contract(&self.probe), partitions)
    }

    fn bounds(&self) -> AllBounds {
        let of = |topic: &'static str, partition: i32| {
            let whole = LogBounds { first: 0, end: self.log.end(topic, partition) };
            self.bounds.get(&(topic, partition)).copied().unwrap_or(whole)
        };
        let topics = [EVENTS, INBOX, PARKED, SOURCE];
        let all = topics.into_iter().flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)));
        all.map(|(topic, partition)| ((Arc::from(topic), partition), of(topic, partition))).collect()
    }

    /// Answers both questions.
    fn start(&self, recoveries: &mut Recoveries<Probe>) -> Arc<RecoveryStart> {
        assert_eq!(recoveries.step(), RecoveryStep::FetchOffsets);
        recoveries.offsets_fetched(self.offsets.clone());
        assert_eq!(recoveries.step(), RecoveryStep::FetchBounds);
        let start = recoveries.bounds_fetched(self.bounds());
        assert_eq!(recoveries.step(), RecoveryStep::Read);
        start
    }

    /// Opens a partition at its checkpoint, if it has one.
    fn open(&self, start: &RecoveryStart, partition: i32, saved: &[TaskCheckpoint]) -> Result<Opened<Probe>, LogLoss> {
        let saved = saved.iter().find(|saved| saved.partition == partition);
        let checkpoint = saved.map(|saved| LoadedCheckpoint {
            position: saved.next,
            inputs: saved.positions.iter().map(|(topic, position)| (&**topic, *position)),
            entities: saved.entities.iter().map(|(key, bytes)| (&**key, bytes.as_slice())),
        });
        start.open(&self.probe, partition, checkpoint)
    }

    /// Reads what is to be read to its end. Returns how many records that were.
    fn read(&self, recoveries: &mut Recoveries<Probe>, read: &[ReadFrom]) -> Result<i64, LogCorruption> {
        let mut records = 0;
        for (topic, partition, start) in read {
            let first = if let StartAt::Offset(offset) = start { *offset } else { 0 };
            let end = self.log.end(topic, *partition);
            for offset in first..end {
                records += 1;
                let record = self.log.at(topic, *partition, offset).unwrap();
                record.with(topic, *partition, offset, |record| {
                    while let FoldOutcome::NeedsSchema(schema) = recoveries.receive(record)? {
                        recoveries.learn(schema, self.log.schemas.fetch(schema));
                    }
                    Ok(())
                })?;
            }
            if **topic == *EVENTS {
                recoveries.reached_own(*partition, end);
            } else {
                recoveries.reached_parked(*partition, end);
            }
        }
        Ok(records)
    }

    /// Recovers one partition. Returns how many records were read for it.
    fn recover(&self, partition: i32, saved: &[TaskCheckpoint]) -> Result<(Task<Probe>, i64), String> {
        let mut recoveries = self.recoveries([partition]);
        let start = self.start(&mut recoveries);
        let opened = self.open(&start, partition, saved).map_err(|loss| loss.to_string())?;
        let read = recoveries.opened(opened);
        let records = self.read(&mut recoveries, &read).map_err(|corruption| corruption.to_string())?;
        let ended = recoveries.finish(NOW).map_err(|loss| loss.to_string())?;
        match ended.into_iter().next().unwrap() {
            RecoveryEnd::Recovered(task) => Ok((*task, records)),
            RecoveryEnd::Refused(_, corruption) => Err(corruption.to_string()),
        }
    }

    fn refusal(&self, partition: i32, saved: &[TaskCheckpoint]) -> String {
        self.recover(partition, saved).err().expect("a refusal")
    }
}

fn total(task: &Task<Probe>) -> i64 {
    task.state(&key_in(task.partition())).map_or(0, |state| state.total)
}

#[test]
fn offsets_are_asked_for_first_then_bounds_and_then_the_logs_are_read() {
    let (fixture, _) = Fixture::after_counts(3);
    let mut recoveries = fixture.recoveries([0, 2]);
    let start = fixture.start(&mut recoveries);
    for partition in [0, 2] {
        let read = recoveries.opened(fixture.open(&start, partition, &[]).unwrap());
        assert_eq!(read, [(Arc::from(EVENTS), partition, StartAt::Offset(0))], "the parked topic is empty");
        assert!(recoveries.finish(NOW).unwrap().is_empty(), "nothing is read yet");
        fixture.read(&mut recoveries, &read).unwrap();
        let ended = recoveries.finish(NOW).unwrap();
        let [RecoveryEnd::Recovered(task)] = &ended[..] else { panic!("{}", ended.len()) };
        assert_eq!((task.partition(), total(task)), (partition, 3), "each one from the moment at which it is read");
    }
    assert_eq!(recoveries.step(), RecoveryStep::Done);
}

#[test]
fn bounds_that_are_asked_for_too_early_count_for_nothing() {
    let (mut fixture, _) = Fixture::after_counts(1);
    let whole = fixture.bounds();
    let mut recoveries = fixture.recoveries([0]);
    // Asked for before the offsets were stable, when the log was still empty.
    fixture.bounds.insert((EVENTS, 0), LogBounds::default());
    let early = recoveries.bounds_fetched(fixture.bounds());
    assert_eq!(recoveries.step(), RecoveryStep::FetchOffsets);
    recoveries.opened(fixture.open(&early, 0, &[]).unwrap());
    assert!(recoveries.finish(NOW).unwrap().is_empty(), "it has not passed the barrier");
    recoveries.offsets_fetched(fixture.offsets.clone());
    assert_eq!(recoveries.step(), RecoveryStep::FetchBounds);
    let start = recoveries.bounds_fetched(whole);
    let read = recoveries.opened(fixture.open(&start, 0, &[]).unwrap());
    assert!(recoveries.finish(NOW).unwrap().is_empty());
    fixture.read(&mut recoveries, &read).unwrap();
    assert_eq!(recoveries.finish(NOW).unwrap().len(), 1);
}

#[test]
fn a_partition_waits_for_both_of_its_logs() {
    let mut fixture = Fixture::new();
    fixture.bounds.insert((EVENTS, 0), LogBounds { first: 0, end: 2 });
    fixture.bounds.insert((PARKED, 0), LogBounds { first: 5, end: 7 });
    let mut recoveries = fixture.recoveries([0]);
    let start = fixture.start(&mut recoveries);
    let read = recoveries.opened(fixture.open(&start, 0, &[]).unwrap());
    let parked = (Arc::from(PARKED), 0, StartAt::Beginning);
    assert_eq!(read, [(Arc::from(EVENTS), 0, StartAt::Offset(0)), parked]);
    // What ends a log need not be a record: the marker of a transaction counts.
    recoveries.reached_own(0, 2);
    assert!(recoveries.finish(NOW).unwrap().is_empty());
    recoveries.reached_parked(0, 6);
    assert!(recoveries.finish(NOW).unwrap().is_empty());
    recoveries.reached_parked(0, 7);
    assert_eq!(recoveries.finish(NOW).unwrap().len(), 1);
}

#[test]
fn nothing_is_read_behind_a_checkpoint_that_is_current() {
    let (fixture, saved) = Fixture::after_counts(3);
    let mut recoveries = fixture.recoveries([1]);
    let start = fixture.start(&mut recoveries);
    assert!(recoveries.opened(fixture.open(&start, 1, &saved).unwrap()).is_empty());
    let ended = recoveries.finish(NOW).unwrap();
    let [RecoveryEnd::Recovered(task)] = &ended[..] else { panic!("{}", ended.len()) };
    assert_eq!((total(task), task.own_next()), (3, 3));
}

#[test]
fn only_what_lies_behind_an_older_checkpoint_is_read() {
    let (fixture, _) = Fixture::after_counts(5);
    let (_, older) = Fixture::after_counts(3);
    let (task, records) = fixture.recover(2, &older).unwrap();
    assert_eq!((total(&task), records), (5, 2));
}

#[test]
fn a_malformed_checkpoint_is_discarded_and_the_log_is_read_from_its_beginning() {
    let (fixture, mut saved) = Fixture::after_counts(3);
    saved[1].entities[0].1.truncate(7);
    let mut recoveries = fixture.recoveries([1]);
    let start = fixture.start(&mut recoveries);
    let opened = fixture.open(&start, 1, &saved).unwrap();
    let reason = opened.discarded.as_ref().unwrap().to_string();
    assert!(reason.contains("it ends too early"), "{reason}");
    assert_eq!(recoveries.opened(opened), [(Arc::from(EVENTS), 1, StartAt::Offset(0))]);
    let (task, records) = fixture.recover(1, &saved).unwrap();
    assert_eq!((total(&task), records), (3, 3));
}

#[test]
fn a_corrupt_log_refuses_its_partition_and_no_other() {
    let (mut fixture, _) = Fixture::after_counts(3);
    let records = fixture.log.records.get_mut(&(EVENTS.to_owned(), 1)).unwrap();
    records[1] = records[2].clone();
    let mut recoveries = fixture.recoveries([0, 1]);
    let start = fixture.start(&mut recoveries);
    for partition in [0, 1] {
        let read = recoveries.opened(fixture.open(&start, partition, &[]).unwrap());
        let folded = fixture.read(&mut recoveries, &read);
        assert_eq!(matches!(folded, Err(LogCorruption::Sequence { .. })), partition == 1, "{folded:?}");
    }
    assert_eq!(recoveries.left().iter().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(recoveries.finish(NOW).unwrap().len(), 1);
    assert_eq!(recoveries.step(), RecoveryStep::Done);
    // What the client still delivers of it is of no interest.
    let record = fixture.log.at(EVENTS, 1, 0).unwrap();
    assert_eq!(record.with(EVENTS, 1, 0, |record| recoveries.receive(record)), Ok(FoldOutcome::Taken));
}

#[test]
fn a_foreign_record_on_the_parked_topic_refuses_the_partition() {
    let mut fixture = Fixture::new();
    let foreign = StoredRecord { timestamp_ms: NOW, key: Some(b"x".to_vec()), value: None, headers: Vec::new() };
    fixture.log.append(PARKED, 3, foreign);
    let refusal = fixture.refusal(3, &[]);
    assert!(refusal.contains("not a parked record"), "{refusal}");
}

#[test]
fn an_own_log_without_its_beginning_is_a_loss() {
    let (mut fixture, saved) = Fixture::after_counts(3);
    fixture.bounds.insert((EVENTS, 0), LogBounds { first: 1, end: 3 });
    for saved in [&saved[..], &[]] {
        let refusal = fixture.refusal(0, saved);
        assert!(refusal.contains(&format!("own log {EVENTS}/0 begins at offset 1: it was truncated")), "{refusal}");
    }
    assert!(fixture.recover(1, &[]).is_ok());
}

#[test]
fn an_own_log_that_ends_before_what_the_group_or_the_store_has_seen_is_a_loss() {
    let (mut fixture, saved) = Fixture::after_counts(3);
    fixture.bounds.insert((EVENTS, 0), LogBounds { first: 0, end: 2 });
    let refusal = fixture.refusal(0, &[]);
    assert!(refusal.contains("the consumer group") && refusal.contains("recreated"), "{refusal}");
    fixture.offsets.clear();
    let refusal = fixture.refusal(0, &saved);
    assert!(refusal.contains("the local store"), "{refusal}");
}

#[test]
fn an_input_that_was_truncated_before_it_was_consumed_is_a_loss() {
    let (mut fixture, _) = Fixture::after_counts(3);
    fixture.bounds.insert((SOURCE, 0), LogBounds { first: 4, end: 9 });
    let refusal = fixture.refusal(0, &[]);
    let expected = format!("input {SOURCE}/0 holds offsets 4 to 8, but group musiccorp.probe continues from offset 3");
    assert!(refusal.contains(&expected) && refusal.contains("truncated"), "{refusal}");
    fixture.bounds.insert((SOURCE, 0), LogBounds { first: 3, end: 9 });
    assert!(fixture.recover(0, &[]).is_ok(), "everything before was consumed");
}

#[test]
fn an_input_that_ends_before_what_was_consumed_is_a_loss() {
    let (mut fixture, _) = Fixture::after_counts(3);
    fixture.bounds.insert((SOURCE, 0), LogBounds { first: 0, end: 2 });
    let refusal = fixture.refusal(0, &[]);
    assert!(refusal.contains("has consumed it up to offset 3: it was recreated"), "{refusal}");
}

#[test]
fn an_event_that_came_after_the_bounds_were_asked_for_bears_no_witness() {
    let (mut fixture, _) = Fixture::after_counts(3);
    fixture.offsets.clear();
    fixture.bounds.insert((SOURCE, 0), LogBounds { first: 0, end: 2 });
    assert!(fixture.refusal(0, &[]).contains("recreated"), "the third event was there, its cause must be too");
    fixture.bounds.insert((EVENTS, 0), LogBounds { first: 0, end: 2 });
    let (task, _) = fixture.recover(0, &[]).unwrap();
    assert_eq!(total(&task), 3, "it is folded all the same");
}

#[test]
fn an_inbox_may_be_truncated_as_long_as_nothing_of_it_was_consumed() {
    let mut fixture = Fixture::new();
    fixture.bounds.insert((INBOX, 0), LogBounds { first: 4, end: 9 });
    let (task, _) = fixture.recover(0, &[]).unwrap();
    assert_eq!(task.positions()[0], 4, "it is read from its beginning, whichever offset that has");
    // Also a group that has consumed nothing yet was there before the records that are gone.
    for committed in [0, 2] {
        fixture.offsets.insert(0, CommittedOffsets { inputs: vec![Some(committed), None], own_end: 0 });
        let refusal = fixture.refusal(0, &[]);
        assert!(refusal.contains(&format!("input {INBOX}/0 holds offsets 4 to 8")), "{refusal}");
        assert!(refusal.contains(&format!("continues from offset {committed}")), "{refusal}");
    }
}

#[test]
fn offsets_that_expired_are_found_in_the_own_log() {
    let (mut fixture, _) = Fixture::after_counts(3);
    fixture.offsets.clear();
    let (task, _) = fixture.recover(0, &[]).unwrap();
    assert_eq!(task.positions().iter().max(), Some(&3));
}
