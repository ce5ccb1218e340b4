//! The inbox of the warehouse: deliveries, the commands and answers between orders and items, the answers of picking and the
//! courier, and the commands of operators. Commands may be refused; answers are facts.
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
    /// The commands that the warehouse sends to its own inbox. ReceiveGoods comes from deliveries, RetryDispatch from operators.
    pub enum Command in "../../schemas" {
        inbox of "warehouse" {
            ReceiveGoods = 1, HoldItem = 1, FreeItem = 1, ShipItem = 1, WriteOffItem = 1,
            HoldResult = 1, FreeResult = 1, WriteOffResult = 1, PickResult = 1, CourierAnswer = 2, RetryDispatch = 1,
        }
    }
}

/// The result of picking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PickOutcome {
    /// Everything is in one parcel.
    Packaged,
    /// Some items were missing.
    Missing,
    /// An outcome that this build does not know.
    #[serde(other)]
    Unknown,
}

/// The result of a call to the courier.
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

/// To an item: of the pieces held for an order, write off these pieces and free the rest. Answered by WriteOffResult.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteOffItem {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// The number of pieces to write off.
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
    /// The requested number of pieces.
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

/// To an order: an item is no longer held for it, in part because pieces were written off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteOffResult {
    /// The order.
    pub order_id: String,
    /// The item.
    pub sku: String,
    /// The number of pieces that were written off.
    pub quantity: i32,
    /// How many pieces became free.
    pub freed: i32,
}

/// The answer of picking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PickResult {
    /// The order.
    pub order_id: String,
    /// The result.
    pub outcome: PickOutcome,
    /// The parcel, if packaged.
    pub parcel_id: Option<String>,
    /// The missing items, if any.
    pub missing: Vec<ItemLine>,
    /// The details from picking.
    pub detail: Option<String>,
}

/// The answer of the courier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CourierAnswer {
    /// The order.
    pub order_id: String,
    /// The result.
    pub outcome: CourierOutcome,
    /// The parcel it is about.
    pub parcel_id: Option<String>,
    /// The carrier.
    pub carrier: Option<String>,
    /// The tracking number of the carrier.
    pub tracking_number: Option<String>,
    /// The attempt that is answered. The first version had one attempt only.
    #[serde(default = "first_attempt")]
    pub attempt: i32,
    /// Why, if refused.
    pub reason: Option<String>,
}

fn first_attempt() -> i32 {
    1
}

/// Retry an abandoned dispatch, for an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryDispatch {
    /// The order.
    pub order_id: String,
}
