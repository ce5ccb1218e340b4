//! Customers: owns the customers of the shop. Key: the customer. Its first event starts the onboarding saga.
//!
//! - **Consumes** nothing.
//! - **Inbox** RegisterCustomer, VerifyCustomer, ForgetCustomer.
//! - **Produces** CustomerRegistered (pending), CustomerVerified, CustomerForgotten, CommandRefused.
//! - **Remembers** the contact and consent of a registered customer; of a forgotten one only that it is forgotten.
//! - **Compensates** nothing.
//! - **Personal data** name and mail address, in its events, in RegisterCustomer and in its state; the state drops them with
//!   CustomerForgotten.

use std::borrow::Cow;

use runtime::{
    Config, Decider, Decision, NoEffect, NothingToPerform, Received,
    edge::BackgroundEdge,
    health::HealthChecks,
    service::{self, Program, Running, StartError},
};

pub mod decide;
pub mod events;
pub mod evolve;
mod http;
pub mod inbox;
pub mod reads;
pub mod request;

/// The decider of customers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Customers;

impl Decider for Customers {
    const NAME: &'static str = "customers";
    type State = evolve::State;
    type Input = reads::Input;
    type Event = events::Event;
    type Command = inbox::Command;
    type Effect = NoEffect;

    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        reads::customer_of(input)
    }

    fn decide(&self, state: &Self::State, input: &Received<Self::Input>) -> Decision<Self::Event, Self::Command> {
        decide::decide(state, input)
    }

    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State {
        evolve::evolve(state, event)
    }
}

/// Starts the service with its HTTP API.
///
/// # Errors
/// The service cannot start, and waiting does not help.
pub async fn service(config: Config) -> Result<Running, StartError> {
    let edge = BackgroundEdge::start(&config, Customers, http::outcome_of);
    let (checks, checked) = (HealthChecks::default(), edge.clone());
    checks.ready("HTTP API", move || checked.ready());
    let routes = http::routes(&config.system, edge);
    service::start_with(config, Customers, NothingToPerform, routes, checks).await
}

/// The service as a program. The `customers` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(Customers::NAME, "Owns the customers", |config, _: service::NoSettings| async move {
        Ok(service(config).await?)
    })
}
