//! The reply types, shared by the server and the client. Within one version of the API fields are only added; a client ignores
//! fields it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far the view has read. Every reply carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOf {
    /// Identifies the view. It changes when a rebuilt view takes over.
    pub epoch: u64,
    /// Counts changes within an epoch.
    pub revision: u64,
    /// Every record up to this time was read. Absent until the first record was read.
    pub watermark: Option<String>,
    /// Whether every partition was read to its end.
    pub caught_up: bool,
    /// Records that are known to exist and were not read yet.
    pub lag_records: u64,
    /// The places at which partitions wait because a record or a batch cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldPlace>,
}

/// A place at which a partition waits, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPlace {
    /// Topic, partition and offset.
    pub place: String,
    /// Why it waits, and what to do about it.
    pub reason: String,
}

/// A step or compensation that is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedStep {
    /// The id of the step or compensation.
    pub step: String,
    /// Its title.
    pub title: String,
    /// The owner of the step.
    pub owner: String,
    /// Since when it is owed.
    pub since: String,
    /// Its deadline.
    pub due_at: String,
}

/// One saga in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaSummary {
    /// The declaration's name.
    pub saga: String,
    /// The correlation id.
    pub id: String,
    /// `running`, `compensating`, `completed`, `rejected`, `compensated` or `failed`.
    pub state: String,
    /// The business outcome, as soon as it is decided.
    pub outcome: Option<String>,
    /// True if nothing is open any more.
    pub settled: bool,
    /// `late`, `stuck`, `gap`, `dead-letter`, `contradiction`, `truncated`, `parked`.
    pub flags: Vec<String>,
    /// Its status in one sentence, for a person.
    pub sentence: String,
    /// The steps that are owed now.
    pub waiting: Vec<OwedStep>,
    /// Steps done.
    pub steps_done: u32,
    /// Steps declared.
    pub steps: u32,
    /// When its first event was produced.
    pub started_at: String,
    /// When its last record was produced.
    pub updated_at: String,
    /// When the last event that its end requires was produced.
    pub ended_at: Option<String>,
    /// How long it took from start to end.
    pub took_ms: Option<i64>,
    /// The number of records in its timeline.
    pub records: u32,
    /// The revision of its last change; 0 in canonical form.
    pub revision: u64,
}

/// One step or compensation of one saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProgress {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The owner of the step.
    pub owner: String,
    /// `ahead`, `waiting`, `reached`, `done`, `failed`, `undone` or `skipped`.
    pub status: String,
    /// Since when it is or was owed.
    pub since: Option<String>,
    /// When the first event of work on it was produced.
    pub reached_at: Option<String>,
    /// When it was done.
    pub done_at: Option<String>,
    /// When it failed.
    pub failed_at: Option<String>,
    /// When it was undone.
    pub undone_at: Option<String>,
    /// True if it was done after its deadline.
    pub late: bool,
}

/// One record of a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineRecord {
    /// The record's type.
    pub event: String,
    /// The fields of its body that the declaration selects by.
    pub label: Option<String>,
    /// The producer, from `ce_source`.
    pub source: String,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The timestamp of the record.
    pub at: String,
    /// Its id.
    pub id: String,
    /// The id of the record that caused it.
    pub cause: Option<String>,
    /// The type of the record that caused it, if that record is in this timeline.
    pub cause_event: Option<String>,
    /// Its sequence number among the events of its entity.
    pub sequence: Option<u32>,
    /// The schema it was written with.
    pub schema_id: Option<u32>,
    /// That schema's version, where it is known.
    pub schema_version: Option<u32>,
    /// The build that produced it.
    pub build: Option<String>,
    /// True if the declaration names its type.
    pub declared: bool,
    /// True if it is a copy in a dead-letter topic.
    pub dead_letter: bool,
}

/// A record that is parked in a service: it failed, or it is behind a failed record of the same entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRecord {
    /// The service that parked it.
    pub service: String,
    /// The entity it belongs to in that service.
    pub entity: String,
    /// Where the service consumed it: topic/partition/offset. An operator retries or drops the record by this position.
    pub place: String,
    /// Its type, if its headers have one.
    pub event: Option<String>,
    /// Its rank: the record of an entity with the lowest number is the first.
    pub number: u64,
    /// The timestamp of the record.
    pub at: String,
    /// Why it failed. Absent if it is parked behind a failed record.
    pub failure: Option<ParkedFailure>,
    /// The position of the record it is parked behind: the first of its entity.
    pub behind: Option<String>,
}

