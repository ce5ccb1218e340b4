//! How an order gets in, and is called off, without HTTP: a request is looked up, made into a command, and answered by the event
//! that came of it.
//!
//! Decides nothing. The look-ups travel in the command; a request that was answered before is recognised by its key and digest.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use runtime::{
    Config,
    codec::Readers,
    edge::{self, ConnectError, EdgeError, Submission, Submitted, connect, entity_of_key},
    envelope::{Position, derived_id},
    message::{Channel, topic},
    projection::{LiveView, Topics, ViewError},
    publisher::Publisher,
    request::FieldError,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    OrderProcessor,
    events::{Event, Money, RejectReason},
    inbox::CancelOrder,
    lookups::Lookups,
    request::{OrderRequest, key_fault},
    standing::{self, Stage, Standing, Standings},
};

/// How often somebody who waits for the edge to open looks again.
const LOOK: Duration = Duration::from_millis(20);

/// How long a question waits until it sees what was answered already.
const FOLLOW: Duration = Duration::from_secs(2);

/// What an order was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was placed, at this price.
    Accepted {
        /// What it costs.
        total: Money,
    },
    /// It was rejected.
    Rejected {
        /// The rule that it broke.
        reason: RejectReason,
        /// What broke it.
        detail: String,
    },
    /// It stands in the inbox; the answer was not seen in time, and will come.
    Pending,
}

/// An order that got in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The order.
    pub order_id: String,
    /// What it was answered.
    pub answer: Answer,
    /// False if it had been answered before this request came.
    pub is_new: bool,
}

/// What a customer who wants an order cancelled is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancellation {
    /// The warehouse is asked; its answer changes where the order stands.
    Requested,
    /// The order is cancelled already.
    Cancelled,
    /// It is too late, and why.
    Refused(String),
    /// It stands in the inbox; the answer was not seen in time, and will come.
    Pending,
}

/// A request that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request is not what it should be.
    #[error("{}", .0.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect::<Vec<_>>().join("; "))]
    Faulty(Vec<FieldError>),
    /// The idempotency key is not what it should be.
    #[error("the idempotency key {0}")]
    Key(String),
    /// Another request was answered under this key.
    #[error("another request was answered under this idempotency key; hint: send a new request under a new key")]
    KeyReused,
    /// The command was refused.
    #[error("the order was refused: {0}")]
    Refused(String),
    /// There is no order of that id.
    #[error("there is no order of that id")]
    Unknown,
    /// The edge is not open yet, or not caught up.
    #[error("the edge cannot take orders yet: {0}")]
    NotOpen(String),
    /// The command could not be handed over.
    #[error("the order was not handed over")]
    NotTaken(#[source] EdgeError),
}

impl RequestError {
    /// True if the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotOpen(_) | Self::NotTaken(_))
    }
}

/// What of an answering event the edge needs again.
#[derive(Debug, Clone)]
enum Summary {
    Answered { request_digest: String, answer: Answer },
    CancelRequested,
    CancelRefused { reason: String },
    Refused { reason: String },
}

/// The order-processor's edge. Clones share it.
#[derive(Clone)]
pub struct Edge {
    system: String,
    open: Arc<OnceLock<Open>>,
    trouble: Arc<Mutex<Option<String>>>,
}

/// What an open edge is made of.
struct Open {
    answers: edge::Edge<OrderProcessor, Summary>,
    lookups: LiveView<Lookups>,
    standings: LiveView<Standings>,
}

