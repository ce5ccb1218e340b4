//! Where a saga stands: a pure function of its declaration and its rows.
//!
//! Nothing here depends on the order of arrival or on a clock. What depends on the watermark (whether an owed step is *stuck*) is
//! decided by the view from [`Standing::due_ms`].

use crate::{
    declaration::{Declaration, EventSet, Node, NodeKind, NodeSet, OutcomeKind},
    names::Names,
    story::{ROWS_MAX, Row},
};

/// The technical state of a saga: exactly one.
///
/// ```text
/// running ──► completed | rejected | failed
///    └─► compensating ──► compensated | failed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
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
    /// A person must look: something failed that nothing undoes, or what was heard contradicts itself.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Completed, Self::Rejected, Self::Compensated, Self::Failed];

    /// As filters and replies name it.
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

/// What else is to be said of a saga: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Something was done after its deadline.
    Late,
    /// Something owed is past its deadline, judged by the watermark.
    Stuck,
    /// Something was heard that nothing heard so far explains: no start event, or a hole in an entity's sequence.
    Gap,
    /// A copy of one of its records lies in a dead-letter topic.
    Hospital,
    /// Events were heard that exclude each other.
    Contradiction,
    /// It has more records than its timeline keeps.
    Truncated,
    /// One of its records waits in a service because it, or one before it, cannot work.
    Parked,
}

impl Flag {
    /// Every flag.
    pub const ALL: [Self; 7] =
        [Self::Late, Self::Stuck, Self::Gap, Self::Hospital, Self::Contradiction, Self::Truncated, Self::Parked];

    /// As filters and replies name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Stuck => "stuck",
            Self::Gap => "gap",
            Self::Hospital => "hospital",
            Self::Contradiction => "contradiction",
            Self::Truncated => "truncated",
            Self::Parked => "parked",
        }
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How far one step or compensation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeStatus {
    /// Not owed yet.
    Ahead,
    /// Owed, and nothing of it was heard.
    Waiting,
    /// Work on it was heard.
    Reached,
    Done,
    Failed,
    /// Was done, and is undone.
    Undone,
    /// The saga went another way, nobody will do it.
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

/// Where a saga stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    /// The index of the outcome that is decided, even if something is still open.
    pub(crate) outcome: Option<usize>,
    /// Nothing is open any more.
    pub(crate) settled: bool,
    /// What is owed now.
    pub(crate) waiting: NodeSet,
    /// Flags as bits, without [`Flag::Stuck`].
    pub(crate) flags: u8,
    pub(crate) started_ms: i64,
    pub(crate) updated_ms: i64,
    /// When the last thing that its end needed was done.
    pub(crate) ended_ms: Option<i64>,
    /// The earliest deadline of what is owed.
    pub(crate) due_ms: Option<i64>,
}

/// What was heard of each declared event, and when first.
pub(crate) struct Facts<'a> {
    declaration: &'a Declaration,
    heard: EventSet,
    first_ms: [i64; 128],
    started_ms: i64,
}

impl<'a> Facts<'a> {
    /// Reads the rows, which are in order of time. `number` is the declaration's place among those of the view.
    pub(crate) fn read(declaration: &'a Declaration, number: usize, rows: &[Row], names: &Names) -> Self {
        let mut facts = Self { declaration, heard: 0, first_ms: [i64::MAX; 128], started_ms: 0 };
        for row in rows {
            let mut new = names.meanings(row.shape)[number] & !facts.heard;
            facts.heard |= new;
            while new != 0 {
                facts.first_ms[new.trailing_zeros() as usize] = row.at_ms();
                new &= new - 1;
            }
        }
        facts.started_ms = facts.first(declaration.start).or_else(|| facts.first(facts.heard)).unwrap_or_default();
        facts
    }

    /// Whether any declared event was heard: only then the story is a saga of this declaration.
    pub(crate) fn any(&self) -> bool {
        self.heard != 0
    }

    fn has(&self, any_of: EventSet) -> bool {
        self.heard & any_of != 0
    }

