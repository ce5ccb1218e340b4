//! `dacapo up`: broker, registry, schemas, topics, seed, the outside world, all services and the projector in one process.

mod args;
mod children;
mod instances;
mod placing;
mod progress;
pub mod report;
mod services;
mod settling;
mod system;

use std::{
    fs::{self, File, TryLockError},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use runtime::config::Config;
use tokio::sync::watch;

use crate::{
    audit::{self, Balance},
    endpoints::Endpoints,
    output,
    outside::{Outside, OutsideConfig},
    prepare::prepare,
    seeding,
    signals::Signals,
};

pub use args::UpArgs;
use placing::Tally;
use progress::{Progress, Standing};
use report::Outcomes;
use services::Services;
use system::{Embedded, EmbeddedConfig};

/// How long the last pieces may take to leave the books.
const BOOKING_PATIENCE: Duration = Duration::from_secs(20);
/// How long a stop may take. Nothing is lost by going: whatever is not committed was not said.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How long the audit may read.
const AUDIT_PATIENCE: Duration = Duration::from_secs(900);

/// Runs MusicCorp until it is told to stop, or until every order has come to its end.
///
/// # Errors
/// A part cannot start, an order does not end, or the books do not balance.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    args.init_log();
    let source = args.source()?;
    let folder = Folder::of(&args)?;
    let mut signals = Signals::listen()?;
    let up = tokio::select! {
        up = Up::start(&args, folder.data()) => up?,
        () = signals.asked_to_stop() => {
            output::note("stopping before everything was up");
            return Ok(());
        }
    };
    let outcome = tokio::select! {
        outcome = up.work(&args, source) => outcome,
        () = signals.asked_to_stop() => {
            output::note("stopping");
            Ok(())
        }
        failure = up.services.failed() => Err(failure),
        never = up.keep_announced(&args) => never,
    };
    if tokio::time::timeout(STOP_PATIENCE, up.stop()).await.is_err() {
        output::note(
            "not everything stopped in time; what was committed is kept, and the next start goes on from there",
        );
    }
    drop(folder);
    outcome
}

/// The data folder, held by this process alone.
struct Folder {
    ephemeral: bool,
    path: std::path::PathBuf,
    _lock: File,
}

impl Folder {
    fn of(args: &UpArgs) -> anyhow::Result<Self> {
        let cannot = || format!("cannot use the data folder {}", args.data.display());
        fs::create_dir_all(&args.data).with_context(cannot)?;
        let lock = File::create(args.data.join("lock")).with_context(cannot)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { ephemeral: args.ephemeral, path: args.data.clone(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another `dacapo up` runs on {}; stop it, or choose another --data", args.data.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
        }
    }

    /// Where data lies; `None` if nothing is to be kept.
    fn data(&self) -> Option<&Path> {
        (!self.ephemeral).then_some(self.path.as_path())
    }
}

/// Everything that runs.
struct Up {
    config: Config,
    embedded: Option<Embedded>,
    outside: Outside,
    services: Services,
    /// Tells those who place orders to stop.
    stopping: watch::Sender<bool>,
}

impl Up {
    async fn start(args: &UpArgs, data: Option<&Path>) -> anyhow::Result<Self> {
        let started = Instant::now();
        let embedded = if args.is_external()? {
            None
        } else {
            let config = EmbeddedConfig {
                data,
                fsync: args.fsync(),
                listen_kafka: args.listen_kafka,
                listen_registry: args.listen_registry,
            };
            Some(Embedded::start(&config).await?)
        };
        let config = args.config(embedded.as_ref(), data)?;
        prepare(&config, args.partitions).await?;
        let outside = OutsideConfig {
            listen: args.listen_outside,
            data_dir: data.map(|data| data.join("outside")),
            faults: args.faults.faults(args.mix.seed)?,
        };
        let outside = Outside::start(outside)
            .await
            .with_context(|| format!("the outside world cannot listen on {}", args.listen_outside))?;
        let services = Services::start(&config, args, &outside.url(), data).await?;
        let up = Self { config, embedded, outside, services, stopping: watch::channel(false).0 };
        match up.open(args).await {
            Ok(()) => {
                output::note(&format!("up after {:.1} s", started.elapsed().as_secs_f64()));
                Ok(up)
            }
            Err(error) => {
                up.stop().await;
                Err(error)
            }
        }
    }

    /// What is done once everything runs: the seed, and telling where everything is.
    async fn open(&self, args: &UpArgs) -> anyhow::Result<()> {
        self.seed().await?;
        self.announce(args)
    }

