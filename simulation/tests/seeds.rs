//! MusicCorp from seeds: some fresh ones, the cases that once broke, and what makes a failing seed useful.

use std::collections::BTreeSet;

use serde::Deserialize;
use simulation::{
    Mutant, Plan, Workshop,
    musiccorp::{MusicCorp, SYSTEM},
    play, shrink,
};

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// A history that once broke a promise.
#[derive(Deserialize)]
struct Case {
    name: String,
    seed: u64,
    #[serde(default)]
    is_wild: bool,
    only_faults: Option<BTreeSet<u32>>,
    only_deeds: Option<BTreeSet<usize>>,
    steps: Option<u64>,
    /// What must be seen in it, so that it is still the history that its name tells of.
    sees: BTreeSet<String>,
}

#[test]
fn every_promise_is_kept_and_a_seed_goes_the_same_way_twice() {
    let workshop = Workshop::new(SYSTEM);
    for seed in 1..=40 {
        let history = play(&MusicCorp, &workshop, &Plan::of(seed));
        assert_eq!(history.violation, None, "seed {seed}");
        let again = play(&MusicCorp, &Workshop::new(SYSTEM), &Plan::of(seed));
        assert_eq!(history.trace.hash(), again.trace.hash(), "seed {seed} goes two ways");
    }
}

#[test]
fn what_once_broke_a_promise_does_so_no_more() {
    let cases: Cases = toml::from_str(include_str!("../regressions.toml")).unwrap();
    let workshop = Workshop::new(SYSTEM);
    for case in cases.case {
        let Case { name, seed, is_wild, only_faults, only_deeds, steps, sees } = case;
        let plan = Plan { is_wild, only_faults, only_deeds, steps, ..Plan::of(seed) };
        let history = play(&MusicCorp, &workshop, &plan);
        assert_eq!(history.violation, None, "{name} (seed {seed})");
        let missed: Vec<&String> = sees.iter().filter(|what| !history.trace.seen().contains(what.as_str())).collect();
        assert!(
            missed.is_empty(),
            "{name}: seed {seed} plays another history now, without {missed:?}; look for a new one"
        );
    }
}

#[test]
fn a_failing_seed_shrinks_and_tells_its_story() {
    let workshop = Workshop::new(SYSTEM);
    let failing = (1..=200).find_map(|seed| {
        let plan = Plan { mutant: Some(Mutant::CommitFirst), ..Plan::of(seed) };
        let history = play(&MusicCorp, &workshop, &plan);
        history.violation.is_some().then_some((plan, history))
    });
    let (plan, history) = failing.expect("the first two hundred seeds find this weakening out");
    let (small, shrunk) = shrink(&MusicCorp, &workshop, &plan, 60);
    assert!(shrunk.violation.is_some());
    assert!(shrunk.faults.len() <= history.faults.len());
    let told = play(&MusicCorp, &workshop, &Plan { tells: true, ..small });
    assert_eq!(told.trace.hash(), shrunk.trace.hash(), "a story changes nothing");
    assert!(told.trace.story().iter().any(|line| line.text.contains("appended")));
}
