//! Saga declarations: the compiled form of a declaration file.
//!
//! The projector knows a business only as data in this form: names, bit sets and sentences. `raw` has the keys of the file,
//! `check` the checks. This module knows no broker, and no file of this crate knows a business.

mod check;
mod raw;
mod selector;
mod sentence;

use std::{collections::BTreeMap, path::Path};

pub use self::{
    selector::{EventSelector, FieldCondition},
    sentence::{SentenceTemplate, SentenceValues},
};

/// The default header of the correlation id.
pub const CORRELATION_HEADER: &str = "ce_correlationid";
/// The most declarations of one projector.
pub const DECLARATIONS_MAX: usize = 16;
/// The most different events that one declaration may name, and the most nodes it may have.
const EVENTS_MAX: usize = 128;
const NODES_MAX: usize = 48;
const OUTCOMES_MAX: usize = 24;
const OWNERS_MAX: usize = 32;

/// A set of events of one declaration, by their index in [`Declaration::events`].
pub type EventSet = u128;
/// A set of nodes of one declaration, by their index in [`Declaration::nodes`].
pub type NodeSet = u64;

/// One saga as declared.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// The name in filters and URLs.
    pub name: String,
    /// The title for a person.
    pub title: String,
    /// The header of the correlation id.
    pub header: String,
    /// For events of other systems: the type (or its last dotted parts) to the body field with the correlation id.
    pub fields: BTreeMap<String, String>,
    /// Whether `ce_sequence` counts the events of one entity, so that a hole means a missing event.
    pub sequences: bool,
    /// The owners of steps.
    pub owners: Vec<StepOwner>,
    /// The topics to read. `{system}` stands for the name of the system.
    pub topics: Vec<String>,
    /// Every event the declaration names.
    pub events: Vec<EventSelector>,
    /// The events that begin a saga.
    pub start: EventSet,
    /// Steps, then the cancelling node if there is one, then compensations.
    pub nodes: Vec<SagaNode>,
    /// Groups of events of which a saga may have only one.
    pub exclusive: Vec<EventSet>,
    /// The outcomes. The first outcome that matches is chosen.
    pub outcomes: Vec<SagaOutcome>,
}

/// The owner of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOwner {
    /// The name in filters.
    pub id: String,
    /// The name in sentences.
    pub title: String,
}

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A step of the normal path.
    Step,
    /// The decision to compensate, owed once a step has failed.
    Cancel,
    /// A compensation, owed once the saga is cancelled.
    Compensation,
}

/// A step, cancellation or compensation that an owner owes.
#[derive(Debug, Clone)]
pub struct SagaNode {
    /// The name in filters.
    pub id: String,
    /// The title for a person.
    pub title: String,
    /// The index in [`Declaration::owners`].
    pub owner: usize,
    /// Its kind.
    pub kind: NodeKind,
    /// The steps that must be done before this one is owed.
    pub after: NodeSet,
    /// Events that show that work on it has started.
    pub reached_by: EventSet,
    /// Events of which any completes it.
    pub completed_by: EventSet,
    /// Events that show that it failed.
    pub failed_by: EventSet,
    /// Events that show that it was compensated.
    pub undone_by: EventSet,
    /// True if a person must act when it fails and no compensation follows. Always true for compensations.
    pub attention: bool,
    /// The time that the owner has.
    pub deadline_ms: i64,
    /// The sentence while it is owed.
    pub waiting: SentenceTemplate,
    /// The sentence while it is owed and has failed, and only a person can resolve it.
    pub failed: SentenceTemplate,
}

/// The kind of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    /// Every step is done.
    Completed,
    /// Rejected before anything needed compensation.
    Rejected,
    /// Every completed step is compensated.
    Compensated,
    /// The saga ended in a way that a person must check.
    Failed,
}

