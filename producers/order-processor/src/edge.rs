//! The edge of the order-processor: places and cancels orders without HTTP. A request becomes a command with everything that was
//! looked up, and the event that the command caused is its answer.
//!
//! The edge decides nothing. It recognises a repeated request by its idempotency key and digest.

use std::time::Duration;

use runtime::{
    Config,
    codec::Readers,
    edge::{self, BackgroundEdge, EdgeError, Submission, Submitted, entity_of_key},
    envelope::{Position, derived_id},
    health::CheckResult,
    message::{Channel, topic},
    projection::{LiveView, Topics, ViewError, ViewHealth},
    request::FieldError,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    OrderProcessor,
    events::{Event, Money, RejectReason},
    inbox::CancelOrder,
    lookups::Lookups,
    order_status::{CancellationStatus, OrderProgress, OrderStatus, OrderStatuses},
    request::{OrderRequest, key_fault},
};

/// How often [`OrderEdge::wait_until_ready`] checks the edge.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a request waits until the order statuses include its answer.
const FOLLOW: Duration = Duration::from_secs(2);

/// The outcome of a request to place an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementOutcome {
    /// The order was placed at this price.
    Accepted {
        /// The total price.
        total: Money,
    },
    /// The order was rejected.
    Rejected {
        /// The rule that the request violates.
        reason: RejectReason,
        /// The violating value.
        detail: String,
    },
    /// The command is in the inbox. Its answer did not arrive in time and will follow.
    Pending,
}

/// The result of a request to place an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The order.
    pub order_id: String,
    /// The outcome.
    pub outcome: PlacementOutcome,
    /// False if an earlier request had this outcome already.
    pub is_new: bool,
}

/// The outcome of a customer's request to cancel an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancellationOutcome {
    /// The warehouse decides; its answer changes the status of the order.
    Requested,
    /// The order is cancelled already.
    Cancelled,
    /// It is too late, with the reason.
    Refused(String),
    /// The command is in the inbox. Its answer did not arrive in time and will follow.
    Pending,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request is invalid.
    #[error("{}", .0.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// The idempotency key is invalid.
    #[error("the idempotency key {0}")]
    InvalidKey(String),
    /// The idempotency key belongs to another request.
    #[error("the idempotency key belongs to another request; hint: send a new request under a new key")]
    KeyReused,
    /// The command was refused.
    #[error("the order was refused: {0}")]
    Refused(String),
    /// There is no order of that id.
    #[error("there is no order of that id")]
    UnknownOrder,
    /// The edge is not connected yet, or not caught up.
    #[error("the edge cannot take orders yet: {0}")]
    NotReady(String),
    /// The command could not be submitted.
    #[error("the order was not submitted")]
    NotSubmitted(#[source] EdgeError),
}

impl RequestError {
    /// True if the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotReady(_) | Self::NotSubmitted(_))
    }
}

/// The part of an answering event that the edge needs again.
#[derive(Debug, Clone)]
enum OrderReply {
    Placed { request_digest: String, outcome: PlacementOutcome },
    CancelRequested,
    CancelRefused { reason: String },
    Refused { reason: String },
}

/// What the edge reads to resolve requests and to answer queries.
struct OrderViews {
    lookups: LiveView<Lookups>,
    statuses: LiveView<OrderStatuses>,
}

/// The edge of the order-processor. Clones share it.
#[derive(Clone)]
pub struct OrderEdge {
    system: String,
    background: BackgroundEdge<OrderProcessor, OrderReply, OrderViews>,
}

impl OrderEdge {
    /// Starts to connect the edge in the background. Waits for a registry or broker that is unreachable. Requires a tokio runtime.
    #[must_use]
    pub fn start(config: &Config) -> Self {
        let background = BackgroundEdge::start_with(config, reply_of, OrderViews::start, OrderViews::health);
        Self { system: config.system.clone(), background }
    }

    /// A readiness check: whether it accepts orders.
    #[must_use]
    pub fn ready(&self) -> CheckResult {
        self.background.ready()
    }

