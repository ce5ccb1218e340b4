//! What an item makes of what it is asked. It knows counts and for which order pieces are held, nothing of an order's story.
//!
//! Each decision looks up one order in what is held: its cost does not grow with the orders an item has seen. What is told apart
//! how: a repeated HoldItem while the pieces are held is known by them, and was answered with the event that held them; one that
//! comes after they were shipped or freed looks like a new one (finished orders are forgotten, or a popular item would grow
//! without end): it holds and answers, and the order, which wants nothing any more, frees. FreeItem, ShipItem and WriteOffItem
//! for an order that holds nothing change nothing.

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
    let said = if held {
        Decided::event(ItemHeld { sku, order_id, quantity, occurred_at: at })
    } else {
        Decided::event(ItemShort { sku, order_id, wanted: quantity, free: shown_free, occurred_at: at })
    };
    let HoldItem { sku, order_id, quantity } = hold.clone();
    said.and_command(hold.order_id.clone(), HoldResult { order_id, sku, quantity, held, free: shown_free })
}

/// Frees all that is held for the order. Answered even if that is nothing: who asks waits for the answer.
pub(super) fn free(item: Option<&StockItem>, free: &FreeItem, at: TimestampMs) -> Decided {
    let quantity = held_for(item, &free.order_id);
    let (sku, order_id) = (free.sku.clone(), free.order_id.clone());
    let answer = FreeResult { order_id: order_id.clone(), sku: sku.clone(), quantity };
    and_freed(Decided::nothing(), sku, order_id, quantity, at).and_command(free.order_id.clone(), answer)
}

/// All that is held for the order has left.
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

/// Writes off pieces of what is held for the order and frees the rest. Answered even if nothing is held.
pub(super) fn write_off(item: Option<&StockItem>, write_off: &WriteOffItem, at: TimestampMs) -> Decided {
    let held = held_for(item, &write_off.order_id);
    let quantity = write_off.quantity.clamp(0, held);
    let freed = held - quantity;
    let (sku, order_id) = (write_off.sku.clone(), write_off.order_id.clone());
    let answer = WriteOffResult { order_id: order_id.clone(), sku: sku.clone(), quantity, freed };
    let said = match quantity {
        0 => Decided::nothing(),
        _ => Decided::event(StockWrittenOff {
            sku: sku.clone(),
            order_id: order_id.clone(),
            quantity,
            reason: write_off.reason.clone(),
            occurred_at: at,
        }),
    };
    and_freed(said, sku, order_id, freed, at).and_command(write_off.order_id.clone(), answer)
}

fn and_freed(decided: Decided, sku: String, order_id: String, quantity: i32, at: TimestampMs) -> Decided {
    match quantity {
        0 => decided,
        _ => decided.and_event(ItemFreed { sku, order_id, quantity, occurred_at: at }),
    }
}

/// How many pieces are held for an order; never below zero.
fn held_for(item: Option<&StockItem>, order_id: &str) -> i32 {
    item.and_then(|item| item.held.get(order_id)).copied().unwrap_or(0).max(0)
}
