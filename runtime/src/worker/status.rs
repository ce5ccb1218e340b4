//! The status of a worker as others read it: whether it works, and what is wrong if it does not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    config::Timeouts,
    health::{CheckResult, DegradedPiece},
};

/// A turn that lasts longer than this waits for an overdue event, or will never end: the worker is not ready.
const LONG_TURN: Duration = Duration::from_secs(5);
/// A worker that makes no progress within a turn for longer than this never will: only a new process helps. Every call that may
/// wait has a deadline, and the default deadlines are far below this.
const ENDLESS_TURN: Duration = Duration::from_secs(60);
/// The most that one check adds to the time without progress. A process that was frozen for minutes has not been stuck for
/// minutes: its worker gets the time to continue.
const LONGEST_UNSEEN: Duration = Duration::from_secs(10);

/// The state of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// It has not joined its group yet.
    Joining,
    /// It has joined; the partitions it was given may still recover.
    Member,
    /// It failed and will start again from the log.
    Restarting {
        /// Why.
        reason: String,
    },
    /// It stopped for good: an operator must act.
    Stopped {
        /// Why.
        reason: String,
    },
    /// It has ended, as requested.
    Ended,
}

/// Why a partition takes no input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionIssue {
    /// The position before which it is held, as `topic/partition/offset`.
    pub position: String,
    /// Why.
    pub reason: String,
    /// True if it stays until an operator acts; else it is retried.
    pub is_final: bool,
}

/// The status of a worker. Clones share it.
#[derive(Debug, Clone)]
pub struct Status(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    crashing: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: WorkerState,
    recovering: usize,
    deciding: usize,
    unreachable: bool,
    /// When the last turn ended.
    turned: Instant,
    /// When a step within the turn that waits for others ended last.
    progressed: Instant,
    /// How long a worker may make no progress.
    endless: Duration,
    stall: Stall,
    /// The partitions that take no input.
    issues: BTreeMap<i32, PartitionIssue>,
    /// The batches that cannot be read, by input topic and partition. The other inputs of the partition continue.
    unreadable: BTreeMap<(Arc<str>, i32), PartitionIssue>,
    /// Why effects that are due are not performed, if so.
    overdue: Option<String>,
}

/// How long checks have seen no progress.
#[derive(Debug)]
struct Stall {
    /// The last progress.
    since: Instant,
    checked: Instant,
    seen: Duration,
}

impl Stall {
    fn new(since: Instant) -> Self {
        Self { since, checked: since, seen: Duration::ZERO }
    }
}

impl Inner {
    /// How long it has been in the same turn, if that is too long.
    fn is_stuck_for(&self, now: Instant) -> Option<Duration> {
        let in_this_turn = now.saturating_duration_since(self.turned);
        (self.state == WorkerState::Member && in_this_turn >= LONG_TURN).then_some(in_this_turn)
    }

    /// True if the turn that it is in will never end.
    fn is_stuck_for_good(&mut self, now: Instant) -> bool {
        let progressed = self.turned.max(self.progressed);
        if self.stall.since != progressed {
            self.stall = Stall::new(progressed);
        }
        self.stall.seen += now.saturating_duration_since(self.stall.checked).min(LONGEST_UNSEEN);
        self.stall.checked = now;
        self.state == WorkerState::Member && self.stall.seen >= self.endless
    }

    /// True unless it owns partitions and all of them are held.
    fn has_partition_that_continues(&self) -> bool {
        // A refused partition is not among those that decide; a held one is.
        let held = self.issues.values().filter(|issue| !issue.is_final).count();
        self.issues.is_empty() || self.deciding > held
    }

    fn degraded_pieces(&self) -> Vec<DegradedPiece> {
        let issues = self.issues.values().chain(self.unreadable.values());
        let held = issues.map(|issue| DegradedPiece::new(&*issue.position, &*issue.reason));
        held.chain(self.overdue.as_ref().map(|reason| DegradedPiece::new("effects", reason))).collect()
    }

