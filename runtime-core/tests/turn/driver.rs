//! A driver in memory: it executes the steps of a turn on a log, and notes each with the time at which it was executed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use runtime_core::{
    DueEffect, Limits, Recovery, Task,
    codec::SchemaRef,
    turn::{Carried, Now, Offer, Pace, Step, Turn, TurnError},
};

use crate::{
    log::{Log, NOW, PARTITIONS, SOURCE},
    probe::{Probe, Request, State},
};

/// A change of the group that the worker has not taken yet.
enum GroupChange {
    Assigned(Vec<i32>),
    Revoked,
}

/// What a transaction had.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Committed {
    pub(crate) generation: u32,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) bytes: usize,
    pub(crate) positions: Vec<(usize, i32, i64)>,
    pub(crate) at: Duration,
}

/// Where the client reads one input of one partition.
struct Reader {
    input: usize,
    topic: String,
    partition: i32,
    next: i64,
}

pub(crate) struct Driver {
    pub(crate) log: Log,
    pub(crate) probe: Probe,
    pub(crate) carried: Carried,
    pub(crate) turn: Turn<Probe, u32>,
    pub(crate) elapsed: Duration,
    /// The steps of the last turn.
    pub(crate) steps: Vec<String>,
    /// Every step with its time.
    pub(crate) history: Vec<(Duration, String)>,
    pub(crate) commits: Vec<Committed>,
    pub(crate) performed: Vec<DueEffect<Request>>,
    /// The generation in which the worker is a member of the group.
    pub(crate) generation: Option<u32>,
    /// Evict every entity that can be evicted, after each turn.
    pub(crate) evicts: bool,
    /// What the topics take, from the next restart on.
    pub(crate) limits: Limits,
    /// Markers behind the last record of a partition: the end, as a client that has passed them reports it.
    pub(crate) marked_ends: BTreeMap<(String, i32), i64>,
    pub(crate) offsets: BTreeMap<(i32, usize), i64>,
    pace: Pace,
    changes: VecDeque<GroupChange>,
    recovering: BTreeSet<i32>,
    readers: Vec<Reader>,
    kept: Option<(usize, String, i32, i64)>,
    store: BTreeMap<(i32, String), Vec<u8>>,
    answers: Vec<DueEffect<Request>>,
}

impl Driver {
    pub(crate) fn new() -> Self {
        Self::with(Pace::default(), Probe::default())
    }

    pub(crate) fn with(pace: Pace, probe: Probe) -> Self {
        let (log, carried, elapsed) = (Log::default(), Carried::default(), Duration::from_secs(1));
        let now = Now { wall_ms: NOW, elapsed };
        let turn = Turn::new(probe.clone(), log.schemas.contract(&probe), &carried, pace.clone(), now);
        // The group was there before.
        let inputs = 0..turn.contract().inputs.len();
        let offsets =
            (0..PARTITIONS).flat_map(|partition| inputs.clone().map(move |input| ((partition, input), 0))).collect();
        Self {
            log,
            probe,
            carried,
            turn,
            elapsed,
            steps: Vec::new(),
            history: Vec::new(),
            commits: Vec::new(),
            performed: Vec::new(),
            generation: Some(1),
            evicts: false,
            limits: Limits::default(),
            marked_ends: BTreeMap::new(),
            offsets,
            pace,
            changes: VecDeque::new(),
            recovering: BTreeSet::new(),
            readers: Vec::new(),
            kept: None,
            store: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    /// A worker that owns every partition.
    pub(crate) fn owner() -> Self {
        Self::new().owning()
    }

    /// The same after the group has assigned every partition.
    pub(crate) fn owning(mut self) -> Self {
        self.assign();
        self.turn();
        assert_eq!(self.turn.machine().tasks().count(), usize::try_from(PARTITIONS).unwrap());
        self
    }

    /// A new incarnation, which owns every partition.
    pub(crate) fn restart(&mut self) {
        let mut contract = self.log.schemas.contract(&self.probe);
        contract.limits = self.limits;
        self.turn = Turn::new(self.probe.clone(), contract, &self.carried, self.pace.clone(), self.now());
        (self.readers, self.kept, self.answers) = (Vec::new(), None, Vec::new());
        self.recovering.clear();
        self.changes.clear();
        self.assign();
        self.turn();
    }

    /// The group assigns every partition in a new generation.
    pub(crate) fn assign(&mut self) {
        self.changes.push_back(GroupChange::Assigned((0..PARTITIONS).collect()));
    }

    /// The group takes every partition back. The membership is that of a later generation from now on.
    pub(crate) fn revoke(&mut self) {
        self.generation = self.generation.map(|generation| generation + 1);
        self.changes.push_back(GroupChange::Revoked);
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall_ms: NOW + i64::try_from(self.elapsed.as_millis()).unwrap(), elapsed: self.elapsed }
    }

    /// Executes the steps of one turn. Returns their names.
    pub(crate) fn turn(&mut self) -> Vec<String> {
        self.try_turn().unwrap()
    }

    pub(crate) fn try_turn(&mut self) -> Result<Vec<String>, TurnError> {
        self.steps.clear();
        loop {
            match self.turn.next(self.now()) {
                Step::Fail(error) => {
                    self.note("fail");
                    self.carried.ended(&error);
                    return Err(error);
                }
                Step::Stop => {
                    self.note("stop");
                    return Ok(self.steps.clone());
                }
                Step::EndTurn => {
                    self.note("end turn");
                    if self.evicts {
                        self.evict_all();
                    }
                    return Ok(self.steps.clone());
                }
                step => self.execute(step),
            }
        }
    }

    /// Executes turns until this much time has passed.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.elapsed + time;
        while self.elapsed < until {
            self.turn();
        }
    }

