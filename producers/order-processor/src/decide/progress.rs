//! Facts that advance an order, in the order of fulfilment, regardless of the order in which they are received.

use runtime::TimestampMs;

use super::cancel;
use crate::{
    events::{Event, NotedFact, OrderCompleted, OrderFactNoted, OrderPaid, OrderPicking, OrderShipped},
    evolve::{Order, OrderPhase, Shipment, State},
};

/// A fact that advances an order.
pub(super) enum ProgressFact<'a> {
    Paid { payment_id: &'a str },
    PickingStarted,
    Dispatched(Shipment),
    PointsAwarded(i64),
}

impl ProgressFact<'_> {
    /// The phase that the fact advances an order from.
    fn follows(&self) -> OrderPhase {
        match self {
            ProgressFact::Paid { .. } => OrderPhase::Placed,
            ProgressFact::PickingStarted => OrderPhase::Paid,
            ProgressFact::Dispatched(_) => OrderPhase::Picking,
            ProgressFact::PointsAwarded(_) => OrderPhase::Shipped,
        }
    }
}

/// Applies a fact now, notes it for later, or ignores it.
pub(super) fn advance(state: &State, fact: ProgressFact<'_>, at: TimestampMs) -> Vec<Event> {
    let Some(order) = &state.order else { return Vec::new() };
    if fact.follows() == state.phase {
        return take_effect(state, order, fact, at);
    }
    note(state, order, fact, at).into_iter().collect()
}

/// The event of the fact, and those of the noted facts that it releases.
fn take_effect(state: &State, order: &Order, fact: ProgressFact<'_>, at: TimestampMs) -> Vec<Event> {
    let mut events = Vec::with_capacity(1);
    let mut next = Some(fact);
    while let Some(fact) = next {
        next = match fact {
            ProgressFact::Paid { payment_id } => {
                events.push(paid(order, payment_id, at));
                state.noted.picking_started.then_some(ProgressFact::PickingStarted)
            }
            ProgressFact::PickingStarted => {
                events.push(picking(order, at));
                state.noted.shipment.clone().map(ProgressFact::Dispatched)
            }
            ProgressFact::Dispatched(shipment) => {
                events.push(shipped(order, shipment, at));
                events.extend(cancel::refused_by_dispatch(state, order, at));
                state.noted.points.map(ProgressFact::PointsAwarded)
            }
            ProgressFact::PointsAwarded(points) => {
                events.push(completed(order, points, at));
                None
            }
        };
    }
    events
}

/// Notes a fact that was received early, once. A repeated fact is ignored.
fn note(state: &State, order: &Order, fact: ProgressFact<'_>, at: TimestampMs) -> Option<Event> {
    let early = |reached: &[OrderPhase]| !reached.contains(&state.phase);
    let mut event = OrderFactNoted {
        order_id: order.order_id.clone(),
        fact: NotedFact::Unknown,
        carrier: None,
        tracking_number: None,
        points: None,
        occurred_at: at,
    };
    match fact {
        ProgressFact::PickingStarted
            if early(&[OrderPhase::Picking, OrderPhase::Shipped]) && !state.noted.picking_started =>
        {
            event.fact = NotedFact::PickingStarted;
        }
        ProgressFact::Dispatched(shipment) if early(&[OrderPhase::Shipped]) && state.noted.shipment.is_none() => {
            event.fact = NotedFact::Dispatched;
            event.carrier = Some(shipment.carrier);
            event.tracking_number = Some(shipment.tracking_number);
        }
        ProgressFact::PointsAwarded(points) if state.noted.points.is_none() => {
            event.fact = NotedFact::PointsAwarded;
            event.points = Some(points);
        }
        _ => return None,
    }
    Some(event.into())
}

fn paid(order: &Order, payment_id: &str, at: TimestampMs) -> Event {
    OrderPaid {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        contact: order.contact.clone(),
        lines: order.lines.clone(),
        total: order.total.clone(),
        payment_id: payment_id.to_owned(),
        occurred_at: at,
    }
    .into()
}

fn picking(order: &Order, at: TimestampMs) -> Event {
    OrderPicking {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        lines: order.lines.clone(),
        occurred_at: at,
    }
    .into()
}

fn shipped(order: &Order, shipment: Shipment, at: TimestampMs) -> Event {
    OrderShipped {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        contact: order.contact.clone(),
        ship_to: order.ship_to.clone(),
        lines: order.lines.clone(),
        total: order.total.clone(),
        carrier: shipment.carrier,
        tracking_number: shipment.tracking_number,
        occurred_at: at,
    }
    .into()
}

fn completed(order: &Order, points_awarded: i64, at: TimestampMs) -> Event {
    OrderCompleted {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        lines: order.lines.clone(),
        total: order.total.clone(),
        points_awarded,
        occurred_at: at,
    }
    .into()
}
