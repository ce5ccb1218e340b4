//! MusicCorp from seeds: some new ones, the cases that once broke a promise, and what makes a failing seed useful.

use std::collections::BTreeSet;

use serde::Deserialize;
use simulation::{
    Fixtures, Mutant, Plan,
    musiccorp::{MusicCorp, SYSTEM},
    run, shrink,
};

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// A run that once broke a promise.
#[derive(Deserialize)]
struct Case {
    name: String,
    seed: u64,
    #[serde(default)]
    is_wild: bool,
    only_faults: Option<BTreeSet<u32>>,
    only_operations: Option<BTreeSet<usize>>,
    steps: Option<u64>,
    /// The situations that must occur in it, so that it is still the run that its name describes.
    sees: BTreeSet<String>,
}

#[test]
fn every_promise_is_kept_and_a_seed_gives_the_same_trace_twice() {
    let fixtures = Fixtures::new(SYSTEM);
    for seed in 1..=40 {
        let simulated = run(&MusicCorp, &fixtures, &Plan::of(seed));
        assert_eq!(simulated.violation, None, "seed {seed}");
        let again = run(&MusicCorp, &Fixtures::new(SYSTEM), &Plan::of(seed));
        assert_eq!(simulated.trace.hash(), again.trace.hash(), "seed {seed} gave two different traces");
    }
}

#[test]
fn the_regressions_keep_every_promise() {
    let cases: Cases = toml::from_str(include_str!("../regressions.toml")).unwrap();
    let fixtures = Fixtures::new(SYSTEM);
    for case in cases.case {
        let Case { name, seed, is_wild, only_faults, only_operations, steps, sees } = case;
        let plan = Plan { is_wild, only_faults, only_operations, steps, ..Plan::of(seed) };
        let simulated = run(&MusicCorp, &fixtures, &plan);
        assert_eq!(simulated.violation, None, "{name} (seed {seed})");
        let missed: Vec<&String> = sees.iter().filter(|what| !simulated.trace.seen().contains(what.as_str())).collect();
        assert!(missed.is_empty(), "{name}: the run of seed {seed} has changed and lacks {missed:?}; find a new seed");
    }
}

#[test]
fn a_failing_seed_shrinks_and_prints_its_trace() {
    let fixtures = Fixtures::new(SYSTEM);
    let failing = (1..=200).find_map(|seed| {
        let plan = Plan { mutant: Some(Mutant::CommitFirst), ..Plan::of(seed) };
        let simulated = run(&MusicCorp, &fixtures, &plan);
        simulated.violation.is_some().then_some((plan, simulated))
    });
    let (plan, simulated) = failing.expect("the first two hundred seeds detect this mutant");
    let (small, shrunk) = shrink(&MusicCorp, &fixtures, &plan, 60);
    assert!(shrunk.violation.is_some());
    assert!(shrunk.faults.len() <= simulated.faults.len());
    let with_lines = run(&MusicCorp, &fixtures, &Plan { keeps_lines: true, ..small });
    assert_eq!(with_lines.trace.hash(), shrunk.trace.hash(), "keeping lines changes nothing");
    assert!(with_lines.trace.lines().iter().any(|line| line.text.contains("appended")));
}
