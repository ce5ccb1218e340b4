//! The decisions of the catalogue. Pure.
//!
//! | command | not listed | listed |
//! |---|---|---|
//! | ListAlbum | AlbumListed | – if the data is that of the listing, else refused |
//! | ChangePrice | refused | AlbumPriceChanged, – if that is the price already |

use runtime::{Decision, Received, TimestampMs};

use crate::{
    events::{AlbumListed, AlbumPriceChanged, CommandRefused, Event, Money},
    evolve::State,
    inbox::{ChangePrice, Command, ListAlbum},
    reads::Input,
};

/// The most characters of a sku.
pub const MAX_SKU_CHARS: usize = 64;
/// The most characters of a title or artist.
pub const MAX_TEXT_CHARS: usize = 300;
/// The highest price of one copy, in minor units.
pub const MAX_PRICE_MINOR: i64 = 10_000_000;

/// Decides the events of an input.
pub fn decide(state: &State, input: &Received<Input>) -> Decision<Event, Command> {
    let event = match &input.body {
        Input::ListAlbum(command) => list(state, command, input.at_ms),
        Input::ChangePrice(command) => change_price(state, command, input.at_ms),
    };
    Decision { events: event.into_iter().collect(), commands: Vec::new() }
}

fn list(state: &State, command: &ListAlbum, at: TimestampMs) -> Option<Event> {
    let ListAlbum { sku, title, artist, price } = command;
    let refuse = |reason: &str| Some(refused(sku, "ListAlbum", reason, at));
    if let Some(album) = &state.album {
        let same = album.title == *title && album.artist == *artist && album.first_price == *price;
        return if same { None } else { refuse("the sku is listed already, with other data") };
    }
    if let Some((field, what)) = fault(command) {
        return refuse(&format!("{field} {what}"));
    }
    Some(
        AlbumListed {
            sku: sku.clone(),
            title: title.clone(),
            artist: artist.clone(),
            price: price.clone(),
            occurred_at: at,
        }
        .into(),
    )
}

fn change_price(state: &State, command: &ChangePrice, at: TimestampMs) -> Option<Event> {
    let ChangePrice { sku, new_price } = command;
    let refuse = |reason: &str| Some(refused(sku, "ChangePrice", reason, at));
    let Some(album) = &state.album else { return refuse("the sku is not listed") };
    if album.price == *new_price {
        return None;
    }
    if let Some((field, what)) = new_price.as_ref().and_then(price_fault) {
        return refuse(&format!("{field} {what}"));
    }
    Some(
        AlbumPriceChanged {
            sku: sku.clone(),
            old_price: album.price.clone(),
            new_price: new_price.clone(),
            occurred_at: at,
        }
        .into(),
    )
}

/// The fault of a listing, if there is one: the field and the fault.
#[must_use]
pub fn fault(album: &ListAlbum) -> Option<(&'static str, String)> {
    sku_fault(&album.sku)
        .or_else(|| text_fault(&album.title).map(|what| ("title", what)))
        .or_else(|| text_fault(&album.artist).map(|what| ("artist", what)))
        .or_else(|| album.price.as_ref().and_then(price_fault))
}

/// The fault of a sku, if there is one. A sku becomes a record key and part of URLs, so only letters, digits, `-`, `_` and `.`
/// are allowed.
fn sku_fault(sku: &str) -> Option<(&'static str, String)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if sku.is_empty() {
        Some(("sku", "is empty".to_owned()))
    } else if sku.chars().count() > MAX_SKU_CHARS {
        Some(("sku", format!("has more than {MAX_SKU_CHARS} characters")))
    } else if !sku.chars().all(plain) {
        Some(("sku", "has a character other than A-Z, a-z, 0-9, -, _ and .".to_owned()))
    } else {
        None
    }
}

fn text_fault(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        Some("is empty".to_owned())
    } else if text.chars().count() > MAX_TEXT_CHARS {
        Some(format!("has more than {MAX_TEXT_CHARS} characters"))
    } else if text.chars().any(char::is_control) {
        Some("has a control character".to_owned())
    } else {
        None
    }
}

/// The fault of a price, if there is one: the field and the fault.
#[must_use]
pub fn price_fault(price: &Money) -> Option<(&'static str, String)> {
    if !(1..=MAX_PRICE_MINOR).contains(&price.amount_minor) {
        return Some(("price.amount_minor", format!("is not from 1 to {MAX_PRICE_MINOR}")));
    }
    let code = price.currency.as_bytes();
    if code.len() != 3 || !code.iter().all(u8::is_ascii_uppercase) {
        return Some(("price.currency", "is not a code of three capital letters".to_owned()));
    }
    None
}

fn refused(sku: &str, command: &str, reason: &str, at: TimestampMs) -> Event {
    CommandRefused {
        entity_id: sku.to_owned(),
        command: command.to_owned(),
        reason: reason.to_owned(),
        occurred_at: at,
    }
    .into()
}
