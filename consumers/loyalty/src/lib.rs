//! Loyalty: owns the loyalty points of customers. Key: the customer.
//!
//! - **Consumes** customers: CustomerRegistered, CustomerForgotten · order-processor: OrderShipped (keyed by order, so the runtime
//!   re-keys it to its customer through the inbox).
//! - **Inbox** nothing of its own.
//! - **Produces** LoyaltyAccountOpened, PointsAwarded (for every OrderShipped), LoyaltyAccountClosed.
//! - **Remembers** the balance, and the id of every order that was answered.
//! - **Compensates** nothing: points are awarded only after the shipment.
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

/// The decider of loyalty.
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
/// The service cannot start, and waiting does not help.
pub async fn service(config: Config) -> Result<Running, StartError> {
    service::start(config, Loyalty, NothingToPerform, axum::Router::new()).await
}

/// The service as a program. The `loyalty` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(Loyalty::NAME, "Awards points for shipped orders", |config, _: service::NoSettings| async move {
        Ok(service(config).await?)
    })
}
