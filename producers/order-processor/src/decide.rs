//! How the order-processor decides. Pure: no clock, no look-up, no I/O; an input's time is its record's.
//!
//! Facts take effect in the order of the story, whatever order they are heard in:
//!
//! | heard | in `placed` | in `paid` | in `picking` | in `shipped` | ended |
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
//! A dash is silence: the fact was heard before, or came too late to matter. A fact about an order that was never placed is
//! silence too: every fact is caused by an own event of that order, so none can be heard before it.
//!
//! Commands are answered: `place` and `cancel` say with what.

mod cancel;
mod place;
mod story;
mod trouble;

use runtime::{Decision, Received, TimestampMs};

pub use self::place::{MAX_LINES, MAX_QUANTITY, MAX_TOTAL_MINOR};
use self::story::Fact;
use crate::{
    events::{CancelReason, CommandRefused, Event},
    evolve::{Dispatch, State},
    inbox::Command,
    reads::Input,
};

/// Decides what comes of an input.
pub fn decide(state: &State, input: &Received<Input>) -> Decision<Event, Command> {
    let at = input.at_ms;
    let events = match &input.body {
        Input::PlaceOrder(command) => place::place(state, command, at),
        Input::CancelOrder(command) => cancel::ask(state, &cancel::Ask::of_customer(command), at),
        Input::GiveUpOrder(command) => cancel::ask(state, &cancel::Ask::of_operator(command), at),
        Input::PaymentTaken(fact) => story::go_on(state, Fact::Paid { payment_id: &fact.payment_id }, at),
        Input::PickingStarted(_) => story::go_on(state, Fact::PickingStarted, at),
        Input::OrderDispatched(fact) => {
            let dispatch = Dispatch { carrier: fact.carrier.clone(), tracking_number: fact.tracking_number.clone() };
            story::go_on(state, Fact::Dispatched(dispatch), at)
        }
        Input::PointsAwarded(fact) => story::go_on(state, Fact::PointsAwarded(fact.points), at),
        Input::StockShort(fact) => {
            let detail = format!("{} of {} wanted, {} free", fact.wanted, fact.sku, fact.free);
            cancel::cancel(state, CancelReason::OutOfStock, detail, at)
        }
        Input::PaymentDeclined(fact) => cancel::cancel(state, CancelReason::PaymentDeclined, fact.reason.clone(), at),
        Input::PaymentAbandoned(fact) => cancel::cancel(state, CancelReason::PaymentAbandoned, fact.reason.clone(), at),
        Input::PackagingFailed(fact) => cancel::cancel(state, CancelReason::LostAtPackaging, fact.detail.clone(), at),
        Input::CancellationAccepted(fact) => cancel::accepted(state, fact.request, at),
        Input::CancellationRefused(fact) => cancel::refused(state, fact.request, &fact.reason, at),
        Input::DispatchDelayed(fact) => trouble::dispatch_delayed(state, fact, at),
        Input::DispatchAbandoned(fact) => trouble::dispatch_abandoned(state, fact, at),
        Input::RefundFailed(fact) => trouble::refund_failed(state, fact, at),
    };
    Decision { events, commands: Vec::new() }
}

/// A command that may not be carried out, and that no event of its own answers.
fn refused(order_id: &str, command: &str, reason: impl Into<String>, at: TimestampMs) -> Event {
    CommandRefused {
        entity_id: order_id.to_owned(),
        command: command.to_owned(),
        reason: reason.into(),
        occurred_at: at,
    }
    .into()
}
