//! Recommendations: what was bought together. A projection with a query: it decides nothing, remembers nothing of its own and says
//! nothing, so it has no group, no inbox and no events topic.
//!
//! | card | |
//! |---|---|
//! | hears | order-processor: OrderPlaced; catalogue: AlbumListed |
//! | inbox | none |
//! | says | nothing |
//! | remembers | in memory only, folded from the beginning at every start: of each album its title and artist, in how many orders it was, and with which others |
//! | undoes | nothing: an order that is cancelled later was a choice all the same |
//! | personal data | none: who ordered is not read |
//!
//! The next stop of the walk is `reads`, then `together`, then `http`.

mod http;
pub mod reads;
pub mod together;

use std::sync::Arc;

use runtime::{
    Config,
    codec::Readers,
    health::HealthChecks,
    message::{Channel, topic},
    projection::{LiveView, Topics, ViewError},
    registry::{RegistryClient, RegistryError},
    service::{self, Program, Running},
};

use crate::together::Together;

/// The service's name, which its settings go by.
pub const NAME: &str = "recommendations";

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry's client cannot be made.
    #[error("recommendations cannot ask the schema registry")]
    Registry(#[from] RegistryError),
    /// The topics cannot be read.
    #[error("recommendations cannot read its topics")]
    View(#[from] ViewError),
    /// It cannot be served.
    #[error(transparent)]
    Service(#[from] service::StartError),
}

/// Starts the service. Until everything said before is read, it is not ready and answers nothing.
///
/// # Errors
/// Something that waiting does not resolve keeps it from starting.
pub async fn service(config: Config) -> Result<Running, StartError> {
    let config = config.for_service(NAME);
    let readers = Readers::new(Arc::new(RegistryClient::new(&config)?));
    let topics = ["order-processor", "catalogue"].map(|service| topic(&config.system, service, Channel::Events));
    let together = Together::new(&config.system);
    let view = LiveView::start(&config, "bought-together", readers, Topics::decoded(topics), together)?;
    let (checks, live, ready) = (HealthChecks::default(), view.clone(), view.clone());
    checks.live("what was bought", move || live.health().failed.map_or(Ok(()), Err));
    checks.ready("what was bought", move || http::is_ready(&ready));
    Ok(service::start_reader(NAME, config, http::routes(view), checks).await?)
}

/// The service as a program: its own binary runs it, and so does `dacapo service`.
#[must_use]
pub fn program() -> Program {
    Program::new(NAME, "Answers what was bought together", |config, _: service::NoSettings| async move {
        Ok(service(config).await?)
    })
}
