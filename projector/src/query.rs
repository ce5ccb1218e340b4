//! The queries of the view: filtered lists with a cursor, changes since a revision, counts.
//!
//! Every query has a bounded cost: a list walks the smallest class that its filter names, in order of the last change, and
//! returns a cursor after a fixed number of sagas even if few of them match.

use std::{collections::BTreeMap, iter::Peekable};

use crate::{
    api,
    declaration::Declaration,
    index::{ClassSet, InstanceNo, SagaIndex},
    nearest::{hint, nearest},
    progress::{LifecycleState, SagaFlag},
    view::SagaView,
};

/// The most sagas one page holds.
pub const LIMIT_MAX: usize = 500;
/// The default number of sagas per page.
pub const LIMIT_DEFAULT: usize = 50;
/// The most sagas that one query visits.
const VISITS_MAX: usize = 20_000;

/// A filter: every part that is set must match. Within a part, values separated by commas are alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SagaFilter {
    /// Declaration names.
    pub saga: Option<String>,
    /// States.
    pub state: Option<String>,
    /// Business outcomes.
    pub outcome: Option<String>,
    /// Owed steps and compensations.
    pub step: Option<String>,
    /// Owners of owed steps.
    pub owner: Option<String>,
    /// Flags.
    pub flag: Option<String>,
    /// One saga's id.
    pub key: Option<String>,
}

/// An invalid query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// An unknown key.
    #[error("{key:?} is not a filter{hint}")]
    Key {
        /// The key.
        key: String,
        /// The nearest one.
        hint: String,
    },
    /// An unknown value of a key.
    #[error("{value:?} is not a known {key}{hint}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// The nearest one.
        hint: String,
    },
    /// A cursor of another list, or not a cursor.
    #[error("the cursor {0:?} does not belong to this list")]
    Cursor(String),
    /// Not a number, or out of range.
    #[error("limit {0:?} is not a number from 1 to {LIMIT_MAX}")]
    Limit(String),
}

/// The keys a filter has.
pub const KEYS: [&str; 7] = ["saga", "state", "outcome", "step", "owner", "flag", "key"];

