//! What the warehouse asks of the outside world: the picking floor to pick, the courier to take the parcel.

use crate::{
    events::{Address, ItemLine},
    evolve::{Phase, State},
};

/// A request to the outside world.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// To the picking floor: pick and pack.
    Pick {
        /// The order.
        order_id: String,
        /// What to pick.
        lines: Vec<ItemLine>,
    },
    /// To the courier: take the parcel.
    Dispatch {
        /// The order.
        order_id: String,
        /// The parcel.
        parcel_id: String,
        /// Where it goes.
        ship_to: Address,
    },
}

impl runtime::Effect for Effect {
    fn key(&self) -> String {
        match self {
            Self::Pick { order_id, .. } => format!("pick-{order_id}"),
            Self::Dispatch { order_id, .. } => format!("dispatch-{order_id}"),
        }
    }
}

/// What is asked and not yet answered.
#[must_use]
pub fn pending(state: &State) -> Vec<Effect> {
    let Some(order) = &state.fulfilment else { return Vec::new() };
    let order_id = order.order_id.clone();
    match (&order.phase, &order.ship_to) {
        (Phase::Picking, _) => vec![Effect::Pick { order_id, lines: order.item_lines() }],
        (Phase::Packaged { parcel_id }, Some(ship_to)) => {
            vec![Effect::Dispatch { order_id, parcel_id: parcel_id.clone(), ship_to: ship_to.clone() }]
        }
        _ => Vec::new(),
    }
}
