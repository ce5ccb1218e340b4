//! How the order-processor decides. Pure: no clock, no look-up, no I/O; an input's time is its record's.
//!
//! Facts take effect in the order of the story, whatever order they are heard in:
//!
//! | heard | in `placed` | in `paid` | in `picking` | in `shipped` | ended |
//! |---|---|---|---|---|---|
//! | PaymentTaken | OrderPaid, then what was noted | – | – | – | – |
//! | PickingStarted | noted | OrderPicking, then what was noted | – | – | – |
//! | OrderDispatched | noted | noted | OrderShipped, then what was noted | – | – |
//! | PointsAwarded | noted | noted | noted | OrderCompleted | – |
//! | StockShort, PaymentDeclined, PackagingFailed | OrderCancelled | OrderCancelled | OrderCancelled | – | – |
//!
//! A dash is silence: the fact was heard before, or came too late to matter. A fact about an order that was never placed is
//! silence too: every fact is caused by an own event of that order, so none can be heard before it.

use std::collections::BTreeSet;

use runtime::{Decision, Heard, TimestampMs};

use crate::{
    events::{
        CancelReason, CommandRefused, Event, Money, NotedFact, OrderCancelled, OrderCompleted, OrderFactNoted,
        OrderLine, OrderPaid, OrderPicking, OrderPlaced, OrderRejected, OrderShipped, RejectReason,
    },
    evolve::{Dispatch, Noted, Order, State, Status},
    inbox::{Command, PlaceOrder, RequestedLine},
    reads::Input,
};

/// The most lines that one order may have.
pub const MAX_LINES: usize = 200;
/// The most copies of one album that one order may have.
pub const MAX_QUANTITY: i32 = 1_000;
/// The most that one order may cost, in minor units of its currency.
pub const MAX_TOTAL_MINOR: i64 = 100_000_000;

/// Decides what comes of an input.
pub fn decide(state: &State, input: &Heard<Input>) -> Decision<Event, Command> {
    let at = input.at_ms;
    let events = match &input.body {
        Input::PlaceOrder(command) => place(state, command, at),
        Input::PaymentTaken(fact) => go_on(state, Fact::Paid { payment_id: &fact.payment_id }, at),
        Input::PickingStarted(_) => go_on(state, Fact::PickingStarted, at),
        Input::OrderDispatched(fact) => {
            let dispatch = Dispatch { carrier: fact.carrier.clone(), tracking_number: fact.tracking_number.clone() };
            go_on(state, Fact::Dispatched(dispatch), at)
        }
        Input::PointsAwarded(fact) => go_on(state, Fact::PointsAwarded(fact.points), at),
        Input::StockShort(fact) => {
            let detail = format!("{} of {} wanted, {} free", fact.wanted, fact.sku, fact.free);
            cancel(state, CancelReason::OutOfStock, detail, at)
        }
        Input::PaymentDeclined(fact) => cancel(state, CancelReason::PaymentDeclined, fact.reason.clone(), at),
        Input::PackagingFailed(fact) => cancel(state, CancelReason::LostAtPackaging, fact.detail.clone(), at),
    };
    Decision { events, sends: Vec::new() }
}

/// A request is answered once. Asked again it is silence, because the answer stands in the log; asked otherwise it is refused.
fn place(state: &State, command: &PlaceOrder, at: TimestampMs) -> Vec<Event> {
    if state.status != Status::Unplaced {
        return if state.request_digest == command.request_digest {
            Vec::new()
        } else {
            vec![refused(command, "another request was answered under this order id", at)]
        };
    }
    vec![match accept(command, at) {
        Ok(placed) => placed.into(),
        Err(No::Rejected(reason, detail)) => OrderRejected {
            order_id: command.order_id.clone(),
            customer_id: command.customer_id.clone(),
            reason,
            detail,
            request_digest: command.request_digest.clone(),
            occurred_at: at,
        }
        .into(),
        Err(No::Malformed(reason)) => refused(command, reason, at),
    }]
}

fn refused(command: &PlaceOrder, reason: impl Into<String>, at: TimestampMs) -> Event {
    CommandRefused {
        entity_id: command.order_id.clone(),
        command: "PlaceOrder".to_owned(),
        reason: reason.into(),
        occurred_at: at,
    }
    .into()
}

/// Why there is no order.
enum No {
    /// A rule of the shop: the customer may read it.
    Rejected(RejectReason, String),
    /// No edge of ours sends such a command.
    Malformed(String),
}

