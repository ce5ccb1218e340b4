//! What the order-processor hears: its own reader types for others' events, each with only the fields it uses.

use std::borrow::Cow;

use runtime::Received;
use serde::Deserialize;

use crate::inbox::{CancelOrder, GiveUpOrder, PlaceOrder};

runtime::consumes! {
    /// What the order-processor hears.
    pub enum Input {
        inbox of "order-processor" { PlaceOrder, CancelOrder, GiveUpOrder }
        events of "warehouse" {
            StockShort, PickingStarted, PackagingFailed, OrderDispatched, CancellationAccepted, CancellationRefused,
            DispatchDelayed, DispatchAbandoned,
        }
        events of "payment" { PaymentTaken, PaymentDeclined, PaymentAbandoned, RefundFailed }
        events of "loyalty" { PointsAwarded }
    }
}

/// The order an input is about. Taken from the body: loyalty's records are keyed by customer, and a record that came under a
/// wrong key still belongs to the order it names.
pub fn order_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::PlaceOrder(command) => &command.order_id,
        Input::CancelOrder(command) => &command.order_id,
        Input::GiveUpOrder(command) => &command.order_id,
        Input::StockShort(fact) => &fact.order_id,
        Input::PickingStarted(fact) => &fact.order_id,
        Input::PackagingFailed(fact) => &fact.order_id,
        Input::OrderDispatched(fact) => &fact.order_id,
        Input::CancellationAccepted(fact) => &fact.order_id,
        Input::CancellationRefused(fact) => &fact.order_id,
        Input::DispatchDelayed(fact) => &fact.order_id,
        Input::DispatchAbandoned(fact) => &fact.order_id,
        Input::PaymentTaken(fact) => &fact.order_id,
        Input::PaymentDeclined(fact) => &fact.order_id,
        Input::PaymentAbandoned(fact) => &fact.order_id,
        Input::RefundFailed(fact) => &fact.order_id,
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

/// The warehouse does nothing more for the order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CancellationAccepted {
    /// The order.
    pub order_id: String,
    /// The request that is answered.
    pub request: i32,
}

/// The warehouse has gone too far to turn back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CancellationRefused {
    /// The order.
    pub order_id: String,
    /// The request that is answered.
    pub request: i32,
    /// Why, for a person.
    pub reason: String,
}

/// The courier has not taken the parcel yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DispatchDelayed {
    /// The order.
    pub order_id: String,
    /// Why, for a person.
    pub reason: String,
}

/// The courier took the parcel in no attempt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DispatchAbandoned {
    /// The order.
    pub order_id: String,
    /// The last attempt.
    pub attempt: i32,
    /// Why it failed, for a person.
    pub reason: String,
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

/// The gateway did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentAbandoned {
    /// The order.
    pub order_id: String,
    /// Why, for a person.
    pub reason: String,
}

/// The gateway refused to pay back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RefundFailed {
    /// The order.
    pub order_id: String,
    /// Which time it was asked.
    pub attempt: i32,
    /// Why, as the gateway says it.
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
