//! A user's own service under simulation: the worked example of docs/simulation.md, and the proof that a mutant is detected in it.

use std::borrow::Cow;

use runtime::{Decider, Decision, NoEffect, Received};
use serde::{Deserialize, Serialize};
use simulation::{
    Client, Fixtures, Mutant, NoExternalService, Plan, Scenario, ScenarioSetup, SeededRandom, Snapshot, Trace,
    Violation, Workload, run,
};

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

/// Counts the people who go through each gate.
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

/// Twelve people, each of whom must be counted once.
struct Entrance;

const PEOPLE: usize = 12;

impl Scenario for Entrance {
    fn begin(&self, setup: &mut ScenarioSetup<'_>, _: &mut SeededRandom) -> Box<dyn Workload> {
        setup.add_service(Turnstile, NoExternalService);
        Box::new(EntranceWorkload)
    }
}

struct EntranceWorkload;

impl Workload for EntranceWorkload {
    fn operations(&self) -> Vec<String> {
        (0..PEOPLE).map(|person| format!("person {person} comes")).collect()
    }

    fn apply(&mut self, operation: usize, client: &mut Client<'_>) -> Result<bool, Violation> {
        let gate = if operation.is_multiple_of(2) { "north" } else { "south" };
        client.send::<Turnstile>(gate, Pass { gate: gate.to_owned() })
    }

    fn check(&mut self, snapshot: &Snapshot<'_>, _: &mut Trace) -> Result<(), Violation> {
        let mut counted = 0;
        snapshot.records(|topic| topic.ends_with("turnstile.events"), |_, _, _, _| counted += 1);
        if counted > PEOPLE || (snapshot.is_settled && counted < PEOPLE) {
            return Err(Violation::new("every person is counted once", format!("{counted} of {PEOPLE} were counted")));
        }
        Ok(())
    }
}

#[test]
fn the_example_service_keeps_its_promise_in_a_hundred_seeds() {
    let fixtures = Fixtures::new("musiccorp");
    for seed in 1..=100 {
        let simulated = run(&Entrance, &fixtures, &Plan::of(seed));
        assert_eq!(simulated.violation, None, "seed {seed}");
    }
}

#[test]
fn a_runtime_that_forgets_handled_inputs_is_detected() {
    let fixtures = Fixtures::new("musiccorp");
    let detected_by = (1..=300).find(|seed| {
        let plan = Plan { mutant: Some(Mutant::NoDedupe), ..Plan::of(*seed) };
        run(&Entrance, &fixtures, &plan).violation.is_some()
    });
    assert!(detected_by.is_some());
}
