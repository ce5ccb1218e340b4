//! A transactional producer whose calls end.
//!
//! A call about a transaction should come back within the time that it was given. In librdkafka 2.12 one does not always: a producer
//! that was told that there are no brokers (see `kafka::liveness`) waits for ever to hand in positions. A worker that waits along has
//! neither an error nor an end. So such calls are made on a thread of their own, and one that stays away is left behind, with its
//! thread and its producer. Its transaction is the broker's to abort, and its id is taken over by the next producer.

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
    producer::{BaseProducer, NoCustomPartitioner, Producer},
};

use super::{
    commit::{CommitError, deliver},
    member::{Teller, Told, let_go},
};

pub(crate) type TransactionalProducer = BaseProducer<Teller, NoCustomPartitioner>;

type Call = Box<dyn FnOnce() + Send>;

/// How much longer than it was given a call may take.
const GRACE: Duration = Duration::from_secs(2);

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
    pub(crate) fn new(setup: &ClientConfig, teller: Teller) -> Result<Self, CommitError> {
        let producer = setup.create_with_context(teller).map_err(CommitError::kafka("set up a producer"))?;
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
        check: impl FnOnce(&Told) -> Result<(), CommitError> + Send + 'static,
    ) -> Result<Told, CommitError> {
        // After twice that time the broker has aborted the transaction.
        self.call(patience * 2, move |producer| {
            // While the coordinator takes the positions, the records are on their way.
            producer
                .send_offsets_to_transaction(&positions, &group, patience)
                .map_err(CommitError::kafka("add input positions to the transaction"))?;
            deliver(producer, deadline, patience)?;
            let mut told = producer.context().take();
            if let Some(failure) = told.failure.take() {
                return Err(CommitError::Delivery(failure));
            }
            check(&told)?;
            producer.commit_transaction(patience).map_err(CommitError::kafka("commit a transaction"))?;
            Ok(told)
        })
    }

    /// Lets the producer go. Answers whether it was gone within `patience`.
    pub(crate) fn let_go(self, patience: Duration) -> bool {
        drop(self.calls);
        let_go(self.producer, patience)
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
        answered.unwrap_or(Err(CommitError::StaysAway(at_most)))
    }
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
        let teller = Teller::new(ClientLog::new("test"), "events");
        let transactor = Transactor::new(&transactional_producer(&config, &names), teller).expect("a producer");
        let patience = Duration::from_millis(5);
        assert_eq!(transactor.call(patience, |_| Ok(7)).expect("an answer"), 7);
        let (let_on, held) = mpsc::sync_channel::<()>(0);
        let away = transactor.call(patience, move |_| Ok(held.recv().is_ok()));
        assert!(matches!(away, Err(CommitError::StaysAway(_))), "{away:?}");
        let next = [(); 2].map(|()| transactor.call(patience, |_| Ok(7)));
        assert!(next.iter().all(Result::is_err), "nothing gets past a call that stays away");
        drop(let_on);
    }
}
