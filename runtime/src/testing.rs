//! Test kit for service authors: given/when/then with every input handled twice, and inputs in every order.
//!
//! ```
//! use runtime::testing::{NOW_MS, Scenario, received};
//! # use runtime::{Decider, Decision, NoCommand, NoEffect, Received};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! # struct CustomerRegistered {
//! #     customer_id: String,
//! # }
//! # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! # struct LoyaltyAccountOpened {
//! #     customer_id: String,
//! #     occurred_at: i64,
//! # }
//! # runtime::consumes! { enum Input { events of "customers" { CustomerRegistered } } }
//! # runtime::produces! { enum Event in "../schemas" { events of "loyalty" { LoyaltyAccountOpened = 1 } } }
//! # /// Opens an account for every registered customer.
//! # #[derive(Clone)]
//! # struct Loyalty;
//! # impl Decider for Loyalty {
//! #     const NAME: &'static str = "loyalty";
//! #     type State = Option<String>;
//! #     type Input = Input;
//! #     type Event = Event;
//! #     type Command = NoCommand;
//! #     type Effect = NoEffect;
//! #     fn decide(&self, account: &Option<String>, input: &Received<Input>) -> Decision<Event, NoCommand> {
//! #         let Input::CustomerRegistered(CustomerRegistered { customer_id }) = &input.body;
//! #         match account {
//! #             Some(_) => Decision::nothing(),
//! #             None => Decision::event(LoyaltyAccountOpened {
//! #                 customer_id: customer_id.clone(),
//! #                 occurred_at: input.at_ms,
//! #             }),
//! #         }
//! #     }
//! #     fn evolve(&self, _: Option<String>, event: &Event) -> Option<String> {
//! #         let Event::LoyaltyAccountOpened(opened) = event;
//! #         Some(opened.customer_id.clone())
//! #     }
//! # }
//!
//! let registered = received("c-1", CustomerRegistered { customer_id: "c-1".to_owned() });
//! let opened = LoyaltyAccountOpened { customer_id: "c-1".to_owned(), occurred_at: NOW_MS };
//! Scenario::of(Loyalty).when(&registered).then([opened.clone()]);
//! Scenario::of(Loyalty).given([opened]).when(&registered).then_nothing();
//! ```

pub mod contract;

use uuid::Uuid;

use crate::decider::{Decider, Decision, Received, TimestampMs};

/// The timestamp of inputs from [`received`], in milliseconds since the epoch.
pub const NOW_MS: TimestampMs = 1_760_000_000_000;

/// An input received under `key` at [`NOW_MS`]. Its id is derived from its content, so an equal input is a redelivery.
pub fn received<I, B>(key: &str, body: B) -> Received<I>
where
    B: Into<I>,
    I: std::fmt::Debug,
{
    received_at(NOW_MS, key, body)
}

/// An input received at a given instant.
pub fn received_at<I, B>(at_ms: TimestampMs, key: &str, body: B) -> Received<I>
where
    B: Into<I>,
    I: std::fmt::Debug,
{
    let body = body.into();
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{key} {at_ms} {body:?}").as_bytes());
    Received { key: key.to_owned(), id, correlation_id: key.to_owned(), at_ms, body }
}

/// A decider with one entity's history.
#[derive(Debug, Clone)]
pub struct Scenario<D: Decider> {
    decider: D,
    state: D::State,
}

impl<D: Decider> Scenario<D> {
    /// An entity without events.
    pub fn of(decider: D) -> Self {
        Self { decider, state: D::State::default() }
    }

    /// Adds events to the entity's history.
    #[must_use]
    pub fn given<E: Into<D::Event>>(mut self, events: impl IntoIterator<Item = E>) -> Self {
        for event in events {
            self.fold(&event.into());
        }
        self
    }

    /// Adds the events that an input leads to.
    #[must_use]
    pub fn given_received(self, input: &Received<D::Input>) -> Self {
        let outcome = self.when(input);
        Self { decider: outcome.decider, state: outcome.state }
    }

    /// Handles an input, then handles it again, as after a redelivery that was not recognised.
    ///
    /// # Panics
    /// The second handling changes the state: the decider is not idempotent.
    #[track_caller]
    pub fn when(self, input: &Received<D::Input>) -> ScenarioOutcome<D> {
        let mut after = self;
        let decision = after.handle(input);
        let once = after.state.clone();
        let again = after.handle(input);
        assert_eq!(
            after.state, once,
            "handling {:?} twice changed the state again; the second decision is {:?}",
            input.body, again
        );
        ScenarioOutcome { decider: after.decider, state: once, decision }
    }

