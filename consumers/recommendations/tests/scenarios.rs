//! The albums that were bought together, for every sequence of orders and listings in every order.

use proptest::prelude::*;
use recommendations::{
    reads::{AlbumListed, Input, OrderLine, OrderPlaced},
    together::{AlbumPurchases, BoughtTogether, Recommendation},
};

fn order(skus: &[&str]) -> Input {
    OrderPlaced { lines: skus.iter().map(|sku| OrderLine { sku: (*sku).to_owned() }).collect() }.into()
}

fn listed(sku: &str) -> Input {
    AlbumListed { sku: sku.to_owned(), title: format!("Title of {sku}"), artist: "Joni Mitchell".to_owned() }.into()
}

fn folded(events: impl IntoIterator<Item = Input>) -> BoughtTogether {
    let mut together = BoughtTogether::new("musiccorp");
    events.into_iter().for_each(|event| together.apply_event(event));
    together
}

/// The other albums with the number of orders, most often first.
fn with(together: &BoughtTogether, sku: &str) -> Vec<(String, u64)> {
    let others = together.with(sku, 10).expect("the album is known").together;
    others.into_iter().map(|other| (other.sku, other.orders)).collect()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(sku, orders)| ((*sku).to_owned(), *orders)).collect()
}

#[test]
fn albums_of_one_order_were_bought_together() {
    let together = folded([order(&["a", "b"]), order(&["a", "b", "c"]), order(&["a"]), order(&["d"])]);
    assert_eq!(with(&together, "a"), pairs(&[("b", 2), ("c", 1)]));
    assert_eq!(with(&together, "b"), pairs(&[("a", 2), ("c", 1)]));
    assert_eq!(with(&together, "c"), pairs(&[("a", 1), ("b", 1)]));
    assert_eq!(with(&together, "d"), pairs(&[]));
    assert_eq!(together.with("a", 10).map(|found| found.album.orders), Some(3));
}

#[test]
fn an_album_is_shown_by_its_title_once_it_is_listed() {
    let named = |sku: &str, orders| AlbumPurchases {
        sku: sku.to_owned(),
        title: Some(format!("Title of {sku}")),
        artist: Some("Joni Mitchell".to_owned()),
        orders,
    };
    let unnamed = |sku: &str, orders| AlbumPurchases { sku: sku.to_owned(), title: None, artist: None, orders };
    let expected = Recommendation { album: named("a", 1), together: vec![unnamed("b", 1)] };
    assert_eq!(folded([listed("a"), order(&["a", "b"])]).with("a", 10), Some(expected.clone()));
    assert_eq!(folded([order(&["a", "b"]), listed("a")]).with("a", 10), Some(expected));
    let expected = Recommendation { album: named("a", 0), together: vec![] };
    assert_eq!(folded([listed("a")]).with("a", 10), Some(expected));
}

#[test]
fn an_unknown_album_has_no_recommendation() {
    assert_eq!(folded([order(&["a"])]).with("z", 10), None);
}

#[test]
fn a_recommendation_is_limited() {
    let together = folded([order(&["a", "b", "c", "d"]), order(&["a", "d"])]);
    let found = together.with("a", 2).expect("the album is known").together;
    assert_eq!(found.into_iter().map(|other| other.sku).collect::<Vec<_>>(), ["d", "b"]);
}

proptest! {
    #[test]
    fn the_order_of_events_does_not_matter(
        orders in prop::collection::vec(prop::collection::vec(0..5_usize, 0..4), 0..12),
        shuffle_seed in any::<u64>(),
    ) {
        let skus = ["a", "b", "c", "d", "e"];
        let mut events: Vec<Input> = skus.iter().map(|sku| listed(sku)).collect();
        events.extend(orders.iter().map(|of| order(&of.iter().map(|at| skus[*at]).collect::<Vec<_>>())));
        let straight = folded(events.clone());
        let mut draw = shuffle_seed;
        for at in (1..events.len()).rev() {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            events.swap(at, usize::try_from(draw >> 33).unwrap_or(0) % (at + 1));
        }
        let shuffled = folded(events);
        for sku in skus {
            prop_assert_eq!(straight.with(sku, 100), shuffled.with(sku, 100));
            for (other, orders) in with(&straight, sku) {
                let back = with(&straight, &other).into_iter().find(|(name, _)| name == sku);
                prop_assert_eq!(back.map(|(_, count)| count), Some(orders), "{} with {} is mutual", sku, other);
            }
        }
    }
}
