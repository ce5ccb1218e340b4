//! Derives the progress of a saga: a pure function of its declaration and its records.
//!
//! The result depends neither on the order of arrival nor on a clock. The view decides what depends on the watermark (whether
//! an owed step is *stuck*) from [`SagaProgress::due_ms`].

use crate::{
    declaration::{Declaration, EventSet, NodeKind, NodeSet, OutcomeKind, SagaNode},
    interner::Interner,
    saga_records::{RECORDS_MAX, SagaRecord},
};

/// The lifecycle state of a saga: exactly one.
///
/// ```text
/// running ──► completed | rejected | failed
///    └─► compensating ──► compensated | failed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleState {
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
    /// A person must act: a step failed that nothing compensates, or the events contradict each other.
    Failed,
}

impl LifecycleState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Completed, Self::Rejected, Self::Compensated, Self::Failed];

    /// The name in filters and replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Compensated => "compensated",
            Self::Failed => "failed",
        }
    }

    fn of(kind: OutcomeKind) -> Self {
        match kind {
            OutcomeKind::Completed => Self::Completed,
            OutcomeKind::Rejected => Self::Rejected,
            OutcomeKind::Compensated => Self::Compensated,
            OutcomeKind::Failed => Self::Failed,
        }
    }
}

/// A property of a saga beside its state. A saga has any number of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SagaFlag {
    /// A step was done after its deadline.
    Late,
    /// An owed step is past its deadline, judged by the watermark.
    Stuck,
    /// An event has no predecessor: the start event is missing, or the sequence of an entity has a hole.
    Gap,
    /// A dead-letter topic has a copy of one of its records.
    DeadLetter,
    /// The saga has events that exclude each other.
    Contradiction,
    /// It has more records than its timeline keeps.
    Truncated,
    /// One of its records is parked in a service.
    Parked,
}

impl SagaFlag {
    /// Every flag.
    pub const ALL: [Self; 7] =
        [Self::Late, Self::Stuck, Self::Gap, Self::DeadLetter, Self::Contradiction, Self::Truncated, Self::Parked];

    /// The name in filters and replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Stuck => "stuck",
            Self::Gap => "gap",
            Self::DeadLetter => "dead-letter",
            Self::Contradiction => "contradiction",
            Self::Truncated => "truncated",
            Self::Parked => "parked",
        }
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The status of one step or compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeStatus {
    /// Not owed yet.
    Ahead,
    /// Owed, and no event of it was received.
    Waiting,
    /// Work on it has started.
    Reached,
    Done,
    Failed,
    /// Done, then compensated.
    Undone,
    /// The saga took another path; the step will not be done.
    Skipped,
}

impl NodeStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Waiting => "waiting",
            Self::Reached => "reached",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::Skipped => "skipped",
        }
    }
}

/// The progress of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SagaProgress {
    pub(crate) state: LifecycleState,
    /// The index of the decided outcome, even if something is still open.
    pub(crate) outcome: Option<usize>,
    /// Nothing is open any more.
    pub(crate) settled: bool,
    /// The steps that are owed now.
    pub(crate) waiting: NodeSet,
    /// Flags as bits, without [`SagaFlag::Stuck`].
    pub(crate) flags: u8,
    pub(crate) started_ms: i64,
    pub(crate) updated_ms: i64,
    /// When the last event that its end requires was produced.
    pub(crate) ended_ms: Option<i64>,
    /// The earliest deadline of the owed steps.
    pub(crate) due_ms: Option<i64>,
}

/// The declared events that a saga has received, with the first timestamp of each.
pub(crate) struct SagaFacts<'a> {
    declaration: &'a Declaration,
    received: EventSet,
    first_ms: [i64; 128],
    started_ms: i64,
}

impl<'a> SagaFacts<'a> {
    /// Collects the facts from the records, which are in order of time. `number` is the declaration's index in the view.
    pub(crate) fn read(
        declaration: &'a Declaration,
        number: usize,
        records: &[SagaRecord],
        interner: &Interner,
    ) -> Self {
        let mut facts = Self { declaration, received: 0, first_ms: [i64::MAX; 128], started_ms: 0 };
        for record in records {
            let mut new = interner.declared_events(record.kind)[number] & !facts.received;
            facts.received |= new;
            while new != 0 {
                facts.first_ms[new.trailing_zeros() as usize] = record.at_ms();
                new &= new - 1;
            }
        }
        facts.started_ms = facts.first(declaration.start).or_else(|| facts.first(facts.received)).unwrap_or_default();
        facts
    }

