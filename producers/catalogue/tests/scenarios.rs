//! What the catalogue says when. Every input is handled twice.

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
fn a_repeated_listing_was_answered_before_even_after_the_price_changed() {
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
fn a_faulty_listing_is_refused() {
    let reason = format!("price.amount_minor is not from 1 to {MAX_PRICE_MINOR}");
    unlisted().when(&list(Some(eur(0)))).then([refused("ListAlbum", &reason)]);
}

#[test]
fn a_price_is_changed() {
    listed().when(&change_to(Some(eur(2499)))).then([price_changed(Some(eur(2299)), Some(eur(2499)))]);
}

#[test]
fn a_price_goes_and_comes_back() {
    listed()
        .when(&change_to(None))
        .then([price_changed(Some(eur(2299)), None)])
        .and()
        .when(&change_to(Some(eur(2299))))
        .then([price_changed(None, Some(eur(2299)))]);
}

#[test]
fn the_price_that_is_already_there_changes_nothing() {
    listed().when(&change_to(Some(eur(2299)))).then_nothing();
}

#[test]
fn the_price_of_an_unlisted_album_is_refused() {
    unlisted().when(&change_to(Some(eur(1)))).then([refused("ChangePrice", "nobody lists this sku")]);
}

#[test]
fn a_faulty_price_is_refused() {
    let reason = format!("price.amount_minor is not from 1 to {MAX_PRICE_MINOR}");
    listed().when(&change_to(Some(eur(-1)))).then([refused("ChangePrice", &reason)]);
}

#[test]
fn an_input_belongs_to_the_sku_that_its_body_names() {
    for input in [list(None), change_to(None)] {
        let astray = Received { key: "another-sku".to_owned(), ..input };
        assert_eq!(Catalogue.entity(&astray), SKU);
    }
}

#[test]
fn a_listing_is_checked_field_by_field() {
    let good = album(Some(eur(MAX_PRICE_MINOR)));
    assert_eq!(fault(&good), None);
    let other = |change: &dyn Fn(&mut ListAlbum)| {
        let mut album = good.clone();
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
