//! Presents a saga: fills the reply types from its records.
//!
//! The canonical form has the same content without anything that depends on the moment (stuck, revision) or on what the process
//! knows (schema versions), and with the whole timeline. Equal records give equal bytes.

use uuid::Uuid;

use crate::{
    api::{self, NextOffsets},
    declaration::{Declaration, NodeKind, SagaNode, SentenceValues},
    interner::Interner,
    parked,
    progress::{SagaFacts, SagaFlag, SagaProgress, record_flags},
    saga_records::SagaRecord,
    time::rfc3339,
    view::SagaView,
};

/// One saga of the view, with everything that its presentation requires.
#[derive(Clone, Copy)]
pub(crate) struct SagaContext<'a> {
    pub(crate) declaration: &'a Declaration,
    pub(crate) number: usize,
    pub(crate) id: &'a str,
    pub(crate) records: &'a [SagaRecord],
    pub(crate) interner: &'a Interner,
}

impl<'a> SagaContext<'a> {
    pub(crate) fn facts(&self) -> SagaFacts<'a> {
        SagaFacts::read(self.declaration, self.number, self.records, self.interner)
    }

    /// The saga as lists show it.
    pub(crate) fn saga(&self, facts: &SagaFacts<'_>, progress: &SagaProgress, flags: u8) -> api::SagaSummary {
        let steps = self.nodes().filter(|(_, node)| node.kind == NodeKind::Step);
        let done = steps.clone().filter(|(_, node)| facts.done_at(node).is_some()).count();
        let waiting = self.waiting(facts, progress);
        api::SagaSummary {
            saga: self.declaration.name.clone(),
            id: self.id.to_owned(),
            state: progress.state.name().to_owned(),
            outcome: progress.outcome.map(|outcome| self.declaration.outcomes[outcome].name.clone()),
            settled: progress.settled,
            flags: SagaFlag::ALL
                .iter()
                .filter(|flag| flags & flag.bit() != 0)
                .map(|flag| flag.name().to_owned())
                .collect(),
            sentence: self.sentence(facts, progress, flags, &waiting),
            waiting,
            steps_done: small(done),
            steps: small(steps.count()),
            started_at: rfc3339(progress.started_ms),
            updated_at: rfc3339(progress.updated_ms),
            ended_at: progress.ended_ms.map(rfc3339),
            took_ms: progress.ended_ms.map(|ended_ms| ended_ms - progress.started_ms),
            records: small(self.records.len()),
            revision: 0,
        }
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &'a SagaNode)> + Clone {
        self.declaration.nodes.iter().enumerate()
    }

    fn waiting(&self, facts: &SagaFacts<'_>, progress: &SagaProgress) -> Vec<api::OwedStep> {
        let owed = self.nodes().filter(|(index, _)| progress.waiting & (1 << index) != 0);
        owed.map(|(_, node)| api::OwedStep {
            step: node.id.clone(),
            title: node.title.clone(),
            owner: self.declaration.owners[node.owner].id.clone(),
            since: rfc3339(facts.owed_since(node).unwrap_or(progress.started_ms)),
            due_at: rfc3339(facts.due_of(node)),
        })
        .collect()
    }

    fn sentence(&self, facts: &SagaFacts<'_>, progress: &SagaProgress, flags: u8, waiting: &[api::OwedStep]) -> String {
        if flags & SagaFlag::Contradiction.bit() != 0 {
            return "A person must act: the saga has events that exclude each other".to_owned();
        }
        let values = SentenceValues { id: self.id, ..SentenceValues::default() };
        match (progress.outcome, waiting.first()) {
            (Some(outcome), _) if progress.settled => self.declaration.outcomes[outcome].sentence.fill(&values),
            (_, Some(first)) => {
                let owed = || waiting.iter().filter_map(|owed| Some((owed, self.declaration.node(&owed.step)?)));
                let owed = || owed().map(|(owed, node)| (owed, &self.declaration.nodes[node]));
                let failed = owed().find(|(_, node)| node.attention && facts.failed_at(node).is_some());
                let Some((_, node)) = failed.or_else(|| owed().next()) else { return String::new() };
                let sentence = if failed.is_some() { &node.failed } else { &node.waiting };
                let owner = &self.declaration.owners[node.owner].title;
                sentence.fill(&SentenceValues { owner, step: &node.title, since: &first.since, ..values })
            }
            (_, None) => "No step is owed, and no declared outcome matches the events".to_owned(),
        }
    }

    fn node(&self, facts: &SagaFacts<'_>, progress: &SagaProgress, index: usize, node: &SagaNode) -> api::NodeProgress {
        api::NodeProgress {
            id: node.id.clone(),
            title: node.title.clone(),
            owner: self.declaration.owners[node.owner].id.clone(),
            status: facts.status(index, node, progress).name().to_owned(),
            since: facts.owed_since(node).map(rfc3339),
            reached_at: facts.reached_at(node).map(rfc3339),
            done_at: facts.done_at(node).map(rfc3339),
            failed_at: facts.failed_at(node).map(rfc3339),
            undone_at: facts.undone_at(node).map(rfc3339),
            late: facts.was_late(node),
        }
    }

    /// The detail without its timeline.
    fn detail(&self, facts: &SagaFacts<'_>, progress: &SagaProgress, flags: u8) -> api::SagaDetail {
        let nodes = |compensating: bool| {
            let chosen = self.nodes().filter(move |(_, node)| (node.kind == NodeKind::Compensation) == compensating);
            chosen
                .filter(|(_, node)| {
                    node.kind != NodeKind::Cancel || facts.owed_since(node).is_some() || facts.done_at(node).is_some()
                })
                .map(|(index, node)| self.node(facts, progress, index, node))
                .collect()
        };
        api::SagaDetail {
            saga: self.saga(facts, progress, flags),
            nodes: nodes(false),
            compensations: nodes(true),
            parked: Vec::new(),
            timeline: Vec::new(),
            timeline_next: None,
        }
    }

    /// The timeline from `from`, at most `limit` records.
    fn timeline(&self, from: usize, limit: usize) -> Vec<api::TimelineRecord> {
        let order = causal_order(self.records);
        order.iter().skip(from).take(limit).map(|index| self.timeline_record(&self.records[*index])).collect()
    }

    fn timeline_record(&self, record: &SagaRecord) -> api::TimelineRecord {
        let kind = self.interner.kind_of(record.kind);
        let (topic, partition) = self.interner.topic_partition(record.partition_no);
        let known = |text: u16| Some(self.interner.text(text).to_owned()).filter(|text| !text.is_empty());
        let caused = record.cause != [0; 16];
        let cause = self.records.iter().find(|cause| caused && cause.id == record.cause);
        api::TimelineRecord {
            event: self.interner.text(kind.event).to_owned(),
            label: known(kind.label),
            source: self.interner.text(kind.source).to_owned(),
            topic: topic.to_owned(),
            partition,
            offset: record.offset(),
            at: rfc3339(record.at_ms()),
            id: Uuid::from_bytes(record.id).to_string(),
            cause: caused.then(|| Uuid::from_bytes(record.cause).to_string()),
            cause_event: cause.map(|cause| self.interner.text(self.interner.kind_of(cause.kind).event).to_owned()),
            sequence: Some(record.sequence).filter(|sequence| *sequence > 0),
            schema_id: Some(kind.schema).filter(|schema| *schema > 0),
            schema_version: None,
            build: known(kind.build),
            declared: self.interner.declared_events(record.kind)[self.number] != 0,
            dead_letter: kind.dead_letter,
        }
    }

    /// The canonical form; `None` if the saga has no declared event.
    pub(crate) fn canonical(&self) -> Option<String> {
        let facts = self.facts();
        if !facts.any() {
            return None;
        }
        let progress = facts.progress(self.records);
        let flags = progress.flags | record_flags(self.declaration, self.records, self.interner);
        let mut detail = self.detail(&facts, &progress, flags);
        detail.timeline = self.timeline(0, usize::MAX);
        // Plain structs of texts and numbers always have a JSON form.
        serde_json::to_string(&detail).ok()
    }
}

