//! What a check is: a sentence that is true of a conforming server, and the function that finds out.
//!
//! Knows nothing of Kafka. Next: [`crate::context`], what a check is given.

use std::fmt;

use crate::context::Context;

/// What part of the servers a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Topics,
    Records,
    Offsets,
    Transactions,
    Fencing,
    Groups,
    Ownership,
    Log,
    Wire,
    Registry,
}

impl Area {
    /// The name `--only` takes.
    pub fn name(self) -> &'static str {
        match self {
            Area::Topics => "topics",
            Area::Records => "records",
            Area::Offsets => "offsets",
            Area::Transactions => "transactions",
            Area::Fencing => "fencing",
            Area::Groups => "groups",
            Area::Ownership => "ownership",
            Area::Log => "log",
            Area::Wire => "wire",
            Area::Registry => "registry",
        }
    }
}

/// One check: `name` reads as a sentence and is what a passing server does.
pub(crate) struct Check {
    pub(crate) area: Area,
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Context) -> Verdict,
}

/// What was seen when the sentence is true, else why it is not.
pub(crate) type Verdict = Result<String, Failure>;

/// Why a check failed: what was being done, and what was seen instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Says what was being done when something went wrong: an error alone rarely does.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}

impl<T> Doing<T> for Option<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.ok_or_else(|| Failure(format!("{what}: nothing there")))
    }
}

/// `ensure!(condition, "what was seen, with {values}")`
macro_rules! ensure {
    ($condition:expr, $($seen:tt)+) => {
        if !$condition {
            return Err($crate::check::Failure(format!($($seen)+)));
        }
    };
}

/// `ensure_eq!(seen, wanted, "the thing that should be equal")`
macro_rules! ensure_eq {
    ($seen:expr, $wanted:expr, $($what:tt)+) => {
        // A match, as in the standard library's own: both sides may borrow from temporaries.
        match (&$seen, &$wanted) {
            (seen, wanted) if seen == wanted => {}
            (seen, wanted) => {
                let what = format_args!($($what)+);
                return Err($crate::check::Failure(format!("{what}: saw {seen:?}, wanted {wanted:?}")));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq};
