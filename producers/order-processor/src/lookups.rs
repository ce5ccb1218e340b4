//! The look-ups of the edge: customers and albums with their prices, folded from the events of their owners.
//!
//! They serve the edge only. The result of a look-up, or that there is none, is part of the command; no decision reads a
//! look-up.

use std::collections::HashMap;

use runtime::{
    codec::Vocabulary,
    projection::{LogRecord, Projection},
};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    events::{Contact, Money},
    inbox::{PlaceOrder, RequestedLine, ResolvedAlbum, ResolvedCustomer},
    request::OrderRequest,
};

runtime::consumes! {
    /// The events that the look-ups are folded from.
    pub enum LookupEvent {
        events of "customers" { CustomerRegistered, CustomerForgotten }
        events of "catalogue" { AlbumListed, AlbumPriceChanged }
    }
}

/// A customer registered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CustomerRegistered {
    /// The customer.
    pub customer_id: String,
    /// How they are addressed.
    pub contact: Contact,
}

/// A customer asked to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CustomerForgotten {
    /// The customer.
    pub customer_id: String,
}

/// An album entered the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AlbumListed {
    /// Its stock keeping unit.
    pub sku: String,
    /// Its title.
    pub title: String,
    /// Its artist.
    pub artist: String,
    /// Its price, if it is sold.
    pub price: Option<Money>,
}

/// An album's price changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AlbumPriceChanged {
    /// Its stock keeping unit.
    pub sku: String,
    /// Its price from now on, if it is still sold.
    pub new_price: Option<Money>,
}

/// Customers and albums as they are now.
#[derive(Debug)]
pub struct Lookups {
    vocabulary: Vocabulary<LookupEvent>,
    customers: HashMap<String, ResolvedCustomer>,
    albums: HashMap<String, ResolvedAlbum>,
}

impl Lookups {
    /// Look-ups of a system, before any event.
    #[must_use]
    pub fn new(system: &str) -> Self {
        Self { vocabulary: Vocabulary::new(system), customers: HashMap::new(), albums: HashMap::new() }
    }

    /// Folds one event.
    pub fn apply_event(&mut self, event: LookupEvent) {
        match event {
            LookupEvent::CustomerRegistered(fact) => {
                let customer = ResolvedCustomer { contact: fact.contact, forgotten: false };
                self.customers.insert(fact.customer_id, customer);
            }
            LookupEvent::CustomerForgotten(fact) => {
                let contact = Contact { name: String::new(), email: String::new() };
                self.customers.insert(fact.customer_id, ResolvedCustomer { contact, forgotten: true });
            }
            LookupEvent::AlbumListed(fact) => {
                let album = ResolvedAlbum { title: fact.title, artist: fact.artist, unit_price: fact.price };
                self.albums.insert(fact.sku, album);
            }
            LookupEvent::AlbumPriceChanged(fact) => {
                if let Some(album) = self.albums.get_mut(&fact.sku) {
                    album.unit_price = fact.new_price;
                }
            }
        }
    }

    /// True if an album was listed, whether or not it is sold.
    #[must_use]
    pub fn knows_album(&self, sku: &str) -> bool {
        self.albums.contains_key(sku)
    }

    /// True if a customer registered, even one who was forgotten since.
    #[must_use]
    pub fn knows_customer(&self, customer_id: &str) -> bool {
        self.customers.contains_key(customer_id)
    }

    /// The command of a request, with the results of the look-ups.
    #[must_use]
    pub fn resolve(&self, order_id: Uuid, request: &OrderRequest) -> PlaceOrder {
        let line = |line: &crate::request::LineRequest| RequestedLine {
            sku: line.sku.clone(),
            quantity: line.quantity,
            album: self.albums.get(&line.sku).cloned(),
        };
        PlaceOrder {
            order_id: order_id.to_string(),
            customer_id: request.customer_id.clone(),
            customer: self.customers.get(&request.customer_id).cloned(),
            ship_to: request.ship_to.clone(),
            lines: request.lines.iter().map(line).collect(),
            payment_method: request.payment_method.clone(),
            request_digest: request.digest(),
        }
    }
}

impl Projection for Lookups {
    fn apply(&mut self, record: &LogRecord<'_>) {
        // The decoder has counted a body that cannot be read.
        if let Some(decoded) = record.decoded()
            && let Ok(Some(event)) = self.vocabulary.read(&decoded)
        {
            self.apply_event(event);
        }
    }

    fn reset(&mut self) -> bool {
        self.customers.clear();
        self.albums.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{events::Address, request::LineRequest};

    fn eur(amount_minor: i64) -> Money {
        Money { amount_minor, currency: "EUR".to_owned() }
    }

    fn contact() -> Contact {
        Contact { name: "Inés".to_owned(), email: "ines@example.org".to_owned() }
    }

    fn request() -> OrderRequest {
        OrderRequest {
            customer_id: "customer-1".to_owned(),
            ship_to: Address {
                street: "Lindenstraße 14".to_owned(),
                city: "Leipzig".to_owned(),
                postcode: "04105".to_owned(),
                country: "DE".to_owned(),
            },
            lines: vec![LineRequest { sku: "LP-1".to_owned(), quantity: 2 }],
            payment_method: "card-ok".to_owned(),
        }
    }

    fn listed() -> LookupEvent {
        let (title, artist) = ("Blue".to_owned(), "Joni Mitchell".to_owned());
        AlbumListed { sku: "LP-1".to_owned(), title, artist, price: Some(eur(1999)) }.into()
    }

    fn registered() -> LookupEvent {
        CustomerRegistered { customer_id: "customer-1".to_owned(), contact: contact() }.into()
    }

    fn resolved(events: impl IntoIterator<Item = LookupEvent>) -> PlaceOrder {
        let mut lookups = Lookups::new("musiccorp");
        for event in events {
            lookups.apply_event(event);
        }
        lookups.resolve(Uuid::nil(), &request())
    }

    #[test]
    fn an_unknown_customer_or_album_is_not_found() {
        let command = resolved([]);
        assert_eq!((command.customer, command.lines[0].album.clone()), (None, None));
        assert_eq!(command.request_digest, request().digest());
    }

    #[test]
    fn customers_and_albums_are_found_as_they_are_now() {
        let changed = AlbumPriceChanged { sku: "LP-1".to_owned(), new_price: Some(eur(2499)) };
        let command = resolved([registered(), listed(), changed.into()]);
        assert_eq!(command.customer, Some(ResolvedCustomer { contact: contact(), forgotten: false }));
        assert_eq!(command.lines[0].album.as_ref().and_then(|album| album.unit_price.clone()), Some(eur(2499)));
    }

    #[test]
    fn an_album_that_is_no_longer_sold_is_found_without_a_price() {
        let gone = AlbumPriceChanged { sku: "LP-1".to_owned(), new_price: None };
        let command = resolved([listed(), gone.into()]);
        assert_eq!(command.lines[0].album.as_ref().map(|album| album.unit_price.clone()), Some(None));
    }

    #[test]
    fn a_forgotten_customer_is_found_without_data() {
        let command = resolved([registered(), CustomerForgotten { customer_id: "customer-1".to_owned() }.into()]);
        let customer = command.customer.expect("a forgotten customer is known");
        assert!(customer.forgotten);
        assert_eq!((customer.contact.name, customer.contact.email), (String::new(), String::new()));
    }
}
