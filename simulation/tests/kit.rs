//! The kit with a service of a user's own: the worked example of docs/simulation.md, and the proof that it finds a planted fault.

use std::borrow::Cow;

use runtime::{Decider, Decision, NoEffect, Received};
use serde::{Deserialize, Serialize};
use simulation::{Cast, Chance, Finale, Hand, Mutant, Nobody, Plan, Play, Scenario, Trace, Violation, Workshop, play};

runtime::produces! {
    pub enum Event in "tests/schemas" {
        events of "turnstile" { Passed = 1 }
    }
}

runtime::produces! {
    pub enum Command in "tests/schemas" {
        inbox of "turnstile" { Pass = 1 }
    }
}

runtime::consumes! {
    pub enum Input {
        inbox of "turnstile" { Pass }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    gate: String,
    count: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    gate: String,
}

/// Counts who goes through each gate.
#[derive(Debug, Clone, Copy)]
struct Turnstile;

impl Decider for Turnstile {
    const NAME: &'static str = "turnstile";
    type State = i64;
    type Input = Input;
    type Event = Event;
    type Command = Command;
    type Effect = NoEffect;

    fn entity<'a>(&self, input: &'a Received<Input>) -> Cow<'a, str> {
        let Input::Pass(pass) = &input.body;
        Cow::Borrowed(&pass.gate)
    }

    fn decide(&self, count: &i64, input: &Received<Input>) -> Decision<Event, Command> {
        let Input::Pass(pass) = &input.body;
        Decision::event(Passed { gate: pass.gate.clone(), count: count + 1 })
    }

    fn evolve(&self, _: i64, event: &Event) -> i64 {
        let Event::Passed(passed) = event;
        passed.count
    }
}

/// Twelve people, each of whom is to be counted once.
struct Entrance;

const PEOPLE: usize = 12;

impl Scenario for Entrance {
    fn begin(&self, cast: &mut Cast<'_>, _: &mut Chance) -> Box<dyn Play> {
        cast.play(Turnstile, Nobody);
        Box::new(Morning)
    }
}

struct Morning;

impl Play for Morning {
    fn deeds(&self) -> Vec<String> {
        (0..PEOPLE).map(|person| format!("person {person} comes")).collect()
    }

    fn act(&mut self, deed: usize, hand: &mut Hand<'_>) -> Result<bool, Violation> {
        let gate = if deed.is_multiple_of(2) { "north" } else { "south" };
        hand.send::<Turnstile>(gate, Pass { gate: gate.to_owned() })
    }

    fn check(&mut self, view: &Finale<'_>, _: &mut Trace) -> Result<(), Violation> {
        let mut counted = 0;
        view.records(|topic| topic.ends_with("turnstile.events"), |_, _, _, _| counted += 1);
        if counted > PEOPLE || (view.is_quiet && counted < PEOPLE) {
            return Err(Violation::new("everybody is counted once", format!("{counted} were, of {PEOPLE}")));
        }
        Ok(())
    }
}

#[test]
fn a_users_own_service_keeps_its_promise_under_a_hundred_seeds() {
    let workshop = Workshop::new("musiccorp");
    for seed in 1..=100 {
        let history = play(&Entrance, &workshop, &Plan::of(seed));
        assert_eq!(history.violation, None, "seed {seed}");
    }
}

#[test]
fn a_runtime_that_forgets_what_it_handled_is_found_out() {
    let workshop = Workshop::new("musiccorp");
    let broken = (1..=300).find(|seed| {
        let plan = Plan { mutant: Some(Mutant::NoDedupe), ..Plan::of(*seed) };
        play(&Entrance, &workshop, &plan).violation.is_some()
    });
    assert!(broken.is_some());
}
