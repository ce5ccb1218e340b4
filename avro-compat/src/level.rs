//! Compatibility levels: which earlier versions a new schema is compared with, and in which direction.
//!
//! Knows no subjects and no storage; the caller passes the earlier versions, oldest first.

use std::{fmt, str::FromStr};

use apache_avro::Schema;

use crate::walk::{self, Incompatibility, Role};

/// The compatibility that a subject guarantees when a version is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Level {
    /// No check.
    None,
    /// The new schema reads data of the latest version.
    #[default]
    Backward,
    /// The new schema reads data of every version.
    BackwardTransitive,
    /// The latest version reads data of the new schema.
    Forward,
    /// Every version reads data of the new schema.
    ForwardTransitive,
    /// Backward and forward with the latest version.
    Full,
    /// Backward and forward with every version.
    FullTransitive,
}

impl Level {
    /// Every level, in the order of Confluent's documentation.
    pub const ALL: [Level; 7] = [
        Level::None,
        Level::Backward,
        Level::BackwardTransitive,
        Level::Forward,
        Level::ForwardTransitive,
        Level::Full,
        Level::FullTransitive,
    ];

    /// The name on the wire: `FULL_TRANSITIVE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::None => "NONE",
            Level::Backward => "BACKWARD",
            Level::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Level::Forward => "FORWARD",
            Level::ForwardTransitive => "FORWARD_TRANSITIVE",
            Level::Full => "FULL",
            Level::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether the level compares every earlier version, not only the latest.
    #[must_use]
    pub fn is_transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    fn checks_backward(self) -> bool {
        matches!(self, Level::Backward | Level::BackwardTransitive | Level::Full | Level::FullTransitive)
    }

    fn checks_forward(self) -> bool {
        matches!(self, Level::Forward | Level::ForwardTransitive | Level::Full | Level::FullTransitive)
    }

    /// Compares `new` with the earlier versions (oldest first).
    ///
    /// # Errors
    /// [`IncompatibleVersion`] has the position of the newest incompatible version in `earlier`, and every reason.
    pub fn check(self, new: &Schema, earlier: &[&Schema]) -> Result<(), IncompatibleVersion> {
        let count = if self.is_transitive() { earlier.len() } else { earlier.len().min(1) };
        for (index, old) in earlier.iter().enumerate().rev().take(count) {
            let mut found = Vec::new();
            if self.checks_backward() {
                found.extend(walk::check(new, old, Role::New));
            }
            if self.checks_forward() {
                found.extend(walk::check(old, new, Role::Old));
            }
            if !found.is_empty() {
                return Err(IncompatibleVersion { index, found });
            }
        }
        Ok(())
    }
}

/// An earlier version with which the new schema is incompatible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncompatibleVersion {
    /// Position of the version in the list of earlier versions.
    pub index: usize,
    /// Every reason, in the order of the reader's fields.
    pub found: Vec<Incompatibility>,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Level::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(text)).ok_or(UnknownLevel)
    }
}

/// The text is no compatibility level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownLevel;

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Level::ALL.iter().map(|level| level.name()).collect();
        write!(f, "unknown compatibility level; one of {}", names.join(", "))
    }
}

impl std::error::Error for UnknownLevel {}
