//! A run: everything is started, the load begins, the plan is carried out, everything must settle.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dacapo::{output, seed, up};
use runtime::{Channel, Config, config::Args, message::topic, projection::View, registry::Registry};
use tokio::task::JoinSet;

use crate::{
    faults::{Arena, Struck},
    fleet::{Fleet, Settings},
    ground::Ground,
    load::Load,
    plan::{Fault, Instance, Kind, Plan, STRUCK, Step, Target},
    process::{Process, free_port},
    report::{Recovery, Report, What},
    roles::DACAPO,
    verdict,
    watch::{self, Seen},
};

/// How long everything may take to be ready in the beginning.
const START_PATIENCE: Duration = Duration::from_secs(120);
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
    pub(crate) session_ms: u64,
    pub(crate) partitions: i32,
    pub(crate) rate: f64,
    pub(crate) settle: Duration,
    pub(crate) system: String,
    pub(crate) executable: PathBuf,
    pub(crate) folder: PathBuf,
}

/// What runs.
struct Run {
    options: Options,
    arena: Arena,
    /// Settings of those who look on: past the proxies.
    config: Config,
    seen: View<Seen>,
    recoveries: Mutex<Vec<Recovery>>,
    findings: Mutex<Vec<String>>,
}

/// Carries a plan out.
///
/// # Errors
/// It could not be begun, or not be looked at to its end. What did not hold is no error: it stands in the report.
pub(crate) async fn run(options: Options, ground: Ground) -> anyhow::Result<Report> {
    let run = Arc::new(Run::start(options, ground).await?);
    let load = Load::start(Arc::clone(&run.arena.fleet), run.options.seed, run.options.rate);
    let began = Instant::now();
    let guard = tokio::spawn(Arc::clone(&run).guard());
    run.baseline().await;
    run.play().await;
    let took = began.elapsed();
    output::note("the plan is over; everything must settle");
    let settling = Instant::now();
    let answers = load.stop(run.options.settle).await;
    let (balance, settled) = verdict::settle(&run.config, run.options.settle).await?;
    if let Err(error) = run.arena.fleet.wait_until_ready(run.options.settle).await {
        run.find(format!("{error:#}"));
    }
    guard.abort();
    let took_to_settle = settling.elapsed();
    let done = verdict::outside_world(&run.options.folder.join("outside"))?;
    let findings = run.seen.read(|seen| verdict::findings(&balance, settled, &answers, seen, &done));
    findings.into_iter().for_each(|finding| run.find(finding));
    let letters = run.seen.read(|seen| seen.letters.len());
    let take = |of: &Mutex<Vec<String>>| std::mem::take(&mut *of.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Report {
        recoveries: std::mem::take(&mut *run.recoveries.lock().unwrap_or_else(PoisonError::into_inner)),
        findings: take(&run.findings),
        balance,
        answered: answers.answered,
        repeated: answers.repeated,
        effects: done.keys(),
        letters,
        took,
        took_to_settle,
    })
}

impl Run {
    async fn start(options: Options, ground: Ground) -> anyhow::Result<Self> {
        let kafka = ground.kafka();
        let args = Args {
            system: Some(options.system.clone()),
            bootstrap: Some(kafka.to_string()),
            registry: Some(ground.registry_url().to_owned()),
            partitions: Some(options.partitions),
            ..Args::default()
        };
        let config = Config::load("chaos", &args)?;
        up::prepare(&config, Some(options.partitions)).await?;
        let (outside, outside_url) = outside(&options)?;
        let fleet = Arc::new(Fleet::new(Settings {
            executable: options.executable.clone(),
            folder: options.folder.clone(),
            system: options.system.clone(),
            kafka,
            registry_url: ground.registry_url().to_owned(),
            outside_url,
            session_ms: options.session_ms,
        })?);
        let seen = watch::start(&config)?;
        let executable = options.executable.clone();
        let arena = Arena { fleet, ground: ground.into(), outside: outside.into(), executable };
        let (recoveries, findings) = (Mutex::default(), Mutex::default());
        let run = Self { options, arena, config, seen, recoveries, findings };
        run.man().await?;
        Ok(run)
    }

    /// Starts the instances. Those that look the catalogue and the customers up come when both are filled.
    async fn man(&self) -> anyhow::Result<()> {
        let (late, early): (Vec<&Instance>, Vec<&Instance>) =
            self.options.plan.begins_with.iter().partition(|instance| instance.service == "order-processor");
        for instance in early {
            self.arena.fleet.add(instance).await?;
        }
        up::seed(&self.config.for_service("operator"), &Registry::new(&self.config)?).await?;
        let stocked =
            seed::ALBUMS.iter().filter(|album| matches!(album.shelf, seed::Shelf::Stocked | seed::Shelf::Ghost));
        let expected = [
            ("AlbumListed", seed::ALBUMS.len() as u64),
            ("CustomerVerified", seed::CUSTOMERS),
            ("GoodsReceived", stocked.count() as u64),
        ];
        let deadline = Instant::now() + START_PATIENCE;
        while !self.seen.read(|seen| expected.iter().all(|(event, times)| seen.count(event) >= *times)) {
            let ended = self.arena.ended().await;
            if !ended.is_empty() || Instant::now() >= deadline {
                bail!("the catalogue and the customers were not filled: {}", ended.join("; "));
            }
            tokio::time::sleep(LOOK).await;
        }
        for instance in late {
            self.arena.fleet.add(instance).await?;
        }
        self.arena.fleet.wait_until_ready(START_PATIENCE).await?;
        for member in self.arena.fleet.members() {
            if member.door().renamed() == 0 {
                bail!(
                    "{} went past its proxy: the broker does not advertise {}; give --bootstrap as it advertises itself",
                    member.instance,
                    self.config.bootstrap
                );
            }
        }
        Ok(())
    }

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
        for (number, step) in self.options.plan.steps.iter().enumerate() {
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
            let seed = self.options.seed.wrapping_add(number as u64);
            let tell = |struck| {
                if tell.send(struck).is_err() {
                    tracing::debug!("nobody times this fault any more");
                }
            };
            if let Err(error) = self.arena.carry_out(fault, seed, tell).await {
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
        let partitions = usize::try_from(self.options.partitions).unwrap_or(usize::MAX);
        let mut missing: BTreeSet<&str> = services.iter().copied().collect();
        let deadline = struck.at + lasts + RECOVERY_PATIENCE;
        loop {
            self.seen.read(|seen| {
                missing.retain(|service| {
                    let events = topic(&self.options.system, service, Channel::Events);
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
            self.arena.ended().await.into_iter().for_each(|ended| self.find(ended));
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

/// The gateway, the floor and the courier, as one process: slow now and then, with answers that get lost.
fn outside(options: &Options) -> anyhow::Result<(Process, String)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let journal = options.folder.join("outside");
    let mut args = vec!["outside".into(), "--listen".into(), (&listen).into(), "--journal".into(), journal.into()];
    let faults = ["--outside-latency-ms", "2", "--outside-failures", "5", "--silent-charges", "3"];
    args.extend(faults.map(Into::into));
    let mut outside = Process::new("outside", DACAPO, args, &options.folder);
    outside.start(&options.executable).context("cannot start the outside world")?;
    Ok((outside, format!("http://{listen}")))
}

/// Where this run's files lie, made if need be.
pub(crate) fn made(folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("cannot use {}", folder.display()))
}
