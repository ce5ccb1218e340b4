//! Compiles a well-formed file into a declaration, or into a list of its problems.
//!
//! All problems are reported at once, each with its line, so that a person can fix the file in one pass.

use std::{collections::BTreeSet, ops::Range};

use super::{
    CORRELATION_HEADER, Declaration, DeclarationProblem, EVENTS_MAX, EventSelector, EventSet, NODES_MAX, NodeKind,
    NodeSet, OUTCOMES_MAX, OWNERS_MAX, OutcomeKind, SagaNode, SagaOutcome, SentenceTemplate, StepOwner,
    raw::{self, SpannedText},
    selector::check_path,
};
use crate::nearest::hint;

/// Compiles a file whose text is `text`.
pub(super) fn compile(text: &str, file: &raw::DeclarationFile) -> Result<Declaration, Vec<DeclarationProblem>> {
    let mut compiler = Compiler { text, problems: Vec::new(), events: Vec::new() };
    compiler.limits(file);
    compiler.word("the saga's name", &file.name);
    let owners = compiler.owners(file);
    let start = compiler.events("start", &file.start.get_ref()[..], Some(file.start.span()));
    let mut nodes = compiler.nodes(file, &owners);
    compiler.order_of_steps(file, &mut nodes);
    let exclusive: Vec<EventSet> = file.exclusive.iter().map(|group| compiler.exclusive(group)).collect();
    let outcomes = compiler.outcomes(file, &nodes);
    compiler.reachable(file, start, &nodes, &exclusive, &outcomes);
    let (header, fields) = compiler.correlation(&file.correlation);
    let topics = compiler.topics(file, &owners);
    if !compiler.problems.is_empty() {
        compiler.problems.sort_by_key(|problem| problem.line);
        return Err(compiler.problems);
    }
    Ok(Declaration {
        name: file.name.get_ref().clone(),
        title: file.title.get_ref().clone(),
        header,
        fields,
        sequences: file.sequences,
        owners,
        topics,
        events: compiler.events,
        start,
        nodes,
        exclusive,
        outcomes,
    })
}

struct Compiler<'a> {
    text: &'a str,
    problems: Vec<DeclarationProblem>,
    events: Vec<EventSelector>,
}

