//! The events that notifications consumes: its own reader types, each with only the fields it uses.

use std::borrow::Cow;

use runtime::Received;
use serde::Deserialize;

use crate::inbox::{MailRefused, MailSent};

runtime::consumes! {
    /// The inputs of notifications.
    pub enum Input {
        events of "customers" { CustomerRegistered, CustomerForgotten }
        events of "order-processor" { OrderPaid, OrderDelayed, OrderShipped, OrderCancellationRefused, OrderCancelled }
        inbox of "notifications" { MailSent, MailRefused }
    }
}

/// The order or customer of an input. A result of a mail has the key of the entity that requested the mail.
pub fn entity_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::CustomerRegistered(fact) => &fact.customer_id,
        Input::CustomerForgotten(fact) => &fact.customer_id,
        Input::OrderPaid(fact) => &fact.order_id,
        Input::OrderDelayed(fact) => &fact.order_id,
        Input::OrderShipped(fact) => &fact.order_id,
        Input::OrderCancellationRefused(fact) => &fact.order_id,
        Input::OrderCancelled(fact) => &fact.order_id,
        Input::MailSent(_) | Input::MailRefused(_) => &input.key,
    })
}

/// How a customer is addressed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Contact {
    /// The name as the customer wrote it.
    pub name: String,
    /// The address that mail goes to.
    pub email: String,
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Money {
    /// The amount in minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// One album of an order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderLine {
    /// Its title.
    pub title: String,
    /// Its artist.
    pub artist: String,
    /// How many copies.
    pub quantity: i32,
}

/// A customer registered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CustomerRegistered {
    /// The customer.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
}

/// A customer asked to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CustomerForgotten {
    /// The customer.
    pub customer_id: String,
}

/// The money for an order was taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderPaid {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What was paid.
    pub total: Money,
}

/// The courier has not taken the parcel of an order yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderDelayed {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
}

/// The parcel of an order is with the courier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderShipped {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// The courier.
    pub carrier: String,
    /// The parcel's number with that courier.
    pub tracking_number: String,
}

/// A request to cancel an order was refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderCancellationRefused {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// Who requested it.
    pub requested_by: CancelRequester,
    /// Why it was too late.
    pub reason: String,
}

/// Who requested a cancellation, as far as it decides who is notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelRequester {
    /// The customer.
    Customer,
    /// Anybody else: the customer is not aware of the request.
    #[serde(other)]
    Unknown,
}

/// An order will not be fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// The cause.
    pub reason: CancelReason,
}

/// Why an order is cancelled, as far as the mail distinguishes the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelReason {
    /// The warehouse is short of an album.
    OutOfStock,
    /// The payment was declined.
    PaymentDeclined,
    /// The payment gateway gave no definite answer in time.
    PaymentAbandoned,
    /// An album was not on the shelf.
    LostAtPackaging,
    /// The customer changed their mind.
    CustomerRequest,
    /// Anything else.
    #[serde(other)]
    Unknown,
}
