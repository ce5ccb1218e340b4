//! The measured service: it produces one event for each input, and counts the inputs of each entity.

use runtime::{Decider, Decision, NoCommand, NoEffect, Received};
use serde::{Deserialize, Serialize};

/// An input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ticked {
    /// The scheduled send time, in microseconds of the bench's clock.
    pub(crate) intended_us: i64,
    /// Makes the record as long as an ordinary event.
    pub(crate) padding: String,
}

/// The decision about an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metered {
    /// The scheduled send time of its cause.
    pub(crate) intended_us: i64,
    /// The number of inputs of this entity so far.
    pub(crate) count: i64,
    /// The time of its cause.
    pub(crate) occurred_at: i64,
}

runtime::produces! {
    /// The bench's own events: the service's inputs.
    pub(crate) enum SourceEvent in "schemas" {
        events of "source" { Ticked = 1 }
    }
}

runtime::produces! {
    /// The service's events.
    pub(crate) enum Event in "schemas" {
        events of "meter" { Metered = 1 }
    }
}

runtime::consumes! {
    /// The service's inputs.
    pub(crate) enum Input {
        events of "source" { Ticked }
    }
}

/// The state of an entity.
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