    /// Executes turns until one has neither received nor committed anything, nor taken partitions over.
    pub(crate) fn settle(&mut self) {
        loop {
            let (before, commits) = (self.elapsed, self.commits.len());
            self.turn();
            if self.elapsed > before
                && self.commits.len() == commits
                && self.turn.batch().is_empty()
                && !self.executed("recover")
            {
                return;
            }
        }
    }

    fn note(&mut self, step: impl Into<String>) {
        let step = step.into();
        self.history.push((self.elapsed, step.clone()));
        self.steps.push(step);
    }

    fn execute(&mut self, step: Step<Probe, u32>) {
        match step {
            Step::SnapshotFence => {
                self.note("snapshot fence");
                self.turn.fence(self.generation);
            }
            Step::FetchSchema(schema) => self.fetch(schema),
            Step::LoadEntity { partition, key } => self.load(partition, &key),
            Step::Gather { rest, wait } => self.gather(rest, wait),
            Step::FetchEnds { partitions } => self.fetch_ends(&partitions),
            Step::ReadPositions { partitions } => self.read_positions(&partitions),
            Step::Commit { fence } => self.commit(fence),
            Step::Pause { partition } => {
                self.note(format!("pause {partition}"));
                self.place_readers();
            }
            Step::Resume { partitions } => {
                self.note(format!("resume {partitions:?}"));
                self.place_readers();
            }
            Step::HoldEnded { partition } => self.note(format!("well {partition}")),
            Step::TakeRebalance => self.take_change(),
            Step::AcceptAssignment => self.note("accept assignment"),
            Step::Recover { partitions } => {
                self.note("recover");
                self.recovering = partitions.into_iter().collect();
                self.turn.recovery_began();
            }
            Step::Unassign => self.note("give back"),
            Step::Release => {
                self.note("release");
                self.turn.released();
                self.readers.clear();
            }
            Step::TakeRecovered => self.take_recovered(),
            Step::TakeReports => self.take_reports(),
            Step::Perform(due) => {
                self.note("perform");
                assert!(self.turn.batch().is_empty(), "effects are performed between batches only");
                self.performed.push(*due);
            }
            Step::Checkpoint => self.checkpoint(),
            Step::EndTurn | Step::Stop | Step::Fail(_) => unreachable!("handled by the loop"),
        }
    }

    fn fetch(&mut self, schema: SchemaRef) {
        self.note("fetch schema");
        self.turn.learn(schema, self.log.schemas.fetch(schema));
    }

