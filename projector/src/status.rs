//! Saga statuses as records: the latest of each saga on the projector's state topic, for whoever would rather read Kafka than ask.
//!
//! Owns the record's shape and its key. That one instance writes it at a time, and nothing twice, is the business of the runtime's
//! table. A status is a function of the saga's records alone (and of the clock where it is *stuck*), so every instance makes the
//! same.

use std::collections::BTreeMap;

use runtime::{
    kafka::admin::{TopicKind, TopicSpec},
    message::{self, Channel},
    table::{Changed, Row, Rows},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{board::Board, present::Subject, standing::State, view::View};

/// The owner of the state topic, as topics and schemas name it.
pub const OWNER: &str = "projector";

runtime::produces! {
    /// What the projector says.
    pub enum Said in "../schemas" {
        state of "projector" { SagaStatus = 1 }
    }
}

/// Where one saga stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaStatus {
    /// The declaration's name.
    pub saga: String,
    /// The correlation id.
    pub saga_id: String,
    /// Its state.
    pub state: SagaState,
    /// The declared end, once it is decided.
    pub outcome: Option<String>,
    /// Nothing is open any more.
    pub settled: bool,
    /// What else is to be said.
    pub flags: Vec<String>,
    /// All of it in one sentence.
    pub sentence: String,
    /// What is owed now.
    pub waiting: Vec<SagaWaiting>,
    /// How many of its steps are done.
    pub steps_done: i32,
    /// How many steps it has.
    pub steps: i32,
    /// How many records were said about it.
    pub records: i32,
    /// The last record in each partition that has any.
    pub positions: Vec<SagaPosition>,
    /// When it began.
    pub started_at: i64,
    /// When the last of its records was said.
    pub updated_at: i64,
    /// When it was settled.
    pub ended_at: Option<i64>,
}

/// A saga's technical state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SagaState {
    /// Going on.
    Running,
    /// Cancelled, and being undone.
    Compensating,
    /// Everything was done and nothing is open.
    Completed,
    /// Refused before anything needed undoing.
    Rejected,
    /// Everything is undone and nothing is open.
    Compensated,
    /// A person must look.
    Failed,
    /// A state that a later version knows.
    #[serde(other)]
    Unknown,
}

impl From<State> for SagaState {
    fn from(state: State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Compensating => Self::Compensating,
            State::Completed => Self::Completed,
            State::Rejected => Self::Rejected,
            State::Compensated => Self::Compensated,
            State::Failed => Self::Failed,
        }
    }
}

/// Something that is owed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaWaiting {
    /// The step or compensation.
    pub step: String,
    /// Who owes it.
    pub owner: String,
    /// Since when.
    pub since: i64,
    /// Until when it should be done.
    pub due_at: i64,
}

/// How far one partition counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the last record of the saga there.
    pub offset: i64,
}

/// The state topic of a system's projector.
#[must_use]
pub fn topic(system: &str, partitions: i32) -> TopicSpec {
    TopicSpec::new(message::topic(system, OWNER, Channel::State), partitions, TopicKind::Compacted)
}

/// The key of a saga: an id may be the id of several sagas, and compaction keeps one record of a key.
#[must_use]
pub fn key(saga: &str, id: &str) -> String {
    format!("{saga}/{id}")
}

/// The statuses of a board, as rows of a table.
pub(crate) struct Statuses(pub(crate) Board);

impl Rows for Statuses {
    type Message = Said;

    fn is_current(&self) -> bool {
        let reading = self.0.reading();
        reading.caught_up && reading.trouble.is_none()
    }

    fn changed(&self, since: u64, limit: usize) -> Changed<Said> {
        self.0.view().changed_rows(since, limit)
    }
}

impl View {
    /// The sagas that changed after the revision `since`, the earliest change first.
    fn changed_rows(&self, since: u64, limit: usize) -> Changed<Said> {
        let mut changed: Vec<(u64, u32)> = Vec::new();
        for index in &self.indexes {
            changed.extend(index.after(since).take(limit));
        }
        changed.sort_unstable();
        changed.truncate(limit);
        let more = changed.len() == limit;
        let next = if more { changed.last().map_or(since, |(revision, _)| *revision) } else { self.revision() };
        Changed { rows: changed.into_iter().map(|(_, instance)| self.row(instance)).collect(), next, more }
    }

    fn row(&self, instance: u32) -> Row<Said> {
        let subject = self.subject(instance);
        let status = self.status(instance, &subject);
        let cause = subject.rows.last().map(|row| Uuid::from_bytes(row.id));
        let (key, correlation_id) = (key(&status.saga, &status.saga_id), status.saga_id.clone());
        Row { key, correlation_id, cause, message: status.into() }
    }

    fn status(&self, instance: u32, subject: &Subject<'_>) -> SagaStatus {
        let facts = subject.facts();
        let standing = facts.standing(subject.rows);
        let flags = self.flags_of(subject.number, self.instances[instance as usize].story, &standing);
        let shown = subject.saga(&facts, &standing, flags);
        let owed = subject.declaration.nodes.iter().enumerate();
        let owed = owed.filter(|(index, _)| standing.waiting & (1 << index) != 0);
        SagaStatus {
            saga: shown.saga,
            saga_id: shown.id,
            state: standing.state.into(),
            outcome: shown.outcome,
            settled: shown.settled,
            flags: shown.flags,
            sentence: shown.sentence,
            waiting: owed
                .map(|(_, node)| SagaWaiting {
                    step: node.id.clone(),
                    owner: subject.declaration.owners[node.owner].id.clone(),
                    since: facts.owed_since(node).unwrap_or(standing.started_ms),
                    due_at: facts.due_of(node),
                })
                .collect(),
            steps_done: small(shown.steps_done),
            steps: small(shown.steps),
            records: small(shown.records),
            positions: positions(subject),
            started_at: standing.started_ms,
            updated_at: standing.updated_ms,
            ended_at: standing.ended_ms,
        }
    }
}

/// Avro has no unsigned numbers.
fn small(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn positions(subject: &Subject<'_>) -> Vec<SagaPosition> {
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for row in subject.rows {
        let offset = last.entry(subject.names.place(row.lane)).or_default();
        *offset = row.offset().max(*offset);
    }
    last.into_iter()
        .map(|((topic, partition), offset)| SagaPosition { topic: topic.to_owned(), partition, offset })
        .collect()
}
