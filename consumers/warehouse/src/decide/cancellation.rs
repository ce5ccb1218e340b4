//! Whether an order can still be cancelled. The warehouse alone decides: it alone knows whether the parcel is packed.
//!
//! An accepted cancellation is a promise: nothing more is held, picked, packed or sent for the order, and what is held stays held
//! until OrderCancelled, the one trigger that undoes, is heard.

use runtime::TimestampMs;

use super::Decided;
use crate::{
    events::{CancellationAccepted, CancellationRefused},
    evolve::{Attempt, Fulfilment, Phase},
    reads::OrderCancellationRequested,
};

/// Each request is answered once. A cancelled order has no open request.
pub(super) fn on_requested(order: Option<&Fulfilment>, asked: &OrderCancellationRequested, at: TimestampMs) -> Decided {
    let answered = |order: &Fulfilment| order.is_cancelled() || order.answered_request >= asked.request;
    if order.is_some_and(answered) {
        return Decided::nothing();
    }
    let (order_id, request) = (asked.order_id.clone(), asked.request);
    match order.and_then(too_late) {
        None => Decided::event(CancellationAccepted { order_id, request, occurred_at: at }),
        Some(reason) => {
            Decided::event(CancellationRefused { order_id, request, reason: reason.to_owned(), occurred_at: at })
        }
    }
}

/// What makes it too late, if anything does.
fn too_late(order: &Fulfilment) -> Option<&'static str> {
    match &order.phase {
        // The courier has not taken it and will not: nothing stands in the way any more.
        Phase::Packaged { dispatch, .. } if dispatch.attempt == Attempt::Abandoned => None,
        Phase::Packaged { .. } => Some("the parcel is packed"),
        Phase::Dispatched => Some("the parcel is on its way"),
        Phase::Unplaced
        | Phase::Reserving
        | Phase::Short
        | Phase::Reserved
        | Phase::Picking
        | Phase::PackagingFailed { .. }
        | Phase::Unpacking => None,
    }
}
