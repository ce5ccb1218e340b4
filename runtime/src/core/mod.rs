//! The loop of a service as a state machine: no sockets, no threads, no clock, no randomness.
//!
//! A driver (the Kafka worker, or a simulator) brings records, the time, ends of inputs, outcomes of transactions and of
//! effects; the machine says what to append in one transaction, which effects to perform, what to checkpoint. What it must never
//! know: rdkafka, tokio, files. Nothing here depends on the iteration order of a hash map.
//!
//! The way of a partition: [`Recovery`] folds its own log and what is parked up to the barrier, then becomes a [`Task`] that
//! decides. A
//! [`Machine`] owns the tasks of one worker and forms one [`Batch`] for all of them. If a batch fails, the machine is thrown
//! away: the log is the only judge of what was said.

mod batch;
mod contract;
mod effects;
mod entity;
mod limits;
mod machine;
mod parking;
mod partition;
mod recovery;
mod task;
mod timers;

pub use batch::{Batch, OutHeaders, Output, Target};
pub use contract::{Contract, ContractError, ContractNames, RuntimeRecord, written_by};
pub use entity::{HANDLED_CAUSES, MalformedCheckpoint};
pub use limits::{DEAD_LETTER_BYTES, Limits, TOPIC_BYTES};
pub use machine::Machine;
pub use parking::{
    CRASHES_AT_MOST, DropParked, Left, NotParked, Parked, ParkedNews, ParkingCommand, ParkingLimits, RetryParked,
    Verdict,
};
pub use partition::partition_of;
pub(crate) use recovery::panic_text;
pub use recovery::{Alarm, Folded, Recovery};
pub use task::{Failure, Outcome, SavedEntity, SavedTask, Stage, Task};

/// One record as a client delivers it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The topic it lies on.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp.
    pub timestamp_ms: crate::decider::TimestampMs,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Record<'_> {
    /// Where it lies.
    #[must_use]
    pub fn position(&self) -> crate::envelope::Position {
        crate::envelope::Position::new(self.topic, self.partition, self.offset)
    }

    /// Its key, if it is text.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        self.key.and_then(|key| std::str::from_utf8(key).ok())
    }

    /// What its headers and its place say about it.
    ///
    /// # Errors
    /// A header makes no sense.
    pub fn envelope(&self) -> Result<crate::envelope::Envelope, crate::envelope::EnvelopeError> {
        let bare = crate::envelope::Bare {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key_text(),
        };
        crate::envelope::Envelope::read(bare, self.headers.iter().copied())
    }
}
