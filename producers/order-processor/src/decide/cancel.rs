//! Cancelling an order: by a fact that stops it, or by a request that the warehouse accepts. Only the warehouse knows whether
//! the parcel is packed.
//!
//! | requested in | answer |
//! |---|---|
//! | `placed`, `paid`, `picking` | OrderCancellationRequested; nothing while a request is open, because its answer is pending |
//! | `shipped` | OrderCancellationRefused |
//! | `cancelled` | nothing: OrderCancelled is the answer |
//! | `completed`, `rejected`, never placed | CommandRefused |
//!
//! Requests are numbered, so a repeated answer is not mistaken for the answer to a later request. The dispatch of the parcel
//! answers an open request: the warehouse cannot have accepted it.

use runtime::TimestampMs;

use crate::{
    events::{
        CancelReason, CancelRequester, Event, OrderCancellationRefused, OrderCancellationRequested, OrderCancelled,
    },
    evolve::{CancelRequest, Order, OrderPhase, State},
    inbox::{CancelOrder, GiveUpOrder},
};

/// The request number in a refusal that the warehouse was not asked for.
const NO_REQUEST: i32 = 0;

/// A command to cancel an order.
pub(super) struct CancelCommand<'a> {
    order_id: &'a str,
    command: &'static str,
    requested_by: CancelRequester,
    reason: &'a str,
}

impl<'a> CancelCommand<'a> {
    pub(super) fn of_customer(command: &'a CancelOrder) -> Self {
        let CancelOrder { order_id, reason } = command;
        Self { order_id, command: "CancelOrder", requested_by: CancelRequester::Customer, reason }
    }

    pub(super) fn of_operator(command: &'a GiveUpOrder) -> Self {
        let GiveUpOrder { order_id, reason } = command;
        Self { order_id, command: "GiveUpOrder", requested_by: CancelRequester::Operator, reason }
    }
}

/// Decides a command to cancel.
pub(super) fn request(state: &State, command: &CancelCommand<'_>, at: TimestampMs) -> Vec<Event> {
    let refused = |reason: &str| vec![super::refused(command.order_id, command.command, reason, at)];
    match (state.phase, &state.order) {
        (OrderPhase::Placed | OrderPhase::Paid | OrderPhase::Picking, Some(_)) if state.cancel_request.is_some() => {
            Vec::new()
        }
        (OrderPhase::Placed | OrderPhase::Paid | OrderPhase::Picking, Some(order)) => vec![
            OrderCancellationRequested {
                order_id: order.order_id.clone(),
                customer_id: order.customer_id.clone(),
                request: state.cancel_requests.saturating_add(1),
                requested_by: command.requested_by,
                reason: command.reason.to_owned(),
                occurred_at: at,
            }
            .into(),
        ],
        (OrderPhase::Shipped, Some(order)) => {
            vec![too_late(order, NO_REQUEST, command.requested_by, "the parcel is on its way", at)]
        }
        (OrderPhase::Cancelled, _) => Vec::new(),
        (OrderPhase::Completed, _) => refused("the order is completed"),
        (OrderPhase::Rejected, _) => refused("the order was rejected"),
        _ => refused("no order of this id was placed"),
    }
}

/// The warehouse accepted the request.
pub(super) fn accepted(state: &State, request: i32, at: TimestampMs) -> Vec<Event> {
    let Some(open) = open_request(state, request) else { return Vec::new() };
    let (reason, who) = match open.requested_by {
        CancelRequester::Operator => (CancelReason::GivenUp, "an operator gave it up"),
        CancelRequester::Customer | CancelRequester::Unknown => (CancelReason::CustomerRequest, "the customer asked"),
    };
    let detail = if open.reason.is_empty() { who.to_owned() } else { format!("{who}: {}", open.reason) };
    cancel(state, reason, detail, at)
}

/// The warehouse refused the request.
pub(super) fn refused(state: &State, request: i32, reason: &str, at: TimestampMs) -> Vec<Event> {
    match (open_request(state, request), &state.order) {
        (Some(open), Some(order)) => vec![too_late(order, request, open.requested_by, reason, at)],
        _ => Vec::new(),
    }
}

/// The dispatch of the parcel refuses an open request.
pub(super) fn refused_by_dispatch(state: &State, order: &Order, at: TimestampMs) -> Option<Event> {
    let open = state.cancel_request.as_ref()?;
    Some(too_late(order, open.number, open.requested_by, "the parcel is on its way", at))
}

fn open_request(state: &State, request: i32) -> Option<&CancelRequest> {
    state.cancel_request.as_ref().filter(|open| open.number == request)
}

fn too_late(order: &Order, request: i32, requested_by: CancelRequester, reason: &str, at: TimestampMs) -> Event {
    OrderCancellationRefused {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        contact: order.contact.clone(),
        lines: order.lines.clone(),
        request,
        requested_by,
        reason: reason.to_owned(),
        occurred_at: at,
    }
    .into()
}

/// Cancels an open order whose parcel has not left.
pub(super) fn cancel(state: &State, reason: CancelReason, detail: String, at: TimestampMs) -> Vec<Event> {
    match &state.order {
        Some(order) if state.phase.may_become(OrderPhase::Cancelled) => vec![
            OrderCancelled {
                order_id: order.order_id.clone(),
                customer_id: order.customer_id.clone(),
                contact: order.contact.clone(),
                lines: order.lines.clone(),
                total: order.total.clone(),
                reason,
                detail,
                occurred_at: at,
            }
            .into(),
        ],
        _ => Vec::new(),
    }
}
