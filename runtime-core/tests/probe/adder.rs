//! A probe that remembers a total alone. The default of its state panics when a test wants it to: no record can request it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use runtime_core::decider::{Decider, Decision, Received};
use serde::{Deserialize, Serialize};

use super::{Command, Event, Input, Probe, Request, State};

/// Whether a [`Total`] panics where it has no value of its own. One test of a process may set it.
pub static DEFAULT_PANICS: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Total(pub i64);

impl Default for Total {
    fn default() -> Self {
        assert!(!DEFAULT_PANICS.load(SeqCst), "injected panic");
        Self(0)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Adder;

impl Decider for Adder {
    const NAME: &'static str = Probe::NAME;
    type State = Total;
    type Input = Input;
    type Event = Event;
    type Command = Command;
    type Effect = Request;

    fn decide(&self, _: &Total, input: &Received<Input>) -> Decision<Event, Command> {
        Probe::default().decide(&State::default(), input)
    }

    fn evolve(&self, state: Total, event: &Event) -> Total {
        if let Event::Counted(counted) = event { Total(state.0 + counted.amount) } else { state }
    }
}
