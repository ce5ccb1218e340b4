//! The events that loyalty consumes: its own reader types, each with only the fields it uses.

use std::borrow::Cow;

use runtime::Received;
use serde::Deserialize;

runtime::consumes! {
    /// The inputs of loyalty.
    pub enum Input {
        events of "customers" { CustomerRegistered, CustomerForgotten }
        events of "order-processor" { OrderShipped }
    }
}

/// The customer of an input. A shipped order is keyed by the order, so the runtime re-keys it to its customer first.
pub fn customer_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::CustomerRegistered(fact) => &fact.customer_id,
        Input::CustomerForgotten(fact) => &fact.customer_id,
        Input::OrderShipped(fact) => &fact.customer_id,
    })
}

/// A customer registered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CustomerRegistered {
    /// The customer.
    pub customer_id: String,
}

/// A customer asked to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CustomerForgotten {
    /// The customer.
    pub customer_id: String,
}

/// The parcel of an order is with the courier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderShipped {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// What the order cost.
    pub total: Money,
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Money {
    /// The amount in minor units.
    pub amount_minor: i64,
}
