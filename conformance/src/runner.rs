//! Runs the checks, a few at a time, each with a deadline, and collects their outcomes.
//!
//! A check that hangs or panics has failed; the run continues. Next: [`crate::checks`].

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::check::{Area, CheckFailure, ConformanceCheck};
use crate::context::CheckContext;
use crate::{CheckFilter, TestTarget, checks};

/// Checks wait most of the time, so a few run concurrently even on a small machine.
const JOBS: usize = 4;

/// The deadline of one check: longer than the sum of the timeouts inside it. A hanging server must not block the suite.
const CHECK_LIMIT: Duration = Duration::from_secs(180);

/// The outcome of one check.
#[derive(Clone, Debug)]
pub struct CheckOutcome {
    pub area: Area,
    pub name: &'static str,
    /// The observation, or why the check failed.
    pub result: Result<String, CheckFailure>,
    pub took: Duration,
    /// Topics, groups and subjects that could not be removed.
    pub left_behind: Vec<String>,
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, detail) = match &self.result {
            Ok(detail) => ("pass", detail.as_str()),
            Err(failure) => ("FAIL", failure.0.as_str()),
        };
        let (area, name, seconds) = (self.area.name(), self.name, self.took.as_secs_f64());
        write!(f, "{word} [{area}] {name} ({seconds:.1} s)")?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        for name in &self.left_behind {
            write!(f, "\n     could not remove {name}")?;
        }
        Ok(())
    }
}

/// The outcomes of a run, in the order of the catalogue.
#[derive(Clone, Debug, Default)]
pub struct SuiteReport {
    pub outcomes: Vec<CheckOutcome>,
}

impl SuiteReport {
    pub fn failed(&self) -> impl Iterator<Item = &CheckOutcome> {
        self.outcomes.iter().filter(|outcome| outcome.result.is_err())
    }

    /// True when at least one check ran and none failed: a filter that matches nothing proves nothing.
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && self.failed().next().is_none()
    }

    /// `N passed, N failed`
    pub fn summary(&self) -> String {
        let failed = self.failed().count();
        format!("{} passed, {failed} failed", self.outcomes.len() - failed)
    }
}

/// Area and sentence of every check.
pub fn catalogue() -> impl Iterator<Item = (Area, &'static str)> {
    checks::all().into_iter().map(|check| (check.area, check.name))
}

/// Runs the checks that `filter` admits.
pub fn run(target: &TestTarget, filter: &CheckFilter) -> SuiteReport {
    run_each(target, filter, |_| {})
}

/// As [`run`], and calls `each` with each outcome as soon as it is known.
pub fn run_each(target: &TestTarget, filter: &CheckFilter, mut each: impl FnMut(&CheckOutcome)) -> SuiteReport {
    let admitted = |check: &ConformanceCheck| filter.admits(check.area.name(), check.name);
    let chosen: Arc<Vec<ConformanceCheck>> = Arc::new(checks::all().into_iter().filter(admitted).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let run_id = uuid::Uuid::now_v7().simple().to_string();
    let (done, outcomes) = sync_channel(JOBS);
    for _ in 0..JOBS.min(chosen.len()) {
        let (chosen, next, done) = (chosen.clone(), next.clone(), done.clone());
        let (target, run_id) = (target.clone(), run_id.clone());
        thread::spawn(move || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(check) = chosen.get(index) else { return };
                let outcome = run_one(check, &target, format!("conformance-{run_id}-{index}"));
                if done.send((index, outcome)).is_err() {
                    return;
                }
            }
        });
    }
    drop(done);
    let mut finished: Vec<(usize, CheckOutcome)> = outcomes.iter().inspect(|(_, outcome)| each(outcome)).collect();
    finished.sort_by_key(|(index, _)| *index);
    SuiteReport { outcomes: finished.into_iter().map(|(_, outcome)| outcome).collect() }
}

/// Runs the check on its own thread, so that a check that never ends can be abandoned.
fn run_one(check: &ConformanceCheck, target: &TestTarget, prefix: String) -> CheckOutcome {
    // Apicurio 2.6 corrupts its storage when several new schemas arrive at once.
    static REGISTRY: Mutex<()> = Mutex::new(());
    let _exclusive = (check.area == Area::Registry).then(|| REGISTRY.lock().unwrap_or_else(PoisonError::into_inner));
    let started = Instant::now();
    let (sender, outcome) = sync_channel(1);
    let (run, target) = (check.run, target.clone());
    thread::spawn(move || {
        let outcome = match CheckContext::open(target, prefix) {
            Ok(context) => (run(&context), context.clean_up()),
            Err(failure) => (Err(failure), Vec::new()),
        };
        // After the deadline the receiver is gone.
        sender.send(outcome).ok();
    });
    let (result, left_behind) = outcome.recv_timeout(CHECK_LIMIT).unwrap_or_else(|error| {
        let why = match error {
            RecvTimeoutError::Timeout => format!("no end within {} s", CHECK_LIMIT.as_secs()),
            RecvTimeoutError::Disconnected => "the check panicked".to_owned(),
        };
        (Err(CheckFailure(why)), Vec::new())
    });
    CheckOutcome { area: check.area, name: check.name, result, took: started.elapsed(), left_behind }
}
