//! The clients of one incarnation: a member of the group and a transactional producer. A table has the same two.
//!
//! An indefinite error of either discards both. Dropping them closes them within a bounded time, also after a panic. A consumer
//! that is only dropped would wait for ever for its partitions to be unassigned.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{Producer, ProducerContext},
};

use super::{
    deliveries::DeliveryTracker,
    rebalance::RebalanceListener,
    transactor::{CommitError, Transactor},
};
use crate::{
    config::Timeouts,
    kafka::{ClientLog, close_within},
};

/// The settings of the two clients.
pub(crate) struct ClientsSetup<'a> {
    /// The name in logs.
    pub(crate) client_id: &'a str,
    /// The group, if its statistics are kept.
    pub(crate) lag_of: Option<&'a str>,
    /// The producer's settings.
    pub(crate) producer: &'a ClientConfig,
    /// The consumer's settings.
    pub(crate) consumer: &'a ClientConfig,
    /// The topic whose assignment determines the owner.
    pub(crate) subscribe_to: &'a str,
    /// The topic whose ends are tracked: the own log, or the table.
    pub(crate) own_log: &'a str,
    pub(crate) timeouts: Timeouts,
}

/// Why clients could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientsError {
    #[error("no broker answers, so the clients are replaced: metadata of {topic}: {source}")]
    Unreachable { topic: String, source: Box<KafkaError> },
    #[error("{}", crate::telemetry::chain(.0))]
    Producer(CommitError),
    #[error("cannot {step}: {source}")]
    Consumer { step: &'static str, source: Box<KafkaError> },
}

/// The clients of one incarnation.
pub(crate) struct Clients {
    consumer: Option<Arc<BaseConsumer<RebalanceListener>>>,
    transactor: Option<Transactor>,
    patience: Duration,
}

impl Clients {
    /// Fences the previous producer, and joins the group.
    pub(crate) fn begin(setup: &ClientsSetup<'_>) -> Result<Self, ClientsError> {
        let log = |purpose: &str| ClientLog::new(format!("{}.{purpose}", setup.client_id));
        let patience = setup.timeouts.shutdown / 2;
        let tracker = DeliveryTracker::new(log("producer"), setup.own_log);
        let transactor = Transactor::new(setup.producer, tracker).map_err(ClientsError::Producer)?;
        let mut clients = Self { consumer: None, transactor: Some(transactor), patience };
        let transactor = clients.transactor();
        connect(transactor.producer(), setup.own_log, setup.timeouts.request).map_err(|source| {
            ClientsError::Unreachable { topic: setup.own_log.to_owned(), source: Box::new(source) }
        })?;
        transactor.init(setup.timeouts.transaction + setup.timeouts.request).map_err(ClientsError::Producer)?;
        let consumer = |step| move |source| ClientsError::Consumer { step, source: Box::new(source) };
        let name = format!("{}.inputs", setup.client_id);
        let log = setup.lag_of.map_or_else(|| ClientLog::new(&*name), |group| ClientLog::of_member(&*name, group));
        let member: BaseConsumer<RebalanceListener> = setup
            .consumer
            .create_with_context(RebalanceListener::new(log))
            .map_err(consumer("set up a consumer of the group"))?;
        let subscribed = member.subscribe(&[setup.subscribe_to]);
        clients.consumer = Some(Arc::new(member));
        subscribed.map_err(consumer("join the group"))?;
        Ok(clients)
    }

    /// The member of the group.
    pub(crate) fn consumer(&self) -> &Arc<BaseConsumer<RebalanceListener>> {
        self.consumer.as_ref().expect("set from the end of `begin` until the drop")
    }

    /// The producer of transactions.
    pub(crate) fn transactor(&self) -> &Transactor {
        self.transactor.as_ref().expect("set from the beginning of `begin` until the drop")
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let consumer = self.consumer.take().is_none_or(|consumer| {
            consumer.context().unassign_from_now_on();
            close_within(Closing(consumer), self.patience)
        });
        let producer = self.transactor.take().is_none_or(|transactor| transactor.close_within(self.patience));
        if !consumer || !producer {
            tracing::warn!("a client did not close in time and is abandoned");
        }
    }
}

/// A consumer that closes. librdkafka waits for ever for an unassign if its revocation callback has returned and no step has executed
/// the revocation. So the drop unassigns first.
struct Closing(Arc<BaseConsumer<RebalanceListener>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Err(error) = self.0.unassign() {
            tracing::debug!(%error, "partitions cannot be unassigned while the consumer closes");
        }
    }
}

/// Waits for a connection to a broker. Without one a producer looks for a broker only twice a second before it begins its
/// transactions. Metadata is fetched twice, because the first response has the addresses of the brokers and ends the connection
/// to the configured address.
fn connect<C: ProducerContext>(producer: &impl Producer<C>, topic: &str, patience: Duration) -> Result<(), KafkaError> {
    for _ in 0..2 {
        producer.client().fetch_metadata(Some(topic), patience)?;
    }
    Ok(())
}
