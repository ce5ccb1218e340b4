//! The inputs of payment: its own reader types, each with only the fields it uses. `decide` has their effect.

use std::borrow::Cow;

use runtime::{Received, TimerFired};
use serde::Deserialize;

use crate::{
    events::Money,
    inbox::{GatewayAnswered, RetryRefund},
};

runtime::consumes! {
    /// The inputs of payment.
    pub enum Input {
        events of "order-processor" { OrderPlaced, OrderCancelled }
        events of "warehouse" { StockReserved }
        inbox of "payment" { GatewayAnswered, RetryRefund }
        inbox of "runtime" { TimerFired }
    }
}

/// An order was accepted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: String,
    /// Who pays.
    pub customer_id: String,
    /// What the order costs.
    pub total: Money,
    /// The token to charge.
    pub payment_method: String,
}

/// An accepted order will not be fulfilled.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: String,
    /// Why, for a person.
    pub detail: String,
}

/// Every line of an order is held.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StockReserved {
    /// The order.
    pub order_id: String,
}

/// The order of an input. A timer has the key of the order that set it.
#[must_use]
pub fn order_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::OrderPlaced(body) => &body.order_id,
        Input::OrderCancelled(body) => &body.order_id,
        Input::StockReserved(body) => &body.order_id,
        Input::GatewayAnswered(body) => &body.order_id,
        Input::RetryRefund(body) => &body.order_id,
        Input::TimerFired(_) => &input.key,
    })
}
