//! How facts carry an order on, in the order of the story, whatever order they are heard in.

use runtime::TimestampMs;

use super::cancel;
use crate::{
    events::{Event, NotedFact, OrderCompleted, OrderFactNoted, OrderPaid, OrderPicking, OrderShipped},
    evolve::{Dispatch, Order, State, Status},
};

/// A fact that carries an order on.
pub(super) enum Fact<'a> {
    Paid { payment_id: &'a str },
    PickingStarted,
    Dispatched(Dispatch),
    PointsAwarded(i64),
}

impl Fact<'_> {
    /// The status that the fact carries an order on from.
    fn follows(&self) -> Status {
        match self {
            Fact::Paid { .. } => Status::Placed,
            Fact::PickingStarted => Status::Paid,
            Fact::Dispatched(_) => Status::Picking,
            Fact::PointsAwarded(_) => Status::Shipped,
        }
    }
}

/// Lets a fact take effect now, note it for later, or pass it over.
pub(super) fn go_on(state: &State, fact: Fact<'_>, at: TimestampMs) -> Vec<Event> {
    let Some(order) = &state.order else { return Vec::new() };
    if fact.follows() == state.status {
        return take_effect(state, order, fact, at);
    }
    note(state, order, fact, at).into_iter().collect()
}

/// The fact's event, and those of the facts that were only waiting for it.
fn take_effect(state: &State, order: &Order, fact: Fact<'_>, at: TimestampMs) -> Vec<Event> {
    let mut events = Vec::with_capacity(1);
    let mut next = Some(fact);
    while let Some(fact) = next {
        next = match fact {
            Fact::Paid { payment_id } => {
                events.push(paid(order, payment_id, at));
                state.noted.picking_started.then_some(Fact::PickingStarted)
            }
            Fact::PickingStarted => {
                events.push(picking(order, at));
                state.noted.dispatch.clone().map(Fact::Dispatched)
            }
            Fact::Dispatched(dispatch) => {
                events.push(shipped(order, dispatch, at));
                events.extend(cancel::refused_by_dispatch(state, order, at));
                state.noted.points.map(Fact::PointsAwarded)
            }
            Fact::PointsAwarded(points) => {
                events.push(completed(order, points, at));
                None
            }
        };
    }
    events
}

/// Notes a fact that came early, once. A fact that came again is passed over.
fn note(state: &State, order: &Order, fact: Fact<'_>, at: TimestampMs) -> Option<Event> {
    let early = |reached: &[Status]| !reached.contains(&state.status);
    let mut event = OrderFactNoted {
        order_id: order.order_id.clone(),
        fact: NotedFact::Unknown,
        carrier: None,
        tracking_number: None,
        points: None,
        occurred_at: at,
    };
    match fact {
        Fact::PickingStarted if early(&[Status::Picking, Status::Shipped]) && !state.noted.picking_started => {
            event.fact = NotedFact::PickingStarted;
        }
        Fact::Dispatched(dispatch) if early(&[Status::Shipped]) && state.noted.dispatch.is_none() => {
            event.fact = NotedFact::Dispatched;
            event.carrier = Some(dispatch.carrier);
            event.tracking_number = Some(dispatch.tracking_number);
        }
        Fact::PointsAwarded(points) if state.noted.points.is_none() => {
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

fn shipped(order: &Order, dispatch: Dispatch, at: TimestampMs) -> Event {
    OrderShipped {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        contact: order.contact.clone(),
        ship_to: order.ship_to.clone(),
        lines: order.lines.clone(),
        total: order.total.clone(),
        carrier: dispatch.carrier,
        tracking_number: dispatch.tracking_number,
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
