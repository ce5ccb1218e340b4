//! The decisions of payment. Pure: they read only the state, the input and the configured deadline.
//!
//! Exactly one of PaymentDeclined, PaymentVoided and PaymentRefunded ends a cancelled order. The first definite answer of the
//! gateway counts; an answer that is not pending changes nothing. An order that costs nothing is taken without a charge (there
//! is nothing to capture) and refunded without a request when cancelled, so taken and refunded amounts match order by order. A
//! negative amount is declined without a charge, because a charge of it would pay the customer.
//!
//! If the gateway does not answer a charge in time, PaymentAbandoned ends the order but not the payment. The payment ends when
//! the gateway has reported the result of the charge.

use runtime::{Decision, Received, TimestampMs};

use crate::{
    Payment,
    events::{
        CommandRefused, Event, Money, PaymentAbandoned, PaymentAwaited, PaymentDeclined, PaymentRefunded,
        PaymentRequested, PaymentTaken, PaymentVoidRequested, PaymentVoided, RefundFailed, RefundRequested,
    },
    evolve::{PaymentTerms, State},
    inbox::{Command, GatewayAnswered, GatewayOutcome, RetryRefund},
    reads::{Input, OrderCancelled, OrderPlaced},
};

/// The payment id and refund id where nothing was to be paid.
const NOTHING_TO_PAY: &str = "nothing-to-pay";
/// The reason of an abandoned payment, and of its refund.
const NO_ANSWER: &str = "the gateway gave no definite answer in time";

type Decided = Decision<Event, Command>;

/// Decides the events of an input.
#[must_use]
pub fn decide(payment: &Payment, state: &State, input: &Received<Input>) -> Decided {
    let at = input.at_ms;
    match &input.body {
        Input::OrderPlaced(placed) => on_placed(payment, state, placed, at),
        Input::StockReserved(reserved) => on_stock_reserved(payment, state, &reserved.order_id, at),
        Input::OrderCancelled(cancelled) => on_cancelled(state, cancelled, at),
        Input::GatewayAnswered(answer) => on_answer(state, answer, at),
        Input::TimerFired(timer) => on_timer(state, &input.key, timer.due_at, at),
        Input::RetryRefund(command) => retry_refund(state, command, at),
    }
}

/// The order and its reserved stock arrive in either order. The first one is remembered, the second one requests the money.
fn on_placed(payment: &Payment, state: &State, placed: &OrderPlaced, at: TimestampMs) -> Decided {
    let terms = || PaymentTerms {
        customer_id: placed.customer_id.clone(),
        amount: placed.total.clone(),
        payment_method: placed.payment_method.clone(),
    };
    match state {
        State::New => Decided::event(PaymentAwaited {
            order_id: placed.order_id.clone(),
            customer_id: Some(placed.customer_id.clone()),
            amount: Some(placed.total.clone()),
            payment_method: Some(placed.payment_method.clone()),
            stock_reserved: false,
            occurred_at: at,
        }),
        State::AwaitingOrder => request_charge(payment, &placed.order_id, terms(), at),
        _ => Decided::nothing(),
    }
}

fn on_stock_reserved(payment: &Payment, state: &State, order_id: &str, at: TimestampMs) -> Decided {
    match state {
        State::New => Decided::event(PaymentAwaited {
            order_id: order_id.to_owned(),
            customer_id: None,
            amount: None,
            payment_method: None,
            stock_reserved: true,
            occurred_at: at,
        }),
        State::AwaitingStock(terms) => request_charge(payment, order_id, terms.clone(), at),
        _ => Decided::nothing(),
    }
}

fn request_charge(payment: &Payment, order_id: &str, terms: PaymentTerms, at: TimestampMs) -> Decided {
    let PaymentTerms { customer_id, amount, payment_method } = terms;
    match amount.amount_minor {
        ..0 => declined(order_id, &customer_id, &amount, "the amount is negative", at),
        0 => taken(order_id, &customer_id, &amount, NOTHING_TO_PAY, at),
        1.. => Decided::event(PaymentRequested {
            order_id: order_id.to_owned(),
            customer_id,
            amount,
            payment_method,
            request_key: format!("charge-{order_id}"),
            occurred_at: at,
            answer_by: Some(at.saturating_add(payment.charge_deadline_ms.into())),
        }),
    }
}

