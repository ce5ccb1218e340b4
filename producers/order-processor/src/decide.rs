//! The decisions of the order-processor. Pure: no clock, no look-up, no I/O. The time of an input is the timestamp of its
//! record.
//!
//! Facts take effect in the order of fulfilment, regardless of the order in which they are received:
//!
//! | received | in `placed` | in `paid` | in `picking` | in `shipped` | ended |
//! |---|---|---|---|---|---|
//! | PaymentTaken | OrderPaid, then what was noted | – | – | – | – |
//! | PickingStarted | noted | OrderPicking, then what was noted | – | – | – |
//! | OrderDispatched | noted | noted | OrderShipped, then what was noted | – | – |
//! | PointsAwarded | noted | noted | noted | OrderCompleted | – |
//! | StockShort, PaymentDeclined, PaymentAbandoned, PackagingFailed | OrderCancelled | OrderCancelled | OrderCancelled | – | – |
//! | CancellationAccepted, if it answers the open request | OrderCancelled | OrderCancelled | OrderCancelled | – | – |
//! | CancellationRefused, if it answers the open request | OrderCancellationRefused | the same | the same | – | – |
//! | DispatchDelayed, the first | OrderDelayed | OrderDelayed | OrderDelayed | – | – |
//! | DispatchAbandoned | OrderNeedsAttention | OrderNeedsAttention | OrderNeedsAttention | – | – |
//! | RefundFailed | OrderNeedsAttention | the same | the same | the same | OrderNeedsAttention |
//!
//! A dash means no event: the fact was received before, or came too late to matter. A fact about an order that was never placed
//! causes no event either: every fact is caused by an event of that order, so none can precede it.
//!
//! Commands are always answered: see `place` and `cancel`.

mod cancel;
mod issues;
mod place;
mod progress;

use runtime::{Decision, Received, TimestampMs};

pub use self::place::{MAX_LINES, MAX_QUANTITY, MAX_TOTAL_MINOR};
use self::progress::ProgressFact;
use crate::{
    events::{CancelReason, CommandRefused, Event},
    evolve::{Shipment, State},
    inbox::Command,
    reads::Input,
};

/// Decides the events of an input.
pub fn decide(state: &State, input: &Received<Input>) -> Decision<Event, Command> {
    let at = input.at_ms;
    let events = match &input.body {
        Input::PlaceOrder(command) => place::place(state, command, at),
        Input::CancelOrder(command) => cancel::request(state, &cancel::CancelCommand::of_customer(command), at),
        Input::GiveUpOrder(command) => cancel::request(state, &cancel::CancelCommand::of_operator(command), at),
        Input::PaymentTaken(fact) => progress::advance(state, ProgressFact::Paid { payment_id: &fact.payment_id }, at),
        Input::PickingStarted(_) => progress::advance(state, ProgressFact::PickingStarted, at),
        Input::OrderDispatched(fact) => {
            let shipment = Shipment { carrier: fact.carrier.clone(), tracking_number: fact.tracking_number.clone() };
            progress::advance(state, ProgressFact::Dispatched(shipment), at)
        }
        Input::PointsAwarded(fact) => progress::advance(state, ProgressFact::PointsAwarded(fact.points), at),
        Input::StockShort(fact) => {
            let detail = format!("{} of {} wanted, {} free", fact.wanted, fact.sku, fact.free);
            cancel::cancel(state, CancelReason::OutOfStock, detail, at)
        }
        Input::PaymentDeclined(fact) => cancel::cancel(state, CancelReason::PaymentDeclined, fact.reason.clone(), at),
        Input::PaymentAbandoned(fact) => cancel::cancel(state, CancelReason::PaymentAbandoned, fact.reason.clone(), at),
        Input::PackagingFailed(fact) => cancel::cancel(state, CancelReason::LostAtPackaging, fact.detail.clone(), at),
        Input::CancellationAccepted(fact) => cancel::accepted(state, fact.request, at),
        Input::CancellationRefused(fact) => cancel::refused(state, fact.request, &fact.reason, at),
        Input::DispatchDelayed(fact) => issues::dispatch_delayed(state, fact, at),
        Input::DispatchAbandoned(fact) => issues::dispatch_abandoned(state, fact, at),
        Input::RefundFailed(fact) => issues::refund_failed(state, fact, at),
    };
    Decision { events, commands: Vec::new() }
}

/// The event of a refused command that has no specific event.
fn refused(order_id: &str, command: &str, reason: impl Into<String>, at: TimestampMs) -> Event {
    CommandRefused {
        entity_id: order_id.to_owned(),
        command: command.to_owned(),
        reason: reason.into(),
        occurred_at: at,
    }
    .into()
}
