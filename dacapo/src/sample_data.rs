//! The sample data of MusicCorp: albums and customers.
//!
//! The prefix of a sku decides the outcome of an order for it: `lp-` is in stock, `rare-` is listed and never in stock, `ghost-` is
//! in stock according to the warehouse but missing from the shelf, `gone-` is listed without a price.

use serde_json::{Value, json};

/// How many customers are registered.
pub const CUSTOMERS: u64 = 200;

/// How many pieces of each album in stock are received.
pub const PIECES: i32 = 10_000_000;

/// Whether an album can be bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// In stock.
    InStock,
    /// Listed, never in stock.
    OutOfStock,
    /// In stock according to the warehouse, missing from the shelf.
    MissingFromShelf,
    /// Listed without a price.
    NotForSale,
}

/// An album of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Album {
    /// Its stock keeping unit.
    pub sku: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Its composer.
    pub artist: &'static str,
    /// Its price in euro cents.
    pub price_minor: i64,
    /// Whether it can be bought.
    pub availability: Availability,
}

const fn album(
    availability: Availability,
    sku: &'static str,
    title: &'static str,
    artist: &'static str,
    price_minor: i64,
) -> Album {
    Album { sku, title, artist, price_minor, availability }
}

/// The catalogue.
pub const ALBUMS: [Album; 32] = [
    album(Availability::InStock, "lp-goldberg", "Goldberg Variations", "Johann Sebastian Bach", 1_890),
    album(Availability::InStock, "lp-cello-suites", "Six Cello Suites", "Johann Sebastian Bach", 2_490),
    album(Availability::InStock, "lp-brandenburg", "Brandenburg Concertos", "Johann Sebastian Bach", 2_990),
    album(Availability::InStock, "lp-four-seasons", "The Four Seasons", "Antonio Vivaldi", 1_290),
    album(Availability::InStock, "lp-water-music", "Water Music", "George Frideric Handel", 1_490),
    album(Availability::InStock, "lp-messiah", "Messiah", "George Frideric Handel", 3_490),
    album(Availability::InStock, "lp-creation", "The Creation", "Joseph Haydn", 2_790),
    album(Availability::InStock, "lp-magic-flute", "The Magic Flute", "Wolfgang Amadeus Mozart", 3_290),
    album(Availability::InStock, "lp-jupiter", "Symphony No. 41", "Wolfgang Amadeus Mozart", 1_690),
    album(Availability::InStock, "lp-requiem", "Requiem", "Wolfgang Amadeus Mozart", 1_990),
    album(Availability::InStock, "lp-eroica", "Symphony No. 3", "Ludwig van Beethoven", 1_790),
    album(Availability::InStock, "lp-choral", "Symphony No. 9", "Ludwig van Beethoven", 2_190),
    album(Availability::InStock, "lp-hammerklavier", "Piano Sonata No. 29", "Ludwig van Beethoven", 1_590),
    album(Availability::InStock, "lp-winterreise", "Winterreise", "Franz Schubert", 1_890),
    album(Availability::InStock, "lp-trout", "Trout Quintet", "Franz Schubert", 1_390),
    album(Availability::InStock, "lp-fantastique", "Symphonie fantastique", "Hector Berlioz", 1_790),
    album(Availability::InStock, "lp-nocturnes", "Nocturnes", "Frédéric Chopin", 2_090),
    album(Availability::InStock, "lp-dichterliebe", "Dichterliebe", "Robert Schumann", 1_490),
    album(Availability::InStock, "lp-trio-clara", "Piano Trio in G minor", "Clara Schumann", 1_690),
    album(Availability::InStock, "lp-german-requiem", "A German Requiem", "Johannes Brahms", 2_290),
    album(Availability::InStock, "lp-carmen", "Carmen", "Georges Bizet", 2_890),
    album(Availability::InStock, "lp-pictures", "Pictures at an Exhibition", "Modest Mussorgsky", 1_590),
    album(Availability::InStock, "lp-new-world", "Symphony No. 9", "Antonín Dvořák", 1_790),
    album(Availability::InStock, "lp-la-mer", "La mer", "Claude Debussy", 1_890),
    album(Availability::InStock, "lp-gymnopedies", "Gymnopédies", "Erik Satie", 1_190),
    album(Availability::InStock, "lp-rite", "The Rite of Spring", "Igor Stravinsky", 1_990),
    album(Availability::OutOfStock, "rare-st-mark", "St Mark Passion", "Johann Sebastian Bach", 9_900),
    album(Availability::OutOfStock, "rare-thamos", "Thamos, King of Egypt", "Wolfgang Amadeus Mozart", 7_900),
    album(Availability::MissingFromShelf, "ghost-gastein", "Gastein Symphony", "Franz Schubert", 4_900),
    album(Availability::MissingFromShelf, "ghost-eighth", "Symphony No. 8", "Jean Sibelius", 5_900),
    album(Availability::NotForSale, "gone-tenth", "Symphony No. 10", "Ludwig van Beethoven", 0),
    album(Availability::NotForSale, "gone-arianna", "L'Arianna", "Claudio Monteverdi", 0),
];

/// One of the skus with this availability; `random` picks which.
#[must_use]
pub fn pick_sku(availability: Availability, random: u64) -> &'static str {
    let albums = || ALBUMS.iter().filter(move |album| album.availability == availability);
    let at = random % (albums().count().max(1) as u64);
    albums().nth(usize::try_from(at).unwrap_or_default()).map_or("", |album| album.sku)
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

/// The contact of that customer.
#[must_use]
pub fn contact(index: u64) -> Value {
    let (name, surname) = (pick(&NAMES, index), pick(&SURNAMES, index / 10));
    let number = index % CUSTOMERS + 1;
    json!({
        "name": format!("{name} {surname}"),
        "email": format!("{}.{}.{number}@example.org", name.to_lowercase(), surname.to_lowercase()),
    })
}

/// The address of that customer.
#[must_use]
pub fn address(index: u64) -> Value {
    let (city, postcode, country) = *pick(&CITIES, index / 4);
    let street = format!("{} {}", pick(&STREETS, index), index % 90 + 1);
    json!({ "street": street, "city": city, "postcode": postcode, "country": country })
}

fn pick<T>(of: &[T], index: u64) -> &T {
    &of[usize::try_from(index % of.len() as u64).unwrap_or_default()]
}
