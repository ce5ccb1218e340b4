//! Releasing the stock of a cancelled order: every held line is freed, or written off as far as it is missing. `StockReleased`
//! is produced once, when no answer is pending.
//!
//! Nothing is released while picking or the courier has the goods. A hold whose answer is pending is released when the answer
//! arrives: an item never has two pending requests of one order.

use runtime::TimestampMs;

use super::Decided;
use crate::{
    events::{Event, ItemLine, LineReleased, ReleaseStarted, StockReleased},
    evolve::{Fulfilment, FulfilmentLine, FulfilmentPhase, LineStock, State, evolve},
    inbox::{Command, FreeItem, FreeResult, WriteOffItem, WriteOffResult},
};

/// Starts the release of a cancelled order. An order without OrderPlaced has no stock, and a later OrderPlaced finds it
/// cancelled.
pub(super) fn on_cancelled(order: Option<&Fulfilment>, order_id: &str, at: TimestampMs) -> Decided {
    let Some(order) = order else {
        let started = ReleaseStarted { order_id: order_id.to_owned(), lines: Vec::new(), occurred_at: at };
        return Decided::event(started).and_event(stock_released(order_id, &[], at));
    };
    if order.is_cancelled() {
        return Decided::nothing();
    }
    let held = order.held_lines().map(FulfilmentLine::to_item_line).collect();
    let started = Decided::event(ReleaseStarted { order_id: order.order_id.clone(), lines: held, occurred_at: at });
    let decided = match &order.phase {
        _ if order.is_being_handled() => started,
        FulfilmentPhase::PackagingFailed { missing, detail } => release_held(order, started, missing, detail),
        _ => release_held(order, started, &[], ""),
    };
    and_released_if_settled(order, decided, at)
}

/// The answer of an item to FreeItem.
pub(super) fn on_freed(order: Option<&Fulfilment>, result: &FreeResult, at: TimestampMs) -> Decided {
    on_line_released(order, &result.sku, result.quantity, 0, at)
}

/// The answer of an item to WriteOffItem.
pub(super) fn on_written_off(order: Option<&Fulfilment>, result: &WriteOffResult, at: TimestampMs) -> Decided {
    on_line_released(order, &result.sku, result.freed, result.quantity, at)
}

fn on_line_released(order: Option<&Fulfilment>, sku: &str, freed: i32, written_off: i32, at: TimestampMs) -> Decided {
    let is_releasing = |order: &Fulfilment| order.line(sku).is_some_and(|line| line.stock == LineStock::Releasing);
    let Some(order) = order.filter(|order| is_releasing(order)) else { return Decided::nothing() };
    let released =
        LineReleased { order_id: order.order_id.clone(), sku: sku.to_owned(), freed, written_off, occurred_at: at };
    and_released_if_settled(order, Decided::event(released), at)
}

/// Requests the release of every held line; missing items are written off.
pub(super) fn release_held(order: &Fulfilment, decided: Decided, missing: &[ItemLine], detail: &str) -> Decided {
    order.held_lines().fold(decided, |decided, line| {
        let missing = missing.iter().find(|missing| missing.sku == line.sku);
        decided.and_command(line.sku.clone(), release_line(&order.order_id, line, missing, detail))
    })
}

fn release_line(order_id: &str, line: &FulfilmentLine, missing: Option<&ItemLine>, detail: &str) -> Command {
    let (sku, order_id) = (line.sku.clone(), order_id.to_owned());
    match missing {
        None => FreeItem { sku, order_id, quantity: line.quantity }.into(),
        Some(missing) => WriteOffItem { sku, order_id, quantity: missing.quantity, reason: detail.to_owned() }.into(),
    }
}

/// Ends the release if nothing is held or pending after the decision. This is checked on the state after the events, so the two
/// cannot disagree; the copied state is that of one order, at the end of its life only.
pub(super) fn and_released_if_settled(order: &Fulfilment, decided: Decided, at: TimestampMs) -> Decided {
    let before = State { fulfilment: Some(Box::new(order.clone())), item: None };
    let after = decided.events.iter().fold(before, evolve);
    match after.fulfilment {
        Some(after) if after.is_cancelled() && after.is_settled() => {
            decided.and_event(stock_released(&after.order_id, &after.lines, at))
        }
        _ => decided,
    }
}

/// The end of a release, with the result of each line.
pub(super) fn stock_released(order_id: &str, lines: &[FulfilmentLine], at: TimestampMs) -> Event {
    let result_lines = |pieces: fn(LineStock) -> i32| -> Vec<ItemLine> {
        let all = lines.iter().map(|line| ItemLine { sku: line.sku.clone(), quantity: pieces(line.stock) });
        all.filter(|line| line.quantity > 0).collect()
    };
    let released = StockReleased {
        order_id: order_id.to_owned(),
        freed: result_lines(|stock| if let LineStock::Released { freed, .. } = stock { freed } else { 0 }),
        written_off: result_lines(
            |stock| if let LineStock::Released { written_off, .. } = stock { written_off } else { 0 },
        ),
        occurred_at: at,
    };
    released.into()
}