impl SagaFilter {
    /// Sets one part by its key.
    ///
    /// # Errors
    /// [`FilterError::Key`].
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), FilterError> {
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
                return Err(FilterError::Key { key: key.to_owned(), hint });
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

/// A filter resolved for one declaration: the saga must be in a class of each set.
struct ResolvedFilter {
    declaration: usize,
    parts: Vec<ClassSet>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaPage {
    /// Last changed first.
    pub items: Vec<api::SagaSummary>,
    /// The revision below which the next page begins.
    pub next: Option<u64>,
}

impl SagaView {
    /// The sagas that match, last changed first, from below the revision `before`.
    ///
    /// A saga that changes during a walk moves to the front: it appears there, or in [`SagaView::changes`]. A saga that does
    /// not change appears exactly once.
    ///
    /// # Errors
    /// [`FilterError::Value`].
    pub fn list(&self, filter: &SagaFilter, before: Option<u64>, limit: usize) -> Result<SagaPage, FilterError> {
        let resolved = self.resolve(filter)?;
        let below = (before.unwrap_or(u64::MAX), 0);
        if let Some(id) = &filter.key {
            return Ok(SagaPage { items: self.list_one(id, &resolved), next: None });
        }
        let mut walks: Vec<_> = Vec::new();
        for part in &resolved {
            let index = &self.indexes[part.declaration];
            let smallest =
                part.parts.iter().copied().min_by_key(|set| index.sets(*set).map(|class| class.len()).sum::<usize>());
            walks.extend(
                index
                    .sets(smallest.unwrap_or(SagaIndex::ALL))
                    .map(|class| class.range(..below).rev().copied().peekable()),
            );
        }
        let mut items = Vec::new();
        let mut last = None;
        for _ in 0..VISITS_MAX {
            let Some((revision, instance)) = next_of(&mut walks, |one, other| one > other) else {
                return Ok(SagaPage { items, next: None });
            };
            if items.len() == limit {
                return Ok(SagaPage { items, next: last });
            }
            last = Some(revision);
            if self.fits(instance, &resolved) {
                items.push(self.present(instance));
            }
        }
        Ok(SagaPage { items, next: last })
    }

    /// The changes after the revision `since`, oldest first, and the revision to continue from.
    ///
    /// # Errors
    /// [`FilterError::Value`].
    pub fn changes(
        &self,
        filter: &SagaFilter,
        since: u64,
        limit: usize,
    ) -> Result<(Vec<api::SagaChange>, u64), FilterError> {
        let resolved = self.resolve(filter)?;
        let above = (since.saturating_add(1), 0);
        let mut walks: Vec<_> = Vec::new();
        for part in &resolved {
            walks.extend(
                self.indexes[part.declaration]
                    .sets(SagaIndex::ALL)
                    .map(|class| class.range(above..).copied().peekable()),
            );
        }
        let mut changes = Vec::new();
        let mut last = since;
        while changes.len() < limit {
            let Some((revision, instance)) = next_of(&mut walks, |one, other| one < other) else {
                return Ok((changes, self.revision().max(since)));
            };
            last = revision;
            let context = self.subject(instance);
            if filter.key.as_deref().is_some_and(|id| id != context.id) {
                continue;
            }
            changes.push(if self.fits(instance, &resolved) {
                api::SagaChange::Upsert { saga: Box::new(self.present(instance)) }
            } else {
                api::SagaChange::Left { saga: context.declaration.name.clone(), id: context.id.to_owned(), revision }
            });
        }
        Ok((changes, last))
    }

    /// The counts of the sagas of every declaration. The index maintains them; the query does not count.
    #[must_use]
    pub fn counts(&self) -> Vec<api::SagaCounts> {
        let each = self.declarations.iter().zip(&self.indexes);
        each.map(|(declaration, index)| counts_of(declaration, index)).collect()
    }

    fn list_one(&self, id: &str, resolved: &[ResolvedFilter]) -> Vec<api::SagaSummary> {
        let fitting = self.find(id).iter().filter(|instance| self.fits(**instance, resolved));
        fitting.map(|instance| self.present(*instance)).collect()
    }

    fn fits(&self, instance: InstanceNo, resolved: &[ResolvedFilter]) -> bool {
        let instance = &self.instances[instance as usize];
        let declaration = usize::from(instance.declaration);
        resolved.iter().any(|filter| {
            filter.declaration == declaration && filter.parts.iter().all(|set| instance.classes & set != 0)
        })
    }

    /// Resolves a filter for each declaration. A name is valid if at least one declaration knows it; the other declarations
    /// have no saga of it.
    fn resolve(&self, filter: &SagaFilter) -> Result<Vec<ResolvedFilter>, FilterError> {
        let names = || self.declarations.iter().map(|declaration| declaration.name.as_str());
        let wanted: Vec<&str> = filter.saga.as_deref().map_or_else(|| names().collect(), split);
        if let Some(name) = wanted.iter().find(|name| !names().any(|known| known == **name)) {
            return Err(bad_value("saga", name, &names().collect::<Vec<_>>()));
        }
        let chosen = || self.declarations.iter().enumerate().filter(|(_, known)| wanted.contains(&known.name.as_str()));
        let mut resolved: Vec<ResolvedFilter> =
            chosen().map(|(declaration, _)| ResolvedFilter { declaration, parts: Vec::new() }).collect();
        for (key, value) in filter.parts().filter(|(key, _)| !matches!(*key, "saga" | "key")) {
            for word in split(value) {
                if chosen().all(|(number, known)| class_of(key, word, known, &self.indexes[number]).is_none()) {
                    let known: Vec<&str> = chosen().flat_map(|(_, known)| values_of(key, known)).collect();
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

/// Takes the first entry among several ordered walks. Several walks may have the same saga under the same revision.
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

fn bad_value(key: &'static str, value: &str, known: &[&str]) -> FilterError {
    let near = hint(value, known.iter().copied());
    let listed = if near.is_empty() { format!(": {}", known.join(", ")) } else { near };
    FilterError::Value { key, value: value.chars().take(64).collect(), hint: listed }
}

/// The values of a key in one declaration.
fn values_of<'a>(key: &str, declaration: &'a Declaration) -> Vec<&'a str> {
    match key {
        "state" => LifecycleState::ALL.map(LifecycleState::name).to_vec(),
        "flag" => SagaFlag::ALL.map(SagaFlag::name).to_vec(),
        "outcome" => declaration.outcomes.iter().map(|outcome| outcome.name.as_str()).collect(),
        "step" => declaration.nodes.iter().map(|node| node.id.as_str()).collect(),
        "owner" => declaration.owners.iter().map(|owner| owner.id.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn class_of(key: &str, word: &str, declaration: &Declaration, index: &SagaIndex) -> Option<ClassSet> {
    let number = values_of(key, declaration).iter().position(|known| *known == word)?;
    match key {
        "state" => Some(SagaIndex::state(LifecycleState::ALL[number])),
        "flag" => Some(SagaIndex::flag(SagaFlag::ALL[number])),
        "outcome" => Some(SagaIndex::outcome(number)),
        "step" => Some(index.node(number)),
        "owner" => Some(index.owner(number)),
        _ => None,
    }
}

fn counts_of(declaration: &Declaration, index: &SagaIndex) -> api::SagaCounts {
    let count = |key: &str| -> BTreeMap<String, u64> {
        let values = values_of(key, declaration).into_iter();
        values
            .filter_map(|value| {
                class_of(key, value, declaration, index).map(|class| (value.to_owned(), index.count(class) as u64))
            })
            .collect()
    };
    let states = count("state");
    let open = |state: LifecycleState| states.get(state.name()).copied().unwrap_or_default();
    api::SagaCounts {
        saga: declaration.name.clone(),
        total: index.count(SagaIndex::ALL) as u64,
        open: open(LifecycleState::Running) + open(LifecycleState::Compensating),
        outcomes: count("outcome"),
        flags: count("flag"),
        waiting: count("step"),
        owners: count("owner"),
        states,
    }
}
