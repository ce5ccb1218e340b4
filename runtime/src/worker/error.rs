//! Why an incarnation of a worker ended.

use rdkafka::error::KafkaError;

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

pub(super) fn kafka(step: &'static str) -> impl Fn(KafkaError) -> WorkerError {
    move |source| WorkerError::Kafka { step, source: Box::new(source) }
}
