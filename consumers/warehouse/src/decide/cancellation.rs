//! Decides whether an order can still be cancelled. Only the warehouse knows whether the parcel is packed.
//!
//! An accepted cancellation is a promise: nothing more is held, picked, packed or dispatched for the order, and held items stay
//! held until OrderCancelled is received, the one event that starts a release.

use runtime::TimestampMs;

use super::Decided;
use crate::{
    events::{CancellationAccepted, CancellationRefused},
    evolve::{AttemptStatus, Fulfilment, FulfilmentPhase},
    reads::OrderCancellationRequested,
};

/// Each request is answered once. A cancelled order has no open request.
pub(super) fn on_requested(
    order: Option<&Fulfilment>,
    requested: &OrderCancellationRequested,
    at: TimestampMs,
) -> Decided {
    let answered = |order: &Fulfilment| order.is_cancelled() || order.answered_request >= requested.request;
    if order.is_some_and(answered) {
        return Decided::nothing();
    }
    let (order_id, request) = (requested.order_id.clone(), requested.request);
    match order.and_then(too_late) {
        None => Decided::event(CancellationAccepted { order_id, request, occurred_at: at }),
        Some(reason) => {
            Decided::event(CancellationRefused { order_id, request, reason: reason.to_owned(), occurred_at: at })
        }
    }
}

/// Why it is too late, if it is.
fn too_late(order: &Fulfilment) -> Option<&'static str> {
    match &order.phase {
        // The courier has not taken the parcel and will not, so the order can be cancelled.
        FulfilmentPhase::Packaged { dispatch, .. } if dispatch.attempt == AttemptStatus::Abandoned => None,
        FulfilmentPhase::Packaged { .. } => Some("the parcel is packed"),
        FulfilmentPhase::Dispatched => Some("the parcel is on its way"),
        FulfilmentPhase::Unplaced
        | FulfilmentPhase::Reserving
        | FulfilmentPhase::Short
        | FulfilmentPhase::Reserved
        | FulfilmentPhase::Picking
        | FulfilmentPhase::PackagingFailed { .. }
        | FulfilmentPhase::Unpacking => None,
    }
}
