//! What enters the order-processor's inbox: the commands of its edge, with everything that had to be looked up.

use serde::{Deserialize, Serialize};

use crate::events::{Address, Contact, Money};

runtime::produces! {
    /// What the edge and operators ask of an order.
    pub enum Command in "../../schemas" {
        inbox of "order-processor" { PlaceOrder = 1, CancelOrder = 1, GiveUpOrder = 1 }
    }
}

/// A customer wants albums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceOrder {
    /// The order to be.
    pub order_id: String,
    /// The customer that the request names.
    pub customer_id: String,
    /// What is known about the customer; `None` if nobody has that id.
    pub customer: Option<ResolvedCustomer>,
    /// Where the parcel goes.
    pub ship_to: Address,
    /// What is wanted.
    pub lines: Vec<RequestedLine>,
    /// The gateway's token for the means of payment.
    pub payment_method: String,
    /// Tells a repeated request from another one.
    pub request_digest: String,
}

/// A customer wants an order cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// The order.
    pub order_id: String,
    /// Why; perhaps empty.
    pub reason: String,
}

/// An operator wants an order cancelled that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveUpOrder {
    /// The order.
    pub order_id: String,
    /// Why; perhaps empty.
    pub reason: String,
}

/// What is known about a customer when a request comes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedCustomer {
    /// How the customer is addressed; empty once forgotten.
    pub contact: Contact,
    /// True if the customer asked to be forgotten.
    pub forgotten: bool,
}

/// One album that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedLine {
    /// The album's stock keeping unit.
    pub sku: String,
    /// How many copies.
    pub quantity: i32,
    /// The album; `None` if nobody lists that sku.
    pub album: Option<ResolvedAlbum>,
}

/// What the catalogue said about an album when a request came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedAlbum {
    /// The album's title.
    pub title: String,
    /// The album's artist.
    pub artist: String,
    /// The price of one copy; `None` if it is no longer sold.
    pub unit_price: Option<Money>,
}
