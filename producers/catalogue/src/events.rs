//! The events of the catalogue, as their schemas define them.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The events that the catalogue produces.
    pub enum Event in "../../schemas" {
        events of "catalogue" { AlbumListed = 1, AlbumPriceChanged = 1, CommandRefused = 1 }
    }
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// The amount in minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// An album entered the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlbumListed {
    /// The album's stock keeping unit.
    pub sku: String,
    /// The album's title.
    pub title: String,
    /// The album's artist.
    pub artist: String,
    /// The price of one copy, `None` if it is not sold (yet).
    pub price: Option<Money>,
    /// When it was decided.
    pub occurred_at: i64,
}

/// An album's price changed, or it went on or off sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlbumPriceChanged {
    /// The album's stock keeping unit.
    pub sku: String,
    /// The price until now.
    pub old_price: Option<Money>,
    /// The price from now on, `None` if it is no longer sold.
    pub new_price: Option<Money>,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// The sku it was for.
    pub entity_id: String,
    /// The record name of the command.
    pub command: String,
    /// Why, for a person.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}
