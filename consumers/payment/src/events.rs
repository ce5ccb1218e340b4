//! What payment says, in full detail, and nothing but the shapes: when it is said stands in `decide`, what it changes in `evolve`.

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

runtime::says! {
    /// What payment says.
    pub enum Event in "../../schemas" {
        events of "payment" {
            PaymentAwaited = 1, PaymentRequested = 1, PaymentTaken = 1, PaymentDeclined = 1,
            PaymentVoidRequested = 1, PaymentVoided = 1, RefundRequested = 1, PaymentRefunded = 1,
        }
    }
}

/// An amount in the smallest unit of its currency; never a fraction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// The amount in minor units: 2499 EUR cents are 24.99 EUR.
    pub amount_minor: i64,
    /// ISO 4217 code, three capital letters.
    pub currency: String,
}

/// One of the two facts that a payment needs was heard, the order or its reserved stock; the other one is awaited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentAwaited {
    /// The order.
    pub order_id: String,
    /// The customer, once the order was heard.
    pub customer_id: Option<String>,
    /// The amount, once the order was heard.
    pub amount: Option<Money>,
    /// The token to charge, once the order was heard.
    pub payment_method: Option<String>,
    /// True if it was the reserved stock that was heard.
    pub stock_reserved: bool,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The gateway is asked to charge the customer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentRequested {
    /// The order.
    pub order_id: String,
    /// The customer.
    pub customer_id: String,
    /// The amount, as the order states it.
    pub amount: Money,
    /// The token to charge.
    pub payment_method: String,
    /// The idempotency key of the charge.
    pub request_key: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The money was captured. An order that costs nothing is taken without asking the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentTaken {
    /// The order.
    pub order_id: String,
    /// The customer.
    pub customer_id: String,
    /// The amount, as the order states it.
    pub amount: Money,
    /// The payment, as the gateway calls it; `nothing-to-pay` if nothing was.
    pub payment_id: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The charge was declined; nothing was captured and nothing will be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentDeclined {
    /// The order.
    pub order_id: String,
    /// The customer.
    pub customer_id: String,
    /// The amount, as the order states it.
    pub amount: Money,
    /// Why, as the gateway says it, or this service if it did not ask.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The order was cancelled while the charge was unanswered: the gateway is asked to void it, until its answer is definite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentVoidRequested {
    /// The order.
    pub order_id: String,
    /// The idempotency key of the charge.
    pub request_key: String,
    /// Why the order was cancelled.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A cancelled order's payment ended: nothing was captured and nothing will be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentVoided {
    /// The order.
    pub order_id: String,
    /// Why the order was cancelled.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The order was cancelled and its money is captured: the gateway is asked to pay it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefundRequested {
    /// The order.
    pub order_id: String,
    /// The payment, as the gateway calls it.
    pub payment_id: String,
    /// The amount to pay back: all of it.
    pub amount: Money,
    /// The idempotency key of the refund.
    pub request_key: String,
    /// Why the order was cancelled.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The money was paid back. For an order that cost nothing the gateway was not asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: String,
    /// The payment, as the gateway calls it.
    pub payment_id: String,
    /// The amount that was paid back.
    pub amount: Money,
    /// The refund, as the gateway calls it; `nothing-to-pay` if nothing was.
    pub refund_id: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}
