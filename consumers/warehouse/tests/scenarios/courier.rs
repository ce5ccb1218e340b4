//! Dispatches that the courier does not take: refused, unanswered, retried and given up.

use super::*;

const PAUSE: i64 = 60_000;
const NO_ROOM: &str = "no van has room";

fn a_packed_order() -> Scenario<Warehouse> {
    an_order().given(packaged_events())
}

/// A warehouse that abandons the dispatch after the first attempt.
fn an_abandoned_dispatch() -> Scenario<Warehouse> {
    Scenario::of(Warehouse { dispatch_attempts: 1, ..Warehouse::default() }).given(abandoned_events())
}

#[test]
fn a_refused_attempt_is_followed_by_the_next_after_a_pause() {
    let next = NOW_MS + PAUSE;
    let pausing = a_packed_order()
        .when(&courier_refused(1))
        .then([dispatch_delayed(1, NO_ROOM, Some(next))])
        .then_pending([])
        .and();
    assert_eq!(pausing.wake_at(), Some(next));
    pausing.when(&timer(next)).then([dispatch_requested(2)]).then_pending([dispatch_again(2)]);
}

#[test]
fn each_pause_is_twice_as_long_as_the_one_before_up_to_an_hour() {
    let mut pauses = Vec::new();
    let mut order = Scenario::of(Warehouse { dispatch_attempts: 20, ..Warehouse::default() }).given(packaged_events());
    for attempt in 1..=10 {
        order = order.given_received(&courier_refused(attempt));
        let until = order.wake_at().unwrap();
        pauses.push((until - NOW_MS) / PAUSE);
        order = order.given_received(&timer(until));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
}

#[test]
fn the_last_refused_attempt_abandons_the_dispatch() {
    let mut order = a_packed_order();
    for attempt in 1..5 {
        order = order.given_received(&courier_refused(attempt));
        let until = order.wake_at().unwrap();
        order = order.given_received(&timer(until));
    }
    let abandoned = order.when(&courier_refused(5)).then([dispatch_abandoned(5, NO_ROOM)]).then_pending([]).and();
    assert_eq!(abandoned.wake_at(), None);
}

#[test]
fn an_unanswered_attempt_is_withdrawn_before_it_counts_as_refused() {
    let why = "the courier has not answered in time";
    assert_eq!(a_packed_order().wake_at(), Some(ANSWER_BY));
    let withdrawing = a_packed_order()
        .when(&timer(ANSWER_BY))
        .then([dispatch_delayed(1, why, None)])
        .then_pending([withdraw(1)])
        .and();
    assert_eq!(withdrawing.wake_at(), None);
    withdrawing.clone().when(&courier_withdrew(1)).then([dispatch_delayed(
        1,
        "the courier did not answer in time",
        Some(NOW_MS + PAUSE),
    )]);
    withdrawing.clone().when(&courier_refused(1)).then([dispatch_delayed(1, NO_ROOM, Some(NOW_MS + PAUSE))]);
    withdrawing.when(&courier_took_parcel()).then([order_dispatched("parcel-1")]).then_pending([]);
}

#[test]
fn a_timer_that_is_not_pending_changes_nothing() {
    for events in [vec![], picking_events(), dispatched_events(), abandoned_events()] {
        an_order().given(events).when(&timer(ANSWER_BY)).then_nothing();
    }
    a_packed_order().when(&timer(NOW_MS)).then_nothing();
    a_packed_order().given_received(&courier_refused(1)).when(&timer(ANSWER_BY)).then_nothing();
}

#[test]
fn an_answer_about_an_earlier_attempt_changes_nothing() {
    let second = a_packed_order().given_received(&courier_refused(1)).given_received(&timer(NOW_MS + PAUSE));
    for late in [courier_refused(1), courier_withdrew(1), courier_took_parcel()] {
        second.clone().when(&late).then_nothing().then_pending([dispatch_again(2)]);
        an_abandoned_dispatch().when(&late).then_nothing();
    }
}

#[test]
fn an_operator_retries_an_abandoned_dispatch_for_a_new_round() {
    let retried = an_abandoned_dispatch()
        .when(&retry_dispatch())
        .then([dispatch_requested(2)])
        .then_pending([dispatch_again(2)])
        .and();
    retried.clone().when(&courier_refused(2)).then([dispatch_abandoned(2, NO_ROOM)]);
    let patient = an_order().given(abandoned_events()).given([dispatch_requested(2)]);
    patient.when(&courier_refused(2)).then([dispatch_delayed(2, NO_ROOM, Some(NOW_MS + PAUSE))]);
    let taken = CourierAnswer { attempt: 2, ..courier_answer() };
    retried.when(&received(taken)).then([order_dispatched("parcel-1")]).then_pending([]);
}

#[test]
fn a_retry_without_an_abandoned_dispatch_is_refused() {
    let refused = |order: Scenario<Warehouse>, reason: &str| {
        order.when(&retry_dispatch()).then([retry_refused(reason)]);
    };
    refused(an_order(), "no order of this id is known");
    refused(an_order().given(picking_events()), "the order is not packed");
    refused(a_packed_order(), "the dispatch is not abandoned: a call to the courier is pending");
    let pausing = a_packed_order().given_received(&courier_refused(1));
    refused(pausing, "the dispatch is not abandoned: its next attempt is waiting");
    refused(an_order().given(dispatched_events()), "the parcel is on its way");
    refused(an_abandoned_dispatch().given_received(&cancel_requested(1)), "the order is cancelled");
    refused(an_abandoned_dispatch().given_received(&cancelled()), "the order is cancelled");
}

#[test]
fn an_order_can_be_given_up_only_while_its_dispatch_is_abandoned() {
    let lines = [("a", 1), ("b", 2)];
    an_abandoned_dispatch()
        .when(&cancel_requested(1))
        .then([accepted(1)])
        .then_pending([])
        .and()
        .when(&cancelled())
        .then([release_started(&lines)])
        .then_commands([("a", free("a", 1)), ("b", free("b", 2))]);
    for order in [
        a_packed_order(),
        a_packed_order().given_received(&courier_refused(1)),
        a_packed_order().given_received(&timer(ANSWER_BY)),
        an_abandoned_dispatch().given_received(&retry_dispatch()),
    ] {
        order.when(&cancel_requested(1)).then([too_late(1, "the parcel is packed")]);
    }
}

#[test]
fn a_retry_and_a_request_to_cancel_never_both_succeed() {
    let retry_first = an_abandoned_dispatch().given_received(&retry_dispatch());
    retry_first.when(&cancel_requested(1)).then([too_late(1, "the parcel is packed")]);
    let cancel_first = an_abandoned_dispatch().given_received(&cancel_requested(1));
    cancel_first.when(&retry_dispatch()).then([retry_refused("the order is cancelled")]).then_pending([]);
}

#[test]
fn the_parcel_of_a_cancelled_order_is_unpacked_if_the_courier_does_not_have_it() {
    let lines = [("a", 1), ("b", 2)];
    let both = [("a", free("a", 1)), ("b", free("b", 2))];
    let pausing = a_packed_order().given_received(&courier_refused(1));
    let unpacked = pausing.when(&cancelled()).then([release_started(&lines)]).then_commands(both.clone()).and();
    assert_eq!(unpacked.wake_at(), None);
    for no in [courier_refused(1), courier_withdrew(1)] {
        let called_back = a_packed_order().given_received(&cancelled());
        assert_eq!(called_back.wake_at(), None);
        let outcome = called_back.when(&no).then_commands(both.clone()).then_pending([]);
        assert!(matches!(outcome.decision().events[..], [Event::DispatchAbandoned(_)]));
    }
}
