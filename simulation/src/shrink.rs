//! Makes a failing run small: fewer faults, then fewer operations, then fewer steps.

use std::collections::BTreeSet;

use crate::{
    setup::Fixtures,
    simulated_run::{Plan, SimulatedRun, run},
    workload::Scenario,
};

/// Returns the smallest plan found that still breaks the promise, and its run. Runs at most `tries` plans.
pub fn shrink(scenario: &dyn Scenario, fixtures: &Fixtures, plan: &Plan, tries: usize) -> (Plan, SimulatedRun) {
    let mut shrinker = Shrinker { scenario, fixtures, left: tries };
    let mut best = (plan.clone(), run(scenario, fixtures, plan));
    if best.1.violation.is_none() {
        return best;
    }
    let all: Vec<u32> = best.1.faults.iter().map(|(number, _)| *number).collect();
    // The faults are named one by one first: with fewer operations the run differs, and other faults would occur in it.
    let named = Plan { only_faults: Some(all.iter().copied().collect()), ..best.0.clone() };
    shrinker.fails(&mut best, named);
    shrinker.fewer(&mut best, all, |plan, kept| plan.only_faults = Some(kept));
    let operations: Vec<usize> = (0..best.1.operations.len()).collect();
    shrinker.fewer(&mut best, operations, |plan, kept| plan.only_operations = Some(kept));
    shrinker.fewer_steps(&mut best);
    let all: Vec<u32> = best.1.faults.iter().map(|(number, _)| *number).collect();
    shrinker.fewer(&mut best, all, |plan, kept| plan.only_faults = Some(kept));
    best
}

struct Shrinker<'a> {
    scenario: &'a dyn Scenario,
    fixtures: &'a Fixtures,
    left: usize,
}

impl Shrinker<'_> {
    /// Runs a plan, and keeps it as the best if it fails too.
    fn fails(&mut self, best: &mut (Plan, SimulatedRun), plan: Plan) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let simulated = run(self.scenario, self.fixtures, &plan);
        // A plan that breaks another promise shows another problem.
        let promise = |of: &SimulatedRun| of.violation.as_ref().map(|violation| violation.promise);
        let fails = simulated.violation.is_some() && promise(&simulated) == promise(&best.1);
        if fails {
            *best = (plan, simulated);
        }
        fails
    }

    /// Leaves out as many as possible: halves first, then smaller and smaller parts, down to single ones.
    fn fewer<T: Ord + Copy>(
        &mut self,
        best: &mut (Plan, SimulatedRun),
        mut kept: Vec<T>,
        set: impl Fn(&mut Plan, BTreeSet<T>),
    ) {
        let mut part = kept.len().div_ceil(2).max(1);
        while !kept.is_empty() {
            let (mut at, mut progress) = (0, false);
            while at < kept.len() {
                let fewer: Vec<T> =
                    kept[..at].iter().chain(kept.get(at + part..).unwrap_or_default()).copied().collect();
                let mut plan = best.0.clone();
                set(&mut plan, fewer.iter().copied().collect());
                if self.fails(best, plan) {
                    kept = fewer;
                    progress = true;
                } else {
                    at += part;
                }
            }
            if part == 1 && !progress {
                return;
            }
            part = (part / 2).max(1);
        }
    }

    fn fewer_steps(&mut self, best: &mut (Plan, SimulatedRun)) {
        let (mut low, mut high) = (0, best.1.steps);
        while low + 1 < high && self.left > 0 {
            let middle = low + (high - low) / 2;
            let plan = Plan { steps: Some(middle), ..best.0.clone() };
            if self.fails(best, plan) {
                high = middle;
            } else {
                low = middle;
            }
        }
    }
}
