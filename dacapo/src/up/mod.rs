//! `dacapo up`: broker, registry, schemas, topics, sample data, stubs, all services and the projector in one process.

mod args;
mod data_folder;
mod instances;
mod place_orders;
mod progress;
mod report;
mod services;
mod settings;
mod settling;
mod supervisor;
mod system;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use runtime::config::Config;
use tokio::sync::watch;

use crate::{
    audit::{self, AuditReport},
    endpoints::Endpoints,
    load_sample_data, output,
    prepare::prepare,
    signals::Signals,
    stubs::{Stubs, StubsConfig},
};

pub use args::UpArgs;
use data_folder::DataFolder;
use place_orders::{OrderSource, PlacementCounts};
use progress::{Progress, ProgressCounts};
use report::RunSummary;
use services::Services;
use system::{Embedded, EmbeddedConfig};

/// How long the last held pieces may take to be shipped, freed or written off.
const STOCK_PATIENCE: Duration = Duration::from_secs(20);
/// How long a stop may take. Ending early loses nothing: uncommitted work was never visible.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How long the audit may read the topics.
const AUDIT_PATIENCE: Duration = Duration::from_secs(900);

/// Runs MusicCorp until a signal stops it, or until every order has settled.
///
/// # Errors
/// A part cannot start, an order does not settle, or the audit has findings.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    args.init_log();
    let source = args.order_source()?;
    let folder = DataFolder::lock(&args.data, args.ephemeral)?;
    let mut signals = Signals::listen()?;
    let up = tokio::select! {
        up = Up::start(&args, folder.data()) => up?,
        () = signals.stop_requested() => {
            output::note("stopping before the start has finished");
            return Ok(());
        }
    };
    let outcome = tokio::select! {
        outcome = up.run_orders(&args, source) => outcome,
        () = signals.stop_requested() => {
            output::note("stopping");
            Ok(())
        }
        failure = up.services.failed() => Err(failure),
        never = up.rewrite_endpoints_on_change(&args) => never,
    };
    if tokio::time::timeout(STOP_PATIENCE, up.stop()).await.is_err() {
        output::note("not everything stopped in time; committed work is kept, and the next start continues from it");
    }
    drop(folder);
    outcome
}

/// The running system.
struct Up {
    config: Config,
    embedded: Option<Embedded>,
    stubs: Stubs,
    services: Services,
    /// Stops the placing of orders.
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
        let config_of_stubs = StubsConfig {
            listen: args.listen_stubs,
            data_dir: data.map(|data| data.join("stubs")),
            faults: args.faults.faults(args.mix.seed)?,
        };
        let stubs = Stubs::start(config_of_stubs)
            .await
            .with_context(|| format!("the stubs cannot listen on {}", args.listen_stubs))?;
        let services = Services::start(&config, args, &stubs.url(), data).await?;
        let up = Self { config, embedded, stubs, services, stopping: watch::channel(false).0 };
        match up.finish_start(args).await {
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

    /// Loads the sample data and publishes the addresses, once everything runs.
    async fn finish_start(&self, args: &UpArgs) -> anyhow::Result<()> {
        self.load_sample_data().await?;
        self.publish_endpoints(args)
    }

    async fn load_sample_data(&self) -> anyhow::Result<()> {
        let registry = runtime::registry::RegistryClient::new(&self.config)?;
        load_sample_data::load(&self.config.for_service("operator"), &registry).await?;
        self.services.wait_for_sample_data().await
    }

    fn publish_endpoints(&self, args: &UpArgs) -> anyhow::Result<()> {
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
            stubs: Some(self.stubs.url()),
            services: self.services.addresses(),
            instances: self.services.instances(),
        }
    }

    /// Writes the addresses again whenever a child process has another address.
    async fn rewrite_endpoints_on_change(&self, args: &UpArgs) -> anyhow::Result<()> {
        let mut changes = self.services.address_changes();
        // The sender lives as long as the services, which outlive this future.
        while changes.changed().await.is_ok() {
            if let Err(error) = self.endpoints().write(&args.data) {
                tracing::warn!(%error, "cannot write the addresses into the data folder");
            }
        }
        std::future::pending().await
    }

    /// Places the orders, and waits until they have settled with `--until-settled`; else runs until a signal.
    async fn run_orders(&self, args: &UpArgs, source: OrderSource) -> anyhow::Result<()> {
        let projector = self.services.projector();
        let mut progress = Progress::new(source.orders());
        let (known_before, _) = settling::total_and_open(projector);
        let (began, orders) = (Instant::now(), source.orders());
        let mut show = |counts: &PlacementCounts| {
            let (total, open) = settling::total_and_open(projector);
            progress.show(ProgressCounts { placed: counts.answered(), orders, settled: total - open, open });
        };
        let edge = self.services.edge();
        let placed = place_orders::place_all(edge, source, args.rate, self.stopping.subscribe(), &mut show).await?;
        if !args.until_settled {
            progress.finish();
            if placed.answered() > 0 {
                output::note(&format!("{} orders placed", placed.placed.len()));
            }
            output::note("Ctrl-C stops");
            return std::future::pending().await;
        }
        let sagas = known_before + placed.placed.len() as u64;
        let patience = Duration::from_secs(args.patience);
        let waited = settling::wait(projector, sagas, patience, &placed, &mut progress).await;
        let took = began.elapsed();
        progress.finish();
        self.print_report(&placed, took, waited).await
    }

    async fn print_report(
        &self,
        counts: &PlacementCounts,
        took: Duration,
        waited: anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let sagas = settling::outcomes(self.services.projector(), &counts.placed)?;
        let audit = self.audit().await?;
        let summary = RunSummary {
            by_outcome: sagas.by_outcome,
            place_to_end_ms: sagas.took_ms,
            took,
            orders: counts.placed.len() as u64,
            not_placed: counts.not_placed,
            placed_before: counts.placed_before,
        };
        output::line(report::render(&summary, &audit).trim_end())?;
        waited?;
        if !audit.is_clean() {
            bail!("the audit has findings");
        }
        Ok(())
    }

    /// Audits until no stock is held: the stock item of a settled order may record the shipment a moment after the order has settled.
    async fn audit(&self) -> anyhow::Result<AuditReport> {
        let deadline = Instant::now() + STOCK_PATIENCE;
        loop {
            let report = audit::audit(&self.config.for_service("audit"), AUDIT_PATIENCE).await?;
            if report.stock.held == 0 || Instant::now() >= deadline {
                return Ok(report);
            }
        }
    }

    async fn stop(self) {
        self.stopping.send_replace(true);
        self.services.stop().await;
        if let Err(error) = self.stubs.stop().await {
            tracing::warn!(%error, "the stubs did not stop cleanly");
        }
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}
