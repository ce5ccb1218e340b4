//! A transactional producer whose calls return.
//!
//! A transaction call should return within its timeout. In librdkafka 2.12 one does not always: a producer whose metadata has no
//! brokers (see `kafka::liveness`) may wait for ever in `send_offsets_to_transaction`, and a worker would wait with it. So a
//! thread of its own makes these calls. If a call does not return, the worker abandons it with its thread and its producer. The
//! broker aborts the transaction, and the next producer takes over the transactional id.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::KafkaError,
    producer::{BaseProducer, NoCustomPartitioner, Producer},
    types::RDKafkaErrorCode,
};

use super::deliveries::{Deliveries, DeliveryTracker, Undelivered};
use crate::{core::log_bounds::LogLoss, kafka::close_within};

pub(crate) type TransactionalProducer = BaseProducer<DeliveryTracker, NoCustomPartitioner>;

type Call = Box<dyn FnOnce() + Send>;

/// How much longer than its timeout a call may take.
const GRACE: Duration = Duration::from_secs(2);

/// The shortest pause between two polls for deliveries. librdkafka's own flush would poll every 100 ms.
const SLICE: Duration = Duration::from_micros(100);

/// Why it is not certain that a transaction has committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("cannot {step}")]
    Kafka { step: &'static str, source: Box<KafkaError> },
    #[error("a record for {} was not appended: {}", .0.topic, .0.error)]
    Delivery(Undelivered),
    #[error(transparent)]
    LogLoss(LogLoss),
    #[error("the records of a transaction were not acknowledged within {0:?}")]
    NotAcknowledged(Duration),
    #[error("a transaction call did not return within {0:?}; its producer is abandoned")]
    TimedOut(Duration),
    #[error("cannot start a thread for transaction calls")]
    Thread(#[source] std::io::Error),
}

impl CommitError {
    pub(crate) fn kafka(step: &'static str) -> impl Fn(KafkaError) -> Self {
        move |source| Self::Kafka { step, source: Box::new(source) }
    }

    /// True if another producer has this one's transactional id.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self, Self::Kafka { .. }) && self.code().is_some_and(is_fenced)
    }

    /// True if a topic takes smaller records than when its limit was last read.
    pub(crate) fn is_too_large(&self) -> bool {
        self.code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
    }

    fn code(&self) -> Option<RDKafkaErrorCode> {
        match self {
            Self::Kafka { source, .. } => match source.as_ref() {
                KafkaError::Transaction(error) => Some(error.code()),
                other => other.rdkafka_error_code(),
            },
            Self::Delivery(undelivered) => undelivered.error.rdkafka_error_code(),
            Self::LogLoss(_) | Self::NotAcknowledged(_) | Self::TimedOut(_) | Self::Thread(_) => None,
        }
    }
}

/// True for the codes with which a broker refuses a producer that another one has replaced.
pub(crate) fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

/// A transactional producer, and the thread that makes its calls.
pub(crate) struct Transactor {
    producer: Arc<TransactionalProducer>,
    calls: SyncSender<Call>,
}

impl Transactor {
    /// A producer with this setup.
    ///
    /// # Errors
    /// The producer cannot be created, or its thread cannot be started.
    pub(crate) fn new(setup: &ClientConfig, tracker: DeliveryTracker) -> Result<Self, CommitError> {
        let producer = setup.create_with_context(tracker).map_err(CommitError::kafka("set up a producer"))?;
        let (calls, waiting) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("transactions".to_owned());
        thread.spawn(move || make_calls(&waiting)).map_err(CommitError::Thread)?;
        Ok(Self { producer: Arc::new(producer), calls })
    }

    /// The producer, for calls that return at once.
    pub(crate) fn producer(&self) -> &TransactionalProducer {
        &self.producer
    }

    /// Fences the previous producer with this transactional id.
    ///
    /// # Errors
    /// The transaction coordinator is unavailable, or has rejected the request.
    pub(crate) fn init(&self, patience: Duration) -> Result<(), CommitError> {
        self.call(patience + GRACE, move |producer| {
            producer.init_transactions(patience).map_err(CommitError::kafka("begin to write transactions"))
        })
    }

