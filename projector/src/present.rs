//! What a saga looks like from outside: the replies' shapes, filled from rows.
//!
//! A canonical form is the same detail without anything that depends on the moment (stuck, revision) or on what else a process
//! knows (schema versions), and with its whole timeline; equal rows give equal bytes.

use uuid::Uuid;

use crate::{
    api::{self, Positions},
    declaration::{Declaration, Node, NodeKind, Words},
    names::Names,
    parked,
    standing::{Facts, Flag, Standing, row_flags},
    story::Row,
    view::View,
};

/// One saga as the view holds it: enough to present it.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) declaration: &'a Declaration,
    pub(crate) number: usize,
    pub(crate) id: &'a str,
    pub(crate) rows: &'a [Row],
    pub(crate) names: &'a Names,
}

impl<'a> Subject<'a> {
    pub(crate) fn facts(&self) -> Facts<'a> {
        Facts::read(self.declaration, self.number, self.rows, self.names)
    }

    /// The saga as lists show it.
    pub(crate) fn saga(&self, facts: &Facts<'_>, standing: &Standing, flags: u8) -> api::Saga {
        let steps = self.nodes().filter(|(_, node)| node.kind == NodeKind::Step);
        let done = steps.clone().filter(|(_, node)| facts.done_at(node).is_some()).count();
        let waiting = self.waiting(facts, standing);
        api::Saga {
            saga: self.declaration.name.clone(),
            id: self.id.to_owned(),
            state: standing.state.name().to_owned(),
            outcome: standing.outcome.map(|outcome| self.declaration.outcomes[outcome].name.clone()),
            settled: standing.settled,
            flags: Flag::ALL.iter().filter(|flag| flags & flag.bit() != 0).map(|flag| flag.name().to_owned()).collect(),
            sentence: self.sentence(facts, standing, flags, &waiting),
            waiting,
            steps_done: small(done),
            steps: small(steps.count()),
            started_at: time(standing.started_ms),
            updated_at: time(standing.updated_ms),
            ended_at: standing.ended_ms.map(time),
            took_ms: standing.ended_ms.map(|ended_ms| ended_ms - standing.started_ms),
            records: small(self.rows.len()),
            revision: 0,
        }
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &'a Node)> + Clone {
        self.declaration.nodes.iter().enumerate()
    }

    fn waiting(&self, facts: &Facts<'_>, standing: &Standing) -> Vec<api::Waiting> {
        let owed = self.nodes().filter(|(index, _)| standing.waiting & (1 << index) != 0);
        owed.map(|(_, node)| api::Waiting {
            step: node.id.clone(),
            title: node.title.clone(),
            owner: self.declaration.owners[node.owner].id.clone(),
            since: time(facts.owed_since(node).unwrap_or(standing.started_ms)),
            due_at: time(facts.due_of(node)),
        })
        .collect()
    }

    fn sentence(&self, facts: &Facts<'_>, standing: &Standing, flags: u8, waiting: &[api::Waiting]) -> String {
        if flags & Flag::Contradiction.bit() != 0 {
            return "A person must look: events were heard that exclude each other".to_owned();
        }
        let words = Words { id: self.id, ..Words::default() };
        match (standing.outcome, waiting.first()) {
            (Some(outcome), _) if standing.settled => self.declaration.outcomes[outcome].sentence.fill(&words),
            (_, Some(first)) => {
                let owed = || waiting.iter().filter_map(|owed| Some((owed, self.declaration.node(&owed.step)?)));
                let owed = || owed().map(|(owed, node)| (owed, &self.declaration.nodes[node]));
                let failed = owed().find(|(_, node)| node.attention && facts.failed_at(node).is_some());
                let Some((_, node)) = failed.or_else(|| owed().next()) else { return String::new() };
                let sentence = if failed.is_some() { &node.failed } else { &node.waiting };
                let owner = &self.declaration.owners[node.owner].title;
                sentence.fill(&Words { owner, step: &node.title, since: &first.since, ..words })
            }
            (_, None) => "Nothing is owed, and no declared end fits what was heard".to_owned(),
        }
    }

    fn node(&self, facts: &Facts<'_>, standing: &Standing, index: usize, node: &Node) -> api::Node {
        api::Node {
            id: node.id.clone(),
            title: node.title.clone(),
            owner: self.declaration.owners[node.owner].id.clone(),
            status: facts.status(index, node, standing).name().to_owned(),
            since: facts.owed_since(node).map(time),
            reached_at: facts.reached_at(node).map(time),
            done_at: facts.done_at(node).map(time),
            failed_at: facts.failed_at(node).map(time),
            undone_at: facts.undone_at(node).map(time),
            late: facts.was_late(node),
        }
    }

    /// The detail without its timeline.
    fn detail(&self, facts: &Facts<'_>, standing: &Standing, flags: u8) -> api::SagaDetail {
        let nodes = |undo: bool| {
            let chosen = self.nodes().filter(move |(_, node)| (node.kind == NodeKind::Compensation) == undo);
            chosen
                .filter(|(_, node)| {
                    node.kind != NodeKind::Cancel || facts.owed_since(node).is_some() || facts.done_at(node).is_some()
                })
                .map(|(index, node)| self.node(facts, standing, index, node))
                .collect()
        };
        api::SagaDetail {
            saga: self.saga(facts, standing, flags),
            nodes: nodes(false),
            compensations: nodes(true),
            parked: Vec::new(),
            timeline: Vec::new(),
            timeline_next: None,
        }
    }

    /// The rows from `from`, at most `limit`.
    fn timeline(&self, from: usize, limit: usize) -> Vec<api::TimelineRow> {
        let order = causal_order(self.rows);
        order.iter().skip(from).take(limit).map(|index| self.timeline_row(&self.rows[*index])).collect()
    }

    fn timeline_row(&self, row: &Row) -> api::TimelineRow {
        let shape = self.names.shape_of(row.shape);
        let (topic, partition) = self.names.place(row.lane);
        let known = |text: u16| Some(self.names.text(text).to_owned()).filter(|text| !text.is_empty());
        let caused = row.cause != [0; 16];
        let cause = self.rows.iter().find(|cause| caused && cause.id == row.cause);
        api::TimelineRow {
            event: self.names.text(shape.event).to_owned(),
            label: known(shape.label),
            source: self.names.text(shape.source).to_owned(),
            topic: topic.to_owned(),
            partition,
            offset: row.offset(),
            at: time(row.at_ms()),
            id: Uuid::from_bytes(row.id).to_string(),
            cause: caused.then(|| Uuid::from_bytes(row.cause).to_string()),
            cause_event: cause.map(|cause| self.names.text(self.names.shape_of(cause.shape).event).to_owned()),
            sequence: Some(row.sequence).filter(|sequence| *sequence > 0),
            schema_id: Some(shape.schema).filter(|schema| *schema > 0),
            schema_version: None,
            build: known(shape.build),
            declared: self.names.meanings(row.shape)[self.number] != 0,
            dead_letter: shape.dead,
        }
    }

    /// The canonical form; `None` if nothing of it was declared.
    pub(crate) fn canonical(&self) -> Option<String> {
        let facts = self.facts();
        if !facts.any() {
            return None;
        }
        let standing = facts.standing(self.rows);
        let flags = standing.flags | row_flags(self.declaration, self.rows, self.names);
        let mut detail = self.detail(&facts, &standing, flags);
        detail.timeline = self.timeline(0, usize::MAX);
        // Plain structs of texts and numbers always have a JSON form.
        serde_json::to_string(&detail).ok()
    }
}

