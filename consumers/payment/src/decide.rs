//! What payment decides. Pure: it reads its state and its input only.
//!
//! Exactly one of PaymentDeclined, PaymentVoided and PaymentRefunded ends a cancelled order; the first definite answer of the
//! gateway stands, and one that is not awaited changes nothing. An order that costs nothing is taken without asking the gateway
//! (there is nothing to capture) and refunded without asking when cancelled, so that what is taken and what is refunded agree order
//! by order; a negative amount is declined without asking, for a charge of it would pay the customer.

use runtime::{Decision, Heard, TimestampMs};

use crate::{
    events::{
        Event, Money, PaymentAwaited, PaymentDeclined, PaymentRefunded, PaymentRequested, PaymentTaken,
        PaymentVoidRequested, PaymentVoided, RefundRequested,
    },
    evolve::{State, Terms},
    inbox::{Command, GatewayAnswered, GatewayOutcome},
    reads::{Input, OrderCancelled, OrderPlaced},
};

/// What stands for a payment and for a refund where nothing was to be paid.
const NOTHING_TO_PAY: &str = "nothing-to-pay";

type Decided = Decision<Event, Command>;

/// Decides what comes of an input.
#[must_use]
pub fn decide(state: &State, heard: &Heard<Input>) -> Decided {
    let at = heard.at_ms;
    match &heard.body {
        Input::OrderPlaced(placed) => on_placed(state, placed, at),
        Input::StockReserved(reserved) => on_stock_reserved(state, &reserved.order_id, at),
        Input::OrderCancelled(cancelled) => on_cancelled(state, cancelled, at),
        Input::GatewayAnswered(answer) => on_answer(state, answer, at),
    }
}

/// The order and its reserved stock are awaited in either order; the first one heard is kept, the second one asks for the money.
fn on_placed(state: &State, placed: &OrderPlaced, at: TimestampMs) -> Decided {
    let terms = || Terms {
        customer_id: placed.customer_id.clone(),
        amount: placed.total.clone(),
        payment_method: placed.payment_method.clone(),
    };
    match state {
        State::Unheard => Decided::say(PaymentAwaited {
            order_id: placed.order_id.clone(),
            customer_id: Some(placed.customer_id.clone()),
            amount: Some(placed.total.clone()),
            payment_method: Some(placed.payment_method.clone()),
            stock_reserved: false,
            occurred_at: at,
        }),
        State::AwaitingOrder => ask_for_money(&placed.order_id, terms(), at),
        _ => Decided::nothing(),
    }
}

fn on_stock_reserved(state: &State, order_id: &str, at: TimestampMs) -> Decided {
    match state {
        State::Unheard => Decided::say(PaymentAwaited {
            order_id: order_id.to_owned(),
            customer_id: None,
            amount: None,
            payment_method: None,
            stock_reserved: true,
            occurred_at: at,
        }),
        State::AwaitingStock(terms) => ask_for_money(order_id, terms.clone(), at),
        _ => Decided::nothing(),
    }
}

fn ask_for_money(order_id: &str, terms: Terms, at: TimestampMs) -> Decided {
    let Terms { customer_id, amount, payment_method } = terms;
    match amount.amount_minor {
        ..0 => declined(order_id, &customer_id, &amount, "the amount is negative", at),
        0 => taken(order_id, &customer_id, &amount, NOTHING_TO_PAY, at),
        1.. => Decided::say(PaymentRequested {
            order_id: order_id.to_owned(),
            customer_id,
            amount,
            payment_method,
            request_key: format!("charge-{order_id}"),
            occurred_at: at,
        }),
    }
}

/// Undoes what was done, and only that.
fn on_cancelled(state: &State, cancelled: &OrderCancelled, at: TimestampMs) -> Decided {
    let (order_id, reason) = (&cancelled.order_id, &cancelled.detail);
    match state {
        State::Unheard | State::AwaitingStock(_) | State::AwaitingOrder => voided(order_id, reason, at),
        State::Charging { request_key, .. } => Decided::say(PaymentVoidRequested {
            order_id: order_id.clone(),
            request_key: request_key.clone(),
            reason: reason.clone(),
            occurred_at: at,
        }),
        State::Taken { amount, payment_id } if amount.amount_minor == 0 => {
            refunded(order_id, payment_id, amount, NOTHING_TO_PAY, at)
        }
        State::Taken { amount, payment_id } => Decided::say(refund_requested(order_id, payment_id, amount, reason, at)),
        State::Voiding { .. } | State::Refunding { .. } | State::Declined | State::Voided | State::Refunded => {
            Decided::nothing()
        }
    }
}