    /// Waits until it accepts orders.
    ///
    /// # Errors
    /// [`RequestError::NotReady`] after `patience`.
    pub async fn wait_until_ready(&self, patience: Duration) -> Result<(), RequestError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.opened() {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// True if the look-ups have an album.
    #[must_use]
    pub fn knows_album(&self, sku: &str) -> bool {
        self.background.views().is_some_and(|views| views.lookups.read(|lookups| lookups.knows_album(sku)))
    }

    /// True if the look-ups have a customer.
    #[must_use]
    pub fn knows_customer(&self, customer_id: &str) -> bool {
        self.background.views().is_some_and(|views| views.lookups.read(|lookups| lookups.knows_customer(customer_id)))
    }

    /// The status of an order; `None` if its request has no answer yet. An order whose answer was returned is always found.
    ///
    /// # Errors
    /// [`RequestError::NotReady`].
    pub async fn status(&self, order_id: &str) -> Result<Option<OrderStatus>, RequestError> {
        let (edge, views) = self.opened()?;
        let look_up = || views.statuses.read(|statuses| statuses.get(order_id).cloned());
        if let Some(status) = look_up() {
            return Ok(Some(status));
        }
        let Some(answered) = edge.first_answer(order_id) else { return Ok(None) };
        views.follow(&answered.position).await?;
        Ok(look_up())
    }

    /// Places an order under an idempotency key. The same key and body again return the same outcome.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn place(&self, key: &str, body: &Value) -> Result<Placement, RequestError> {
        let request = OrderRequest::read(body).map_err(RequestError::Invalid)?;
        self.place_request(Some(key), &request).await
    }

    /// Places an order that was parsed already. A request without a key is always a new order.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn place_request(&self, key: Option<&str>, request: &OrderRequest) -> Result<Placement, RequestError> {
        if let Some(fault) = key.and_then(key_fault) {
            return Err(RequestError::InvalidKey(fault));
        }
        let (edge, views) = self.opened()?;
        let order_id = key.map_or_else(Uuid::now_v7, |key| entity_of_key(&self.system, "order-processor", key));
        let digest = request.digest();
        if let Some(known) = earlier_placement(edge, order_id, &digest)? {
            return Ok(known);
        }
        let command = views.lookups.read(|lookups| lookups.resolve(order_id, request));
        // Derived from key and request alone: the look-ups may differ when the same request is repeated.
        let command_id = derived_id(&["place", &order_id.to_string(), &digest]);
        let submission = Submission::new(order_id.to_string(), command).with_id(command_id);
        let placement = |outcome| Placement { order_id: order_id.to_string(), outcome, is_new: true };
        match edge.submit(submission).await.map_err(RequestError::NotSubmitted)? {
            Submitted::Answered(answered) => match answered.summary {
                OrderReply::Placed { outcome, .. } => Ok(placement(outcome)),
                // A concurrent request may have been decided first.
                OrderReply::Refused { reason } => match earlier_placement(edge, order_id, &digest)? {
                    Some(known) => Ok(known),
                    None => Err(RequestError::Refused(reason)),
                },
                // These do not answer a request to place an order.
                OrderReply::CancelRequested | OrderReply::CancelRefused { .. } => {
                    Ok(placement(PlacementOutcome::Pending))
                }
            },
            Submitted::Pending { .. } => Ok(placement(PlacementOutcome::Pending)),
        }
    }

    /// Requests the cancellation of an order. The same key again returns the same outcome. Without a key, and after a refusal, it is
    /// a new request.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn cancel(
        &self,
        order_id: &str,
        key: Option<&str>,
        reason: &str,
    ) -> Result<CancellationOutcome, RequestError> {
        if let Some(fault) = key.and_then(key_fault) {
            return Err(RequestError::InvalidKey(fault));
        }
        let (edge, views) = self.opened()?;
        let status = self.status(order_id).await?;
        if let Some(outcome) = status.as_ref().and_then(known_cancellation) {
            return Ok(outcome);
        }
        let command = CancelOrder { order_id: order_id.to_owned(), reason: reason.to_owned() };
        let command_id = key.map_or_else(Uuid::now_v7, |key| derived_id(&["cancel", order_id, key]));
        let submission = Submission::new(order_id, command).with_id(command_id);
        match edge.submit(submission).await.map_err(RequestError::NotSubmitted)? {
            Submitted::Answered(answered) => {
                // A later query of the status, or a repeated request, finds this answer.
                views.follow(&answered.position).await?;
                match answered.summary {
                    OrderReply::CancelRequested => Ok(CancellationOutcome::Requested),
                    OrderReply::CancelRefused { reason } => Ok(CancellationOutcome::Refused(reason)),
                    OrderReply::Refused { .. } if status.is_none() => Err(RequestError::UnknownOrder),
                    OrderReply::Refused { reason } => Ok(CancellationOutcome::Refused(reason)),
                    // This does not answer a request to cancel an order.
                    OrderReply::Placed { .. } => Ok(CancellationOutcome::Pending),
                }
            }
            Submitted::Pending { .. } => Ok(CancellationOutcome::Pending),
        }
    }

    fn opened(&self) -> Result<(&edge::Edge<OrderProcessor, OrderReply>, &OrderViews), RequestError> {
        self.background.running().map_err(RequestError::NotReady)
    }
}

