//! The state of a customer: the fold of its own events.

use serde::{Deserialize, Serialize};

use crate::events::{Contact, Event};

/// The state of one customer.
///
/// ```text
///  Unknown ──> Registered ──> Verified
///                  │             │
///                  └─────────────┴──> Forgotten
/// ```
///
/// | command | `Unknown` | `Registered` | `Verified` | `Forgotten` |
/// |---|---|---|---|---|
/// | RegisterCustomer | CustomerRegistered | – if the data is the same, else refused | like `Registered` | refused |
/// | VerifyCustomer | refused | CustomerVerified | – | refused |
/// | ForgetCustomer | refused | CustomerForgotten | CustomerForgotten | – |
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// No event yet.
    #[default]
    Unknown,
    /// Registered; the mail address is not verified.
    Registered(Profile),
    /// Registered; the mail address is verified.
    Verified(Profile),
    /// Forgotten: no other data is kept.
    Forgotten,
}

/// The data of a registered customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// How they are addressed.
    pub contact: Contact,
    /// True if they agreed to receive offers.
    pub marketing_consent: bool,
}

/// Applies one event. Total: an event is never rejected.
pub fn evolve(state: State, event: &Event) -> State {
    match event {
        Event::CustomerRegistered(registered) => State::Registered(Profile {
            contact: registered.contact.clone(),
            marketing_consent: registered.marketing_consent,
        }),
        Event::CustomerVerified(_) => match state {
            State::Registered(profile) | State::Verified(profile) => State::Verified(profile),
            State::Unknown | State::Forgotten => state,
        },
        Event::CustomerForgotten(_) => State::Forgotten,
        Event::CommandRefused(_) => state,
    }
}
