//! A check: a sentence that is true of a conforming server, and the function that tests it.
//!
//! Knows no Kafka. Next: [`crate::context`], a check's context.

use std::fmt;

use crate::context::CheckContext;

/// The part of the servers that a check tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    TopicPair,
    Records,
    Offsets,
    Transactions,
    Fencing,
    Groups,
    Ownership,
    Log,
    Batches,
    Lookups,
    Wire,
    Registry,
}

impl Area {
    /// The name for `--only`.
    pub fn name(self) -> &'static str {
        match self {
            Area::TopicPair => "topics",
            Area::Records => "records",
            Area::Offsets => "offsets",
            Area::Transactions => "transactions",
            Area::Fencing => "fencing",
            Area::Groups => "groups",
            Area::Ownership => "ownership",
            Area::Log => "log",
            Area::Batches => "batches",
            Area::Lookups => "lookups",
            Area::Wire => "wire",
            Area::Registry => "registry",
        }
    }
}

/// One check: `name` is a sentence that states what a conforming server does.
pub(crate) struct ConformanceCheck {
    pub(crate) area: Area,
    pub(crate) name: &'static str,
    pub(crate) run: fn(&CheckContext) -> CheckResult,
}

/// The observation if the sentence is true, else the reason why it is not.
pub(crate) type CheckResult = Result<String, CheckFailure>;

/// Why a check failed: the operation and its unexpected result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CheckFailure(pub(crate) String);

impl CheckFailure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Adds the failed operation to an error.
pub(crate) trait FailureContext<T> {
    fn context(self, what: impl fmt::Display) -> Result<T, CheckFailure>;
}

impl<T, E: fmt::Display> FailureContext<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, CheckFailure> {
        self.map_err(|error| CheckFailure(format!("{what}: {error}")))
    }
}

impl<T> FailureContext<T> for Option<T> {
    fn context(self, what: impl fmt::Display) -> Result<T, CheckFailure> {
        self.ok_or_else(|| CheckFailure(format!("{what}: missing")))
    }
}

/// `ensure!(condition, "the observation, with {values}")`
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::check::CheckFailure(format!($($message)+)));
        }
    };
}

/// `ensure_eq!(actual, expected, "the compared value")`
macro_rules! ensure_eq {
    ($actual:expr, $expected:expr, $($what:tt)+) => {
        // A match, as in the standard library's `assert_eq`: both sides may borrow from temporaries.
        match (&$actual, &$expected) {
            (actual, expected) if actual == expected => {}
            (actual, expected) => {
                let what = format_args!($($what)+);
                return Err($crate::check::CheckFailure(format!("{what}: got {actual:?}, expected {expected:?}")));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq};
