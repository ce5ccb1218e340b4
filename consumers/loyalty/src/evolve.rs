//! The state of a customer: the fold of its own events.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::events::Event;

/// The state of one customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The account.
    pub account: AccountStatus,
    /// Its points.
    pub balance: i64,
    /// Every order that was answered, kept permanently: an order earns points once.
    pub answered: BTreeSet<String>,
}

/// The status of an account.
///
/// ```text
///  None ──> Open ──> Closed
///   └──────────────────┘
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountStatus {
    /// Not opened yet.
    #[default]
    None,
    /// Open.
    Open,
    /// Closed permanently.
    Closed,
}

/// Applies one event. Total: an event is never rejected.
pub fn evolve(mut state: State, event: &Event) -> State {
    match event {
        Event::LoyaltyAccountOpened(_) => state.account = AccountStatus::Open,
        Event::PointsAwarded(awarded) => {
            state.balance = awarded.balance;
            state.answered.insert(awarded.order_id.clone());
        }
        Event::LoyaltyAccountClosed(_) => {
            state.account = AccountStatus::Closed;
            state.balance = 0;
        }
    }
    state
}
