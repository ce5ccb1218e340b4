//! The gathering of a batch: the driver offers records one by one, until the batch is full or must end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{Now, Pace, Turn, TurnError};
use crate::{
    DeciderFailure, MAX_CRASHES, ReceiveOutcome, Record, codec::SchemaRef, decider::Decider, envelope::Position,
    text::panic_message, unreadable::SkippedBatch,
};

/// The result of offering a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// The record is done with. Offer the next one.
    Taken,
    /// Fetch this schema ([`Turn::learn`]) and offer the same record again.
    NeedsSchema(SchemaRef),
    /// Fetch this schema although it may be remembered as missing ([`Turn::learn`]), and offer the same record again.
    NeedsSchemaAnew(SchemaRef),
    /// Load this entity of the record's partition ([`Turn::load`]) and offer the same record again.
    NeedsEntity(Arc<str>),
    /// End the gathering, and offer the same record first in the next one.
    CommitFirst,
}

/// The gathering of one batch.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// When the open batch began.
    since: Duration,
    taken: usize,
    commit_first: bool,
}

impl Gathering {
    pub(super) fn begin(&mut self) {
        self.taken = 0;
    }

    pub(super) fn batch_began(&mut self, now: Now) {
        self.since = now.elapsed;
    }

    pub(super) fn since(&self) -> Duration {
        self.since
    }

    pub(super) fn age(&self, now: Now) -> Duration {
        now.elapsed.saturating_sub(self.since)
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    pub(super) fn must_commit(&self) -> bool {
        self.commit_first
    }

    pub(super) fn committed(&mut self) {
        self.commit_first = false;
    }

    /// How long to rest before the next gathering, given the inputs of the last one. At a low rate there is no rest, so no input
    /// waits. At a high rate transactions would take all the time, so the rest makes batches larger. After a full batch more
    /// input is there already.
    pub(super) fn rest(&self, pace: &Pace) -> Duration {
        if !(pace.rest_from..pace.batch_inputs).contains(&self.taken) {
            return Duration::ZERO;
        }
        let inputs = u32::try_from(self.taken).unwrap_or(u32::MAX);
        pace.rest_per_input.saturating_mul(inputs).min(pace.rest_most)
    }
}

impl<D: Decider, F: Clone> Turn<D, F> {
    /// True if the batch takes more records.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let batch = self.machine.batch();
        batch.inputs() < self.pace.batch_inputs
            && batch.size() < self.pace.batch_bytes
            && !self.gathering.commit_first
            && self.error.is_none()
    }

    /// Delays a record on which an earlier incarnation lost a state: until its partition has paused, and until the open batch is
    /// committed.
    fn delay_crashed(&mut self, position: &Position) -> Option<Offer> {
        let crashes = self.crashes.get(position).filter(|crashes| crashes.times < MAX_CRASHES)?;
        if !self.holds.has_paused(position.partition) {
            let reason = format!("{}, {} times; it is retried after a pause", crashes.reason, crashes.times);
            self.machine.hold(position.partition, position.clone(), reason);
            self.holds.add(position.partition);
            return Some(Offer::Taken);
        }
        // It is processed in a batch of its own, so that no other input is lost with it.
        self.gathering.commit_first = !self.machine.batch().is_empty();
        self.gathering.commit_first.then_some(Offer::CommitFirst)
    }

    /// Skips a record that the service does not consume, according to the schema id in its value. Returns false if the record
    /// must be offered.
    pub fn skips(&mut self, input: usize, partition: i32, offset: i64, value: Option<&[u8]>, now: Now) -> bool {
        let skips = value.is_some_and(|value| self.contract().is_not_consumed(value));
        if skips {
            if self.machine.batch().is_empty() {
                self.gathering.batch_began(now);
            }
            self.machine.skip(input, partition, offset);
            self.gathering.taken += 1;
        }
        skips
    }

    /// Skips a batch of the `input`th input topic that cannot be read, as an operator decided. Returns false if the batch is
    /// not the next input of the partition.
    pub fn skip_batch(&mut self, input: usize, partition: i32, skipped: SkippedBatch<'_>, now: Now) -> bool {
        let is_first = self.machine.batch().is_empty();
        let skips = self.machine.skip_batch(input, partition, skipped, now.wall_ms);
        if skips && is_first {
            self.gathering.batch_began(now);
        }
        skips
    }

    /// Offers a record of the `input`th input topic.
    pub fn offer(&mut self, input: usize, record: &Record<'_>, now: Now) -> Offer {
        if self.machine.batch().is_empty() {
            self.gathering.batch_began(now);
        }
        if !self.crashes.is_empty()
            && let Some(offer) = self.delay_crashed(&record.position())
        {
            return offer;
        }
        // Each call of the author's code is guarded. Any other panic ends only the incarnation.
        let received = catch_unwind(AssertUnwindSafe(|| self.machine.receive(input, record, now.wall_ms)));
        match received {
            Ok(ReceiveOutcome::NeedsSchema(schema)) => return Offer::NeedsSchema(schema),
            Ok(ReceiveOutcome::NeedsSchemaAnew(schema)) => return Offer::NeedsSchemaAnew(schema),
            Ok(ReceiveOutcome::NeedsEntity(key)) => return Offer::NeedsEntity(key),
            Ok(ReceiveOutcome::Done | ReceiveOutcome::Ignored) => {}
            Ok(ReceiveOutcome::OfAnotherBuild(reason)) => {
                tracing::error!(position = %record.position(), %reason, "the partition is held before this record");
                self.holds.add(record.partition);
            }
            Ok(ReceiveOutcome::SchemaUnavailable(reason)) => {
                tracing::warn!(position = %record.position(), %reason, "a schema cannot be fetched; the partition is held before this record");
                self.holds.add_briefly(record.partition);
            }
            Ok(ReceiveOutcome::Failed(failure)) => self.decider_failed(failure, record.partition),
            Err(panic) => {
                let (position, reason) =
                    (record.position(), format!("the worker panicked: {}", panic_message(&*panic)));
                self.decider_failed(DeciderFailure { position, reason, loses_state: true }, record.partition);
            }
        }
        self.gathering.taken += 1;
        Offer::Taken
    }

    fn decider_failed(&mut self, failure: DeciderFailure, partition: i32) {
        let DeciderFailure { position, reason, loses_state } = failure;
        if loses_state {
            tracing::error!(service = D::NAME, %position, %reason, "the decider failed and a state was lost");
            self.error = Some(TurnError::StateLost { position, reason });
        } else {
            tracing::error!(service = D::NAME, %position, %reason, "the decider failed; the partition is held before this record");
            self.holds.add(partition);
        }
    }

    /// Ends the gathering. `has_rebalance` is true if an assignment or a revocation waits.
    pub fn gathering_ended(&mut self, has_rebalance: bool) {
        self.has_rebalance = has_rebalance;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_with_the_load_up_to_a_limit() {
        let pace = Pace::default();
        let rest = |taken| Gathering { taken, ..Gathering::default() }.rest(&pace);
        assert_eq!(rest(15), Duration::ZERO);
        assert_eq!(rest(16), Duration::from_micros(800));
        assert_eq!(rest(999), Duration::from_micros(49_950));
        assert_eq!(rest(1_000), Duration::ZERO, "after a full batch more input is there already");
    }
}
