//! What payment asks of the gateway, until it answers.

use crate::{
    events::Money,
    evolve::{State, Terms},
};

/// A request to the payment gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Charge the customer.
    Charge {
        /// The charge's idempotency key.
        request_key: String,
        /// How much.
        amount: Money,
        /// The token to charge.
        payment_method: String,
    },
    /// See to it that a charge is never captured, or learn what became of it.
    Void {
        /// The charge's idempotency key.
        charge_key: String,
    },
    /// Pay back what was captured.
    Refund {
        /// The refund's idempotency key.
        request_key: String,
        /// The gateway's name for the payment.
        payment_id: String,
        /// How much.
        amount: Money,
    },
}

impl runtime::Effect for Effect {
    fn key(&self) -> String {
        match self {
            Self::Charge { request_key, .. } | Self::Refund { request_key, .. } => request_key.clone(),
            Self::Void { charge_key } => format!("void-of-{charge_key}"),
        }
    }
}

/// What is asked and not yet answered.
#[must_use]
pub fn pending(state: &State) -> Vec<Effect> {
    match state {
        State::Charging { terms: Terms { amount, payment_method, .. }, request_key } => vec![Effect::Charge {
            request_key: request_key.clone(),
            amount: amount.clone(),
            payment_method: payment_method.clone(),
        }],
        State::Voiding { request_key, .. } => vec![Effect::Void { charge_key: request_key.clone() }],
        State::Refunding { amount, payment_id, request_key } => vec![Effect::Refund {
            request_key: request_key.clone(),
            payment_id: payment_id.clone(),
            amount: amount.clone(),
        }],
        _ => Vec::new(),
    }
}