/// An edge that can never open.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("it cannot connect")]
    Connect(#[from] ConnectError),
    #[error("it cannot read its topics")]
    View(#[from] ViewError),
}

impl Edge {
    /// Starts to open an edge, in the background: a registry or broker that is away is waited for. Needs a tokio runtime.
    #[must_use]
    pub fn start(config: &Config) -> Self {
        let config = config.for_service("order-processor");
        let edge = Self { system: config.system.clone(), open: Arc::default(), trouble: Arc::default() };
        let opening = edge.clone();
        tokio::spawn(async move {
            let opened = match connect::<OrderProcessor>(&config).await {
                Ok((publisher, readers)) => Open::start(&config, publisher, readers),
                Err(error) => Err(error.into()),
            };
            match opened {
                Ok(open) => drop(opening.open.set(open)),
                Err(error) => {
                    let reason = runtime::telemetry::chain(&error);
                    tracing::error!(service = "order-processor", %reason, "the edge cannot open");
                    *opening.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                }
            }
        });
        edge
    }

    /// Why it takes no orders now, if so.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), String> {
        self.opened().map(|_| ()).map_err(|error| error.to_string())
    }

    /// Waits until it takes orders.
    ///
    /// # Errors
    /// [`RequestError::NotOpen`]: it took longer than `patience`.
    pub async fn wait_until_ready(&self, patience: Duration) -> Result<(), RequestError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.opened() {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// True if the look-ups know an album.
    #[must_use]
    pub fn knows_album(&self, sku: &str) -> bool {
        self.open.get().is_some_and(|open| open.lookups.read(|lookups| lookups.knows_album(sku)))
    }

    /// True if the look-ups know a customer.
    #[must_use]
    pub fn knows_customer(&self, customer_id: &str) -> bool {
        self.open.get().is_some_and(|open| open.lookups.read(|lookups| lookups.knows_customer(customer_id)))
    }

    /// Where an order stands; `None` if nobody answered it yet. An order whose answer was given is always found.
    ///
    /// # Errors
    /// [`RequestError::NotOpen`].
    pub async fn standing(&self, order_id: &str) -> Result<Option<Standing>, RequestError> {
        let open = self.opened()?;
        let look = || open.standings.read(|standings| standings.get(order_id).cloned());
        if let Some(standing) = look() {
            return Ok(Some(standing));
        }
        let Some(answered) = open.answers.first_answer(order_id) else { return Ok(None) };
        open.follow(&answered.position).await?;
        Ok(look())
    }

    /// Places an order under an idempotency key. The same key and body again get what was answered before.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn place(&self, key: &str, body: &Value) -> Result<Placed, RequestError> {
        let request = OrderRequest::read(body).map_err(RequestError::Faulty)?;
        self.place_request(Some(key), &request).await
    }

    /// Places an order that was read already; without a key it is an order of its own.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn place_request(&self, key: Option<&str>, request: &OrderRequest) -> Result<Placed, RequestError> {
        if let Some(fault) = key.and_then(key_fault) {
            return Err(RequestError::Key(fault));
        }
        let open = self.opened()?;
        let order_id = key.map_or_else(Uuid::now_v7, |key| entity_of_key(&self.system, "order-processor", key));
        let digest = request.digest();
        if let Some(known) = open.known(order_id, &digest)? {
            return Ok(known);
        }
        let command = open.lookups.read(|lookups| lookups.resolve(order_id, request));
        // Made of key and request alone: what was looked up may differ when the same request comes again.
        let command_id = derived_id(&["place", &order_id.to_string(), &digest]);
        let submission = Submission::new(order_id.to_string(), command).with_id(command_id);
        let placed = |answer| Placed { order_id: order_id.to_string(), answer, is_new: true };
        match open.answers.submit(submission).await.map_err(RequestError::NotTaken)? {
            Submitted::Answered(answered) => match answered.summary {
                Summary::Answered { answer, .. } => Ok(placed(answer)),
                // Another request may have been first by a hair.
                Summary::Refused { reason } => match open.known(order_id, &digest)? {
                    Some(known) => Ok(known),
                    None => Err(RequestError::Refused(reason)),
                },
                // These answer no request to place an order.
                Summary::CancelRequested | Summary::CancelRefused { .. } => Ok(placed(Answer::Pending)),
            },
            Submitted::Pending { .. } => Ok(placed(Answer::Pending)),
        }
    }

    /// Asks for an order to be cancelled. The same key again gets what was answered before; without a key, and after a refusal,
    /// it is asked anew.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn cancel(&self, order_id: &str, key: Option<&str>, reason: &str) -> Result<Cancellation, RequestError> {
        if let Some(fault) = key.and_then(key_fault) {
            return Err(RequestError::Key(fault));
        }
        let open = self.opened()?;
        let standing = self.standing(order_id).await?;
        if let Some(answer) = standing.as_ref().and_then(answered_already) {
            return Ok(answer);
        }
        let command = CancelOrder { order_id: order_id.to_owned(), reason: reason.to_owned() };
        let command_id = key.map_or_else(Uuid::now_v7, |key| derived_id(&["cancel", order_id, key]));
        let submission = Submission::new(order_id, command).with_id(command_id);
        match open.answers.submit(submission).await.map_err(RequestError::NotTaken)? {
            Submitted::Answered(answered) => {
                // Who asks next where the order stands, or asks again, finds this answer.
                open.follow(&answered.position).await?;
                match answered.summary {
                    Summary::CancelRequested => Ok(Cancellation::Requested),
                    Summary::CancelRefused { reason } => Ok(Cancellation::Refused(reason)),
                    Summary::Refused { .. } if standing.is_none() => Err(RequestError::Unknown),
                    Summary::Refused { reason } => Ok(Cancellation::Refused(reason)),
                    // This answers no request to cancel an order.
                    Summary::Answered { .. } => Ok(Cancellation::Pending),
                }
            }
            Submitted::Pending { .. } => Ok(Cancellation::Pending),
        }
    }

    fn opened(&self) -> Result<&Open, RequestError> {
        let Some(open) = self.open.get() else {
            let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(RequestError::NotOpen(trouble.unwrap_or_else(|| "it is connecting".to_owned())));
        };
        for (what, health) in [
            ("its answers", open.answers.health()),
            ("customers and albums", open.lookups.health()),
            ("where orders stand", open.standings.health()),
        ] {
            if let Some(reason) = health.failed {
                return Err(RequestError::NotOpen(format!("{what} cannot be read: {reason}")));
            }
            if !health.caught_up {
                return Err(RequestError::NotOpen(format!("{what} are still being read")));
            }
        }
        Ok(open)
    }
}

