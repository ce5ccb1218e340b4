//! All services of MusicCorp and the projector, started and stopped as one: in this process, or as instances beside it.

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
    children::Children,
    instances::{self, Instance},
};
use crate::seed;

/// How long everything may take to be ready.
const READY_PATIENCE: Duration = Duration::from_secs(90);
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The settings of the services that have some of their own.
#[derive(Debug)]
pub(super) struct Settings {
    warehouse: warehouse::effects::Settings,
    payment: payment::effects::Settings,
    notifications: notifications::effects::Settings,
}

impl Settings {
    /// What the flags say, with this outside world and this data folder; without one no mail is kept.
    fn new(args: &UpArgs, outside: &str, data: Option<&Path>) -> Self {
        let outside = || Some(outside.to_owned());
        let mail_folder = data.map(|data| data.join("mail"));
        Self {
            warehouse: warehouse::effects::Settings {
                picking_url: outside(),
                courier_url: outside(),
                ..args.deadlines.warehouse()
            },
            payment: payment::effects::Settings { gateway_url: outside(), ..args.deadlines.payment() },
            notifications: notifications::effects::Settings {
                mail_discard: Some(mail_folder.is_none()),
                mail_folder,
                ..Default::default()
            },
        }
    }

    /// The same as flags of one service.
    ///
    /// # Errors
    /// A setting is nothing that a flag can say.
    pub(super) fn flags_of(&self, service: &str) -> anyhow::Result<Vec<String>> {
        match service {
            "warehouse" => instances::flags(&self.warehouse),
            "payment" => instances::flags(&self.payment),
            "notifications" => instances::flags(&self.notifications),
            _ => Ok(Vec::new()),
        }
    }
}

/// What runs.
pub(super) struct Services {
    running: BTreeMap<&'static str, Running>,
    children: Children,
    projector: projector::RunningProjector,
    edge: OrderEdge,
}

impl Services {
    /// Starts all of them and waits until each is ready. If one cannot start, those that run are stopped again.
    pub(super) async fn start(
        config: &Config,
        args: &UpArgs,
        outside: &str,
        data: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let settings = Settings::new(args, outside, data);
        let elsewhere = instances::services_of(&args.instances)?;
        let host = args.listen_http.ip();
        let beside = Instance::all(&args.instances, config, args.config.as_deref(), &settings, data, host)?;
        // First of all, because its address is the one that may be taken.
        let listen = Config { listen: Some(args.listen_http), ..config.for_service("projector") };
        let projector = projector::start(&listen, &Declaration::shipped()?)
            .await
            .context("--listen-http chooses where the projector listens")?;
        let edge = OrderEdge::start(&config.for_service("order-processor"));
        let mut services = Self { running: BTreeMap::new(), children: Children::start(beside), projector, edge };
        let started = match services.start_here(config, host, &settings, &elsewhere).await {
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

    /// Starts those that do not run elsewhere, all at once: each waits for the broker and the registry most of the time.
    async fn start_here(
        &mut self,
        config: &Config,
        host: std::net::IpAddr,
        settings: &Settings,
        elsewhere: &BTreeSet<&'static str>,
    ) -> anyhow::Result<()> {
        let mut starting = Starting { config, host, elsewhere, under_way: JoinSet::new() };
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
        // What did start is kept, also beside one that did not, so that it can be stopped.
        let mut failed = None;
        while let Some(started) = starting.under_way.join_next().await {
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
            self.children.ready().await?;
            self.edge.wait_until_ready(READY_PATIENCE).await?;
            anyhow::Ok(())
        };
        match tokio::time::timeout(READY_PATIENCE, all).await {
            Ok(ready) => ready,
            Err(_) => bail!("not everything was ready after {} s: {}", READY_PATIENCE.as_secs(), self.not_ready()),
        }
    }

    fn not_ready(&self) -> String {
        let waiting = self.running.iter().filter(|(_, running)| !running.health().is_ready);
        let told = waiting.map(|(service, running)| format!("{service} ({})", running.health().text));
        told.chain(self.children.not_ready()).collect::<Vec<_>>().join(", ")
    }

    /// Waits until the edge knows every album and every customer that was put in.
    pub(super) async fn wait_for_seed(&self) -> anyhow::Result<()> {
        let known = || {
            seed::ALBUMS.iter().all(|album| self.edge.knows_album(album.sku))
                && (0..seed::CUSTOMERS).all(|index| self.edge.knows_customer(&seed::customer_id(index)))
        };
        let deadline = tokio::time::Instant::now() + READY_PATIENCE;
        while !known() {
            if tokio::time::Instant::now() >= deadline {
                bail!(
                    "the catalogue and the customers did not reach the order-processor in {} s",
                    READY_PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    pub(super) fn projector(&self) -> &projector::RunningProjector {
        &self.projector
    }

    pub(super) fn edge(&self) -> OrderEdge {
        self.edge.clone()
    }

    /// Every service's HTTP address; of one with several instances, the first that has one.
    pub(super) fn addresses(&self) -> BTreeMap<String, String> {
        let here = self.running.iter().filter_map(|(service, running)| {
            running.http_addr().map(|addr| ((*service).to_owned(), format!("http://{addr}")))
        });
        let mut addresses: BTreeMap<String, String> = here.collect();
        for (service, _, address) in self.children.addresses() {
            addresses.entry(service.to_owned()).or_insert(address);
        }
        addresses
    }

    /// The HTTP addresses of the instances of each service that has some, by their names.
    pub(super) fn instances(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut instances = BTreeMap::<String, BTreeMap<String, String>>::new();
        for (service, instance, address) in self.children.addresses() {
            instances.entry(service.to_owned()).or_default().insert(instance, address);
        }
        instances
    }

    /// Tells whenever an instance listens somewhere else than before.
    pub(super) fn moved(&self) -> watch::Receiver<u64> {
        self.children.moved()
    }

    /// Waits until one of them has stopped by itself.
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
            tokio::time::sleep(LOOK * 20).await;
        }
    }

    /// Stops all of them at once.
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
        self.children.stop().await;
        for stop in stops {
            if let Err(error) = stop.await {
                tracing::warn!(%error, "a service did not stop cleanly");
            }
        }
        drop(self.edge);
        self.projector.stop().await;
    }
}

/// Services on their way up.
struct Starting<'a> {
    config: &'a Config,
    host: std::net::IpAddr,
    /// Those that are not to be started here.
    elsewhere: &'a BTreeSet<&'static str>,
    under_way: JoinSet<(&'static str, anyhow::Result<Running>)>,
}

impl Starting<'_> {
    /// Begins to start a service, at a free port of its own.
    fn begin<Start, Started, E>(&mut self, service: &'static str, start: Start)
    where
        Start: FnOnce(Config) -> Started,
        Started: Future<Output = Result<Running, E>> + Send + 'static,
        E: Into<anyhow::Error> + 'static,
    {
        if self.elsewhere.contains(service) {
            return;
        }
        let listen = Some(SocketAddr::new(self.host, 0));
        let started = start(Config { listen, ..self.config.for_service(service) });
        self.under_way.spawn(async move { (service, started.await.map_err(Into::into)) });
    }
}