    fn load(&mut self, partition: i32, key: &str) {
        self.note(format!("load {key}"));
        let bytes = &self.store[&(partition, key.to_owned())];
        self.turn.load(partition, key, bytes).unwrap();
    }

    fn gather(&mut self, rest: Duration, wait: Duration) {
        self.note("gather");
        self.elapsed += rest;
        let mut has_received = self.kept.is_some();
        if let Some((input, topic, partition, offset)) = self.kept.take() {
            self.offer(input, &topic, partition, offset);
        }
        while let Some(at) = self.next_reader() {
            let reader = &mut self.readers[at];
            let (input, topic, partition, offset) = (reader.input, reader.topic.clone(), reader.partition, reader.next);
            reader.next += 1;
            has_received = true;
            self.offer(input, &topic, partition, offset);
        }
        if !has_received {
            self.elapsed += wait.max(Duration::from_millis(1));
        }
        self.report_ends();
        self.turn.gathering_ended(!self.changes.is_empty());
    }

    /// The client passes markers, up to this position.
    pub(crate) fn pass(&mut self, topic: &str, partition: i32, position: i64) {
        let is_here = |reader: &&mut Reader| reader.topic == topic && reader.partition == partition;
        self.readers.iter_mut().find(is_here).unwrap().next = position;
    }

    /// Reports the partitions whose markers the client has passed.
    fn report_ends(&mut self) {
        for reader in &mut self.readers {
            let end = self.log.end(&reader.topic, reader.partition);
            let marked = self.marked_ends.get(&(reader.topic.clone(), reader.partition)).copied().unwrap_or(0);
            if reader.next >= end && reader.next < marked {
                reader.next = marked;
                self.turn.reached_end(reader.partition);
            }
        }
    }

    /// The first reader that has a record, if the batch has room for one.
    fn next_reader(&self) -> Option<usize> {
        if self.kept.is_some() || !self.turn.has_room() {
            return None;
        }
        self.readers.iter().position(|reader| reader.next < self.log.end(&reader.topic, reader.partition))
    }

    fn offer(&mut self, input: usize, topic: &str, partition: i32, offset: i64) {
        let record = self.log.at(topic, partition, offset).unwrap().clone();
        let now = self.now();
        if self.turn.skips(input, partition, offset, record.value.as_deref(), now) {
            return;
        }
        loop {
            let offered = record.with(topic, partition, offset, |record| self.turn.offer(input, record, now));
            match offered {
                Offer::Taken => return,
                Offer::NeedsSchema(schema) => self.fetch(schema),
                Offer::NeedsSchemaAnew(schema) => {
                    self.note("fetch schema anew");
                    self.turn.learn(schema, self.log.schemas.fetch(schema));
                }
                Offer::NeedsEntity(key) => self.load(partition, &key),
                Offer::CommitFirst => {
                    self.note(format!("keep {topic}/{partition}/{offset}"));
                    self.kept = Some((input, topic.to_owned(), partition, offset));
                    return;
                }
            }
        }
    }

    fn fetch_ends(&mut self, partitions: &[i32]) {
        self.note("ask ends");
        for partition in partitions {
            let inputs = self.turn.contract().inputs.clone();
            let ends = inputs.iter().map(|topic| self.log.end(topic, *partition)).collect();
            self.turn.ends(*partition, self.now().wall_ms, ends);
        }
    }

    fn read_positions(&mut self, partitions: &[i32]) {
        self.note("ask positions");
        for partition in partitions {
            let of = |reader: &&Reader| reader.partition == *partition;
            let mut positions = vec![0; self.turn.contract().inputs.len()];
            self.readers.iter().filter(of).for_each(|reader| positions[reader.input] = reader.next);
            self.turn.reached(*partition, &positions, self.now());
        }
    }

    fn commit(&mut self, generation: u32) {
        self.note(format!("commit in generation {generation}"));
        let positions: Vec<_> =
            self.turn.offsets().map(|(input, partition, next, _)| (input, partition, next)).collect();
        for (input, partition, next) in &positions {
            self.offsets.insert((*partition, *input), *next);
        }
        let batch = self.turn.batch();
        let (inputs, outputs, bytes) = (batch.inputs(), batch.outputs().len(), batch.size());
        self.commits.push(Committed { generation, inputs, outputs, bytes, positions, at: self.elapsed });
        let ends = self.log.append_batch(self.turn.batch());
        self.turn.committed(&ends, self.now());
    }

