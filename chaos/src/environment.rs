//! The environment of a run: broker, registry, stubs, instances and an observer, started and loaded with the sample data.
//!
//! Runs and tests share it. `faults` injects faults into it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dacapo::{audit::AuditReport, load_sample_data, prepare, sample_data};
use runtime::{Config, config::Args, projection::LiveView, registry::RegistryClient};
use tokio::sync::Mutex;

use crate::{
    checks,
    infrastructure::Infrastructure,
    instances::{InstanceSettings, Instances},
    load::LoadResults,
    observer::{self, Observations},
    plan::Instance,
    process::{Process, free_port},
    roles::DACAPO,
    stub_journals::StubJournals,
};

/// How long the environment may take to become ready.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// The interval between two checks of an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The settings of an environment.
#[derive(Debug, Clone)]
pub struct EnvironmentSettings {
    /// The executable that runs every process (`roles`).
    pub executable: PathBuf,
    /// The folder of data, journals and logs.
    pub folder: PathBuf,
    /// The system's name.
    pub system: String,
    /// Partitions of every topic.
    pub partitions: i32,
    /// How long an unresponsive group member keeps its partitions, in milliseconds.
    pub session_ms: u64,
}

/// All running processes, and the observer of the topics.
pub struct Environment {
    pub(crate) settings: EnvironmentSettings,
    /// The instances of the services.
    pub instances: Arc<Instances>,
    pub(crate) infrastructure: Mutex<Infrastructure>,
    pub(crate) stubs: Mutex<Process>,
    /// The settings of observers, which bypass the proxies.
    pub config: Config,
    /// What is observed on the topics.
    pub observed: LiveView<Observations>,
}

/// The result of all checks, once everything has settled.
#[derive(Debug)]
pub struct CheckResult {
    /// The last report of the audit.
    pub audit: AuditReport,
    /// The failed checks; empty if all passed.
    pub findings: Vec<String>,
    /// How many keys the gateway and the courier acted under.
    pub effects: usize,
    /// How many records are in dead-letter topics.
    pub dead_letters: usize,
}

impl Environment {
    /// Starts all processes and waits until they are ready.
    ///
    /// # Errors
    /// A process cannot be started, or is not ready in time.
    pub async fn start(
        settings: EnvironmentSettings,
        initial_instances: &[Instance],
        infrastructure: Infrastructure,
    ) -> anyhow::Result<Self> {
        let args = Args {
            system: Some(settings.system.clone()),
            bootstrap: Some(infrastructure.kafka().to_string()),
            registry: Some(infrastructure.registry_url().to_owned()),
            partitions: Some(settings.partitions),
            ..Args::default()
        };
        let config = Config::load("chaos", &args)?;
        prepare::prepare(&config, Some(settings.partitions)).await?;
        let (stubs, stubs_url) = start_stubs(&settings)?;
        let instances = Arc::new(Instances::new(InstanceSettings {
            executable: settings.executable.clone(),
            folder: settings.folder.clone(),
            system: settings.system.clone(),
            kafka: infrastructure.kafka(),
            registry_url: infrastructure.registry_url().to_owned(),
            stubs_url,
            session_ms: settings.session_ms,
        })?);
        let observed = observer::start(&config)?;
        let (infrastructure, stubs) = (infrastructure.into(), stubs.into());
        let environment = Self { settings, instances, infrastructure, stubs, config, observed };
        environment.start_instances(initial_instances).await?;
        Ok(environment)
    }

    /// Starts the instances. The order-processor looks up the catalogue and the customers, so it starts after the sample data.
    async fn start_instances(&self, instances: &[Instance]) -> anyhow::Result<()> {
        let (late, early): (Vec<&Instance>, Vec<&Instance>) =
            instances.iter().partition(|instance| instance.service == "order-processor");
        for instance in early {
            self.instances.add(instance).await?;
        }
        load_sample_data::load(&self.config.for_service("operator"), &RegistryClient::new(&self.config)?).await?;
        self.wait_for_sample_data().await?;
        for instance in late {
            self.instances.add(instance).await?;
        }
        self.instances.wait_until_ready(START_PATIENCE).await?;
        for running in self.instances.all() {
            if running.proxy().renamed() == 0 {
                bail!(
                    "{} bypassed its proxy: the broker does not advertise {}; give --bootstrap as the broker advertises itself",
                    running.instance,
                    self.config.bootstrap
                );
            }
        }
        Ok(())
    }

    async fn wait_for_sample_data(&self) -> anyhow::Result<()> {
        use sample_data::Availability::{InStock, MissingFromShelf};
        let albums = sample_data::ALBUMS.iter();
        let received = albums.filter(|album| matches!(album.availability, InStock | MissingFromShelf)).count() as u64;
        let expected = [
            ("AlbumListed", sample_data::ALBUMS.len() as u64),
            ("CustomerVerified", sample_data::CUSTOMERS),
            ("GoodsReceived", received),
        ];
        let deadline = Instant::now() + START_PATIENCE;
        while !self.observed.read(|seen| expected.iter().all(|(event, times)| seen.count(event) >= *times)) {
            let exited = self.exited().await;
            if !exited.is_empty() || Instant::now() >= deadline {
                bail!("the sample data was not loaded: {}", exited.join("; "));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// The processes that exited unexpectedly.
    pub(crate) async fn exited(&self) -> Vec<String> {
        let stubs = self.stubs.lock().await.exited();
        let infrastructure = self.infrastructure.lock().await.exited();
        self.instances.exited().into_iter().chain(infrastructure).chain(stubs).collect()
    }

    /// Waits until everything has settled, at most `patience`, and runs all checks. `load` has the responses that the load got.
    ///
    /// # Errors
    /// The topics or the journals cannot be read.
    pub async fn settle(&self, load: &LoadResults, patience: Duration) -> anyhow::Result<CheckResult> {
        let (audit, settled) = checks::audit_until_settled(&self.config, patience).await?;
        let folder = self.settings.folder.join("stubs");
        let journals = StubJournals::read(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut findings = self.observed.read(|seen| checks::findings(&audit, settled, load, seen, &journals));
        if let Err(error) = self.instances.wait_until_ready(patience).await {
            findings.push(format!("{error:#}"));
        }
        let dead_letters = self.observed.read(|seen| seen.dead_letters.len());
        Ok(CheckResult { audit, findings, effects: journals.keys(), dead_letters })
    }
}

/// Starts the stubs of the gateway, picking and the courier as one process, with latency and lost responses.
fn start_stubs(settings: &EnvironmentSettings) -> anyhow::Result<(Process, String)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let journal = settings.folder.join("stubs");
    let mut args = vec!["stubs".into(), "--listen".into(), (&listen).into(), "--journal".into(), journal.into()];
    let faults = ["--stub-latency-ms", "2", "--stub-failures", "5", "--silent-charges", "3"];
    args.extend(faults.map(Into::into));
    let mut stubs = Process::new("stubs", DACAPO, args, &settings.folder);
    stubs.start(&settings.executable).context("cannot start the stubs")?;
    Ok((stubs, format!("http://{listen}")))
}

/// Creates the folder of an environment if it does not exist, and returns its absolute path.
///
/// # Errors
/// The file system refuses.
pub fn folder(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    path.canonicalize().with_context(|| format!("cannot use {}", path.display()))
}
