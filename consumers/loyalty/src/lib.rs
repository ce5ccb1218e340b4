//! Loyalty: owns the points that customers collect. Key: the customer.
//!
//! - **Hears** customers: CustomerRegistered, CustomerForgotten · order-processor: OrderShipped (keyed by order, so the runtime
//!   brings it to its customer through the inbox).
//! - **Inbox** nothing of its own.
//! - **Says** LoyaltyAccountOpened, PointsAwarded (for every OrderShipped), LoyaltyAccountClosed.
//! - **Remembers** the balance, and the id of every order that was answered.
//! - **Undoes** nothing: points are awarded only when the parcel is gone.
//! - **Personal data** none beyond ids; CustomerForgotten closes the account and the points are gone.

use std::borrow::Cow;

use runtime::{
    Config, Decider, Decision, NoCommand, NoEffect, NothingToPerform, Received,
    service::{self, Program, Running, StartError},
};

pub mod decide;
pub mod events;
pub mod evolve;
pub mod reads;

/// Loyalty's rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loyalty;

impl Decider for Loyalty {
    const NAME: &'static str = "loyalty";
    type State = evolve::State;
    type Input = reads::Input;
    type Event = events::Event;
    type Command = NoCommand;
    type Effect = NoEffect;

    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        reads::customer_of(input)
    }

    fn shares_keys_with(&self, owner: &str) -> bool {
        owner == "customers"
    }

    fn decide(&self, state: &Self::State, input: &Received<Self::Input>) -> Decision<Self::Event, Self::Command> {
        decide::decide(state, input)
    }

    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State {
        evolve::evolve(state, event)
    }
}

/// Starts the service.
///
/// # Errors
/// Something that waiting does not resolve keeps it from starting.
pub async fn service(config: Config) -> Result<Running, StartError> {
    service::start(config, Loyalty, NothingToPerform, axum::Router::new()).await
}

/// The service as a program: its own binary runs it, and so does `dacapo service`.
#[must_use]
pub fn program() -> Program {
    Program::new(Loyalty::NAME, "Gives points for what was shipped", |config, _: service::NoSettings| async move {
        Ok(service(config).await?)
    })
}
