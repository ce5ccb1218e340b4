//! Why an incarnation of a worker ended.

use rdkafka::{
    error::KafkaError,
    producer::{Producer, ProducerContext},
};

use super::{ClientsError, CommitError};
use crate::core::turn::TurnError;

/// Why an incarnation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    #[error("cannot {step}: {source}")]
    Kafka { step: &'static str, source: Box<KafkaError> },
    #[error(transparent)]
    Clients(#[from] ClientsError),
    #[error("no broker answers, so the clients are replaced: {0}")]
    Unreachable(String),
    #[error("{}", crate::telemetry::chain(.0))]
    Commit(CommitError),
    #[error(transparent)]
    Turn(TurnError),
    #[error(
        "another process runs under the name {name}; hint: give every instance its own name, or none; this one stops"
    )]
    NameTaken { name: String },
    #[error("{0}")]
    LogLoss(String),
    #[error("{producer} cannot continue: {reason}")]
    DeadProducer { producer: &'static str, reason: String },
    #[error("the worker panicked: {reason}")]
    Panicked { reason: String },
    #[error("{0}")]
    Other(String),
}

impl WorkerError {
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::NameTaken { .. } | Self::LogLoss(_))
    }

    /// True if the only problem is that no broker can be reached. The next incarnation waits for one.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Clients(ClientsError::Unreachable { .. }))
    }
}

/// Fails if a producer has a fatal error: it refuses every later record. The client is asked, because the code of the event that it
/// raises is the code of the cause.
pub(super) fn check_alive<C: ProducerContext>(
    producer: &'static str,
    client: &impl Producer<C>,
) -> Result<(), WorkerError> {
    match client.client().fatal_error() {
        None => Ok(()),
        Some((code, reason)) => Err(WorkerError::DeadProducer { producer, reason: format!("{code}: {reason}") }),
    }
}

pub(super) fn kafka(step: &'static str) -> impl Fn(KafkaError) -> WorkerError {
    move |source| WorkerError::Kafka { step, source: Box::new(source) }
}
