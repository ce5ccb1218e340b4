//! Customers: owns who buys here. Key: the customer. Its first event starts the onboarding story.
//!
//! - **Hears** nobody.
//! - **Inbox** RegisterCustomer, VerifyCustomer, ForgetCustomer.
//! - **Says** CustomerRegistered (pending), CustomerVerified, CustomerForgotten, CommandRefused.
//! - **Remembers** the contact and consent of a known customer, and of a forgotten one only that.
//! - **Undoes** nothing.
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

/// The rules of customers.
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

/// Starts the service with its edge.
///
/// # Errors
/// Something that waiting does not resolve keeps it from starting.
pub async fn service(config: Config) -> Result<Running, StartError> {
    let edge = BackgroundEdge::start(&config, Customers, http::summarise);
    let (checks, checked) = (HealthChecks::default(), edge.clone());
    checks.ready("edge", move || checked.ready());
    let routes = http::routes(&config.system, edge);
    service::start_with(config, Customers, NothingToPerform, routes, checks).await
}

/// The service as a program: its own binary runs it, and so does `dacapo service`.
#[must_use]
pub fn program() -> Program {
    Program::new(Customers::NAME, "Knows who buys here", |config, _: service::NoSettings| async move {
        Ok(service(config).await?)
    })
}