    /// Commits the records that were sent since the transaction began, together with these positions. The records must be
    /// acknowledged before `deadline`, and `check` may reject their offsets.
    ///
    /// # Errors
    /// It is not certain that the transaction has committed.
    pub(crate) fn commit(
        &self,
        positions: TopicPartitionList,
        group: Arc<ConsumerGroupMetadata>,
        deadline: Instant,
        patience: Duration,
        check: impl FnOnce(&Deliveries) -> Result<(), CommitError> + Send + 'static,
    ) -> Result<Deliveries, CommitError> {
        // After twice the transaction timeout the broker has aborted the transaction.
        self.call(patience * 2, move |producer| {
            // The producer sends the records while the coordinator takes the positions.
            producer
                .send_offsets_to_transaction(&positions, &group, patience)
                .map_err(CommitError::kafka("add input positions to the transaction"))?;
            deliver(producer, deadline, patience)?;
            let mut deliveries = producer.context().take();
            if let Some(failure) = deliveries.failure.take() {
                return Err(CommitError::Delivery(failure));
            }
            check(&deliveries)?;
            producer.commit_transaction(patience).map_err(CommitError::kafka("commit a transaction"))?;
            Ok(deliveries)
        })
    }

    /// Closes the producer. Returns whether it was closed within `patience`.
    pub(crate) fn close_within(self, patience: Duration) -> bool {
        drop(self.calls);
        close_within(self.producer, patience)
    }

    /// Makes a call, and waits for its result up to `at_most`.
    fn call<T: Send + 'static>(
        &self,
        at_most: Duration,
        call: impl FnOnce(&TransactionalProducer) -> Result<T, CommitError> + Send + 'static,
    ) -> Result<T, CommitError> {
        let (producer, (answer, answered)) = (Arc::clone(&self.producer), mpsc::sync_channel(1));
        let call = Box::new(move || {
            let result = call(&producer);
            // This comes before the result: its receiver may close the producer, and must then have the last reference.
            drop(producer);
            // After the timeout nothing receives the result.
            let _late = answer.send(result);
        });
        let is_queued = self.calls.try_send(call).is_ok();
        let answered = is_queued.then(|| answered.recv_timeout(at_most)).and_then(Result::ok);
        answered.unwrap_or(Err(CommitError::TimedOut(at_most)))
    }
}

/// Waits until every record is acknowledged. One poll delivers one report, so it polls again at once while there are reports.
/// Without one it pauses, longer the longer it has waited.
fn deliver(producer: &TransactionalProducer, deadline: Instant, patience: Duration) -> Result<(), CommitError> {
    let since = Instant::now();
    let mut left = producer.in_flight_count();
    while left > 0 {
        producer.poll(Duration::ZERO);
        let now_left = producer.in_flight_count();
        if now_left == left {
            if Instant::now() >= deadline {
                return Err(CommitError::NotAcknowledged(patience));
            }
            std::thread::park_timeout(SLICE.max(since.elapsed() / 8));
        }
        left = now_left;
    }
    Ok(())
}

fn make_calls(calls: &Receiver<Call>) {
    while let Ok(call) = calls.recv() {
        call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        kafka::{
            ClientLog,
            client::{WorkerNames, transactional_producer},
        },
    };

    #[test]
    fn a_call_that_stays_away_is_an_error_and_so_is_the_next_one() {
        let config = Config::for_tests();
        let names = WorkerNames::of(&config, "payment", 0, uuid::Uuid::nil());
        let tracker = DeliveryTracker::new(ClientLog::new("test"), "events");
        let transactor = Transactor::new(&transactional_producer(&config, &names), tracker).expect("a producer");
        let patience = Duration::from_millis(5);
        assert_eq!(transactor.call(patience, |_| Ok(7)).expect("an answer"), 7);
        let (release, blocked) = mpsc::sync_channel::<()>(0);
        let away = transactor.call(patience, move |_| Ok(blocked.recv().is_ok()));
        assert!(matches!(away, Err(CommitError::TimedOut(_))), "{away:?}");
        let next = [(); 2].map(|()| transactor.call(patience, |_| Ok(7)));
        assert!(next.iter().all(Result::is_err), "no call passes one that does not return");
        drop(release);
    }
}
