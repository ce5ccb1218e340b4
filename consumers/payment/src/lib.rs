//! Payment: charges an order once its stock is reserved, and undoes the charge of a cancelled one.
//!
//! | card | |
//! |---|---|
//! | key | the order |
//! | hears | order-processor: OrderPlaced, OrderCancelled; warehouse: StockReserved |
//! | inbox | from the gateway: GatewayAnswered; its timers; operator: RetryRefund |
//! | says | PaymentAwaited, PaymentRequested, PaymentTaken, PaymentDeclined, PaymentAbandoned, PaymentVoidRequested, PaymentVoided, RefundRequested, PaymentRefunded, RefundFailed, CommandRefused |
//! | remembers | where the payment stands and what the next step needs of it; of an ended one only how it ended |
//! | undoes | on OrderCancelled: what is captured is refunded, what is asked is voided, what is neither ends at once |
//! | personal data | none but the customer's id and the token of the means of payment, in PaymentAwaited and PaymentRequested |
//!
//! The amount is the order's, never the warehouse's. The next stop of a payment's walk is `reads`, then `decide`, `events`,
//! `evolve`, `effects`. This crate must never know skus, stock or another service's types.

pub mod decide;
pub mod effects;
pub mod events;
pub mod evolve;
pub mod inbox;
pub mod reads;

use std::borrow::Cow;

use runtime::{
    Config, Decider, Decision, Received, TimestampMs,
    service::{self, Program, Running, StartError},
};

use crate::{
    effects::{Effect, Gateway, Settings},
    events::Event,
    evolve::State,
    inbox::Command,
    reads::Input,
};

/// The payment service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// How long the gateway may take to answer a charge before the payment is abandoned, in milliseconds.
    pub charge_deadline_ms: u32,
}

impl Default for Payment {
    fn default() -> Self {
        Self { charge_deadline_ms: 15 * 60 * 1_000 }
    }
}

impl Payment {
    /// The service with the deadline that the settings give.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        settings.charge_deadline_ms.map_or_else(Self::default, |charge_deadline_ms| Self { charge_deadline_ms })
    }
}

impl Decider for Payment {
    const NAME: &'static str = "payment";

    type State = State;
    type Input = Input;
    type Event = Event;
    type Command = Command;
    type Effect = Effect;

    fn entity<'a>(&self, input: &'a Received<Input>) -> Cow<'a, str> {
        reads::entity(input)
    }

    fn decide(&self, state: &State, input: &Received<Input>) -> Decision<Event, Command> {
        decide::decide(self, state, input)
    }

    fn evolve(&self, state: State, event: &Event) -> State {
        evolve::evolve(state, event)
    }

    fn pending(&self, state: &State) -> Vec<Effect> {
        effects::pending(state)
    }

    fn wake_at(&self, state: &State) -> Option<TimestampMs> {
        match state {
            State::Charging { answer_by, .. } => *answer_by,
            _ => None,
        }
    }
}

/// Starts the service.
///
/// # Errors
/// Something that waiting does not resolve keeps it from starting.
pub async fn service(config: Config, payment: Payment, gateway: Gateway) -> Result<Running, StartError> {
    service::start(config, payment, gateway, axum::Router::new()).await
}

/// The service as a program: its own binary runs it, and so does `dacapo service`.
#[must_use]
pub fn program() -> Program {
    Program::new(
        Payment::NAME,
        "Charges orders, and pays back what was undone",
        |config, settings: Settings| async move {
            Ok(service(config, Payment::of(&settings), Gateway::of(&settings)?).await?)
        },
    )
}
