//! The decisions of an item. It knows quantities and the orders they are held for, but not the phase of an order.
//!
//! Each decision looks up one order in the held quantities, so its cost does not grow with the number of orders. A repeated
//! HoldItem while the pieces are held is recognised by them; it was answered with the event that held them. A repeated HoldItem
//! after the pieces were shipped or freed looks like a new one, because finished orders are dropped (a popular item would
//! otherwise grow without limit): it holds and answers, and the order, which wants nothing any more, frees the pieces.
//! FreeItem, ShipItem and WriteOffItem of an order that holds nothing change nothing.

use runtime::TimestampMs;

use super::Decided;
use crate::{
    events::{CommandRefused, GoodsReceived, ItemFreed, ItemHeld, ItemShipped, ItemShort, StockWrittenOff},
    evolve::StockItem,
    inbox::{FreeItem, FreeResult, HoldItem, HoldResult, ReceiveGoods, ShipItem, WriteOffItem, WriteOffResult},
};

/// Goods arrived. A delivery counts once; the same delivery with another quantity is refused.
pub(super) fn receive(item: Option<&StockItem>, goods: &ReceiveGoods, at: TimestampMs) -> Decided {
    let ReceiveGoods { sku, delivery_id, quantity } = goods;
    let known = item.and_then(|item| item.deliveries.get(delivery_id));
    match known {
        Some(counted) if counted == quantity => Decided::nothing(),
        Some(counted) => {
            refuse(goods, format!("delivery {delivery_id} was counted with {counted} pieces, not {quantity}"), at)
        }
        None if *quantity < 1 => {
            refuse(goods, format!("the quantity of a delivery must be at least 1, not {quantity}"), at)
        }
        None => Decided::event(GoodsReceived {
            sku: sku.clone(),
            delivery_id: delivery_id.clone(),
            quantity: *quantity,
            occurred_at: at,
        }),
    }
}

fn refuse(goods: &ReceiveGoods, reason: String, at: TimestampMs) -> Decided {
    Decided::event(CommandRefused {
        entity_id: goods.sku.clone(),
        command: "ReceiveGoods".to_owned(),
        reason,
        occurred_at: at,
    })
}

/// Holds all pieces or none.
pub(super) fn hold(item: Option<&StockItem>, hold: &HoldItem, at: TimestampMs) -> Decided {
    if item.is_some_and(|item| item.held.contains_key(&hold.order_id)) {
        return Decided::nothing();
    }
    let free = item.map_or(0, |item| item.free);
    let held = hold.quantity >= 1 && free >= i64::from(hold.quantity);
    let shown_free = i32::try_from(free).unwrap_or(if free < 0 { 0 } else { i32::MAX });
    let HoldItem { sku, order_id, quantity } = hold.clone();
    let decided = if held {
        Decided::event(ItemHeld { sku, order_id, quantity, occurred_at: at })
    } else {
        Decided::event(ItemShort { sku, order_id, wanted: quantity, free: shown_free, occurred_at: at })
    };
    let HoldItem { sku, order_id, quantity } = hold.clone();
    decided.and_command(hold.order_id.clone(), HoldResult { order_id, sku, quantity, held, free: shown_free })
}

/// Frees all pieces that are held for the order. Answered even if there are none, because the order waits for the answer.
pub(super) fn free(item: Option<&StockItem>, free: &FreeItem, at: TimestampMs) -> Decided {
    let quantity = held_for(item, &free.order_id);
    let (sku, order_id) = (free.sku.clone(), free.order_id.clone());
    let answer = FreeResult { order_id: order_id.clone(), sku: sku.clone(), quantity };
    and_freed(Decided::nothing(), sku, order_id, quantity, at).and_command(free.order_id.clone(), answer)
}

/// All pieces that are held for the order have left.
pub(super) fn ship(item: Option<&StockItem>, ship: &ShipItem, at: TimestampMs) -> Decided {
    match held_for(item, &ship.order_id) {
        0 => Decided::nothing(),
        quantity => Decided::event(ItemShipped {
            sku: ship.sku.clone(),
            order_id: ship.order_id.clone(),
            quantity,
            occurred_at: at,
        }),
    }
}

/// Writes off some of the pieces that are held for the order and frees the rest. Answered even if nothing is held.
pub(super) fn write_off(item: Option<&StockItem>, write_off: &WriteOffItem, at: TimestampMs) -> Decided {
    let held = held_for(item, &write_off.order_id);
    let quantity = write_off.quantity.clamp(0, held);
    let freed = held - quantity;
    let (sku, order_id) = (write_off.sku.clone(), write_off.order_id.clone());
    let answer = WriteOffResult { order_id: order_id.clone(), sku: sku.clone(), quantity, freed };
    let decided = match quantity {
        0 => Decided::nothing(),
        _ => Decided::event(StockWrittenOff {
            sku: sku.clone(),
            order_id: order_id.clone(),
            quantity,
            reason: write_off.reason.clone(),
            occurred_at: at,
        }),
    };
    and_freed(decided, sku, order_id, freed, at).and_command(write_off.order_id.clone(), answer)
}

fn and_freed(decided: Decided, sku: String, order_id: String, quantity: i32, at: TimestampMs) -> Decided {
    match quantity {
        0 => decided,
        _ => decided.and_event(ItemFreed { sku, order_id, quantity, occurred_at: at }),
    }
}

/// The number of pieces that are held for an order; never below zero.
fn held_for(item: Option<&StockItem>, order_id: &str) -> i32 {
    item.and_then(|item| item.held.get(order_id)).copied().unwrap_or(0).max(0)
}
