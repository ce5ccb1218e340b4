//! Many runs: one seed after another on every core, each seed on one thread; the weakenings that must be detected as well.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    mutant::Mutant,
    setup::Fixtures,
    simulated_run::{Plan, run},
    trace::Sightings,
    workload::Scenario,
};

/// Which seeds to run, and how.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// No further seed starts after this long.
    pub for_at_most: Option<Duration>,
    /// Each seed runs twice, and must give the same trace.
    pub twice: bool,
    /// More faults, for longer.
    pub is_wild: bool,
    /// A weakening of the protocol.
    pub mutant: Option<Mutant>,
    /// How many threads.
    pub threads: NonZeroUsize,
}

impl Campaign {
    /// These seeds, each once, on one thread.
    #[must_use]
    pub fn of(from: u64, seeds: u64) -> Self {
        let (twice, is_wild) = (false, false);
        Self { from, seeds, for_at_most: None, twice, is_wild, mutant: None, threads: NonZeroUsize::MIN }
    }
}

/// The result of a campaign.
#[derive(Debug, Clone, Default)]
pub struct CampaignReport {
    /// How many seeds were run.
    pub seeds: u64,
    /// The first seed that broke a promise, and how.
    pub violation: Option<(u64, String)>,
    /// The first seed that gave two different traces.
    pub nondeterministic: Option<u64>,
    /// Which situations occurred, and how often.
    pub sightings: Sightings,
    /// The steps of all runs.
    pub steps: u64,
    /// The faults that were injected.
    pub faults: u64,
    /// How long the threads were busy, together.
    pub busy: Duration,
}

impl CampaignReport {
    fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.faults += other.faults;
        self.busy += other.busy;
        self.sightings.merge(&other.sightings);
        self.nondeterministic = self.nondeterministic.into_iter().chain(other.nondeterministic).min();
        if let Some(violation) = &other.violation
            && self.violation.as_ref().is_none_or(|known| violation.0 < known.0)
        {
            self.violation = Some(violation.clone());
        }
    }

    /// Runs a second and core.
    #[must_use]
    pub fn rate(&self, campaign: &Campaign) -> f64 {
        let runs = self.seeds * if campaign.twice { 2 } else { 1 };
        f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / self.busy.as_secs_f64().max(0.001)
    }
}

/// Runs the seeds until one breaks a promise, or all have been run.
pub fn run_campaign(scenario: &(dyn Scenario + Sync), system: &'static str, campaign: &Campaign) -> CampaignReport {
    let (next, stops) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let report = Mutex::new(CampaignReport::default());
    std::thread::scope(|scope| {
        for _ in 0..campaign.threads.get() {
            scope.spawn(|| {
                let fixtures = Fixtures::new(system);
                let mut own = CampaignReport::default();
                let begun_here = Instant::now();
                loop {
                    let late = campaign.for_at_most.is_some_and(|most| begun.elapsed() >= most);
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= campaign.seeds || late || stops.load(Ordering::Relaxed) {
                        break;
                    }
                    run_seed(scenario, &fixtures, campaign, campaign.from + at, &mut own);
                    if own.violation.is_some() || own.nondeterministic.is_some() {
                        stops.store(true, Ordering::Relaxed);
                    }
                }
                own.busy = begun_here.elapsed();
                report.lock().unwrap_or_else(PoisonError::into_inner).merge(&own);
            });
        }
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_seed(scenario: &dyn Scenario, fixtures: &Fixtures, campaign: &Campaign, seed: u64, report: &mut CampaignReport) {
    let plan = Plan { mutant: campaign.mutant, is_wild: campaign.is_wild, ..Plan::of(seed) };
    let simulated = run(scenario, fixtures, &plan);
    report.seeds += 1;
    report.steps += simulated.steps;
    report.faults += simulated.faults.len() as u64;
    report.sightings.add(&simulated.trace);
    if campaign.twice && run(scenario, fixtures, &plan).trace.hash() != simulated.trace.hash() {
        report.nondeterministic = Some(seed);
    }
    if let Some(violation) = simulated.violation {
        report.violation = Some((seed, violation.to_string()));
    }
}
