//! How an order is called off, held up and given up.

use super::*;

#[test]
fn an_open_order_that_somebody_wants_cancelled_asks_the_warehouse() {
    for scenario in [placed(), paid(), picking()] {
        scenario.when(&cancel()).then([cancel_requested(1)]).and().when(&cancel()).then_nothing();
    }
}

#[test]
fn what_the_warehouse_accepts_is_cancelled() {
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
fn what_the_warehouse_refuses_goes_on_and_may_be_asked_again() {
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
fn a_parcel_that_left_answers_the_open_request() {
    picking()
        .given([cancel_requested(1)])
        .when(&dispatched())
        .then([Event::from(order_shipped()), cancel_refused(1, "the parcel is on its way").into()])
        .and()
        .when(&cancel_too_late(1))
        .then_nothing();
}

#[test]
fn a_fact_that_stops_an_order_needs_no_answer_to_an_open_request() {
    placed()
        .given([cancel_requested(1)])
        .when(&payment_declined())
        .then([order_cancelled(CancelReason::PaymentDeclined, "insufficient funds")])
        .and()
        .when(&cancel_accepted(1))
        .then_nothing();
}

#[test]
fn an_order_that_cannot_be_cancelled_says_so() {
    shipped().when(&cancel()).then([cancel_refused(0, "the parcel is on its way")]);
    new().when(&cancel()).then([command_refused("CancelOrder", "no order of this id was placed")]);
    let completed = shipped().given([order_completed()]);
    completed.when(&cancel()).then([command_refused("CancelOrder", "the order is completed")]);
    let command = PlaceOrder { customer: None, ..place_order() };
    let rejected = new().given_received(&received(ORDER, command));
    rejected.when(&cancel()).then([command_refused("CancelOrder", "the order was rejected")]);
}

#[test]
fn an_order_that_is_asked_about_before_it_is_placed_can_be_placed() {
    new().given_received(&cancel()).when(&received(ORDER, place_order())).then([order_placed()]);
}

#[test]
fn an_operator_gives_up_an_order_through_the_warehouse() {
    let asked = OrderCancellationRequested {
        requested_by: CancelRequester::Operator,
        reason: "no courier goes there".to_owned(),
        ..cancel_requested(1)
    };
    picking()
        .when(&give_up())
        .then([asked.clone()])
        .and()
        .when(&cancel_accepted(1))
        .then([order_cancelled(CancelReason::GivenUp, "an operator gave it up: no courier goes there")]);
    let refused = OrderCancellationRefused {
        requested_by: CancelRequester::Operator,
        ..cancel_refused(1, "the parcel is packed")
    };
    picking().given([asked]).when(&cancel_too_late(1)).then([refused]);
    new().when(&give_up()).then([command_refused("GiveUpOrder", "no order of this id was placed")]);
}

#[test]
fn a_payment_that_was_abandoned_cancels() {
    for scenario in [placed(), paid(), picking()] {
        scenario
            .when(&payment_abandoned())
            .then([order_cancelled(CancelReason::PaymentAbandoned, "no answer in time")]);
    }
}

#[test]
fn a_delay_is_told_once() {
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
        let called = scenario.when(&dispatch_abandoned(5)).then([needed(5)]).and();
        called.clone().when(&dispatch_abandoned(5)).then_nothing();
        called.clone().when(&dispatch_abandoned(4)).then_nothing();
        called.when(&dispatch_abandoned(10)).then([needed(10)]);
    }
}

#[test]
fn a_refused_refund_needs_a_person_although_the_order_is_cancelled() {
    let needed = |attempt| needs_attention(AttentionNeed::RefundFailed, attempt, "the card is closed");
    let cancelled = paid().given([order_cancelled(CancelReason::OutOfStock, "")]);
    let called = cancelled.when(&refund_failed(1)).then([needed(1)]).and();
    called.clone().when(&refund_failed(1)).then_nothing();
    called.when(&refund_failed(2)).then([needed(2)]);
}

#[test]
fn what_holds_an_order_up_ends_alike_in_every_pairwise_order() {
    let end = |after: &Scenario<OrderProcessor>| after.state().clone();
    let delayed = dispatch_delayed("no van has room");
    let story =
        [payment_taken(), picking_started(), delayed.clone(), dispatch_abandoned(5), dispatched(), points_awarded()];
    in_every_pairwise_order(&placed(), &story, |after| after.state().status);
    let given_up = [picking_started(), delayed, dispatch_abandoned(5), cancel_accepted(1)];
    let asked = paid().given([cancel_requested(1)]);
    in_every_pairwise_order(&asked, &given_up, |after| after.state().status);
    let refused = [payment_taken(), payment_abandoned(), refund_failed(1)];
    in_every_pairwise_order(&placed(), &refused, end);
}

#[test]
fn a_refused_cancellation_and_the_story_end_alike_in_every_pairwise_order() {
    let asked = placed().given([cancel_requested(1)]);
    let facts = [payment_taken(), picking_started(), cancel_too_late(1), dispatched(), points_awarded()];
    in_every_pairwise_order(&asked, &facts, |after| after.state().clone());
    let after = facts.iter().rev().fold(asked, Scenario::given_received);
    assert_eq!((after.state().status, &after.state().cancel_request), (Status::Completed, &None));
}

#[test]
fn an_accepted_cancellation_ends_alike_in_every_pairwise_order() {
    let asked = placed().given([cancel_requested(1)]);
    for fact in [payment_taken(), stock_short(), payment_declined(), cancel()] {
        in_every_pairwise_order(&asked, &[fact, cancel_accepted(1)], |after| after.state().clone());
    }
    let story = [payment_taken(), picking_started(), cancel_accepted(1), packaging_failed()];
    in_every_pairwise_order(&asked, &story, |after| after.state().clone());
}
