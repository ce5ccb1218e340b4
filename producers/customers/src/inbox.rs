//! What enters the inbox of customers: the commands of its edge.

use serde::{Deserialize, Serialize};

use crate::events::Contact;

runtime::produces! {
    /// What the edge asks.
    pub enum Command in "../../schemas" {
        inbox of "customers" { RegisterCustomer = 1, VerifyCustomer = 1, ForgetCustomer = 1 }
    }
}

/// Somebody wants to become a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterCustomer {
    /// The customer to be.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
    /// True if they agreed to be told of offers.
    pub marketing_consent: bool,
}

/// A customer followed the link in the welcome mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyCustomer {
    /// The customer.
    pub customer_id: String,
}

/// A customer wants to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetCustomer {
    /// The customer.
    pub customer_id: String,
}
