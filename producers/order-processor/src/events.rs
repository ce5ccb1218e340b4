//! The events of the order-processor, as their schemas define them.
//!
//! The service writes these structs, and reads them back when it folds its own log. They share no type with other services.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The events that the order-processor produces.
    pub enum Event in "../../schemas" {
        events of "order-processor" {
            OrderPlaced = 1,
            OrderRejected = 1,
            OrderPaid = 1,
            OrderPicking = 1,
            OrderShipped = 1,
            OrderCompleted = 1,
            OrderCancelled = 1,
            OrderDelayed = 1,
            OrderNeedsAttention = 1,
            OrderCancellationRequested = 1,
            OrderCancellationRefused = 1,
            OrderFactNoted = 1,
            CommandRefused = 1,
        }
    }
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// The amount in minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// How a customer is addressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The name as the customer wrote it.
    pub name: String,
    /// The address that mail goes to.
    pub email: String,
}

/// Where a parcel goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Street and house number.
    pub street: String,
    /// Town or city.
    pub city: String,
    /// Postal code.
    pub postcode: String,
    /// ISO 3166-1 alpha-2 code.
    pub country: String,
}

/// One album of an order, as it was sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// The album's stock keeping unit.
    pub sku: String,
    /// Its title on the day of the order.
    pub title: String,
    /// Its artist on the day of the order.
    pub artist: String,
    /// How many copies.
    pub quantity: i32,
    /// The price of one copy on the day of the order.
    pub unit_price: Money,
    /// The price of all copies.
    pub line_total: Money,
}

/// An order was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How the customer is addressed about this order.
    pub contact: Contact,
    /// Where the parcel goes.
    pub ship_to: Address,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What it costs.
    pub total: Money,
    /// The gateway's token for the means of payment.
    pub payment_method: String,
    /// Identifies the request.
    pub request_digest: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// Why an order was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RejectReason {
    /// The customer id is unknown.
    UnknownCustomer,
    /// The customer asked to be forgotten.
    CustomerForgotten,
    /// A sku is not in the catalogue.
    UnknownSku,
    /// An album is no longer sold.
    PriceGone,
    /// The prices are in several currencies.
    MixedCurrencies,
    /// The order exceeds a limit of the shop.
    TooLarge,
    /// A reason that a later version gives.
    #[serde(other)]
    Unknown,
}

/// An order was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRejected {
    /// The order id of the request.
    pub order_id: String,
    /// The customer that the request named.
    pub customer_id: String,
    /// The rule that the request violates.
    pub reason: RejectReason,
    /// The violating value, for a person.
    pub detail: String,
    /// Identifies the request.
    pub request_digest: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The money for an order was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPaid {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How the customer is addressed about this order.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What was paid.
    pub total: Money,
    /// The id of the payment at the payment service.
    pub payment_id: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The warehouse is picking an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPicking {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The parcel of an order is with the courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderShipped {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How the customer is addressed about this order.
    pub contact: Contact,
    /// Where the parcel goes.
    pub ship_to: Address,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What it cost.
    pub total: Money,
    /// The courier that took the parcel.
    pub carrier: String,
    /// The parcel's number with that courier.
    pub tracking_number: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// An order is fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCompleted {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What it cost.
    pub total: Money,
    /// The loyalty points that it earned.
    pub points_awarded: i64,
    /// When it was decided.
    pub occurred_at: i64,
}

/// Why an accepted order is not fulfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelReason {
    /// The warehouse is short of an album.
    OutOfStock,
    /// The gateway declined the payment.
    PaymentDeclined,
    /// The gateway gave no definite answer in time.
    PaymentAbandoned,
    /// An album was not on the shelf when the parcel was packed.
    LostAtPackaging,
    /// The customer changed their mind.
    CustomerRequest,
    /// An operator gave up the order.
    GivenUp,
    /// A reason that a later version gives.
    #[serde(other)]
    Unknown,
}

/// An accepted order will not be fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How the customer is addressed about this order.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What it would have cost.
    pub total: Money,
    /// The cause.
    pub reason: CancelReason,
    /// The cause, for a person.
    pub detail: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The courier has not taken the parcel of an order yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDelayed {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How the customer is addressed about this order.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// Why, for a person.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// An issue that only a person can resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AttentionNeed {
    /// The courier refused the parcel in every attempt.
    DispatchAbandoned,
    /// The gateway refuses the refund.
    RefundFailed,
    /// A need that a later version knows.
    #[serde(other)]
    Unknown,
}

/// An order cannot proceed without a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderNeedsAttention {
    /// The order.
    pub order_id: String,
    /// The issue to resolve.
    pub need: AttentionNeed,
    /// The number of the failed attempt, as its owner counts.
    pub attempt: i32,
    /// What happened, for a person.
    pub detail: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// Who requests a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelRequester {
    /// The customer who ordered.
    Customer,
    /// An operator.
    Operator,
    /// A requester that only a later version knows.
    #[serde(other)]
    Unknown,
}

/// The cancellation of an order was requested; the warehouse decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancellationRequested {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// The number of the request, counted from 1 per order.
    pub request: i32,
    /// Who requested it.
    pub requested_by: CancelRequester,
    /// Why; perhaps empty.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A request to cancel an order was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancellationRefused {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How the customer is addressed about this order.
    pub contact: Contact,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// The number of the request; 0 if the parcel had left before the request.
    pub request: i32,
    /// Who requested it.
    pub requested_by: CancelRequester,
    /// Why it came too late, for a person.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A fact that can be received early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotedFact {
    /// The warehouse started to pick.
    PickingStarted,
    /// The parcel is with the courier.
    Dispatched,
    /// The loyalty points were awarded.
    PointsAwarded,
    /// A fact that a later version notes.
    #[serde(other)]
    Unknown,
}

/// A fact was received before the fact it follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFactNoted {
    /// The order.
    pub order_id: String,
    /// The fact.
    pub fact: NotedFact,
    /// The courier, if the parcel is with one.
    pub carrier: Option<String>,
    /// The parcel's number, if it is with a courier.
    pub tracking_number: Option<String>,
    /// The loyalty points, if they were awarded.
    pub points: Option<i64>,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// The order it was for.
    pub entity_id: String,
    /// The record name of the command.
    pub command: String,
    /// Why, for a person.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}
