//! What holds an order up without ending it: a dispatch that is delayed or abandoned, a refund that is refused.
//!
//! The customer hears of a delay once. A person is needed once per failed attempt: the number of the attempt tells a repeated fact
//! from a new one, and is remembered beyond the end of the order, because refunds fail after it.

use runtime::TimestampMs;

use crate::{
    events::{AttentionNeed, Event, OrderDelayed, OrderNeedsAttention},
    evolve::{State, Status},
    reads::{DispatchAbandoned, DispatchDelayed, RefundFailed},
};

/// The courier has not taken the parcel yet.
pub(super) fn dispatch_delayed(state: &State, fact: &DispatchDelayed, at: TimestampMs) -> Vec<Event> {
    match &state.order {
        Some(order) if state.status != Status::Shipped && !state.trouble.delay_told => vec![
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
    let is_open = state.order.is_some() && state.status != Status::Shipped;
    if is_open && fact.attempt > state.trouble.dispatch_attempt {
        vec![needs_attention(&fact.order_id, AttentionNeed::DispatchAbandoned, fact.attempt, &fact.reason, at)]
    } else {
        Vec::new()
    }
}

/// The gateway will not pay the money of a cancelled order back.
pub(super) fn refund_failed(state: &State, fact: &RefundFailed, at: TimestampMs) -> Vec<Event> {
    let was_placed = !matches!(state.status, Status::Unplaced | Status::Rejected);
    if was_placed && fact.attempt > state.trouble.refund_attempt {
        vec![needs_attention(&fact.order_id, AttentionNeed::RefundFailed, fact.attempt, &fact.reason, at)]
    } else {
        Vec::new()
    }
}

fn needs_attention(order_id: &str, need: AttentionNeed, attempt: i32, detail: &str, at: TimestampMs) -> Event {
    OrderNeedsAttention { order_id: order_id.to_owned(), need, attempt, detail: detail.to_owned(), occurred_at: at }
        .into()
}
