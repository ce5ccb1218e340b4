//! A decider with bugs: it fails on certain inputs, every time, until the bugs are fixed.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtime::{Answer, Decider, Decision, Due, Received, TimestampMs, Unanswered};
use uuid::Uuid;

use super::ExternalService;
use crate::random::SeededRandom;

/// Where a decider fails on an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BugSite {
    /// In `decide`.
    Decide,
    /// In `evolve`, when what it has decided is folded: a state is lost.
    Evolve,
}

/// The bugs of the deciders of one service.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeciderBugs(Arc<Mutex<KnownBugs>>);

#[derive(Debug, Default)]
struct KnownBugs {
    by_input: BTreeMap<Uuid, BugSite>,
    evolve_fails: bool,
}

impl DeciderBugs {
    fn known(&self) -> MutexGuard<'_, KnownBugs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on this input fails.
    pub(crate) fn fail_on(&self, input: Uuid, site: BugSite) {
        self.known().by_input.insert(input, site);
    }

    /// From here on no input fails.
    pub(crate) fn fix(&self) {
        *self.known() = KnownBugs::default();
    }
}

/// A decider that may have bugs.
#[derive(Debug, Clone)]
pub(crate) struct FaultyDecider<D> {
    pub(crate) decider: D,
    pub(crate) bugs: DeciderBugs,
}

/// Unwinds as a panic does, and writes nothing to standard error.
fn fail(what: &str) -> ! {
    std::panic::resume_unwind(Box::new(what.to_owned()))
}

impl<D: Decider> Decider for FaultyDecider<D> {
    const NAME: &'static str = D::NAME;
    type State = D::State;
    type Input = D::Input;
    type Event = D::Event;
    type Command = D::Command;
    type Effect = D::Effect;

    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        self.decider.entity(input)
    }

    fn shares_keys_with(&self, owner: &str) -> bool {
        self.decider.shares_keys_with(owner)
    }

    fn decide(&self, state: &Self::State, input: &Received<Self::Input>) -> Decision<Self::Event, Self::Command> {
        let site = self.bugs.known().by_input.get(&input.id).copied();
        let decision = self.decider.decide(state, input);
        match site {
            Some(BugSite::Decide) => fail("a bug in decide"),
            Some(BugSite::Evolve) => self.bugs.known().evolve_fails = !decision.events.is_empty(),
            None => {}
        }
        decision
    }

    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State {
        if std::mem::take(&mut self.bugs.known().evolve_fails) {
            fail("a bug in evolve");
        }
        self.decider.evolve(state, event)
    }

    fn pending(&self, state: &Self::State) -> Vec<Self::Effect> {
        self.decider.pending(state)
    }

    fn wake_at(&self, state: &Self::State) -> Option<TimestampMs> {
        self.decider.wake_at(state)
    }
}

/// The external service of a decider, called by a faulty decider in its place.
pub(crate) struct FaultyCaller<O: ?Sized>(pub(crate) std::rc::Rc<std::cell::RefCell<O>>);

impl<D: Decider, O: ExternalService<D> + ?Sized> ExternalService<FaultyDecider<D>> for FaultyCaller<O> {
    fn call(
        &mut self,
        key: &str,
        due: &Due<D::Effect>,
        random: &mut SeededRandom,
    ) -> Result<Answer<D::Command>, Unanswered> {
        self.0.borrow_mut().call(key, due, random)
    }
}
