//! What was bought together: of every two albums, in how many orders both were. A fold, in any order of topics and partitions.
//!
//! Memory grows with the pairs that were ever ordered together, not with the orders.

use std::collections::{BTreeSet, HashMap};

use runtime::{
    codec::Vocabulary,
    projection::{LogRecord, Projection},
};
use serde::Serialize;

use crate::reads::{AlbumListed, Input, OrderPlaced};

/// Every album that was listed or ordered.
#[derive(Debug)]
pub struct Together {
    vocabulary: Vocabulary<Input>,
    by_sku: HashMap<String, usize>,
    albums: Vec<Album>,
}

#[derive(Debug)]
struct Album {
    sku: String,
    named: Option<Named>,
    orders: u64,
    /// Orders that had both, by the other's place in the list.
    with: HashMap<usize, u64>,
}

#[derive(Debug, Clone)]
struct Named {
    title: String,
    artist: String,
}

/// An album, and how often it was bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bought {
    /// Its stock keeping unit.
    pub sku: String,
    /// Its title; `None` if nobody listed it yet.
    pub title: Option<String>,
    /// Its artist; `None` if nobody listed it yet.
    pub artist: Option<String>,
    /// In how many orders it was; beside another album: in how many orders both were.
    pub orders: u64,
}

/// An album and those that were bought with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recommended {
    /// The album.
    #[serde(flatten)]
    pub album: Bought,
    /// The others, most often bought with it first; among equals in sku order.
    pub together: Vec<Bought>,
}

impl Together {
    /// Of a system, before anything was heard.
    #[must_use]
    pub fn new(system: &str) -> Self {
        Self { vocabulary: Vocabulary::new(system), by_sku: HashMap::new(), albums: Vec::new() }
    }

    /// Folds one event in.
    pub fn hear(&mut self, event: Input) {
        match event {
            Input::OrderPlaced(order) => self.ordered(&order),
            Input::AlbumListed(AlbumListed { sku, title, artist }) => {
                let at = self.place_of(&sku);
                self.albums[at].named = Some(Named { title, artist });
            }
        }
    }

    /// At most `limit` albums that were bought with this one; `None` if it was neither listed nor ordered.
    #[must_use]
    pub fn with(&self, sku: &str, limit: usize) -> Option<Recommended> {
        let album = &self.albums[*self.by_sku.get(sku)?];
        let mut together: Vec<Bought> = album.with.iter().map(|(at, orders)| self.bought(*at, *orders)).collect();
        together.sort_unstable_by(|a, b| b.orders.cmp(&a.orders).then_with(|| a.sku.cmp(&b.sku)));
        together.truncate(limit);
        Some(Recommended { album: self.bought(self.by_sku[sku], album.orders), together })
    }

    fn bought(&self, at: usize, orders: u64) -> Bought {
        let Album { sku, named, .. } = &self.albums[at];
        let named = named.clone();
        let (title, artist) = named.map(|Named { title, artist }| (title, artist)).unzip();
        Bought { sku: sku.clone(), title, artist, orders }
    }

    fn ordered(&mut self, order: &OrderPlaced) {
        let skus: BTreeSet<&str> = order.lines.iter().map(|line| line.sku.as_str()).collect();
        let places: Vec<usize> = skus.into_iter().map(|sku| self.place_of(sku)).collect();
        for &at in &places {
            self.albums[at].orders += 1;
            for &other in places.iter().filter(|other| **other != at) {
                *self.albums[at].with.entry(other).or_default() += 1;
            }
        }
    }

    fn place_of(&mut self, sku: &str) -> usize {
        if let Some(at) = self.by_sku.get(sku) {
            return *at;
        }
        let at = self.albums.len();
        self.albums.push(Album { sku: sku.to_owned(), named: None, orders: 0, with: HashMap::new() });
        self.by_sku.insert(sku.to_owned(), at);
        at
    }
}

impl Projection for Together {
    fn apply(&mut self, record: &LogRecord<'_>) {
        // A body that cannot be read was counted where it was decoded.
        if let Some(decoded) = record.decoded()
            && let Ok(Some(event)) = self.vocabulary.read(&decoded)
        {
            self.hear(event);
        }
    }
}
