//! The events of the warehouse in full detail. `decide` has the rules for producing them, `evolve` their effect on the state.

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The events that the warehouse produces, of orders and of items.
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
    /// The lines of the order, one per sku, in sku order.
    pub lines: Vec<ItemLine>,
    /// Where the parcel goes; kept here because no other event has it.
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

/// A line of an order cannot be held: the free stock is too small. Held lines are released once the order is cancelled.
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

/// Picking of a paid order started.
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
    /// The id of the parcel at picking.
    pub parcel_id: String,
    /// What is in the parcel.
    pub lines: Vec<ItemLine>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
    /// The deadline of the first attempt to dispatch; `None` if there is none.
    pub answer_by: Option<TimestampMs>,
}

/// Held items were missing when the order was picked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackagingFailed {
    /// The order.
    pub order_id: String,
    /// The missing items.
    pub missing: Vec<ItemLine>,
    /// The details from picking.
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
    /// The number of the attempt.
    pub attempt: i32,
    /// Why, for a person.
    pub reason: String,
    /// When the next attempt starts; `None` while the attempt is being withdrawn.
    pub next_attempt_at: Option<TimestampMs>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// A further attempt to dispatch a parcel was requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DispatchRequested {
    /// The order.
    pub order_id: String,
    /// The parcel.
    pub parcel_id: String,
    /// The number of the attempt.
    pub attempt: i32,
    /// The deadline of the attempt; `None` if there is none.
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
    /// The carrier.
    pub carrier: String,
    /// The tracking number of the carrier.
    pub tracking_number: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The cancellation of an order was accepted. Its held items are released once it is cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancellationAccepted {
    /// The order.
    pub order_id: String,
    /// The number of the request.
    pub request: i32,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The cancellation of an order was refused: it is too late.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancellationRefused {
    /// The order.
    pub order_id: String,
    /// The number of the request.
    pub request: i32,
    /// Why it is too late, for a person.
    pub reason: String,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub occurred_at: TimestampMs,
}

/// The release of the stock of a cancelled order started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseStarted {
    /// The order.
    pub order_id: String,
    /// The items that are held for the order at this moment.
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

/// Nothing is held for a cancelled order any more, and no answer is pending. Produced once per cancelled order.
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

/// Missing pieces that were held for an order are written off.
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