    fn first(&self, any_of: EventSet) -> Option<i64> {
        let mut set = self.heard & any_of;
        let mut first = None;
        while set != 0 {
            let at_ms = self.first_ms[set.trailing_zeros() as usize];
            first = Some(first.map_or(at_ms, |first: i64| first.min(at_ms)));
            set &= set - 1;
        }
        first
    }

    pub(crate) fn reached_at(&self, node: &Node) -> Option<i64> {
        self.first(node.reached_by)
    }

    pub(crate) fn done_at(&self, node: &Node) -> Option<i64> {
        self.first(node.completed_by)
    }

    pub(crate) fn failed_at(&self, node: &Node) -> Option<i64> {
        self.first(node.failed_by).filter(|_| !self.has(node.completed_by))
    }

    pub(crate) fn undone_at(&self, node: &Node) -> Option<i64> {
        self.first(node.undone_by).filter(|_| self.has(node.completed_by))
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &'a Node)> {
        self.declaration.nodes.iter().enumerate()
    }

    fn done(&self) -> NodeSet {
        self.nodes().filter(|(_, node)| self.has(node.completed_by)).fold(0, |set, (index, _)| set | 1 << index)
    }

    /// When the saga was cancelled.
    fn cancelled_at(&self) -> Option<i64> {
        self.nodes().find(|(_, node)| node.kind == NodeKind::Cancel).and_then(|(_, node)| self.done_at(node))
    }

    /// When the first step failed whose failure undoes the saga.
    fn broken_at(&self) -> Option<i64> {
        let can_break = self.nodes().filter(|(_, node)| node.kind == NodeKind::Step && !node.attention);
        can_break.filter_map(|(_, node)| self.failed_at(node)).min()
    }

