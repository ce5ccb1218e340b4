//! A transactional producer whose calls return.
//!
//! A transaction call should return within the time it was given. In librdkafka 2.12 one does not always: a producer that was told
//! that there are no brokers (see `kafka::liveness`) may wait for ever in `send_offsets_to_transaction`. A worker that waited along
//! would have neither an error nor an end. So such calls are made on a thread of their own, and one that does not return is
//! abandoned with its thread and its producer. The broker aborts its transaction, and the next producer takes its id over.

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

/// How much longer than it was given a call may take.
const GRACE: Duration = Duration::from_secs(2);

/// The shortest pause between two looks for deliveries. librdkafka's own flush would poll in slices of 100 ms.
const SLICE: Duration = Duration::from_micros(100);

/// A transaction that did not commit for certain.
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
        let Self::Kafka { .. } = self else { return false };
        matches!(
            self.code(),
            Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
        )
    }

    /// True if a topic takes smaller records than it did when it was last asked.
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

/// A producer of transactions and the thread on which it is waited for.
pub(crate) struct Transactor {
    producer: Arc<TransactionalProducer>,
    calls: SyncSender<Call>,
}

impl Transactor {
    /// A producer with this setup.
    ///
    /// # Errors
    /// It cannot be made, or there is no thread for it.
    pub(crate) fn new(setup: &ClientConfig, tracker: DeliveryTracker) -> Result<Self, CommitError> {
        let producer = setup.create_with_context(tracker).map_err(CommitError::kafka("set up a producer"))?;
        let (calls, waiting) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("transactions".to_owned());
        thread.spawn(move || make(&waiting)).map_err(CommitError::Thread)?;
        Ok(Self { producer: Arc::new(producer), calls })
    }

    /// The producer, to hand records over and to ask what comes back at once.
    pub(crate) fn producer(&self) -> &TransactionalProducer {
        &self.producer
    }

    /// Fences whoever had this transactional id before.
    ///
    /// # Errors
    /// It cannot be done now.
    pub(crate) fn init(&self, patience: Duration) -> Result<(), CommitError> {
        self.call(patience + GRACE, move |producer| {
            producer.init_transactions(patience).map_err(CommitError::kafka("begin to write transactions"))
        })
    }

    /// Commits what was handed over since the transaction was begun, together with these positions. `deadline` is for the records;
    /// `check` may still say no to where they have come to lie.
    ///
    /// # Errors
    /// The transaction is not committed for certain.
    pub(crate) fn commit(
        &self,
        positions: TopicPartitionList,
        group: Arc<ConsumerGroupMetadata>,
        deadline: Instant,
        patience: Duration,
        check: impl FnOnce(&Deliveries) -> Result<(), CommitError> + Send + 'static,
    ) -> Result<Deliveries, CommitError> {
        // After twice that time the broker has aborted the transaction.
        self.call(patience * 2, move |producer| {
            // While the coordinator takes the positions, the records are on their way.
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

    /// Lets the producer go. Answers whether it was gone within `patience`.
    pub(crate) fn close_within(self, patience: Duration) -> bool {
        drop(self.calls);
        close_within(self.producer, patience)
    }

    /// Makes a call, and waits for its end no longer than this.
    fn call<T: Send + 'static>(
        &self,
        at_most: Duration,
        call: impl FnOnce(&TransactionalProducer) -> Result<T, CommitError> + Send + 'static,
    ) -> Result<T, CommitError> {
        let (producer, (answer, answered)) = (Arc::clone(&self.producer), mpsc::sync_channel(1));
        let call = Box::new(move || {
            let result = call(&producer);
            // Before the answer: whoever has it may let the producer go, and must be the last one then.
            drop(producer);
            // Nobody waits any more if the patience has run out.
            let _late = answer.send(result);
        });
        let is_asked = self.calls.try_send(call).is_ok();
        let answered = is_asked.then(|| answered.recv_timeout(at_most)).and_then(Result::ok);
        answered.unwrap_or(Err(CommitError::TimedOut(at_most)))
    }
}

/// Waits until every record is acknowledged. One poll takes one report of deliveries, so it looks again at once while there are
/// reports, and pauses only when there are none; the longer it has waited, the longer.
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

fn make(calls: &Receiver<Call>) {
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
        assert!(next.iter().all(Result::is_err), "nothing gets past a call that stays away");
        drop(release);
    }
}
