//! What the order-processor hears: its own reader types for others' events, each with only the fields it uses.

use std::borrow::Cow;

use runtime::Heard;
use serde::Deserialize;

use crate::inbox::PlaceOrder;

runtime::hears! {
    /// What the order-processor hears.
    pub enum Input {
        inbox of "order-processor" { PlaceOrder }
        events of "warehouse" { StockShort, PickingStarted, PackagingFailed, OrderDispatched }
        events of "payment" { PaymentTaken, PaymentDeclined }
        events of "loyalty" { PointsAwarded }
    }
}

/// The order an input is about. Taken from the body: loyalty's records are keyed by customer, and a record that came under a
/// wrong key still belongs to the order it names.
pub fn order_of(input: &Heard<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::PlaceOrder(command) => &command.order_id,
        Input::StockShort(fact) => &fact.order_id,
        Input::PickingStarted(fact) => &fact.order_id,
        Input::PackagingFailed(fact) => &fact.order_id,
        Input::OrderDispatched(fact) => &fact.order_id,
        Input::PaymentTaken(fact) => &fact.order_id,
        Input::PaymentDeclined(fact) => &fact.order_id,
        Input::PointsAwarded(fact) => &fact.order_id,
    })
}

/// The warehouse cannot fill a line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StockShort {
    /// The order.
    pub order_id: String,
    /// The album that is short.
    pub sku: String,
    /// How many were wanted.
    pub wanted: i32,
    /// How many were free.
    pub free: i32,
}

/// The warehouse started to pick.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PickingStarted {
    /// The order.
    pub order_id: String,
}

/// An album was not on the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PackagingFailed {
    /// The order.
    pub order_id: String,
    /// What went wrong, for a person.
    pub detail: String,
}

/// The parcel is with the courier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderDispatched {
    /// The order.
    pub order_id: String,
    /// The courier.
    pub carrier: String,
    /// The parcel's number with that courier.
    pub tracking_number: String,
}

/// The money was taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentTaken {
    /// The order.
    pub order_id: String,
    /// The payment.
    pub payment_id: String,
}

/// The gateway declined.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentDeclined {
    /// The order.
    pub order_id: String,
    /// The gateway's reason.
    pub reason: String,
}

/// The points for a shipped order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PointsAwarded {
    /// The order that earned them.
    pub order_id: String,
    /// How many; perhaps none.
    pub points: i64,
}
