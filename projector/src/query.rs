//! What a reader may ask the view: filtered lists with a cursor, changes since a revision, counts.
//!
//! Every question has a bounded cost: a list walks the smallest class that its filter names, in order of the last change, and
//! hands back a cursor when it has seen enough, even if it found little.

use std::{collections::BTreeMap, iter::Peekable};

use crate::{
    api,
    declaration::Declaration,
    index::{ClassSet, Index, InstanceNo},
    nearest::{hint, nearest},
    standing::{Flag, State},
    view::View,
};

/// The most sagas one page holds.
pub const LIMIT_MAX: usize = 500;
/// The sagas a page holds unless another number is asked for.
pub const LIMIT_DEFAULT: usize = 50;
/// How many sagas one question looks at.
const VISITS_MAX: usize = 20_000;

/// A filter: every part that is there must fit. Within one part, values separated by commas are alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Declaration names.
    pub saga: Option<String>,
    /// States.
    pub state: Option<String>,
    /// Business outcomes.
    pub outcome: Option<String>,
    /// Owed steps and compensations.
    pub step: Option<String>,
    /// Owners of what is owed.
    pub owner: Option<String>,
    /// Flags.
    pub flag: Option<String>,
    /// One saga's id.
    pub key: Option<String>,
}

/// A filter that names something that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// A key that no filter has.
    #[error("{key:?} is not a filter{hint}")]
    Key {
        /// The key.
        key: String,
        /// The nearest one.
        hint: String,
    },
    /// A value that a key does not take.
    #[error("{value:?} is no {key} here{hint}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// The nearest one.
        hint: String,
    },
    /// A cursor of another list, or no cursor at all.
    #[error("the cursor {0:?} does not belong to this list")]
    Cursor(String),
    /// A number that is none, or too large.
    #[error("limit {0:?} is not a number from 1 to {LIMIT_MAX}")]
    Limit(String),
}

/// The keys a filter has.
pub const KEYS: [&str; 7] = ["saga", "state", "outcome", "step", "owner", "flag", "key"];

impl Filter {
    /// Sets one part by its key.
    ///
    /// # Errors
    /// [`BadFilter::Key`].
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), BadFilter> {
        let part = match key {
            "saga" => &mut self.saga,
            "state" => &mut self.state,
            "outcome" => &mut self.outcome,
            "step" => &mut self.step,
            "owner" => &mut self.owner,
            "flag" => &mut self.flag,
            "key" => &mut self.key,
            _ => {
                let hint = nearest(key, KEYS)
                    .map_or_else(|| format!(": {} are", KEYS.join(", ")), |near| format!("; did you mean {near:?}?"));
                return Err(BadFilter::Key { key: key.to_owned(), hint });
            }
        };
        *part = Some(value.to_owned());
        Ok(())
    }

    /// The parts that are set, by their keys.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parts = [&self.saga, &self.state, &self.outcome, &self.step, &self.owner, &self.flag, &self.key];
        KEYS.into_iter().zip(parts).filter_map(|(key, part)| part.as_deref().map(|value| (key, value)))
    }
}

/// A filter as one declaration understands it: the saga must be in a class of each set.
struct Resolved {
    declaration: usize,
    parts: Vec<ClassSet>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Last changed first.
    pub items: Vec<api::Saga>,
    /// The revision below which the next page begins.
    pub next: Option<u64>,
}

