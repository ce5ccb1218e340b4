//! Every rule of the warehouse: given events, when an input, then events. The kit handles each input twice.

mod common;
#[path = "scenarios/courier.rs"]
mod courier;

use common::*;
use runtime::{
    Decider,
    testing::{NOW_MS, Scenario, in_every_pairwise_order},
};
use warehouse::{
    Warehouse,
    effects::Effect,
    events::*,
    evolve::{LineStock, Phase, Release},
    inbox::*,
};

fn an_order() -> Scenario<Warehouse> {
    Scenario::of(Warehouse::default())
}

fn an_item() -> Scenario<Warehouse> {
    Scenario::of(Warehouse::default())
}

// ── holding ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_placed_order_asks_for_its_first_item_in_sku_order() {
    an_order()
        .when(&placed(&[("b", 2), ("a", 1)]))
        .then([reservation_started(&[("a", 1), ("b", 2)])])
        .then_commands([("a", hold("a", 1))]);
}

#[test]
fn lines_of_one_sku_are_held_as_one() {
    an_order()
        .when(&placed(&[("a", 1), ("b", 1), ("a", 2), ("c", 0)]))
        .then([reservation_started(&[("a", 3), ("b", 1)])])
        .then_commands([("a", hold("a", 3))]);
}

#[test]
fn an_order_that_wants_nothing_is_reserved_at_once() {
    an_order()
        .when(&placed(&[("a", -3)]))
        .then([Event::from(reservation_started(&[])), stock_reserved(&[]).into()])
        .then_commands::<Command>([]);
}

#[test]
fn a_held_line_is_followed_by_the_next() {
    an_order()
        .given([reservation_started(&[("a", 1), ("b", 2)])])
        .when(&held("a", 1))
        .then([line_held("a", 1)])
        .then_commands([("b", hold("b", 2))]);
}

#[test]
fn the_last_held_line_reserves_the_stock() {
    an_order()
        .given([Event::from(reservation_started(&[("a", 1), ("b", 2)])), line_held("a", 1).into()])
        .when(&held("b", 2))
        .then([Event::from(line_held("b", 2)), stock_reserved(&[("a", 1), ("b", 2)]).into()])
        .then_commands::<Command>([]);
}

#[test]
fn one_short_line_makes_the_order_short_and_asks_for_no_more() {
    an_order()
        .given([Event::from(reservation_started(&[("a", 1), ("b", 2), ("c", 1)])), line_held("a", 1).into()])
        .when(&short("b", 2, 1))
        .then([stock_short("b", 2, 1)])
        .then_commands::<Command>([]);
}

#[test]
fn an_answer_about_another_line_than_the_asked_one_changes_nothing() {
    an_order().given([reservation_started(&[("a", 1), ("b", 2)])]).when(&short("b", 2, 0)).then_nothing();
}

#[test]
fn an_item_held_without_being_wanted_is_freed() {
    an_order().when(&held("a", 1)).then::<Event>([]).then_commands([("a", free("a", 1))]);
    an_order().given(dispatched_story()).when(&held("a", 1)).then::<Event>([]).then_commands([("a", free("a", 1))]);
}

#[test]
fn a_repeated_answer_does_not_free_what_is_wanted() {
    an_order()
        .given([Event::from(reservation_started(&[("a", 1)])), line_held("a", 1).into()])
        .when(&held("a", 1))
        .then_nothing();
}

#[test]
fn a_repeated_order_is_not_held_again() {
    an_order().given(reserved_story()).when(&placed(&[("a", 1), ("b", 2)])).then_nothing();
}

// ── paid, picked, dispatched ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_paid_reserved_order_is_picked() {
    an_order()
        .given(reserved_story())
        .when(&paid())
        .then([picking_started(&[("a", 1), ("b", 2)])])
        .then_pending([pick(&[("a", 1), ("b", 2)])]);
}

#[test]
fn a_payment_heard_before_the_order_is_remembered() {
    an_order().when(&paid()).then([payment_noted()]);
    an_order().given([payment_noted()]).when(&placed(&[("a", 1)])).then([reservation_started(&[("a", 1)])]);
}

