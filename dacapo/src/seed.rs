//! What MusicCorp starts with: albums on the shelves, and customers.
//!
//! The sku says what becomes of an order for it: `lp-` is in stock, `rare-` is listed and never in stock, `ghost-` stands in the
//! books and is not on the shelf when it is picked, `gone-` is listed without a price.

use serde_json::{Value, json};

/// How many customers are registered.
pub const CUSTOMERS: u64 = 200;

/// Pieces of each stocked album that are received.
pub const PIECES: i32 = 10_000_000;

/// Where an album lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// In stock.
    Stocked,
    /// Listed, never in stock.
    Empty,
    /// In the books, not on the shelf.
    Ghost,
    /// Listed without a price.
    NotSold,
}

/// An album of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Album {
    /// Its stock keeping unit.
    pub sku: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Who wrote it.
    pub artist: &'static str,
    /// Its price in euro cents.
    pub price_minor: i64,
    /// Where it lies.
    pub shelf: Shelf,
}

const fn album(shelf: Shelf, sku: &'static str, title: &'static str, artist: &'static str, price_minor: i64) -> Album {
    Album { sku, title, artist, price_minor, shelf }
}

/// The catalogue.
pub const ALBUMS: [Album; 32] = [
    album(Shelf::Stocked, "lp-goldberg", "Goldberg Variations", "Johann Sebastian Bach", 1_890),
    album(Shelf::Stocked, "lp-cello-suites", "Six Cello Suites", "Johann Sebastian Bach", 2_490),
    album(Shelf::Stocked, "lp-brandenburg", "Brandenburg Concertos", "Johann Sebastian Bach", 2_990),
    album(Shelf::Stocked, "lp-four-seasons", "The Four Seasons", "Antonio Vivaldi", 1_290),
    album(Shelf::Stocked, "lp-water-music", "Water Music", "George Frideric Handel", 1_490),
    album(Shelf::Stocked, "lp-messiah", "Messiah", "George Frideric Handel", 3_490),
    album(Shelf::Stocked, "lp-creation", "The Creation", "Joseph Haydn", 2_790),
    album(Shelf::Stocked, "lp-magic-flute", "The Magic Flute", "Wolfgang Amadeus Mozart", 3_290),
    album(Shelf::Stocked, "lp-jupiter", "Symphony No. 41", "Wolfgang Amadeus Mozart", 1_690),
    album(Shelf::Stocked, "lp-requiem", "Requiem", "Wolfgang Amadeus Mozart", 1_990),
    album(Shelf::Stocked, "lp-eroica", "Symphony No. 3", "Ludwig van Beethoven", 1_790),
    album(Shelf::Stocked, "lp-choral", "Symphony No. 9", "Ludwig van Beethoven", 2_190),
    album(Shelf::Stocked, "lp-hammerklavier", "Piano Sonata No. 29", "Ludwig van Beethoven", 1_590),
    album(Shelf::Stocked, "lp-winterreise", "Winterreise", "Franz Schubert", 1_890),
    album(Shelf::Stocked, "lp-trout", "Trout Quintet", "Franz Schubert", 1_390),
    album(Shelf::Stocked, "lp-fantastique", "Symphonie fantastique", "Hector Berlioz", 1_790),
    album(Shelf::Stocked, "lp-nocturnes", "Nocturnes", "Frédéric Chopin", 2_090),
    album(Shelf::Stocked, "lp-dichterliebe", "Dichterliebe", "Robert Schumann", 1_490),
    album(Shelf::Stocked, "lp-trio-clara", "Piano Trio in G minor", "Clara Schumann", 1_690),
    album(Shelf::Stocked, "lp-german-requiem", "A German Requiem", "Johannes Brahms", 2_290),
    album(Shelf::Stocked, "lp-carmen", "Carmen", "Georges Bizet", 2_890),
    album(Shelf::Stocked, "lp-pictures", "Pictures at an Exhibition", "Modest Mussorgsky", 1_590),
    album(Shelf::Stocked, "lp-new-world", "Symphony No. 9", "Antonín Dvořák", 1_790),
    album(Shelf::Stocked, "lp-la-mer", "La mer", "Claude Debussy", 1_890),
    album(Shelf::Stocked, "lp-gymnopedies", "Gymnopédies", "Erik Satie", 1_190),
    album(Shelf::Stocked, "lp-rite", "The Rite of Spring", "Igor Stravinsky", 1_990),
    album(Shelf::Empty, "rare-st-mark", "St Mark Passion", "Johann Sebastian Bach", 9_900),
    album(Shelf::Empty, "rare-thamos", "Thamos, King of Egypt", "Wolfgang Amadeus Mozart", 7_900),
    album(Shelf::Ghost, "ghost-gastein", "Gastein Symphony", "Franz Schubert", 4_900),
    album(Shelf::Ghost, "ghost-eighth", "Symphony No. 8", "Jean Sibelius", 5_900),
    album(Shelf::NotSold, "gone-tenth", "Symphony No. 10", "Ludwig van Beethoven", 0),
    album(Shelf::NotSold, "gone-arianna", "L'Arianna", "Claudio Monteverdi", 0),
];

/// One of the skus of a shelf.
#[must_use]
pub fn draw_sku(shelf: Shelf, draw: u64) -> &'static str {
    let on_shelf = || ALBUMS.iter().filter(move |album| album.shelf == shelf);
    let at = draw % (on_shelf().count().max(1) as u64);
    on_shelf().nth(usize::try_from(at).unwrap_or_default()).map_or("", |album| album.sku)
}

const NAMES: [&str; 10] = ["Ada", "Ben", "Cleo", "Dario", "Edda", "Femi", "Greta", "Hiro", "Ines", "Jonas"];
const SURNAMES: [&str; 5] = ["Okafor", "Lindqvist", "Moreau", "Tanaka", "Weber"];
const STREETS: [&str; 4] = ["Harbour Lane", "Mill Road", "Castle Street", "Orchard Way"];
const CITIES: [(&str, &str, &str); 4] =
    [("Bristol", "BS1 4ST", "GB"), ("Leipzig", "04109", "DE"), ("Lyon", "69002", "FR"), ("Utrecht", "3511 LX", "NL")];

/// The id of the customer with this index.
#[must_use]
pub fn customer_id(index: u64) -> String {
    format!("customer-{:04}", index % CUSTOMERS + 1)
}

/// How that customer is reached.
#[must_use]
pub fn contact(index: u64) -> Value {
    let (name, surname) = (pick(&NAMES, index), pick(&SURNAMES, index / 10));
    let number = index % CUSTOMERS + 1;
    json!({
        "name": format!("{name} {surname}"),
        "email": format!("{}.{}.{number}@example.org", name.to_lowercase(), surname.to_lowercase()),
    })
}

/// Where that customer lives.
#[must_use]
pub fn address(index: u64) -> Value {
    let (city, postcode, country) = *pick(&CITIES, index / 4);
    let street = format!("{} {}", pick(&STREETS, index), index % 90 + 1);
    json!({ "street": street, "city": city, "postcode": postcode, "country": country })
}

fn pick<T>(of: &[T], index: u64) -> &T {
    &of[usize::try_from(index % of.len() as u64).unwrap_or_default()]
}
