//! What payment remembers of one order: the fold of its own events, total, arguing with none of them.
//!
//! ```text
//!          OrderPlaced                                        captured
//! Unheard ────────────▶ AwaitingStock ─┐                ┌──────────────▶ Taken ──OrderCancelled──▶ Refunding ◀─RetryRefund─┐
//!    │    StockReserved                ├─▶ Charging ────┤                  ▲                          │ │ refused           │
//!    └────────────────▶ AwaitingOrder ─┘     │ │        └─▶ Declined       │ captured after all       │ └─────▶ RefundRefused
//!                                  too late  │ │ OrderCancelled   ▲        │                          ▼
//!                             Abandoned ◀────┘ ▼                  │        │                       Refunded
//!                                └─OrderCan──▶ Voiding ──declined─┴────────┤
//!                                  celled         └───voided──▶ Voided     └─ and RefundRequested with it
//!
//! OrderCancelled in Unheard, AwaitingStock, AwaitingOrder: Voided. A late answer in Abandoned: as in Voiding.
//! ```
//!
//! | event | legal in | leads to |
//! |---|---|---|
//! | PaymentAwaited | Unheard | AwaitingStock if it carries the order's terms, else AwaitingOrder |
//! | PaymentRequested | AwaitingStock, AwaitingOrder | Charging |
//! | PaymentAbandoned | Charging | Abandoned |
//! | PaymentTaken | Charging, Abandoned, Voiding; if nothing is to be paid AwaitingStock, AwaitingOrder | Taken |
//! | PaymentDeclined | Charging, Abandoned, Voiding; if the amount is negative AwaitingStock, AwaitingOrder | Declined |
//! | PaymentVoidRequested | Charging, Abandoned | Voiding |
//! | PaymentVoided | Unheard, AwaitingStock, AwaitingOrder, Abandoned, Voiding | Voided |
//! | RefundRequested | Taken, RefundRefused | Refunding |
//! | RefundFailed | Refunding | RefundRefused |
//! | PaymentRefunded | Refunding; Taken if nothing was paid | Refunded |

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

use crate::events::{Event, Money, PaymentAwaited};

/// Where an order's payment stands, with what the next step needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum State {
    /// Nothing was heard of the order.
    #[default]
    Unheard,
    /// The order is known, its stock is not reserved yet.
    AwaitingStock(Terms),
    /// The stock is reserved, the order was not heard of yet.
    AwaitingOrder,
    /// The gateway is asked to charge.
    Charging {
        /// What it is asked.
        terms: Terms,
        /// The charge's idempotency key.
        request_key: String,
        /// When it is abandoned, if ever.
        answer_by: Option<TimestampMs>,
    },
    /// The gateway has not answered in time and is not asked any more; the order will be cancelled.
    Abandoned {
        /// Who would pay.
        customer_id: String,
        /// What would be paid.
        amount: Money,
        /// The charge's idempotency key.
        request_key: String,
    },
    /// Cancelled while the charge was unanswered; the gateway is asked to void it.
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
        /// The gateway's name for it.
        payment_id: String,
    },
    /// The gateway is asked to pay back.
    Refunding {
        /// How much.
        amount: Money,
        /// The gateway's name for the payment.
        payment_id: String,
        /// The refund's idempotency key.
        request_key: String,
        /// Which time it is asked.
        attempt: i32,
    },
    /// The gateway refuses to pay back; an operator is needed.
    RefundRefused {
        /// How much.
        amount: Money,
        /// The gateway's name for the payment.
        payment_id: String,
        /// How many times it was asked.
        attempts: i32,
    },
    /// Ended: declined.
    Declined,
    /// Ended: nothing was captured and nothing will be.
    Voided,
    /// Ended: paid back.
    Refunded,
}

/// What an order says about its payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Who pays.
    pub customer_id: String,
    /// How much.
    pub amount: Money,
    /// The token to charge.
    pub payment_method: String,
}

/// Folds one event into the state.
#[must_use]
pub fn evolve(state: State, event: &Event) -> State {
    match event {
        Event::PaymentAwaited(e) => awaited(e),
        Event::PaymentRequested(e) => State::Charging {
            terms: Terms {
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
        (Some(customer_id), Some(amount), Some(payment_method)) => State::AwaitingStock(Terms {
            customer_id: customer_id.clone(),
            amount: amount.clone(),
            payment_method: payment_method.clone(),
        }),
        _ => State::AwaitingOrder,
    }
}

fn void_requested(state: State, reason: &str) -> State {
    match state {
        State::Charging { terms: Terms { customer_id, amount, .. }, request_key, .. }
        | State::Abandoned { customer_id, amount, request_key } => {
            State::Voiding { customer_id, amount, request_key, reason: reason.to_owned() }
        }
        other => other,
    }
}
