//! What the warehouse says, in full detail, and nothing but the shapes: when it is said stands in `decide`, what it changes in
//! `evolve`.

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

runtime::produces! {
    /// What the warehouse says, of orders and of items.
    pub enum Event in "../../schemas" {
        events of "warehouse" {
            ReservationStarted = 1, LineHeld = 1, StockReserved = 1, StockShort = 1, PaymentNoted = 1, PickingStarted = 1,
            OrderPackaged = 2, PackagingFailed = 1, DispatchDelayed = 1, DispatchRequested = 1, DispatchAbandoned = 1,
            OrderDispatched = 1, CancellationAccepted = 1, CancellationRefused = 1,
            ReleaseStarted = 1, LineReleased = 1, StockReleased = 1,
            GoodsReceived = 1, ItemHeld = 1, ItemShort = 1, ItemFreed = 1, ItemShipped = 1, StockWrittenOff = 1,
            CommandRefused = 1,
        }
    }
}

/// A number of pieces of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemLine {
    /// The item.
    pub sku: String,
    /// How many pieces.
    pub quantity: i32,
}

/// Where a parcel goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Street and house number.
    pub street: String,
    /// Town or city.
    pub city: String,
    /// Postal code, in the country's own form.
    pub postcode: String,
    /// ISO 3166-1 alpha-2 code, two capital letters.
    pub country: String,
}

/// The warehouse began to hold an order's items, one after another in the order of their skus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReservationStarted {
    /// The order.
    pub order_id: String,
    /// What the order needs, one line per sku, in sku order.
    pub lines: Vec<ItemLine>,
    /// Where the parcel is to go; kept here because nothing else remembers it.
    pub ship_to: Address,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// One line of an order is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineHeld {
    /// The order.
    pub order_id: String,
    /// The item.
    pub sku: String,
    /// How many pieces are held.
    pub quantity: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// Every line of an order is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockReserved {
    /// The order.
    pub order_id: String,
    /// What is held.
    pub lines: Vec<ItemLine>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A line of an order cannot be held: fewer pieces are free than it wants. What is held already is given back once the order is cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockShort {
    /// The order.
    pub order_id: String,
    /// The item.
    pub sku: String,
    /// How many pieces the order wants.
    pub wanted: i32,
    /// How many were free.
    pub free: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// An order was paid before its stock was reserved; picking starts as soon as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentNoted {
    /// The order.
    pub order_id: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A paid order went to the picking floor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PickingStarted {
    /// The order.
    pub order_id: String,
    /// What is to be picked.
    pub lines: Vec<ItemLine>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// An order's items are picked and packed into one parcel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderPackaged {
    /// The order.
    pub order_id: String,
    /// The parcel, as the picking floor calls it.
    pub parcel_id: String,
    /// What is in the parcel.
    pub lines: Vec<ItemLine>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
    /// When the first attempt to dispatch it is withdrawn if the courier has not answered; `None` if it never is.
    pub answer_by: Option<TimestampMs>,
}

/// Items that the books show as held were not on the shelf when the order was picked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackagingFailed {
    /// The order.
    pub order_id: String,
    /// What was not there.
    pub missing: Vec<ItemLine>,
    /// What the picking floor says about it.
    pub detail: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The courier did not take a parcel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DispatchDelayed {
    /// The order.
    pub order_id: String,
    /// The parcel.
    pub parcel_id: String,
    /// Which attempt.
    pub attempt: i32,
    /// Why, for a person.
    pub reason: String,
    /// When the courier is asked again; `None` while the attempt is being withdrawn.
    pub next_attempt_at: Option<TimestampMs>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The courier is asked to take a parcel once more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DispatchRequested {
    /// The order.
    pub order_id: String,
    /// The parcel.
    pub parcel_id: String,
    /// Which attempt.
    pub attempt: i32,
    /// When the attempt is withdrawn if the courier has not answered; `None` if it never is.
    pub answer_by: Option<TimestampMs>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The courier has definitely not taken a parcel in any attempt; an operator is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DispatchAbandoned {
    /// The order.
    pub order_id: String,
    /// The parcel.
    pub parcel_id: String,
    /// The last attempt.
    pub attempt: i32,
    /// Why it failed, for a person.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The courier took the parcel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderDispatched {
    /// The order.
    pub order_id: String,
    /// The parcel.
    pub parcel_id: String,
    /// Who carries it.
    pub carrier: String,
    /// The carrier's number for following it.
    pub tracking_number: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// An order that was not packed will not be. What is held for it is given back once it is cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancellationAccepted {
    /// The order.
    pub order_id: String,
    /// The number of the request.
    pub request: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// An order is too far on to be cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancellationRefused {
    /// The order.
    pub order_id: String,
    /// The number of the request.
    pub request: i32,
    /// What makes it too late, for a person.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A cancelled order's stock is being given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseStarted {
    /// The order.
    pub order_id: String,
    /// What is held for the order at this moment.
    pub lines: Vec<ItemLine>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// One line of a cancelled order is no longer held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineReleased {
    /// The order.
    pub order_id: String,
    /// The item.
    pub sku: String,
    /// How many pieces went back to the free stock.
    pub freed: i32,
    /// How many pieces were written off.
    pub written_off: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// Nothing is held for a cancelled order any more, and nothing asked for it is unanswered. Said once per cancelled order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockReleased {
    /// The order.
    pub order_id: String,
    /// What went back to the free stock.
    pub freed: Vec<ItemLine>,
    /// What was written off.
    pub written_off: Vec<ItemLine>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// Goods arrived and are free to be held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoodsReceived {
    /// The item.
    pub sku: String,
    /// The delivery; a repeated one is counted once.
    pub delivery_id: String,
    /// How many pieces.
    pub quantity: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// Pieces of an item are held for an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemHeld {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces.
    pub quantity: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// An order wanted more pieces of an item than were free; nothing was held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemShort {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces the order wanted.
    pub wanted: i32,
    /// How many were free.
    pub free: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// Pieces held for an order are free again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemFreed {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces.
    pub quantity: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// Pieces held for an order left the warehouse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemShipped {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces.
    pub quantity: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// Pieces held for an order do not exist and are taken off the books.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockWrittenOff {
    /// The item.
    pub sku: String,
    /// The order.
    pub order_id: String,
    /// How many pieces.
    pub quantity: i32,
    /// Why.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A command was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// The item or order it was for.
    pub entity_id: String,
    /// The command's name.
    pub command: String,
    /// Why it was refused.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}