    /// Reads the partitions that are not paused from the positions that the turn gave.
    fn place_readers(&mut self) {
        let inputs = self.turn.contract().inputs.clone();
        let reader = |(topic, partition, next): (std::sync::Arc<str>, i32, i64)| Reader {
            input: inputs.iter().position(|input| *input == topic).unwrap(),
            topic: topic.to_string(),
            partition,
            next,
        };
        self.readers = self.turn.assignment().map(reader).collect();
    }

    fn take_change(&mut self) {
        self.note("take change");
        match self.changes.pop_front() {
            Some(GroupChange::Assigned(partitions)) => self.turn.assigned(partitions),
            Some(GroupChange::Revoked) => self.turn.revoked(),
            None => {}
        }
    }

    fn take_recovered(&mut self) {
        self.note("take recovered");
        let tasks = std::mem::take(&mut self.recovering).into_iter().map(|partition| self.recover(partition)).collect();
        self.turn.recovered(tasks, true);
    }

    fn recover(&self, partition: i32) -> Task<Probe> {
        let mut contract = self.log.schemas.contract(&self.probe);
        let mut recovery = Recovery::new(self.probe.clone(), &contract, partition);
        self.log.fold_into(&mut recovery, &mut contract).unwrap();
        let inputs = 0..contract.inputs.len();
        let offsets: Vec<_> = inputs.map(|input| self.offsets.get(&(partition, input)).copied()).collect();
        recovery.finish(&contract, &offsets, self.now().wall_ms).unwrap()
    }

    /// An effect is answered: the turn learns it with the next reports.
    pub(crate) fn answer(&mut self, due: DueEffect<Request>) {
        self.answers.push(due);
    }

    fn take_reports(&mut self) {
        self.note("take reports");
        for due in std::mem::take(&mut self.answers) {
            self.turn.effect_answered(due.partition, &due.effect_key, self.now());
        }
    }

    fn checkpoint(&mut self) {
        self.note("checkpoint");
        for saved in self.turn.checkpoint(self.now()) {
            for (key, bytes) in saved.entities {
                self.store.insert((saved.partition, key.to_string()), bytes);
            }
        }
    }

    /// Evicts every entity that can be evicted. Returns how many.
    pub(crate) fn evict_all(&mut self) -> usize {
        let tasks = self.turn.machine().tasks();
        let of = |task: &Task<Probe>| {
            task.states().into_keys().map(|key| (task.partition(), key.to_owned())).collect::<Vec<_>>()
        };
        let all: Vec<(i32, String)> = tasks.flat_map(of).collect();
        all.iter().filter(|(partition, key)| self.turn.evict(*partition, key)).count()
    }

    /// Whether the last turn executed a step of this name.
    pub(crate) fn executed(&self, step: &str) -> bool {
        self.steps.iter().any(|executed| executed == step)
    }

    /// When steps of this name were executed.
    pub(crate) fn times_of(&self, step: &str) -> Vec<Duration> {
        self.history.iter().filter(|(_, executed)| executed == step).map(|(at, _)| *at).collect()
    }

    pub(crate) fn state(&self, entity: &str) -> State {
        let owner = runtime_core::partition_of(entity.as_bytes(), PARTITIONS);
        self.turn.machine().task(owner).unwrap().state(entity).cloned().unwrap_or_default()
    }

    pub(crate) fn ping(&mut self, key: &str, mode: &str, amount: i64) -> (i32, i64) {
        self.log.ping(key, key, mode, amount)
    }

    /// An event of the source whose schema is in no registry.
    pub(crate) fn write_with_schema(&mut self, id: u32, key: &str) -> (i32, i64) {
        let (partition, offset) = self.ping(key, "count", 1);
        let records = self.log.records.get_mut(&(SOURCE.to_owned(), partition)).unwrap();
        let value = records[usize::try_from(offset).unwrap()].value.as_mut().unwrap();
        value[1..5].copy_from_slice(&id.to_be_bytes());
        (partition, offset)
    }
}
