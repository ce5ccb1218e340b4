//! What the warehouse hears, each record with only the fields it uses, and which entity each is about. What becomes of it
//! stands in `decide`.

use std::borrow::Cow;

use runtime::{Received, TimerFired};
use serde::Deserialize;

use crate::{
    events::Address,
    inbox::{
        CourierAnswer, FreeItem, FreeResult, HoldItem, HoldResult, PickResult, ReceiveGoods, RetryDispatch, ShipItem,
        WriteOffItem, WriteOffResult,
    },
};

runtime::consumes! {
    /// What the warehouse hears.
    pub enum Input {
        events of "order-processor" { OrderPlaced, OrderPaid, OrderCancellationRequested, OrderCancelled }
        inbox of "warehouse" {
            ReceiveGoods, HoldItem, FreeItem, ShipItem, WriteOffItem,
            HoldResult, FreeResult, WriteOffResult, PickResult, CourierAnswer, RetryDispatch,
        }
        inbox of "runtime" { TimerFired }
    }
}

/// An order was accepted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: String,
    /// Where the parcel is to go.
    pub ship_to: Address,
    /// What was ordered; a sku may stand on more than one line.
    pub lines: Vec<OrderLine>,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderLine {
    /// The item.
    pub sku: String,
    /// How many pieces.
    pub quantity: i32,
}

/// An order's money is there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderPaid {
    /// The order.
    pub order_id: String,
}

/// Somebody wants an order cancelled.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderCancellationRequested {
    /// The order.
    pub order_id: String,
    /// The number of the request.
    pub request: i32,
}

/// An accepted order will not be fulfilled.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: String,
}

/// The entity an input is about: an item for what is asked of items, else an order. A timer comes under the key of the order that
/// asked to be woken.
#[must_use]
pub fn entity(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::ReceiveGoods(of) => &of.sku,
        Input::HoldItem(of) => &of.sku,
        Input::FreeItem(of) => &of.sku,
        Input::ShipItem(of) => &of.sku,
        Input::WriteOffItem(of) => &of.sku,
        Input::OrderPlaced(of) => &of.order_id,
        Input::OrderPaid(of) => &of.order_id,
        Input::OrderCancellationRequested(of) => &of.order_id,
        Input::OrderCancelled(of) => &of.order_id,
        Input::HoldResult(of) => &of.order_id,
        Input::FreeResult(of) => &of.order_id,
        Input::WriteOffResult(of) => &of.order_id,
        Input::PickResult(of) => &of.order_id,
        Input::CourierAnswer(of) => &of.order_id,
        Input::RetryDispatch(of) => &of.order_id,
        Input::TimerFired(_) => &input.key,
    })
}
