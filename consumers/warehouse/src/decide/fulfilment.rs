//! Fulfilling an order: its lines are held one after another in sku order, and picked once all are held and the order is paid.
//! `dispatch` has the dispatch of the parcel, `release` the release of a cancelled order.

use std::collections::BTreeMap;

use runtime::TimestampMs;

use super::{
    Decided,
    release::{self, release_held},
};
use crate::{
    Warehouse,
    events::{
        ItemLine, LineHeld, OrderPackaged, PackagingFailed, PaymentNoted, PickingStarted, ReservationStarted,
        StockReserved, StockShort,
    },
    evolve::{Fulfilment, FulfilmentPhase, LineStock},
    inbox::{FreeItem, HoldItem, HoldResult, PickOutcome, PickResult},
    reads::{OrderLine, OrderPaid, OrderPlaced},
};

/// Requests the first item of a placed order. Each further item is requested when the one before is held, so two orders that
/// want the same items request them in the same order.
pub(super) fn on_placed(order: Option<&Fulfilment>, placed: &OrderPlaced, at: TimestampMs) -> Decided {
    if order.is_some_and(|order| order.phase != FulfilmentPhase::Unplaced || order.is_stopped()) {
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

/// The answer of an item: requests the next line, or ends the reservation. An item that is held without being wanted is freed
/// again; this happens when a repeated HoldItem is taken for a new one, long after the order ended.
pub(super) fn on_hold_result(order: Option<&Fulfilment>, result: &HoldResult, at: TimestampMs) -> Decided {
    let line = order.and_then(|order| Some((order, order.line(&result.sku)?)));
    match line {
        Some((order, line)) if line.stock == LineStock::Requested => {
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
    if order.is_stopped() {
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

/// A paid order is picked as soon as every line is held.
pub(super) fn on_paid(order: Option<&Fulfilment>, paid: &OrderPaid, at: TimestampMs) -> Decided {
    let noted = PaymentNoted { order_id: paid.order_id.clone(), occurred_at: at };
    let Some(order) = order else { return Decided::event(noted) };
    match order.phase {
        _ if order.is_stopped() => Decided::nothing(),
        FulfilmentPhase::Reserved => Decided::event(picking_started(&order.order_id, order.item_lines(), at)),
        FulfilmentPhase::Unplaced | FulfilmentPhase::Reserving if !order.paid_early => Decided::event(noted),
        _ => Decided::nothing(),
    }
}

/// The answer of picking. If the order was cancelled meanwhile, its items are released at once.
pub(super) fn on_pick_result(
    warehouse: &Warehouse,
    order: Option<&Fulfilment>,
    result: &PickResult,
    at: TimestampMs,
) -> Decided {
    let Some(order) = order.filter(|order| order.phase == FulfilmentPhase::Picking) else { return Decided::nothing() };
    match (result.outcome, &result.parcel_id) {
        (PickOutcome::Packaged, Some(parcel_id)) => {
            let packaged = Decided::event(OrderPackaged {
                order_id: order.order_id.clone(),
                parcel_id: parcel_id.clone(),
                lines: order.item_lines(),
                occurred_at: at,
                answer_by: Some(warehouse.courier_deadline(at)),
            });
            and_released_if_cancelled(order, packaged, &[], "", at)
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
            and_released_if_cancelled(order, failed, &missing, &detail, at)
        }
        (PickOutcome::Packaged, None) | (PickOutcome::Unknown, _) => Decided::nothing(),
    }
}

fn and_released_if_cancelled(
    order: &Fulfilment,
    decided: Decided,
    missing: &[ItemLine],
    detail: &str,
    at: TimestampMs,
) -> Decided {
    if order.is_cancelled() {
        release::and_released_if_settled(order, release_held(order, decided, missing, detail), at)
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

/// The lines in sku order, one per sku. Lines with no quantity are dropped.
fn one_line_per_sku(lines: &[OrderLine]) -> Vec<ItemLine> {
    let mut quantities = BTreeMap::<&str, i32>::new();
    for line in lines.iter().filter(|line| line.quantity > 0) {
        let quantity = quantities.entry(&line.sku).or_default();
        *quantity = quantity.saturating_add(line.quantity);
    }
    quantities.into_iter().map(|(sku, quantity)| ItemLine { sku: sku.to_owned(), quantity }).collect()
}

/// The missing items, limited to what the order holds: the stock is not corrected for items that the order does not hold.
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
