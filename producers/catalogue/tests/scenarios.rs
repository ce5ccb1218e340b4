//! The decisions of the catalogue. Every input is handled twice.

use catalogue::{
    Catalogue,
    decide::{MAX_PRICE_MINOR, MAX_SKU_CHARS, MAX_TEXT_CHARS, fault, price_fault},
    events::{AlbumListed, AlbumPriceChanged, CommandRefused, Money},
    inbox::{ChangePrice, ListAlbum},
    reads::Input,
};
use runtime::{
    Decider, Received,
    testing::{NOW_MS, Scenario, received},
};

const SKU: &str = "LP-00417";

fn eur(amount_minor: i64) -> Money {
    Money { amount_minor, currency: "EUR".to_owned() }
}

fn album(price: Option<Money>) -> ListAlbum {
    let (title, artist) = ("Kind of Blue".to_owned(), "Miles Davis".to_owned());
    ListAlbum { sku: SKU.to_owned(), title, artist, price }
}

fn list(price: Option<Money>) -> Received<Input> {
    received(SKU, album(price))
}

fn change_to(new_price: Option<Money>) -> Received<Input> {
    received(SKU, ChangePrice { sku: SKU.to_owned(), new_price })
}

fn album_listed(price: Option<Money>) -> AlbumListed {
    let ListAlbum { sku, title, artist, price } = album(price);
    AlbumListed { sku, title, artist, price, occurred_at: NOW_MS }
}

fn price_changed(old_price: Option<Money>, new_price: Option<Money>) -> AlbumPriceChanged {
    AlbumPriceChanged { sku: SKU.to_owned(), old_price, new_price, occurred_at: NOW_MS }
}

fn refused(command: &str, reason: &str) -> CommandRefused {
    CommandRefused {
        entity_id: SKU.to_owned(),
        command: command.to_owned(),
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

fn unlisted() -> Scenario<Catalogue> {
    Scenario::of(Catalogue)
}

fn listed() -> Scenario<Catalogue> {
    unlisted().given([album_listed(Some(eur(2299)))])
}

#[test]
fn a_new_album_is_listed_with_or_without_a_price() {
    unlisted().when(&list(Some(eur(2299)))).then([album_listed(Some(eur(2299)))]);
    unlisted().when(&list(None)).then([album_listed(None)]);
}

#[test]
fn a_repeated_listing_causes_no_event_even_after_a_price_change() {
    listed().when(&list(Some(eur(2299)))).then_nothing();
    let changed = listed().given([price_changed(Some(eur(2299)), Some(eur(2499)))]);
    changed.when(&list(Some(eur(2299)))).then_nothing();
}

#[test]
fn a_listing_with_other_data_is_refused() {
    let refusal = refused("ListAlbum", "the sku is listed already, with other data");
    listed().when(&list(Some(eur(1)))).then([refusal]);
}

#[test]
fn an_invalid_listing_is_refused() {
    let reason = format!("price.amount_minor is not from 1 to {MAX_PRICE_MINOR}");
    unlisted().when(&list(Some(eur(0)))).then([refused("ListAlbum", &reason)]);
}

#[test]
fn a_price_is_changed() {
    listed().when(&change_to(Some(eur(2499)))).then([price_changed(Some(eur(2299)), Some(eur(2499)))]);
}

#[test]
fn a_price_is_removed_and_set_again() {
    listed()
        .when(&change_to(None))
        .then([price_changed(Some(eur(2299)), None)])
        .and()
        .when(&change_to(Some(eur(2299))))
        .then([price_changed(None, Some(eur(2299)))]);
}

#[test]
fn the_current_price_causes_no_event() {
    listed().when(&change_to(Some(eur(2299)))).then_nothing();
}

#[test]
fn the_price_of_an_unlisted_album_is_refused() {
    unlisted().when(&change_to(Some(eur(1)))).then([refused("ChangePrice", "the sku is not listed")]);
}

#[test]
fn an_invalid_price_is_refused() {
    let reason = format!("price.amount_minor is not from 1 to {MAX_PRICE_MINOR}");
    listed().when(&change_to(Some(eur(-1)))).then([refused("ChangePrice", &reason)]);
}

#[test]
fn an_input_belongs_to_the_sku_that_its_body_names() {
    for input in [list(None), change_to(None)] {
        let misrouted = Received { key: "another-sku".to_owned(), ..input };
        assert_eq!(Catalogue.entity(&misrouted), SKU);
    }
}

#[test]
fn a_listing_is_checked_field_by_field() {
    let valid = album(Some(eur(MAX_PRICE_MINOR)));
    assert_eq!(fault(&valid), None);
    let other = |change: &dyn Fn(&mut ListAlbum)| {
        let mut album = valid.clone();
        change(&mut album);
        fault(&album).map(|(field, _)| field)
    };
    assert_eq!(other(&|a| a.sku.clear()), Some("sku"));
    assert_eq!(other(&|a| a.sku = "x".repeat(MAX_SKU_CHARS + 1)), Some("sku"));
    assert_eq!(other(&|a| a.sku = "../etc".to_owned()), Some("sku"));
    assert_eq!(other(&|a| a.title = " ".to_owned()), Some("title"));
    assert_eq!(other(&|a| a.title = "x".repeat(MAX_TEXT_CHARS + 1)), Some("title"));
    assert_eq!(other(&|a| a.artist = "a\u{0}b".to_owned()), Some("artist"));
    assert_eq!(other(&|a| a.price = Some(eur(MAX_PRICE_MINOR + 1))), Some("price.amount_minor"));
    for currency in ["", "eur", "EURO", "E1R"] {
        let price = Money { amount_minor: 1, currency: currency.to_owned() };
        assert_eq!(price_fault(&price).map(|(field, _)| field), Some("price.currency"), "{currency:?}");
    }
}
