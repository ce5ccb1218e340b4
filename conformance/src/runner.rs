//! Runs the checks, a few at a time, each under a deadline, and collects what they saw.
//!
//! A check that hangs or panics is a failed check, never the end of the run. Next: [`crate::checks`].

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::check::{Area, Check, Failure};
use crate::context::Context;
use crate::{Filter, Target, checks};

/// Most checks wait for something most of the time, so a few run beside each other even on a small machine.
const JOBS: usize = 4;

/// A hanging server must not hang the suite. Longer than any chain of deadlines inside one check.
const CHECK_LIMIT: Duration = Duration::from_secs(180);

/// What became of one check.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub area: Area,
    pub name: &'static str,
    /// What was seen, or why the check failed.
    pub result: Result<String, Failure>,
    pub took: Duration,
    /// Topics, groups and subjects that could not be removed again.
    pub left_behind: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, seen) = match &self.result {
            Ok(seen) => ("pass", seen.as_str()),
            Err(failure) => ("FAIL", failure.0.as_str()),
        };
        let (area, name, seconds) = (self.area.name(), self.name, self.took.as_secs_f64());
        write!(f, "{word} [{area}] {name} ({seconds:.1} s)")?;
        if !seen.is_empty() {
            write!(f, ": {seen}")?;
        }
        for name in &self.left_behind {
            write!(f, "\n     could not remove {name}")?;
        }
        Ok(())
    }
}

/// The outcomes of a run, in the order of the catalogue.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub outcomes: Vec<Outcome>,
}

impl Report {
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
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

/// Area and sentence of every check there is.
pub fn catalogue() -> impl Iterator<Item = (Area, &'static str)> {
    checks::all().into_iter().map(|check| (check.area, check.name))
}

/// Runs the checks that `filter` admits.
pub fn run(target: &Target, filter: &Filter) -> Report {
    run_each(target, filter, |_| {})
}

/// As [`run`], and hands over each outcome as soon as it is known.
pub fn run_each(target: &Target, filter: &Filter, mut each: impl FnMut(&Outcome)) -> Report {
    let admitted = |check: &Check| filter.admits(check.area.name(), check.name);
    let chosen: Arc<Vec<Check>> = Arc::new(checks::all().into_iter().filter(admitted).collect());
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
    let mut finished: Vec<(usize, Outcome)> = outcomes.iter().inspect(|(_, outcome)| each(outcome)).collect();
    finished.sort_by_key(|(index, _)| *index);
    Report { outcomes: finished.into_iter().map(|(_, outcome)| outcome).collect() }
}

/// On a thread of its own, so that a check which never ends can be left to itself.
fn run_one(check: &Check, target: &Target, prefix: String) -> Outcome {
    // Apicurio 2.6 breaks its own storage when several new schemas come at once.
    static REGISTRY: Mutex<()> = Mutex::new(());
    let _alone = (check.area == Area::Registry).then(|| REGISTRY.lock().unwrap_or_else(PoisonError::into_inner));
    let started = Instant::now();
    let (report, verdict) = sync_channel(1);
    let (run, target) = (check.run, target.clone());
    thread::spawn(move || {
        let outcome = match Context::open(target, prefix) {
            Ok(context) => (run(&context), context.clean_up()),
            Err(failure) => (Err(failure), Vec::new()),
        };
        // Nobody listens any more when the deadline has passed.
        report.send(outcome).ok();
    });
    let (result, left_behind) = verdict.recv_timeout(CHECK_LIMIT).unwrap_or_else(|error| {
        let why = match error {
            RecvTimeoutError::Timeout => format!("no end within {} s", CHECK_LIMIT.as_secs()),
            RecvTimeoutError::Disconnected => "the check panicked".to_owned(),
        };
        (Err(Failure(why)), Vec::new())
    });
    Outcome { area: check.area, name: check.name, result, took: started.elapsed(), left_behind }
}
