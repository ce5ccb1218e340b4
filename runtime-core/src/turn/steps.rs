//! The steps that a driver executes, and the settings of their timing.

use std::{sync::Arc, time::Duration};

use crate::{DueEffect, codec::SchemaRef, decider::Decider, envelope::Position, time::TimestampMs};

/// A moment on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, which may be set back or forward. Timers and effects are due at its instants.
    pub wall_ms: TimestampMs,
    /// The time since any fixed moment, which only grows. Durations are measured with it.
    pub elapsed: Duration,
}

/// One step of a worker. The comment of each names the method with which the driver reports the result.
#[derive(Debug)]
pub enum Step<D: Decider, F> {
    /// Read the member and the generation with which the worker would commit now: [`Turn::fence`](super::Turn::fence).
    SnapshotFence,
    /// Fetch the schema of a parked record, although it may be remembered as missing: [`Turn::learn`](super::Turn::learn).
    FetchSchema(SchemaRef),
    /// Load an entity that was evicted from memory: [`Turn::load`](super::Turn::load).
    LoadEntity {
        /// Its partition.
        partition: i32,
        /// Its key.
        key: Arc<str>,
    },
    /// Rest, then poll the client, up to `wait` for the first record, and offer each record: [`Turn::offer`](super::Turn::offer)
    /// while [`Turn::has_room`](super::Turn::has_room). When the client reports the end of a partition of an input:
    /// [`Turn::reached_end`](super::Turn::reached_end). Then [`Turn::gathering_ended`](super::Turn::gathering_ended).
    Gather {
        /// How long to rest before polling: under load, larger batches cost less.
        rest: Duration,
        /// How long to wait for the first record.
        wait: Duration,
    },
    /// Fetch the stable ends of every input of these partitions: [`Turn::ends`](super::Turn::ends).
    FetchEnds {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// Read the positions up to which the client has delivered, past markers and aborted records:
    /// [`Turn::reached`](super::Turn::reached).
    ReadPositions {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// Commit [`Turn::batch`](super::Turn::batch) and [`Turn::offsets`](super::Turn::offsets) as one transaction with this fence:
    /// [`Turn::committed`](super::Turn::committed). Any other result ends the incarnation.
    Commit {
        /// The member and the generation.
        fence: F,
    },
    /// Stop reading the inputs of a partition that is held.
    Pause {
        /// The partition.
        partition: i32,
    },
    /// Read the inputs of these partitions from the offsets of [`Turn::assignment`](super::Turn::assignment).
    Resume {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// The hold of a partition has ended: it takes records again.
    HoldEnded {
        /// The partition.
        partition: i32,
    },
    /// Take the next assignment or revocation: [`Turn::assigned`](super::Turn::assigned) or
    /// [`Turn::revoked`](super::Turn::revoked). If there is none, report nothing.
    TakeRebalance,
    /// Acknowledge an assignment. The client reads no input yet.
    AcceptAssignment,
    /// Start the recovery of partitions: [`Turn::recovery_began`](super::Turn::recovery_began).
    Recover {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// Acknowledge a revocation.
    Unassign,
    /// Release every partition, and cancel recoveries: [`Turn::released`](super::Turn::released).
    Release,
    /// Take the partitions that have recovered: [`Turn::recovered`](super::Turn::recovered).
    TakeRecovered,
    /// Take the results of effects: [`Turn::effect_answered`](super::Turn::effect_answered) or
    /// [`Turn::effect_unanswered`](super::Turn::effect_unanswered) for each.
    TakeReports,
    /// Perform an effect. Report its result exactly once, to a later `TakeReports`.
    /// Boxed, because it is by far the largest step, and every step is moved a few times.
    Perform(Box<DueEffect<D::Effect>>),
    /// Save the changes: [`Turn::checkpoint`](super::Turn::checkpoint).
    Checkpoint,
    /// The turn has ended. Check the driver's own resources, such as its connections.
    EndTurn,
    /// Stop: the open batch is committed, and a checkpoint is written.
    Stop,
    /// End the incarnation with this error.
    Fail(TurnError),
}

/// Why an incarnation cannot continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// The service's own code failed and a state was lost: the batch must not be committed.
    #[error("{reason} (at {position})")]
    StateLost {
        /// The record.
        position: Position,
        /// What failed and how.
        reason: String,
    },
    /// There is a batch to commit, and the consumer was not a member of the group when the batch began.
    #[error("the consumer has no group")]
    NoMembership,
}

/// The timing and the sizes of batches, checkpoints and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// The most inputs of a batch.
    pub batch_inputs: usize,
    /// A batch takes no more inputs when its outputs reach this size.
    pub batch_bytes: usize,
    /// The worker rests before a gathering if the last one had at least this many inputs.
    pub rest_from: usize,
    /// The rest for each of these inputs.
    pub rest_per_input: Duration,
    /// The longest rest.
    pub rest_most: Duration,
    /// How often positions without decisions are committed.
    pub positions_every: Duration,
    /// How soon positions are committed that have moved past the markers at the end of an input, if no batch is committed before.
    /// A transaction of the service's own moves the end of its inbox, so this bounds the transactions of a slow stream of input.
    pub ends_committed_within: Duration,
    /// The shortest time between two fetches of the ends of the inputs.
    pub ends_every: Duration,
    /// How often every position is committed again. Brokers keep offsets for a week by default, and some for a day.
    pub recommit_every: Duration,
    /// How often checkpoints are saved.
    pub checkpoint_every: Duration,
    /// The first pause of a held partition before the record is retried.
    pub hold_first: Duration,
    /// The longest pause of a held partition.
    pub hold_longest: Duration,
    /// The longest pause of a partition that is held because a schema cannot be fetched. A registry is asked with one request.
    pub schema_longest: Duration,
    /// The most effects in flight.
    pub effects_in_flight: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch_inputs: 1_000,
            batch_bytes: 2_000_000,
            rest_from: 16,
            rest_per_input: Duration::from_micros(50),
            rest_most: Duration::from_millis(50),
            positions_every: Duration::from_millis(200),
            ends_committed_within: Duration::from_secs(1),
            ends_every: Duration::from_millis(20),
            recommit_every: Duration::from_secs(30 * 60),
            checkpoint_every: Duration::from_secs(5),
            hold_first: Duration::from_millis(500),
            hold_longest: Duration::from_secs(30),
            schema_longest: Duration::from_secs(5),
            effects_in_flight: 256,
        }
    }
}
