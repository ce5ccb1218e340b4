//! The inbox of payment: the definite answers of the gateway, and the commands of operators.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The commands that payment sends to its own inbox, and those of operators.
    pub enum Command in "../../schemas" {
        inbox of "payment" { GatewayAnswered = 2, RetryRefund = 1 }
    }
}

/// The kind of a call to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayRequest {
    /// A charge.
    Charge,
    /// A void of a charge, which returns what became of the charge.
    Void,
    /// A refund.
    Refund,
    /// A request that this build does not know.
    #[serde(other)]
    Unknown,
}

/// The answer of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayOutcome {
    /// The money was captured.
    Captured,
    /// The charge was declined permanently.
    Declined,
    /// The charge was not captured and never will be.
    Voided,
    /// The money was refunded.
    Refunded,
    /// The refund under this key was refused permanently.
    Refused,
    /// An answer that this build does not know.
    #[serde(other)]
    Unknown,
}

/// A definite answer of the payment gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayAnswered {
    /// The order.
    pub order_id: String,
    /// The idempotency key of the charge or refund it is about.
    pub request_key: String,
    /// The kind of the call.
    pub request: GatewayRequest,
    /// The answer.
    pub outcome: GatewayOutcome,
    /// The payment, if captured.
    pub payment_id: Option<String>,
    /// The refund, if refunded.
    pub refund_id: Option<String>,
    /// Why, if declined or refused.
    pub reason: Option<String>,
}

/// Request a refused refund again, for an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryRefund {
    /// The order.
    pub order_id: String,
}
