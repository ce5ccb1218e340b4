//! What the author of a service writes: a decider and its effects.
//!
//! `decide` and `evolve` are pure and total. They use no clock, no random numbers and no network: the input brings the time and the
//! ids. Only events on the service's own topic change a state, so a state is always the fold of that log.

use std::{borrow::Cow, fmt::Debug, future::Future, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::message::{Message, Written};
pub use crate::time::TimestampMs;

/// One input of a decision: a received record with the fields of its envelope that a decider may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Received<I> {
    /// The record's key: the entity of the service that produced it.
    pub key: String,
    /// The record's id (`ce_id`).
    pub id: Uuid,
    /// The saga it belongs to (`ce_correlationid`).
    pub correlation_id: String,
    /// The record's timestamp: the only clock a decider has.
    pub at_ms: TimestampMs,
    /// The record's body.
    pub body: I,
}

/// The result of one input: events about the entity, and commands to the service's own inbox. They commit together, or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<E, C> {
    /// The events, produced to the own events topic under the entity's key, in this order.
    pub events: Vec<E>,
    /// The commands, sent to the own inbox, each under the key of its entity.
    pub commands: Vec<OutgoingCommand<C>>,
}

/// A command to another entity of the same service.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingCommand<C> {
    /// The entity that must carry it out.
    pub key: String,
    /// The command.
    pub command: C,
}

impl<E, C> Decision<E, C> {
    /// No event and no command: the input changes nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { events: Vec::new(), commands: Vec::new() }
    }

    /// Starts a decision with one event.
    #[must_use]
    pub fn event(event: impl Into<E>) -> Self {
        Self::nothing().and_event(event)
    }

    /// Starts a decision with one command.
    #[must_use]
    pub fn command(key: impl Into<String>, command: impl Into<C>) -> Self {
        Self::nothing().and_command(key, command)
    }

    /// Adds an event.
    #[must_use]
    pub fn and_event(mut self, event: impl Into<E>) -> Self {
        self.events.push(event.into());
        self
    }

    /// Adds a command to the own inbox.
    #[must_use]
    pub fn and_command(mut self, key: impl Into<String>, command: impl Into<C>) -> Self {
        self.commands.push(OutgoingCommand { key: key.into(), command: command.into() });
        self
    }

    /// True if it has no event and no command.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.events.is_empty() && self.commands.is_empty()
    }
}

