//! What stands between a turn and its driver: nothing, or a mutant that drops, delays or alters steps.

use std::{collections::BTreeSet, marker::PhantomData};

use runtime::{
    Decider,
    core::{Batch, turn::Step},
};

use super::World;
use crate::{cluster::Membership, mutant::Mutant};

/// The filter of one incarnation.
pub(crate) struct Filter<D> {
    mutant: Option<Mutant>,
    /// A commit is held back until partitions have changed hands.
    is_delaying: bool,
    /// Partitions whose pauses were dropped.
    unpaused: BTreeSet<i32>,
    decider: PhantomData<D>,
}

impl<D: Decider> Filter<D> {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self { mutant, is_delaying: false, unpaused: BTreeSet::new(), decider: PhantomData }
    }

    /// The step to execute; `None` if it is dropped, so that others have their turn. `has_change` says that the group has changed
    /// something that was not taken yet.
    pub(crate) fn next(
        &mut self,
        step: Step<D, Membership>,
        has_change: bool,
        world: &mut World,
    ) -> Option<Step<D, Membership>> {
        let drops = match (self.mutant, &step) {
            (Some(Mutant::LateMetadata), Step::Commit { .. }) => world.chance.permille(700),
            (Some(Mutant::LateFence), Step::Commit { .. }) => {
                self.is_delaying |= has_change;
                self.is_delaying
            }
            (Some(Mutant::LateFence), Step::AcceptAssignment) => {
                self.is_delaying = false;
                false
            }
            (Some(Mutant::ForgetHold), Step::Pause { partition }) => self.unpaused.insert(*partition),
            (Some(Mutant::ForgetHold), Step::Resume { partitions }) => match partitions[..] {
                [partition] => self.unpaused.remove(&partition),
                _ => false,
            },
            _ => false,
        };
        (!drops).then_some(step)
    }

    /// True if the turn goes on while its transaction is under way.
    pub(crate) fn works_while_committing(&self) -> bool {
        self.mutant == Some(Mutant::EffectsBeforeCommit)
    }

    /// True if records are offered although the batch takes no more.
    pub(crate) fn overfills(&self) -> bool {
        self.mutant == Some(Mutant::OverLimit)
    }

    /// True if this commit is not executed: it would only commit positions again.
    pub(crate) fn drops_recommit(&self, batch: &Batch) -> bool {
        self.mutant == Some(Mutant::DropRecommit) && batch.outputs().is_empty() && batch.inputs() == 0
    }

    /// True if a batch is committed as the member that the process is now, not as the one it was when the batch began.
    pub(crate) fn commits_as_it_is_now(&self) -> bool {
        matches!(self.mutant, Some(Mutant::LateMetadata | Mutant::LateFence))
    }
}
