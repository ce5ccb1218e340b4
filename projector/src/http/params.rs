//! Parses query strings: a filter, and the few numbers each resource accepts.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    http::problem::ApiProblem,
    nearest::nearest,
    query::{FilterError, KEYS, LIMIT_DEFAULT, LIMIT_MAX, SagaFilter},
};

/// The pairs of a query string.
pub(super) type QueryPairs = Vec<(String, String)>;

/// The longest value that is accepted.
const VALUE_MAX: usize = 512;

/// A query string, split into its filter and the other keys that a resource accepts.
#[derive(Debug, Default)]
pub(super) struct QueryParams {
    pub(super) filter: SagaFilter,
    others: Vec<(String, String)>,
}

impl QueryParams {
    /// Splits the pairs. `filters` are the filter keys that this resource accepts, `others` its own keys.
    pub(super) fn sort(pairs: QueryPairs, filters: &[&str], others: &[&str]) -> Result<Self, ApiProblem> {
        let mut params = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in pairs {
            if value.len() > VALUE_MAX {
                return Err(ApiProblem::bad(format!("the value of {key:?} is longer than {VALUE_MAX} bytes")));
            }
            if seen.contains(&key) {
                return Err(ApiProblem::bad(format!("{key:?} is given twice; alternatives are separated by commas")));
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

    /// The requested number of items.
    pub(super) fn limit(&self) -> Result<usize, ApiProblem> {
        match self.get("limit") {
            None => Ok(LIMIT_DEFAULT),
            Some(text) => match text.parse() {
                Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
                _ => Err(FilterError::Limit(text.to_owned()).into()),
            },
        }
    }

    /// A number up to `max`, or `default`.
    pub(super) fn number(&self, key: &str, default: u64, max: u64) -> Result<u64, ApiProblem> {
        match self.get(key) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if number <= max => Ok(number),
                _ => Err(ApiProblem::bad(format!("{key} {text:?} is not a number from 0 to {max}"))),
            },
        }
    }
}

fn unknown(key: &str, filters: &[&str], others: &[&str]) -> ApiProblem {
    let known = || filters.iter().chain(others).copied();
    let key: String = key.chars().take(64).collect();
    match nearest(&key, known()) {
        Some(near) => ApiProblem::bad(format!("{key:?} is not a known parameter; did you mean {near:?}?")),
        None => ApiProblem::bad(format!(
            "{key:?} is not a known parameter; known are {}",
            known().collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Every key of a filter.
pub(super) const FILTERS: &[&str] = &KEYS;

/// A position in a list. It is opaque to the client, and valid only for the same filter on the same view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListCursor {
    pub(super) epoch: u64,
    pub(super) revision: u64,
    filter: u64,
}

impl ListCursor {
    pub(super) fn new(epoch: u64, revision: u64, filter: &SagaFilter) -> Self {
        Self { epoch, revision, filter: hash(filter) }
    }

    /// Parses a cursor of the list that `filter` gives on the view of `epoch`.
    pub(super) fn read(text: &str, epoch: u64, filter: &SagaFilter) -> Result<Self, ApiProblem> {
        let mut numbers = text.split('.').map(|part| u64::from_str_radix(part, 16).ok());
        let cursor = match [numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten()] {
            [Some(epoch), Some(revision), Some(filter)] if numbers.next().is_none() => Self { epoch, revision, filter },
            _ => return Err(mismatch(text)),
        };
        if cursor.epoch != epoch {
            return Err(ApiProblem::expired("the list was made from an earlier view; list again from the start"));
        }
        if cursor.filter == hash(filter) { Ok(cursor) } else { Err(mismatch(text)) }
    }

    pub(super) fn text(self) -> String {
        format!("{:x}.{:x}.{:x}", self.epoch, self.revision, self.filter)
    }
}

fn mismatch(text: &str) -> ApiProblem {
    ApiProblem { kind: "/problems/cursor-mismatch".to_owned(), ..FilterError::Cursor(text.to_owned()).into() }
}

fn hash(filter: &SagaFilter) -> u64 {
    let mut hasher = DefaultHasher::new();
    filter.parts().collect::<Vec<_>>().hash(&mut hasher);
    hasher.finish()
}
