//! The sagas of each class, in order of their last change.
//!
//! A class is anything a list can be filtered by: all, a state, a flag, an outcome, an owed step, its owner. The classes of a
//! saga are the bits of one integer. Each class is a set ordered by revision, so a count is the size of a set and a list walks
//! a set. Neither scans all sagas.

use std::collections::BTreeSet;

use crate::{
    declaration::{Declaration, NodeSet},
    progress::{LifecycleState, SagaFlag, SagaProgress},
};

/// A set of classes.
pub(crate) type ClassSet = u128;
/// The number of a saga in the view.
pub(crate) type InstanceNo = u32;

const STATES_AT: usize = 1;
const FLAGS_AT: usize = STATES_AT + LifecycleState::ALL.len();
const OUTCOMES_AT: usize = FLAGS_AT + SagaFlag::ALL.len();

/// The sagas of one declaration by class.
#[derive(Debug)]
pub(crate) struct SagaIndex {
    classes: Vec<BTreeSet<(u64, InstanceNo)>>,
    nodes_at: usize,
    owners_at: usize,
    owner_of_node: Vec<usize>,
}

impl SagaIndex {
    pub(crate) const ALL: ClassSet = 1;

    pub(crate) fn new(declaration: &Declaration) -> Self {
        let nodes_at = OUTCOMES_AT + declaration.outcomes.len();
        let owners_at = nodes_at + declaration.nodes.len();
        let count = owners_at + declaration.owners.len();
        Self {
            classes: vec![BTreeSet::new(); count],
            nodes_at,
            owners_at,
            owner_of_node: declaration.nodes.iter().map(|node| node.owner).collect(),
        }
    }

    pub(crate) fn state(state: LifecycleState) -> ClassSet {
        1 << (STATES_AT + state as usize)
    }

    pub(crate) fn flag(flag: SagaFlag) -> ClassSet {
        1 << (FLAGS_AT + flag as usize)
    }

    pub(crate) fn outcome(outcome: usize) -> ClassSet {
        1 << (OUTCOMES_AT + outcome)
    }

    pub(crate) fn node(&self, node: usize) -> ClassSet {
        1 << (self.nodes_at + node)
    }

    pub(crate) fn owner(&self, owner: usize) -> ClassSet {
        1 << (self.owners_at + owner)
    }

    /// The classes of a saga with this progress.
    pub(crate) fn classes_of(&self, progress: &SagaProgress, flags: u8) -> ClassSet {
        let mut set = Self::ALL | Self::state(progress.state) | ClassSet::from(flags) << FLAGS_AT;
        if let Some(outcome) = progress.outcome {
            set |= Self::outcome(outcome);
        }
        let mut waiting: NodeSet = progress.waiting;
        while waiting != 0 {
            let node = waiting.trailing_zeros() as usize;
            set |= self.node(node) | self.owner(self.owner_of_node[node]);
            waiting &= waiting - 1;
        }
        set
    }

    /// Moves a saga to its new revision and classes.
    pub(crate) fn update(&mut self, instance: InstanceNo, before: (u64, ClassSet), now: (u64, ClassSet)) {
        for (number, class) in self.classes.iter_mut().enumerate() {
            if before.1 & (1 << number) != 0 {
                class.remove(&(before.0, instance));
            }
            if now.1 & (1 << number) != 0 {
                class.insert((now.0, instance));
            }
        }
    }

    /// The number of sagas in a class (the first of the set).
    pub(crate) fn count(&self, class: ClassSet) -> usize {
        self.classes.get(class.trailing_zeros() as usize).map_or(0, BTreeSet::len)
    }

    /// Every saga that changed after a revision, the earliest change first.
    pub(crate) fn after(&self, revision: u64) -> impl Iterator<Item = (u64, InstanceNo)> {
        self.classes[0].range((revision + 1, 0)..).copied()
    }

    /// The ordered sets of several classes.
    pub(crate) fn sets(&self, classes: ClassSet) -> impl Iterator<Item = &BTreeSet<(u64, InstanceNo)>> {
        self.classes.iter().enumerate().filter(move |(number, _)| classes & (1 << number) != 0).map(|(_, set)| set)
    }
}