#[test]
fn a_payment_heard_while_the_stock_is_being_held_starts_picking_when_it_is() {
    an_order().given([reservation_started(&[("a", 1)])]).when(&paid()).then([payment_noted()]);
    an_order().given([Event::from(reservation_started(&[("a", 1)])), payment_noted().into()]).when(&held("a", 1)).then(
        [Event::from(line_held("a", 1)), stock_reserved(&[("a", 1)]).into(), picking_started(&[("a", 1)]).into()],
    );
}

#[test]
fn a_payment_for_a_short_or_cancelled_order_changes_nothing() {
    let short = [Event::from(reservation_started(&[("a", 1)])), stock_short("a", 1, 0).into()];
    an_order().given(short).when(&paid()).then_nothing();
    an_order().given([Event::from(release_started(&[])), stock_released(&[], &[]).into()]).when(&paid()).then_nothing();
}

#[test]
fn a_packed_order_goes_to_the_courier() {
    an_order()
        .given(picking_story())
        .when(&packaged("parcel-1"))
        .then([order_packaged("parcel-1", &[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([dispatch("parcel-1")]);
}

#[test]
fn a_second_pick_result_changes_nothing() {
    an_order().given(packaged_story()).when(&packaged("parcel-2")).then_nothing();
    an_order().given(packaged_story()).when(&missing(&[("a", 1)])).then_nothing();
    an_order().given(reserved_story()).when(&packaged("parcel-2")).then_nothing();
}

#[test]
fn an_answer_that_this_build_does_not_know_leaves_the_question_open() {
    let unknown = PickResult { outcome: PickOutcome::Unknown, ..pick_result() };
    an_order()
        .given(picking_story())
        .when(&received(unknown))
        .then_nothing()
        .then_pending([pick(&[("a", 1), ("b", 2)])]);
    let unknown = CourierAnswer { outcome: CourierOutcome::Unknown, ..courier_answer() };
    an_order().given(packaged_story()).when(&received(unknown)).then_nothing().then_pending([dispatch("parcel-1")]);
}

#[test]
fn what_was_not_on_the_shelf_fails_the_packaging() {
    an_order()
        .given(picking_story())
        .when(&missing(&[("b", 1)]))
        .then([packaging_failed(&[("b", 1)])])
        .then_commands::<Command>([])
        .then_pending([]);
}

#[test]
fn only_what_the_order_holds_can_be_missing() {
    an_order()
        .given(picking_story())
        .when(&missing(&[("z", 4), ("b", 1), ("b", 7), ("a", -1)]))
        .then([packaging_failed(&[("b", 2)])]);
}

#[test]
fn a_parcel_on_its_way_ships_every_line() {
    an_order()
        .given(packaged_story())
        .when(&courier_took_it())
        .then([order_dispatched("parcel-1")])
        .then_commands([("a", ship("a", 1)), ("b", ship("b", 2))])
        .then_pending([]);
}

#[test]
fn a_dispatched_order_is_remembered_without_lines_and_address() {
    let order = an_order().given(dispatched_story()).state().fulfilment.clone().unwrap();
    assert_eq!((order.phase, order.lines, order.ship_to), (Phase::Dispatched, vec![], None));
}

#[test]
fn a_second_courier_answer_changes_nothing() {
    an_order().given(dispatched_story()).when(&courier_took_it()).then_nothing();
    an_order().given(picking_story()).when(&courier_took_it()).then_nothing();
}

// ── asked to be cancelled ───────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_order_that_is_not_packed_can_be_cancelled() {
    let stories: [Vec<Event>; 5] = [
        vec![],
        vec![reservation_started(&[("a", 1)]).into()],
        vec![reservation_started(&[("a", 1)]).into(), stock_short("a", 1, 0).into()],
        reserved_story(),
        picking_story(),
    ];
    for story in stories {
        let before = an_order().given(story);
        let pending = before.pending();
        before.when(&cancel_requested(1)).then([accepted(1)]).then_commands::<Command>([]).then_pending(pending);
    }
    let failed = an_order().given(picking_story()).given([packaging_failed(&[("a", 1)])]);
    failed.when(&cancel_requested(1)).then([accepted(1)]);
}

#[test]
fn a_packed_order_is_not_cancelled() {
    an_order()
        .given(packaged_story())
        .when(&cancel_requested(1))
        .then([too_late(1, "the parcel is packed")])
        .then_pending([dispatch("parcel-1")]);
    an_order().given(dispatched_story()).when(&cancel_requested(1)).then([too_late(1, "the parcel is on its way")]);
}

#[test]
fn each_request_is_answered_once() {
    let refused = an_order().given(packaged_story()).given_received(&cancel_requested(1));
    refused.clone().when(&cancel_requested(1)).then_nothing();
    refused.when(&cancel_requested(2)).then([too_late(2, "the parcel is packed")]);
    let promised = an_order().given(reserved_story()).given_received(&cancel_requested(1));
    promised.clone().when(&cancel_requested(1)).then_nothing();
    promised.when(&cancel_requested(2)).then([accepted(2)]);
}

#[test]
fn a_request_for_a_cancelled_order_needs_no_answer() {
    an_order()
        .given(reserved_story())
        .given([release_started(&[("a", 1), ("b", 2)])])
        .when(&cancel_requested(1))
        .then_nothing();
    an_order()
        .given([Event::from(release_started(&[])), stock_released(&[], &[]).into()])
        .when(&cancel_requested(1))
        .then_nothing();
}

#[test]
fn nothing_more_is_held_picked_or_packed_once_a_cancellation_is_accepted() {
    an_order().given([accepted(1)]).when(&placed(&[("a", 1)])).then_nothing();
    an_order().given(reserved_story()).given([accepted(1)]).when(&paid()).then_nothing();
    an_order()
        .given([Event::from(reservation_started(&[("a", 1), ("b", 2)])), accepted(1).into()])
        .when(&held("a", 1))
        .then([line_held("a", 1)])
        .then_commands::<Command>([]);
    an_order()
        .given([Event::from(reservation_started(&[("a", 1)])), accepted(1).into()])
        .when(&held("a", 1))
        .then([line_held("a", 1)])
        .then_commands::<Command>([]);
    an_order()
        .given(picking_story())
        .given([accepted(1)])
        .when(&packaged("parcel-1"))
        .then([order_packaged("parcel-1", &[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([]);
}

#[test]
fn what_was_held_until_the_cancel_is_given_back_with_it() {
    let lines = [("a", 1), ("b", 2)];
    let both = [("a", free("a", 1)), ("b", free("b", 2))];
    an_order()
        .given(reserved_story())
        .given([accepted(1)])
        .when(&cancelled())
        .then([release_started(&lines)])
        .then_commands(both.clone());
    an_order()
        .given(picking_story())
        .given([Event::from(accepted(1)), order_packaged("parcel-1", &lines).into()])
        .when(&cancelled())
        .then([release_started(&lines)])
        .then_commands(both);
    an_order()
        .given(picking_story())
        .given([Event::from(accepted(1)), packaging_failed(&[("b", 1)]).into()])
        .when(&cancelled())
        .then([release_started(&lines)])
        .then_commands([("a", Command::from(free("a", 1))), ("b", write_off("b", 1).into())]);
    an_order()
        .given([accepted(1)])
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()]);
}

// ── cancelled ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_order_cancelled_before_it_is_placed_is_released_and_never_held() {
    an_order()
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()])
        .then_commands::<Command>([])
        .and()
        .when(&placed(&[("a", 1)]))
        .then_nothing();
}

#[test]
fn an_order_cancelled_after_only_its_payment_was_heard_is_released() {
    an_order()
        .given([payment_noted()])
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()]);
}

