//! The filter between a turn and its driver. Without a mutant it passes every step. A mutant drops, delays or changes
//! steps or their reports.

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
    /// A commit is delayed until partitions have been reassigned.
    is_delaying: bool,
    /// Partitions whose pauses were dropped.
    unpaused: BTreeSet<i32>,
    decider: PhantomData<D>,
}

impl<D: Decider> Filter<D> {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self { mutant, is_delaying: false, unpaused: BTreeSet::new(), decider: PhantomData }
    }

    /// The step to execute, or `None` if it is dropped: other processes then act first. `has_change` means that the group has
    /// changed the assignment and the loop has not taken the change yet.
    pub(crate) fn next(
        &mut self,
        step: Step<D, Membership>,
        has_change: bool,
        world: &mut World,
    ) -> Option<Step<D, Membership>> {
        let drops = match (self.mutant, &step) {
            (Some(Mutant::LateMetadata), Step::Commit { .. }) => world.random.permille(700),
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

    /// True if the turn continues while its transaction is in progress.
    pub(crate) fn works_while_committing(&self) -> bool {
        self.mutant == Some(Mutant::EffectsBeforeCommit)
    }

    /// True if records are offered although the batch is full.
    pub(crate) fn overfills(&self) -> bool {
        self.mutant == Some(Mutant::OverLimit)
    }

    /// True if this commit is dropped because it only commits positions again.
    pub(crate) fn drops_recommit(&self, batch: &Batch) -> bool {
        self.mutant == Some(Mutant::DropRecommit) && batch.outputs().is_empty() && batch.inputs() == 0
    }

    /// True if a batch is committed under the membership of the commit, not under that of the beginning of the batch.
    pub(crate) fn commits_with_current_membership(&self) -> bool {
        matches!(self.mutant, Some(Mutant::LateMetadata | Mutant::LateFence))
    }
}