impl View {
    /// The sagas that fit, last changed first, from below the revision `before`.
    ///
    /// A saga that changes during a walk moves to the front: it is seen there, or with [`View::changes`]. One that does not change
    /// is seen exactly once.
    ///
    /// # Errors
    /// [`BadFilter::Value`].
    pub fn list(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Result<Page, BadFilter> {
        let resolved = self.resolve(filter)?;
        let below = (before.unwrap_or(u64::MAX), 0);
        if let Some(id) = &filter.key {
            return Ok(Page { items: self.list_one(id, &resolved), next: None });
        }
        let mut walks: Vec<_> = Vec::new();
        for part in &resolved {
            let index = &self.indexes[part.declaration];
            let smallest =
                part.parts.iter().copied().min_by_key(|set| index.sets(*set).map(|class| class.len()).sum::<usize>());
            walks.extend(
                index.sets(smallest.unwrap_or(Index::ALL)).map(|class| class.range(..below).rev().copied().peekable()),
            );
        }
        let mut items = Vec::new();
        let mut last = None;
        for _ in 0..VISITS_MAX {
            let Some((revision, instance)) = next_of(&mut walks, |one, other| one > other) else {
                return Ok(Page { items, next: None });
            };
            if items.len() == limit {
                return Ok(Page { items, next: last });
            }
            last = Some(revision);
            if self.fits(instance, &resolved) {
                items.push(self.present(instance));
            }
        }
        Ok(Page { items, next: last })
    }

    /// What has changed after the revision `since`, oldest change first, and the revision to go on from.
    ///
    /// # Errors
    /// [`BadFilter::Value`].
    pub fn changes(&self, filter: &Filter, since: u64, limit: usize) -> Result<(Vec<api::Change>, u64), BadFilter> {
        let resolved = self.resolve(filter)?;
        let above = (since.saturating_add(1), 0);
        let mut walks: Vec<_> = Vec::new();
        for part in &resolved {
            walks.extend(
                self.indexes[part.declaration].sets(Index::ALL).map(|class| class.range(above..).copied().peekable()),
            );
        }
        let mut changes = Vec::new();
        let mut last = since;
        while changes.len() < limit {
            let Some((revision, instance)) = next_of(&mut walks, |one, other| one < other) else {
                return Ok((changes, self.revision().max(since)));
            };
            last = revision;
            let subject = self.subject(instance);
            if filter.key.as_deref().is_some_and(|id| id != subject.id) {
                continue;
            }
            changes.push(if self.fits(instance, &resolved) {
                api::Change::Upsert { saga: Box::new(self.present(instance)) }
            } else {
                api::Change::Left { saga: subject.declaration.name.clone(), id: subject.id.to_owned(), revision }
            });
        }
        Ok((changes, last))
    }

    /// The counts of every declaration's sagas. They are kept, not counted.
    #[must_use]
    pub fn counts(&self) -> Vec<api::SagaCounts> {
        let each = self.declarations.iter().zip(&self.indexes);
        each.map(|(declaration, index)| counts_of(declaration, index)).collect()
    }

    fn list_one(&self, id: &str, resolved: &[Resolved]) -> Vec<api::Saga> {
        let fitting = self.find(id).iter().filter(|instance| self.fits(**instance, resolved));
        fitting.map(|instance| self.present(*instance)).collect()
    }

    fn fits(&self, instance: InstanceNo, resolved: &[Resolved]) -> bool {
        let instance = &self.instances[instance as usize];
        let declaration = usize::from(instance.declaration);
        resolved.iter().any(|filter| {
            filter.declaration == declaration && filter.parts.iter().all(|set| instance.classes & set != 0)
        })
    }

    /// What a filter means to each declaration. A name that some declaration knows is fine; the others have no saga of it.
    fn resolve(&self, filter: &Filter) -> Result<Vec<Resolved>, BadFilter> {
        let names = || self.declarations.iter().map(|declaration| declaration.name.as_str());
        let wanted: Vec<&str> = filter.saga.as_deref().map_or_else(|| names().collect(), split);
        if let Some(name) = wanted.iter().find(|name| !names().any(|known| known == **name)) {
            return Err(bad_value("saga", name, &names().collect::<Vec<_>>()));
        }
        let chosen = || self.declarations.iter().enumerate().filter(|(_, known)| wanted.contains(&known.name.as_str()));
        let mut resolved: Vec<Resolved> =
            chosen().map(|(declaration, _)| Resolved { declaration, parts: Vec::new() }).collect();
        for (key, value) in filter.parts().filter(|(key, _)| !matches!(*key, "saga" | "key")) {
            for word in split(value) {
                if chosen().all(|(number, known)| class_of(key, word, known, &self.indexes[number]).is_none()) {
                    let known: Vec<&str> = chosen().flat_map(|(_, known)| words_of(key, known)).collect();
                    return Err(bad_value(key, word, &known));
                }
            }
            for filter in &mut resolved {
                let declaration = &self.declarations[filter.declaration];
                let index = &self.indexes[filter.declaration];
                let classes = split(value).into_iter().filter_map(|word| class_of(key, word, declaration, index));
                filter.parts.push(classes.fold(0, |set, class| set | class));
            }
        }
        Ok(resolved)
    }
}

/// Takes the entry that comes first among several ordered walks. Several may hold the same saga under the same revision.
fn next_of<I: Iterator<Item = (u64, InstanceNo)>>(
    walks: &mut [Peekable<I>],
    is_before: impl Fn((u64, InstanceNo), (u64, InstanceNo)) -> bool,
) -> Option<(u64, InstanceNo)> {
    let mut first: Option<(u64, InstanceNo)> = None;
    for walk in walks.iter_mut() {
        if let Some(head) = walk.peek().copied()
            && first.is_none_or(|first| is_before(head, first))
        {
            first = Some(head);
        }
    }
    for walk in walks.iter_mut() {
        walk.next_if(|head| Some(*head) == first);
    }
    first
}

fn split(value: &str) -> Vec<&str> {
    value.split(',').map(str::trim).collect()
}

fn bad_value(key: &'static str, value: &str, known: &[&str]) -> BadFilter {
    let near = hint(value, known.iter().copied());
    let listed = if near.is_empty() { format!(": {}", known.join(", ")) } else { near };
    BadFilter::Value { key, value: value.chars().take(64).collect(), hint: listed }
}

/// The words a key takes in one declaration.
fn words_of<'a>(key: &str, declaration: &'a Declaration) -> Vec<&'a str> {
    match key {
        "state" => State::ALL.map(State::name).to_vec(),
        "flag" => Flag::ALL.map(Flag::name).to_vec(),
        "outcome" => declaration.outcomes.iter().map(|outcome| outcome.name.as_str()).collect(),
        "step" => declaration.nodes.iter().map(|node| node.id.as_str()).collect(),
        "owner" => declaration.owners.iter().map(|owner| owner.id.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn class_of(key: &str, word: &str, declaration: &Declaration, index: &Index) -> Option<ClassSet> {
    let number = words_of(key, declaration).iter().position(|known| *known == word)?;
    match key {
        "state" => Some(Index::state(State::ALL[number])),
        "flag" => Some(Index::flag(Flag::ALL[number])),
        "outcome" => Some(Index::outcome(number)),
        "step" => Some(index.node(number)),
        "owner" => Some(index.owner(number)),
        _ => None,
    }
}

fn counts_of(declaration: &Declaration, index: &Index) -> api::SagaCounts {
    let count = |key: &str| -> BTreeMap<String, u64> {
        let words = words_of(key, declaration).into_iter();
        words
            .filter_map(|word| {
                class_of(key, word, declaration, index).map(|class| (word.to_owned(), index.count(class) as u64))
            })
            .collect()
    };
    let states = count("state");
    let open = |state: State| states.get(state.name()).copied().unwrap_or_default();
    api::SagaCounts {
        saga: declaration.name.clone(),
        total: index.count(Index::ALL) as u64,
        open: open(State::Running) + open(State::Compensating),
        outcomes: count("outcome"),
        flags: count("flag"),
        waiting: count("step"),
        owners: count("owner"),
        states,
    }
}
