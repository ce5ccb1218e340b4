//! A decider that fails now and then, as one with a mistake in it would: on certain inputs, every time, until it is mended.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtime::{Answer, Decider, Decision, Due, Received, TimestampMs, Unanswered};
use uuid::Uuid;

use super::Outside;
use crate::chance::Chance;

/// Where a decider fails on an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// When it decides.
    Decide,
    /// When what it has decided is folded: a state is lost.
    Evolve,
}

/// What the deciders of one service fail on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mood(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    failing: BTreeMap<Uuid, Failing>,
    evolve_fails: bool,
}

impl Mood {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this input fails.
    pub(crate) fn fail_on(&self, input: Uuid, failing: Failing) {
        self.inner().failing.insert(input, failing);
    }

    /// Nothing fails any more.
    pub(crate) fn mend(&self) {
        *self.inner() = Inner::default();
    }
}

/// A decider with a mood.
#[derive(Debug, Clone)]
pub(crate) struct Moody<D> {
    pub(crate) decider: D,
    pub(crate) mood: Mood,
}

/// Unwinds as a panic does, without a word on standard error.
fn fail(what: &str) -> ! {
    std::panic::resume_unwind(Box::new(what.to_owned()))
}

impl<D: Decider> Decider for Moody<D> {
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
        let failing = self.mood.inner().failing.get(&input.id).copied();
        let decision = self.decider.decide(state, input);
        match failing {
            Some(Failing::Decide) => fail("a mistake in decide"),
            Some(Failing::Evolve) => self.mood.inner().evolve_fails = !decision.events.is_empty(),
            None => {}
        }
        decision
    }

    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State {
        if std::mem::take(&mut self.mood.inner().evolve_fails) {
            fail("a mistake in evolve");
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

/// The outside world of a decider, asked by one with a mood.
pub(crate) struct AskedBy<O: ?Sized>(pub(crate) std::rc::Rc<std::cell::RefCell<O>>);

impl<D: Decider, O: Outside<D> + ?Sized> Outside<Moody<D>> for AskedBy<O> {
    fn ask(&mut self, key: &str, due: &Due<D::Effect>, chance: &mut Chance) -> Result<Answer<D::Command>, Unanswered> {
        self.0.borrow_mut().ask(key, due, chance)
    }
}
