//! The effects of one partition that are due and unanswered. They are derived from states and never stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::decider::{Due, Effect, TimestampMs};

/// The first pause after an unanswered attempt. Each further pause is twice as long.
const FIRST_PAUSE_MS: i64 = 200;
/// The longest pause between attempts.
const LONGEST_PAUSE_MS: i64 = 30_000;
/// How long the decision on an appended answer may take until the effect is performed again.
const ANSWER_PATIENCE_MS: i64 = 30_000;

#[derive(Debug)]
struct Pending<E> {
    entity: Arc<str>,
    correlation_id: Box<str>,
    effect: E,
    attempt: u32,
    not_before_ms: Option<TimestampMs>,
}

/// The effects of one partition.
#[derive(Debug)]
pub(crate) struct Effects<E> {
    pending: BTreeMap<Arc<str>, Pending<E>>,
    waiting: BTreeSet<(TimestampMs, Arc<str>)>,
    /// Entities with parked records, whose answers would wait; with their effects that are due meanwhile.
    paused: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The wall clock at the last call.
    seen_ms: TimestampMs,
}

impl<E: Effect> Effects<E> {
    pub(crate) fn new() -> Self {
        let (pending, waiting, paused) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { pending, waiting, paused, seen_ms: TimestampMs::MIN }
    }

    /// Replaces an entity's pending effects, whose keys were `was`. Returns the keys of the new ones.
    pub(crate) fn change(
        &mut self,
        entity: &Arc<str>,
        correlation_id: &str,
        was: &[Arc<str>],
        pending: Vec<(Arc<str>, E)>,
        now_ms: TimestampMs,
    ) -> Vec<Arc<str>> {
        let keys: Vec<Arc<str>> = pending.iter().map(|(key, _)| Arc::clone(key)).collect();
        for removed in was.iter().filter(|key| !keys.contains(key)) {
            if let Some(Pending { not_before_ms: Some(at), .. }) = self.pending.remove(removed) {
                self.waiting.remove(&(at, Arc::clone(removed)));
            }
        }
        for (key, effect) in pending {
            match self.pending.get_mut(&key) {
                Some(known) => known.effect = effect,
                None => self.add(&key, entity, correlation_id, effect, now_ms),
            }
        }
        keys
    }

    fn add(&mut self, key: &Arc<str>, entity: &Arc<str>, correlation_id: &str, effect: E, now_ms: TimestampMs) {
        self.adjust_to_clock(now_ms);
        let pending = Pending {
            entity: Arc::clone(entity),
            correlation_id: correlation_id.into(),
            effect,
            attempt: 0,
            not_before_ms: Some(now_ms),
        };
        self.pending.insert(Arc::clone(key), pending);
        self.waiting.insert((now_ms, Arc::clone(key)));
    }

    /// Takes at most `room` effects that may be performed now.
    pub(crate) fn take(&mut self, now_ms: TimestampMs, room: usize, mut take: impl FnMut(Arc<str>, Due<E>)) {
        self.adjust_to_clock(now_ms);
        let mut left = room;
        while left > 0 && self.waiting.first().is_some_and(|(at, _)| *at <= now_ms) {
            let Some((_, key)) = self.waiting.pop_first() else { return };
            let Some(pending) = self.pending.get_mut(&key) else { continue };
            pending.not_before_ms = None;
            if let Some(paused) = self.paused.get_mut(&pending.entity) {
                paused.insert(key);
                continue;
            }
            left -= 1;
            let due = Due {
                key: pending.entity.to_string(),
                correlation_id: pending.correlation_id.to_string(),
                effect: pending.effect.clone(),
                attempt: pending.attempt,
            };
            take(key, due);
        }
    }

    /// Performs no effect of an entity until [`Effects::resume`]. Its answer would wait behind the parked record, and the effect
    /// would be performed again and again.
    pub(crate) fn pause(&mut self, entity: &Arc<str>) {
        self.paused.entry(Arc::clone(entity)).or_default();
    }

    /// Performs the effects of an entity again.
    pub(crate) fn resume(&mut self, entity: &str, now_ms: TimestampMs) {
        for key in self.paused.remove(entity).unwrap_or_default() {
            self.wait(&key, now_ms, 0);
        }
    }

    /// A pause is a duration. When the wall clock has been set back, this moves the instants back by as much, so that no pause
    /// grows.
    fn adjust_to_clock(&mut self, now_ms: TimestampMs) {
        let back = self.seen_ms.saturating_sub(now_ms);
        self.seen_ms = now_ms;
        if back <= 0 || self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = waiting.into_iter().map(|(at, key)| (at.saturating_sub(back), key)).collect();
        for (at, key) in &self.waiting {
            if let Some(pending) = self.pending.get_mut(key) {
                pending.not_before_ms = Some(*at);
            }
        }
    }

    /// The answer is in the inbox. The effect stays pending until the answer has been decided on.
    pub(crate) fn answered(&mut self, key: &str, now_ms: TimestampMs) {
        self.adjust_to_clock(now_ms);
        self.wait(key, now_ms.saturating_add(ANSWER_PATIENCE_MS), 0);
    }