impl Compiler<'_> {
    fn problem(&mut self, span: Range<usize>, text: String) {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.problems.push(DeclarationProblem { line, text });
    }

    /// Sets are bit masks, and the classes of a filter are bits of one integer. Both have a limit.
    fn limits(&mut self, file: &raw::DeclarationFile) {
        let nodes = file.steps.len() + usize::from(file.cancel.is_some()) + file.compensations.len();
        for (what, count, max) in [
            ("steps and compensations", nodes, NODES_MAX),
            ("outcomes", file.outcomes.len(), OUTCOMES_MAX),
            ("owners", file.owners.len(), OWNERS_MAX),
        ] {
            if count == 0 || count > max {
                self.problem(file.name.span(), format!("{count} {what} are declared; 1 to {max} are allowed"));
            }
        }
    }

    /// Checks a name that filters and URLs use.
    fn word(&mut self, what: &str, name: &SpannedText) {
        let text = name.get_ref();
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
            self.problem(name.span(), format!("{what} {text:?} must be 1 to 64 of the characters a-z, 0-9, - and _"));
        }
    }

    fn owners(&mut self, file: &raw::DeclarationFile) -> Vec<StepOwner> {
        for id in file.owners.keys() {
            self.word("the owner", id);
        }
        let owner = |(id, title): (&SpannedText, &SpannedText)| StepOwner {
            id: id.get_ref().clone(),
            title: title.get_ref().clone(),
        };
        file.owners.iter().map(owner).collect()
    }

    /// The set of events that a key lists. `must` is the position of the key if the list must not be empty.
    fn events(&mut self, role: &str, listed: &[SpannedText], must: Option<Range<usize>>) -> EventSet {
        if let Some(span) = must.filter(|_| listed.is_empty()) {
            self.problem(span, format!("{role} names no event"));
        }
        let mut set: EventSet = 0;
        for text in listed {
            let selector = match EventSelector::parse(text.get_ref()) {
                Ok(selector) => selector,
                Err(wrong) => {
                    self.problem(text.span(), format!("{role}: {wrong}"));
                    continue;
                }
            };
            let Some(index) = self.intern(text, selector) else { continue };
            let taken = set & (1 << index) != 0;
            let overlap = self.overlap_in(set, index);
            if taken {
                self.problem(text.span(), format!("{role} names {text:?} twice", text = text.get_ref()));
            } else if let Some(other) = overlap {
                self.problem(
                    text.span(),
                    format!("{role} names {:?} and {other:?}, and one event can be both", text.get_ref()),
                );
            }
            set |= 1 << index;
        }
        set
    }

    fn overlap_in(&self, set: EventSet, index: usize) -> Option<String> {
        let here = &self.events[index];
        members(set)
            .filter(|other| *other != index)
            .map(|other| &self.events[other])
            .find(|other| other.overlaps(here))
            .map(ToString::to_string)
    }

    /// The index of a selector. If one name ended with another, one event would match both.
    fn intern(&mut self, text: &SpannedText, selector: EventSelector) -> Option<usize> {
        if let Some(index) = self.events.iter().position(|known| *known == selector) {
            return Some(index);
        }
        let ambiguous = self
            .events
            .iter()
            .find(|known| {
                known.name != selector.name && (known.matches(&selector.name) || selector.matches(&known.name))
            })
            .map(ToString::to_string);
        if let Some(other) = ambiguous {
            self.problem(text.span(), format!("{:?} and {other:?} can mean the same event", text.get_ref()));
        }
        if self.events.len() == EVENTS_MAX {
            self.problem(text.span(), format!("more than {EVENTS_MAX} different events are named"));
            return None;
        }
        self.events.push(selector);
        Some(self.events.len() - 1)
    }

    fn nodes(&mut self, file: &raw::DeclarationFile, owners: &[StepOwner]) -> Vec<SagaNode> {
        let mut nodes = Vec::new();
        for step in &file.steps {
            let what = format!("step {:?}", step.id.get_ref());
            let mut node = self.node(&what, (&step.id, &step.title, &step.owner, &step.deadline), owners);
            node.reached_by = self.events(&format!("{what}: reached_by"), &step.reached_by, None);
            node.completed_by = self.completed(&what, &step.completed_by);
            node.failed_by = self.events(&format!("{what}: failed_by"), &step.failed_by, None);
            node.undone_by = self.events(&format!("{what}: undone_by"), &step.undone_by, None);
            node.attention = step.attention;
            node.waiting = self.waiting(step.waiting.as_ref());
            node.failed = self.failed(step.failed.as_ref());
            if let Some(failed) = step.failed.as_ref().filter(|_| !step.attention) {
                self.problem(failed.span(), format!("{what}: failed is a sentence for steps with attention = true"));
            }
            if step.attention && step.failed_by.is_empty() {
                self.problem(
                    step.id.span(),
                    format!("{what}: attention is for steps that can fail, and failed_by names no event"),
                );
            }
            self.one_role(&what, &step.id, &node);
            nodes.push(node);
        }
        if let Some(cancel) = &file.cancel {
            let what = "cancel";
            let mut node = self.node(what, (&cancel.id, &cancel.title, &cancel.owner, &cancel.deadline), owners);
            node.kind = NodeKind::Cancel;
            node.completed_by = self.completed(what, &cancel.completed_by);
            node.waiting = self.waiting(cancel.waiting.as_ref());
            nodes.push(node);
        } else if let Some(first) = file.compensations.first() {
            self.problem(first.id.span(), "compensations are declared, but no [cancel] that starts them".to_owned());
        }
        for undo in &file.compensations {
            let what = format!("compensation {:?}", undo.id.get_ref());
            let mut node = self.node(&what, (&undo.id, &undo.title, &undo.owner, &undo.deadline), owners);
            node.kind = NodeKind::Compensation;
            node.attention = true;
            node.reached_by = self.events(&format!("{what}: reached_by"), &undo.reached_by, None);
            node.completed_by = self.completed(&what, &undo.completed_by);
            node.failed_by = self.events(&format!("{what}: failed_by"), &undo.failed_by, None);
            node.waiting = self.waiting(undo.waiting.as_ref());
            node.failed = self.failed(undo.failed.as_ref());
            self.one_role(&what, &undo.id, &node);
            nodes.push(node);
        }
        self.distinct_ids(file, &nodes);
        nodes.truncate(NODES_MAX);
        nodes
    }

    fn node(
        &mut self,
        what: &str,
        (id, title, owner, deadline): (&SpannedText, &SpannedText, &SpannedText, &SpannedText),
        owners: &[StepOwner],
    ) -> SagaNode {
        self.word(&format!("the id of {what}"), id);
        let found = owners.iter().position(|known| known.id == *owner.get_ref());
        if found.is_none() {
            let near = hint(owner.get_ref(), owners.iter().map(|known| known.id.as_str()));
            self.problem(owner.span(), format!("{what}: {:?} is not among [owners]{near}", owner.get_ref()));
        }
        let deadline_ms = parse_duration_ms(deadline.get_ref()).unwrap_or_else(|wrong| {
            self.problem(deadline.span(), format!("{what}: {wrong}"));
            0
        });
        SagaNode {
            id: id.get_ref().clone(),
            title: title.get_ref().clone(),
            owner: found.unwrap_or_default(),
            kind: NodeKind::Step,
            after: 0,
            reached_by: 0,
            completed_by: 0,
            failed_by: 0,
            undone_by: 0,
            attention: false,
            deadline_ms,
            waiting: self.waiting(None),
            failed: self.failed(None),
        }
    }

    fn completed(&mut self, what: &str, listed: &toml::Spanned<Vec<SpannedText>>) -> EventSet {
        self.events(&format!("{what}: completed_by"), listed.get_ref(), Some(listed.span()))
    }

    fn waiting(&mut self, text: Option<&SpannedText>) -> SentenceTemplate {
        let fallback = || SentenceTemplate::parse("Waiting for {owner}: {step}").expect("its placeholders are known");
        match text {
            None => fallback(),
            Some(text) => self.sentence(text).unwrap_or_else(fallback),
        }
    }

    fn failed(&mut self, text: Option<&SpannedText>) -> SentenceTemplate {
        let fallback = || {
            SentenceTemplate::parse("{step} failed; only a person can resolve it").expect("its placeholders are known")
        };
        text.and_then(|text| self.sentence(text)).unwrap_or_else(fallback)
    }

    fn sentence(&mut self, text: &SpannedText) -> Option<SentenceTemplate> {
        SentenceTemplate::parse(text.get_ref()).map_err(|wrong| self.problem(text.span(), wrong)).ok()
    }

    /// An event may complete a step or fail it, but not both.
    fn one_role(&mut self, what: &str, id: &SpannedText, node: &SagaNode) {
        for (one, other, roles) in [
            (node.completed_by, node.failed_by, "completed_by and failed_by"),
            (node.completed_by, node.reached_by, "reached_by and completed_by"),
            (node.failed_by, node.reached_by, "reached_by and failed_by"),
            (node.completed_by, node.undone_by, "completed_by and undone_by"),
        ] {
            let both = members(one)
                .find(|index| members(other).any(|there| self.events[there].overlaps(&self.events[*index])));
            if let Some(index) = both {
                let event = self.events[index].to_string();
                self.problem(id.span(), format!("{what}: {roles} can both mean {event:?}"));
            }
        }
    }

    fn distinct_ids(&mut self, file: &raw::DeclarationFile, nodes: &[SagaNode]) {
        let ids = file
            .steps
            .iter()
            .map(|step| &step.id)
            .chain(file.cancel.iter().map(|cancel| &cancel.id))
            .chain(file.compensations.iter().map(|undo| &undo.id));
        for (index, id) in ids.enumerate() {
            if nodes[..index].iter().any(|before| before.id == *id.get_ref()) {
                self.problem(id.span(), format!("{:?} is the id of two steps", id.get_ref()));
            }
        }
    }

    /// Checks that `after` names steps, and that the steps form no cycle.
    fn order_of_steps(&mut self, file: &raw::DeclarationFile, nodes: &mut [SagaNode]) {
        let ids: Vec<&str> = file.steps.iter().map(|step| step.id.get_ref().as_str()).collect();
        for (index, step) in file.steps.iter().enumerate().take(nodes.len()) {
            for before in &step.after {
                match ids.iter().position(|id| id == before.get_ref()) {
                    Some(found) if found < NODES_MAX => nodes[index].after |= 1 << found,
                    _ => {
                        let near = hint(before.get_ref(), ids.iter().copied());
                        let text = format!(
                            "step {:?}: after names {:?}, which is not a step{near}",
                            ids[index],
                            before.get_ref()
                        );
                        self.problem(before.span(), text);
                    }
                }
            }
        }
        let mut done: NodeSet = 0;
        for _ in nodes.iter() {
            for (index, node) in nodes.iter().enumerate() {
                if node.after & !done == 0 {
                    done |= 1 << index;
                }
            }
        }
        for (index, step) in file.steps.iter().enumerate().take(nodes.len()) {
            if done & (1 << index) == 0 {
                self.problem(
                    step.id.span(),
                    format!("step {:?} comes after itself, by way of its predecessors", ids[index]),
                );
            }
        }
    }

    fn exclusive(&mut self, group: &toml::Spanned<Vec<SpannedText>>) -> EventSet {
        if group.get_ref().len() == 1 {
            self.problem(group.span(), "an exclusive group needs at least two events".to_owned());
        }
        self.events("exclusive", group.get_ref(), Some(group.span()))
    }

    fn outcomes(&mut self, file: &raw::DeclarationFile, nodes: &[SagaNode]) -> Vec<SagaOutcome> {
        let mut outcomes: Vec<SagaOutcome> = Vec::new();
        for raw in &file.outcomes {
            let name = raw.name.get_ref();
            self.word("the outcome", &raw.name);
            if outcomes.iter().any(|before| before.name == *name) {
                self.problem(raw.name.span(), format!("two outcomes are called {name:?}"));
            }
            let kind = self.outcome_kind(name, &raw.kind);
            let role = format!("outcome {name:?}: when");
            let when = self.events(&role, raw.when.get_ref(), Some(raw.when.span()));
            let mut settled_by: NodeSet = 0;
            for id in &raw.settled_by {
                match nodes.iter().position(|node| node.id == *id.get_ref()) {
                    Some(found) => settled_by |= 1 << found,
                    None => {
                        let near = hint(id.get_ref(), nodes.iter().map(|node| node.id.as_str()));
                        self.problem(
                            id.span(),
                            format!(
                                "outcome {name:?}: settled_by names {:?}, which is not a step or compensation{near}",
                                id.get_ref()
                            ),
                        );
                    }
                }
            }
            let sentence = self.sentence(&raw.sentence).unwrap_or_else(|| self.waiting(None));
            outcomes.push(SagaOutcome { name: name.clone(), kind, when, settled_by, sentence });
        }
        outcomes
    }

    fn outcome_kind(&mut self, name: &str, kind: &SpannedText) -> OutcomeKind {
        match OutcomeKind::parse(kind.get_ref()) {
            Some(kind) => kind,
            None => {
                let near = hint(kind.get_ref(), OutcomeKind::ALL.map(OutcomeKind::name));
                self.problem(
                    kind.span(),
                    format!(
                        "outcome {name:?}: kind {:?} is none of completed, rejected, compensated, failed{near}",
                        kind.get_ref()
                    ),
                );
                OutcomeKind::Failed
            }
        }
    }

    /// Checks that every outcome can be reached.
    fn reachable(
        &mut self,
        file: &raw::DeclarationFile,
        start: EventSet,
        nodes: &[SagaNode],
        exclusive: &[EventSet],
        outcomes: &[SagaOutcome],
    ) {
        let declared = nodes
            .iter()
            .fold(start, |set, node| set | node.completed_by | node.failed_by | node.reached_by | node.undone_by);
        for (index, (raw, outcome)) in file.outcomes.iter().zip(outcomes).enumerate() {
            let name = &outcome.name;
            let span = raw.when.span();
            let undeclared = members(outcome.when)
                .find(|event| !members(declared).any(|known| self.events[known].overlaps(&self.events[*event])));
            if let Some(event) = undeclared {
                let event = self.events[event].to_string();
                self.problem(span.clone(), format!("outcome {name:?} can never be reached: it waits for {event:?}, which starts nothing and which no step, cancel or compensation names"));
            }
            if exclusive.iter().any(|group| (group & outcome.when).count_ones() > 1) {
                self.problem(
                    span.clone(),
                    format!("outcome {name:?} can never be reached: it waits for events that exclude each other"),
                );
            }
            if let Some(before) = outcomes[..index].iter().find(|before| self.shadows(before, outcome)) {
                let text = format!(
                    "outcome {name:?} can never be reached: {:?} comes first and requires no other event",
                    before.name
                );
                self.problem(span.clone(), text);
            }
            if outcome.kind == OutcomeKind::Compensated && file.cancel.is_none() {
                self.problem(span, format!("outcome {name:?} is compensated, but no [cancel] is declared"));
            }
        }
    }

    fn shadows(&self, before: &SagaOutcome, outcome: &SagaOutcome) -> bool {
        members(before.when)
            .all(|asked| members(outcome.when).any(|event| self.events[asked].covers(&self.events[event])))
    }

    fn correlation(&mut self, raw: &raw::CorrelationTable) -> (String, std::collections::BTreeMap<String, String>) {
        for (event, field) in &raw.fields {
            for text in [event, field] {
                if let Err(wrong) = check_path(text.get_ref()) {
                    self.problem(text.span(), format!("correlation.fields: {wrong}"));
                }
            }
        }
        let header = raw.header.as_ref().map_or_else(|| CORRELATION_HEADER.to_owned(), |text| text.get_ref().clone());
        if let Some(text) = raw.header.as_ref().filter(|text| text.get_ref().is_empty()) {
            self.problem(text.span(), "correlation.header is empty; omit it for ce_correlationid".to_owned());
        }
        let fields = raw.fields.iter().map(|(event, field)| (event.get_ref().clone(), field.get_ref().clone()));
        (header, fields.collect())
    }

    fn topics(&mut self, file: &raw::DeclarationFile, owners: &[StepOwner]) -> Vec<String> {
        let mut seen = BTreeSet::new();
        for topic in &file.topics {
            let name = topic.get_ref().replace("{system}", "system");
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if name.is_empty() || name.len() > 249 || !name.chars().all(fine) {
                self.problem(topic.span(), format!("{:?} is not a topic name", topic.get_ref()));
            }
            if !seen.insert(topic.get_ref()) {
                self.problem(topic.span(), format!("topics names {:?} twice", topic.get_ref()));
            }
        }
        if file.topics.is_empty() {
            return owners.iter().map(|owner| format!("{{system}}.{}.events", owner.id)).collect();
        }
        file.topics.iter().map(|topic| topic.get_ref().clone()).collect()
    }
}

/// The indexes in a set.
fn members(set: EventSet) -> impl Iterator<Item = usize> {
    (0..EVENTS_MAX).filter(move |index| set & (1 << index) != 0)
}

/// `500ms`, `30s`, `10m`, `2h`, `1d`.
fn parse_duration_ms(text: &str) -> Result<i64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let milliseconds =
        number.parse::<i64>().ok().zip(unit_ms).and_then(|(number, unit_ms)| number.checked_mul(unit_ms));
    match milliseconds.filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms)) {
        Some(ms) => Ok(ms),
        None => Err(format!("the deadline {text:?} is not like 500ms, 30s, 10m, 2h or 1d (at most 10000d)")),
    }
}

/// Keeps the sum of a timestamp and a deadline far from overflow.
const DEADLINE_MS_MAX: i64 = 10_000 * 86_400_000;
