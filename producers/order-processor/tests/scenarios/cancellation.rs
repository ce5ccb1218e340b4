//! Cancelling, delaying and giving up an order.

use order_processor::{
    OrderProcessor,
    events::{
        AttentionNeed, CancelReason, CancelRequester, Event, OrderCancellationRefused, OrderCancellationRequested,
    },
    evolve::OrderPhase,
    inbox::PlaceOrder,
};
use runtime::testing::{Scenario, in_every_pairwise_order, received};

use super::fixtures::*;

#[test]
fn a_request_to_cancel_an_open_order_is_sent_to_the_warehouse() {
    for scenario in [placed(), paid(), picking()] {
        scenario.when(&cancel()).then([cancel_requested(1)]).and().when(&cancel()).then_nothing();
    }
}

#[test]
fn a_request_that_the_warehouse_accepts_cancels_the_order() {
    for scenario in [placed(), paid(), picking()] {
        scenario
            .given([cancel_requested(1)])
            .when(&cancel_accepted(1))
            .then([order_cancelled(CancelReason::CustomerRequest, "the customer asked: bought twice")])
            .and()
            .when(&cancel())
            .then_nothing();
    }
    let without_reason = OrderCancellationRequested { reason: String::new(), ..cancel_requested(1) };
    placed()
        .given([without_reason])
        .when(&cancel_accepted(1))
        .then([order_cancelled(CancelReason::CustomerRequest, "the customer asked")]);
}

#[test]
fn an_order_continues_after_a_refusal_and_can_be_cancelled_again() {
    picking()
        .given([cancel_requested(1)])
        .when(&cancel_too_late(1))
        .then([cancel_refused(1, "the parcel is packed")])
        .and()
        .when(&cancel())
        .then([cancel_requested(2)]);
}

#[test]
fn an_answer_to_another_request_changes_nothing() {
    let second = picking().given([Event::from(cancel_requested(1)), cancel_refused(1, "").into()]);
    let second = second.given([cancel_requested(2)]);
    for late in [cancel_too_late(1), cancel_accepted(1), cancel_accepted(3)] {
        second.clone().when(&late).then_nothing();
        picking().when(&late).then_nothing();
    }
}

#[test]
fn a_dispatched_parcel_refuses_the_open_request() {
    picking()
        .given([cancel_requested(1)])
        .when(&dispatched())
        .then([Event::from(order_shipped()), cancel_refused(1, "the parcel is on its way").into()])
        .and()
        .when(&cancel_too_late(1))
        .then_nothing();
}

#[test]
fn a_fact_that_stops_an_order_ends_the_open_request() {
    placed()
        .given([cancel_requested(1)])
        .when(&payment_declined())
        .then([order_cancelled(CancelReason::PaymentDeclined, "insufficient funds")])
        .and()
        .when(&cancel_accepted(1))
        .then_nothing();
}

#[test]
fn a_request_that_is_too_late_is_refused() {
    shipped().when(&cancel()).then([cancel_refused(0, "the parcel is on its way")]);
    new().when(&cancel()).then([command_refused("CancelOrder", "no order of this id was placed")]);
    let completed = shipped().given([order_completed()]);
    completed.when(&cancel()).then([command_refused("CancelOrder", "the order is completed")]);
    let command = PlaceOrder { customer: None, ..place_order() };
    let rejected = new().given_received(&received(ORDER, command));
    rejected.when(&cancel()).then([command_refused("CancelOrder", "the order was rejected")]);
}

#[test]
fn a_refused_request_does_not_prevent_a_later_order() {
    new().given_received(&cancel()).when(&received(ORDER, place_order())).then([order_placed()]);
}

