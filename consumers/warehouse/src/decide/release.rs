//! How a cancelled order gives its stock back: every held line is freed, or written off as far as it was not on the shelf, and
//! `StockReleased` is said once, when nothing asked for the order is unanswered.
//!
//! Nothing is given back while the picking floor or the courier has the goods in hand, and a hold that is still unanswered is
//! given back when its answer comes: an item is never asked two things at once for one order.

use runtime::TimestampMs;

use super::Decided;
use crate::{
    events::{Event, ItemLine, LineReleased, ReleaseStarted, StockReleased},
    evolve::{Fulfilment, Line, LineStock, Phase, State, evolve},
    inbox::{Command, FreeItem, FreeResult, WriteOffItem, WriteOffResult},
};

/// Cancelled: the stock is given back. An order that was never heard of as placed has none, and a later OrderPlaced finds it
/// cancelled.
pub(super) fn on_cancelled(order: Option<&Fulfilment>, order_id: &str, at: TimestampMs) -> Decided {
    let Some(order) = order else {
        let started = ReleaseStarted { order_id: order_id.to_owned(), lines: Vec::new(), occurred_at: at };
        return Decided::event(started).and_event(stock_released(order_id, &[], at));
    };
    if order.is_cancelled() {
        return Decided::nothing();
    }
    let held = order.held_lines().map(Line::to_item_line).collect();
    let started = Decided::event(ReleaseStarted { order_id: order.order_id.clone(), lines: held, occurred_at: at });
    let decided = match &order.phase {
        _ if order.is_in_hand() => started,
        Phase::PackagingFailed { missing, detail } => give_back_held(order, started, missing, detail),
        _ => give_back_held(order, started, &[], ""),
    };
    and_released_if_settled(order, decided, at)
}

/// An item's answer to FreeItem.
pub(super) fn on_freed(order: Option<&Fulfilment>, result: &FreeResult, at: TimestampMs) -> Decided {
    on_line_released(order, &result.sku, result.quantity, 0, at)
}

/// An item's answer to WriteOffItem.
pub(super) fn on_written_off(order: Option<&Fulfilment>, result: &WriteOffResult, at: TimestampMs) -> Decided {
    on_line_released(order, &result.sku, result.freed, result.quantity, at)
}

fn on_line_released(order: Option<&Fulfilment>, sku: &str, freed: i32, written_off: i32, at: TimestampMs) -> Decided {
    let awaited = |order: &Fulfilment| order.line(sku).is_some_and(|line| line.stock == LineStock::Releasing);
    let Some(order) = order.filter(|order| awaited(order)) else { return Decided::nothing() };
    let released =
        LineReleased { order_id: order.order_id.clone(), sku: sku.to_owned(), freed, written_off, occurred_at: at };
    and_released_if_settled(order, Decided::event(released), at)
}

/// Asks every held line's item to let go of it; what is missing is written off.
pub(super) fn give_back_held(order: &Fulfilment, decided: Decided, missing: &[ItemLine], detail: &str) -> Decided {
    order.held_lines().fold(decided, |decided, line| {
        let missing = missing.iter().find(|missing| missing.sku == line.sku);
        decided.and_command(line.sku.clone(), give_back(&order.order_id, line, missing, detail))
    })
}

fn give_back(order_id: &str, line: &Line, missing: Option<&ItemLine>, detail: &str) -> Command {
    let (sku, order_id) = (line.sku.clone(), order_id.to_owned());
    match missing {
        None => FreeItem { sku, order_id, quantity: line.quantity }.into(),
        Some(missing) => WriteOffItem { sku, order_id, quantity: missing.quantity, reason: detail.to_owned() }.into(),
    }
}

/// Ends the release if, after what was decided, nothing is held or unanswered. Asked of the state that the events will make, so
/// it cannot disagree with it; the copy is of one order, on the way out only.
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

/// The end of a release, and what became of each line.
pub(super) fn stock_released(order_id: &str, lines: &[Line], at: TimestampMs) -> Event {
    let came_of = |pieces: fn(LineStock) -> i32| -> Vec<ItemLine> {
        let all = lines.iter().map(|line| ItemLine { sku: line.sku.clone(), quantity: pieces(line.stock) });
        all.filter(|line| line.quantity > 0).collect()
    };
    let released = StockReleased {
        order_id: order_id.to_owned(),
        freed: came_of(|stock| if let LineStock::Released { freed, .. } = stock { freed } else { 0 }),
        written_off: came_of(|stock| if let LineStock::Released { written_off, .. } = stock { written_off } else { 0 }),
        occurred_at: at,
    };
    released.into()
}