    /// Since when a node is, or was, owed; `None` if it never came to that.
    pub(crate) fn owed_since(&self, node: &Node) -> Option<i64> {
        match node.kind {
            NodeKind::Cancel => self.broken_at(),
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

    /// Done, and later than its deadline.
    pub(crate) fn was_late(&self, node: &Node) -> bool {
        match (self.owed_since(node), self.done_at(node)) {
            (Some(since_ms), Some(done_ms)) => done_ms - since_ms > node.deadline_ms,
            _ => false,
        }
    }

    fn contradicts(&self) -> bool {
        self.declaration.exclusive.iter().any(|group| (self.heard & group).count_ones() > 1)
    }

    /// Where the saga stands, but for what only its rows as a whole can tell (see [`row_flags`]).
    pub(crate) fn standing(&self, rows: &[Row]) -> Standing {
        let outcomes = &self.declaration.outcomes;
        let outcome = outcomes.iter().position(|outcome| self.heard & outcome.when == outcome.when);
        let done = self.done();
        let contradicts = self.contradicts();
        let open = outcome.map(|outcome| outcomes[outcome].settled_by & !done);
        let settled = open == Some(0) && !contradicts;
        let waiting = if contradicts { 0 } else { self.waiting(open, done) };
        let state = match outcome {
            _ if contradicts => State::Failed,
            Some(outcome) if settled => State::of(outcomes[outcome].kind),
            _ if self.needs_attention(waiting) => State::Failed,
            _ if self.cancelled_at().is_some() => State::Compensating,
            _ => State::Running,
        };
        let mut flags = if contradicts { Flag::Contradiction.bit() } else { 0 };
        if self.nodes().any(|(_, node)| self.was_late(node)) {
            flags |= Flag::Late.bit();
        }
        if !self.has(self.declaration.start) {
            flags |= Flag::Gap.bit();
        }
        Standing {
            state,
            outcome,
            settled,
            waiting,
            flags,
            started_ms: self.started_ms,
            updated_ms: rows.last().map_or(0, Row::at_ms),
            ended_ms: outcome.filter(|_| settled).map(|outcome| self.ended_at(outcome)),
            due_ms: self.due_at(waiting),
        }
    }

    /// What is owed now: what an end still lacks, else what undoes, else what comes next.
    fn waiting(&self, open: Option<NodeSet>, done: NodeSet) -> NodeSet {
        let is_owed = |index: usize, node: &Node| done & (1 << index) == 0 && node.after & !done == 0;
        if let Some(open) = open {
            let owed = self.set(|index, node| open & (1 << index) != 0 && is_owed(index, node));
            return if owed == 0 { open } else { owed };
        }
        let kind = if self.cancelled_at().is_some() {
            NodeKind::Compensation
        } else if self.broken_at().is_some() {
            NodeKind::Cancel
        } else {
            NodeKind::Step
        };
        self.set(|index, node| node.kind == kind && is_owed(index, node))
    }

    fn set(&self, chosen: impl Fn(usize, &Node) -> bool) -> NodeSet {
        self.nodes().filter(|(index, node)| chosen(*index, node)).fold(0, |set, (index, _)| set | 1 << index)
    }

    /// Something that is owed has failed, and only a person can help.
    fn needs_attention(&self, waiting: NodeSet) -> bool {
        self.nodes()
            .any(|(index, node)| waiting & (1 << index) != 0 && node.attention && self.failed_at(node).is_some())
    }

    fn ended_at(&self, outcome: usize) -> i64 {
        let outcome = &self.declaration.outcomes[outcome];
        let settled = self.nodes().filter(|(index, _)| outcome.settled_by & (1 << index) != 0);
        let mut ended_ms = settled.filter_map(|(_, node)| self.done_at(node)).max().unwrap_or_default();
        let mut when = outcome.when & self.heard;
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

    /// When a node that is owed must be done.
    pub(crate) fn due_of(&self, node: &Node) -> i64 {
        self.owed_since(node).unwrap_or(self.started_ms) + node.deadline_ms
    }

    /// How far a node is in a saga that stands so.
    pub(crate) fn status(&self, index: usize, node: &Node, standing: &Standing) -> NodeStatus {
        if self.undone_at(node).is_some() {
            return NodeStatus::Undone;
        }
        if self.done_at(node).is_some() {
            return NodeStatus::Done;
        }
        if self.failed_at(node).is_some() {
            return NodeStatus::Failed;
        }
        let owed = standing.waiting & (1 << index) != 0;
        match (owed, self.reached_at(node).is_some()) {
            (true, true) => NodeStatus::Reached,
            (true, false) => NodeStatus::Waiting,
            (false, _) if standing.settled || self.broken_at().is_some() || self.cancelled_at().is_some() => {
                NodeStatus::Skipped
            }
            (false, true) => NodeStatus::Reached,
            (false, false) => NodeStatus::Ahead,
        }
    }
}

/// Flags that only the rows as a whole can tell.
pub(crate) fn row_flags(declaration: &Declaration, rows: &[Row], names: &Names) -> u8 {
    let mut flags = 0;
    if rows.iter().any(|row| names.shape_of(row.shape).dead) {
        flags |= Flag::Hospital.bit();
    }
    if rows.len() >= ROWS_MAX {
        // A hole cannot be told from a row that was not kept.
        return flags | Flag::Truncated.bit();
    }
    if declaration.sequences && has_hole(rows, names) {
        flags |= Flag::Gap.bit();
    }
    flags
}

/// Whether some source's sequence for this entity lacks a number below its highest.
fn has_hole(rows: &[Row], names: &Names) -> bool {
    let mut sources: Vec<(u16, u32, u32)> = Vec::new();
    for row in rows.iter().filter(|row| row.sequence > 0) {
        let shape = names.shape_of(row.shape);
        if !shape.entity || shape.dead {
            continue;
        }
        match sources.iter_mut().find(|(source, ..)| *source == shape.source) {
            Some((_, highest, count)) => {
                *highest = row.sequence.max(*highest);
                *count += 1;
            }
            None => sources.push((shape.source, row.sequence, 1)),
        }
    }
    sources.iter().any(|(_, highest, count)| highest > count)
}
