//! The inputs of the warehouse: its own reader types, each with only the fields it uses, and the entity of each. `decide` has
//! their effect.

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
    /// The inputs of the warehouse.
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
    /// The lines of the order; a sku may be on more than one line.
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

/// An order is paid.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderPaid {
    /// The order.
    pub order_id: String,
}

/// The cancellation of an order was requested.
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

/// The entity of an input: an item for requests to items, else an order. A timer has the key of the order that set it.
#[must_use]
pub fn entity(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::ReceiveGoods(body) => &body.sku,
        Input::HoldItem(body) => &body.sku,
        Input::FreeItem(body) => &body.sku,
        Input::ShipItem(body) => &body.sku,
        Input::WriteOffItem(body) => &body.sku,
        Input::OrderPlaced(body) => &body.order_id,
        Input::OrderPaid(body) => &body.order_id,
        Input::OrderCancellationRequested(body) => &body.order_id,
        Input::OrderCancelled(body) => &body.order_id,
        Input::HoldResult(body) => &body.order_id,
        Input::FreeResult(body) => &body.order_id,
        Input::WriteOffResult(body) => &body.order_id,
        Input::PickResult(body) => &body.order_id,
        Input::CourierAnswer(body) => &body.order_id,
        Input::RetryDispatch(body) => &body.order_id,
        Input::TimerFired(_) => &input.key,
    })
}
