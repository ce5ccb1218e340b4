//! What an order's story makes of what it hears: hold its lines one after another in sku order, have them picked once they are
//! all held and paid. How the parcel is handed over stands in `dispatch`, how a cancelled order gives its stock back in `release`.

use std::collections::BTreeMap;

use runtime::TimestampMs;

use super::{
    Decided,
    release::{self, give_back_held},
};
use crate::{
    Warehouse,
    events::{
        ItemLine, LineHeld, OrderPackaged, PackagingFailed, PaymentNoted, PickingStarted, ReservationStarted,
        StockReserved, StockShort,
    },
    evolve::{Fulfilment, LineStock, Phase},
    inbox::{FreeItem, HoldItem, HoldResult, PickOutcome, PickResult},
    reads::{OrderLine, OrderPaid, OrderPlaced},
};

/// A placed order's first item is asked for; each further one when the one before is held. So two orders that want the same
/// items ask for them in the same order.
pub(super) fn on_placed(order: Option<&Fulfilment>, placed: &OrderPlaced, at: TimestampMs) -> Decided {
    if order.is_some_and(|order| order.phase != Phase::Unplaced || order.is_called_off()) {
        return Decided::nothing();
    }
    let lines = one_line_per_sku(&placed.lines);
    let started = Decided::event(ReservationStarted {
        order_id: placed.order_id.clone(),
        lines: lines.clone(),
        ship_to: placed.ship_to.clone(),
        occurred_at: at,
    });
    match lines.first() {
        Some(first) => and_hold(started, &placed.order_id, first),
        None => and_reserved(started, &placed.order_id, lines, order.is_some_and(|order| order.paid_early), at),
    }
}

/// An item's answer: the next line's turn, or the end of the reservation. Held without being wanted (a repeated HoldItem was
/// taken for a new one, long after the order ended): freed again.
pub(super) fn on_hold_result(order: Option<&Fulfilment>, result: &HoldResult, at: TimestampMs) -> Decided {
    let line = order.and_then(|order| Some((order, order.line(&result.sku)?)));
    match line {
        Some((order, line)) if line.stock == LineStock::Asked => {
            if result.held {
                on_held(order, result, at)
            } else {
                on_short(order, result, at)
            }
        }
        Some((_, line)) if matches!(line.stock, LineStock::Held | LineStock::Releasing) => Decided::nothing(),
        _ if result.held => Decided::command(
            result.sku.clone(),
            FreeItem { sku: result.sku.clone(), order_id: result.order_id.clone(), quantity: result.quantity },
        ),
        _ => Decided::nothing(),
    }
}

fn on_held(order: &Fulfilment, result: &HoldResult, at: TimestampMs) -> Decided {
    let held = Decided::event(LineHeld {
        order_id: order.order_id.clone(),
        sku: result.sku.clone(),
        quantity: result.quantity,
        occurred_at: at,
    });
    if order.is_cancelled() {
        let free = FreeItem { sku: result.sku.clone(), order_id: order.order_id.clone(), quantity: result.quantity };
        return held.and_command(result.sku.clone(), free);
    }
    if order.is_called_off() {
        return held;
    }
    match order.lines.iter().find(|line| line.stock == LineStock::Wanted) {
        Some(next) => and_hold(held, &order.order_id, &next.to_item_line()),
        None => and_reserved(held, &order.order_id, order.item_lines(), order.paid_early, at),
    }
}

fn on_short(order: &Fulfilment, result: &HoldResult, at: TimestampMs) -> Decided {
    let short = StockShort {
        order_id: order.order_id.clone(),
        sku: result.sku.clone(),
        wanted: result.quantity,
        free: result.free,
        occurred_at: at,
    };
    release::and_released_if_settled(order, Decided::event(short), at)
}

/// Paid: picked as soon as everything is held.
pub(super) fn on_paid(order: Option<&Fulfilment>, paid: &OrderPaid, at: TimestampMs) -> Decided {
    let noted = PaymentNoted { order_id: paid.order_id.clone(), occurred_at: at };
    let Some(order) = order else { return Decided::event(noted) };
    match order.phase {
        _ if order.is_called_off() => Decided::nothing(),
        Phase::Reserved => Decided::event(picking_started(&order.order_id, order.item_lines(), at)),
        Phase::Unplaced | Phase::Reserving if !order.paid_early => Decided::event(noted),
        _ => Decided::nothing(),
    }
}

