//! The measured service: one event out for each input in, and a count per entity.

use runtime::{Decider, Decision, NoCommand, NoEffect, Received};
use serde::{Deserialize, Serialize};

/// An input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ticked {
    /// When it was to be sent, in microseconds of the bench's clock.
    pub(crate) intended_us: i64,
    /// Makes it as long as an ordinary event.
    pub(crate) padding: String,
}

/// What is decided about one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metered {
    /// When its cause was to be sent.
    pub(crate) intended_us: i64,
    /// How many there were for this entity.
    pub(crate) count: i64,
    /// The time of its cause.
    pub(crate) occurred_at: i64,
}

runtime::produces! {
    /// What is sent.
    pub(crate) enum Source in "schemas" {
        events of "source" { Ticked = 1 }
    }
}

runtime::produces! {
    /// What is decided.
    pub(crate) enum Event in "schemas" {
        events of "meter" { Metered = 1 }
    }
}

runtime::consumes! {
    /// What is heard.
    pub(crate) enum Input {
        events of "source" { Ticked }
    }
}

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    count: i64,
}

/// The service.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meter;

impl Decider for Meter {
    const NAME: &'static str = "meter";
    type State = State;
    type Input = Input;
    type Event = Event;
    type Command = NoCommand;
    type Effect = NoEffect;

    fn decide(&self, state: &State, input: &Received<Input>) -> Decision<Event, NoCommand> {
        let Input::Ticked(ticked) = &input.body;
        let (intended_us, count) = (ticked.intended_us, state.count + 1);
        Decision::event(Metered { intended_us, count, occurred_at: input.at_ms })
    }

    fn evolve(&self, _: State, event: &Event) -> State {
        let Event::Metered(metered) = event;
        State { count: metered.count }
    }
}