/// The deadline of a charge. It has no effect once the charge is answered.
fn on_timer(state: &State, order_id: &str, due_at: TimestampMs, at: TimestampMs) -> Decided {
    match state {
        State::Charging { terms: PaymentTerms { customer_id, amount, .. }, request_key, answer_by: Some(by) }
            if *by == due_at =>
        {
            Decided::event(PaymentAbandoned {
                order_id: order_id.to_owned(),
                customer_id: customer_id.clone(),
                amount: amount.clone(),
                request_key: request_key.clone(),
                reason: NO_ANSWER.to_owned(),
                occurred_at: at,
            })
        }
        _ => Decided::nothing(),
    }
}

/// Compensates what was done, and nothing else.
fn on_cancelled(state: &State, cancelled: &OrderCancelled, at: TimestampMs) -> Decided {
    let (order_id, reason) = (&cancelled.order_id, &cancelled.detail);
    match state {
        State::New | State::AwaitingStock(_) | State::AwaitingOrder => voided(order_id, reason, at),
        State::Charging { request_key, .. } | State::Abandoned { request_key, .. } => {
            Decided::event(PaymentVoidRequested {
                order_id: order_id.clone(),
                request_key: request_key.clone(),
                reason: reason.clone(),
                occurred_at: at,
            })
        }
        State::Taken { amount, payment_id } if amount.amount_minor == 0 => {
            refunded(order_id, payment_id, amount, NOTHING_TO_PAY, at)
        }
        State::Taken { amount, payment_id } => Decided::event(first_refund(order_id, payment_id, amount, reason, at)),
        State::Voiding { .. }
        | State::Refunding { .. }
        | State::RefundRefused { .. }
        | State::Declined
        | State::Voided
        | State::Refunded => Decided::nothing(),
    }
}

/// A definite answer to the pending request. An answer to another request, or an incomplete one, changes nothing.
fn on_answer(state: &State, answer: &GatewayAnswered, at: TimestampMs) -> Decided {
    match state {
        State::Charging { terms, request_key, .. } if *request_key == answer.request_key => {
            on_charged(terms, answer, at)
        }
        State::Voiding { customer_id, amount, request_key, reason } if *request_key == answer.request_key => {
            on_late_answer(customer_id, amount, reason, answer, at)
        }
        State::Abandoned { customer_id, amount, request_key } if *request_key == answer.request_key => {
            on_late_answer(customer_id, amount, NO_ANSWER, answer, at)
        }
        State::Refunding { amount, payment_id, request_key, attempt } if *request_key == answer.request_key => {
            on_refund_answered(amount, payment_id, *attempt, answer, at)
        }
        _ => Decided::nothing(),
    }
}

fn on_charged(terms: &PaymentTerms, answer: &GatewayAnswered, at: TimestampMs) -> Decided {
    let PaymentTerms { customer_id, amount, .. } = terms;
    match (answer.outcome, &answer.payment_id) {
        (GatewayOutcome::Captured, Some(payment_id)) => taken(&answer.order_id, customer_id, amount, payment_id, at),
        (GatewayOutcome::Declined, _) => declined(&answer.order_id, customer_id, amount, reason_of(answer), at),
        // No void was requested; but a voided charge is never captured, and an order must not wait forever.
        (GatewayOutcome::Voided, _) => {
            declined(&answer.order_id, customer_id, amount, "the gateway reports the charge as voided", at)
        }
        _ => Decided::nothing(),
    }
}

