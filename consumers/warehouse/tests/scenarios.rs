//! Every rule of the warehouse: given events, when an input, then events. Each input is handled twice.

#[path = "scenarios/cancellation.rs"]
mod cancellation;
mod common;
#[path = "scenarios/courier.rs"]
mod courier;
#[path = "scenarios/items.rs"]
mod items;

use common::*;
use runtime::{
    Decider,
    testing::{NOW_MS, Scenario, in_every_pairwise_order},
};
use warehouse::{
    Warehouse,
    effects::WarehouseCall,
    events::*,
    evolve::{FulfilmentPhase, LineStock, ReleaseStatus},
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
fn a_placed_order_requests_its_first_item_in_sku_order() {
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
fn one_short_line_makes_the_order_short_and_requests_no_more() {
    an_order()
        .given([Event::from(reservation_started(&[("a", 1), ("b", 2), ("c", 1)])), line_held("a", 1).into()])
        .when(&short("b", 2, 1))
        .then([stock_short("b", 2, 1)])
        .then_commands::<Command>([]);
}

#[test]
fn an_answer_about_a_line_without_a_pending_hold_changes_nothing() {
    an_order().given([reservation_started(&[("a", 1), ("b", 2)])]).when(&short("b", 2, 0)).then_nothing();
}

#[test]
fn an_item_held_without_being_wanted_is_freed() {
    an_order().when(&held("a", 1)).then::<Event>([]).then_commands([("a", free("a", 1))]);
    an_order().given(dispatched_events()).when(&held("a", 1)).then::<Event>([]).then_commands([("a", free("a", 1))]);
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
    an_order().given(reserved_events()).when(&placed(&[("a", 1), ("b", 2)])).then_nothing();
}

// ── picking and dispatch ────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_paid_reserved_order_is_picked() {
    an_order()
        .given(reserved_events())
        .when(&paid())
        .then([picking_started(&[("a", 1), ("b", 2)])])
        .then_pending([pick(&[("a", 1), ("b", 2)])]);
}

#[test]
fn a_payment_received_before_the_order_is_noted() {
    an_order().when(&paid()).then([payment_noted()]);
    an_order().given([payment_noted()]).when(&placed(&[("a", 1)])).then([reservation_started(&[("a", 1)])]);
}

#[test]
fn a_payment_received_while_stock_is_being_held_starts_picking_once_it_is_held() {
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
        .given(picking_events())
        .when(&packaged("parcel-1"))
        .then([order_packaged("parcel-1", &[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([dispatch("parcel-1")]);
}

#[test]
fn a_second_pick_result_changes_nothing() {
    an_order().given(packaged_events()).when(&packaged("parcel-2")).then_nothing();
    an_order().given(packaged_events()).when(&missing(&[("a", 1)])).then_nothing();
    an_order().given(reserved_events()).when(&packaged("parcel-2")).then_nothing();
}

#[test]
fn an_unknown_answer_leaves_the_call_pending() {
    let unknown = PickResult { outcome: PickOutcome::Unknown, ..pick_result() };
    an_order()
        .given(picking_events())
        .when(&received(unknown))
        .then_nothing()
        .then_pending([pick(&[("a", 1), ("b", 2)])]);
    let unknown = CourierAnswer { outcome: CourierOutcome::Unknown, ..courier_answer() };
    an_order().given(packaged_events()).when(&received(unknown)).then_nothing().then_pending([dispatch("parcel-1")]);
}

#[test]
fn a_missing_item_fails_the_packaging() {
    an_order()
        .given(picking_events())
        .when(&missing(&[("b", 1)]))
        .then([packaging_failed(&[("b", 1)])])
        .then_commands::<Command>([])
        .then_pending([]);
}

#[test]
fn only_what_the_order_holds_can_be_missing() {
    an_order()
        .given(picking_events())
        .when(&missing(&[("z", 4), ("b", 1), ("b", 7), ("a", -1)]))
        .then([packaging_failed(&[("b", 2)])]);
}

#[test]
fn a_parcel_on_its_way_ships_every_line() {
    an_order()
        .given(packaged_events())
        .when(&courier_took_parcel())
        .then([order_dispatched("parcel-1")])
        .then_commands([("a", ship("a", 1)), ("b", ship("b", 2))])
        .then_pending([]);
}

#[test]
fn a_dispatched_order_is_remembered_without_lines_and_address() {
    let order = an_order().given(dispatched_events()).state().fulfilment.clone().unwrap();
    assert_eq!((order.phase, order.lines, order.ship_to), (FulfilmentPhase::Dispatched, vec![], None));
}

#[test]
fn a_second_courier_answer_changes_nothing() {
    an_order().given(dispatched_events()).when(&courier_took_parcel()).then_nothing();
    an_order().given(picking_events()).when(&courier_took_parcel()).then_nothing();
}

// ── orders and items ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_order_id_that_equals_a_sku_keeps_the_stock_of_the_sku() {
    let both = an_item().given([Event::from(goods_received("d-1", 5)), reservation_started(&[("a", 1)]).into()]);
    assert_eq!(both.state().item.as_ref().map(|item| item.free), Some(5));
    assert_eq!(both.state().fulfilment.as_ref().map(|order| order.lines[0].stock), Some(LineStock::Requested));
}

#[test]
fn facts_end_in_the_same_state_in_every_order() {
    // The answer to a hold follows its request in one step: the item answers at once.
    let end = |scenario: &Scenario<Warehouse>| answer_holds(scenario.clone()).pending();
    in_every_pairwise_order(&an_order(), &[placed(&[("a", 1), ("b", 2)]), paid()], end);
    let released = |scenario: &Scenario<Warehouse>| {
        let after = free_all(answer_holds(scenario.clone()));
        (after.state().fulfilment.as_ref().map(|order| (order.release, order.lines.clone())), after.pending())
    };
    in_every_pairwise_order(&an_order(), &[placed(&[("a", 1), ("b", 2)]), paid(), cancelled()], released);
    // Whichever comes first, the refusal of the courier or the cancellation: the goods are free again.
    let facts = [courier_refused(1), cancelled()];
    in_every_pairwise_order(&an_order().given(packaged_events()), &facts, released);
    let facts = [placed(&[("a", 1), ("b", 2)]), cancel_requested(1), paid(), cancelled()];
    in_every_pairwise_order(&an_order(), &facts, released);
    let released_and_done = released(&an_order().given_received(&placed(&[("a", 1)])).given_received(&cancelled()));
    assert_eq!(released_and_done, (Some((ReleaseStatus::Done, vec![])), vec![]));
}

#[test]
fn call_keys_are_distinct_and_stable() {
    use runtime::Effect as _;
    assert_eq!(pick(&[("a", 1)]).key(), format!("pick-{ORDER}"));
    assert_eq!(dispatch("parcel-1").key(), format!("dispatch-{ORDER}"));
    assert_eq!(dispatch_again(2).key(), format!("dispatch-{ORDER}-2"));
    assert_eq!(withdraw(2).key(), format!("withdrawal-of-dispatch-{ORDER}-2"));
}

#[test]
fn an_input_determines_whether_its_entity_is_an_item_or_an_order() {
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
        courier_took_parcel(),
        retry_dispatch(),
        timer(1),
    ] {
        assert_eq!(Warehouse::default().entity(&about_an_order), ORDER);
    }
}

/// Answers every hold until none is pending.
fn answer_holds(mut scenario: Scenario<Warehouse>) -> Scenario<Warehouse> {
    let asked = |scenario: &Scenario<Warehouse>| {
        let order = scenario.state().fulfilment.clone()?;
        order.lines.into_iter().find(|line| line.stock == LineStock::Requested)
    };
    while let Some(line) = asked(&scenario) {
        scenario = scenario.given_received(&held(&line.sku, line.quantity));
    }
    scenario
}

/// Answers every release until none is pending.
fn free_all(mut scenario: Scenario<Warehouse>) -> Scenario<Warehouse> {
    if matches!(scenario.pending().first(), Some(WarehouseCall::Pick { .. })) {
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
