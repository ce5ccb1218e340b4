//! The events of payment in full detail. `decide` has the rules for producing them, `evolve` their effect on the state.

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The events that payment produces.
    pub enum Event in "../../schemas" {
        events of "payment" {
            PaymentAwaited = 1, PaymentRequested = 2, PaymentTaken = 1, PaymentDeclined = 1, PaymentAbandoned = 1,
            PaymentVoidRequested = 1, PaymentVoided = 1, RefundRequested = 2, PaymentRefunded = 1, RefundFailed = 1,
            CommandRefused = 1,
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

/// One of the two facts that a payment requires was received, the order or its reserved stock; the other one is pending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentAwaited {
    /// The order.
    pub order_id: String,
    /// The customer, if the order was received.
    pub customer_id: Option<String>,
    /// The amount, if the order was received.
    pub amount: Option<Money>,
    /// The token to charge, if the order was received.
    pub payment_method: Option<String>,
    /// True if the reserved stock was received.
    pub stock_reserved: bool,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A charge was requested from the gateway.
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
    /// The deadline of the charge; `None` if there is none.
    pub answer_by: Option<TimestampMs>,
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
    /// The reason of the gateway, or of this service if no charge was requested.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The gateway has not answered a charge in time; the charge is not repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentAbandoned {
    /// The order.
    pub order_id: String,
    /// The customer.
    pub customer_id: String,
    /// The amount, as the order states it.
    pub amount: Money,
    /// The idempotency key of the charge.
    pub request_key: String,
    /// Why, for a person.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The order was cancelled while the charge was unanswered: the gateway is called to void it until its answer is definite.
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

/// The order was cancelled and its money is captured: the gateway is called to refund it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefundRequested {
    /// The order.
    pub order_id: String,
    /// The payment, as the gateway calls it.
    pub payment_id: String,
    /// The amount to refund: all of it.
    pub amount: Money,
    /// The idempotency key of the refund.
    pub request_key: String,
    /// Why the order was cancelled, or that an operator requested the refund again.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
    /// The number of the attempt, counted from 1. The first version had one attempt only.
    #[serde(default = "first_attempt")]
    pub attempt: i32,
}

fn first_attempt() -> i32 {
    1
}

/// The gateway refused a refund. Each refused key is definite, so a later attempt under another key refunds only once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefundFailed {
    /// The order.
    pub order_id: String,
    /// The payment, as the gateway calls it.
    pub payment_id: String,
    /// The amount that is owed to the customer.
    pub amount: Money,
    /// The idempotency key of the refused refund.
    pub request_key: String,
    /// The number of the attempt, counted from 1.
    pub attempt: i32,
    /// The reason of the gateway.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The money was refunded. An order that cost nothing is refunded without the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: String,
    /// The payment, as the gateway calls it.
    pub payment_id: String,
    /// The refunded amount.
    pub amount: Money,
    /// The refund, as the gateway calls it; `nothing-to-pay` if nothing was.
    pub refund_id: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A command was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// The order it was for.
    pub entity_id: String,
    /// The command's name.
    pub command: String,
    /// Why it was refused.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}