impl OrderViews {
    fn start(config: &Config, readers: Readers) -> Result<Self, ViewError> {
        let events = |service| topic(&config.system, service, Channel::Events);
        let looked_up = Topics::decoded(["customers", "catalogue"].map(events));
        let own = Topics::decoded([events("order-processor")]);
        Ok(Self {
            lookups: LiveView::start(config, "lookups", readers.clone(), looked_up, Lookups::new(&config.system))?,
            statuses: LiveView::start(config, "statuses", readers, own, OrderStatuses::new(&config.system))?,
        })
    }

    fn health(&self) -> Vec<(&'static str, ViewHealth)> {
        vec![("customers and albums", self.lookups.health()), ("the statuses of orders", self.statuses.health())]
    }

    /// Waits until the statuses include an event.
    async fn follow(&self, position: &Position) -> Result<(), RequestError> {
        let waited = self.statuses.wait_for(position, FOLLOW).await;
        waited.map_err(|error| RequestError::NotReady(runtime::telemetry::chain(&error)))
    }
}

/// The outcome of an earlier request under the same order id, if there was one.
fn earlier_placement(
    edge: &edge::Edge<OrderProcessor, OrderReply>,
    order_id: Uuid,
    digest: &str,
) -> Result<Option<Placement>, RequestError> {
    let order_id = order_id.to_string();
    match edge.first_answer(&order_id).map(|answered| answered.summary) {
        Some(OrderReply::Placed { request_digest, outcome }) if request_digest == digest => {
            Ok(Some(Placement { order_id, outcome, is_new: false }))
        }
        Some(OrderReply::Placed { .. }) => Err(RequestError::KeyReused),
        Some(OrderReply::Refused { .. } | OrderReply::CancelRequested | OrderReply::CancelRefused { .. }) | None => {
            Ok(None)
        }
    }
}

/// The outcome that needs no command: the cancellation is requested already, or the order is cancelled.
fn known_cancellation(status: &OrderStatus) -> Option<CancellationOutcome> {
    match (&status.progress, &status.cancellation) {
        (OrderProgress::Cancelled { .. }, _) => Some(CancellationOutcome::Cancelled),
        (_, Some(CancellationStatus::Requested)) => Some(CancellationOutcome::Requested),
        _ => None,
    }
}

fn reply_of(event: &Event) -> Option<OrderReply> {
    match event {
        Event::OrderPlaced(placed) => Some(OrderReply::Placed {
            request_digest: placed.request_digest.clone(),
            outcome: PlacementOutcome::Accepted { total: placed.total.clone() },
        }),
        Event::OrderRejected(rejected) => Some(OrderReply::Placed {
            request_digest: rejected.request_digest.clone(),
            outcome: PlacementOutcome::Rejected { reason: rejected.reason, detail: rejected.detail.clone() },
        }),
        Event::OrderCancellationRequested(_) => Some(OrderReply::CancelRequested),
        Event::OrderCancellationRefused(refused) => Some(OrderReply::CancelRefused { reason: refused.reason.clone() }),
        Event::CommandRefused(refused) => Some(OrderReply::Refused { reason: refused.reason.clone() }),
        _ => None,
    }
}