/// Why a record failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedFailure {
    /// The kind, in one word.
    pub class: String,
    /// What is wrong.
    pub reason: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time of the last attempt.
    pub at: String,
}

/// One saga in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaDetail {
    /// As in a list.
    #[serde(flatten)]
    pub saga: SagaSummary,
    /// Its steps.
    pub nodes: Vec<NodeProgress>,
    /// Its compensations.
    pub compensations: Vec<NodeProgress>,
    /// Its records that are parked in services.
    #[serde(default)]
    pub parked: Vec<ParkedRecord>,
    /// Its records in order of time; the first page.
    pub timeline: Vec<TimelineRecord>,
    /// The cursor of the next page of the timeline.
    pub timeline_next: Option<String>,
}

/// `GET /sagas`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaList {
    /// Last changed first.
    pub items: Vec<SagaSummary>,
    /// The cursor of the next page.
    pub next: Option<String>,
    /// How far the view has read.
    pub as_of: AsOf,
}

/// `GET /sagas/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaReply {
    /// The saga.
    #[serde(flatten)]
    pub saga: SagaDetail,
    /// How far the view has read.
    pub as_of: AsOf,
}

/// `GET /sagas/{id}/timeline`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelinePage {
    /// Its records in order of time.
    pub items: Vec<TimelineRecord>,
    /// The cursor of the next page.
    pub next: Option<String>,
    /// How far the view has read.
    pub as_of: AsOf,
}

/// The counts of one declaration's sagas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaCounts {
    /// The declaration's name.
    pub saga: String,
    /// All of them.
    pub total: u64,
    /// Not settled yet, and not failed.
    pub open: u64,
    /// Per state.
    pub states: BTreeMap<String, u64>,
    /// Per decided outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Per flag.
    pub flags: BTreeMap<String, u64>,
    /// Per owed step or compensation.
    pub waiting: BTreeMap<String, u64>,
    /// Per owner of an owed step.
    pub owners: BTreeMap<String, u64>,
}

/// `GET /counts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsReply {
    /// Per declaration.
    pub sagas: Vec<SagaCounts>,
    /// Records that were folded, including repeats and records in no saga.
    pub records: u64,
    /// Records in no saga, per reason.
    pub unplaced: BTreeMap<String, u64>,
    /// How far the view has read.
    pub as_of: AsOf,
}

/// One change of `GET /sagas/changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SagaChange {
    /// A saga that matches the filter has changed.
    Upsert {
        /// The saga as it is now.
        saga: Box<SagaSummary>,
    },
    /// A saga has changed and no longer matches the filter.
    Left {
        /// The declaration's name.
        saga: String,
        /// The correlation id.
        id: String,
        /// The revision of the change.
        revision: u64,
    },
}

/// `GET /sagas/changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaChanges {
    /// The changes in order of revision. Each saga appears once, as it is now.
    pub changes: Vec<SagaChange>,
    /// The value to pass as `since` next.
    pub next: String,
    /// True if the view that `since` refers to is gone. List the sagas again, then continue from `next`.
    pub reset: bool,
    /// How far the view has read.
    pub as_of: AsOf,
}

/// A record that is in no saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnplacedItem {
    /// Why.
    pub reason: String,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub at: String,
    /// Further detail.
    pub detail: String,
}

/// Per topic and partition, the offset of the next record to read.
pub type NextOffsets = BTreeMap<String, BTreeMap<i32, i64>>;

/// The first line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The number of the snapshot. Single sagas of the snapshot are requested by it.
    pub snapshot: u64,
    /// The epoch of the view.
    pub epoch: u64,
    /// The revision at which it was frozen.
    pub revision: u64,
    /// The offsets it was frozen at.
    pub positions: NextOffsets,
    /// The names of the declarations.
    pub declarations: Vec<String>,
    /// The counts when it was frozen, per declaration.
    pub counts: Vec<SagaCounts>,
}

/// One saga of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotLine {
    /// The declaration's name.
    pub saga: String,
    /// The correlation id.
    pub id: String,
    /// The digest of its canonical form.
    pub digest: String,
    /// The canonical form itself, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<serde_json::Value>,
}

/// The last line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTail {
    /// How many sagas were written.
    pub sagas: u64,
    /// The digest of all digests, independent of their order.
    pub digest: String,
    /// True if records were replaced while the snapshot was written. A difference may then be an artefact of the snapshot.
    pub disturbed: bool,
}
