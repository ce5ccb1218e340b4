//! Stubs of three external services: a payment gateway, a picking system and a courier, each behind its own HTTP calls.
//!
//! The stubs know no topic and no event: they answer requests that carry an idempotency key, slowly or wrongly if configured so.
//! Every response is kept in a journal, so a restart forgets no charge.

mod args;
mod courier;
mod faults;
mod gateway;
mod journal;
mod picking;
mod requests;
mod responses;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use args::{StubFaultArgs, StubsArgs, run};
pub use faults::StubFaults;
pub use gateway::LedgerTotals;

/// How the stubs listen and behave.
#[derive(Debug)]
pub struct StubsConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder of the journals; `None` keeps the responses in memory.
    pub data_dir: Option<PathBuf>,
    /// Latency and faults.
    pub faults: StubFaults,
}

/// The running stubs.
#[derive(Debug)]
pub struct Stubs {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<io::Result<()>>,
}

impl Stubs {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address is taken, or a journal cannot be read.
    pub async fn start(config: StubsConfig) -> io::Result<Self> {
        let gateway = gateway::Gateway::open(config.data_dir.as_deref())?;
        let courier = courier::Courier::open(config.data_dir.as_deref())?;
        let faults = Arc::new(config.faults);
        let app = Router::new()
            // The stubs depend on nothing, so they are ready as soon as they listen.
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(|| async { "ready\n" }))
            .merge(gateway::routes(Arc::new(gateway), Arc::clone(&faults)))
            .merge(picking::routes(Arc::clone(&faults)))
            .merge(courier::routes(Arc::new(courier), faults));
        let listener = TcpListener::bind(config.listen).await?;
        let addr = listener.local_addr()?;
        let (stop, mut stopped) = watch::channel(false);
        let served = tokio::spawn(async move {
            let shutdown = async move {
                // An error means that the handle was dropped, which is a reason to stop as well.
                if stopped.wait_for(|stop| *stop).await.is_err() {
                    tracing::debug!("the handle of the stubs was dropped");
                }
            };
            axum::serve(listener, app).with_graceful_shutdown(shutdown).await
        });
        Ok(Self { addr, stop, served })
    }

    /// The base address of all three stubs.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Answers the requests in flight, then stops.
    ///
    /// # Errors
    /// The server had ended before.
    pub async fn stop(self) -> io::Result<()> {
        self.stop.send_replace(true);
        self.served.await.map_err(io::Error::other)?
    }
}
