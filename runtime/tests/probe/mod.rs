//! A service for the runtime's own tests: it counts, performs effects, sets timers, sends commands to its own entities, and panics
//! on request.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{borrow::Cow, sync::atomic::Ordering::SeqCst};

use runtime::{Decider, Decision, Effect, Received, TimerFired, TimestampMs};
use serde::{Deserialize, Serialize};

/// An event of the other service, which the probe consumes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinged {
    /// The entity it is about.
    pub target: String,
    /// What to do: `count`, `ask`, `wake`, `pass-on` or `panic`.
    pub mode: String,
    /// An amount, an instant, or unused.
    pub amount: i64,
}

/// Consumed by no service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unrelated {
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Count {
    pub amount: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replied {
    pub request: String,
    pub amount: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    pub amount: i64,
    pub occurred_at: TimestampMs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub request: String,
    pub occurred_at: TimestampMs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heeded {
    pub request: String,
    pub amount: i64,
    pub occurred_at: TimestampMs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scheduled {
    pub due_at: TimestampMs,
    pub occurred_at: TimestampMs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Woken {
    pub due_at: TimestampMs,
    pub occurred_at: TimestampMs,
}

runtime::produces! {
    /// The events of the other service in these tests.
    pub enum Source in "tests/schemas" {
        events of "source" { Pinged = 1, Unrelated = 1 }
    }
}

runtime::produces! {
    /// The events of the probe.
    pub enum Event in "tests/schemas" {
        events of "probe" { Counted = 1, Asked = 1, Heeded = 1, Scheduled = 1, Woken = 1 }
    }
}

runtime::produces! {
    /// The commands of the probe.
    pub enum Command in "tests/schemas" {
        inbox of "probe" { Count = 1, Replied = 1 }
    }
}

runtime::consumes! {
    /// The input of the probe.
    pub enum Input {
        events of "source" { Pinged }
        inbox of "probe" { Count, Replied }
        inbox of "runtime" { TimerFired }
    }
}

/// The state of one entity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub total: i64,
    pub asked: Vec<String>,
    pub wake_at: Option<TimestampMs>,
    pub woken: u32,
}

/// A request to an external service.
#[derive(Debug, Clone, PartialEq)]
pub struct Request(pub String);

impl Effect for Request {
    fn key(&self) -> String {
        self.0.clone()
    }
}

/// The amount on which a fragile probe panics in `evolve`.
pub const UNBEARABLE: i64 = i64::MIN;

/// The service.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// While true, `panic` panics in `decide`, and `UNBEARABLE` in `evolve`.
    pub fragile: std::sync::Arc<std::sync::atomic::AtomicBool>,
    /// Whether the source's records have the keys of their targets.
    pub keyed_alike: bool,
}

impl Probe {
    fn ping(&self, input: &Received<Input>, ping: &Pinged) -> Decision<Event, Command> {
        let occurred_at = input.at_ms;
        match ping.mode.as_str() {
            "count" => Decision::event(Counted { amount: ping.amount, occurred_at }),
            "ask" => Decision::event(Asked { request: format!("{}/{}", ping.target, ping.amount), occurred_at }),
            "wake" => Decision::event(Scheduled { due_at: ping.amount, occurred_at }),
            "pass-on" => Decision::event(Counted { amount: 0, occurred_at })
                .and_command(format!("{}-friend", ping.target), Count { amount: ping.amount }),
            "panic" if self.fragile.load(SeqCst) => panic!("told to"),
            "panic" => Decision::event(Counted { amount: ping.amount, occurred_at }),
            _ => Decision::nothing(),
        }
    }
}

impl Decider for Probe {
    const NAME: &'static str = "probe";
    type State = State;
    type Input = Input;
    type Event = Event;
    type Command = Command;
    type Effect = Request;

    fn entity<'a>(&self, input: &'a Received<Input>) -> Cow<'a, str> {
        match &input.body {
            Input::Pinged(ping) => Cow::Borrowed(&ping.target),
            _ => Cow::Borrowed(&input.key),
        }
    }

    fn shares_keys_with(&self, _owner: &str) -> bool {
        self.keyed_alike
    }

    fn decide(&self, state: &State, input: &Received<Input>) -> Decision<Event, Command> {
        let occurred_at = input.at_ms;
        match &input.body {
            Input::Pinged(ping) => self.ping(input, ping),
            Input::Count(count) => Decision::event(Counted { amount: count.amount, occurred_at }),
            Input::Replied(reply) if state.asked.contains(&reply.request) => {
                Decision::event(Heeded { request: reply.request.clone(), amount: reply.amount, occurred_at })
            }
            Input::TimerFired(fired) if state.wake_at == Some(fired.due_at) => {
                Decision::event(Woken { due_at: fired.due_at, occurred_at })
            }
            Input::Replied(_) | Input::TimerFired(_) => Decision::nothing(),
        }
    }

    fn evolve(&self, mut state: State, event: &Event) -> State {
        match event {
            Event::Counted(counted) if counted.amount == UNBEARABLE && self.fragile.load(SeqCst) => {
                panic!("the panic amount")
            }
            Event::Counted(counted) if counted.amount == UNBEARABLE => {}
            Event::Counted(counted) => state.total = state.total.saturating_add(counted.amount),
            Event::Asked(asked) => state.asked.push(asked.request.clone()),
            Event::Heeded(heeded) => {
                state.asked.retain(|request| *request != heeded.request);
                state.total = state.total.saturating_add(heeded.amount);
            }
            Event::Scheduled(scheduled) => state.wake_at = Some(scheduled.due_at),
            Event::Woken(_) => {
                state.wake_at = None;
                state.woken += 1;
            }
        }
        state
    }

    fn pending(&self, state: &State) -> Vec<Request> {
        state.asked.iter().cloned().map(Request).collect()
    }

    fn wake_at(&self, state: &State) -> Option<TimestampMs> {
        state.wake_at
    }
}