#[test]
fn a_cancelled_reserved_order_frees_every_line() {
    an_order()
        .given(reserved_story())
        .when(&cancelled())
        .then([release_started(&[("a", 1), ("b", 2)])])
        .then_commands([("a", free("a", 1)), ("b", free("b", 2))]);
}

#[test]
fn the_stock_is_released_when_the_last_line_is() {
    let releasing = an_order().given(reserved_story()).given([release_started(&[("a", 1), ("b", 2)])]);
    releasing
        .when(&freed("b", 2))
        .then([line_released("b", 2, 0)])
        .and()
        .when(&freed("a", 1))
        .then([Event::from(line_released("a", 1, 0)), stock_released(&[("a", 1), ("b", 2)], &[]).into()])
        .and()
        .when(&freed("a", 1))
        .then_nothing();
}

#[test]
fn a_cancelled_short_order_frees_what_it_held() {
    an_order()
        .given([Event::from(reservation_started(&[("a", 1), ("b", 2)])), line_held("a", 1).into()])
        .given([stock_short("b", 2, 1)])
        .when(&cancelled())
        .then([release_started(&[("a", 1)])])
        .then_commands([("a", free("a", 1))]);
}

#[test]
fn a_short_order_that_held_nothing_is_released_at_once() {
    an_order()
        .given([Event::from(reservation_started(&[("a", 1)])), stock_short("a", 1, 0).into()])
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()]);
}