    fn phase(&self) -> String {
        match &self.state {
            WorkerState::Joining => "joining its group".to_owned(),
            WorkerState::Member if self.recovering > 0 => format!("{} partitions recover", self.recovering),
            WorkerState::Member if self.unreachable => "no broker can be reached".to_owned(),
            WorkerState::Member => format!("{} partitions decide", self.deciding),
            WorkerState::Restarting { reason } => format!("starting again: {reason}"),
            WorkerState::Stopped { reason } => format!("stopped: {reason}"),
            WorkerState::Ended => "ended".to_owned(),
        }
    }
}

impl Status {
    /// The status of a worker that has not joined yet, and whose calls have these deadlines.
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        // A commit may take twice the deadline of a transaction, and the clients are closed behind it.
        let longest_call = 2 * (timeouts.transaction + timeouts.request + timeouts.registry) + timeouts.shutdown;
        let now = Instant::now();
        let inner = Inner {
            state: WorkerState::Joining,
            recovering: 0,
            deciding: 0,
            unreachable: false,
            turned: now,
            progressed: now,
            endless: ENDLESS_TURN.max(longest_call),
            stall: Stall::new(now),
            issues: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            overdue: None,
        };
        Self(Arc::new(Shared { crashing: AtomicBool::new(false), inner: Mutex::new(inner) }))
    }

    /// Fine if it has joined and everything it owns works. Degraded while some of it does not. Failed while it joins or recovers, and
    /// while no partition that it owns can continue.
    #[must_use]
    pub fn readiness(&self) -> CheckResult {
        self.readiness_at(Instant::now())
    }

    fn readiness_at(&self, now: Instant) -> CheckResult {
        let degraded = self.with(|inner| {
            let works = inner.state == WorkerState::Member && !inner.unreachable;
            let works = works && inner.is_stuck_for(now).is_none() && inner.recovering == 0;
            (works && inner.has_partition_that_continues()).then(|| inner.degraded_pieces())
        });
        degraded.map_or_else(|| CheckResult::Failed(self.describe_at(now)), CheckResult::of_pieces)
    }

    /// True if it will not work again in this process: it stopped for good, or its turn does not end.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.is_dead_at(Instant::now())
    }

    fn is_dead_at(&self, now: Instant) -> bool {
        self.with(|inner| matches!(inner.state, WorkerState::Stopped { .. }) || inner.is_stuck_for_good(now))
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.with(|inner| inner.state.clone())
    }

    /// How many partitions it decides for.
    #[must_use]
    pub fn deciding(&self) -> usize {
        self.with(|inner| inner.deciding)
    }

    /// The partitions that take no input, and why.
    #[must_use]
    pub fn issues(&self) -> BTreeMap<i32, PartitionIssue> {
        self.with(|inner| inner.issues.clone())
    }

    /// One line for an operator: what it waits for, or what is wrong.
    #[must_use]
    pub fn describe(&self) -> String {
        self.describe_at(Instant::now())
    }

    fn describe_at(&self, now: Instant) -> String {
        self.with(|inner| {
            let phase = match inner.is_stuck_for(now) {
                None => inner.phase(),
                Some(stuck_for) if inner.is_stuck_for_good(now) => {
                    format!("one turn has lasted for {} s; it does not end", stuck_for.as_secs())
                }
                Some(stuck_for) => format!("one turn has lasted for {} s", stuck_for.as_secs()),
            };
            inner.degraded_pieces().iter().fold(phase, |text, piece| format!("{text}; {piece}"))
        })
    }

    pub(crate) fn set(&self, state: WorkerState) {
        self.with(|inner| {
            if state != WorkerState::Member {
                inner.recovering = 0;
                inner.deciding = 0;
            }
            if matches!(state, WorkerState::Joining) {
                // What was wrong in the incarnation before is found again, or has passed.
                inner.issues.clear();
                inner.unreadable.clear();
                inner.overdue = None;
            }
            inner.unreachable = false;
            inner.turned = Instant::now();
            inner.state = state;
        });
    }

    /// A turn has ended.
    pub(crate) fn turned(&self) {
        self.with(|inner| inner.turned = Instant::now());
    }

    /// A call within a turn has returned that may have waited until its deadline.
    pub(crate) fn progressed(&self) {
        self.with(|inner| inner.progressed = Instant::now());
    }

    pub(crate) fn reachable(&self, reachable: bool) {
        self.with(|inner| inner.unreachable = !reachable);
    }

    pub(crate) fn count(&self, recovering: usize, deciding: usize) {
        self.with(|inner| (inner.recovering, inner.deciding) = (recovering, deciding));
    }

    pub(crate) fn set_issue(&self, partition: i32, issue: PartitionIssue) {
        self.with(|inner| inner.issues.insert(partition, issue));
    }

    pub(crate) fn clear_issue(&self, partition: i32) {
        self.with(|inner| inner.issues.remove(&partition));
    }

    /// The partitions are no longer owned.
    pub(crate) fn clear_issues(&self) {
        self.with(|inner| {
            inner.issues.clear();
            inner.unreadable.clear();
        });
    }

    /// Replaces the batches that cannot be read, by input topic and partition.
    pub(crate) fn set_unreadable(&self, unreadable: BTreeMap<(Arc<str>, i32), PartitionIssue>) {
        self.with(|inner| inner.unreadable = unreadable);
    }

    /// Sets why effects that are due are not performed, if so.
    pub(crate) fn set_overdue(&self, reason: Option<String>) {
        self.with(|inner| inner.overdue = reason);
    }

    pub(crate) fn crash(&self) {
        self.0.crashing.store(true, Ordering::Release);
    }

    pub(crate) fn is_crashing(&self) -> bool {
        self.0.crashing.load(Ordering::Acquire)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Inner) -> T) -> T {
        ask(&mut self.0.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a member once a second for so long after the end of its last turn. Returns whether it counts as dead at last.
    fn is_dead_after(status: &Status, seconds: u64) -> bool {
        let turned = status.with(|inner| inner.turned);
        (1..=seconds).fold(false, |_, second| status.is_dead_at(turned + Duration::from_secs(second)))
    }

    /// A member, and a moment this long after the end of its last turn.
    fn member_after(time: Duration) -> (Status, Instant) {
        let status = Status::new(&Timeouts::default());
        status.set(WorkerState::Member);
        (status, Instant::now() + time)
    }

    fn is_ready_at(status: &Status, now: Instant) -> bool {
        status.readiness_at(now) == CheckResult::Fine
    }

    fn endless() -> Duration {
        Status::new(&Timeouts::default()).with(|inner| inner.endless)
    }

    #[test]
    fn a_member_whose_turn_lasts_for_seconds_lives_and_is_not_ready() {
        let (status, now) = member_after(Duration::ZERO);
        assert!(is_ready_at(&status, now) && !status.is_dead_at(now));
        let (status, later) = member_after(LONG_TURN * 2);
        let text = status.describe_at(later);
        assert!(!is_ready_at(&status, later) && text.ends_with("one turn has lasted for 10 s"), "{text}");
        assert!(!status.is_dead_at(later), "it may end");
        status.turned();
        assert!(is_ready_at(&status, Instant::now()));
    }

    #[test]
    fn a_member_whose_turn_does_not_end_is_dead() {
        assert_eq!(endless(), ENDLESS_TURN);
        let (status, now) = member_after(ENDLESS_TURN);
        assert!(!is_dead_after(&status, 59));
        assert!(is_dead_after(&status, 60));
        let text = status.describe_at(now);
        assert!(
            !is_ready_at(&status, now) && text.ends_with("one turn has lasted for 60 s; it does not end"),
            "{text}"
        );
        status.turned();
        assert!(!status.is_dead() && is_ready_at(&status, Instant::now()), "{}", status.describe());
    }

    #[test]
    fn a_process_that_was_frozen_gives_its_worker_the_time_to_go_on() {
        let (status, thawed) = member_after(Duration::from_secs(600));
        assert!(!status.is_dead_at(thawed) && !is_ready_at(&status, thawed), "{}", status.describe_at(thawed));
        assert!(!status.is_dead_at(thawed + Duration::from_secs(40)));
        status.with(|inner| inner.turned = thawed + Duration::from_secs(41));
        assert!(!is_dead_after(&status, 59) && is_dead_after(&status, 60));
    }

    #[test]
    fn a_turn_that_waits_for_one_call_after_another_is_not_dead() {
        let (status, now) = member_after(Duration::from_secs(300));
        for second in 0..300 {
            let then = now - Duration::from_secs(300 - second);
            status.with(|inner| inner.progressed = then - Duration::from_secs(second % 10));
            assert!(!status.is_dead_at(then), "after {second} s");
        }
        assert!(!is_ready_at(&status, now), "{}", status.describe_at(now));
    }

    #[test]
    fn a_worker_that_joins_or_starts_again_waits_for_as_long_as_it_takes() {
        for state in [WorkerState::Joining, WorkerState::Restarting { reason: "a test".to_owned() }, WorkerState::Ended]
        {
            let status = Status::new(&Timeouts::default());
            status.set(state.clone());
            assert!(!is_dead_after(&status, 300), "{state:?}");
        }
    }

    #[test]
    fn a_call_may_take_as_long_as_its_configured_deadline() {
        let timeouts = Timeouts { transaction: Duration::from_secs(120), ..Timeouts::default() };
        assert!(Status::new(&timeouts).with(|inner| inner.endless) > 2 * timeouts.transaction);
    }

    fn issue(position: &str, is_final: bool) -> PartitionIssue {
        PartitionIssue { position: position.to_owned(), reason: "held".to_owned(), is_final }
    }

    #[test]
    fn a_worker_with_a_held_partition_is_degraded_and_one_that_cannot_continue_has_failed() {
        let status = Status::new(&Timeouts::default());
        status.set(WorkerState::Member);
        status.count(0, 2);
        status.set_issue(0, issue("orders.inbox/0/7", false));
        let held = |position: &str| DegradedPiece::new(position, "held");
        assert_eq!(status.readiness(), CheckResult::Degraded(vec![held("orders.inbox/0/7")]));
        status.set_issue(1, issue("orders.inbox/1/9", false));
        assert!(matches!(status.readiness(), CheckResult::Failed(_)), "no partition continues");
        status.clear_issue(0);
        status.count(0, 1);
        status.set_issue(1, issue("orders.events/1/9", true));
        assert!(matches!(status.readiness(), CheckResult::Degraded(_)), "the refused partition is not the only one");
        status.count(0, 0);
        assert!(matches!(status.readiness(), CheckResult::Failed(_)), "it is the only one");
        status.clear_issues();
        assert_eq!(status.readiness(), CheckResult::Fine);
    }

    #[test]
    fn a_batch_that_cannot_be_read_degrades_a_worker_whose_partitions_continue() {
        let status = Status::new(&Timeouts::default());
        status.set(WorkerState::Member);
        status.count(0, 1);
        status.set_unreadable(BTreeMap::from([(("orders.inbox".into(), 0), issue("orders.inbox/0/7", false))]));
        status.set_overdue(Some("late".to_owned()));
        let pieces = vec![DegradedPiece::new("orders.inbox/0/7", "held"), DegradedPiece::new("effects", "late")];
        assert_eq!(status.readiness(), CheckResult::Degraded(pieces));
        status.set_unreadable(BTreeMap::new());
        status.set_overdue(None);
        assert_eq!(status.readiness(), CheckResult::Fine);
    }
}
