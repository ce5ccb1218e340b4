//! Issues that delay an order without ending it: a delayed or abandoned dispatch, a refused refund.
//!
//! The customer is notified of a delay once. A person is notified once per failed attempt: the number of the attempt
//! distinguishes a repeated fact from a new one. It is remembered beyond the end of the order, because refunds fail after the
//! end.

use runtime::TimestampMs;

use crate::{
    events::{AttentionNeed, Event, OrderDelayed, OrderNeedsAttention},
    evolve::{OrderPhase, State},
    reads::{DispatchAbandoned, DispatchDelayed, RefundFailed},
};

/// The courier has not taken the parcel yet.
pub(super) fn dispatch_delayed(state: &State, fact: &DispatchDelayed, at: TimestampMs) -> Vec<Event> {
    match &state.order {
        Some(order) if state.phase != OrderPhase::Shipped && !state.reported.delay_reported => vec![
            OrderDelayed {
                order_id: order.order_id.clone(),
                customer_id: order.customer_id.clone(),
                contact: order.contact.clone(),
                lines: order.lines.clone(),
                reason: fact.reason.clone(),
                occurred_at: at,
            }
            .into(),
        ],
        _ => Vec::new(),
    }
}

/// The courier will not take the parcel.
pub(super) fn dispatch_abandoned(state: &State, fact: &DispatchAbandoned, at: TimestampMs) -> Vec<Event> {
    let is_open = state.order.is_some() && state.phase != OrderPhase::Shipped;
    if is_open && fact.attempt > state.reported.dispatch_attempt {
        vec![needs_attention(&fact.order_id, AttentionNeed::DispatchAbandoned, fact.attempt, &fact.reason, at)]
    } else {
        Vec::new()
    }
}

/// The gateway refuses the refund of a cancelled order.
pub(super) fn refund_failed(state: &State, fact: &RefundFailed, at: TimestampMs) -> Vec<Event> {
    let was_placed = !matches!(state.phase, OrderPhase::Unplaced | OrderPhase::Rejected);
    if was_placed && fact.attempt > state.reported.refund_attempt {
        vec![needs_attention(&fact.order_id, AttentionNeed::RefundFailed, fact.attempt, &fact.reason, at)]
    } else {
        Vec::new()
    }
}

fn needs_attention(order_id: &str, need: AttentionNeed, attempt: i32, detail: &str, at: TimestampMs) -> Event {
    OrderNeedsAttention { order_id: order_id.to_owned(), need, attempt, detail: detail.to_owned(), occurred_at: at }
        .into()
}