#[test]
fn a_hold_in_flight_at_the_cancel_is_freed_when_it_is_answered() {
    let cancelled_while_asked = an_order().given([reservation_started(&[("a", 1), ("b", 2)])]).when(&cancelled());
    cancelled_while_asked
        .then([release_started(&[])])
        .then_commands::<Command>([])
        .and()
        .when(&held("a", 1))
        .then([line_held("a", 1)])
        .then_commands([("a", free("a", 1))])
        .and()
        .when(&freed("a", 1))
        .then([Event::from(line_released("a", 1, 0)), stock_released(&[("a", 1)], &[]).into()]);
}

#[test]
fn a_hold_in_flight_at_the_cancel_that_is_short_ends_the_release() {
    an_order()
        .given([Event::from(reservation_started(&[("a", 1)])), release_started(&[]).into()])
        .when(&short("a", 1, 0))
        .then([Event::from(stock_short("a", 1, 0)), stock_released(&[], &[]).into()]);
}

#[test]
fn what_was_missing_is_written_off_and_the_rest_freed() {
    an_order()
        .given(picking_story())
        .given([packaging_failed(&[("b", 1)])])
        .when(&cancelled())
        .then([release_started(&[("a", 1), ("b", 2)])])
        .then_commands([("a", Command::from(free("a", 1))), ("b", write_off("b", 1).into())])
        .and()
        .when(&written_off("b", 1, 1))
        .then([line_released("b", 1, 1)])
        .and()
        .when(&freed("a", 1))
        .then([Event::from(line_released("a", 1, 0)), stock_released(&[("a", 1), ("b", 1)], &[("b", 1)]).into()]);
}