/// One outcome of a saga.
#[derive(Debug, Clone)]
pub struct SagaOutcome {
    /// The name in filters.
    pub name: String,
    /// Its kind.
    pub kind: OutcomeKind,
    /// The events that decide it: all of them are required.
    pub when: EventSet,
    /// The nodes that must be done before nothing is open.
    pub settled_by: NodeSet,
    /// The sentence for a person.
    pub sentence: SentenceTemplate,
}

/// A problem of a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclarationProblem {
    /// Its line in the file, from 1; 0 if it concerns the file as a whole.
    pub line: usize,
    /// What is wrong, with a hint.
    pub text: String,
}

/// A declaration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// The file cannot be read.
    #[error("cannot read the saga declaration {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that is not one of a declaration's.
    #[error("the saga declaration {file} is not well formed: {detail}")]
    Syntax {
        /// The file.
        file: String,
        /// The message of the parser, with line and column.
        detail: String,
    },
    /// The file is well formed but invalid.
    #[error("the saga declaration {file} is invalid:{}", .problems.iter().map(|p| format!("\n  line {}: {}", p.line, p.text)).collect::<String>())]
    Invalid {
        /// The file.
        file: String,
        /// The problems.
        problems: Vec<DeclarationProblem>,
    },
    /// Several declarations that conflict.
    #[error("the saga declarations conflict: {0}")]
    Clash(String),
}

impl Declaration {
    /// Reads and checks one file.
    ///
    /// # Errors
    /// [`DeclarationError`] with every problem.
    pub fn load(path: &Path) -> Result<Self, DeclarationError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(source) => Err(DeclarationError::Read { path: file, source }),
        }
    }

    /// Checks the text of one file. `file` is only used in messages.
    ///
    /// # Errors
    /// [`DeclarationError`] with every problem.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclarationError> {
        let raw: raw::DeclarationFile = toml::from_str(text).map_err(|error| DeclarationError::Syntax {
            file: file.to_owned(),
            detail: error.to_string().trim_end().to_owned(),
        })?;
        check::compile(text, &raw).map_err(|problems| DeclarationError::Invalid { file: file.to_owned(), problems })
    }

    /// The declarations that ship with the projector, by their file names.
    ///
    /// # Errors
    /// Never for a released build: a test checks the shipped declarations.
    pub fn shipped() -> Result<Vec<Self>, DeclarationError> {
        SHIPPED.iter().map(|(file, text)| Self::parse(file, text)).collect()
    }

    /// The topics to read in a system.
    #[must_use]
    pub fn topics_in(&self, system: &str) -> Vec<String> {
        self.topics.iter().map(|topic| topic.replace("{system}", system)).collect()
    }

    /// The node of this id.
    #[must_use]
    pub fn node(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }
}

/// The shipped declarations: the name of the file and its text.
const SHIPPED: &[(&str, &str)] = &[
    ("order-fulfilment.toml", include_str!("../../sagas/order-fulfilment.toml")),
    ("customer-onboarding.toml", include_str!("../../sagas/customer-onboarding.toml")),
];

/// Checks that declarations have different names and read the correlation id of an event from the same field.
///
/// # Errors
/// [`DeclarationError::Clash`].
pub fn check_together(declarations: &[Declaration]) -> Result<(), DeclarationError> {
    let clash = |text: String| Err(DeclarationError::Clash(text));
    if declarations.is_empty() || declarations.len() > DECLARATIONS_MAX {
        return clash(format!("{} are given; 1 to {DECLARATIONS_MAX} are allowed", declarations.len()));
    }
    for (index, one) in declarations.iter().enumerate() {
        for other in &declarations[..index] {
            if one.name == other.name {
                return clash(format!("two of them are named {:?}", one.name));
            }
            for (event, field) in &one.fields {
                if let Some(there) = other.fields.get(event).filter(|there| *there != field) {
                    return clash(format!(
                        "{:?} correlates {event} by {field:?} and {:?} by {there:?}",
                        one.name, other.name
                    ));
                }
            }
        }
    }
    Ok(())
}

impl OutcomeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Rejected, Self::Compensated, Self::Failed];

    /// The name in a declaration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Compensated => "compensated",
            Self::Failed => "failed",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
