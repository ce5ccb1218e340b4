//! What a state makes due. It is computed where a panic of the author's code still counts as the failure of the record that led to
//! the state.

use std::sync::Arc;

use crate::{
    decider::{Decider, Effect},
    guard::guarded,
    time::TimestampMs,
};

/// The timer and the effects that a state makes due.
#[derive(Debug)]
pub(crate) struct DueSet<E> {
    pub(crate) wake_at: Option<TimestampMs>,
    /// The pending effects, each with its idempotency key.
    pub(crate) effects: Vec<(Arc<str>, E)>,
}

/// Computes what a state makes due.
pub(crate) fn due_of<D: Decider>(decider: &D, state: &D::State) -> Result<DueSet<D::Effect>, String> {
    let wake_at = guarded("wake_at", || decider.wake_at(state))?;
    let pending = guarded("pending", || decider.pending(state))?;
    let keyed = |effect: D::Effect| Ok((guarded("Effect::key", || effect.key())?.into(), effect));
    Ok(DueSet { wake_at, effects: pending.into_iter().map(keyed).collect::<Result<_, String>>()? })
}
