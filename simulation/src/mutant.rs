//! Deliberate weakenings of the protocol, each of which the simulation must find out.
//!
//! Each is a false answer of the simulated world, or a filter between the production turn and its simulated driver that drops,
//! swaps, delays or alters steps. What ships knows none of them: docs/decisions/0021-one-turn-for-worker-and-simulation.md says
//! why.

macro_rules! mutants {
    ($( $(#[doc = $doc:literal])* $Name:ident = $text:literal, $budget:literal; )*) => {
        /// A weakening.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant { $( $(#[doc = $doc])* $Name, )* }

        impl Mutant {
            /// Every one.
            pub const ALL: &'static [Self] = &[ $( Self::$Name, )* ];

            /// As the command line names it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$Name => $text, )* }
            }

            /// Within how many seeds it must be found out.
            #[must_use]
            pub fn budget(self) -> u64 {
                match self { $( Self::$Name => $budget, )* }
            }

            /// The one of this name.
            #[must_use]
            pub fn find(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
            }
        }
    };
}

mutants! {
    /// Input positions are committed before what they lead to is published.
    CommitFirst = "commit-first", 300;
    /// A process goes on from its store without reading its own log behind it.
    TrustStore = "trust-store", 300;
    /// What one input leads to is published in two transactions.
    SplitDecision = "split-decision", 600;
    /// An input that was handled is not recognised by its id.
    NoDedupe = "no-dedupe", 300;
    /// A process decides once it has read its own log to the end that it can see, although an open transaction may lie there.
    NoBarrier = "no-barrier", 3_000;
    /// Committed offsets are taken although a transaction that may change them is not ended.
    UnstableOffsets = "unstable-offsets", 20_000;
    /// The outside world is asked under a new key at every attempt.
    NoIdempotencyKey = "no-idempotency-key", 300;
    /// Input positions are committed outside the transaction, from whomever.
    OffsetsOutsideFence = "offsets-outside-fence", 3_000;
    /// Input positions are part of the transaction, but the group does not look who commits them.
    NoGeneration = "no-generation", 3_000;
    /// A batch is neither committed nor aborted before partitions are given back, and is committed as the member that one is then.
    LateMetadata = "late-metadata", 3_000;
    /// A producer that begins does not fence the one before it.
    NoEpoch = "no-epoch", 3_000;
    /// Inputs are read although their transactions are open or aborted.
    ReadUncommitted = "read-uncommitted", 600;
    /// A process goes on with its state in memory after a transaction of which it does not know whether it was committed.
    GoOnAfterError = "go-on-after-error", 600;
    /// Effects are carried out when they are decided, not when that is committed.
    EffectsBeforeCommit = "effects-before-commit", 600;
    /// Timers fire although input that was there first is unread.
    TimersOvertake = "timers-overtake", 3_000;
    /// A checkpoint says that it goes further than its states do.
    TornCheckpoint = "torn-checkpoint", 1_000;
    /// Whoever takes a partition over does not read what is parked there.
    ForgetParked = "forget-parked", 1_000;
    /// Two questions of a recovery are swapped: the ends are asked before the committed offsets are stable.
    SwapQuestions = "swap-questions", 3_000;
    /// A batch is held back while partitions change hands, and committed as the member that the process is then.
    LateFence = "late-fence", 3_000;
    /// A partition that is to be held goes on being read.
    ForgetHold = "forget-hold", 1_000;
    /// Positions are never committed again.
    DropRecommit = "drop-recommit", 1_000;
    /// A batch takes more than it may.
    OverLimit = "over-limit", 300;
    /// A record whose schema cannot be had now is passed over.
    TransientIsPoison = "transient-is-poison", 1_000;
}
