//! The state of the payment of one order: the fold of its own events. Total: an event is never rejected.
//!
//! ```text
//!          OrderPlaced                                        captured
//! New ────────────────▶ AwaitingStock ─┐                ┌──────────────▶ Taken ──OrderCancelled──▶ Refunding ◀─RetryRefund─┐
//!    │    StockReserved                ├─▶ Charging ────┤                  ▲                          │ │ refused           │
//!    └────────────────▶ AwaitingOrder ─┘     │ │        └─▶ Declined       │ captured after all       │ └─────▶ RefundRefused
//!                                  too late  │ │ OrderCancelled   ▲        │                          ▼
//!                             Abandoned ◀────┘ ▼                  │        │                       Refunded
//!                                └─OrderCan──▶ Voiding ──declined─┴────────┤
//!                                  celled         └───voided──▶ Voided     └─ and RefundRequested with it
//!
//! OrderCancelled in New, AwaitingStock, AwaitingOrder: Voided. A late answer in Abandoned: as in Voiding.
//! ```
//!
//! | event | legal in | leads to |
//! |---|---|---|
//! | PaymentAwaited | New | AwaitingStock if it carries the order's terms, else AwaitingOrder |
//! | PaymentRequested | AwaitingStock, AwaitingOrder | Charging |
//! | PaymentAbandoned | Charging | Abandoned |
//! | PaymentTaken | Charging, Abandoned, Voiding; if nothing is to be paid AwaitingStock, AwaitingOrder | Taken |
//! | PaymentDeclined | Charging, Abandoned, Voiding; if the amount is negative AwaitingStock, AwaitingOrder | Declined |
//! | PaymentVoidRequested | Charging, Abandoned | Voiding |
//! | PaymentVoided | New, AwaitingStock, AwaitingOrder, Abandoned, Voiding | Voided |
//! | RefundRequested | Taken, RefundRefused | Refunding |
//! | RefundFailed | Refunding | RefundRefused |
//! | PaymentRefunded | Refunding; Taken if nothing was paid | Refunded |

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

use crate::events::{Event, Money, PaymentAwaited};

/// The state of a payment, with the data that the next step requires.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum State {
    /// No event.
    #[default]
    New,
    /// The order was received, its stock is not reserved yet.
    AwaitingStock(PaymentTerms),
    /// The stock is reserved, the order was not received yet.
    AwaitingOrder,
    /// A charge is pending.
    Charging {
        /// The terms of the charge.
        terms: PaymentTerms,
        /// The charge's idempotency key.
        request_key: String,
        /// The deadline of the charge, if there is one.
        answer_by: Option<TimestampMs>,
    },
    /// The gateway did not answer in time and is not called any more; the order will be cancelled.
    Abandoned {
        /// Who would pay.
        customer_id: String,
        /// What would be paid.
        amount: Money,
        /// The charge's idempotency key.
        request_key: String,
    },
    /// Cancelled while the charge was unanswered; a void is pending.
    Voiding {
        /// Who would pay.
        customer_id: String,
        /// What would be paid.
        amount: Money,
        /// The charge's idempotency key.
        request_key: String,
        /// Why the order was cancelled.
        reason: String,
    },
    /// The money is captured.
    Taken {
        /// How much.
        amount: Money,
        /// The id of the payment at the gateway.
        payment_id: String,
    },
    /// A refund is pending.
    Refunding {
        /// How much.
        amount: Money,
        /// The id of the payment at the gateway.
        payment_id: String,
        /// The refund's idempotency key.
        request_key: String,
        /// The number of the attempt.
        attempt: i32,
    },
    /// The gateway refused the refund; an operator must act.
    RefundRefused {
        /// How much.
        amount: Money,
        /// The id of the payment at the gateway.
        payment_id: String,
        /// The number of attempts.
        attempts: i32,
    },
    /// Ended: declined.
    Declined,
    /// Ended: nothing was captured and nothing will be.
    Voided,
    /// Ended: refunded.
    Refunded,
}

/// The terms of a payment, from the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentTerms {
    /// Who pays.
    pub customer_id: String,
    /// How much.
    pub amount: Money,
    /// The token to charge.
    pub payment_method: String,
}

/// Applies one event to the state.
#[must_use]
pub fn evolve(state: State, event: &Event) -> State {
    match event {
        Event::PaymentAwaited(e) => awaited(e),
        Event::PaymentRequested(e) => State::Charging {
            terms: PaymentTerms {
                customer_id: e.customer_id.clone(),
                amount: e.amount.clone(),
                payment_method: e.payment_method.clone(),
            },
            request_key: e.request_key.clone(),
            answer_by: e.answer_by,
        },
        Event::PaymentAbandoned(e) => State::Abandoned {
            customer_id: e.customer_id.clone(),
            amount: e.amount.clone(),
            request_key: e.request_key.clone(),
        },
        Event::PaymentTaken(e) => State::Taken { amount: e.amount.clone(), payment_id: e.payment_id.clone() },
        Event::PaymentVoidRequested(e) => void_requested(state, &e.reason),
        Event::RefundRequested(e) => State::Refunding {
            amount: e.amount.clone(),
            payment_id: e.payment_id.clone(),
            request_key: e.request_key.clone(),
            attempt: e.attempt,
        },
        Event::RefundFailed(e) => {
            State::RefundRefused { amount: e.amount.clone(), payment_id: e.payment_id.clone(), attempts: e.attempt }
        }
        Event::PaymentDeclined(_) => State::Declined,
        Event::PaymentVoided(_) => State::Voided,
        Event::PaymentRefunded(_) => State::Refunded,
        Event::CommandRefused(_) => state,
    }
}

fn awaited(event: &PaymentAwaited) -> State {
    match (&event.customer_id, &event.amount, &event.payment_method) {
        (Some(customer_id), Some(amount), Some(payment_method)) => State::AwaitingStock(PaymentTerms {
            customer_id: customer_id.clone(),
            amount: amount.clone(),
            payment_method: payment_method.clone(),
        }),
        _ => State::AwaitingOrder,
    }
}

fn void_requested(state: State, reason: &str) -> State {
    match state {
        State::Charging { terms: PaymentTerms { customer_id, amount, .. }, request_key, .. }
        | State::Abandoned { customer_id, amount, request_key } => {
            State::Voiding { customer_id, amount, request_key, reason: reason.to_owned() }
        }
        other => other,
    }
}
