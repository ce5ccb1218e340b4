//! Deliberate weakenings of the protocol. The simulation must detect each of them.
//!
//! A mutant is a false answer of the simulated world (its cluster, its stores, its external services), or a change to a step or to
//! its report between the turn and the simulated driver. docs/simulation.md describes each. What ships knows no mutant:
//! docs/decisions/0021-one-turn-for-worker-and-simulation.md gives the reason.

macro_rules! mutants {
    ($( $(#[doc = $doc:literal])* $Name:ident = $text:literal, $budget:literal; )*) => {
        /// A weakening.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant { $( $(#[doc = $doc])* $Name, )* }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[ $( Self::$Name, )* ];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$Name => $text, )* }
            }

            /// Within how many seeds it must be detected.
            #[must_use]
            pub fn budget(self) -> u64 {
                match self { $( Self::$Name => $budget, )* }
            }

            /// The mutant of this name.
            #[must_use]
            pub fn find(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
            }
        }
    };
}

mutants! {
    /// Input positions are committed before the events that follow from them are published.
    CommitFirst = "commit-first", 300;
    /// A process continues from its store without reading its own log behind the checkpoint.
    TrustStore = "trust-store", 300;
    /// The decision on one input is published in two transactions.
    SplitDecision = "split-decision", 600;
    /// A handled input is not recognised by its id.
    NoDedupe = "no-dedupe", 300;
    /// A process decides when its reader of committed records reports an end, although an open transaction may follow there.
    NoBarrier = "no-barrier", 3_000;
    /// Committed offsets are used although an open transaction may change them.
    UnstableOffsets = "unstable-offsets", 20_000;
    /// Every attempt of an effect calls the external service under a new key.
    NoIdempotencyKey = "no-idempotency-key", 300;
    /// Input positions are committed outside the transaction, without a check of the membership.
    OffsetsOutsideFence = "offsets-outside-fence", 3_000;
    /// Input positions are part of the transaction, but the group does not check who commits them.
    NoGeneration = "no-generation", 3_000;
    /// A batch is neither committed nor aborted before partitions are given back, and is committed under the membership of that
    /// later moment.
    LateMetadata = "late-metadata", 3_000;
    /// A new producer does not fence the previous one.
    NoEpoch = "no-epoch", 3_000;
    /// Inputs are read although their transactions are open or aborted.
    ReadUncommitted = "read-uncommitted", 600;
    /// A process continues with its state in memory after a transaction with an unknown outcome.
    ContinueAfterError = "continue-after-error", 600;
    /// Effects are performed when they are decided, not when the decision is committed.
    EffectsBeforeCommit = "effects-before-commit", 600;
    /// Timers fire although earlier input is unread.
    TimersOvertake = "timers-overtake", 3_000;
    /// A checkpoint has a position beyond its states.
    TornCheckpoint = "torn-checkpoint", 1_000;
    /// The new owner of a partition does not read its parked records.
    ForgetParked = "forget-parked", 1_000;
    /// Two steps of a recovery are swapped: the ends are fetched before the committed offsets are stable.
    SwapFetches = "swap-fetches", 3_000;
    /// A commit is delayed until partitions have been reassigned, and is made under the membership of that moment.
    LateFence = "late-fence", 3_000;
    /// A partition that must be paused is still read.
    ForgetHold = "forget-hold", 1_000;
    /// Positions are never committed again.
    DropRecommit = "drop-recommit", 1_000;
    /// The ends of inputs are not reported: the committed position is the last record's offset and one, before the markers.
    ForgetEnds = "forget-ends", 300;
    /// The bounds of an input do not show that its beginning was deleted.
    NoLogStart = "no-log-start", 300;
    /// A batch takes more inputs than its limit.
    OverLimit = "over-limit", 300;
    /// A record whose schema is unavailable at the moment is skipped.
    TransientIsPoison = "transient-is-poison", 1_000;
}
