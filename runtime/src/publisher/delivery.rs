//! The delivery of a batch: which of its records are acknowledged, refused, or of unknown outcome.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{DeliveryResult, NoCustomPartitioner, ProducerContext},
    types::RDKafkaErrorCode,
};
use tokio::sync::Notify;

use super::DeliveryOutcome;
use crate::{envelope::Position, kafka::client::ClientLog};

/// A batch in flight: one counter, one notification.
pub(super) struct BatchDelivery {
    state: Mutex<BatchState>,
    progress: Condvar,
    done: Notify,
}

struct BatchState {
    outcomes: Vec<Option<DeliveryOutcome>>,
    open: usize,
}

pub(super) struct RecordSlot {
    pub(super) delivery: Arc<BatchDelivery>,
    pub(super) index: usize,
}

impl BatchDelivery {
    pub(super) fn of(records: usize) -> Arc<Self> {
        let state = BatchState { outcomes: vec![None; records], open: records };
        Arc::new(Self { state: Mutex::new(state), progress: Condvar::new(), done: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, BatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settle(&self, index: usize, outcome: DeliveryOutcome) {
        let mut state = self.state();
        if let Some(slot @ None) = state.outcomes.get_mut(index) {
            *slot = Some(outcome);
            state.open -= 1;
        }
        let is_done = state.open == 0;
        drop(state);
        if is_done {
            self.progress.notify_all();
            // The permit is kept for a waiter that has not started yet.
            self.done.notify_one();
        }
    }

    /// Marks the records from `index` on as refused: they were never enqueued.
    pub(super) fn refuse_from(&self, index: usize) {
        let records = self.state().outcomes.len();
        for index in index..records {
            self.settle(index, DeliveryOutcome::Refused("the producer's queue stayed full".to_owned()));
        }
    }

    pub(super) async fn done(&self) {
        while self.state().open > 0 {
            self.done.notified().await;
        }
    }

    pub(super) fn wait_for_progress(&self, patience: Duration) {
        let state = self.state();
        drop(self.progress.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        while state.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn outcomes(&self) -> Vec<DeliveryOutcome> {
        self.state().outcomes.iter().map(|outcome| outcome.clone().unwrap_or(DeliveryOutcome::Unknown)).collect()
    }
}

/// Assigns librdkafka's delivery reports to their batches.
pub(super) struct DeliveryReports(pub(super) ClientLog);

impl ClientContext for DeliveryReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.0.stats_raw(statistics);
    }
}

impl ProducerContext<NoCustomPartitioner> for DeliveryReports {
    type DeliveryOpaque = Box<RecordSlot>;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Box<RecordSlot>) {
        let outcome = match result {
            Ok(message) => {
                DeliveryOutcome::Acknowledged(Position::new(message.topic(), message.partition(), message.offset()))
            }
            // Purged with its producer after the deadline or a fatal error: whether it reached the log is unknown.
            Err((KafkaError::MessageProduction(code), _)) if is_unknown(*code) => DeliveryOutcome::Unknown,
            Err((error, _)) => DeliveryOutcome::Refused(error.to_string()),
        };
        slot.delivery.settle(slot.index, outcome);
    }
}

fn is_unknown(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::PurgeInflight
            | RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
    )
}
