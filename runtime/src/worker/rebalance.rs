//! Assignments and revocations, as the consumer's callback receives them.
//!
//! The callback only queues them. The worker executes a rebalance on its own thread, between batches.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};

use crate::kafka::ClientLog;

/// An assignment or a revocation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rebalance {
    /// The partitions of this member in a new generation.
    Assigned(Vec<i32>),
    /// Every partition is revoked.
    Revoked,
}

/// The context of a worker's consumer.
pub(crate) struct RebalanceListener {
    log: ClientLog,
    rebalances: Mutex<VecDeque<Rebalance>>,
    leaving: AtomicBool,
    fenced: AtomicBool,
}

impl RebalanceListener {
    pub(crate) fn new(log: ClientLog) -> Self {
        let (leaving, fenced) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { log, rebalances: Mutex::default(), leaving, fenced }
    }

    pub(crate) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(crate) fn has_rebalance(&self) -> bool {
        !self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Unassigns partitions in the callback from now on, because the worker's loop has ended.
    pub(crate) fn unassign_from_now_on(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// True if another process has taken this member's name.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }
}

impl ClientContext for RebalanceListener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::FencedInstanceId) {
            self.fenced.store(true, Ordering::Release);
        }
        self.log.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.log.stats_raw(statistics);
    }
}

impl ConsumerContext for RebalanceListener {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let rebalance = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                Rebalance::Assigned(partitions.elements().iter().map(|element| element.partition()).collect())
            }
            _ => Rebalance::Revoked,
        };
        if self.leaving.load(Ordering::Acquire) {
            let done = match rebalance {
                Rebalance::Assigned(_) => consumer.assign(&TopicPartitionList::new()),
                Rebalance::Revoked => consumer.unassign(),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "partitions could not be unassigned while leaving");
            }
            return;
        }
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }
}