    async fn seed(&self) -> anyhow::Result<()> {
        let registry = runtime::registry::RegistryClient::new(&self.config)?;
        seeding::seed(&self.config.for_service("operator"), &registry).await?;
        self.services.wait_for_seed().await
    }

    fn announce(&self, args: &UpArgs) -> anyhow::Result<()> {
        let endpoints = self.endpoints();
        endpoints.write(&args.data).context("cannot write the addresses into the data folder")?;
        output::note(&format!("kafka              {}", endpoints.kafka));
        output::note(&format!("registry           {}", endpoints.registry));
        output::note(&format!("projector          {}", endpoints.projector));
        for (service, url) in
            endpoints.services.iter().filter(|(service, _)| !endpoints.instances.contains_key(*service))
        {
            output::note(&format!("{service:<18} {url}"));
        }
        for (instance, url) in endpoints.instances.values().flatten() {
            output::note(&format!("{instance:<18} {url}"));
        }
        output::note(&format!("all of them are in {}", Endpoints::path(&args.data).display()));
        Ok(())
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints {
            system: Some(self.config.system.clone()),
            kafka: self.config.bootstrap.clone(),
            registry: self.config.registry_url.clone(),
            projector: self.services.projector().url(),
            outside: Some(self.outside.url()),
            services: self.services.addresses(),
            instances: self.services.instances(),
        }
    }

    /// Says again where everything is whenever an instance has started elsewhere.
    async fn keep_announced(&self, args: &UpArgs) -> anyhow::Result<()> {
        let mut moved = self.services.moved();
        // The services are held for as long as this runs, so that there is always somebody to tell.
        while moved.changed().await.is_ok() {
            if let Err(error) = self.endpoints().write(&args.data) {
                tracing::warn!(%error, "cannot write the addresses into the data folder");
            }
        }
        std::future::pending().await
    }

    /// Places the orders, and waits for their ends if asked to; else until it is told to stop.
    async fn work(&self, args: &UpArgs, source: placing::Source) -> anyhow::Result<()> {
        let projector = self.services.projector();
        let mut progress = Progress::new(source.orders());
        let (known_before, _) = settling::standing(projector);
        let (began, orders) = (Instant::now(), source.orders());
        let mut show = |tally: &Tally| {
            let (total, open) = settling::standing(projector);
            progress.show(Standing { placed: tally.answered(), orders, settled: total - open, open });
        };
        let edge = self.services.edge();
        let tally = placing::place_all(edge, source, args.rate, self.stopping.subscribe(), &mut show).await?;
        if !args.until_settled {
            progress.finish();
            if tally.answered() > 0 {
                output::note(&format!("{} orders placed", tally.placed.len()));
            }
            output::note("Ctrl-C stops");
            return std::future::pending().await;
        }
        let sagas = known_before + tally.placed.len() as u64;
        let patience = Duration::from_secs(args.patience);
        let waited = settling::wait(projector, sagas, patience, &tally, &mut progress).await;
        let took = began.elapsed();
        progress.finish();
        self.settle(&tally, took, waited).await
    }

    async fn settle(&self, tally: &Tally, took: Duration, waited: anyhow::Result<()>) -> anyhow::Result<()> {
        let ended = settling::ended(self.services.projector(), &tally.placed)?;
        let balance = self.balance().await?;
        let outcomes = Outcomes {
            by_outcome: ended.by_outcome,
            place_to_end_ms: ended.took_ms,
            took,
            orders: tally.placed.len() as u64,
            not_placed: tally.not_placed,
            placed_before: tally.placed_before,
        };
        output::line(report::render(&outcomes, &balance).trim_end())?;
        waited?;
        if !balance.is_clean() {
            bail!("the books do not balance");
        }
        Ok(())
    }

    /// The balance, once nothing is held: the parcel of a settled order may be gone a moment before the books of the shelf say so.
    async fn balance(&self) -> anyhow::Result<Balance> {
        let deadline = Instant::now() + BOOKING_PATIENCE;
        loop {
            let balance = audit::audit(&self.config.for_service("audit"), AUDIT_PATIENCE).await?;
            if balance.stock.held == 0 || Instant::now() >= deadline {
                return Ok(balance);
            }
        }
    }

    async fn stop(self) {
        self.stopping.send_replace(true);
        self.services.stop().await;
        if let Err(error) = self.outside.stop().await {
            tracing::warn!(%error, "the outside world did not stop cleanly");
        }
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}
