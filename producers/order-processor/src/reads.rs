//! The events and commands that the order-processor consumes: its own reader types, each with only the fields it uses.

use std::borrow::Cow;

use runtime::Received;
use serde::Deserialize;

use crate::inbox::{CancelOrder, GiveUpOrder, PlaceOrder};

runtime::consumes! {
    /// The inputs of the order-processor.
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

/// The order of an input, taken from the body: records of loyalty are keyed by customer, and a record under a wrong key still
/// belongs to the order it names.
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
    /// The requested quantity.
    pub wanted: i32,
    /// The free quantity.
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

/// The warehouse accepted a cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CancellationAccepted {
    /// The order.
    pub order_id: String,
    /// The number of the request.
    pub request: i32,
}

/// The warehouse refused a cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CancellationRefused {
    /// The order.
    pub order_id: String,
    /// The number of the request.
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

/// The courier refused the parcel in every attempt.
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

/// The gateway gave no definite answer in time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentAbandoned {
    /// The order.
    pub order_id: String,
    /// Why, for a person.
    pub reason: String,
}

/// The gateway refused a refund.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RefundFailed {
    /// The order.
    pub order_id: String,
    /// The number of the attempt.
    pub attempt: i32,
    /// The reason of the gateway.
    pub reason: String,
}

/// The points for a shipped order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PointsAwarded {
    /// The order that earned them.
    pub order_id: String,
    /// The number of points, possibly zero.
    pub points: i64,
}