    /// An attempt had no definite answer. `jitter` may be any number; it chooses the next attempt within the second half of the
    /// pause.
    pub(crate) fn unanswered(&mut self, key: &str, retry_after: Option<Duration>, now_ms: TimestampMs, jitter: u64) {
        self.adjust_to_clock(now_ms);
        let attempt = self.pending.get(key).map_or(0, |pending| pending.attempt);
        let asked_for = retry_after.map_or(0, |pause| i64::try_from(pause.as_millis()).unwrap_or(LONGEST_PAUSE_MS));
        let pause = pause_ms(attempt, jitter).max(asked_for.min(LONGEST_PAUSE_MS));
        self.wait(key, now_ms.saturating_add(pause), 1);
    }

    fn wait(&mut self, key: &str, until_ms: TimestampMs, attempts: u32) {
        let Some(key) = self.pending.get_key_value(key).map(|(key, _)| Arc::clone(key)) else { return };
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if pending.not_before_ms.is_none() {
            pending.attempt = pending.attempt.saturating_add(attempts);
            pending.not_before_ms = Some(until_ms);
            self.waiting.insert((until_ms, key));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The next instant at which an effect may be performed.
    pub(crate) fn next(&self) -> Option<TimestampMs> {
        self.waiting.first().map(|(at, _)| *at)
    }
}

/// The pause after `attempt` attempts: it doubles with each attempt, and the jitter reduces it by up to a half.
pub(crate) fn pause_ms(attempt: u32, jitter: u64) -> i64 {
    let whole = FIRST_PAUSE_MS.saturating_mul(1_i64 << attempt.min(20)).min(LONGEST_PAUSE_MS);
    let half = whole / 2;
    half + i64::try_from(jitter % 1_000).unwrap_or(0) * half / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Call(&'static str);
    impl Effect for Call {
        fn key(&self) -> String {
            self.0.to_owned()
        }
    }

    fn due(keys: &[&'static str]) -> Vec<(Arc<str>, Call)> {
        keys.iter().map(|key| ((*key).into(), Call(key))).collect()
    }

    fn taken(effects: &mut Effects<Call>, now_ms: i64, room: usize) -> Vec<Due<Call>> {
        let mut due = Vec::new();
        effects.take(now_ms, room, |_, taken| due.push(taken));
        due
    }

    #[test]
    fn an_effect_is_performed_once_and_again_only_without_an_answer() {
        let mut effects = Effects::new();
        let entity: Arc<str> = "order-1".into();
        let keys = effects.change(&entity, "saga", &[], due(&["pay"]), 0);
        assert_eq!(taken(&mut effects, 0, 9).len(), 1);
        assert_eq!(taken(&mut effects, 1_000_000, 9), vec![], "in flight");
        effects.unanswered("pay", None, 0, 0);
        assert!(taken(&mut effects, 99, 9).is_empty());
        let again = taken(&mut effects, 100, 9);
        assert_eq!((again[0].attempt, again[0].key.as_str(), again[0].correlation_id.as_str()), (1, "order-1", "saga"));
        effects.answered("pay", 100);
        assert!(taken(&mut effects, 20_000, 9).is_empty(), "the answer is on its way");
        assert!(effects.change(&entity, "saga", &keys, vec![], 0).is_empty());
        assert_eq!((effects.len(), effects.next()), (0, None));
    }

    #[test]
    fn a_clock_that_is_set_back_or_forth_makes_no_pause_longer() {
        const HOUR: i64 = 3_600_000;
        let mut effects = Effects::new();
        effects.change(&"e".into(), "saga", &[], due(&["a", "b"]), HOUR);
        assert_eq!(taken(&mut effects, HOUR, 1).len(), 1);
        effects.unanswered("a", Some(Duration::from_secs(20)), HOUR, 0);
        assert_eq!(taken(&mut effects, 0, 9)[0].effect, Call("b"), "due before the clock was set back an hour");
        assert!(taken(&mut effects, 19_999, 9).is_empty());
        assert_eq!(taken(&mut effects, 20_000, 9)[0].effect, Call("a"));
        effects.unanswered("a", None, 20_000, 0);
        assert_eq!(taken(&mut effects, HOUR, 9).len(), 1, "and an hour on it is simply due");
    }

    #[test]
    fn no_more_are_taken_than_there_is_room_for() {
        let mut effects = Effects::new();
        effects.change(&"e".into(), "e", &[], due(&["a", "b", "c"]), 0);
        assert_eq!(taken(&mut effects, 0, 2).len(), 2);
        assert_eq!(taken(&mut effects, 0, 2).len(), 1);
    }

    #[test]
    fn nothing_of_a_paused_entity_is_tried() {
        let mut effects = Effects::new();
        effects.change(&"parked".into(), "saga", &[], due(&["a", "b"]), 0);
        effects.change(&"other".into(), "saga", &[], due(&["c"]), 0);
        assert_eq!(taken(&mut effects, 0, 1).len(), 1, "a is under way");
        effects.pause(&"parked".into());
        effects.answered("a", 0);
        let tried = taken(&mut effects, 1_000_000, 9);
        assert_eq!(tried.iter().map(|due| due.effect.0).collect::<Vec<_>>(), ["c"]);
        assert_eq!(effects.next(), None, "nothing to wake up for");
        effects.resume("parked", 1_000_000);
        assert_eq!(taken(&mut effects, 1_000_000, 9).len(), 2);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_are_spread() {
        assert!(pause_ms(0, 0) < pause_ms(0, 999));
        assert!(pause_ms(3, 0) > pause_ms(2, 999) / 2);
        assert!(pause_ms(u32::MAX, u64::MAX) <= LONGEST_PAUSE_MS);
    }
}
