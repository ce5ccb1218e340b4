//! Inputs, commands and events of one order and one item, for scenarios.

#![expect(unreachable_pub, reason = "a module of the test beside it")]

use runtime::{
    Received, TimerFired,
    testing::{self, NOW_MS},
};
use warehouse::{
    effects::WarehouseCall,
    events::*,
    inbox::*,
    reads::{self, Input},
};

pub const ORDER: &str = "order-1";
pub const SKU: &str = "a";
/// The deadline of an attempt that is made at the time of these tests.
pub const ANSWER_BY: i64 = NOW_MS + 5 * 60 * 1_000;

pub fn received(body: impl Into<Input>) -> Received<Input> {
    testing::received(ORDER, body)
}

pub fn asked(body: impl Into<Input>) -> Received<Input> {
    testing::received(SKU, body)
}

pub fn items(lines: &[(&str, i32)]) -> Vec<ItemLine> {
    lines.iter().map(|&(sku, quantity)| ItemLine { sku: sku.to_owned(), quantity }).collect()
}

pub fn address() -> Address {
    Address {
        street: "Lindenstraße 14".to_owned(),
        city: "Leipzig".to_owned(),
        postcode: "04105".to_owned(),
        country: "DE".to_owned(),
    }
}

fn order() -> String {
    ORDER.to_owned()
}

// Inputs.

pub fn placed(lines: &[(&str, i32)]) -> Received<Input> {
    let line = |&(sku, quantity): &(&str, i32)| reads::OrderLine { sku: sku.to_owned(), quantity };
    let lines = lines.iter().map(line).collect();
    received(reads::OrderPlaced { order_id: order(), ship_to: address(), lines })
}

pub fn paid() -> Received<Input> {
    received(reads::OrderPaid { order_id: order() })
}

pub fn cancelled() -> Received<Input> {
    received(reads::OrderCancelled { order_id: order() })
}

pub fn cancel_requested(request: i32) -> Received<Input> {
    received(reads::OrderCancellationRequested { order_id: order(), request })
}

pub fn held(sku: &str, quantity: i32) -> Received<Input> {
    received(hold_result(sku, quantity, true, 100))
}

pub fn short(sku: &str, quantity: i32, free: i32) -> Received<Input> {
    received(hold_result(sku, quantity, false, free))
}

pub fn freed(sku: &str, quantity: i32) -> Received<Input> {
    received(free_result(sku, quantity))
}

pub fn written_off(sku: &str, quantity: i32, freed: i32) -> Received<Input> {
    received(write_off_result(sku, quantity, freed))
}

pub fn packaged(parcel_id: &str) -> Received<Input> {
    received(PickResult { parcel_id: Some(parcel_id.to_owned()), ..pick_result() })
}

pub fn missing(lines: &[(&str, i32)]) -> Received<Input> {
    let detail = Some("not there".to_owned());
    received(PickResult { outcome: PickOutcome::Missing, missing: items(lines), detail, ..pick_result() })
}

pub fn courier_took_parcel() -> Received<Input> {
    received(courier_answer())
}

pub fn courier_refused(attempt: i32) -> Received<Input> {
    let reason = Some("no van has room".to_owned());
    received(CourierAnswer { outcome: CourierOutcome::Refused, reason, ..courier_refusal(attempt) })
}

pub fn courier_withdrew(attempt: i32) -> Received<Input> {
    received(CourierAnswer { outcome: CourierOutcome::Withdrawn, ..courier_refusal(attempt) })
}

fn courier_refusal(attempt: i32) -> CourierAnswer {
    CourierAnswer { attempt, carrier: None, tracking_number: None, ..courier_answer() }
}

pub fn timer(due_at: i64) -> Received<Input> {
    received(TimerFired { due_at })
}

pub fn retry_dispatch() -> Received<Input> {
    received(RetryDispatch { order_id: order() })
}

pub fn receive(delivery_id: &str, quantity: i32) -> Received<Input> {
    asked(ReceiveGoods { sku: SKU.to_owned(), delivery_id: delivery_id.to_owned(), quantity })
}

// Commands, answers and calls.

pub fn hold(sku: &str, quantity: i32) -> HoldItem {
    HoldItem { sku: sku.to_owned(), order_id: order(), quantity }
}

pub fn free(sku: &str, quantity: i32) -> FreeItem {
    FreeItem { sku: sku.to_owned(), order_id: order(), quantity }
}