#[test]
fn an_operator_gives_up_an_order_with_the_consent_of_the_warehouse() {
    let requested = OrderCancellationRequested {
        requested_by: CancelRequester::Operator,
        reason: "no courier goes there".to_owned(),
        ..cancel_requested(1)
    };
    picking()
        .when(&give_up())
        .then([requested.clone()])
        .and()
        .when(&cancel_accepted(1))
        .then([order_cancelled(CancelReason::GivenUp, "an operator gave it up: no courier goes there")]);
    let refused = OrderCancellationRefused {
        requested_by: CancelRequester::Operator,
        ..cancel_refused(1, "the parcel is packed")
    };
    picking().given([requested]).when(&cancel_too_late(1)).then([refused]);
    new().when(&give_up()).then([command_refused("GiveUpOrder", "no order of this id was placed")]);
}

#[test]
fn an_abandoned_payment_cancels() {
    for scenario in [placed(), paid(), picking()] {
        scenario
            .when(&payment_abandoned())
            .then([order_cancelled(CancelReason::PaymentAbandoned, "no answer in time")]);
    }
}

#[test]
fn a_delay_is_reported_once() {
    for scenario in [placed(), paid(), picking()] {
        scenario
            .when(&dispatch_delayed("no van has room"))
            .then([order_delayed()])
            .and()
            .when(&dispatch_delayed("the courier does not answer"))
            .then_nothing();
    }
}

#[test]
fn an_abandoned_dispatch_needs_a_person_once_per_attempt() {
    let needed = |attempt| needs_attention(AttentionNeed::DispatchAbandoned, attempt, "no van has room");
    for scenario in [placed(), paid(), picking()] {
        let reported = scenario.when(&dispatch_abandoned(5)).then([needed(5)]).and();
        reported.clone().when(&dispatch_abandoned(5)).then_nothing();
        reported.clone().when(&dispatch_abandoned(4)).then_nothing();
        reported.when(&dispatch_abandoned(10)).then([needed(10)]);
    }
}

#[test]
fn a_refused_refund_needs_a_person_although_the_order_is_cancelled() {
    let needed = |attempt| needs_attention(AttentionNeed::RefundFailed, attempt, "the card is closed");
    let cancelled = paid().given([order_cancelled(CancelReason::OutOfStock, "")]);
    let reported = cancelled.when(&refund_failed(1)).then([needed(1)]).and();
    reported.clone().when(&refund_failed(1)).then_nothing();
    reported.when(&refund_failed(2)).then([needed(2)]);
}

#[test]
fn issues_end_in_the_same_phase_in_every_pairwise_order() {
    let end = |after: &Scenario<OrderProcessor>| after.state().clone();
    let delayed = dispatch_delayed("no van has room");
    let facts =
        [payment_taken(), picking_started(), delayed.clone(), dispatch_abandoned(5), dispatched(), points_awarded()];
    in_every_pairwise_order(&placed(), &facts, |after| after.state().phase);
    let given_up = [picking_started(), delayed, dispatch_abandoned(5), cancel_accepted(1)];
    let requested = paid().given([cancel_requested(1)]);
    in_every_pairwise_order(&requested, &given_up, |after| after.state().phase);
    let refused = [payment_taken(), payment_abandoned(), refund_failed(1)];
    in_every_pairwise_order(&placed(), &refused, end);
}

#[test]
fn a_refused_cancellation_ends_in_the_same_state_in_every_pairwise_order() {
    let requested = placed().given([cancel_requested(1)]);
    let facts = [payment_taken(), picking_started(), cancel_too_late(1), dispatched(), points_awarded()];
    in_every_pairwise_order(&requested, &facts, |after| after.state().clone());
    let after = facts.iter().rev().fold(requested, Scenario::given_received);
    assert_eq!((after.state().phase, &after.state().cancel_request), (OrderPhase::Completed, &None));
}

#[test]
fn an_accepted_cancellation_ends_in_the_same_state_in_every_pairwise_order() {
    let requested = placed().given([cancel_requested(1)]);
    for fact in [payment_taken(), stock_short(), payment_declined(), cancel()] {
        in_every_pairwise_order(&requested, &[fact, cancel_accepted(1)], |after| after.state().clone());
    }
    let facts = [payment_taken(), picking_started(), cancel_accepted(1), packaging_failed()];
    in_every_pairwise_order(&requested, &facts, |after| after.state().clone());
}
