//! A run: the load begins, the plan is carried out, everything must settle.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dacapo::output;
use runtime::{Channel, message::topic};
use tokio::task::JoinSet;

use crate::{
    faults::Struck,
    ground::Ground,
    load::Load,
    plan::{Fault, Kind, Plan, STRUCK, Step, Target},
    report::{Recovery, Report, What},
    stage::{Settings, Stage},
};

/// How long after a fault the services that it struck may take to decide again, beyond the fault itself.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often processes are looked at that should not end by themselves.
const GUARD: Duration = Duration::from_millis(250);
/// How often each service is timed without any fault, for comparison.
const BASELINES: usize = 2;

/// How to run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    /// Orders a second.
    pub(crate) rate: f64,
    /// How long everything may take to settle.
    pub(crate) settle: Duration,
    pub(crate) stage: Settings,
}

/// What runs.
struct Run {
    plan: Plan,
    seed: u64,
    stage: Stage,
    recoveries: Mutex<Vec<Recovery>>,
    findings: Mutex<Vec<String>>,
}

/// Carries a plan out.
///
/// # Errors
/// It could not be begun, or not be looked at to its end. What did not hold is no error: it stands in the report.
pub(crate) async fn run(options: Options, ground: Ground) -> anyhow::Result<Report> {
    let Options { plan, seed, rate, settle, stage } = options;
    let stage = Stage::set(stage, &plan.begins_with, ground).await?;
    let run = Arc::new(Run { plan, seed, stage, recoveries: Mutex::default(), findings: Mutex::default() });
    let load = Load::start(Arc::clone(&run.stage.fleet), seed, rate);
    let began = Instant::now();
    let guard = tokio::spawn(Arc::clone(&run).guard());
    run.baseline().await;
    run.play().await;
    let took = began.elapsed();
    output::note("the plan is over; everything must settle");
    let settling = Instant::now();
    let answers = load.stop(settle).await;
    let verdict = run.stage.settle(&answers, settle).await?;
    guard.abort();
    verdict.findings.into_iter().for_each(|finding| run.find(finding));
    Ok(Report {
        recoveries: std::mem::take(&mut *run.recoveries.lock().unwrap_or_else(PoisonError::into_inner)),
        findings: std::mem::take(&mut *run.findings.lock().unwrap_or_else(PoisonError::into_inner)),
        balance: verdict.balance,
        answered: answers.answered,
        repeated: answers.repeated,
        effects: verdict.effects,
        letters: verdict.letters,
        took,
        took_to_settle: settling.elapsed(),
    })
}

impl Run {
    /// Times the services while nothing is wrong: what the load itself takes to reach every partition.
    async fn baseline(self: &Arc<Self>) {
        for _ in 0..BASELINES {
            let (struck, mut timed) = (Struck::now(), JoinSet::new());
            for service in STRUCK {
                let run = Arc::clone(self);
                timed.spawn(async move { run.time(What::Nothing, &[service], struck, Duration::ZERO).await });
            }
            timed.join_all().await;
        }
    }

    async fn play(self: &Arc<Self>) {
        let mut under_way = Vec::new();
        for (number, step) in self.plan.steps.iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
            let is_alone = under_way.is_empty() && !step.overlaps;
            under_way.push(tokio::spawn(Arc::clone(self).step(number + 1, step.clone(), is_alone)));
            if step.overlaps {
                continue;
            }
            for step in under_way.drain(..) {
                if let Err(error) = step.await {
                    self.find(format!("a fault broke off: {error}"));
                }
            }
        }
    }

    /// One fault, and how long the services that it struck take to decide again.
    async fn step(self: Arc<Self>, number: usize, step: Step, is_alone: bool) {
        let Step { fault, .. } = &step;
        let (tell, told) = tokio::sync::oneshot::channel();
        let struck = async {
            let seed = self.seed.wrapping_add(number as u64);
            let tell = |struck| {
                if tell.send(struck).is_err() {
                    tracing::debug!("nobody times this fault any more");
                }
            };
            if let Err(error) = self.stage.carry_out(fault, seed, tell).await {
                self.find(format!("fault {number} ({}): {error:#}", fault.kind));
            }
        };
        let timed = async {
            let struck = told.await.ok()?;
            let what = if is_alone { What::Alone(fault.kind) } else { What::WithAnother };
            self.time(what, &services_of(fault), struck, Duration::from_millis(fault.lasts_ms)).await
        };
        let ((), recovered) = tokio::join!(struck, timed);
        let outcome = match recovered {
            Some(after) => format!("decided again after {} ms", after.as_millis()),
            None => "NOT RECOVERED".to_owned(),
        };
        output::note(&format!("{number:>4}  {step}  {outcome}"));
    }

    async fn time(&self, what: What, services: &[&'static str], struck: Struck, lasts: Duration) -> Option<Duration> {
        let partitions = usize::try_from(self.stage.settings.partitions).unwrap_or(usize::MAX);
        let mut missing: BTreeSet<&str> = services.iter().copied().collect();
        let deadline = struck.at + lasts + RECOVERY_PATIENCE;
        loop {
            self.stage.seen.read(|seen| {
                missing.retain(|service| {
                    let events = topic(&self.stage.settings.system, service, Channel::Events);
                    !seen.has_decided(&events, partitions, struck.at_ms)
                });
            });
            if missing.is_empty() {
                let took = struck.at.elapsed();
                let recovery = Recovery { what, took, lasted: lasts };
                self.recoveries.lock().unwrap_or_else(PoisonError::into_inner).push(recovery);
                return Some(took);
            }
            if Instant::now() >= deadline {
                let services: Vec<&str> = missing.into_iter().collect();
                self.find(format!(
                    "{what}: {} did not decide in every partition within {} s after it was over",
                    services.join(", "),
                    RECOVERY_PATIENCE.as_secs()
                ));
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Finds processes that ended and should not have.
    async fn guard(self: Arc<Self>) {
        loop {
            self.stage.ended().await.into_iter().for_each(|ended| self.find(ended));
            tokio::time::sleep(GUARD).await;
        }
    }

    fn find(&self, finding: String) {
        output::note(&format!("FOUND: {finding}"));
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }
}

/// Those whose decisions a fault delays.
fn services_of(fault: &Fault) -> Vec<&'static str> {
    match &fault.target {
        Target::One(instance) => vec![instance.service],
        Target::Each(instances) => instances.iter().take(1).map(|instance| instance.service).collect(),
        // The rest of the story stands on these answers, and these two alone wait for them.
        Target::All if fault.kind == Kind::Outside => vec!["payment", "warehouse"],
        Target::All => STRUCK.to_vec(),
    }
}
