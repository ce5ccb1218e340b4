//! The inbox of the catalogue: the commands of its HTTP API.

use serde::{Deserialize, Serialize};

use crate::events::Money;

runtime::produces! {
    /// The commands of the HTTP API.
    pub enum Command in "../../schemas" {
        inbox of "catalogue" { ListAlbum = 1, ChangePrice = 1 }
    }
}

/// List an album.
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

/// Change the price of an album.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePrice {
    /// The album's stock keeping unit.
    pub sku: String,
    /// The price from now on, `None` if it is no longer sold.
    pub new_price: Option<Money>,
}
