//! All services of MusicCorp and the projector, started and stopped as one.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, anyhow, bail};
use notifications::effects::Mailer;
use order_processor::edge::Edge;
use payment::effects::Gateway;
use projector::Declaration;
use runtime::{config::Config, service::Running};
use warehouse::effects::FloorAndCourier;

use super::UpArgs;
use crate::seed;

/// How long everything may take to be ready.
const READY_PATIENCE: Duration = Duration::from_secs(90);
/// Who MusicCorp's mail is from.
const SENDER: &str = "MusicCorp <orders@musiccorp.example>";
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What runs.
pub(super) struct Services {
    running: BTreeMap<&'static str, Running>,
    projector: projector::Running,
    edge: Edge,
}

impl Services {
    /// Starts all of them and waits until each is ready. If one cannot start, those that run are stopped again.
    pub(super) async fn start(
        config: &Config,
        args: &UpArgs,
        outside: &str,
        data: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mailer = match data {
            Some(data) => Mailer::into_folder(SENDER, data.join("mail"))?,
            None => Mailer::keeping_none(SENDER)?,
        };
        // First of all, because its address is the one that may be taken.
        let listen = Config { listen: Some(args.listen_http), ..config.for_service("projector") };
        let projector = projector::start(&listen, &Declaration::shipped()?)
            .await
            .context("--listen-http chooses where the projector listens")?;
        let free_port = SocketAddr::new(args.listen_http.ip(), 0);
        let of = |service: &str| Config { listen: Some(free_port), ..config.for_service(service) };
        let edge = Edge::start(&of("order-processor"));
        let mut services = Self { running: BTreeMap::new(), projector, edge };
        let started = match services.start_each(of, args, outside, mailer).await {
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

    async fn start_each(
        &mut self,
        of: impl Fn(&str) -> Config,
        args: &UpArgs,
        outside: &str,
        mailer: Mailer,
    ) -> anyhow::Result<()> {
        let floor_and_courier = FloorAndCourier::at(outside, outside)?;
        let gateway = Gateway::at(outside)?;
        let (warehouse, payment) = (args.deadlines.warehouse(), args.deadlines.payment());
        // All at once: each waits for the broker and the registry most of the time.
        let started = tokio::join!(
            customers::service(of("customers")),
            catalogue::service(of("catalogue")),
            order_processor::service(of("order-processor"), self.edge.clone()),
            warehouse::service(of("warehouse"), warehouse, floor_and_courier),
            payment::service(of("payment"), payment, gateway),
            loyalty::service(of("loyalty")),
            notifications::service(of("notifications"), mailer),
            recommendations::service(of(recommendations::NAME)),
        );
        let started = [
            ("customers", started.0.map_err(anyhow::Error::from)),
            ("catalogue", started.1.map_err(anyhow::Error::from)),
            ("order-processor", started.2.map_err(anyhow::Error::from)),
            ("warehouse", started.3.map_err(anyhow::Error::from)),
            ("payment", started.4.map_err(anyhow::Error::from)),
            ("loyalty", started.5.map_err(anyhow::Error::from)),
            ("notifications", started.6.map_err(anyhow::Error::from)),
            (recommendations::NAME, started.7.map_err(anyhow::Error::from)),
        ];
        // What did start is kept, also beside one that did not, so that it can be stopped.
        let mut failed = None;
        for (service, started) in started {
            match started {
                Ok(running) => drop(self.running.insert(service, running)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let all = async {
            for (service, running) in &self.running {
                running.ready().await.with_context(|| format!("{service} is not ready"))?;
            }
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
        let told: Vec<String> =
            waiting.map(|(service, running)| format!("{service} ({})", running.health().text)).collect();
        told.join(", ")
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

    pub(super) fn projector(&self) -> &projector::Running {
        &self.projector
    }

    pub(super) fn edge(&self) -> Edge {
        self.edge.clone()
    }

    /// Every service's HTTP address.
    pub(super) fn addresses(&self) -> BTreeMap<String, String> {
        let addresses = self.running.iter().filter_map(|(service, running)| {
            running.http_addr().map(|addr| ((*service).to_owned(), format!("http://{addr}")))
        });
        addresses.collect()
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
        for stop in stops {
            if let Err(error) = stop.await {
                tracing::warn!(%error, "a service did not stop cleanly");
            }
        }
        drop(self.edge);
        self.projector.stop().await;
    }
}
