//! Recommendations: the albums that were bought together. A projection with a query: it makes no decisions and produces no
//! events, so it has no consumer group, no inbox and no events topic.
//!
//! | card | |
//! |---|---|
//! | consumes | order-processor: OrderPlaced; catalogue: AlbumListed |
//! | inbox | none |
//! | produces | nothing |
//! | remembers | in memory only, folded from the beginning at every start: of each album its title and artist, the number of its orders, and the albums in the same orders |
//! | compensates | nothing: an order counts even if it is cancelled later |
//! | personal data | none: the customer is not read |
//!
//! A record passes through `reads` and `together`; `http` serves the result.

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

use crate::together::BoughtTogether;

/// The name of the service in its settings.
pub const NAME: &str = "recommendations";

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The client of the schema registry cannot be created.
    #[error("recommendations cannot create its client of the schema registry")]
    Registry(#[from] RegistryError),
    /// The topics cannot be read.
    #[error("recommendations cannot read its topics")]
    View(#[from] ViewError),
    /// The service cannot be served.
    #[error(transparent)]
    Service(#[from] service::StartError),
}

/// Starts the service. It is not ready and answers no query until it has caught up.
///
/// # Errors
/// The service cannot start, and waiting does not help.
pub async fn service(config: Config) -> Result<Running, StartError> {
    let config = config.for_service(NAME);
    let registry = RegistryClient::new(&config)?;
    let readers = Readers::shared(registry.url(), Arc::new(registry.clone()));
    let topics = ["order-processor", "catalogue"].map(|service| topic(&config.system, service, Channel::Events));
    let together = BoughtTogether::new(&config.system);
    let view = LiveView::start(&config, "bought-together", readers, Topics::decoded(topics), together)?;
    let (checks, live, ready) = (HealthChecks::default(), view.clone(), view.clone());
    checks.live("purchases", move || live.health().failed.map_or(Ok(()), Err));
    checks.ready("purchases", move || ready.health().check("purchases"));
    Ok(service::start_reader(NAME, config, http::routes(view), checks).await?)
}

/// The service as a program. The `recommendations` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(NAME, "Recommends albums that were bought together", |config, _: service::NoSettings| async move {
        Ok(service(config).await?)
    })
}