/// A definite answer about the request that is awaited. One about another request, or incomplete, changes nothing.
fn on_answer(state: &State, answer: &GatewayAnswered, at: TimestampMs) -> Decided {
    match state {
        State::Charging { terms, request_key } if *request_key == answer.request_key => on_charged(terms, answer, at),
        State::Voiding { customer_id, amount, request_key, reason } if *request_key == answer.request_key => {
            on_void_answered(customer_id, amount, reason, answer, at)
        }
        State::Refunding { amount, payment_id, request_key } if *request_key == answer.request_key => {
            on_refunded(amount, payment_id, answer, at)
        }
        _ => Decided::nothing(),
    }
}

fn on_charged(terms: &Terms, answer: &GatewayAnswered, at: TimestampMs) -> Decided {
    let Terms { customer_id, amount, .. } = terms;
    match (answer.outcome, &answer.payment_id) {
        (GatewayOutcome::Captured, Some(payment_id)) => taken(&answer.order_id, customer_id, amount, payment_id, at),
        (GatewayOutcome::Declined, _) => declined(&answer.order_id, customer_id, amount, reason_of(answer), at),
        // Nobody here asked for that; but a voided charge is never captured, and an order must not wait for ever.
        (GatewayOutcome::Voided, _) => {
            declined(&answer.order_id, customer_id, amount, "the gateway holds the charge for voided", at)
        }
        _ => Decided::nothing(),
    }
}

/// The answer may be the charge's own, which was on its way: what counts is what became of the money.
fn on_void_answered(
    customer_id: &str,
    amount: &Money,
    reason: &str,
    answer: &GatewayAnswered,
    at: TimestampMs,
) -> Decided {
    let order_id = &answer.order_id;
    match (answer.outcome, &answer.payment_id) {
        (GatewayOutcome::Captured, Some(payment_id)) => taken(order_id, customer_id, amount, payment_id, at)
            .and_say(refund_requested(order_id, payment_id, amount, reason, at)),
        (GatewayOutcome::Declined, _) => declined(order_id, customer_id, amount, reason_of(answer), at),
        (GatewayOutcome::Voided, _) => voided(order_id, reason, at),
        _ => Decided::nothing(),
    }
}

fn on_refunded(amount: &Money, payment_id: &str, answer: &GatewayAnswered, at: TimestampMs) -> Decided {
    match (answer.outcome, &answer.refund_id) {
        (GatewayOutcome::Refunded, Some(refund_id)) => refunded(&answer.order_id, payment_id, amount, refund_id, at),
        _ => Decided::nothing(),
    }
}

fn taken(order_id: &str, customer_id: &str, amount: &Money, payment_id: &str, at: TimestampMs) -> Decided {
    Decided::say(PaymentTaken {
        order_id: order_id.to_owned(),
        customer_id: customer_id.to_owned(),
        amount: amount.clone(),
        payment_id: payment_id.to_owned(),
        occurred_at: at,
    })
}

fn declined(order_id: &str, customer_id: &str, amount: &Money, reason: &str, at: TimestampMs) -> Decided {
    Decided::say(PaymentDeclined {
        order_id: order_id.to_owned(),
        customer_id: customer_id.to_owned(),
        amount: amount.clone(),
        reason: reason.to_owned(),
        occurred_at: at,
    })
}

fn voided(order_id: &str, reason: &str, at: TimestampMs) -> Decided {
    Decided::say(PaymentVoided { order_id: order_id.to_owned(), reason: reason.to_owned(), occurred_at: at })
}

fn refunded(order_id: &str, payment_id: &str, amount: &Money, refund_id: &str, at: TimestampMs) -> Decided {
    Decided::say(PaymentRefunded {
        order_id: order_id.to_owned(),
        payment_id: payment_id.to_owned(),
        amount: amount.clone(),
        refund_id: refund_id.to_owned(),
        occurred_at: at,
    })
}

fn refund_requested(
    order_id: &str,
    payment_id: &str,
    amount: &Money,
    reason: &str,
    at: TimestampMs,
) -> RefundRequested {
    RefundRequested {
        order_id: order_id.to_owned(),
        payment_id: payment_id.to_owned(),
        amount: amount.clone(),
        request_key: format!("refund-{order_id}"),
        reason: reason.to_owned(),
        occurred_at: at,
    }
}

fn reason_of(answer: &GatewayAnswered) -> &str {
    answer.reason.as_deref().unwrap_or("the gateway gave no reason")
}
