//! Compatibility levels: which earlier versions a new schema is held against, and in which direction.
//!
//! Knows nothing of subjects or storage; the caller brings the earlier versions, oldest first.

use std::{fmt, str::FromStr};

use apache_avro::Schema;

use crate::walk::{self, Incompatibility, Role};

/// What a subject promises to its readers and writers when a version is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Level {
    /// Anything goes.
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
    /// Every level, in the order a person would learn them.
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

    /// Whether every earlier version counts, not only the latest.
    #[must_use]
    pub fn is_transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    fn reads_old(self) -> bool {
        matches!(self, Level::Backward | Level::BackwardTransitive | Level::Full | Level::FullTransitive)
    }

    fn read_by_old(self) -> bool {
        matches!(self, Level::Forward | Level::ForwardTransitive | Level::Full | Level::FullTransitive)
    }

    /// Holds `new` against the earlier versions (oldest first). Answers with the newest version that refuses it, and why.
    ///
    /// # Errors
    /// [`Refusal`] with the position of that version in `earlier` and every incompatibility found.
    pub fn check(self, new: &Schema, earlier: &[&Schema]) -> Result<(), Refusal> {
        let compared = if self.is_transitive() { earlier.len() } else { earlier.len().min(1) };
        for (index, old) in earlier.iter().enumerate().rev().take(compared) {
            let mut found = Vec::new();
            if self.reads_old() {
                found.extend(walk::check(new, old, Role::New));
            }
            if self.read_by_old() {
                found.extend(walk::check(old, new, Role::Old));
            }
            if !found.is_empty() {
                return Err(Refusal { index, found });
            }
        }
        Ok(())
    }
}

/// A new schema that an earlier version cannot live with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Position of the earlier version in the list that was given.
    pub index: usize,
    /// Every reason, in the order of the walk.
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

/// A text that names no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownLevel;

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Level::ALL.iter().map(|level| level.name()).collect();
        write!(f, "unknown compatibility level; one of {}", names.join(", "))
    }
}

impl std::error::Error for UnknownLevel {}
