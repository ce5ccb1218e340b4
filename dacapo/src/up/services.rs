//! Starts and stops all services of MusicCorp and the projector together: in this process, or as child processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use notifications::effects::Mailer;
use order_processor::edge::OrderEdge;
use payment::{Payment, effects::Gateway};
use projector::Declaration;
use runtime::{config::Config, service::Running};
use tokio::{sync::watch, task::JoinSet};
use warehouse::{Warehouse, effects::PickingAndCourier};

use super::{
    UpArgs,
    instances::{self, Instance},
    settings::ServiceSettings,
    supervisor::Supervisor,
};
use crate::sample_data;

/// How long the services may take to become ready.
const READY_PATIENCE: Duration = Duration::from_secs(90);
/// The interval between two checks of an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The running services.
pub(super) struct Services {
    running: BTreeMap<&'static str, Running>,
    supervisor: Supervisor,
    projector: projector::RunningProjector,
    edge: OrderEdge,
}

impl Services {
    /// Starts all services and waits until each is ready. If one cannot start, the others are stopped again.
    pub(super) async fn start(
        config: &Config,
        args: &UpArgs,
        stubs: &str,
        data: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let settings = ServiceSettings::new(args, stubs, data);
        let in_children = instances::services_of(&args.instances)?;
        let host = args.listen_http.ip();
        let children = Instance::all(&args.instances, config, args.config.as_deref(), &settings, data, host)?;
        // The projector starts first: its address is the only fixed one, so it may be taken.
        let listen = Config { listen: Some(args.listen_http), ..config.for_service("projector") };
        let projector = projector::start(&listen, &Declaration::shipped()?)
            .await
            .context("--listen-http sets the address of the projector")?;
        let edge = OrderEdge::start(&config.for_service("order-processor"));
        let mut services = Self { running: BTreeMap::new(), supervisor: Supervisor::start(children), projector, edge };
        let started = match services.start_in_process(config, host, &settings, &in_children).await {
            Ok(()) => services.wait_until_ready().await,
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => Ok(services),
            Err(error) => {
                services.stop().await;
                Err(error)
            }
        }
    }

