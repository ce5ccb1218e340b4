//! What customers remembers of a customer: the fold of its own events.

use serde::{Deserialize, Serialize};

use crate::events::{Contact, Event};

/// What is remembered of one customer.
///
/// ```text
///  Unknown ──> Registered ──> Verified
///                  │             │
///                  └─────────────┴──> Forgotten
/// ```
///
/// | command | `Unknown` | `Registered` | `Verified` | `Forgotten` |
/// |---|---|---|---|---|
/// | RegisterCustomer | CustomerRegistered | – if it says the same, else refused | like `Registered` | refused |
/// | VerifyCustomer | refused | CustomerVerified | – | refused |
/// | ForgetCustomer | refused | CustomerForgotten | CustomerForgotten | – |
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing was ever said about them.
    #[default]
    Unknown,
    /// Known, the mail address not verified.
    Registered(Profile),
    /// Known, the mail address verified.
    Verified(Profile),
    /// Asked to be forgotten: nothing else is kept.
    Forgotten,
}

/// What a known customer told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// How they are addressed.
    pub contact: Contact,
    /// True if they agreed to be told of offers.
    pub marketing_consent: bool,
}

/// Folds one event. Total: what was said is never argued with.
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
