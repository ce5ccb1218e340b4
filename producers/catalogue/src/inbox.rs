//! What enters the catalogue's inbox: the commands of its edge.

use serde::{Deserialize, Serialize};

use crate::events::Money;

runtime::produces! {
    /// What the edge asks.
    pub enum Command in "../../schemas" {
        inbox of "catalogue" { ListAlbum = 1, ChangePrice = 1 }
    }
}

/// An album is to enter the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAlbum {
    /// The album's stock keeping unit.
    pub sku: String,
    /// The album's title.
    pub title: String,
    /// The album's artist.
    pub artist: String,
    /// The price of one copy, `None` if it is not sold (yet).
    pub price: Option<Money>,
}

/// An album's price is to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePrice {
    /// The album's stock keeping unit.
    pub sku: String,
    /// The price from now on, `None` if it is no longer sold.
    pub new_price: Option<Money>,
}
