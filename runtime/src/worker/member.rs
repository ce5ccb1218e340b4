//! The clients of a life: what their callbacks note down, and how they are let go.
//!
//! Callbacks only note. What a rebalance or a delivery means is done by the loop, on its own thread, between batches.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    producer::{DeliveryResult, NoCustomPartitioner, ProducerContext},
    types::RDKafkaRespErr,
};

use crate::kafka::ClientLog;

/// What the group tells a member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These are its partitions in a new generation.
    Assigned(Vec<i32>),
    /// Everything is to be given back.
    Revoked,
}

/// A member that the group fences twice within this time has a name that another process has, too.
const FENCED_TWICE: Duration = Duration::from_secs(120);

/// When the group fenced a member. Once may be over its own request to join, which it has sent again for want of an answer.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    last: Option<Instant>,
}

impl Fences {
    /// Notes that it has happened. Answers whether another process must be behind it.
    pub(crate) fn tell_another_process(&mut self, now: Instant) -> bool {
        let before = self.last.replace(now);
        before.is_some_and(|before| now.duration_since(before) < FENCED_TWICE)
    }
}

/// The context of a worker's consumer.
pub(crate) struct Member {
    log: ClientLog,
    changes: Mutex<VecDeque<Change>>,
    leaving: AtomicBool,
    fenced: AtomicBool,
}

impl Member {
    pub(crate) fn new(log: ClientLog) -> Self {
        let (leaving, fenced) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { log, changes: Mutex::default(), leaving, fenced }
    }

    pub(crate) fn next_change(&self) -> Option<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(crate) fn has_change(&self) -> bool {
        !self.changes.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// From now on partitions are given back at once: nobody decides any more.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// True if another process has taken this member's name.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::FencedInstanceId) {
            self.fenced.store(true, Ordering::Release);
        }
        self.log.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.log.stats(statistics);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let change = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                Change::Assigned(partitions.elements().iter().map(|element| element.partition()).collect())
            }
            _ => Change::Revoked,
        };
        if self.leaving.load(Ordering::Acquire) {
            let done = match change {
                Change::Assigned(_) => consumer.assign(&TopicPartitionList::new()),
                Change::Revoked => consumer.unassign(),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "partitions could not be given back while leaving");
            }
            return;
        }
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

/// The context of a worker's transactional producer.
pub(crate) struct Teller {
    log: ClientLog,
    events_topic: String,
    told: Mutex<Told>,
}

/// What the deliveries of a transaction told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The end of what was appended to each partition of the own log.
    pub(crate) own_ends: BTreeMap<i32, i64>,
    /// The first delivery that failed.
    pub(crate) failure: Option<Undelivered>,
}

/// A record that was not appended.
#[derive(Debug)]
pub(crate) struct Undelivered {
    pub(crate) topic: String,
    pub(crate) error: KafkaError,
}

impl Teller {
    pub(crate) fn new(log: ClientLog, events_topic: &str) -> Self {
        Self { log, events_topic: events_topic.to_owned(), told: Mutex::default() }
    }

    pub(crate) fn take(&self) -> Told {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Teller {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Teller {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match delivery {
            Ok(message) if message.topic() == self.events_topic => {
                let end = told.own_ends.entry(message.partition()).or_default();
                *end = (*end).max(message.offset() + 1);
            }
            Ok(_) => {}
            Err((error, message)) => {
                if told.failure.is_none() {
                    told.failure = Some(Undelivered { topic: message.topic().to_owned(), error: error.clone() });
                }
            }
        }
    }
}

/// Lets a client go on a thread of its own: closing one waits for brokers, and may wait for ever. Answers whether it was gone
/// within `patience`; if not, it is left behind.
pub(crate) fn let_go<T: Send + 'static>(client: T, patience: Duration) -> bool {
    let (gone, wait) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("closing".to_owned()).spawn(move || {
        drop(client);
        // Nobody waits any more if the patience has run out.
        let _late = gone.send(());
    });
    spawned.is_ok() && wait.recv_timeout(patience).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_fenced_once_in_a_while_goes_on() {
        let (mut fences, start) = (Fences::default(), Instant::now());
        assert!(!fences.tell_another_process(start));
        assert!(!fences.tell_another_process(start + FENCED_TWICE));
        assert!(fences.tell_another_process(start + FENCED_TWICE + Duration::from_secs(119)));
    }
}
