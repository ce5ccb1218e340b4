//! The outside world, simulated: a payment gateway, a picking floor and a courier, each behind its own HTTP calls.
//!
//! They stand for systems nobody here owns, so they know no topic and no event: they see requests with an idempotency key and
//! answer them, slowly or wrongly when asked to. What they promised is kept in a journal, so a restart forgets no charge.

mod answers;
mod courier;
mod faults;
mod floor;
mod gateway;
mod journal;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{Json, Router, http::HeaderMap, http::StatusCode, response::IntoResponse, response::Response, routing::get};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use faults::Faults;
pub use gateway::LedgerTotals;

/// How the outside world behaves.
#[derive(Debug)]
pub struct OutsideConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the journal of given answers is kept; `None` keeps it in memory.
    pub data_dir: Option<PathBuf>,
    /// Latency and faults.
    pub faults: Faults,
}

/// The running outside world.
#[derive(Debug)]
pub struct Outside {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<io::Result<()>>,
}

impl Outside {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address is taken, or the journal cannot be read.
    pub async fn start(config: OutsideConfig) -> io::Result<Self> {
        let gateway = gateway::Gateway::open(config.data_dir.as_deref())?;
        let courier = courier::Courier::open(config.data_dir.as_deref())?;
        let faults = Arc::new(config.faults);
        let app = Router::new()
            // It waits for nothing once it listens.
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(|| async { "ready\n" }))
            .merge(gateway::routes(Arc::new(gateway), Arc::clone(&faults)))
            .merge(floor::routes(Arc::clone(&faults)))
            .merge(courier::routes(Arc::new(courier), faults));
        let listener = TcpListener::bind(config.listen).await?;
        let addr = listener.local_addr()?;
        let (stop, mut stopped) = watch::channel(false);
        let served = tokio::spawn(async move {
            let until_told = async move {
                // An error means that the handle is gone, which is a reason to stop as well.
                if stopped.wait_for(|stop| *stop).await.is_err() {
                    tracing::debug!("the handle of the outside world was dropped");
                }
            };
            axum::serve(listener, app).with_graceful_shutdown(until_told).await
        });
        Ok(Self { addr, stop, served })
    }

    /// The base address of all three.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Answers what is under way, then stops.
    ///
    /// # Errors
    /// The server ended by itself before.
    pub async fn stop(self) -> io::Result<()> {
        self.stop.send_replace(true);
        self.served.await.map_err(io::Error::other)?
    }
}

/// The idempotency key of a request, or the answer to a request without one.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Box<Response>> {
    headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .filter(|key| !key.is_empty() && key.len() <= 200)
        .map(str::to_owned)
        .ok_or_else(|| {
            let reason = "the header Idempotency-Key is missing, empty or longer than 200 characters";
            Box::new((StatusCode::BAD_REQUEST, Json(json!({ "status": "invalid", "reason": reason }))).into_response())
        })
}