pub fn ship(sku: &str, quantity: i32) -> ShipItem {
    ShipItem { sku: sku.to_owned(), order_id: order(), quantity }
}

pub fn write_off(sku: &str, quantity: i32) -> WriteOffItem {
    WriteOffItem { sku: sku.to_owned(), order_id: order(), quantity, reason: "not there".to_owned() }
}

pub fn hold_result(sku: &str, quantity: i32, held: bool, free: i32) -> HoldResult {
    HoldResult { order_id: order(), sku: sku.to_owned(), quantity, held, free }
}

pub fn free_result(sku: &str, quantity: i32) -> FreeResult {
    FreeResult { order_id: order(), sku: sku.to_owned(), quantity }
}

pub fn write_off_result(sku: &str, quantity: i32, freed: i32) -> WriteOffResult {
    WriteOffResult { order_id: order(), sku: sku.to_owned(), quantity, freed }
}

pub fn pick_result() -> PickResult {
    PickResult { order_id: order(), outcome: PickOutcome::Packaged, parcel_id: None, missing: vec![], detail: None }
}

pub fn courier_answer() -> CourierAnswer {
    CourierAnswer {
        order_id: order(),
        outcome: CourierOutcome::Dispatched,
        parcel_id: Some("parcel-1".to_owned()),
        carrier: Some("Northwind Parcels".to_owned()),
        tracking_number: Some("NW1".to_owned()),
        attempt: 1,
        reason: None,
    }
}

pub fn pick(lines: &[(&str, i32)]) -> WarehouseCall {
    WarehouseCall::Pick { order_id: order(), lines: items(lines) }
}

pub fn dispatch(parcel_id: &str) -> WarehouseCall {
    WarehouseCall::Dispatch { order_id: order(), parcel_id: parcel_id.to_owned(), ship_to: address(), attempt: 1 }
}

pub fn dispatch_again(attempt: i32) -> WarehouseCall {
    WarehouseCall::Dispatch { order_id: order(), parcel_id: "parcel-1".to_owned(), ship_to: address(), attempt }
}

pub fn withdraw(attempt: i32) -> WarehouseCall {
    WarehouseCall::Withdraw { order_id: order(), parcel_id: "parcel-1".to_owned(), attempt }
}

// Events of an order.

pub fn reservation_started(lines: &[(&str, i32)]) -> ReservationStarted {
    ReservationStarted { order_id: order(), lines: items(lines), ship_to: address(), occurred_at: NOW_MS }
}

pub fn line_held(sku: &str, quantity: i32) -> LineHeld {
    LineHeld { order_id: order(), sku: sku.to_owned(), quantity, occurred_at: NOW_MS }
}

pub fn stock_reserved(lines: &[(&str, i32)]) -> StockReserved {
    StockReserved { order_id: order(), lines: items(lines), occurred_at: NOW_MS }
}

pub fn stock_short(sku: &str, wanted: i32, free: i32) -> StockShort {
    StockShort { order_id: order(), sku: sku.to_owned(), wanted, free, occurred_at: NOW_MS }
}

pub fn payment_noted() -> PaymentNoted {
    PaymentNoted { order_id: order(), occurred_at: NOW_MS }
}

pub fn picking_started(lines: &[(&str, i32)]) -> PickingStarted {
    PickingStarted { order_id: order(), lines: items(lines), occurred_at: NOW_MS }
}

pub fn order_packaged(parcel_id: &str, lines: &[(&str, i32)]) -> OrderPackaged {
    OrderPackaged {
        order_id: order(),
        parcel_id: parcel_id.to_owned(),
        lines: items(lines),
        occurred_at: NOW_MS,
        answer_by: Some(ANSWER_BY),
    }
}

pub fn dispatch_delayed(attempt: i32, reason: &str, next_attempt_at: Option<i64>) -> DispatchDelayed {
    DispatchDelayed {
        order_id: order(),
        parcel_id: "parcel-1".to_owned(),
        attempt,
        reason: reason.to_owned(),
        next_attempt_at,
        occurred_at: NOW_MS,
    }
}

pub fn dispatch_requested(attempt: i32) -> DispatchRequested {
    DispatchRequested {
        order_id: order(),
        parcel_id: "parcel-1".to_owned(),
        attempt,
        answer_by: Some(ANSWER_BY),
        occurred_at: NOW_MS,
    }
}