impl SagaView {
    /// One saga of the view.
    pub(crate) fn subject(&self, instance: u32) -> SagaContext<'_> {
        let instance = &self.instances[instance as usize];
        let entry = &self.correlations[instance.correlation as usize];
        let number = usize::from(instance.declaration);
        SagaContext {
            declaration: &self.declarations[number],
            number,
            id: &entry.id,
            records: &entry.records.items,
            interner: &self.interner,
        }
    }

    /// A saga as lists show it.
    pub(crate) fn present(&self, instance: u32) -> api::SagaSummary {
        let context = self.subject(instance);
        let facts = context.facts();
        let progress = facts.progress(context.records);
        let (correlation, revision) =
            (self.instances[instance as usize].correlation, self.instances[instance as usize].revision);
        let flags = self.flags_of(context.number, correlation, &progress);
        let mut saga = api::SagaSummary { revision, ..context.saga(&facts, &progress, flags) };
        self.show_parked(&mut saga, &self.parked.of(context.id));
        saga
    }

    /// A saga in full, with the first `limit` records of its timeline.
    pub(crate) fn present_detail(&self, instance: u32, limit: usize) -> api::SagaDetail {
        let context = self.subject(instance);
        let facts = context.facts();
        let progress = facts.progress(context.records);
        let (correlation, revision) =
            (self.instances[instance as usize].correlation, self.instances[instance as usize].revision);
        let flags = self.flags_of(context.number, correlation, &progress);
        let mut detail = context.detail(&facts, &progress, flags);
        detail.saga.revision = revision;
        detail.parked = self.parked.of(context.id);
        self.show_parked(&mut detail.saga, &detail.parked);
        detail.timeline = self.with_versions(context.timeline(0, limit));
        detail.timeline_next = (context.records.len() > limit).then(|| limit.to_string());
        detail
    }

    /// A parked record takes precedence over the sentence of the declaration: the saga does not proceed until an operator acts.
    fn show_parked(&self, saga: &mut api::SagaSummary, parked: &[api::ParkedRecord]) {
        if let Some(sentence) = parked::sentence(parked) {
            saga.sentence = sentence;
        }
    }

    /// The records of a timeline from `from`, and whether there are more.
    pub(crate) fn present_timeline(
        &self,
        instance: u32,
        from: usize,
        limit: usize,
    ) -> (Vec<api::TimelineRecord>, bool) {
        let context = self.subject(instance);
        (self.with_versions(context.timeline(from, limit)), context.records.len() > from.saturating_add(limit))
    }

    /// Fills in the schema versions, which are not part of a record and so not of the canonical form.
    fn with_versions(&self, mut records: Vec<api::TimelineRecord>) -> Vec<api::TimelineRecord> {
        for record in &mut records {
            record.schema_version = record.schema_id.and_then(|schema| self.version_of(schema));
        }
        records
    }

    /// The canonical form of a saga as it was when the view had read up to `positions`.
    pub(crate) fn canonical_at(&self, instance: u32, positions: &FrozenOffsets) -> Option<String> {
        let context = self.subject(instance);
        if context.records.iter().all(|record| positions.holds(record)) {
            return context.canonical();
        }
        let records: Vec<SagaRecord> =
            context.records.iter().filter(|record| positions.holds(record)).copied().collect();
        SagaContext { records: &records, ..context }.canonical()
    }

    /// The canonical form of a saga, as it is.
    #[must_use]
    pub fn canonical(&self, saga: &str, id: &str) -> Option<String> {
        let declared = |instance: &&u32| self.subject(**instance).declaration.name == saga;
        self.find(id).iter().find(declared).and_then(|instance| self.subject(*instance).canonical())
    }

    /// The positions by partition number, for comparison with records.
    pub(crate) fn freeze(&self, positions: &NextOffsets) -> FrozenOffsets {
        FrozenOffsets(
            self.interner
                .topic_partitions()
                .map(|(topic, partition)| {
                    positions.get(topic).and_then(|partitions| partitions.get(&partition)).copied().unwrap_or_default()
                })
                .collect(),
        )
    }
}

