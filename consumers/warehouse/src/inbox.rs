//! What enters the warehouse's own inbox: deliveries from outside, the talk between orders and items, the answers of the picking
//! floor and the courier, and what operators ask for. Commands may be refused, answers are facts.
//!
//! | an order sends | the item answers |
//! |---|---|
//! | HoldItem | HoldResult |
//! | FreeItem | FreeResult |
//! | WriteOffItem | WriteOffResult |
//! | ShipItem | nothing: no order waits for it |

use serde::{Deserialize, Serialize};

use crate::events::ItemLine;

runtime::produces! {
    /// What the warehouse sends to its own inbox. Deliveries are sent by whoever receives goods, RetryDispatch by operators.
    pub enum Command in "../../schemas" {
        inbox of "warehouse" {
            ReceiveGoods = 1, HoldItem = 1, FreeItem = 1, ShipItem = 1, WriteOffItem = 1,
            HoldResult = 1, FreeResult = 1, WriteOffResult = 1, PickResult = 1, CourierAnswer = 2, RetryDispatch = 1,
        }
    }
}

/// How picking ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PickOutcome {
    /// Everything is in one parcel.
    Packaged,
    /// Something was not on the shelf.
    Missing,
    /// An outcome that this build does not know.
    #[serde(other)]
    Unknown,
}

/// How a request to the courier ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CourierOutcome {
    /// The courier took the parcel.
    Dispatched,
    /// The courier does not take the parcel in this attempt.
    Refused,
    /// The attempt was withdrawn: the courier has not taken the parcel in it and never will.
    Withdrawn,
    /// An outcome that this build does not know.
    #[serde(other)]
    Unknown,
}

/// Goods arrived: add them to the free stock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiveGoods {
    /// The item.
    pub sku: String,
    /// The delivery; a repeated one is counted once.
    pub delivery_id: String,
    /// How many pieces, at least 1.
    pub quantity: i32,
}

/// To an item: hold pieces for an order, all or none. Answered by HoldResult.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldItem {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces.
    pub quantity: i32,
}

/// To an item: make what is held for an order free again. Answered by FreeResult.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FreeItem {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces the order believes to hold.
    pub quantity: i32,
}

/// To an item: what was held for an order left the warehouse. Not answered: nothing waits for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShipItem {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces the order believes to hold.
    pub quantity: i32,
}

/// To an item: of what is held for an order, take these pieces off the books and free the rest. Answered by WriteOffResult.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteOffItem {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces to take off the books.
    pub quantity: i32,
    /// Why.
    pub reason: String,
}

/// To an order: whether an item is held for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldResult {
    /// The order.
    pub order_id: String,
    /// The item.
    pub sku: String,
    /// How many pieces were asked for.
    pub quantity: i32,
    /// True if all of them are held, false if none is.
    pub held: bool,
    /// How many pieces were free when it was decided.
    pub free: i32,
}

/// To an order: an item is no longer held for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FreeResult {
    /// The order.
    pub order_id: String,
    /// The item.
    pub sku: String,
    /// How many pieces became free.
    pub quantity: i32,
}

/// To an order: an item is no longer held for it, in part because pieces were taken off the books.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteOffResult {
    /// The order.
    pub order_id: String,
    /// The item.
    pub sku: String,
    /// How many pieces were taken off the books.
    pub quantity: i32,
    /// How many pieces became free.
    pub freed: i32,
}

/// What the picking floor answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PickResult {
    /// The order.
    pub order_id: String,
    /// How it ended.
    pub outcome: PickOutcome,
    /// The parcel, if packaged.
    pub parcel_id: Option<String>,
    /// What was not on the shelf, if anything was missing.
    pub missing: Vec<ItemLine>,
    /// What the floor says about it.
    pub detail: Option<String>,
}

/// What the courier answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CourierAnswer {
    /// The order.
    pub order_id: String,
    /// How it ended.
    pub outcome: CourierOutcome,
    /// The parcel it is about.
    pub parcel_id: Option<String>,
    /// Who carries it.
    pub carrier: Option<String>,
    /// The carrier's number for following it.
    pub tracking_number: Option<String>,
    /// Which attempt it is about. The first version knew one attempt only.
    #[serde(default = "first_attempt")]
    pub attempt: i32,
    /// Why, if refused.
    pub reason: Option<String>,
}

fn first_attempt() -> i32 {
    1
}

/// An operator wants an abandoned dispatch to be tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryDispatch {
    /// The order.
    pub order_id: String,
}
