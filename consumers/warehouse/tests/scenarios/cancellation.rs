//! Cancelling an order: requests to cancel, and the release of its stock.

use super::*;

#[test]
fn an_order_that_is_not_packed_can_be_cancelled() {
    let histories: [Vec<Event>; 5] = [
        vec![],
        vec![reservation_started(&[("a", 1)]).into()],
        vec![reservation_started(&[("a", 1)]).into(), stock_short("a", 1, 0).into()],
        reserved_events(),
        picking_events(),
    ];
    for events in histories {
        let before = an_order().given(events);
        let pending = before.pending();
        before.when(&cancel_requested(1)).then([accepted(1)]).then_commands::<Command>([]).then_pending(pending);
    }
    let failed = an_order().given(picking_events()).given([packaging_failed(&[("a", 1)])]);
    failed.when(&cancel_requested(1)).then([accepted(1)]);
}

#[test]
fn a_packed_order_is_not_cancelled() {
    an_order()
        .given(packaged_events())
        .when(&cancel_requested(1))
        .then([too_late(1, "the parcel is packed")])
        .then_pending([dispatch("parcel-1")]);
    an_order().given(dispatched_events()).when(&cancel_requested(1)).then([too_late(1, "the parcel is on its way")]);
}

#[test]
fn each_request_is_answered_once() {
    let refused = an_order().given(packaged_events()).given_received(&cancel_requested(1));
    refused.clone().when(&cancel_requested(1)).then_nothing();
    refused.when(&cancel_requested(2)).then([too_late(2, "the parcel is packed")]);
    let accepted_once = an_order().given(reserved_events()).given_received(&cancel_requested(1));
    accepted_once.clone().when(&cancel_requested(1)).then_nothing();
    accepted_once.when(&cancel_requested(2)).then([accepted(2)]);
}

#[test]
fn a_request_for_a_cancelled_order_needs_no_answer() {
    an_order()
        .given(reserved_events())
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
    an_order().given(reserved_events()).given([accepted(1)]).when(&paid()).then_nothing();
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
        .given(picking_events())
        .given([accepted(1)])
        .when(&packaged("parcel-1"))
        .then([order_packaged("parcel-1", &[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([]);
}

#[test]
fn items_held_until_the_cancellation_are_released_with_it() {
    let lines = [("a", 1), ("b", 2)];
    let both = [("a", free("a", 1)), ("b", free("b", 2))];
    an_order()
        .given(reserved_events())
        .given([accepted(1)])
        .when(&cancelled())
        .then([release_started(&lines)])
        .then_commands(both.clone());
    an_order()
        .given(picking_events())
        .given([Event::from(accepted(1)), order_packaged("parcel-1", &lines).into()])
        .when(&cancelled())
        .then([release_started(&lines)])
        .then_commands(both);
    an_order()
        .given(picking_events())
        .given([Event::from(accepted(1)), packaging_failed(&[("b", 1)]).into()])
        .when(&cancelled())
        .then([release_started(&lines)])
        .then_commands([("a", Command::from(free("a", 1))), ("b", write_off("b", 1).into())]);
    an_order()
        .given([accepted(1)])
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()]);
}

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
fn an_order_cancelled_after_only_its_payment_is_released() {
    an_order()
        .given([payment_noted()])
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()]);
}

#[test]
fn a_cancelled_reserved_order_frees_every_line() {
    an_order()
        .given(reserved_events())
        .when(&cancelled())
        .then([release_started(&[("a", 1), ("b", 2)])])
        .then_commands([("a", free("a", 1)), ("b", free("b", 2))]);
}

#[test]
fn the_stock_is_released_with_its_last_line() {
    let releasing = an_order().given(reserved_events()).given([release_started(&[("a", 1), ("b", 2)])]);
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
fn missing_items_are_written_off_and_the_others_freed() {
    an_order()
        .given(picking_events())
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
fn nothing_is_released_while_picking_is_in_progress() {
    an_order()
        .given(picking_events())
        .when(&cancelled())
        .then([release_started(&[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([pick(&[("a", 1), ("b", 2)])]);
}

#[test]
fn a_parcel_packed_after_the_cancel_is_unpacked_and_never_dispatched() {
    an_order()
        .given(picking_events())
        .given([release_started(&[("a", 1), ("b", 2)])])
        .when(&packaged("parcel-1"))
        .then([order_packaged("parcel-1", &[("a", 1), ("b", 2)])])
        .then_commands([("a", free("a", 1)), ("b", free("b", 2))])
        .then_pending([]);
}

#[test]
fn items_found_missing_after_the_cancellation_are_written_off() {
    an_order()
        .given(picking_events())
        .given([release_started(&[("a", 1), ("b", 2)])])
        .when(&missing(&[("a", 1)]))
        .then([packaging_failed(&[("a", 1)])])
        .then_commands([("a", Command::from(write_off("a", 1))), ("b", free("b", 2).into())]);
}

#[test]
fn a_parcel_that_left_despite_the_cancellation_is_shipped_and_nothing_is_freed() {
    an_order()
        .given(packaged_events())
        .when(&cancelled())
        .then([release_started(&[("a", 1), ("b", 2)])])
        .then_commands::<Command>([])
        .then_pending([withdraw(1)])
        .and()
        .when(&courier_took_parcel())
        .then([Event::from(order_dispatched("parcel-1")), stock_released(&[], &[]).into()])
        .then_commands([("a", ship("a", 1)), ("b", ship("b", 2))]);
}

#[test]
fn an_order_cancelled_after_its_dispatch_has_nothing_to_release() {
    an_order()
        .given(dispatched_events())
        .when(&cancelled())
        .then([Event::from(release_started(&[])), stock_released(&[], &[]).into()])
        .then_commands::<Command>([]);
}

#[test]
fn a_second_cancel_changes_nothing() {
    an_order()
        .given(reserved_events())
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
        .given(picking_events())
        .given([Event::from(packaging_failed(&[("a", 1)])), release_started(&[("a", 1), ("b", 2)]).into()])
        .given([line_released("a", 0, 1), line_released("b", 2, 0)])
        .given([stock_released(&[("b", 2)], &[("a", 1)])]);
    let order = released.state().fulfilment.clone().unwrap();
    assert_eq!((order.release, order.lines, order.ship_to), (ReleaseStatus::Done, vec![], None));
    assert_eq!(order.phase, FulfilmentPhase::PackagingFailed { missing: vec![], detail: String::new() });
}

#[test]
fn an_answer_that_is_not_pending_changes_nothing() {
    an_order().when(&freed("a", 1)).then_nothing();
    an_order().when(&written_off("a", 1, 0)).then_nothing();
    an_order().when(&packaged("parcel-1")).then_nothing();
    an_order().when(&courier_took_parcel()).then_nothing();
    an_order().when(&short("a", 1, 0)).then_nothing();
    an_order().given(reserved_events()).when(&freed("a", 1)).then_nothing();
}
