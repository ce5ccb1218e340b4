//! Makes a failing history small: fewer faults, then fewer deeds, then fewer steps.

use std::collections::BTreeSet;

use crate::{
    cast::Workshop,
    history::{History, Plan, Scenario, play},
};

/// The smallest plan found that still breaks a promise, and its history. At most `tries` histories are played.
pub fn shrink(scenario: &dyn Scenario, workshop: &Workshop, plan: &Plan, tries: usize) -> (Plan, History) {
    let mut shrinking = Shrinking { scenario, workshop, left: tries };
    let mut best = (plan.clone(), play(scenario, workshop, plan));
    if best.1.violation.is_none() {
        return best;
    }
    let all: Vec<u32> = best.1.faults.iter().map(|(number, _)| *number).collect();
    // Named one by one first: with fewer deeds the history goes another way, where others would strike.
    let named = Plan { only_faults: Some(all.iter().copied().collect()), ..best.0.clone() };
    shrinking.fails(&mut best, named);
    shrinking.fewer(&mut best, all, |plan, kept| plan.only_faults = Some(kept));
    let deeds: Vec<usize> = (0..best.1.deeds.len()).collect();
    shrinking.fewer(&mut best, deeds, |plan, kept| plan.only_deeds = Some(kept));
    shrinking.fewer_steps(&mut best);
    let all: Vec<u32> = best.1.faults.iter().map(|(number, _)| *number).collect();
    shrinking.fewer(&mut best, all, |plan, kept| plan.only_faults = Some(kept));
    best
}

struct Shrinking<'a> {
    scenario: &'a dyn Scenario,
    workshop: &'a Workshop,
    left: usize,
}

impl Shrinking<'_> {
    /// Plays a plan; takes it as the best if it fails too.
    fn fails(&mut self, best: &mut (Plan, History), plan: Plan) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let history = play(self.scenario, self.workshop, &plan);
        // Another promise that is broken on the way is another story.
        let promise = |history: &History| history.violation.as_ref().map(|violation| violation.promise);
        let fails = history.violation.is_some() && promise(&history) == promise(&best.1);
        if fails {
            *best = (plan, history);
        }
        fails
    }

    /// Leaves out as many as possible: halves first, then ever smaller parts, down to one.
    fn fewer<T: Ord + Copy>(
        &mut self,
        best: &mut (Plan, History),
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

    fn fewer_steps(&mut self, best: &mut (Plan, History)) {
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
