//! The order-processor: owns orders, from the request to one of three ends. Key: the order.
//!
//! - **Consumes** warehouse: StockShort, PickingStarted, PackagingFailed, OrderDispatched, DispatchDelayed, DispatchAbandoned,
//!   CancellationAccepted, CancellationRefused · payment: PaymentTaken, PaymentDeclined, PaymentAbandoned, RefundFailed ·
//!   loyalty: PointsAwarded. Its edge looks up customers and albums in the events of their owners.
//! - **Inbox** PlaceOrder, CancelOrder; operator: GiveUpOrder.
//! - **Produces** OrderPlaced, OrderRejected, OrderPaid, OrderPicking, OrderDelayed, OrderShipped, OrderCompleted,
//!   OrderNeedsAttention, OrderCancellationRequested, OrderCancellationRefused, OrderCancelled, OrderFactNoted, CommandRefused.
//! - **Remembers** of an open order its phase, customer, lines and total, the facts that were received early, and an open
//!   request to cancel it; of an ended order its phase; of both the failed attempts that were reported to a person.
//! - **Compensates** nothing of its own: OrderCancelled is the one event on which every other service compensates.
//! - **Personal data** name, mail address and postal address, in its events, in PlaceOrder and in the state of open orders. The
//!   open orders of a forgotten customer finish first; their events stay, and new orders are rejected.

use std::borrow::Cow;

use runtime::{
    Config, Decider, Decision, NoEffect, NothingToPerform, Received,
    health::HealthChecks,
    service::{self, Program, Running, StartError},
};

use crate::edge::OrderEdge;

pub mod decide;
pub mod edge;
pub mod events;
pub mod evolve;
mod http;
pub mod inbox;
pub mod lookups;
pub mod order_status;
pub mod reads;
pub mod request;

/// The decider of the order-processor.
#[derive(Debug, Clone, Copy, Default)]
pub struct OrderProcessor;

impl Decider for OrderProcessor {
    const NAME: &'static str = "order-processor";
    type State = evolve::State;
    type Input = reads::Input;
    type Event = events::Event;
    type Command = inbox::Command;
    type Effect = NoEffect;

    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        reads::order_of(input)
    }

    fn shares_keys_with(&self, owner: &str) -> bool {
        owner != "loyalty"
    }

    fn decide(&self, state: &Self::State, input: &Received<Self::Input>) -> Decision<Self::Event, Self::Command> {
        decide::decide(state, input)
    }

    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State {
        evolve::evolve(state, event)
    }
}

/// Starts the service with its edge and HTTP API.
///
/// # Errors
/// The service cannot start, and waiting does not help.
pub async fn service(config: Config, edge: OrderEdge) -> Result<Running, StartError> {
    let (checks, checked) = (HealthChecks::default(), edge.clone());
    checks.ready("HTTP API", move || checked.ready());
    service::start_with(config, OrderProcessor, NothingToPerform, http::routes(edge), checks).await
}

/// The service as a program. The `order-processor` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(
        OrderProcessor::NAME,
        "Takes orders and owns each to its end",
        |config, _: service::NoSettings| async move {
            let edge = edge::OrderEdge::start(&config);
            Ok(service(config, edge).await?)
        },
    )
}