/// A service: how it decides, and how events change its state.
///
/// ```
/// use runtime_core::{
///     decider::{Decider, Decision, NoEffect, Received},
///     message::NoCommand,
/// };
/// use serde::{Deserialize, Serialize};
/// use uuid::Uuid;
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct CustomerRegistered {
///     customer_id: String,
/// }
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct LoyaltyAccountOpened {
///     customer_id: String,
///     occurred_at: i64,
/// }
///
/// runtime_core::consumes! { enum Input { events of "customers" { CustomerRegistered } } }
/// runtime_core::produces! { enum Event in "../schemas" { events of "loyalty" { LoyaltyAccountOpened = 1 } } }
///
/// /// Opens an account for every registered customer.
/// #[derive(Clone)]
/// struct Loyalty;
///
/// impl Decider for Loyalty {
///     const NAME: &'static str = "loyalty";
///     type State = Option<String>;
///     type Input = Input;
///     type Event = Event;
///     type Command = NoCommand;
///     type Effect = NoEffect;
///
///     fn decide(&self, account: &Option<String>, input: &Received<Input>) -> Decision<Event, NoCommand> {
///         let Input::CustomerRegistered(CustomerRegistered { customer_id }) = &input.body;
///         match account {
///             Some(_) => Decision::nothing(),
///             None => Decision::event(LoyaltyAccountOpened {
///                 customer_id: customer_id.clone(),
///                 occurred_at: input.at_ms,
///             }),
///         }
///     }
///
///     fn evolve(&self, _: Option<String>, event: &Event) -> Option<String> {
///         let Event::LoyaltyAccountOpened(opened) = event;
///         Some(opened.customer_id.clone())
///     }
/// }
///
/// let registered = Received {
///     key: "c-1".to_owned(),
///     id: Uuid::nil(),
///     correlation_id: "c-1".to_owned(),
///     at_ms: 1_760_000_000_000,
///     body: CustomerRegistered { customer_id: "c-1".to_owned() }.into(),
/// };
/// let decision = Loyalty.decide(&None, &registered);
/// assert_eq!(decision.events.len(), 1);
///
/// let account = Loyalty.evolve(None, &decision.events[0]);
/// assert!(Loyalty.decide(&account, &registered).is_nothing(), "a repeated input changes nothing");
/// ```
pub trait Decider: Clone + Send + Sync + 'static {
    /// The service's name: its folder under `schemas/`, its topics `musiccorp.<NAME>.events` and `.inbox`, its consumer group.
    const NAME: &'static str;

    /// The state of one entity. `Default` is the state of an entity without events.
    type State: Default + Clone + PartialEq + Debug + Serialize + DeserializeOwned + Send + Sync;
    /// The records that it consumes: events of other services, and its own inbox.
    type Input: Message;
    /// The events that it produces.
    type Event: Written;
    /// The commands to its own inbox: from its HTTP API, from its effects, and from one entity to another.
    type Command: Written;
    /// Its requests to external services; [`NoEffect`] if it has none.
    type Effect: Effect;

    /// The entity that an input is about. By default it is the record's key. If this returns another key, the runtime forwards the
    /// record to the own inbox under that key, and decides there.
    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        Cow::Borrowed(&input.key)
    }

    /// True if the record keys of this owner are entities of this service. Then the entity of an unreadable record is known, and
    /// later records of that entity wait behind it until an operator acts. If false, an unreadable record is dead-lettered and
    /// nothing waits. Return false for owners with other entities, such as customers where this service decides about orders. The
    /// keys of the own inbox are always entities of this service.
    fn shares_keys_with(&self, _owner: &str) -> bool {
        true
    }

    /// Decides on an input. It is pure and total: a fact that comes too early is recorded by an event, and a command that may not
    /// be carried out is answered by an event that refuses it.
    fn decide(&self, state: &Self::State, input: &Received<Self::Input>) -> Decision<Self::Event, Self::Command>;

    /// Folds one own event into the state. It is total, because an event is a fact.
    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State;

    /// The effects that are due and unanswered in this state.
    fn pending(&self, _state: &Self::State) -> Vec<Self::Effect> {
        Vec::new()
    }

    /// When the entity's next timer is due, if it has one. At that instant a [`TimerFired`] enters through the inbox; it may come
    /// later, and it never overtakes input that was appended before.
    fn wake_at(&self, _state: &Self::State) -> Option<TimestampMs> {
        None
    }
}

/// A request to an external service.
pub trait Effect: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The idempotency key: always the same for the same request, and unique within the service.
    fn key(&self) -> String;
}

/// The effects of a service that calls no external service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoEffect {}

impl Effect for NoEffect {
    fn key(&self) -> String {
        match *self {}
    }
}

/// An effect that is due, with what its performer needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Due<E> {
    /// The entity that it belongs to. The answer enters the inbox under this key.
    pub key: String,
    /// The saga of the event that made it due.
    pub correlation_id: String,
    /// The request.
    pub effect: E,
    /// The number of unanswered attempts before this one.
    pub attempt: u32,
}

/// The answer of an external service: a command to the own inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<C> {
    /// Distinguishes answers to the same request. The record's id is `UUIDv5(effect key, outcome)`, so receiving the same answer
    /// twice gives the same record.
    pub outcome: String,
    /// The command that enters the inbox.
    pub command: C,
}

/// An attempt without a definite answer. The effect stays due and is retried with back-off and jitter as long as it is pending.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Unanswered {
    /// What happened, for the log.
    pub reason: String,
    /// The pause before the next attempt, if the external service requested one.
    pub retry_after: Option<Duration>,
}

impl Unanswered {
    /// An attempt that failed for `reason`, to be retried after the usual pause.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: None }
    }
}

/// Performs effects. It runs only in the owner of the entity, after the event that made the effect due has been committed, and
/// never during a recovery. It may run more than once for one effect (crash, rebalance), so the external service must receive
/// [`Effect::key`].
pub trait Perform<D: Decider>: Send + Sync + 'static {
    /// Calls the external service and returns its answer.
    fn perform(&self, due: Due<D::Effect>) -> impl Future<Output = Result<Answer<D::Command>, Unanswered>> + Send;
}

/// The performer of a service without effects.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingToPerform;

impl<D: Decider<Effect = NoEffect>> Perform<D> for NothingToPerform {
    async fn perform(&self, due: Due<NoEffect>) -> Result<Answer<D::Command>, Unanswered> {
        match due.effect {}
    }
}

/// The runtime's own inbox record: an instant that [`Decider::wake_at`] returned has passed. List it in `consumes!` as
/// `inbox of "runtime" { TimerFired }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct TimerFired {
    /// The instant that [`Decider::wake_at`] returned.
    pub due_at: TimestampMs,
}
