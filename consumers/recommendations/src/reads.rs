//! The events that recommendations consumes: its own reader types, each with only the fields it uses.

use serde::Deserialize;

runtime::consumes! {
    /// The inputs of the projection.
    pub enum Input {
        events of "order-processor" { OrderPlaced }
        events of "catalogue" { AlbumListed }
    }
}

/// An order was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderPlaced {
    /// What was ordered.
    pub lines: Vec<OrderLine>,
}

/// One album of an order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderLine {
    /// Its stock keeping unit.
    pub sku: String,
}

/// An album entered the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AlbumListed {
    /// Its stock keeping unit.
    pub sku: String,
    /// Its title.
    pub title: String,
    /// Its artist.
    pub artist: String,
}
