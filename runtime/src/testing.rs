//! Test kits for service authors: given/when/then with every input handled twice, and facts in every order.
//!
//! ```ignore
//! Scenario::of(Payment::default())
//!     .given("order-1", [PaymentAwaited { .. }])
//!     .when(received("order-1", StockReserved { .. }))
//!     .then([PaymentRequested { .. }]);
//! ```

pub mod contract;

use uuid::Uuid;

use crate::decider::{Decider, Decision, Received, TimestampMs};

/// The instant at which [`received`] takes its input, in milliseconds since the epoch.
pub const NOW_MS: TimestampMs = 1_760_000_000_000;

/// An input received under `key` at [`NOW_MS`], with an id made of its content, so that an equal input is a repeat.
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
    /// An entity nothing was ever said about.
    pub fn of(decider: D) -> Self {
        Self { decider, state: D::State::default() }
    }

    /// Adds history.
    #[must_use]
    pub fn given<E: Into<D::Event>>(mut self, events: impl IntoIterator<Item = E>) -> Self {
        for event in events {
            self.fold(&event.into());
        }
        self
    }

    /// Adds the history that an input makes, whatever it is.
    #[must_use]
    pub fn given_received(self, input: &Received<D::Input>) -> Self {
        let outcome = self.when(input);
        Self { decider: outcome.decider, state: outcome.state }
    }

    /// Handles an input, then handles it once more as if its first delivery had been forgotten.
    ///
    /// # Panics
    /// The second handling changed the state: the decider is not idempotent.
    #[track_caller]
    pub fn when(self, input: &Received<D::Input>) -> Outcome<D> {
        let mut after = self;
        let decision = after.handle(input);
        let once = after.state.clone();
        let again = after.handle(input);
        assert_eq!(
            after.state, once,
            "handling {:?} twice changed the state again; the second time said {:?}",
            input.body, again
        );
        Outcome { decider: after.decider, state: once, decision }
    }

    /// The state so far.
    pub fn state(&self) -> &D::State {
        &self.state
    }

    /// The effects that are due now.
    pub fn pending(&self) -> Vec<D::Effect> {
        self.decider.pending(&self.state)
    }

    /// When the entity wants to be woken.
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

/// What came of an input.
#[derive(Debug)]
pub struct Outcome<D: Decider> {
    decider: D,
    state: D::State,
    decision: Decision<D::Event, D::Command>,
}

impl<D: Decider> Outcome<D> {
    /// Exactly these events were said.
    ///
    /// # Panics
    /// Other events were said.
    #[track_caller]
    pub fn then<E: Into<D::Event>>(self, events: impl IntoIterator<Item = E>) -> Self {
        let expected: Vec<D::Event> = events.into_iter().map(Into::into).collect();
        assert_eq!(self.decision.events, expected);
        self
    }

    /// Nothing was said and nothing sent.
    ///
    /// # Panics
    /// Something was.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        assert!(self.decision.is_nothing(), "expected nothing, got {:?}", self.decision);
        self
    }

    /// Exactly these commands were sent to the own inbox, each with the key it is for.
    ///
    /// # Panics
    /// Other commands were sent.
    #[track_caller]
    pub fn then_commands<C: Into<D::Command>>(self, commands: impl IntoIterator<Item = (&'static str, C)>) -> Self {
        let expected: Vec<(String, D::Command)> =
            commands.into_iter().map(|(key, c)| (key.to_owned(), c.into())).collect();
        let sent: Vec<(String, D::Command)> =
            self.decision.commands.iter().map(|send| (send.key.clone(), send.command.clone())).collect();
        assert_eq!(sent, expected);
        self
    }

    /// Exactly these effects are due afterwards.
    ///
    /// # Panics
    /// Others are.
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

    /// Goes on from here.
    pub fn and(self) -> Scenario<D> {
        Scenario { decider: self.decider, state: self.state }
    }
}

/// Hears `facts` in every order of every pair (all others in the given order) and checks that the end is the same.
/// `end` draws from a scenario what must not depend on the order.
///
/// # Panics
/// Two orders end differently.
#[track_caller]
pub fn in_every_pairwise_order<D, T>(start: &Scenario<D>, facts: &[Received<D::Input>], end: impl Fn(&Scenario<D>) -> T)
where
    D: Decider,
    T: PartialEq + std::fmt::Debug,
{
    let told = |order: &[usize]| {
        let after = order.iter().fold(start.clone(), |scenario, &at| scenario.given_received(&facts[at]));
        end(&after)
    };
    let straight: Vec<usize> = (0..facts.len()).collect();
    let expected = told(&straight);
    for first in 0..facts.len() {
        for (second, fact) in facts.iter().enumerate().skip(first + 1) {
            let mut order = straight.clone();
            order.swap(first, second);
            assert_eq!(told(&order), expected, "with fact {second} heard before fact {first}: {:?}", fact.body);
        }
    }
}
