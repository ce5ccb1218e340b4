//! The state of an album: the fold of its own events.

use serde::{Deserialize, Serialize};

use crate::events::{Event, Money};

/// The state of one sku.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The album, once it is listed.
    pub album: Option<Album>,
}

/// A listed album.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Album {
    /// Its title.
    pub title: String,
    /// Its artist.
    pub artist: String,
    /// The price of its listing. It distinguishes a repeated listing from a different one.
    pub first_price: Option<Money>,
    /// The current price; `None` if it is not sold.
    pub price: Option<Money>,
}

/// Applies one event. Total: an event is never rejected.
pub fn evolve(state: State, event: &Event) -> State {
    match event {
        Event::AlbumListed(listed) => State {
            album: Some(Album {
                title: listed.title.clone(),
                artist: listed.artist.clone(),
                first_price: listed.price.clone(),
                price: listed.price.clone(),
            }),
        },
        Event::AlbumPriceChanged(changed) => {
            State { album: state.album.map(|album| Album { price: changed.new_price.clone(), ..album }) }
        }
        Event::CommandRefused(_) => state,
    }
}
