//! Many histories: seeds one after another on every core, each seed on one thread; and the weakenings that must be found out.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    cast::Workshop,
    history::{Plan, Scenario, play},
    mutant::Mutant,
    trace::Sightings,
};

/// Which seeds, and how they are played.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// No further seed is begun after this long.
    pub for_at_most: Option<Duration>,
    /// Each is played twice, and must go the same way.
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

/// What a campaign came to.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// How many seeds were played.
    pub seeds: u64,
    /// The first seed that broke a promise, and how.
    pub broken: Option<(u64, String)>,
    /// The first seed that went two ways.
    pub differs: Option<u64>,
    /// What was seen, and how often.
    pub sightings: Sightings,
    /// Records, faults and steps of all histories.
    pub steps: u64,
    /// Faults that struck.
    pub faults: u64,
    /// How long the threads were at work, together.
    pub worked: Duration,
}

impl Verdict {
    fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.faults += other.faults;
        self.worked += other.worked;
        self.sightings.merge(&other.sightings);
        self.differs = self.differs.into_iter().chain(other.differs).min();
        if let Some(broken) = &other.broken
            && self.broken.as_ref().is_none_or(|known| broken.0 < known.0)
        {
            self.broken = Some(broken.clone());
        }
    }

    /// Histories played a second and core.
    #[must_use]
    pub fn rate(&self, campaign: &Campaign) -> f64 {
        let played = self.seeds * if campaign.twice { 2 } else { 1 };
        f64::from(u32::try_from(played).unwrap_or(u32::MAX)) / self.worked.as_secs_f64().max(0.001)
    }
}

/// Plays the seeds until one breaks a promise, or all are played.
pub fn run(scenario: &(dyn Scenario + Sync), system: &'static str, campaign: &Campaign) -> Verdict {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let verdict = Mutex::new(Verdict::default());
    std::thread::scope(|scope| {
        for _ in 0..campaign.threads.get() {
            scope.spawn(|| {
                let workshop = Workshop::new(system);
                let mut own = Verdict::default();
                let begun_here = Instant::now();
                loop {
                    let late = campaign.for_at_most.is_some_and(|most| begun.elapsed() >= most);
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= campaign.seeds || late || over.load(Ordering::Relaxed) {
                        break;
                    }
                    one(scenario, &workshop, campaign, campaign.from + at, &mut own);
                    if own.broken.is_some() || own.differs.is_some() {
                        over.store(true, Ordering::Relaxed);
                    }
                }
                own.worked = begun_here.elapsed();
                verdict.lock().unwrap_or_else(PoisonError::into_inner).merge(&own);
            });
        }
    });
    verdict.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn one(scenario: &dyn Scenario, workshop: &Workshop, campaign: &Campaign, seed: u64, verdict: &mut Verdict) {
    let plan = Plan { mutant: campaign.mutant, is_wild: campaign.is_wild, ..Plan::of(seed) };
    let history = play(scenario, workshop, &plan);
    verdict.seeds += 1;
    verdict.steps += history.steps;
    verdict.faults += history.faults.len() as u64;
    verdict.sightings.add(&history.trace);
    if campaign.twice && play(scenario, workshop, &plan).trace.hash() != history.trace.hash() {
        verdict.differs = Some(seed);
    }
    if let Some(violation) = history.violation {
        verdict.broken = Some((seed, violation.to_string()));
    }
}
