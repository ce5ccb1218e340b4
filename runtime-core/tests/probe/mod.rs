//! A service for the runtime's own tests: it counts, has effects, sets timers, sends commands to its own entities, and panics where
//! a test wants it to.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

pub mod adder;

use std::{borrow::Cow, sync::atomic::Ordering::SeqCst};

use runtime_core::decider::{Decider, Decision, Effect, Received, TimerFired, TimestampMs};
use serde::{Deserialize, Serialize, Serializer};

/// An event of the source that selects what the probe does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinged {
    /// The entity it is about.
    pub target: String,
    /// What to do: `count`, `ask`, `wake`, `pass-on`, `panic` or `panic-in-entity`.
    pub mode: String,
    /// How much, when, or nothing.
    pub amount: i64,
}

/// An event that the probe does not consume.
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
    #[serde(serialize_with = "write_amount")]
    pub amount: i64,
    pub occurred_at: TimestampMs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub request: String,
    pub occurred_at: TimestampMs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyAccepted {
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

runtime_core::produces! {
    /// The events of the source.
    pub enum Source in "../runtime-core/tests/schemas" {
        events of "source" { Pinged = 1, Unrelated = 1 }
    }
}

runtime_core::produces! {
    /// The events of the probe.
    pub enum Event in "../runtime-core/tests/schemas" {
        events of "probe" { Counted = 1, Asked = 1, ReplyAccepted = 1, Scheduled = 1, Woken = 1 }
    }
}

runtime_core::produces! {
    /// The commands that the probe sends to its own inbox.
    pub enum Command in "../runtime-core/tests/schemas" {
        inbox of "probe" { Count = 1, Replied = 1 }
    }
}

runtime_core::consumes! {
    /// What the probe consumes.
    pub enum Input {
        events of "source" { Pinged }
        inbox of "probe" { Count, Replied }
        inbox of "runtime" { TimerFired }
    }
}

/// The state of one entity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    #[serde(serialize_with = "write_total")]
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
        assert!(!self.asks_for(PANICS_IN_EFFECT_KEY), "injected panic in Effect::key");
        self.0.clone()
    }
}

impl Request {
    fn asks_for(&self, amount: i64) -> bool {
        self.0.ends_with(&format!("/{amount}"))
    }
}

/// The amount over which a fragile probe panics in `evolve`.
pub const PANICS_IN_EVOLVE: i64 = i64::MIN;
/// The amount to `ask` for over which a fragile probe panics in `pending`.
pub const PANICS_IN_PENDING: i64 = -1_001;
/// The amount to `ask` for whose effect panics when it is asked for its key.
pub const PANICS_IN_EFFECT_KEY: i64 = -1_002;
/// The instant to `wake` at over which a fragile probe panics in `wake_at`.
pub const PANICS_IN_WAKE_AT: i64 = i64::MAX / 2;
/// The amount to `count` whose event panics when it is serialized.
pub const PANICS_IN_SERIALIZE_OF_EVENT: i64 = i64::MIN + 1;
/// The total at which a state panics when it is serialized.
pub const PANICS_IN_SERIALIZE_OF_STATE: i64 = i64::MAX;

fn write_amount<S: Serializer>(amount: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    assert_ne!(*amount, PANICS_IN_SERIALIZE_OF_EVENT, "injected panic in Serialize of the event");
    serializer.serialize_i64(*amount)
}

fn write_total<S: Serializer>(total: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    assert_ne!(*total, PANICS_IN_SERIALIZE_OF_STATE, "injected panic in Serialize of the state");
    serializer.serialize_i64(*total)
}

/// The service.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// While true, it panics where a record requests it.
    pub fragile: std::sync::Arc<std::sync::atomic::AtomicBool>,
    /// Whether the source's records lie under the keys of their targets.
    pub keyed_alike: bool,
    /// Whether `entity` panics the next time, and only then.
    pub entity_panics_once: std::sync::Arc<std::sync::atomic::AtomicBool>,
    /// Whether `shares_keys_with` panics.
    pub panics_in_shares_keys_with: bool,
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
            "panic" => {
                assert!(!self.fragile.load(SeqCst), "injected panic in decide");
                Decision::event(Counted { amount: ping.amount, occurred_at })
            }
            "panic-in-entity" => Decision::event(Counted { amount: ping.amount, occurred_at }),
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
        assert!(!self.entity_panics_once.swap(false, SeqCst), "injected panic in entity");
        match &input.body {
            Input::Pinged(ping) => {
                let panics = ping.mode == "panic-in-entity" && self.fragile.load(SeqCst);
                assert!(!panics, "injected panic in entity");
                Cow::Borrowed(&ping.target)
            }
            _ => Cow::Borrowed(&input.key),
        }
    }

    fn shares_keys_with(&self, _owner: &str) -> bool {
        assert!(!self.panics_in_shares_keys_with, "injected panic in shares_keys_with");
        self.keyed_alike
    }

    fn decide(&self, state: &State, input: &Received<Input>) -> Decision<Event, Command> {
        let occurred_at = input.at_ms;
        match &input.body {
            Input::Pinged(ping) => self.ping(input, ping),
            Input::Count(count) => Decision::event(Counted { amount: count.amount, occurred_at }),
            Input::Replied(reply) if state.asked.contains(&reply.request) => {
                Decision::event(ReplyAccepted { request: reply.request.clone(), amount: reply.amount, occurred_at })
            }
            Input::TimerFired(fired) if state.wake_at == Some(fired.due_at) => {
                Decision::event(Woken { due_at: fired.due_at, occurred_at })
            }
            Input::Replied(_) | Input::TimerFired(_) => Decision::nothing(),
        }
    }

    fn evolve(&self, mut state: State, event: &Event) -> State {
        match event {
            Event::Counted(counted) if counted.amount == PANICS_IN_EVOLVE => {
                assert!(!self.fragile.load(SeqCst), "injected panic in evolve");
            }
            Event::Counted(counted) => state.total = state.total.saturating_add(counted.amount),
            Event::Asked(asked) => state.asked.push(asked.request.clone()),
            Event::ReplyAccepted(accepted) => {
                state.asked.retain(|request| *request != accepted.request);
                state.total = state.total.saturating_add(accepted.amount);
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
        let requests: Vec<Request> = state.asked.iter().cloned().map(Request).collect();
        let panics = self.fragile.load(SeqCst) && requests.iter().any(|request| request.asks_for(PANICS_IN_PENDING));
        assert!(!panics, "injected panic in pending");
        requests
    }

    fn wake_at(&self, state: &State) -> Option<TimestampMs> {
        let panics = self.fragile.load(SeqCst) && state.wake_at == Some(PANICS_IN_WAKE_AT);
        assert!(!panics, "injected panic in wake_at");
        state.wake_at
    }
}