fn accept(command: &PlaceOrder, at: TimestampMs) -> Result<OrderPlaced, No> {
    well_formed(command)?;
    let reject = |reason, detail: String| Err(No::Rejected(reason, detail));
    let contact = match &command.customer {
        None => return reject(RejectReason::UnknownCustomer, format!("no customer {}", command.customer_id)),
        Some(customer) if customer.forgotten => {
            return reject(RejectReason::CustomerForgotten, format!("customer {} was forgotten", command.customer_id));
        }
        Some(customer) => customer.contact.clone(),
    };
    if command.lines.len() > MAX_LINES {
        return reject(RejectReason::TooLarge, format!("{} lines, at most {MAX_LINES}", command.lines.len()));
    }
    let lines = command.lines.iter().map(priced).collect::<Result<Vec<_>, No>>()?;
    let total = sum(&lines)?;
    Ok(OrderPlaced {
        order_id: command.order_id.clone(),
        customer_id: command.customer_id.clone(),
        contact,
        ship_to: command.ship_to.clone(),
        lines,
        total,
        payment_method: command.payment_method.clone(),
        request_digest: command.request_digest.clone(),
        occurred_at: at,
    })
}

/// What the edge checks before it asks. Commands also come from operators, so it is checked again here.
fn well_formed(command: &PlaceOrder) -> Result<(), No> {
    if command.lines.is_empty() {
        return Err(No::Malformed("the order has no lines".to_owned()));
    }
    let mut skus = BTreeSet::new();
    for line in &command.lines {
        if line.quantity < 1 {
            return Err(No::Malformed(format!("{} copies of {} make no line", line.quantity, line.sku)));
        }
        if !skus.insert(&line.sku) {
            return Err(No::Malformed(format!("the sku {} stands in two lines", line.sku)));
        }
    }
    Ok(())
}

fn priced(line: &RequestedLine) -> Result<OrderLine, No> {
    let sku = &line.sku;
    let Some(album) = &line.album else {
        return Err(No::Rejected(RejectReason::UnknownSku, format!("nobody lists the sku {sku}")));
    };
    let Some(unit_price) = &album.unit_price else {
        return Err(No::Rejected(RejectReason::PriceGone, format!("{sku} is no longer sold")));
    };
    if unit_price.amount_minor < 1 {
        return Err(No::Malformed(format!("the price of {sku} is {}", unit_price.amount_minor)));
    }
    if line.quantity > MAX_QUANTITY {
        let detail = format!("{} copies of {sku}, at most {MAX_QUANTITY}", line.quantity);
        return Err(No::Rejected(RejectReason::TooLarge, detail));
    }
    let amount_minor = unit_price.amount_minor.checked_mul(i64::from(line.quantity)).ok_or_else(too_dear)?;
    Ok(OrderLine {
        sku: sku.clone(),
        title: album.title.clone(),
        artist: album.artist.clone(),
        quantity: line.quantity,
        unit_price: unit_price.clone(),
        line_total: Money { amount_minor, currency: unit_price.currency.clone() },
    })
}

fn sum(lines: &[OrderLine]) -> Result<Money, No> {
    let Some((first, others)) = lines.split_first() else {
        return Err(No::Malformed("the order has no lines".to_owned()));
    };
    let mut total = first.line_total.clone();
    for line in others {
        let money = &line.line_total;
        if money.currency != total.currency {
            let detail = format!("{} and {} in one order", total.currency, money.currency);
            return Err(No::Rejected(RejectReason::MixedCurrencies, detail));
        }
        total.amount_minor = total.amount_minor.checked_add(money.amount_minor).ok_or_else(too_dear)?;
    }
    if total.amount_minor > MAX_TOTAL_MINOR { Err(too_dear()) } else { Ok(total) }
}

fn too_dear() -> No {
    No::Rejected(RejectReason::TooLarge, format!("the total is above {MAX_TOTAL_MINOR} minor units"))
}

/// A fact that carries an order on.
enum Fact<'a> {
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
fn go_on(state: &State, fact: Fact<'_>, at: TimestampMs) -> Vec<Event> {
    let Some(order) = &state.order else { return Vec::new() };
    if fact.follows() == state.status {
        return take_effect(order, &state.noted, fact, at);
    }
    note(state, order, fact, at).into_iter().collect()
}

/// The fact's event, and those of the facts that were only waiting for it.
fn take_effect(order: &Order, noted: &Noted, fact: Fact<'_>, at: TimestampMs) -> Vec<Event> {
    let mut events = Vec::with_capacity(1);
    let mut next = Some(fact);
    while let Some(fact) = next {
        next = match fact {
            Fact::Paid { payment_id } => {
                events.push(paid(order, payment_id, at));
                noted.picking_started.then_some(Fact::PickingStarted)
            }
            Fact::PickingStarted => {
                events.push(picking(order, at));
                noted.dispatch.clone().map(Fact::Dispatched)
            }
            Fact::Dispatched(dispatch) => {
                events.push(shipped(order, dispatch, at));
                noted.points.map(Fact::PointsAwarded)
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

/// Cancels an open order whose parcel is not yet gone.
fn cancel(state: &State, reason: CancelReason, detail: String, at: TimestampMs) -> Vec<Event> {
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
