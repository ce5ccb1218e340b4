//! What a driver executes, and how often.

use std::{sync::Arc, time::Duration};

use crate::{DueEffect, codec::SchemaRef, decider::Decider, envelope::Position, time::TimestampMs};

/// A moment, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, which may be set back or forth: what is due is told in its terms.
    pub wall_ms: TimestampMs,
    /// The time since any fixed moment, which only grows: lengths of time are measured with it.
    pub elapsed: Duration,
}

/// One step of a worker. The comment of each says how its driver reports back.
#[derive(Debug)]
pub enum Step<D: Decider, F> {
    /// Read as which member of which generation the worker would commit now: [`Turn::fence`](super::Turn::fence).
    SnapshotFence,
    /// Fetch a schema: [`Turn::learn`](super::Turn::learn).
    FetchSchema(SchemaRef),
    /// Load an entity that was evicted from memory: [`Turn::load`](super::Turn::load).
    LoadEntity {
        /// Its partition.
        partition: i32,
        /// Its key.
        key: Arc<str>,
    },
    /// Rest, then poll the client, up to `wait` for the first record, and offer what it has: [`Turn::offer`](super::Turn::offer)
    /// while [`Turn::has_room`](super::Turn::has_room). Then [`Turn::gathering_ended`](super::Turn::gathering_ended).
    Gather {
        /// How long not to poll at all: under load larger batches cost less.
        rest: Duration,
        /// How long to wait for the first record.
        wait: Duration,
    },
    /// Ask for the stable ends of every input of these partitions: [`Turn::ends`](super::Turn::ends).
    AskEnds {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// Ask the client how far it has delivered: [`Turn::reached`](super::Turn::reached).
    AskPositions {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// Commit [`Turn::batch`](super::Turn::batch) and [`Turn::offsets`](super::Turn::offsets) as one transaction with this fence:
    /// [`Turn::committed`](super::Turn::committed). Any other outcome ends the incarnation.
    Commit {
        /// As whom.
        fence: F,
    },
    /// Stop reading the inputs of a partition that is held.
    Pause {
        /// The partition.
        partition: i32,
    },
    /// Read the inputs of these partitions from where [`Turn::assignment`](super::Turn::assignment) says.
    Resume {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// A partition that was held takes records again.
    HoldEnded {
        /// The partition.
        partition: i32,
    },
    /// Look whether the group changed anything: [`Turn::assigned`](super::Turn::assigned) or
    /// [`Turn::revoked`](super::Turn::revoked), for one change; nothing if there is none.
    TakeRebalance,
    /// Acknowledge an assignment. Nothing flows yet.
    AcceptAssignment,
    /// Begin to recover partitions: [`Turn::recovery_began`](super::Turn::recovery_began).
    Recover {
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// Acknowledge a revocation.
    Unassign,
    /// Give up what is owned, and recoveries under way: [`Turn::released`](super::Turn::released).
    Release,
    /// Look which partitions have recovered: [`Turn::recovered`](super::Turn::recovered).
    TakeRecovered,
    /// Look which effects were answered: [`Turn::effect_answered`](super::Turn::effect_answered),
    /// [`Turn::effect_unanswered`](super::Turn::effect_unanswered).
    TakeReports,
    /// Perform an effect; exactly one report follows.
    Perform(DueEffect<D::Effect>),
    /// Save what changed: [`Turn::checkpoint`](super::Turn::checkpoint).
    Checkpoint,
    /// The turn is over: look after what is the driver's own, such as its connections.
    EndTurn,
    /// Everything is committed and saved, as it was asked to be: end.
    Stop,
    /// End the incarnation.
    Fail(TurnError),
}

/// Why an incarnation cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// The service's own code failed and a state was lost: nothing may be committed.
    #[error("{reason} (at {position})")]
    StateLost {
        /// The record.
        position: Position,
        /// What failed and how.
        reason: String,
    },
    /// There is a batch to commit, and the consumer was in no group when it began.
    #[error("the consumer has no group")]
    NoMembership,
}

/// How often things happen, and how many of them at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// A batch ends at this many inputs.
    pub batch_inputs: usize,
    /// A batch ends at this many bytes.
    pub batch_bytes: usize,
    /// From this many inputs of the last batch on, the next one is gathered for a while.
    pub rest_from: usize,
    /// How long, for each of these inputs.
    pub rest_per_input: Duration,
    /// How long at most.
    pub rest_most: Duration,
    /// Positions without decisions are committed this often.
    pub positions_every: Duration,
    /// The ends of the inputs are asked for at most this often.
    pub ends_every: Duration,
    /// Every position is committed again this often. Brokers keep offsets for a week by default; some are set to a day.
    pub recommit_every: Duration,
    /// Checkpoints are saved this often.
    pub checkpoint_every: Duration,
    /// How long a held partition rests before it is tried again, at first.
    pub hold_first: Duration,
    /// How long at most.
    pub hold_longest: Duration,
    /// No more effects than this are under way.
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
            ends_every: Duration::from_millis(20),
            recommit_every: Duration::from_secs(30 * 60),
            checkpoint_every: Duration::from_secs(5),
            hold_first: Duration::from_millis(500),
            hold_longest: Duration::from_secs(30),
            effects_in_flight: 256,
        }
    }
}