impl View {
    /// One saga of the view.
    pub(crate) fn subject(&self, instance: u32) -> Subject<'_> {
        let instance = &self.instances[instance as usize];
        let entry = &self.entries[instance.story as usize];
        let number = usize::from(instance.declaration);
        Subject {
            declaration: &self.declarations[number],
            number,
            id: &entry.id,
            rows: &entry.story.rows,
            names: &self.names,
        }
    }

    /// A saga as lists show it.
    pub(crate) fn present(&self, instance: u32) -> api::Saga {
        let subject = self.subject(instance);
        let facts = subject.facts();
        let standing = facts.standing(subject.rows);
        let (story, revision) = (self.instances[instance as usize].story, self.instances[instance as usize].revision);
        let flags = self.flags_of(subject.number, story, &standing);
        let mut saga = api::Saga { revision, ..subject.saga(&facts, &standing, flags) };
        self.say_what_waits(&mut saga, &self.parked.of(subject.id));
        saga
    }

    /// A saga in full, with the first `limit` rows of its timeline.
    pub(crate) fn present_detail(&self, instance: u32, limit: usize) -> api::SagaDetail {
        let subject = self.subject(instance);
        let facts = subject.facts();
        let standing = facts.standing(subject.rows);
        let (story, revision) = (self.instances[instance as usize].story, self.instances[instance as usize].revision);
        let flags = self.flags_of(subject.number, story, &standing);
        let mut detail = subject.detail(&facts, &standing, flags);
        detail.saga.revision = revision;
        detail.parked = self.parked.of(subject.id);
        self.say_what_waits(&mut detail.saga, &detail.parked);
        detail.timeline = self.with_versions(subject.timeline(0, limit));
        detail.timeline_next = (subject.rows.len() > limit).then(|| limit.to_string());
        detail
    }

    /// A record that waits is the first thing to tell: nothing else goes on until somebody has acted.
    fn say_what_waits(&self, saga: &mut api::Saga, parked: &[api::ParkedRecord]) {
        if let Some(sentence) = parked::sentence(parked) {
            saga.sentence = sentence;
        }
    }

    /// Rows of a saga's timeline from `from`, and whether there are more.
    pub(crate) fn present_timeline(&self, instance: u32, from: usize, limit: usize) -> (Vec<api::TimelineRow>, bool) {
        let subject = self.subject(instance);
        (self.with_versions(subject.timeline(from, limit)), subject.rows.len() > from.saturating_add(limit))
    }

    /// Fills in what is no part of a record, and so of no canonical form.
    fn with_versions(&self, mut rows: Vec<api::TimelineRow>) -> Vec<api::TimelineRow> {
        for row in &mut rows {
            row.schema_version = row.schema_id.and_then(|schema| self.version_of(schema));
        }
        rows
    }

    /// The canonical form of a saga as it was when the view had read up to `positions`.
    pub(crate) fn canonical_at(&self, instance: u32, positions: &FrozenAt) -> Option<String> {
        let subject = self.subject(instance);
        if subject.rows.iter().all(|row| positions.holds(row)) {
            return subject.canonical();
        }
        let rows: Vec<Row> = subject.rows.iter().filter(|row| positions.holds(row)).copied().collect();
        Subject { rows: &rows, ..subject }.canonical()
    }

    /// The canonical form of a saga, as it is.
    #[must_use]
    pub fn canonical(&self, saga: &str, id: &str) -> Option<String> {
        let declared = |instance: &&u32| self.subject(**instance).declaration.name == saga;
        self.find(id).iter().find(declared).and_then(|instance| self.subject(*instance).canonical())
    }

    /// Positions by lane, to be compared with rows.
    pub(crate) fn freeze(&self, positions: &Positions) -> FrozenAt {
        FrozenAt(
            self.names
                .lanes()
                .map(|(topic, partition)| {
                    positions.get(topic).and_then(|partitions| partitions.get(&partition)).copied().unwrap_or_default()
                })
                .collect(),
        )
    }
}

