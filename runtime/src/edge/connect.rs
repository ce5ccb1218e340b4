//! What an HTTP API needs before it can start: a publisher with the service's authority, and readers. Retries until the registry is
//! available.

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

/// An HTTP API that can never start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The registry's client cannot be created.
    #[error("the HTTP API of {service} cannot use the schema registry")]
    Registry {
        /// The service.
        service: &'static str,
        /// The cause.
        source: Box<RegistryError>,
    },
    /// The registry does not know a command's schema.
    #[error("the HTTP API of {service} cannot write its commands")]
    Schemas {
        /// The service.
        service: &'static str,
        /// The cause.
        source: Box<WriterError>,
    },
    /// The producer cannot be created.
    #[error("the HTTP API of {service} cannot publish")]
    Publisher {
        /// The service.
        service: &'static str,
        /// The cause.
        source: Box<PublishError>,
    },
}

/// A publisher of the commands of `D` with the service's authority, and readers for any topic. Retries until the registry is
/// available: drop the future to stop waiting.
///
/// # Errors
/// [`ConnectError`]: a retry would not help.
pub async fn connect<D: Decider>(config: &Config) -> Result<(Publisher, Readers), ConnectError> {
    let service = D::NAME;
    let config = Config { service: service.to_owned(), ..config.clone() };
    let registry = RegistryClient::new(&config);
    let registry = registry.map_err(|source| ConnectError::Registry { service, source: Box::new(source) })?;
    let writers = loop {
        let (system, client) = (config.system.clone(), registry.clone());
        let looked_up = tokio::task::spawn_blocking(move || client.writers(&system, <D::Command as Message>::RECORDS));
        match looked_up.await {
            Ok(Ok(writers)) => break writers,
            Ok(Err(source)) if !source.is_transient() => {
                return Err(ConnectError::Schemas { service, source: Box::new(source) });
            }
            Ok(Err(error)) => {
                tracing::warn!(service, error = telemetry::chain(&error), "HTTP API waits for the schema registry");
            }
            Err(error) => tracing::warn!(service, %error, "looking up the schemas was interrupted"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let (url, source) = (registry.url().to_owned(), Arc::new(registry) as Arc<dyn SchemaSource>);
    let readers = Readers::shared(&url, source).with_written(service, &writers);
    let publisher = Publisher::new(&config, Authority::Service, writers);
    let publisher = publisher.map_err(|source| ConnectError::Publisher { service, source: Box::new(source) })?;
    Ok((publisher, readers))
}