    /// True if any declared event was received. Otherwise the records are not a saga of this declaration.
    pub(crate) fn any(&self) -> bool {
        self.received != 0
    }

    fn has(&self, any_of: EventSet) -> bool {
        self.received & any_of != 0
    }

    fn first(&self, any_of: EventSet) -> Option<i64> {
        let mut set = self.received & any_of;
        let mut first = None;
        while set != 0 {
            let at_ms = self.first_ms[set.trailing_zeros() as usize];
            first = Some(first.map_or(at_ms, |first: i64| first.min(at_ms)));
            set &= set - 1;
        }
        first
    }

    pub(crate) fn reached_at(&self, node: &SagaNode) -> Option<i64> {
        self.first(node.reached_by)
    }

    pub(crate) fn done_at(&self, node: &SagaNode) -> Option<i64> {
        self.first(node.completed_by)
    }

    pub(crate) fn failed_at(&self, node: &SagaNode) -> Option<i64> {
        self.first(node.failed_by).filter(|_| !self.has(node.completed_by))
    }

    pub(crate) fn undone_at(&self, node: &SagaNode) -> Option<i64> {
        self.first(node.undone_by).filter(|_| self.has(node.completed_by))
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &'a SagaNode)> {
        self.declaration.nodes.iter().enumerate()
    }

    fn done(&self) -> NodeSet {
        self.nodes().filter(|(_, node)| self.has(node.completed_by)).fold(0, |set, (index, _)| set | 1 << index)
    }

    /// When the saga was cancelled.
    fn cancelled_at(&self) -> Option<i64> {
        self.nodes().find(|(_, node)| node.kind == NodeKind::Cancel).and_then(|(_, node)| self.done_at(node))
    }

    /// When the first step failed whose failure starts the compensation of the saga.
    fn step_failed_at(&self) -> Option<i64> {
        let can_break = self.nodes().filter(|(_, node)| node.kind == NodeKind::Step && !node.attention);
        can_break.filter_map(|(_, node)| self.failed_at(node)).min()
    }

    /// Since when a node is, or was, owed; `None` if it was never owed.
    pub(crate) fn owed_since(&self, node: &SagaNode) -> Option<i64> {
        match node.kind {
            NodeKind::Cancel => self.step_failed_at(),
            NodeKind::Compensation => self.cancelled_at(),
            NodeKind::Step => {
                let before = self.nodes().filter(|(index, _)| node.after & (1 << index) != 0);
                let mut since_ms = self.started_ms;
                for (_, before) in before {
                    since_ms = since_ms.max(self.done_at(before)?);
                }
                Some(since_ms)
            }
        }
    }

    /// True if the node was done after its deadline.
    pub(crate) fn was_late(&self, node: &SagaNode) -> bool {
        match (self.owed_since(node), self.done_at(node)) {
            (Some(since_ms), Some(done_ms)) => done_ms - since_ms > node.deadline_ms,
            _ => false,
        }
    }

    fn contradicts(&self) -> bool {
        self.declaration.exclusive.iter().any(|group| (self.received & group).count_ones() > 1)
    }

    /// The progress, except for the flags that only the complete list of records decides (see [`record_flags`]).
    pub(crate) fn progress(&self, records: &[SagaRecord]) -> SagaProgress {
        let outcomes = &self.declaration.outcomes;
        let outcome = outcomes.iter().position(|outcome| self.received & outcome.when == outcome.when);
        let done = self.done();
        let contradicts = self.contradicts();
        let open = outcome.map(|outcome| outcomes[outcome].settled_by & !done);
        let settled = open == Some(0) && !contradicts;
        let waiting = if contradicts { 0 } else { self.waiting(open, done) };
        let state = match outcome {
            _ if contradicts => LifecycleState::Failed,
            Some(outcome) if settled => LifecycleState::of(outcomes[outcome].kind),
            _ if self.needs_attention(waiting) => LifecycleState::Failed,
            _ if self.cancelled_at().is_some() => LifecycleState::Compensating,
            _ => LifecycleState::Running,
        };
        let mut flags = if contradicts { SagaFlag::Contradiction.bit() } else { 0 };
        if self.nodes().any(|(_, node)| self.was_late(node)) {
            flags |= SagaFlag::Late.bit();
        }
        if !self.has(self.declaration.start) {
            flags |= SagaFlag::Gap.bit();
        }
        SagaProgress {
            state,
            outcome,
            settled,
            waiting,
            flags,
            started_ms: self.started_ms,
            updated_ms: records.last().map_or(0, SagaRecord::at_ms),
            ended_ms: outcome.filter(|_| settled).map(|outcome| self.ended_at(outcome)),
            due_ms: self.due_at(waiting),
        }
    }