pub fn dispatch_abandoned(attempt: i32, reason: &str) -> DispatchAbandoned {
    DispatchAbandoned {
        order_id: order(),
        parcel_id: "parcel-1".to_owned(),
        attempt,
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

pub fn packaging_failed(missing: &[(&str, i32)]) -> PackagingFailed {
    PackagingFailed { order_id: order(), missing: items(missing), detail: "not there".to_owned(), occurred_at: NOW_MS }
}

pub fn order_dispatched(parcel_id: &str) -> OrderDispatched {
    OrderDispatched {
        order_id: order(),
        parcel_id: parcel_id.to_owned(),
        carrier: "Northwind Parcels".to_owned(),
        tracking_number: "NW1".to_owned(),
        occurred_at: NOW_MS,
    }
}

pub fn accepted(request: i32) -> CancellationAccepted {
    CancellationAccepted { order_id: order(), request, occurred_at: NOW_MS }
}

pub fn too_late(request: i32, reason: &str) -> CancellationRefused {
    CancellationRefused { order_id: order(), request, reason: reason.to_owned(), occurred_at: NOW_MS }
}

pub fn release_started(lines: &[(&str, i32)]) -> ReleaseStarted {
    ReleaseStarted { order_id: order(), lines: items(lines), occurred_at: NOW_MS }
}

pub fn line_released(sku: &str, freed: i32, written_off: i32) -> LineReleased {
    LineReleased { order_id: order(), sku: sku.to_owned(), freed, written_off, occurred_at: NOW_MS }
}

pub fn stock_released(freed: &[(&str, i32)], written_off: &[(&str, i32)]) -> StockReleased {
    StockReleased { order_id: order(), freed: items(freed), written_off: items(written_off), occurred_at: NOW_MS }
}

/// Two lines, both held.
pub fn reserved_events() -> Vec<Event> {
    let lines = [("a", 1), ("b", 2)];
    vec![
        reservation_started(&lines).into(),
        line_held("a", 1).into(),
        line_held("b", 2).into(),
        stock_reserved(&lines).into(),
    ]
}

/// The same, paid.
pub fn picking_events() -> Vec<Event> {
    and(reserved_events(), picking_started(&[("a", 1), ("b", 2)]))
}

/// The same, packed.
pub fn packaged_events() -> Vec<Event> {
    and(picking_events(), order_packaged("parcel-1", &[("a", 1), ("b", 2)]))
}

/// The same, refused by the courier in the only attempt.
pub fn abandoned_events() -> Vec<Event> {
    and(packaged_events(), dispatch_abandoned(1, "no van has room"))
}

/// The same, on its way.
pub fn dispatched_events() -> Vec<Event> {
    and(packaged_events(), order_dispatched("parcel-1"))
}

fn and(mut events: Vec<Event>, event: impl Into<Event>) -> Vec<Event> {
    events.push(event.into());
    events
}

// Events of an item.

pub fn goods_received(delivery_id: &str, quantity: i32) -> GoodsReceived {
    GoodsReceived { sku: SKU.to_owned(), delivery_id: delivery_id.to_owned(), quantity, occurred_at: NOW_MS }
}

pub fn item_held(quantity: i32) -> ItemHeld {
    ItemHeld { sku: SKU.to_owned(), order_id: order(), quantity, occurred_at: NOW_MS }
}

pub fn item_short(wanted: i32, free: i32) -> ItemShort {
    ItemShort { sku: SKU.to_owned(), order_id: order(), wanted, free, occurred_at: NOW_MS }
}

pub fn item_freed(quantity: i32) -> ItemFreed {
    ItemFreed { sku: SKU.to_owned(), order_id: order(), quantity, occurred_at: NOW_MS }
}

pub fn item_shipped(quantity: i32) -> ItemShipped {
    ItemShipped { sku: SKU.to_owned(), order_id: order(), quantity, occurred_at: NOW_MS }
}

pub fn stock_written_off(quantity: i32) -> StockWrittenOff {
    StockWrittenOff {
        sku: SKU.to_owned(),
        order_id: order(),
        quantity,
        reason: "not there".to_owned(),
        occurred_at: NOW_MS,
    }
}

pub fn retry_refused(reason: &str) -> CommandRefused {
    CommandRefused { entity_id: order(), command: "RetryDispatch".to_owned(), ..refused(reason) }
}

pub fn refused(reason: &str) -> CommandRefused {
    CommandRefused {
        entity_id: SKU.to_owned(),
        command: "ReceiveGoods".to_owned(),
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}