/// Offsets at which a view was frozen, per lane.
#[derive(Debug, Clone)]
pub(crate) struct FrozenAt(Vec<i64>);

impl FrozenAt {
    fn holds(&self, row: &Row) -> bool {
        self.0.get(usize::from(row.lane)).is_some_and(|position| row.offset() < *position)
    }
}

/// The most records of one time that are put in order of cause, which costs the cube of their number.
const SAME_TIME_MAX: usize = 48;

/// The order in which a timeline is read: by time and place, but of records of the same time a cause comes before its effect.
fn causal_order(rows: &[Row]) -> Vec<usize> {
    let mut order = Vec::with_capacity(rows.len());
    let mut start = 0;
    while start < rows.len() {
        let same = rows[start..].iter().take_while(|row| row.at_ms() == rows[start].at_ms()).count();
        let mut left: Vec<usize> = (start..start + same).collect();
        if same > SAME_TIME_MAX {
            order.append(&mut left);
        }
        while !left.is_empty() {
            let is_caused_by_another =
                |index: usize| left.iter().any(|other| *other != index && rows[*other].id == rows[index].cause);
            // A circle of causes has no first: then the place decides.
            let next = left.iter().position(|index| !is_caused_by_another(*index)).unwrap_or_default();
            order.push(left.remove(next));
        }
        start += same;
    }
    order
}

/// A time as RFC 3339.
pub(crate) fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| format!("{at:.3}"))
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Keys that tell most of what is different: the records, and of a record what it is. The rest follows from them.
const TELLING: [&str; 3] = ["timeline", "event", "id"];

/// The first place where two JSON documents differ: a path and both values.
#[must_use]
pub fn first_difference(one: &serde_json::Value, other: &serde_json::Value) -> Option<(String, String, String)> {
    use serde_json::Value;
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> =
                left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))).collect();
            keys.sort_by_key(|key| TELLING.iter().position(|telling| telling == key).unwrap_or(TELLING.len()));
            keys.into_iter().find_map(|key| match (left.get(key), right.get(key)) {
                (Some(here), Some(there)) => {
                    first_difference(here, there).map(|(path, a, b)| (format!("/{key}{path}"), a, b))
                }
                (here, there) => Some((format!("/{key}"), shown(here), shown(there))),
            })
        }
        (Value::Array(left), Value::Array(right)) => {
            (0..left.len().max(right.len())).find_map(|index| match (left.get(index), right.get(index)) {
                (Some(here), Some(there)) => {
                    first_difference(here, there).map(|(path, a, b)| (format!("/{index}{path}"), a, b))
                }
                (here, there) => Some((format!("/{index}"), shown(here), shown(there))),
            })
        }
        _ if one == other => None,
        _ => Some((String::new(), shown(Some(one)), shown(Some(other)))),
    }
}
