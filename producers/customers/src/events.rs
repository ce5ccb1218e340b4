//! The events of customers, as their schemas define them.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The events that customers produces.
    pub enum Event in "../../schemas" {
        events of "customers" { CustomerRegistered = 1, CustomerVerified = 1, CustomerForgotten = 1, CommandRefused = 1 }
    }
}

/// How a customer is addressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The name as the customer wrote it.
    pub name: String,
    /// The address that mail goes to.
    pub email: String,
}

/// A customer registered; the mail address is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerRegistered {
    /// The customer.
    pub customer_id: String,
    /// How the customer is addressed.
    pub contact: Contact,
    /// True if the customer agreed to receive offers.
    pub marketing_consent: bool,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A customer proved that the mail address is theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerVerified {
    /// The customer.
    pub customer_id: String,
    /// How the customer is addressed.
    pub contact: Contact,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A customer asked to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerForgotten {
    /// The customer.
    pub customer_id: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// The customer it was for.
    pub entity_id: String,
    /// The record name of the command.
    pub command: String,
    /// Why, for a person.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}
