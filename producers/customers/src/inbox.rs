//! The inbox of customers: the commands of its HTTP API.

use serde::{Deserialize, Serialize};

use crate::events::Contact;

runtime::produces! {
    /// The commands of the HTTP API.
    pub enum Command in "../../schemas" {
        inbox of "customers" { RegisterCustomer = 1, VerifyCustomer = 1, ForgetCustomer = 1 }
    }
}

/// Register a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterCustomer {
    /// The customer id.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
    /// True if they agreed to receive offers.
    pub marketing_consent: bool,
}

/// Verify a customer, who followed the link in the welcome mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyCustomer {
    /// The customer.
    pub customer_id: String,
}

/// Forget a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetCustomer {
    /// The customer.
    pub customer_id: String,
}
