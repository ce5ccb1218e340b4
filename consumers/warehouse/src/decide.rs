//! The decisions of the warehouse: selects the kind of entity of an input. Pure: they read only the state, the input and the
//! configured deadlines.
//!
//! Facts are never refused and may be received in any order. An order or item that cannot use a fact yet remembers it by an
//! event; a fact that has no effect any more causes no event. `ReceiveGoods` and `RetryDispatch` are the only commands from
//! outside, so only they can be refused.

mod cancellation;
mod dispatch;
mod fulfilment;
mod release;
mod stock_item;

use runtime::{Decision, Received};

use crate::{Warehouse, events::Event, evolve::State, inbox::Command, reads::Input};

/// The decision for one input.
pub(crate) type Decided = Decision<Event, Command>;

/// Decides the events of an input.
#[must_use]
pub fn decide(warehouse: &Warehouse, state: &State, input: &Received<Input>) -> Decided {
    let at = input.at_ms;
    let order = state.fulfilment.as_deref();
    let item = state.item.as_deref();
    match &input.body {
        Input::OrderPlaced(placed) => fulfilment::on_placed(order, placed, at),
        Input::HoldResult(result) => fulfilment::on_hold_result(order, result, at),
        Input::OrderPaid(paid) => fulfilment::on_paid(order, paid, at),
        Input::PickResult(result) => fulfilment::on_pick_result(warehouse, order, result, at),
        Input::CourierAnswer(answer) => dispatch::on_courier_answer(warehouse, order, answer, at),
        Input::TimerFired(timer) => dispatch::on_timer(warehouse, order, timer.due_at, at),
        Input::RetryDispatch(command) => dispatch::retry(warehouse, order, command, at),
        Input::OrderCancellationRequested(asked) => cancellation::on_requested(order, asked, at),
        Input::OrderCancelled(cancelled) => release::on_cancelled(order, &cancelled.order_id, at),
        Input::FreeResult(result) => release::on_freed(order, result, at),
        Input::WriteOffResult(result) => release::on_written_off(order, result, at),
        Input::ReceiveGoods(goods) => stock_item::receive(item, goods, at),
        Input::HoldItem(hold) => stock_item::hold(item, hold, at),
        Input::FreeItem(free) => stock_item::free(item, free, at),
        Input::ShipItem(ship) => stock_item::ship(item, ship, at),
        Input::WriteOffItem(write_off) => stock_item::write_off(item, write_off, at),
    }
}
