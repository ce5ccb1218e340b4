//! What payment hears, each record with only the fields it uses. What becomes of it stands in `decide`.

use std::borrow::Cow;

use runtime::{Received, TimerFired};
use serde::Deserialize;

use crate::{
    events::Money,
    inbox::{GatewayAnswered, RetryRefund},
};

runtime::consumes! {
    /// What payment hears.
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

/// The order an input is about. A timer comes under the key of the order that asked to be woken.
#[must_use]
pub fn entity(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::OrderPlaced(of) => &of.order_id,
        Input::OrderCancelled(of) => &of.order_id,
        Input::StockReserved(of) => &of.order_id,
        Input::GatewayAnswered(of) => &of.order_id,
        Input::RetryRefund(of) => &of.order_id,
        Input::TimerFired(_) => &input.key,
    })
}
