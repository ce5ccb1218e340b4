//! A run: the load starts, the faults of the plan are injected, everything must settle.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dacapo::output;
use runtime::{Channel, message::topic};
use tokio::task::JoinSet;

use crate::{
    environment::{Environment, EnvironmentSettings},
    faults::FaultStart,
    infrastructure::Infrastructure,
    load::Load,
    plan::{FAULTED_SERVICES, Fault, FaultKind, FaultTarget, Plan, PlannedFault},
    report::{RecoveryCause, RecoveryTime, Report},
};

/// How long after the end of a fault the services that it hit may take to decide again.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// The interval between two checks of an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The interval between two checks for unexpected exits.
const EXIT_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How often each service is timed without a fault, for comparison.
const BASELINES: usize = 2;

/// The options of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    /// Orders per second.
    pub(crate) rate: f64,
    /// How long everything may take to settle.
    pub(crate) settle: Duration,
    pub(crate) environment: EnvironmentSettings,
}

/// A run in progress.
struct Run {
    plan: Plan,
    seed: u64,
    environment: Environment,
    recoveries: Mutex<Vec<RecoveryTime>>,
    findings: Mutex<Vec<String>>,
}

/// Runs a plan.
///
/// # Errors
/// The environment cannot be started, or the checks cannot be run. Failed checks are no error: the report lists them.
pub(crate) async fn run(options: RunOptions, infrastructure: Infrastructure) -> anyhow::Result<Report> {
    let RunOptions { plan, seed, rate, settle, environment } = options;
    let environment = Environment::start(environment, &plan.initial_instances, infrastructure).await?;
    let run = Arc::new(Run { plan, seed, environment, recoveries: Mutex::default(), findings: Mutex::default() });
    let load = Load::start(Arc::clone(&run.environment.instances), seed, rate);
    let began = Instant::now();
    let guard = tokio::spawn(Arc::clone(&run).report_exits());
    run.baseline().await;
    run.inject_faults().await;
    let took = began.elapsed();
    output::note("all faults are injected; everything must settle");
    let settling = Instant::now();
    let load = load.stop(settle).await;
    let result = run.environment.settle(&load, settle).await?;
    guard.abort();
    result.findings.into_iter().for_each(|finding| run.find(finding));
    Ok(Report {
        recoveries: std::mem::take(&mut *run.recoveries.lock().unwrap_or_else(PoisonError::into_inner)),
        findings: std::mem::take(&mut *run.findings.lock().unwrap_or_else(PoisonError::into_inner)),
        audit: result.audit,
        answered: load.answered,
        repeated: load.repeated,
        effects: result.effects,
        dead_letters: result.dead_letters,
        took,
        took_to_settle: settling.elapsed(),
    })
}

impl Run {
    /// Times the services without a fault: how long the load itself takes to reach every partition.
    async fn baseline(self: &Arc<Self>) {
        for _ in 0..BASELINES {
            let (start, mut timed) = (FaultStart::now(), JoinSet::new());
            for service in FAULTED_SERVICES {
                let run = Arc::clone(self);
                timed.spawn(async move { run.time(RecoveryCause::Nothing, &[service], start, Duration::ZERO).await });
            }
            timed.join_all().await;
        }
    }

    async fn inject_faults(self: &Arc<Self>) {
        let mut running = Vec::new();
        for (number, planned) in self.plan.faults.iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(planned.pause_ms)).await;
            let is_alone = running.is_empty() && !planned.overlaps;
            running.push(tokio::spawn(Arc::clone(self).inject_and_time(number + 1, planned.clone(), is_alone)));
            if planned.overlaps {
                continue;
            }
            for planned in running.drain(..) {
                if let Err(error) = planned.await {
                    self.find(format!("a fault was aborted: {error}"));
                }
            }
        }
    }

    /// Injects one fault, and times how long the services that it hit take to decide again.
    async fn inject_and_time(self: Arc<Self>, number: usize, planned: PlannedFault, is_alone: bool) {
        let PlannedFault { fault, .. } = &planned;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let injected = async {
            let seed = self.seed.wrapping_add(number as u64);
            let started = |start| {
                if sender.send(start).is_err() {
                    tracing::debug!("this fault is no longer timed");
                }
            };
            if let Err(error) = self.environment.inject_fault(fault, seed, started).await {
                self.find(format!("fault {number} ({}): {error:#}", fault.kind));
            }
        };
        let timed = async {
            let start = receiver.await.ok()?;
            let cause = if is_alone { RecoveryCause::Alone(fault.kind) } else { RecoveryCause::WithAnother };
            self.time(cause, &services_of(fault), start, Duration::from_millis(fault.lasts_ms)).await
        };
        let ((), recovered) = tokio::join!(injected, timed);
        let outcome = match recovered {
            Some(after) => format!("decided again after {} ms", after.as_millis()),
            None => "NOT RECOVERED".to_owned(),
        };
        output::note(&format!("{number:>4}  {planned}  {outcome}"));
    }

    async fn time(
        &self,
        cause: RecoveryCause,
        services: &[&'static str],
        start: FaultStart,
        lasts: Duration,
    ) -> Option<Duration> {
        let partitions = usize::try_from(self.environment.settings.partitions).unwrap_or(usize::MAX);
        let mut missing: BTreeSet<&str> = services.iter().copied().collect();
        let deadline = start.at + lasts + RECOVERY_PATIENCE;
        loop {
            self.environment.observed.read(|seen| {
                missing.retain(|service| {
                    let events = topic(&self.environment.settings.system, service, Channel::Events);
                    !seen.has_decided(&events, partitions, start.at_ms)
                });
            });
            if missing.is_empty() {
                let took = start.at.elapsed();
                let recovery = RecoveryTime { cause, took, lasted: lasts };
                self.recoveries.lock().unwrap_or_else(PoisonError::into_inner).push(recovery);
                return Some(took);
            }
            if Instant::now() >= deadline {
                let services: Vec<&str> = missing.into_iter().collect();
                self.find(format!(
                    "{cause}: {} did not decide in every partition within {} s after its end",
                    services.join(", "),
                    RECOVERY_PATIENCE.as_secs()
                ));
                return None;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Reports processes that exit unexpectedly.
    async fn report_exits(self: Arc<Self>) {
        loop {
            self.environment.exited().await.into_iter().for_each(|exited| self.find(exited));
            tokio::time::sleep(EXIT_CHECK_INTERVAL).await;
        }
    }

    fn find(&self, finding: String) {
        output::note(&format!("FINDING: {finding}"));
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }
}

/// The services whose decisions a fault delays.
fn services_of(fault: &Fault) -> Vec<&'static str> {
    match &fault.target {
        FaultTarget::One(instance) => vec![instance.service],
        FaultTarget::Each(instances) => instances.iter().take(1).map(|instance| instance.service).collect(),
        // Only these two services call the stubs.
        FaultTarget::All if fault.kind == FaultKind::StubsDown => vec!["payment", "warehouse"],
        FaultTarget::All => FAULTED_SERVICES.to_vec(),
    }
}
