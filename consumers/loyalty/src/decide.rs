//! The decisions of loyalty. Pure.
//!
//! | received | account `None` | `Open` | `Closed` |
//! |---|---|---|---|
//! | CustomerRegistered | LoyaltyAccountOpened | – | – |
//! | OrderShipped, first time | LoyaltyAccountOpened, PointsAwarded | PointsAwarded | PointsAwarded with zero points |
//! | OrderShipped, again | – | – | – |
//! | CustomerForgotten | LoyaltyAccountClosed | LoyaltyAccountClosed | – |

use runtime::{Decision, NoCommand, Received, TimestampMs};

use crate::{
    events::{Event, LoyaltyAccountClosed, LoyaltyAccountOpened, PointsAwarded},
    evolve::{AccountStatus, State},
    reads::{Input, OrderShipped},
};

/// An order earns one point for each full hundred minor units of its total.
pub const MINOR_UNITS_PER_POINT: i64 = 100;

/// Decides the events of an input.
pub fn decide(state: &State, input: &Received<Input>) -> Decision<Event, NoCommand> {
    let at = input.at_ms;
    match &input.body {
        Input::CustomerRegistered(fact) if state.account == AccountStatus::None => {
            Decision::event(open(&fact.customer_id, at))
        }
        Input::CustomerForgotten(fact) if state.account != AccountStatus::Closed => {
            Decision::event(LoyaltyAccountClosed { customer_id: fact.customer_id.clone(), occurred_at: at })
        }
        Input::OrderShipped(fact) if !state.answered.contains(&fact.order_id) => award(state, fact, at),
        Input::CustomerRegistered(_) | Input::CustomerForgotten(_) | Input::OrderShipped(_) => Decision::nothing(),
    }
}

/// Every shipped order is answered, because the order-processor waits for the answer.
fn award(state: &State, order: &OrderShipped, at: TimestampMs) -> Decision<Event, NoCommand> {
    let points = match state.account {
        AccountStatus::Closed => 0,
        AccountStatus::None | AccountStatus::Open => (order.total.amount_minor / MINOR_UNITS_PER_POINT).max(0),
    };
    let awarded = PointsAwarded {
        customer_id: order.customer_id.clone(),
        order_id: order.order_id.clone(),
        points,
        balance: state.balance.saturating_add(points),
        occurred_at: at,
    };
    match state.account {
        AccountStatus::None => Decision::event(open(&order.customer_id, at)).and_event(awarded),
        AccountStatus::Open | AccountStatus::Closed => Decision::event(awarded),
    }
}

fn open(customer_id: &str, at: TimestampMs) -> LoyaltyAccountOpened {
    LoyaltyAccountOpened { customer_id: customer_id.to_owned(), occurred_at: at }
}
