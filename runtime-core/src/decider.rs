//! What a service author writes: a decider, its effects, and nothing else.
//!
//! `decide` and `evolve` are pure and total. They see no clock, no randomness, no network: time and ids come in with the input.
//! Whatever changes a state is an event on the service's own topic, so a state is always the fold of that log.

use std::{borrow::Cow, fmt::Debug, future::Future, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::message::{Message, Written};
pub use crate::time::TimestampMs;

/// One input of a decision: a record that was received, with what its envelope says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received<I> {
    /// The record's key: the entity of the service that said it.
    pub key: String,
    /// The record's id (`ce_id`).
    pub id: Uuid,
    /// The saga it belongs to (`ce_correlationid`).
    pub correlation_id: String,
    /// The record's timestamp: the only clock a decider has.
    pub at_ms: TimestampMs,
    /// The record itself.
    pub body: I,
}

/// What came of one input: events about the entity, and commands to the service's own inbox. Committed together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<E, C> {
    /// RecentEvent on the own events topic under the entity's key, in this order.
    pub events: Vec<E>,
    /// Sent to the own inbox, each under the key of the entity it is for.
    pub commands: Vec<OutgoingCommand<C>>,
}

/// A command to another entity of the same service.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingCommand<C> {
    /// The entity it is for.
    pub key: String,
    /// The command.
    pub command: C,
}

impl<E, C> Decision<E, C> {
    /// Nothing to say: the input changes nothing.
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

    /// True if nothing is said and nothing sent.
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

    /// What is remembered of one entity. `Default` is an entity nothing was ever said about.
    type State: Default + Clone + PartialEq + Debug + Serialize + DeserializeOwned + Send + Sync;
    /// What it hears: other services' events and its own inbox.
    type Input: Message;
    /// What it says.
    type Event: Written;
    /// What it sends to its own inbox: from its edge, from its effects, between its entities.
    type Command: Written;
    /// What it asks of the outside world; [`NoEffect`] if nothing.
    type Effect: Effect;

    /// The entity an input is about. By default the one whose key the record carries; if it answers another key, the runtime
    /// forwards the record to the own inbox under that key and decides it there.
    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        Cow::Borrowed(&input.key)
    }

    /// True if the records of this owner lie under the keys of the entities that they are about here. Then the entity of a record
    /// that cannot be read is known all the same, and what comes later for it waits until somebody has looked; else such a
    /// record is laid aside as a dead letter, and nothing waits. False for owners whose entities are others, such as customers
    /// where orders are decided. The own inbox always lies under the entities' keys.
    fn shares_keys_with(&self, _owner: &str) -> bool {
        true
    }

    /// Decides what comes of an input. Pure and total: a fact that comes too early is remembered by an event of its own, a
    /// command that may not be is answered by an event that refuses it.
    fn decide(&self, state: &Self::State, input: &Received<Self::Input>) -> Decision<Self::Event, Self::Command>;

    /// Folds one own event into the state. Total: a fact is never argued with.
    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State;

    /// The effects that are due and not yet answered in this state.
    fn pending(&self, _state: &Self::State) -> Vec<Self::Effect> {
        Vec::new()
    }

    /// When the entity wants to be woken next, if at all. At that instant (or later, never before input that was there first) a
    /// [`TimerFired`] enters through the inbox.
    fn wake_at(&self, _state: &Self::State) -> Option<TimestampMs> {
        None
    }
}

/// Something asked of the outside world.
pub trait Effect: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The idempotency key: the same for the same request, for ever. Unique within the service.
    fn key(&self) -> String;
}

/// The effects of a service that asks nothing of the outside world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoEffect {}

impl Effect for NoEffect {
    fn key(&self) -> String {
        match *self {}
    }
}

/// An effect that fell due, with what its performer needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Due<E> {
    /// The entity it belongs to; the answer goes to the inbox under this key.
    pub key: String,
    /// The saga of the event that made it due.
    pub correlation_id: String,
    /// The request.
    pub effect: E,
    /// How many attempts went unanswered before this one.
    pub attempt: u32,
}

/// The answer of the outside world: a command to the own inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<C> {
    /// Distinguishes answers to the same request: the record's id is `UUIDv5(effect key, outcome)`, so the same answer got twice
    /// is the same record.
    pub outcome: String,
    /// What enters the inbox.
    pub command: C,
}

/// No definite answer: the effect stays due and is tried again with back-off and jitter, for as long as it is pending.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Unanswered {
    /// What happened, for the log.
    pub reason: String,
    /// The earliest sensible next attempt, if the far end said so.
    pub retry_after: Option<Duration>,
}

impl Unanswered {
    /// An attempt that failed for `reason`, to be repeated at the usual pace.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: None }
    }
}

/// Carries effects out. Runs only in the owner of the entity, after the event that made the effect due is committed, and never
/// during a rebuild. May run more than once for one effect (crash, rebalance): the far end must be given [`Effect::key`].
pub trait Perform<D: Decider>: Send + Sync + 'static {
    /// Asks the outside world and brings its answer back.
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

/// The runtime's own inbox record: an instant that an entity asked for has passed. List it in `consumes!` as
/// `inbox of "runtime" { TimerFired }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct TimerFired {
    /// The instant that was asked for.
    pub due_at: TimestampMs,
}
