//! What a saga is: the compiled form of one declaration file.
//!
//! Everything the projector knows about somebody's business stands here as data: names, bit sets and sentences. The file's
//! keys are `raw`, its checks are `check`. This module never knows a broker, and no file of this crate knows a business.

mod check;
mod raw;
mod selector;
mod sentence;

use std::{collections::BTreeMap, path::Path};

pub use self::{
    selector::{Condition, Selector},
    sentence::{Sentence, Words},
};

/// The header that carries the saga's id unless a declaration names another.
pub const CORRELATION_HEADER: &str = "ce_correlationid";
/// The most declarations one projector takes.
pub const DECLARATIONS_MAX: usize = 16;
/// The most different events one declaration may name, and the most nodes it may have.
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
    /// The name it is asked for by.
    pub name: String,
    /// What a person calls it.
    pub title: String,
    /// The header that carries the saga's id.
    pub header: String,
    /// For events of another system: type (or its last dotted parts) to the body field that holds the saga's id.
    pub fields: BTreeMap<String, String>,
    /// Whether `ce_sequence` counts the events of one entity, so that a hole means a missing event.
    pub sequences: bool,
    /// Who can owe a step.
    pub owners: Vec<Owner>,
    /// Topics to read, with `{system}` where a system's name goes.
    pub topics: Vec<String>,
    /// Every event the declaration names.
    pub events: Vec<Selector>,
    /// The events that begin a saga.
    pub start: EventSet,
    /// Steps, then the cancelling node if there is one, then compensations.
    pub nodes: Vec<Node>,
    /// Groups of which a saga may hear only one.
    pub exclusive: Vec<EventSet>,
    /// How a saga can end, the first that fits wins.
    pub outcomes: Vec<Outcome>,
}

/// Who owes steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// As a filter names it.
    pub id: String,
    /// As a sentence names it.
    pub title: String,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Part of the story that goes well.
    Step,
    /// The decision to undo everything, owed once a step has failed.
    Cancel,
    /// Undoes something, owed once the saga is cancelled.
    Compensation,
}

/// Something that somebody owes.
#[derive(Debug, Clone)]
pub struct Node {
    /// As a filter names it.
    pub id: String,
    /// As a page names it.
    pub title: String,
    /// Index into [`Declaration::owners`].
    pub owner: usize,
    /// What it is for.
    pub kind: NodeKind,
    /// The steps that must be done before this one is owed.
    pub after: NodeSet,
    /// Work on it has begun.
    pub reached_by: EventSet,
    /// It is done: any of these.
    pub completed_by: EventSet,
    /// It cannot be done.
    pub failed_by: EventSet,
    /// What it did was undone.
    pub undone_by: EventSet,
    /// When it fails a person must look, and nothing is undone for it. True of every compensation.
    pub attention: bool,
    /// How long the owner may take.
    pub deadline_ms: i64,
    /// What a person reads while it is owed.
    pub waiting: Sentence,
    /// What a person reads while it is owed, has failed, and only a person can help.
    pub failed: Sentence,
}

/// The technical kind of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    /// Everything was done.
    Completed,
    /// Refused before anything needed undoing.
    Rejected,
    /// Everything that was done is undone.
    Compensated,
    /// It ended in a way that a person must look at.
    Failed,
}

/// One way a saga ends.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// As a filter names it.
    pub name: String,
    /// Its technical kind.
    pub kind: OutcomeKind,
    /// The events that decide it: all of these.
    pub when: EventSet,
    /// The nodes that must be done before nothing is open.
    pub settled_by: NodeSet,
    /// What a person reads.
    pub sentence: Sentence,
}

/// One thing wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
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
        /// The parser's words, with line and column.
        detail: String,
    },
    /// The file is well formed, but makes no sense.
    #[error("the saga declaration {file} makes no sense:{}", .problems.iter().map(|p| format!("\n  line {}: {}", p.line, p.text)).collect::<String>())]
    Wrong {
        /// The file.
        file: String,
        /// Everything found.
        problems: Vec<Problem>,
    },
    /// Several declarations that do not go together.
    #[error("the saga declarations do not go together: {0}")]
    Clash(String),
}

impl Declaration {
    /// Reads and checks one file.
    ///
    /// # Errors
    /// [`DeclarationError`] with everything that is wrong.
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
    /// [`DeclarationError`] with everything that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclarationError> {
        let raw: raw::File = toml::from_str(text).map_err(|error| DeclarationError::Syntax {
            file: file.to_owned(),
            detail: error.to_string().trim_end().to_owned(),
        })?;
        check::compile(text, &raw).map_err(|problems| DeclarationError::Wrong { file: file.to_owned(), problems })
    }

    /// The declarations that ship with the projector, by their file names.
    ///
    /// # Errors
    /// Never for a released build: a test holds them.
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

/// What ships: the file's name and its text.
const SHIPPED: &[(&str, &str)] = &[
    ("order-fulfilment.toml", include_str!("../../sagas/order-fulfilment.toml")),
    ("customer-onboarding.toml", include_str!("../../sagas/customer-onboarding.toml")),
];

/// Several declarations have different names and read the same event's saga id from the same place.
///
/// # Errors
/// [`DeclarationError::Clash`].
pub fn check_together(declarations: &[Declaration]) -> Result<(), DeclarationError> {
    let clash = |text: String| Err(DeclarationError::Clash(text));
    if declarations.is_empty() || declarations.len() > DECLARATIONS_MAX {
        return clash(format!("there are {}, and 1 to {DECLARATIONS_MAX} are taken", declarations.len()));
    }
    for (index, one) in declarations.iter().enumerate() {
        for other in &declarations[..index] {
            if one.name == other.name {
                return clash(format!("two of them are called {:?}", one.name));
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

    /// As a declaration writes it.
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
