//! What a query string may say: a filter, and the few numbers each resource takes.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    http::problem::Problem,
    nearest::nearest,
    query::{BadFilter, Filter, KEYS, LIMIT_DEFAULT, LIMIT_MAX},
};

/// The pairs of a query string.
pub(super) type Pairs = Vec<(String, String)>;

/// The longest value that is looked at.
const VALUE_MAX: usize = 512;

/// A query string, split into its filter and the keys that a resource takes besides.
#[derive(Debug, Default)]
pub(super) struct Params {
    pub(super) filter: Filter,
    others: Vec<(String, String)>,
}

impl Params {
    /// Sorts the pairs; `filters` are the filter's keys that this resource takes, `others` its own.
    pub(super) fn sort(pairs: Pairs, filters: &[&str], others: &[&str]) -> Result<Self, Problem> {
        let mut params = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in pairs {
            if value.len() > VALUE_MAX {
                return Err(Problem::bad(format!("the value of {key:?} is longer than {VALUE_MAX} bytes")));
            }
            if seen.contains(&key) {
                return Err(Problem::bad(format!("{key:?} is given twice; alternatives are separated by commas")));
            }
            if filters.contains(&key.as_str()) {
                params.filter.set(&key, &value)?;
            } else if others.contains(&key.as_str()) {
                params.others.push((key.clone(), value));
            } else {
                return Err(unknown(&key, filters, others));
            }
            seen.push(key);
        }
        Ok(params)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.others.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// How many items are asked for.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        match self.get("limit") {
            None => Ok(LIMIT_DEFAULT),
            Some(text) => match text.parse() {
                Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
                _ => Err(BadFilter::Limit(text.to_owned()).into()),
            },
        }
    }

    /// A number up to `max`, or `default`.
    pub(super) fn number(&self, key: &str, default: u64, max: u64) -> Result<u64, Problem> {
        match self.get(key) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if number <= max => Ok(number),
                _ => Err(Problem::bad(format!("{key} {text:?} is not a number from 0 to {max}"))),
            },
        }
    }
}

fn unknown(key: &str, filters: &[&str], others: &[&str]) -> Problem {
    let known = || filters.iter().chain(others).copied();
    let key: String = key.chars().take(64).collect();
    match nearest(&key, known()) {
        Some(near) => Problem::bad(format!("{key:?} is not understood here; did you mean {near:?}?")),
        None => Problem::bad(format!("{key:?} is not understood here: {} are", known().collect::<Vec<_>>().join(", "))),
    }
}

/// Every key of a filter.
pub(super) const FILTERS: &[&str] = &KEYS;

/// A place in a list: opaque to the client, and good only for the same filter on the same view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) epoch: u64,
    pub(super) revision: u64,
    filter: u64,
}

impl Cursor {
    pub(super) fn new(epoch: u64, revision: u64, filter: &Filter) -> Self {
        Self { epoch, revision, filter: hash(filter) }
    }

    /// Reads a cursor of the list that `filter` gives on the view of `epoch`.
    pub(super) fn read(text: &str, epoch: u64, filter: &Filter) -> Result<Self, Problem> {
        let mut numbers = text.split('.').map(|part| u64::from_str_radix(part, 16).ok());
        let cursor = match [numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten()] {
            [Some(epoch), Some(revision), Some(filter)] if numbers.next().is_none() => Self { epoch, revision, filter },
            _ => return Err(mismatch(text)),
        };
        if cursor.epoch != epoch {
            return Err(Problem::expired("the list was made by an earlier view; list again from the start"));
        }
        if cursor.filter == hash(filter) { Ok(cursor) } else { Err(mismatch(text)) }
    }

    pub(super) fn text(self) -> String {
        format!("{:x}.{:x}.{:x}", self.epoch, self.revision, self.filter)
    }
}

fn mismatch(text: &str) -> Problem {
    Problem { kind: "/problems/cursor-mismatch".to_owned(), ..BadFilter::Cursor(text.to_owned()).into() }
}

fn hash(filter: &Filter) -> u64 {
    let mut hasher = DefaultHasher::new();
    filter.parts().collect::<Vec<_>>().hash(&mut hasher);
    hasher.finish()
}
