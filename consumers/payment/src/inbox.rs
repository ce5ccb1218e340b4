//! What enters payment's own inbox: the gateway's definite answers, which are facts, and what operators ask for.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// What payment sends to its own inbox, and what operators put there.
    pub enum Command in "../../schemas" {
        inbox of "payment" { GatewayAnswered = 2, RetryRefund = 1 }
    }
}

/// What the gateway was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayRequest {
    /// To charge the customer.
    Charge,
    /// To make sure that a charge is never captured, or to tell what became of it.
    Void,
    /// To pay back what was captured.
    Refund,
    /// A request that this build does not know.
    #[serde(other)]
    Unknown,
}

/// What the gateway answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayOutcome {
    /// The money was captured.
    Captured,
    /// The charge was declined for good.
    Declined,
    /// The charge was not captured and never will be.
    Voided,
    /// The money was paid back.
    Refunded,
    /// The money will not be paid back under this key.
    Refused,
    /// An answer that this build does not know.
    #[serde(other)]
    Unknown,
}

/// What the payment gateway answered, definitely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayAnswered {
    /// The order.
    pub order_id: String,
    /// The idempotency key of the charge or refund it is about.
    pub request_key: String,
    /// What was asked.
    pub request: GatewayRequest,
    /// What it answered.
    pub outcome: GatewayOutcome,
    /// The payment, if captured.
    pub payment_id: Option<String>,
    /// The refund, if refunded.
    pub refund_id: Option<String>,
    /// Why, if declined or refused.
    pub reason: Option<String>,
}

/// An operator wants a refused refund to be asked for again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryRefund {
    /// The order.
    pub order_id: String,
}
