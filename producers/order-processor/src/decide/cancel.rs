//! How an order is cancelled: by a fact that stops it, or because somebody asked and the warehouse, which alone knows whether
//! the parcel is packed, agreed.
//!
//! | asked in | answer |
//! |---|---|
//! | `placed`, `paid`, `picking` | OrderCancellationRequested; nothing while a request is open, whose answer is on its way |
//! | `shipped` | OrderCancellationRefused |
//! | `cancelled` | nothing: OrderCancelled stands |
//! | `completed`, `rejected`, never placed | CommandRefused |
//!
//! Requests are numbered, so an answer that comes again is not taken for the answer to a later request. A parcel that turns out
//! to have left answers the open request itself: the warehouse cannot have accepted it.

use runtime::TimestampMs;

use crate::{
    events::{
        CancelReason, CancelRequester, Event, OrderCancellationRefused, OrderCancellationRequested, OrderCancelled,
    },
    evolve::{CancelRequest, Order, State, Status},
    inbox::{CancelOrder, GiveUpOrder},
};

/// The number of a request that the warehouse was never asked about.
const NOT_ASKED: i32 = 0;

/// A command that wants an order cancelled.
pub(super) struct Ask<'a> {
    order_id: &'a str,
    command: &'static str,
    requested_by: CancelRequester,
    reason: &'a str,
}

impl<'a> Ask<'a> {
    pub(super) fn of_customer(command: &'a CancelOrder) -> Self {
        let CancelOrder { order_id, reason } = command;
        Self { order_id, command: "CancelOrder", requested_by: CancelRequester::Customer, reason }
    }

    pub(super) fn of_operator(command: &'a GiveUpOrder) -> Self {
        let GiveUpOrder { order_id, reason } = command;
        Self { order_id, command: "GiveUpOrder", requested_by: CancelRequester::Operator, reason }
    }
}

/// Somebody asks.
pub(super) fn ask(state: &State, ask: &Ask<'_>, at: TimestampMs) -> Vec<Event> {
    let refused = |reason: &str| vec![super::refused(ask.order_id, ask.command, reason, at)];
    match (state.status, &state.order) {
        (Status::Placed | Status::Paid | Status::Picking, Some(_)) if state.cancel_request.is_some() => Vec::new(),
        (Status::Placed | Status::Paid | Status::Picking, Some(order)) => vec![
            OrderCancellationRequested {
                order_id: order.order_id.clone(),
                customer_id: order.customer_id.clone(),
                request: state.cancel_requests.saturating_add(1),
                requested_by: ask.requested_by,
                reason: ask.reason.to_owned(),
                occurred_at: at,
            }
            .into(),
        ],
        (Status::Shipped, Some(order)) => {
            vec![too_late(order, NOT_ASKED, ask.requested_by, "the parcel is on its way", at)]
        }
        (Status::Cancelled, _) => Vec::new(),
        (Status::Completed, _) => refused("the order is completed"),
        (Status::Rejected, _) => refused("the order was rejected"),
        _ => refused("no order of this id was placed"),
    }
}

/// The warehouse will not pack it.
pub(super) fn accepted(state: &State, request: i32, at: TimestampMs) -> Vec<Event> {
    let Some(open) = open_request(state, request) else { return Vec::new() };
    let (reason, who) = match open.requested_by {
        CancelRequester::Operator => (CancelReason::GivenUp, "an operator gave it up"),
        CancelRequester::Customer | CancelRequester::Unknown => (CancelReason::CustomerRequest, "the customer asked"),
    };
    let detail = if open.reason.is_empty() { who.to_owned() } else { format!("{who}: {}", open.reason) };
    cancel(state, reason, detail, at)
}

/// The warehouse has packed it already.
pub(super) fn refused(state: &State, request: i32, reason: &str, at: TimestampMs) -> Vec<Event> {
    match (open_request(state, request), &state.order) {
        (Some(open), Some(order)) => vec![too_late(order, request, open.requested_by, reason, at)],
        _ => Vec::new(),
    }
}

/// The parcel has left while a request was open.
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

/// Cancels an open order whose parcel is not yet gone.
pub(super) fn cancel(state: &State, reason: CancelReason, detail: String, at: TimestampMs) -> Vec<Event> {
    match &state.order {
        Some(order) if state.status.may_become(Status::Cancelled) => vec![
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