#[test]
fn nothing_is_given_back_while_the_floor_is_at_work() {
    an_order()
        .given(picking_story())
        .when(&cancelled())
        .then([release_started(&[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([pick(&[("a", 1), ("b", 2)])]);
}

#[test]
fn a_parcel_packed_after_the_cancel_is_unpacked_and_never_dispatched() {
    an_order()
        .given(picking_story())
        .given([release_started(&[("a", 1), ("b", 2)])])
        .when(&packaged("parcel-1"))
        .then([order_packaged("parcel-1", &[("a", 1), ("b", 2)])])
        .then_commands([("a", free("a", 1)), ("b", free("b", 2))])
        .then_pending([]);
}

#[test]
fn what_is_found_missing_after_the_cancel_is_written_off() {
    an_order()
        .given(picking_story())
        .given([release_started(&[("a", 1), ("b", 2)])])
        .when(&missing(&[("a", 1)]))
        .then([packaging_failed(&[("a", 1)])])
        .then_commands([("a", Command::from(write_off("a", 1))), ("b", free("b", 2).into())]);
}

#[test]
fn a_parcel_that_left_in_spite_of_the_cancel_is_shipped_and_nothing_freed() {
    an_order()
        .given(packaged_story())
        .when(&cancelled())
        .then([release_started(&[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([withdraw(1)])
        .and()
        .when(&courier_took_it())
        .then([Event::from(order_dispatched("parcel-1")), stock_released(&[], &[]).into()])
        .then_commands([("a", ship("a", 1)), ("b", ship("b", 2))]);
}

#[test]
fn an_order_cancelled_after_its_dispatch_has_nothing_to_release() {
    an_order()
        .given(dispatched_story())
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()])
        .then_commands::<Command>([]);
}

#[test]
fn a_second_cancel_changes_nothing() {
    an_order()
        .given(reserved_story())
        .given([release_started(&[("a", 1), ("b", 2)])])
        .when(&cancelled())
        .then_nothing();
    an_order()
        .given([Event::from(release_started(&[])), stock_released(&[], &[]).into()])
        .when(&cancelled())
        .then_nothing();
}

#[test]
fn a_released_order_is_remembered_without_lines_and_address() {
    let released = an_order()
        .given(picking_story())
        .given([Event::from(packaging_failed(&[("a", 1)])), release_started(&[("a", 1), ("b", 2)]).into()])
        .given([line_released("a", 0, 1), line_released("b", 2, 0)])
        .given([stock_released(&[("b", 2)], &[("a", 1)])]);
    let order = released.state().fulfilment.clone().unwrap();
    assert_eq!((order.release, order.lines, order.ship_to), (Release::Done, vec![], None));
    assert_eq!(order.phase, Phase::PackagingFailed { missing: vec![], detail: String::new() });
}

#[test]
fn an_answer_nobody_waits_for_changes_nothing() {
    an_order().when(&freed("a", 1)).then_nothing();
    an_order().when(&written_off("a", 1, 0)).then_nothing();
    an_order().when(&packaged("parcel-1")).then_nothing();
    an_order().when(&courier_took_it()).then_nothing();
    an_order().when(&short("a", 1, 0)).then_nothing();
    an_order().given(reserved_story()).when(&freed("a", 1)).then_nothing();
}

// ── items ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_delivery_is_received_once() {
    an_item()
        .when(&receive("d-1", 5))
        .then([goods_received("d-1", 5)])
        .and()
        .when(&receive("d-1", 5))
        .then_nothing()
        .and()
        .when(&receive("d-2", 5))
        .then([goods_received("d-2", 5)]);
}

#[test]
fn a_delivery_counted_otherwise_before_is_refused() {
    an_item()
        .given([goods_received("d-1", 5)])
        .when(&receive("d-1", 6))
        .then([refused("delivery d-1 was counted with 5 pieces, not 6")]);
}

#[test]
fn a_delivery_of_nothing_is_refused() {
    for quantity in [0, -1, i32::MIN] {
        let reason = format!("the quantity of a delivery must be at least 1, not {quantity}");
        an_item().when(&receive("d-1", quantity)).then([refused(&reason)]);
    }
}

#[test]
fn free_pieces_are_held() {
    an_item()
        .given([goods_received("d-1", 5)])
        .when(&asked(hold("a", 5)))
        .then([item_held(5)])
        .then_commands([(ORDER, hold_result("a", 5, true, 5))]);
}

#[test]
fn more_pieces_than_are_free_are_not_held() {
    an_item()
        .given([goods_received("d-1", 5)])
        .when(&asked(hold("a", 6)))
        .then([item_short(6, 5)])
        .then_commands([(ORDER, hold_result("a", 6, false, 5))]);
    an_item()
        .when(&asked(hold("a", 1)))
        .then([item_short(1, 0)])
        .then_commands([(ORDER, hold_result("a", 1, false, 0))]);
}

#[test]
fn no_pieces_cannot_be_held() {
    an_item().given([goods_received("d-1", 5)]).when(&asked(hold("a", 0))).then([item_short(0, 5)]);
    an_item().given([goods_received("d-1", 5)]).when(&asked(hold("a", -2))).then([item_short(-2, 5)]);
}

#[test]
fn what_is_held_for_one_order_is_not_free_for_another() {
    let other = ItemHeld { order_id: "other".to_owned(), ..item_held(4) };
    an_item()
        .given([Event::from(goods_received("d-1", 5)), other.into()])
        .when(&asked(hold("a", 2)))
        .then([item_short(2, 1)]);
}

#[test]
fn a_repeated_hold_is_neither_held_nor_answered_again() {
    an_item()
        .given([Event::from(goods_received("d-1", 5)), item_held(2).into()])
        .when(&asked(hold("a", 2)))
        .then_nothing();
}

#[test]
fn freed_pieces_can_be_held_again() {
    an_item()
        .given([Event::from(goods_received("d-1", 5)), item_held(5).into()])
        .when(&asked(free("a", 5)))
        .then([item_freed(5)])
        .then_commands([(ORDER, free_result("a", 5))])
        .and()
        .when(&asked(hold("a", 5)))
        .then([item_held(5)]);
}

#[test]
fn freeing_what_is_not_held_changes_nothing_and_is_answered() {
    an_item()
        .given([goods_received("d-1", 5)])
        .when(&asked(free("a", 5)))
        .then::<Event>([])
        .then_commands([(ORDER, free_result("a", 0))]);
}

#[test]
fn shipped_pieces_are_gone() {
    let shipped = an_item()
        .given([Event::from(goods_received("d-1", 5)), item_held(2).into()])
        .when(&asked(ship("a", 2)))
        .then([item_shipped(2)])
        .then_commands::<Command>([])
        .and();
    let item = shipped.state().item.clone().unwrap();
    assert_eq!((item.free, item.held_in_all(), item.shipped, item.received()), (3, 0, 2, 5));
    shipped.when(&asked(ship("a", 2))).then_nothing();
}

#[test]
fn missing_pieces_are_written_off_and_the_rest_freed() {
    let written_off = an_item()
        .given([Event::from(goods_received("d-1", 5)), item_held(3).into()])
        .when(&asked(write_off("a", 1)))
        .then([Event::from(stock_written_off(1)), item_freed(2).into()])
        .then_commands([(ORDER, write_off_result("a", 1, 2))])
        .and();
    let item = written_off.state().item.clone().unwrap();
    assert_eq!((item.free, item.held_in_all(), item.written_off, item.received()), (4, 0, 1, 5));
}

#[test]
fn no_more_is_written_off_than_is_held() {
    an_item()
        .given([Event::from(goods_received("d-1", 5)), item_held(2).into()])
        .when(&asked(write_off("a", 9)))
        .then([stock_written_off(2)])
        .then_commands([(ORDER, write_off_result("a", 2, 0))]);
    an_item()
        .given([goods_received("d-1", 5)])
        .when(&asked(write_off("a", 9)))
        .then::<Event>([])
        .then_commands([(ORDER, write_off_result("a", 0, 0))]);
}

#[test]
fn an_item_forgets_the_orders_it_has_served() {
    let mut served = an_item().given([goods_received("d-1", 1_000)]);
    for order in 0..1_000 {
        let order_id = format!("order-{order}");
        let hold = HoldItem { order_id: order_id.clone(), ..hold("a", 1) };
        let ship = ShipItem { order_id, ..ship("a", 1) };
        served = served.given_received(&asked(hold)).given_received(&asked(ship));
    }
    let item = served.state().item.clone().unwrap();
    assert_eq!((item.free, item.shipped, item.held.len()), (0, 1_000, 0));
}

// ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_order_called_like_a_sku_keeps_its_stock() {
    let both = an_item().given([Event::from(goods_received("d-1", 5)), reservation_started(&[("a", 1)]).into()]);
    assert_eq!(both.state().item.as_ref().map(|item| item.free), Some(5));
    assert_eq!(both.state().fulfilment.as_ref().map(|order| order.lines[0].stock), Some(LineStock::Asked));
}

#[test]
fn facts_end_alike_in_every_order() {
    // A hold's answer follows its question, so the two stand in one step: the item answers as soon as it is asked.
    let end = |scenario: &Scenario<Warehouse>| answer_holds(scenario.clone()).pending();
    in_every_pairwise_order(&an_order(), &[placed(&[("a", 1), ("b", 2)]), paid()], end);
    let released = |scenario: &Scenario<Warehouse>| {
        let after = free_all(answer_holds(scenario.clone()));
        (after.state().fulfilment.as_ref().map(|order| (order.release, order.lines.clone())), after.pending())
    };
    in_every_pairwise_order(&an_order(), &[placed(&[("a", 1), ("b", 2)]), paid(), cancelled()], released);
    // Whoever is first, the courier's no or the cancel: the goods are free again.
    let facts = [courier_refused(1), cancelled()];
    in_every_pairwise_order(&an_order().given(packaged_story()), &facts, released);
    let facts = [placed(&[("a", 1), ("b", 2)]), cancel_requested(1), paid(), cancelled()];
    in_every_pairwise_order(&an_order(), &facts, released);
    let released_and_done = released(&an_order().given_received(&placed(&[("a", 1)])).given_received(&cancelled()));
    assert_eq!(released_and_done, (Some((Release::Done, vec![])), vec![]));
}

#[test]
fn effect_keys_tell_requests_apart_and_stay_the_same() {
    use runtime::Effect as _;
    assert_eq!(pick(&[("a", 1)]).key(), format!("pick-{ORDER}"));
    assert_eq!(dispatch("parcel-1").key(), format!("dispatch-{ORDER}"));
    assert_eq!(dispatch_again(2).key(), format!("dispatch-{ORDER}-2"));
    assert_eq!(withdraw(2).key(), format!("withdrawal-of-dispatch-{ORDER}-2"));
}

#[test]
fn items_and_orders_are_told_apart_by_what_they_are_asked() {
    assert_eq!(Warehouse::default().entity(&asked(hold("a", 1))), "a");
    assert_eq!(Warehouse::default().entity(&asked(free("a", 1))), "a");
    assert_eq!(Warehouse::default().entity(&asked(ship("a", 1))), "a");
    assert_eq!(Warehouse::default().entity(&asked(write_off("a", 1))), "a");
    assert_eq!(Warehouse::default().entity(&receive("d-1", 1)), "a");
    for about_an_order in [
        placed(&[]),
        paid(),
        cancel_requested(1),
        cancelled(),
        held("a", 1),
        freed("a", 1),
        written_off("a", 1, 0),
        packaged("parcel-1"),
        courier_took_it(),
        retry_dispatch(),
        timer(1),
    ] {
        assert_eq!(Warehouse::default().entity(&about_an_order), ORDER);
    }
}

/// Answers every hold that is asked for, until none is.
fn answer_holds(mut scenario: Scenario<Warehouse>) -> Scenario<Warehouse> {
    let asked = |scenario: &Scenario<Warehouse>| {
        let order = scenario.state().fulfilment.clone()?;
        order.lines.into_iter().find(|line| line.stock == LineStock::Asked)
    };
    while let Some(line) = asked(&scenario) {
        scenario = scenario.given_received(&held(&line.sku, line.quantity));
    }
    scenario
}

/// Answers every line that is being given back.
fn free_all(mut scenario: Scenario<Warehouse>) -> Scenario<Warehouse> {
    if matches!(scenario.pending().first(), Some(Effect::Pick { .. })) {
        scenario = scenario.given_received(&packaged("parcel-1"));
    }
    let releasing = |scenario: &Scenario<Warehouse>| {
        let order = scenario.state().fulfilment.clone()?;
        order.lines.into_iter().find(|line| line.stock == LineStock::Releasing)
    };
    while let Some(line) = releasing(&scenario) {
        scenario = scenario.given_received(&freed(&line.sku, line.quantity));
    }
    scenario
}
