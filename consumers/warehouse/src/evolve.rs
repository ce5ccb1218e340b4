//! The state of the warehouse: the fold of its own events. Total: an event is never rejected.

mod fulfilment;
mod stock_item;

pub use fulfilment::{
    AttemptStatus, DispatchProgress, Fulfilment, FulfilmentLine, FulfilmentPhase, LineStock, ReleaseStatus,
};
use serde::{Deserialize, Serialize};
pub use stock_item::StockItem;

use crate::events::Event;

/// The state of one key. Its events determine whether the key is an order or a sku. A key that is both has both states, so
/// neither can overwrite the other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// The order of this key, if any.
    pub fulfilment: Option<Box<Fulfilment>>,
    /// The item of this key, if any.
    pub item: Option<Box<StockItem>>,
}

/// Applies one event.
#[must_use]
pub fn evolve(mut state: State, event: &Event) -> State {
    match event {
        Event::ReservationStarted(e) => state.order(&e.order_id).reservation_started(e),
        Event::LineHeld(e) => state.order(&e.order_id).line_held(&e.sku),
        Event::StockReserved(e) => state.order(&e.order_id).phase = FulfilmentPhase::Reserved,
        Event::StockShort(e) => state.order(&e.order_id).stock_short(&e.sku),
        Event::PaymentNoted(e) => state.order(&e.order_id).paid_early = true,
        Event::PickingStarted(e) => state.order(&e.order_id).phase = FulfilmentPhase::Picking,
        Event::OrderPackaged(e) => state.order(&e.order_id).order_packaged(e),
        Event::PackagingFailed(e) => state.order(&e.order_id).packaging_failed(e),
        Event::DispatchDelayed(e) => state.order(&e.order_id).dispatch_delayed(e.next_attempt_at),
        Event::DispatchRequested(e) => state.order(&e.order_id).dispatch_requested(e),
        Event::DispatchAbandoned(e) => state.order(&e.order_id).dispatch_abandoned(),
        Event::OrderDispatched(e) => state.order(&e.order_id).order_dispatched(),
        Event::CancellationAccepted(e) => state.order(&e.order_id).cancellation_accepted(e.request),
        Event::CancellationRefused(e) => state.order(&e.order_id).answered_request = e.request,
        Event::ReleaseStarted(e) => state.order(&e.order_id).release_started(),
        Event::LineReleased(e) => state.order(&e.order_id).line_released(e),
        Event::StockReleased(e) => state.order(&e.order_id).stock_released(),
        Event::GoodsReceived(e) => state.item().goods_received(e),
        Event::ItemHeld(e) => state.item().held(&e.order_id, e.quantity),
        Event::ItemFreed(e) => state.item().freed(&e.order_id, e.quantity),
        Event::ItemShipped(e) => state.item().shipped(&e.order_id, e.quantity),
        Event::StockWrittenOff(e) => state.item().written_off(&e.order_id, e.quantity),
        Event::ItemShort(_) | Event::CommandRefused(_) => {}
    }
    state
}

impl State {
    fn order(&mut self, order_id: &str) -> &mut Fulfilment {
        self.fulfilment.get_or_insert_with(|| Box::new(Fulfilment::of(order_id)))
    }

    fn item(&mut self) -> &mut StockItem {
        self.item.get_or_insert_default()
    }
}