    /// Starts the services of this process concurrently: each waits for the broker and the registry most of the time.
    async fn start_in_process(
        &mut self,
        config: &Config,
        host: std::net::IpAddr,
        settings: &ServiceSettings,
        in_children: &BTreeSet<&'static str>,
    ) -> anyhow::Result<()> {
        let mut starting = ServiceStarter { config, host, in_children, tasks: JoinSet::new() };
        starting.begin("customers", customers::service);
        starting.begin("catalogue", catalogue::service);
        let edge = self.edge.clone();
        starting.begin("order-processor", move |config| order_processor::service(config, edge));
        let warehouse = Warehouse::of(&settings.warehouse);
        let picking_and_courier = PickingAndCourier::of(&settings.warehouse)?;
        starting.begin("warehouse", move |config| warehouse::service(config, warehouse, picking_and_courier));
        let (payment, gateway) = (Payment::of(&settings.payment), Gateway::of(&settings.payment)?);
        starting.begin("payment", move |config| payment::service(config, payment, gateway));
        starting.begin("loyalty", loyalty::service);
        let mailer = Mailer::of(&settings.notifications)?;
        starting.begin("notifications", move |config| notifications::service(config, mailer));
        starting.begin(recommendations::NAME, recommendations::service);
        // Services that did start are kept even if another one failed, so that they can be stopped.
        let mut failed = None;
        while let Some(started) = starting.tasks.join_next().await {
            match started {
                Ok((service, Ok(running))) => drop(self.running.insert(service, running)),
                Ok((_, Err(error))) => failed = failed.or(Some(error)),
                Err(error) => failed = failed.or(Some(error.into())),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let all = async {
            for (service, running) in &self.running {
                running.ready().await.with_context(|| format!("{service} is not ready"))?;
            }
            self.supervisor.wait_until_ready().await?;
            self.edge.wait_until_ready(READY_PATIENCE).await?;
            anyhow::Ok(())
        };
        match tokio::time::timeout(READY_PATIENCE, all).await {
            Ok(ready) => ready,
            Err(_) => bail!("not all services were ready after {} s: {}", READY_PATIENCE.as_secs(), self.not_ready()),
        }
    }

    fn not_ready(&self) -> String {
        let waiting = self.running.iter().filter(|(_, running)| !running.health().is_ready);
        let named = waiting.map(|(service, running)| format!("{service} ({})", running.health().text));
        named.chain(self.supervisor.not_ready()).collect::<Vec<_>>().join(", ")
    }

    /// Waits until the order-processor's HTTP API knows every album and every customer of the sample data.
    pub(super) async fn wait_for_sample_data(&self) -> anyhow::Result<()> {
        let known = || {
            sample_data::ALBUMS.iter().all(|album| self.edge.knows_album(album.sku))
                && (0..sample_data::CUSTOMERS).all(|index| self.edge.knows_customer(&sample_data::customer_id(index)))
        };
        let deadline = tokio::time::Instant::now() + READY_PATIENCE;
        while !known() {
            if tokio::time::Instant::now() >= deadline {
                bail!(
                    "the catalogue and the customers did not reach the order-processor in {} s",
                    READY_PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    pub(super) fn projector(&self) -> &projector::RunningProjector {
        &self.projector
    }

    pub(super) fn edge(&self) -> OrderEdge {
        self.edge.clone()
    }

    /// The HTTP address of every service; of a service with several instances, the first known address.
    pub(super) fn addresses(&self) -> BTreeMap<String, String> {
        let in_process = self.running.iter().filter_map(|(service, running)| {
            running.http_addr().map(|addr| ((*service).to_owned(), format!("http://{addr}")))
        });
        let mut addresses: BTreeMap<String, String> = in_process.collect();
        for (service, _, address) in self.supervisor.addresses() {
            addresses.entry(service.to_owned()).or_insert(address);
        }
        addresses
    }

    /// The HTTP addresses of the child processes, by service and instance name.
    pub(super) fn instances(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut instances = BTreeMap::<String, BTreeMap<String, String>>::new();
        for (service, instance, address) in self.supervisor.addresses() {
            instances.entry(service.to_owned()).or_default().insert(instance, address);
        }
        instances
    }

    /// Changes whenever the address of a child process changes.
    pub(super) fn address_changes(&self) -> watch::Receiver<u64> {
        self.supervisor.address_changes()
    }

    /// Waits until a service has failed.
    pub(super) async fn failed(&self) -> anyhow::Error {
        loop {
            for (service, running) in &self.running {
                let health = running.health();
                if !health.is_live {
                    return anyhow!("{service} has stopped: {}", health.text);
                }
            }
            if let Some(failure) = self.projector.failure() {
                return anyhow!("the projector has stopped: {failure}");
            }
            tokio::time::sleep(POLL_INTERVAL * 20).await;
        }
    }

    /// Stops all services concurrently.
    pub(super) async fn stop(self) {
        let stops: Vec<_> = self
            .running
            .into_iter()
            .map(|(service, running)| {
                tokio::spawn(async move {
                    if !running.stop().await {
                        tracing::warn!(service, "did not stop in time");
                    }
                })
            })
            .collect();
        self.supervisor.stop().await;
        for stop in stops {
            if let Err(error) = stop.await {
                tracing::warn!(%error, "a service did not stop cleanly");
            }
        }
        drop(self.edge);
        self.projector.stop().await;
    }
}

/// Starts services concurrently.
struct ServiceStarter<'a> {
    config: &'a Config,
    host: std::net::IpAddr,
    /// The services that run as child processes.
    in_children: &'a BTreeSet<&'static str>,
    tasks: JoinSet<(&'static str, anyhow::Result<Running>)>,
}

impl ServiceStarter<'_> {
    /// Starts a service at a free port, unless it runs as a child process.
    fn begin<Start, Started, E>(&mut self, service: &'static str, start: Start)
    where
        Start: FnOnce(Config) -> Started,
        Started: Future<Output = Result<Running, E>> + Send + 'static,
        E: Into<anyhow::Error> + 'static,
    {
        if self.in_children.contains(service) {
            return;
        }
        let listen = Some(SocketAddr::new(self.host, 0));
        let started = start(Config { listen, ..self.config.for_service(service) });
        self.tasks.spawn(async move { (service, started.await.map_err(Into::into)) });
    }
}
