//! What loyalty remembers of a customer: the fold of its own events.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::events::Event;

/// What is remembered of one customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The account.
    pub account: Account,
    /// Its points.
    pub balance: i64,
    /// Every order that was answered, for ever: an order earns once.
    pub answered: BTreeSet<String>,
}

/// Whether the customer can collect points.
///
/// ```text
///  None ──> Open ──> Closed
///   └──────────────────┘
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// Not opened yet.
    #[default]
    None,
    /// Open.
    Open,
    /// Closed for good.
    Closed,
}

/// Folds one event. Total: what was said is never argued with.
pub fn evolve(mut state: State, event: &Event) -> State {
    match event {
        Event::LoyaltyAccountOpened(_) => state.account = Account::Open,
        Event::PointsAwarded(awarded) => {
            state.balance = awarded.balance;
            state.answered.insert(awarded.order_id.clone());
        }
        Event::LoyaltyAccountClosed(_) => {
            state.account = Account::Closed;
            state.balance = 0;
        }
    }
    state
}
