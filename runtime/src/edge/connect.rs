//! What an edge needs before it can open: a publisher in the service's name, and readers. Waits for a registry that is away.

use std::{sync::Arc, time::Duration};

use crate::{
    codec::{Readers, SchemaSource, WriterError},
    config::Config,
    decider::Decider,
    message::Message,
    publisher::{Authority, PublishError, Publisher},
    registry::{RegistryClient, RegistryError},
    telemetry,
};

/// The pause between two attempts to reach the registry.
const RETRY: Duration = Duration::from_millis(500);

/// An edge that can never open.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The registry's client cannot be made.
    #[error("the edge of {service} cannot ask the schema registry")]
    Registry {
        /// Whose edge.
        service: &'static str,
        /// Why.
        source: Box<RegistryError>,
    },
    /// The registry does not know a command's schema.
    #[error("the edge of {service} cannot write its commands")]
    Schemas {
        /// Whose edge.
        service: &'static str,
        /// Why.
        source: Box<WriterError>,
    },
    /// The producer cannot be made.
    #[error("the edge of {service} cannot publish")]
    Publisher {
        /// Whose edge.
        service: &'static str,
        /// Why.
        source: Box<PublishError>,
    },
}

/// A publisher of the commands of `D`, with the authority of the service, and readers of whatever lies on topics.
/// Waits for the registry for as long as it takes: drop the future to stop waiting.
///
/// # Errors
/// [`ConnectError`]: waiting does not help.
pub async fn connect<D: Decider>(config: &Config) -> Result<(Publisher, Readers), ConnectError> {
    let service = D::NAME;
    let config = Config { service: service.to_owned(), ..config.clone() };
    let registry = RegistryClient::new(&config);
    let registry = registry.map_err(|source| ConnectError::Registry { service, source: Box::new(source) })?;
    let writers = loop {
        let (system, asked) = (config.system.clone(), registry.clone());
        let looked_up = tokio::task::spawn_blocking(move || asked.writers(&system, <D::Command as Message>::RECORDS));
        match looked_up.await {
            Ok(Ok(writers)) => break writers,
            Ok(Err(source)) if !source.is_transient() => {
                return Err(ConnectError::Schemas { service, source: Box::new(source) });
            }
            Ok(Err(error)) => tracing::warn!(service, error = telemetry::chain(&error), "edge waits to open"),
            Err(error) => tracing::warn!(service, %error, "edge was kept from looking schemas up"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let publisher = Publisher::new(&config, Authority::Service, writers);
    let publisher = publisher.map_err(|source| ConnectError::Publisher { service, source: Box::new(source) })?;
    Ok((publisher, Readers::new(Arc::new(registry) as Arc<dyn SchemaSource>)))
}
