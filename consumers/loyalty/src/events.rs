//! The events of loyalty, as their schemas define them.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The events that loyalty produces.
    pub enum Event in "../../schemas" {
        events of "loyalty" { LoyaltyAccountOpened = 1, PointsAwarded = 1, LoyaltyAccountClosed = 1 }
    }
}

/// A customer can collect points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoyaltyAccountOpened {
    /// The customer.
    pub customer_id: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The answer to a shipped order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsAwarded {
    /// The customer.
    pub customer_id: String,
    /// The order that earned them.
    pub order_id: String,
    /// How many, zero if the account is closed.
    pub points: i64,
    /// The account's points afterwards.
    pub balance: i64,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A customer collects no more points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoyaltyAccountClosed {
    /// The customer.
    pub customer_id: String,
    /// When it was decided.
    pub occurred_at: i64,
}
