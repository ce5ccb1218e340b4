//! The inbox of the order-processor: the commands of its edge, with everything that had to be looked up.

use serde::{Deserialize, Serialize};

use crate::events::{Address, Contact, Money};

runtime::produces! {
    /// The commands of the edge and of operators.
    pub enum Command in "../../schemas" {
        inbox of "order-processor" { PlaceOrder = 1, CancelOrder = 1, GiveUpOrder = 1 }
    }
}

/// Place an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceOrder {
    /// The order id.
    pub order_id: String,
    /// The customer that the request names.
    pub customer_id: String,
    /// The customer, as looked up; `None` if the id is unknown.
    pub customer: Option<ResolvedCustomer>,
    /// Where the parcel goes.
    pub ship_to: Address,
    /// The requested albums.
    pub lines: Vec<RequestedLine>,
    /// The gateway's token for the means of payment.
    pub payment_method: String,
    /// Identifies the request.
    pub request_digest: String,
}

/// Cancel an order, for its customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// The order.
    pub order_id: String,
    /// Why; perhaps empty.
    pub reason: String,
}

/// Cancel an order that cannot proceed, for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveUpOrder {
    /// The order.
    pub order_id: String,
    /// Why; perhaps empty.
    pub reason: String,
}

/// A customer, as looked up for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedCustomer {
    /// How the customer is addressed; empty once forgotten.
    pub contact: Contact,
    /// True if the customer asked to be forgotten.
    pub forgotten: bool,
}

/// One requested album.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedLine {
    /// The album's stock keeping unit.
    pub sku: String,
    /// How many copies.
    pub quantity: i32,
    /// The album, as looked up; `None` if the catalogue does not list the sku.
    pub album: Option<ResolvedAlbum>,
}

/// An album, as looked up for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedAlbum {
    /// The album's title.
    pub title: String,
    /// The album's artist.
    pub artist: String,
    /// The price of one copy; `None` if it is no longer sold.
    pub unit_price: Option<Money>,
}