/// The offsets at which a view was frozen, by partition number.
#[derive(Debug, Clone)]
pub(crate) struct FrozenOffsets(Vec<i64>);

impl FrozenOffsets {
    fn holds(&self, record: &SagaRecord) -> bool {
        self.0.get(usize::from(record.partition_no)).is_some_and(|position| record.offset() < *position)
    }
}

/// The most records of one timestamp that are ordered by cause. The cost is cubic in their number.
const SAME_TIME_MAX: usize = 48;

/// The order of a timeline: by timestamp and position, except that among records of one timestamp a cause precedes its effect.
fn causal_order(records: &[SagaRecord]) -> Vec<usize> {
    let mut order = Vec::with_capacity(records.len());
    let mut start = 0;
    while start < records.len() {
        let same = records[start..].iter().take_while(|record| record.at_ms() == records[start].at_ms()).count();
        let mut left: Vec<usize> = (start..start + same).collect();
        if same > SAME_TIME_MAX {
            order.append(&mut left);
        }
        while !left.is_empty() {
            let is_caused_by_another =
                |index: usize| left.iter().any(|other| *other != index && records[*other].id == records[index].cause);
            // A cycle of causes has no first record. Then the position decides.
            let next = left.iter().position(|index| !is_caused_by_another(*index)).unwrap_or_default();
            order.push(left.remove(next));
        }
        start += same;
    }
    order
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Keys that say most about a difference: the records, and the type and id of a record. The other differences follow from them.
const PRIMARY_KEYS: [&str; 3] = ["timeline", "event", "id"];

/// The first place where two JSON documents differ: a path and both values.
#[must_use]
pub fn first_difference(one: &serde_json::Value, other: &serde_json::Value) -> Option<(String, String, String)> {
    use serde_json::Value;
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> =
                left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))).collect();
            keys.sort_by_key(|key| {
                PRIMARY_KEYS.iter().position(|primary| primary == key).unwrap_or(PRIMARY_KEYS.len())
            });
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
