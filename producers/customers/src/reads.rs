//! The inputs of customers: its own inbox, nothing else.

use std::borrow::Cow;

use runtime::Received;

use crate::inbox::{ForgetCustomer, RegisterCustomer, VerifyCustomer};

runtime::consumes! {
    /// The inputs of customers.
    pub enum Input {
        inbox of "customers" { RegisterCustomer, VerifyCustomer, ForgetCustomer }
    }
}

/// The customer of an input, regardless of its key.
pub fn customer_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::RegisterCustomer(command) => &command.customer_id,
        Input::VerifyCustomer(command) => &command.customer_id,
        Input::ForgetCustomer(command) => &command.customer_id,
    })
}