    /// The owed steps: those an outcome still requires, else the compensations, else the next steps.
    fn waiting(&self, open: Option<NodeSet>, done: NodeSet) -> NodeSet {
        let is_owed = |index: usize, node: &SagaNode| done & (1 << index) == 0 && node.after & !done == 0;
        if let Some(open) = open {
            let owed = self.set(|index, node| open & (1 << index) != 0 && is_owed(index, node));
            return if owed == 0 { open } else { owed };
        }
        let kind = if self.cancelled_at().is_some() {
            NodeKind::Compensation
        } else if self.step_failed_at().is_some() {
            NodeKind::Cancel
        } else {
            NodeKind::Step
        };
        self.set(|index, node| node.kind == kind && is_owed(index, node))
    }

    fn set(&self, chosen: impl Fn(usize, &SagaNode) -> bool) -> NodeSet {
        self.nodes().filter(|(index, node)| chosen(*index, node)).fold(0, |set, (index, _)| set | 1 << index)
    }

    /// True if an owed step has failed and only a person can resolve it.
    fn needs_attention(&self, waiting: NodeSet) -> bool {
        self.nodes()
            .any(|(index, node)| waiting & (1 << index) != 0 && node.attention && self.failed_at(node).is_some())
    }

    fn ended_at(&self, outcome: usize) -> i64 {
        let outcome = &self.declaration.outcomes[outcome];
        let settled = self.nodes().filter(|(index, _)| outcome.settled_by & (1 << index) != 0);
        let mut ended_ms = settled.filter_map(|(_, node)| self.done_at(node)).max().unwrap_or_default();
        let mut when = outcome.when & self.received;
        while when != 0 {
            ended_ms = ended_ms.max(self.first_ms[when.trailing_zeros() as usize]);
            when &= when - 1;
        }
        ended_ms
    }

    fn due_at(&self, waiting: NodeSet) -> Option<i64> {
        let owed = self.nodes().filter(|(index, _)| waiting & (1 << index) != 0);
        owed.map(|(_, node)| self.due_of(node)).min()
    }

    /// The deadline of an owed node.
    pub(crate) fn due_of(&self, node: &SagaNode) -> i64 {
        self.owed_since(node).unwrap_or(self.started_ms) + node.deadline_ms
    }

    /// The status of a node in a saga with this progress.
    pub(crate) fn status(&self, index: usize, node: &SagaNode, progress: &SagaProgress) -> NodeStatus {
        if self.undone_at(node).is_some() {
            return NodeStatus::Undone;
        }
        if self.done_at(node).is_some() {
            return NodeStatus::Done;
        }
        if self.failed_at(node).is_some() {
            return NodeStatus::Failed;
        }
        let owed = progress.waiting & (1 << index) != 0;
        match (owed, self.reached_at(node).is_some()) {
            (true, true) => NodeStatus::Reached,
            (true, false) => NodeStatus::Waiting,
            (false, _) if progress.settled || self.step_failed_at().is_some() || self.cancelled_at().is_some() => {
                NodeStatus::Skipped
            }
            (false, true) => NodeStatus::Reached,
            (false, false) => NodeStatus::Ahead,
        }
    }
}

/// The flags that only the complete list of records decides.
pub(crate) fn record_flags(declaration: &Declaration, records: &[SagaRecord], interner: &Interner) -> u8 {
    let mut flags = 0;
    if records.iter().any(|record| interner.kind_of(record.kind).dead_letter) {
        flags |= SagaFlag::DeadLetter.bit();
    }
    if records.len() >= RECORDS_MAX {
        // A hole cannot be distinguished from a record that was not kept.
        return flags | SagaFlag::Truncated.bit();
    }
    if declaration.sequences && has_hole(records, interner) {
        flags |= SagaFlag::Gap.bit();
    }
    flags
}

/// True if the sequence of some source for this entity lacks a number below its highest.
fn has_hole(records: &[SagaRecord], interner: &Interner) -> bool {
    let mut sources: Vec<(u16, u32, u32)> = Vec::new();
    for record in records.iter().filter(|record| record.sequence > 0) {
        let kind = interner.kind_of(record.kind);
        if !kind.own_key || kind.dead_letter {
            continue;
        }
        match sources.iter_mut().find(|(source, ..)| *source == kind.source) {
            Some((_, highest, count)) => {
                *highest = record.sequence.max(*highest);
                *count += 1;
            }
            None => sources.push((kind.source, record.sequence, 1)),
        }
    }
    sources.iter().any(|(_, highest, count)| highest > count)
}
