//! Dispatching a parcel. After the courier refuses an attempt, the next one follows after a pause; each pause is twice as long
//! as the one before. An attempt that is not answered in time is withdrawn first, and only a confirmed withdrawal counts as a
//! refusal. So a dispatch is abandoned only when the courier has definitely not taken the parcel in any attempt, and a parcel
//! is never both given up and sent.

use runtime::TimestampMs;

use super::{
    Decided,
    release::{self, release_held, stock_released},
};
use crate::{
    Warehouse,
    events::{CommandRefused, DispatchAbandoned, DispatchDelayed, DispatchRequested, OrderDispatched},
    evolve::{AttemptStatus, DispatchProgress, Fulfilment, FulfilmentPhase},
    inbox::{CourierAnswer, CourierOutcome, RetryDispatch, ShipItem},
};

/// A definite answer of the courier to the current attempt, whether it was called to take the parcel or to withdraw the
/// attempt. An answer about an earlier attempt changes nothing: its refusal was definite.
pub(super) fn on_courier_answer(
    warehouse: &Warehouse,
    order: Option<&Fulfilment>,
    answer: &CourierAnswer,
    at: TimestampMs,
) -> Decided {
    let Some((order, parcel_id, dispatch)) = order.and_then(packed) else { return Decided::nothing() };
    if dispatch.number != answer.attempt || !order.is_being_handled() {
        return Decided::nothing();
    }
    match answer.outcome {
        CourierOutcome::Dispatched => dispatched(order, parcel_id, answer, at),
        CourierOutcome::Refused => {
            let reason = answer.reason.as_deref().unwrap_or("the courier refused without a reason");
            not_taken(warehouse, order, parcel_id, dispatch, reason, at)
        }
        CourierOutcome::Withdrawn => {
            not_taken(warehouse, order, parcel_id, dispatch, "the courier did not answer in time", at)
        }
        CourierOutcome::Unknown => Decided::nothing(),
    }
}

/// The goods have left, regardless of the status of the order.
fn dispatched(order: &Fulfilment, parcel_id: &str, answer: &CourierAnswer, at: TimestampMs) -> Decided {
    let (Some(carrier), Some(tracking_number)) = (&answer.carrier, &answer.tracking_number) else {
        return Decided::nothing();
    };
    let dispatched = Decided::event(OrderDispatched {
        order_id: order.order_id.clone(),
        parcel_id: parcel_id.to_owned(),
        carrier: carrier.clone(),
        tracking_number: tracking_number.clone(),
        occurred_at: at,
    });
    let shipped = order.held_lines().fold(dispatched, |decided, line| {
        let ship = ShipItem { sku: line.sku.clone(), order_id: order.order_id.clone(), quantity: line.quantity };
        decided.and_command(line.sku.clone(), ship)
    });
    if order.is_cancelled() { shipped.and_event(stock_released(&order.order_id, &[], at)) } else { shipped }
}

/// A definite refusal: the next attempt after a pause, or none. The parcel of a cancelled order is unpacked.
fn not_taken(
    warehouse: &Warehouse,
    order: &Fulfilment,
    parcel_id: &str,
    dispatch: DispatchProgress,
    reason: &str,
    at: TimestampMs,
) -> Decided {
    let (order_id, parcel_id) = (order.order_id.clone(), parcel_id.to_owned());
    let (attempt, reason) = (dispatch.number, reason.to_owned());
    let failed_in_round = attempt.saturating_sub(dispatch.first_of_round).saturating_add(1);
    if !order.is_cancelled() && failed_in_round < warehouse.dispatch_attempts.into() {
        let next_attempt_at = Some(at.saturating_add(warehouse.pause_ms(failed_in_round)));
        return Decided::event(DispatchDelayed {
            order_id,
            parcel_id,
            attempt,
            reason,
            next_attempt_at,
            occurred_at: at,
        });
    }
    let abandoned = Decided::event(DispatchAbandoned { order_id, parcel_id, attempt, reason, occurred_at: at });
    if order.is_cancelled() {
        release::and_released_if_settled(order, release_held(order, abandoned, &[], ""), at)
    } else {
        abandoned
    }
}

/// The deadline of an attempt has passed, or its pause is over. A timer that is not pending any more changes nothing.
pub(super) fn on_timer(
    warehouse: &Warehouse,
    order: Option<&Fulfilment>,
    due_at: TimestampMs,
    at: TimestampMs,
) -> Decided {
    let is_pending = |order: &&Fulfilment| order.wake_at() == Some(due_at);
    let Some((order, parcel_id, dispatch)) = order.filter(is_pending).and_then(packed) else {
        return Decided::nothing();
    };
    match dispatch.attempt {
        AttemptStatus::Requested { .. } => Decided::event(DispatchDelayed {
            order_id: order.order_id.clone(),
            parcel_id: parcel_id.to_owned(),
            attempt: dispatch.number,
            reason: "the courier has not answered in time".to_owned(),
            next_attempt_at: None,
            occurred_at: at,
        }),
        AttemptStatus::Pausing { .. } => Decided::event(next_attempt(warehouse, order, parcel_id, dispatch, at)),
        AttemptStatus::Withdrawing | AttemptStatus::Abandoned => Decided::nothing(),
    }
}

/// An operator retries an abandoned dispatch.
pub(super) fn retry(
    warehouse: &Warehouse,
    order: Option<&Fulfilment>,
    command: &RetryDispatch,
    at: TimestampMs,
) -> Decided {
    let refused = |reason: &str| {
        Decided::event(CommandRefused {
            entity_id: command.order_id.clone(),
            command: "RetryDispatch".to_owned(),
            reason: reason.to_owned(),
            occurred_at: at,
        })
    };
    match order.map(|order| (order, packed(order))) {
        Some((order, _)) if order.is_stopped() => refused("the order is cancelled"),
        Some((_, Some((order, parcel_id, dispatch)))) => match dispatch.attempt {
            AttemptStatus::Abandoned => Decided::event(next_attempt(warehouse, order, parcel_id, dispatch, at)),
            AttemptStatus::Pausing { .. } => refused("the dispatch is not abandoned: its next attempt is waiting"),
            AttemptStatus::Requested { .. } | AttemptStatus::Withdrawing => {
                refused("the dispatch is not abandoned: a call to the courier is pending")
            }
        },
        Some((order, None)) if order.phase == FulfilmentPhase::Dispatched => refused("the parcel is on its way"),
        Some((_, None)) => refused("the order is not packed"),
        None => refused("no order of this id is known"),
    }
}

fn packed(order: &Fulfilment) -> Option<(&Fulfilment, &str, DispatchProgress)> {
    match &order.phase {
        FulfilmentPhase::Packaged { parcel_id, dispatch } => Some((order, parcel_id, *dispatch)),
        _ => None,
    }
}

fn next_attempt(
    warehouse: &Warehouse,
    order: &Fulfilment,
    parcel_id: &str,
    dispatch: DispatchProgress,
    at: TimestampMs,
) -> DispatchRequested {
    DispatchRequested {
        order_id: order.order_id.clone(),
        parcel_id: parcel_id.to_owned(),
        attempt: dispatch.number.saturating_add(1),
        answer_by: Some(warehouse.courier_deadline(at)),
        occurred_at: at,
    }
}