impl Open {
    fn start(config: &Config, publisher: Publisher, readers: Readers) -> Result<Self, OpenError> {
        let events = |service| topic(&config.system, service, Channel::Events);
        let looked = Topics::decoded(["customers", "catalogue"].map(events));
        let own = Topics::decoded([events("order-processor")]);
        Ok(Self {
            answers: edge::Edge::start(config, publisher, readers.clone(), summarise)?,
            lookups: LiveView::start(config, "lookups", readers.clone(), looked, Lookups::new(&config.system))?,
            standings: LiveView::start(config, "standings", readers, own, Standings::new(&config.system))?,
        })
    }

    /// Waits until an event is seen in where orders stand.
    async fn follow(&self, position: &Position) -> Result<(), RequestError> {
        let waited = self.standings.wait_for(position, FOLLOW).await;
        waited.map_err(|error| RequestError::NotOpen(runtime::telemetry::chain(&error)))
    }

    /// What an order was answered before, if it was.
    fn known(&self, order_id: Uuid, digest: &str) -> Result<Option<Placed>, RequestError> {
        let order_id = order_id.to_string();
        match self.answers.first_answer(&order_id).map(|answered| answered.summary) {
            Some(Summary::Answered { request_digest, answer }) if request_digest == digest => {
                Ok(Some(Placed { order_id, answer, is_new: false }))
            }
            Some(Summary::Answered { .. }) => Err(RequestError::KeyReused),
            Some(Summary::Refused { .. } | Summary::CancelRequested | Summary::CancelRefused { .. }) | None => Ok(None),
        }
    }
}

/// What an order that was asked for before, or ended, answers without a command.
fn answered_already(standing: &Standing) -> Option<Cancellation> {
    match (&standing.stage, &standing.cancellation) {
        (Stage::Cancelled { .. }, _) => Some(Cancellation::Cancelled),
        (_, Some(standing::Cancellation::Requested)) => Some(Cancellation::Requested),
        _ => None,
    }
}

fn summarise(event: &Event) -> Option<Summary> {
    match event {
        Event::OrderPlaced(placed) => Some(Summary::Answered {
            request_digest: placed.request_digest.clone(),
            answer: Answer::Accepted { total: placed.total.clone() },
        }),
        Event::OrderRejected(rejected) => Some(Summary::Answered {
            request_digest: rejected.request_digest.clone(),
            answer: Answer::Rejected { reason: rejected.reason, detail: rejected.detail.clone() },
        }),
        Event::OrderCancellationRequested(_) => Some(Summary::CancelRequested),
        Event::OrderCancellationRefused(refused) => Some(Summary::CancelRefused { reason: refused.reason.clone() }),
        Event::CommandRefused(refused) => Some(Summary::Refused { reason: refused.reason.clone() }),
        _ => None,
    }
}
