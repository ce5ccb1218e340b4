//! What payment hears, each record with only the fields it uses. What becomes of it stands in `decide`.

use serde::Deserialize;

use crate::{events::Money, inbox::GatewayAnswered};

runtime::hears! {
    /// What payment hears.
    pub enum Input {
        events of "order-processor" { OrderPlaced, OrderCancelled }
        events of "warehouse" { StockReserved }
        inbox of "payment" { GatewayAnswered }
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

/// The order an input is about.
#[must_use]
pub fn entity(input: &Input) -> &str {
    match input {
        Input::OrderPlaced(of) => &of.order_id,
        Input::OrderCancelled(of) => &of.order_id,
        Input::StockReserved(of) => &of.order_id,
        Input::GatewayAnswered(of) => &of.order_id,
    }
}