/// The picking floor's answer. If the order was cancelled while the floor was at work, its items go back at once.
pub(super) fn on_pick_result(
    warehouse: &Warehouse,
    order: Option<&Fulfilment>,
    result: &PickResult,
    at: TimestampMs,
) -> Decided {
    let Some(order) = order.filter(|order| order.phase == Phase::Picking) else { return Decided::nothing() };
    match (result.outcome, &result.parcel_id) {
        (PickOutcome::Packaged, Some(parcel_id)) => {
            let packaged = Decided::event(OrderPackaged {
                order_id: order.order_id.clone(),
                parcel_id: parcel_id.clone(),
                lines: order.item_lines(),
                occurred_at: at,
                answer_by: Some(warehouse.courier_answers_by(at)),
            });
            if_cancelled_give_back(order, packaged, &[], "", at)
        }
        (PickOutcome::Missing, _) => {
            let missing = really_missing(order, &result.missing);
            let detail = result.detail.clone().unwrap_or_default();
            let failed = Decided::event(PackagingFailed {
                order_id: order.order_id.clone(),
                missing: missing.clone(),
                detail: detail.clone(),
                occurred_at: at,
            });
            if_cancelled_give_back(order, failed, &missing, &detail, at)
        }
        (PickOutcome::Packaged, None) | (PickOutcome::Unknown, _) => Decided::nothing(),
    }
}

fn if_cancelled_give_back(
    order: &Fulfilment,
    decided: Decided,
    missing: &[ItemLine],
    detail: &str,
    at: TimestampMs,
) -> Decided {
    if order.is_cancelled() {
        release::and_released_if_settled(order, give_back_held(order, decided, missing, detail), at)
    } else {
        decided
    }
}

fn and_hold(decided: Decided, order_id: &str, line: &ItemLine) -> Decided {
    let hold = HoldItem { sku: line.sku.clone(), order_id: order_id.to_owned(), quantity: line.quantity };
    decided.and_command(line.sku.clone(), hold)
}

fn and_reserved(decided: Decided, order_id: &str, lines: Vec<ItemLine>, paid: bool, at: TimestampMs) -> Decided {
    let reserved =
        decided.and_event(StockReserved { order_id: order_id.to_owned(), lines: lines.clone(), occurred_at: at });
    if paid { reserved.and_event(picking_started(order_id, lines, at)) } else { reserved }
}

fn picking_started(order_id: &str, lines: Vec<ItemLine>, at: TimestampMs) -> PickingStarted {
    PickingStarted { order_id: order_id.to_owned(), lines, occurred_at: at }
}

/// The lines in sku order, lines of one sku made one. A line that wants nothing holds nothing.
fn one_line_per_sku(lines: &[OrderLine]) -> Vec<ItemLine> {
    let mut quantities = BTreeMap::<&str, i32>::new();
    for line in lines.iter().filter(|line| line.quantity > 0) {
        let quantity = quantities.entry(&line.sku).or_default();
        *quantity = quantity.saturating_add(line.quantity);
    }
    quantities.into_iter().map(|(sku, quantity)| ItemLine { sku: sku.to_owned(), quantity }).collect()
}

/// What the floor misses, as far as the order holds it: the books are not corrected for what nobody has.
fn really_missing(order: &Fulfilment, missing: &[ItemLine]) -> Vec<ItemLine> {
    let pieces = |sku: &str| {
        let of_sku = missing.iter().filter(|line| line.sku == sku && line.quantity > 0);
        of_sku.fold(0_i32, |sum, line| sum.saturating_add(line.quantity))
    };
    let held = order
        .held_lines()
        .map(|line| ItemLine { sku: line.sku.clone(), quantity: pieces(&line.sku).min(line.quantity) });
    held.filter(|line| line.quantity > 0).collect()
}
