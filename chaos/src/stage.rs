//! The stage: broker, registry, outside world, instances and an onlooker, started and seeded.
//!
//! Tests set it as runs do. What happens on it is the business of `faults` and `run`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dacapo::{audit::Balance, prepare, seed, seeding};
use runtime::{Config, config::Args, projection::LiveView, registry::RegistryClient};
use tokio::sync::Mutex;

use crate::{
    fleet::{self, Fleet},
    ground::Ground,
    load::Answers,
    outcomes::Done,
    plan::Instance,
    process::{Process, free_port},
    roles::DACAPO,
    verdict,
    watch::{self, Seen},
};

/// How long everything may take to be ready in the beginning.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a stage is set with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The executable that plays every process (`roles`).
    pub executable: PathBuf,
    /// Where data, journals and logs lie.
    pub folder: PathBuf,
    /// The system's name.
    pub system: String,
    /// Partitions of every topic.
    pub partitions: i32,
    /// How long a silent member keeps its partitions, in milliseconds.
    pub session_ms: u64,
}

/// Everything that runs, and who looks on.
pub struct Stage {
    pub(crate) settings: Settings,
    /// The instances.
    pub fleet: Arc<Fleet>,
    pub(crate) ground: Mutex<Ground>,
    pub(crate) outside: Mutex<Process>,
    /// Settings of those who look on: past the proxies.
    pub config: Config,
    /// What is seen on the topics.
    pub seen: LiveView<Seen>,
}

/// What held and what did not, once everything has settled.
#[derive(Debug)]
pub struct Verdict {
    /// The audit's last balance.
    pub balance: Balance,
    /// What did not hold; empty if everything did.
    pub findings: Vec<String>,
    /// Keys that the gateway and the courier did something under.
    pub effects: usize,
    /// Records in dead-letter topics.
    pub letters: usize,
}

impl Stage {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// Something cannot be started, or is not ready in time.
    pub async fn set(settings: Settings, begins_with: &[Instance], ground: Ground) -> anyhow::Result<Self> {
        let args = Args {
            system: Some(settings.system.clone()),
            bootstrap: Some(ground.kafka().to_string()),
            registry: Some(ground.registry_url().to_owned()),
            partitions: Some(settings.partitions),
            ..Args::default()
        };
        let config = Config::load("chaos", &args)?;
        prepare::prepare(&config, Some(settings.partitions)).await?;
        let (outside, outside_url) = outside(&settings)?;
        let fleet = Arc::new(Fleet::new(fleet::Settings {
            executable: settings.executable.clone(),
            folder: settings.folder.clone(),
            system: settings.system.clone(),
            kafka: ground.kafka(),
            registry_url: ground.registry_url().to_owned(),
            outside_url,
            session_ms: settings.session_ms,
        })?);
        let seen = watch::start(&config)?;
        let stage = Self { settings, fleet, ground: ground.into(), outside: outside.into(), config, seen };
        stage.man(begins_with).await?;
        Ok(stage)
    }

    /// Starts the instances. Those that look the catalogue and the customers up come when both are filled.
    async fn man(&self, instances: &[Instance]) -> anyhow::Result<()> {
        let (late, early): (Vec<&Instance>, Vec<&Instance>) =
            instances.iter().partition(|instance| instance.service == "order-processor");
        for instance in early {
            self.fleet.add(instance).await?;
        }
        seeding::seed(&self.config.for_service("operator"), &RegistryClient::new(&self.config)?).await?;
        self.wait_for_seed().await?;
        for instance in late {
            self.fleet.add(instance).await?;
        }
        self.fleet.wait_until_ready(START_PATIENCE).await?;
        for member in self.fleet.members() {
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

    async fn wait_for_seed(&self) -> anyhow::Result<()> {
        let in_the_books = |album: &&seed::Album| matches!(album.shelf, seed::Shelf::Stocked | seed::Shelf::Ghost);
        let expected = [
            ("AlbumListed", seed::ALBUMS.len() as u64),
            ("CustomerVerified", seed::CUSTOMERS),
            ("GoodsReceived", seed::ALBUMS.iter().filter(in_the_books).count() as u64),
        ];
        let deadline = Instant::now() + START_PATIENCE;
        while !self.seen.read(|seen| expected.iter().all(|(event, times)| seen.count(event) >= *times)) {
            let ended = self.ended().await;
            if !ended.is_empty() || Instant::now() >= deadline {
                bail!("the catalogue and the customers were not filled: {}", ended.join("; "));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What ended by itself.
    pub(crate) async fn ended(&self) -> Vec<String> {
        let outside = self.outside.lock().await.ended();
        let ground = self.ground.lock().await.ended();
        self.fleet.ended().into_iter().chain(ground).chain(outside).collect()
    }

    /// Waits until everything has settled, at most `patience`, and says what held. `answers` is what the load was told.
    ///
    /// # Errors
    /// The topics or the journals cannot be read.
    pub async fn settle(&self, answers: &Answers, patience: Duration) -> anyhow::Result<Verdict> {
        let (balance, settled) = verdict::settle(&self.config, patience).await?;
        let journals = self.settings.folder.join("outside");
        let done = Done::read(&journals).with_context(|| format!("cannot read {}", journals.display()))?;
        let mut findings = self.seen.read(|seen| verdict::findings(&balance, settled, answers, seen, &done));
        if let Err(error) = self.fleet.wait_until_ready(patience).await {
            findings.push(format!("{error:#}"));
        }
        let letters = self.seen.read(|seen| seen.letters.len());
        Ok(Verdict { balance, findings, effects: done.keys(), letters })
    }
}

/// The gateway, the floor and the courier, as one process: slow now and then, with answers that get lost.
fn outside(settings: &Settings) -> anyhow::Result<(Process, String)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let journal = settings.folder.join("outside");
    let mut args = vec!["outside".into(), "--listen".into(), (&listen).into(), "--journal".into(), journal.into()];
    let faults = ["--outside-latency-ms", "2", "--outside-failures", "5", "--silent-charges", "3"];
    args.extend(faults.map(Into::into));
    let mut outside = Process::new("outside", DACAPO, args, &settings.folder);
    outside.start(&settings.executable).context("cannot start the outside world")?;
    Ok((outside, format!("http://{listen}")))
}

/// Where a stage's files lie, made if need be.
///
/// # Errors
/// The file system refuses.
pub fn folder(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    path.canonicalize().with_context(|| format!("cannot use {}", path.display()))
}