    /// The state so far.
    pub fn state(&self) -> &D::State {
        &self.state
    }

    /// The effects that are due now.
    pub fn pending(&self) -> Vec<D::Effect> {
        self.decider.pending(&self.state)
    }

    /// When the entity's next timer is due.
    pub fn wake_at(&self) -> Option<TimestampMs> {
        self.decider.wake_at(&self.state)
    }

    fn handle(&mut self, input: &Received<D::Input>) -> Decision<D::Event, D::Command> {
        let decision = self.decider.decide(&self.state, input);
        for event in &decision.events {
            self.fold(event);
        }
        decision
    }

    fn fold(&mut self, event: &D::Event) {
        let before = std::mem::take(&mut self.state);
        self.state = self.decider.evolve(before, event);
    }
}

/// The outcome of an input.
#[derive(Debug)]
pub struct ScenarioOutcome<D: Decider> {
    decider: D,
    state: D::State,
    decision: Decision<D::Event, D::Command>,
}

impl<D: Decider> ScenarioOutcome<D> {
    /// Asserts that the decision has exactly these events.
    ///
    /// # Panics
    /// It has others.
    #[track_caller]
    pub fn then<E: Into<D::Event>>(self, events: impl IntoIterator<Item = E>) -> Self {
        let expected: Vec<D::Event> = events.into_iter().map(Into::into).collect();
        assert_eq!(self.decision.events, expected);
        self
    }

    /// Asserts that the decision has no event and no command.
    ///
    /// # Panics
    /// It has one.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        assert!(self.decision.is_nothing(), "expected nothing, got {:?}", self.decision);
        self
    }

    /// Asserts that the decision has exactly these commands, each with the key of its entity.
    ///
    /// # Panics
    /// It has others.
    #[track_caller]
    pub fn then_commands<C: Into<D::Command>>(self, commands: impl IntoIterator<Item = (&'static str, C)>) -> Self {
        let expected: Vec<(String, D::Command)> =
            commands.into_iter().map(|(key, c)| (key.to_owned(), c.into())).collect();
        let sent: Vec<(String, D::Command)> =
            self.decision.commands.iter().map(|send| (send.key.clone(), send.command.clone())).collect();
        assert_eq!(sent, expected);
        self
    }

    /// Asserts that exactly these effects are pending afterwards.
    ///
    /// # Panics
    /// Others are pending.
    #[track_caller]
    pub fn then_pending(self, effects: impl IntoIterator<Item = D::Effect>) -> Self {
        let expected: Vec<D::Effect> = effects.into_iter().collect();
        assert_eq!(self.decider.pending(&self.state), expected);
        self
    }

    /// The decision itself, for what the other checks do not cover.
    pub fn decision(&self) -> &Decision<D::Event, D::Command> {
        &self.decision
    }

    /// Continues from the resulting state.
    pub fn and(self) -> Scenario<D> {
        Scenario { decider: self.decider, state: self.state }
    }
}

/// Handles `inputs` in the given order, and again with each pair of them swapped, and asserts that the end is the same. `end` extracts
/// from a scenario what must not depend on the order.
///
/// # Panics
/// Two orders end differently.
#[track_caller]
pub fn in_every_pairwise_order<D, T>(
    start: &Scenario<D>,
    inputs: &[Received<D::Input>],
    end: impl Fn(&Scenario<D>) -> T,
) where
    D: Decider,
    T: PartialEq + std::fmt::Debug,
{
    let end_of = |order: &[usize]| {
        let after = order.iter().fold(start.clone(), |scenario, &at| scenario.given_received(&inputs[at]));
        end(&after)
    };
    let straight: Vec<usize> = (0..inputs.len()).collect();
    let expected = end_of(&straight);
    for first in 0..inputs.len() {
        for (second, input) in inputs.iter().enumerate().skip(first + 1) {
            let mut order = straight.clone();
            order.swap(first, second);
            assert_eq!(end_of(&order), expected, "with input {second} handled before input {first}: {:?}", input.body);
        }
    }
}
