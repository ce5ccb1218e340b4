//! The order-processor: owns orders, from the request to one of three ends. Key: the order.
//!
//! - **Hears** warehouse: StockShort, PickingStarted, PackagingFailed, OrderDispatched, DispatchDelayed, DispatchAbandoned,
//!   CancellationAccepted, CancellationRefused · payment: PaymentTaken, PaymentDeclined, PaymentAbandoned, RefundFailed ·
//!   loyalty: PointsAwarded. Its edge looks customers and albums up in their owners' events.
//! - **Inbox** PlaceOrder, CancelOrder; operator: GiveUpOrder.
//! - **Says** OrderPlaced, OrderRejected, OrderPaid, OrderPicking, OrderDelayed, OrderShipped, OrderCompleted,
//!   OrderNeedsAttention, OrderCancellationRequested, OrderCancellationRefused, OrderCancelled, OrderFactNoted, CommandRefused.
//! - **Remembers** of an open order its status, customer, lines and total, facts that came early, and a request to cancel it that
//!   is not answered yet; of an ended one its status; of both which failed attempts a person was called for.
//! - **Undoes** nothing of its own: OrderCancelled is the one event on which every other service undoes what it did.
//! - **Personal data** name, mail address and postal address, in its events, in PlaceOrder and in the state of open orders. A
//!   forgotten customer's open orders finish first; their events stay, new orders are rejected.

use std::borrow::Cow;

use runtime::{
    Config, Decider, Decision, NoEffect, NothingToPerform, Received,
    health::HealthChecks,
    service::{self, Program, Running, StartError},
};

use crate::edge::Edge;

pub mod decide;
pub mod edge;
pub mod events;
pub mod evolve;
mod http;
pub mod inbox;
pub mod lookups;
pub mod reads;
pub mod request;
pub mod standing;

/// The order-processor's rules.
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

/// Starts the service with its edge.
///
/// # Errors
/// Something that waiting does not resolve keeps it from starting.
pub async fn service(config: Config, edge: Edge) -> Result<Running, StartError> {
    let (checks, checked) = (HealthChecks::default(), edge.clone());
    checks.ready("edge", move || checked.ready());
    service::start_with(config, OrderProcessor, NothingToPerform, http::routes(edge), checks).await
}

/// The service as a program: its own binary runs it, and so does `dacapo service`.
#[must_use]
pub fn program() -> Program {
    Program::new(
        OrderProcessor::NAME,
        "Takes orders and owns each to its end",
        |config, _: service::NoSettings| async move {
            let edge = edge::Edge::start(&config);
            Ok(service(config, edge).await?)
        },
    )
}
