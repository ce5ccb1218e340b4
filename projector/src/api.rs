//! The shapes of replies, shared by the server and the client. Only additions are made within one version of the API; a client
//! ignores fields it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far the view has read. Every reply carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOf {
    /// Changes when a rebuilt view takes over.
    pub epoch: u64,
    /// Counts changes within an epoch.
    pub revision: u64,
    /// Everything up to this time was read; absent while nothing was.
    pub watermark: Option<String>,
    /// Whether every partition was read to its end.
    pub caught_up: bool,
    /// Records known to be there and not read yet.
    pub lag_records: u64,
}

/// Something that is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The step's or compensation's id.
    pub step: String,
    /// Its title.
    pub title: String,
    /// Who owes it.
    pub owner: String,
    /// Since when.
    pub since: String,
    /// Until when.
    pub due_at: String,
}

/// One saga in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// The declaration's name.
    pub saga: String,
    /// The correlation id.
    pub id: String,
    /// `running`, `compensating`, `completed`, `rejected`, `compensated` or `failed`.
    pub state: String,
    /// The business outcome, as soon as it is decided.
    pub outcome: Option<String>,
    /// Nothing is open any more.
    pub settled: bool,
    /// `late`, `stuck`, `gap`, `hospital`, `contradiction`, `truncated`, `parked`.
    pub flags: Vec<String>,
    /// Where it stands, for a person.
    pub sentence: String,
    /// What is owed now.
    pub waiting: Vec<Waiting>,
    /// Steps done.
    pub steps_done: u32,
    /// Steps declared.
    pub steps: u32,
    /// When its first event was said.
    pub started_at: String,
    /// When its last record was said.
    pub updated_at: String,
    /// When the last thing that its end needed was done.
    pub ended_at: Option<String>,
    /// How long it took from start to end.
    pub took_ms: Option<i64>,
    /// Rows of its timeline.
    pub records: u32,
    /// The revision of its last change; 0 in canonical form.
    pub revision: u64,
}

/// One step or compensation of one saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Who owes it.
    pub owner: String,
    /// `ahead`, `waiting`, `reached`, `done`, `failed`, `undone` or `skipped`.
    pub status: String,
    /// Since when it is or was owed.
    pub since: Option<String>,
    /// When work on it was first heard.
    pub reached_at: Option<String>,
    /// When it was done.
    pub done_at: Option<String>,
    /// When it failed.
    pub failed_at: Option<String>,
    /// When it was undone.
    pub undone_at: Option<String>,
    /// It was done after its deadline.
    pub late: bool,
}

/// One record of a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineRow {
    /// The record's type.
    pub event: String,
    /// What the declaration asked of its body.
    pub label: Option<String>,
    /// Who said it.
    pub source: String,
    /// Where it lies.
    pub topic: String,
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
    /// When it was said.
    pub at: String,
    /// Its id.
    pub id: String,
    /// The id of what caused it.
    pub cause: Option<String>,
    /// The type of what caused it, if that is in this timeline.
    pub cause_event: Option<String>,
    /// Its number among the events of its entity.
    pub sequence: Option<u32>,
    /// The schema it was written with.
    pub schema_id: Option<u32>,
    /// That schema's version, where it is known.
    pub schema_version: Option<u32>,
    /// The build that said it.
    pub build: Option<String>,
    /// Whether the declaration names it.
    pub declared: bool,
    /// A copy in a dead-letter topic.
    pub dead_letter: bool,
}

/// A record that waits in a service: because it cannot work, or behind one that cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRecord {
    /// The service where it waits.
    pub service: String,
    /// The entity it is about there.
    pub entity: String,
    /// Where it lay when it was heard: topic/partition/offset. By this it is retried or dropped.
    pub place: String,
    /// Its type, if its headers tell.
    pub event: Option<String>,
    /// Its rank: of an entity's records the one with the least is the first.
    pub number: u64,
    /// When it was said.
    pub at: String,
    /// Why it cannot work; absent if it waits behind one that cannot.
    pub failure: Option<Failure>,
    /// The place of the record that it waits behind: the first of its entity.
    pub behind: Option<String>,
}

/// Why a record cannot work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, in one word.
    pub class: String,
    /// What is wrong.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub at: String,
}

/// One saga in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaDetail {
    /// As in a list.
    #[serde(flatten)]
    pub saga: Saga,
    /// Its steps.
    pub nodes: Vec<Node>,
    /// What undoes it.
    pub compensations: Vec<Node>,
    /// What of it waits in the services.
    #[serde(default)]
    pub parked: Vec<ParkedRecord>,
    /// Its records in order of time; the first page.
    pub timeline: Vec<TimelineRow>,
    /// Where the timeline goes on.
    pub timeline_next: Option<String>,
}

/// `GET /sagas`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaList {
    /// Last changed first.
    pub items: Vec<Saga>,
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
    pub items: Vec<TimelineRow>,
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
    /// Per owner of what is owed.
    pub owners: BTreeMap<String, u64>,
}

/// `GET /counts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Per declaration.
    pub sagas: Vec<SagaCounts>,
    /// Records folded, repeats and unplaced ones too.
    pub records: u64,
    /// Records in no saga, per reason.
    pub unplaced: BTreeMap<String, u64>,
    /// How far the view has read.
    pub as_of: AsOf,
}

/// One change of `GET /sagas/changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Change {
    /// A saga that fits the filter has changed.
    Upsert {
        /// As it is now.
        saga: Box<Saga>,
    },
    /// A saga has changed and does not fit the filter now.
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
pub struct Changes {
    /// In the order of their revisions; each saga once, as it is now.
    pub changes: Vec<Change>,
    /// What to pass as `since` next.
    pub next: String,
    /// The view that `since` spoke of is gone: list again, then go on from `next`.
    pub reset: bool,
    /// How far the view has read.
    pub as_of: AsOf,
}

/// A record that is in no saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnplacedRow {
    /// Why.
    pub reason: String,
    /// Where it lies.
    pub topic: String,
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
    /// Its timestamp.
    pub at: String,
    /// More words.
    pub detail: String,
}

/// Per topic and partition, the offset of the next record to read.
pub type Positions = BTreeMap<String, BTreeMap<i32, i64>>;

/// The first line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The snapshot's number, by which single sagas are asked for later.
    pub snapshot: u64,
    /// The epoch of the view.
    pub epoch: u64,
    /// The revision at which it was frozen.
    pub revision: u64,
    /// The offsets it was frozen at.
    pub positions: Positions,
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
    /// The digest of all digests, whatever their order.
    pub digest: String,
    /// Rows were replaced while it was written, so that a difference may be the snapshot's own.
    pub disturbed: bool,
}
