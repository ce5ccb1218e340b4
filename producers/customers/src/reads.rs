//! What customers hears: its own inbox, nothing else.

use std::borrow::Cow;

use runtime::Received;

use crate::inbox::{ForgetCustomer, RegisterCustomer, VerifyCustomer};

runtime::consumes! {
    /// What customers hears.
    pub enum Input {
        inbox of "customers" { RegisterCustomer, VerifyCustomer, ForgetCustomer }
    }
}

/// The customer an input is about, whatever key it came under.
pub fn customer_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::RegisterCustomer(command) => &command.customer_id,
        Input::VerifyCustomer(command) => &command.customer_id,
        Input::ForgetCustomer(command) => &command.customer_id,
    })
}