/// The order is cancelled, or will be. The answer may be the delayed answer to the charge itself: only the result of the charge
/// counts.
fn on_late_answer(
    customer_id: &str,
    amount: &Money,
    reason: &str,
    answer: &GatewayAnswered,
    at: TimestampMs,
) -> Decided {
    let order_id = &answer.order_id;
    match (answer.outcome, &answer.payment_id) {
        (GatewayOutcome::Captured, Some(payment_id)) => taken(order_id, customer_id, amount, payment_id, at)
            .and_event(first_refund(order_id, payment_id, amount, reason, at)),
        (GatewayOutcome::Declined, _) => declined(order_id, customer_id, amount, reason_of(answer), at),
        (GatewayOutcome::Voided, _) => voided(order_id, reason, at),
        _ => Decided::nothing(),
    }
}

fn on_refund_answered(
    amount: &Money,
    payment_id: &str,
    attempt: i32,
    answer: &GatewayAnswered,
    at: TimestampMs,
) -> Decided {
    match (answer.outcome, &answer.refund_id) {
        (GatewayOutcome::Refunded, Some(refund_id)) => refunded(&answer.order_id, payment_id, amount, refund_id, at),
        (GatewayOutcome::Refused, _) => Decided::event(RefundFailed {
            order_id: answer.order_id.clone(),
            payment_id: payment_id.to_owned(),
            amount: amount.clone(),
            request_key: answer.request_key.clone(),
            attempt,
            reason: reason_of(answer).to_owned(),
            occurred_at: at,
        }),
        _ => Decided::nothing(),
    }
}

/// Requests a refused refund again, under a new key: the refusal of the earlier key is definite.
fn retry_refund(state: &State, command: &RetryRefund, at: TimestampMs) -> Decided {
    let order_id = &command.order_id;
    let refused = |reason: &str| {
        Decided::event(CommandRefused {
            entity_id: order_id.clone(),
            command: "RetryRefund".to_owned(),
            reason: reason.to_owned(),
            occurred_at: at,
        })
    };
    match state {
        State::RefundRefused { amount, payment_id, attempts } => {
            let attempt = attempts.saturating_add(1);
            let first = first_refund(order_id, payment_id, amount, "an operator asked for it again", at);
            Decided::event(RefundRequested { request_key: format!("refund-{order_id}-{attempt}"), attempt, ..first })
        }
        State::Refunding { .. } => refused("the refund is requested already"),
        State::Refunded => refused("the money was refunded"),
        _ => refused("the gateway has refused no refund of this order"),
    }
}

fn taken(order_id: &str, customer_id: &str, amount: &Money, payment_id: &str, at: TimestampMs) -> Decided {
    Decided::event(PaymentTaken {
        order_id: order_id.to_owned(),
        customer_id: customer_id.to_owned(),
        amount: amount.clone(),
        payment_id: payment_id.to_owned(),
        occurred_at: at,
    })
}

fn declined(order_id: &str, customer_id: &str, amount: &Money, reason: &str, at: TimestampMs) -> Decided {
    Decided::event(PaymentDeclined {
        order_id: order_id.to_owned(),
        customer_id: customer_id.to_owned(),
        amount: amount.clone(),
        reason: reason.to_owned(),
        occurred_at: at,
    })
}

fn voided(order_id: &str, reason: &str, at: TimestampMs) -> Decided {
    Decided::event(PaymentVoided { order_id: order_id.to_owned(), reason: reason.to_owned(), occurred_at: at })
}

fn refunded(order_id: &str, payment_id: &str, amount: &Money, refund_id: &str, at: TimestampMs) -> Decided {
    Decided::event(PaymentRefunded {
        order_id: order_id.to_owned(),
        payment_id: payment_id.to_owned(),
        amount: amount.clone(),
        refund_id: refund_id.to_owned(),
        occurred_at: at,
    })
}

fn first_refund(order_id: &str, payment_id: &str, amount: &Money, reason: &str, at: TimestampMs) -> RefundRequested {
    RefundRequested {
        order_id: order_id.to_owned(),
        payment_id: payment_id.to_owned(),
        amount: amount.clone(),
        request_key: format!("refund-{order_id}"),
        reason: reason.to_owned(),
        occurred_at: at,
        attempt: 1,
    }
}

fn reason_of(answer: &GatewayAnswered) -> &str {
    answer.reason.as_deref().unwrap_or("the gateway gave no reason")
}
