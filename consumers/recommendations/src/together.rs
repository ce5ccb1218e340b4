//! The albums that were bought together: for every two albums, the number of orders with both. A fold that does not depend on
//! the order of topics and partitions.
//!
//! Memory grows with the pairs of albums that were ordered together, not with the orders.

use std::collections::{BTreeSet, HashMap};

use runtime::{
    codec::Vocabulary,
    projection::{LogRecord, Projection},
};
use serde::Serialize;

use crate::reads::{AlbumListed, Input, OrderPlaced};

/// Every album that was listed or ordered.
#[derive(Debug)]
pub struct BoughtTogether {
    vocabulary: Vocabulary<Input>,
    by_sku: HashMap<String, usize>,
    albums: Vec<Album>,
}

#[derive(Debug)]
struct Album {
    sku: String,
    name: Option<AlbumName>,
    orders: u64,
    /// The number of orders with both, by the index of the other album.
    with: HashMap<usize, u64>,
}

#[derive(Debug, Clone)]
struct AlbumName {
    title: String,
    artist: String,
}

/// An album and the number of its orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlbumPurchases {
    /// Its stock keeping unit.
    pub sku: String,
    /// Its title; `None` if it is not listed yet.
    pub title: Option<String>,
    /// Its artist; `None` if it is not listed yet.
    pub artist: Option<String>,
    /// The number of its orders; as part of a recommendation, the number of orders with both.
    pub orders: u64,
}

/// An album and the albums that were bought with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    /// The album.
    #[serde(flatten)]
    pub album: AlbumPurchases,
    /// The other albums, most often bought with it first; among equals in sku order.
    pub together: Vec<AlbumPurchases>,
}

impl BoughtTogether {
    /// The projection of a system, before any event.
    #[must_use]
    pub fn new(system: &str) -> Self {
        Self { vocabulary: Vocabulary::new(system), by_sku: HashMap::new(), albums: Vec::new() }
    }

    /// Folds one event.
    pub fn apply_event(&mut self, event: Input) {
        match event {
            Input::OrderPlaced(order) => self.ordered(&order),
            Input::AlbumListed(AlbumListed { sku, title, artist }) => {
                let at = self.index_of(&sku);
                self.albums[at].name = Some(AlbumName { title, artist });
            }
        }
    }

    /// At most `limit` albums that were bought with this one; `None` if it was neither listed nor ordered.
    #[must_use]
    pub fn with(&self, sku: &str, limit: usize) -> Option<Recommendation> {
        let album = &self.albums[*self.by_sku.get(sku)?];
        let mut together: Vec<AlbumPurchases> =
            album.with.iter().map(|(at, orders)| self.bought(*at, *orders)).collect();
        together.sort_unstable_by(|a, b| b.orders.cmp(&a.orders).then_with(|| a.sku.cmp(&b.sku)));
        together.truncate(limit);
        Some(Recommendation { album: self.bought(self.by_sku[sku], album.orders), together })
    }

    fn bought(&self, at: usize, orders: u64) -> AlbumPurchases {
        let Album { sku, name, .. } = &self.albums[at];
        let name = name.clone();
        let (title, artist) = name.map(|AlbumName { title, artist }| (title, artist)).unzip();
        AlbumPurchases { sku: sku.clone(), title, artist, orders }
    }

    fn ordered(&mut self, order: &OrderPlaced) {
        let skus: BTreeSet<&str> = order.lines.iter().map(|line| line.sku.as_str()).collect();
        let indexes: Vec<usize> = skus.into_iter().map(|sku| self.index_of(sku)).collect();
        for &at in &indexes {
            self.albums[at].orders += 1;
            for &other in indexes.iter().filter(|other| **other != at) {
                *self.albums[at].with.entry(other).or_default() += 1;
            }
        }
    }

    fn index_of(&mut self, sku: &str) -> usize {
        if let Some(at) = self.by_sku.get(sku) {
            return *at;
        }
        let at = self.albums.len();
        self.albums.push(Album { sku: sku.to_owned(), name: None, orders: 0, with: HashMap::new() });
        self.by_sku.insert(sku.to_owned(), at);
        at
    }
}

impl Projection for BoughtTogether {
    fn apply(&mut self, record: &LogRecord<'_>) {
        // The decoder has counted a body that cannot be read.
        if let Some(decoded) = record.decoded()
            && let Ok(Some(event)) = self.vocabulary.read(&decoded)
        {
            self.apply_event(event);
        }
    }

    fn reset(&mut self) -> bool {
        self.by_sku.clear();
        self.albums.clear();
        true
    }
}
