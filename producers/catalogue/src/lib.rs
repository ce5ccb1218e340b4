//! The catalogue: owns the albums and their prices. Key: the sku.
//!
//! - **Consumes** nothing.
//! - **Inbox** ListAlbum, ChangePrice.
//! - **Produces** AlbumListed, AlbumPriceChanged, CommandRefused.
//! - **Remembers** title, artist and price of each listed album.
//! - **Compensates** nothing: an order keeps the price at which it was placed.
//! - **Personal data** none.

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

/// The decider of the catalogue.
#[derive(Debug, Clone, Copy, Default)]
pub struct Catalogue;

impl Decider for Catalogue {
    const NAME: &'static str = "catalogue";
    type State = evolve::State;
    type Input = reads::Input;
    type Event = events::Event;
    type Command = inbox::Command;
    type Effect = NoEffect;

    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        reads::sku_of(input)
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
    let edge = BackgroundEdge::start(&config, Catalogue, http::outcome_of);
    let (checks, checked) = (HealthChecks::default(), edge.clone());
    checks.ready("HTTP API", move || checked.ready());
    let routes = http::routes(edge);
    service::start_with(config, Catalogue, NothingToPerform, routes, checks).await
}

/// The service as a program. The `catalogue` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(Catalogue::NAME, "Lists albums and their prices", |config, _: service::NoSettings| async move {
        Ok(service(config).await?)
    })
}
