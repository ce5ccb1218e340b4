//! Saga statuses as records: the latest status of each saga on the compacted state topic of the projector, for consumers that
//! prefer Kafka to HTTP.
//!
//! This module owns the type and the key of the record. The runtime's table ensures that one instance writes a status at a time
//! and that no status is written twice. A status is a function of the records of the saga (and of the watermark where it is
//! *stuck*), so every instance derives the same status.

use std::collections::BTreeMap;

use runtime::{
    kafka::admin::{TopicKind, TopicSpec},
    message::{self, Channel},
    table::{ChangedRows, Row, Rows},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{board::Board, present::SagaContext, progress::LifecycleState, view::SagaView};

/// The owner of the state topic in topic and schema names.
pub const OWNER: &str = "projector";

runtime::produces! {
    /// The records that the projector produces.
    pub enum StatusMessage in "../schemas" {
        state of "projector" { SagaStatus = 1 }
    }
}

/// The status of one saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaStatus {
    /// The declaration's name.
    pub saga: String,
    /// The correlation id.
    pub saga_id: String,
    /// Its state.
    pub state: SagaState,
    /// The outcome, once it is decided.
    pub outcome: Option<String>,
    /// True if nothing is open any more.
    pub settled: bool,
    /// Its flags.
    pub flags: Vec<String>,
    /// The status in one sentence.
    pub sentence: String,
    /// The steps that are owed now.
    pub waiting: Vec<SagaWaiting>,
    /// The number of its steps that are done.
    pub steps_done: i32,
    /// The number of its steps.
    pub steps: i32,
    /// The number of its records.
    pub records: i32,
    /// The last record in each partition that has records of the saga.
    pub positions: Vec<SagaPosition>,
    /// When its first event was produced.
    pub started_at: i64,
    /// When its last record was produced.
    pub updated_at: i64,
    /// When it was settled.
    pub ended_at: Option<i64>,
}

/// The lifecycle state of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SagaState {
    /// In progress.
    Running,
    /// Cancelled, and its compensations are in progress.
    Compensating,
    /// Every step is done and nothing is open.
    Completed,
    /// Rejected before anything needed compensation.
    Rejected,
    /// Every step is compensated and nothing is open.
    Compensated,
    /// A person must act.
    Failed,
    /// A state that only a later version knows.
    #[serde(other)]
    Unknown,
}

impl From<LifecycleState> for SagaState {
    fn from(state: LifecycleState) -> Self {
        match state {
            LifecycleState::Running => Self::Running,
            LifecycleState::Compensating => Self::Compensating,
            LifecycleState::Completed => Self::Completed,
            LifecycleState::Rejected => Self::Rejected,
            LifecycleState::Compensated => Self::Compensated,
            LifecycleState::Failed => Self::Failed,
        }
    }
}

/// An owed step or compensation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaWaiting {
    /// The step or compensation.
    pub step: String,
    /// Its owner.
    pub owner: String,
    /// Since when it is owed.
    pub since: i64,
    /// Its deadline.
    pub due_at: i64,
}

/// The last record of a saga in one partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the record.
    pub offset: i64,
}

/// The state topic of a system's projector.
#[must_use]
pub fn topic(system: &str, partitions: i32) -> TopicSpec {
    TopicSpec::new(message::topic(system, OWNER, Channel::State), partitions, TopicKind::Compacted)
}

/// The key of a saga. One id may be the id of several sagas, and compaction keeps one record per key.
#[must_use]
pub fn key(saga: &str, id: &str) -> String {
    format!("{saga}/{id}")
}

/// The statuses of a board as rows of a table.
pub(crate) struct StatusRows(pub(crate) Board);

impl Rows for StatusRows {
    type Message = StatusMessage;

    fn is_current(&self) -> bool {
        let reading = self.0.read_progress();
        reading.caught_up && reading.degraded_reason.is_none()
    }

    fn changed(&self, since: u64, limit: usize) -> ChangedRows<StatusMessage> {
        self.0.view().changed_rows(since, limit)
    }
}

impl SagaView {
    /// The sagas that changed after the revision `since`, the earliest change first.
    fn changed_rows(&self, since: u64, limit: usize) -> ChangedRows<StatusMessage> {
        let mut changed: Vec<(u64, u32)> = Vec::new();
        for index in &self.indexes {
            changed.extend(index.after(since).take(limit));
        }
        changed.sort_unstable();
        changed.truncate(limit);
        let more = changed.len() == limit;
        let next = if more { changed.last().map_or(since, |(revision, _)| *revision) } else { self.revision() };
        ChangedRows { rows: changed.into_iter().map(|(_, instance)| self.row(instance)).collect(), next, more }
    }

    fn row(&self, instance: u32) -> Row<StatusMessage> {
        let context = self.subject(instance);
        let status = self.status(instance, &context);
        let cause = context.records.last().map(|record| Uuid::from_bytes(record.id));
        let (key, correlation_id) = (key(&status.saga, &status.saga_id), status.saga_id.clone());
        Row { key, correlation_id, cause, message: status.into() }
    }

    fn status(&self, instance: u32, context: &SagaContext<'_>) -> SagaStatus {
        let facts = context.facts();
        let progress = facts.progress(context.records);
        let flags = self.flags_of(context.number, self.instances[instance as usize].correlation, &progress);
        let shown = context.saga(&facts, &progress, flags);
        let owed = context.declaration.nodes.iter().enumerate();
        let owed = owed.filter(|(index, _)| progress.waiting & (1 << index) != 0);
        SagaStatus {
            saga: shown.saga,
            saga_id: shown.id,
            state: progress.state.into(),
            outcome: shown.outcome,
            settled: shown.settled,
            flags: shown.flags,
            sentence: shown.sentence,
            waiting: owed
                .map(|(_, node)| SagaWaiting {
                    step: node.id.clone(),
                    owner: context.declaration.owners[node.owner].id.clone(),
                    since: facts.owed_since(node).unwrap_or(progress.started_ms),
                    due_at: facts.due_of(node),
                })
                .collect(),
            steps_done: to_i32(shown.steps_done),
            steps: to_i32(shown.steps),
            records: to_i32(shown.records),
            positions: positions(context),
            started_at: progress.started_ms,
            updated_at: progress.updated_ms,
            ended_at: progress.ended_ms,
        }
    }
}

/// Avro has no unsigned integers.
fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn positions(context: &SagaContext<'_>) -> Vec<SagaPosition> {
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for record in context.records {
        let offset = last.entry(context.interner.topic_partition(record.partition_no)).or_default();
        *offset = record.offset().max(*offset);
    }
    last.into_iter()
        .map(|((topic, partition), offset)| SagaPosition { topic: topic.to_owned(), partition, offset })
        .collect()
}
