//! The timers of entities, and the rule that a timer never overtakes input that was appended before.

use std::{collections::BTreeSet, sync::Arc};

use crate::decider::TimestampMs;

/// The timers of one partition that have not fired yet.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(TimestampMs, Arc<str>)>,
    gate: Option<Gate>,
}

/// The input that must be read before the timers up to an instant may fire.
#[derive(Debug)]
struct Gate {
    requested_at_ms: TimestampMs,
    ends: Vec<i64>,
}

/// The timer that an entity's state asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wake {
    pub(crate) at_ms: TimestampMs,
    pub(crate) fired: bool,
}

impl Timers {
    /// Changes an entity's timer from `was` to `wanted`. The same instant does not fire twice.
    pub(crate) fn change(&mut self, entity: &Arc<str>, was: Option<Wake>, wanted: Option<TimestampMs>) -> Option<Wake> {
        if was.map(|wake| wake.at_ms) == wanted {
            return was;
        }
        if let Some(wake) = was {
            self.due.remove(&(wake.at_ms, Arc::clone(entity)));
        }
        let at_ms = wanted?;
        self.due.insert((at_ms, Arc::clone(entity)));
        Some(Wake { at_ms, fired: false })
    }

    /// True if a timer is due and the ends of the inputs must be fetched, because records before these ends come first.
    pub(crate) fn needs_ends(&self, now_ms: TimestampMs) -> bool {
        self.gate.is_none() && self.due.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms)
    }

    /// Takes the ends of the inputs, fetched at `requested_at_ms` or later.
    pub(crate) fn ends_known(&mut self, requested_at_ms: TimestampMs, ends: Vec<i64>) {
        self.gate = Some(Gate { requested_at_ms, ends });
    }

    /// True if timers wait until the inputs have been read up to their ends.
    pub(crate) fn is_waiting(&self) -> bool {
        self.gate.is_some()
    }

    /// Removes and returns the timers that may fire: none until the input before them has been read.
    pub(crate) fn pass(&mut self, positions: &[i64]) -> Vec<(TimestampMs, Arc<str>)> {
        let Some(gate) = &self.gate else { return Vec::new() };
        let reached = gate.ends.iter().zip(positions).all(|(end, position)| position >= end);
        if !reached {
            return Vec::new();
        }
        let requested_at_ms = gate.requested_at_ms;
        self.gate = None;
        let mut fired = Vec::new();
        while self.due.first().is_some_and(|(at_ms, _)| *at_ms <= requested_at_ms) {
            fired.extend(self.due.pop_first());
        }
        fired
    }

    /// The instant of the next timer.
    pub(crate) fn next(&self) -> Option<TimestampMs> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_waits_for_input_that_was_appended_before() {
        let mut timers = Timers::default();
        let entity: Arc<str> = "order-1".into();
        timers.change(&entity, None, Some(100));
        assert!(!timers.needs_ends(99));
        assert!(timers.needs_ends(100));
        timers.ends_known(120, vec![5, 3]);
        assert!(!timers.needs_ends(130), "fetched already");
        assert!(timers.pass(&[5, 2]).is_empty());
        assert_eq!(timers.pass(&[6, 3]), vec![(100, entity)]);
        assert!(!timers.needs_ends(130), "fired once");
    }

    #[test]
    fn a_timer_after_the_fetched_ends_waits_for_the_next_ends() {
        let mut timers = Timers::default();
        timers.change(&"a".into(), None, Some(100));
        timers.change(&"b".into(), None, Some(125));
        timers.ends_known(120, vec![0]);
        assert_eq!(timers.pass(&[0]).len(), 1);
        assert_eq!(timers.next(), Some(125));
    }

    #[test]
    fn a_timer_that_has_fired_does_not_fire_again_when_the_clock_is_set_back() {
        let mut timers = Timers::default();
        let entity: Arc<str> = "order-1".into();
        let wake = timers.change(&entity, None, Some(100));
        timers.ends_known(5_000, vec![0]);
        assert_eq!(timers.pass(&[0]).len(), 1, "a clock an hour ahead fires it early");
        assert_eq!(timers.change(&entity, wake, Some(100)).map(|wake| wake.at_ms), Some(100));
        assert!(!timers.needs_ends(50) && !timers.needs_ends(200), "back again, and past the instant once more");
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_changed_instant_moves_the_timer() {
        let mut timers = Timers::default();
        let entity: Arc<str> = "order-1".into();
        let wake = timers.change(&entity, None, Some(100));
        let wake = timers.change(&entity, wake, Some(200));
        assert_eq!(timers.next(), Some(200));
        assert_eq!(timers.change(&entity, wake, None), None);
        assert_eq!(timers.next(), None);
    }
}
