//! The state of one item: its quantities, and the orders they are held for.
//!
//! ```text
//!  GoodsReceived ──▶ free ──ItemHeld──▶ held ──ItemShipped──────▶ shipped
//!                     ▲                  │ └───StockWrittenOff──▶ written off
//!                     └────ItemFreed─────┘
//! ```
//!
//! received = free + held + shipped + written off, after every event. Held quantities are remembered per order and only while
//! they are held, so the state grows with the open orders and not with all orders. Deliveries are remembered permanently: they
//! are few, and a repeated delivery may arrive at any time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::GoodsReceived;

/// The state of one item.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StockItem {
    /// Pieces that may be held.
    pub free: i64,
    /// Pieces held, by order.
    pub held: BTreeMap<String, i32>,
    /// Pieces that left for customers.
    pub shipped: i64,
    /// Pieces that were missing.
    pub written_off: i64,
    /// The quantity of each delivery.
    pub deliveries: BTreeMap<String, i32>,
}

impl StockItem {
    /// All delivered pieces.
    #[must_use]
    pub fn received(&self) -> i64 {
        self.deliveries.values().copied().map(i64::from).sum()
    }

    /// All pieces that are held now.
    #[must_use]
    pub fn held_in_all(&self) -> i64 {
        self.held.values().copied().map(i64::from).sum()
    }

    pub(super) fn goods_received(&mut self, event: &GoodsReceived) {
        self.free = self.free.saturating_add(event.quantity.into());
        self.deliveries.insert(event.delivery_id.clone(), event.quantity);
    }

    pub(super) fn held(&mut self, order_id: &str, quantity: i32) {
        self.free = self.free.saturating_sub(quantity.into());
        self.held.insert(order_id.to_owned(), quantity);
    }

    pub(super) fn freed(&mut self, order_id: &str, quantity: i32) {
        self.reduce_held(order_id, quantity);
        self.free = self.free.saturating_add(quantity.into());
    }

    pub(super) fn shipped(&mut self, order_id: &str, quantity: i32) {
        self.reduce_held(order_id, quantity);
        self.shipped = self.shipped.saturating_add(quantity.into());
    }

    pub(super) fn written_off(&mut self, order_id: &str, quantity: i32) {
        self.reduce_held(order_id, quantity);
        self.written_off = self.written_off.saturating_add(quantity.into());
    }

    fn reduce_held(&mut self, order_id: &str, quantity: i32) {
        if let Some(held) = self.held.get_mut(order_id) {
            *held = held.saturating_sub(quantity);
            if *held <= 0 {
                self.held.remove(order_id);
            }
        }
    }
}
