//! Payment: charges an order once its stock is reserved, and compensates the charge of a cancelled order.
//!
//! | card | |
//! |---|---|
//! | key | the order |
//! | consumes | order-processor: OrderPlaced, OrderCancelled; warehouse: StockReserved |
//! | inbox | from the gateway: GatewayAnswered; its timers; operator: RetryRefund |
//! | produces | PaymentAwaited, PaymentRequested, PaymentTaken, PaymentDeclined, PaymentAbandoned, PaymentVoidRequested, PaymentVoided, RefundRequested, PaymentRefunded, RefundFailed, CommandRefused |
//! | remembers | the state of the payment and the data that the next step requires; of an ended payment only its end |
//! | compensates | on OrderCancelled: a captured payment is refunded, a pending charge is voided, anything else ends at once |
//! | personal data | only the customer id and the token of the means of payment, in PaymentAwaited and PaymentRequested |
//!
//! The amount comes from the order, never from the warehouse. A payment passes through `reads`, `decide`, `events`, `evolve` and
//! `effects`. This crate knows no sku, no stock and no type of another service.

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
    effects::{Gateway, GatewayCall, Settings},
    events::Event,
    evolve::State,
    inbox::Command,
    reads::Input,
};

/// The payment service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// The time in which the gateway must answer a charge before the payment is abandoned, in milliseconds.
    pub charge_deadline_ms: u32,
}

impl Default for Payment {
    fn default() -> Self {
        Self { charge_deadline_ms: 15 * 60 * 1_000 }
    }
}

impl Payment {
    /// The service with the deadline of the settings.
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
    type Effect = GatewayCall;

    fn entity<'a>(&self, input: &'a Received<Input>) -> Cow<'a, str> {
        reads::order_of(input)
    }

    fn decide(&self, state: &State, input: &Received<Input>) -> Decision<Event, Command> {
        decide::decide(self, state, input)
    }

    fn evolve(&self, state: State, event: &Event) -> State {
        evolve::evolve(state, event)
    }

    fn pending(&self, state: &State) -> Vec<GatewayCall> {
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
/// The service cannot start, and waiting does not help.
pub async fn service(config: Config, payment: Payment, gateway: Gateway) -> Result<Running, StartError> {
    service::start(config, payment, gateway, axum::Router::new()).await
}

/// The service as a program. The `payment` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(Payment::NAME, "Charges orders and refunds cancelled ones", |config, settings: Settings| async move {
        Ok(service(config, Payment::of(&settings), Gateway::of(&settings)?).await?)
    })
}
