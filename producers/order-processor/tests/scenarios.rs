//! The decisions of the order-processor. Every input is handled twice, and facts are received in every pairwise order.

#[path = "scenarios/cancellation.rs"]
mod cancellation;
#[path = "scenarios/fixtures.rs"]
mod fixtures;

use order_processor::{
    OrderProcessor,
    decide::{MAX_LINES, MAX_QUANTITY, MAX_TOTAL_MINOR},
    events::{CancelReason, CommandRefused, Event, Money, NotedFact, OrderFactNoted, OrderRejected, RejectReason},
    evolve::{OrderPhase, State},
    inbox::PlaceOrder,
    reads::Input,
};
use runtime::{
    Decider, Received,
    testing::{NOW_MS, Scenario, in_every_pairwise_order, received},
};

use fixtures::*;

#[test]
fn a_valid_request_is_placed_with_prices_and_total() {
    new().when(&received(ORDER, place_order())).then([order_placed()]);
}

#[track_caller]
fn rejected_with(reason: RejectReason, detail: &str, change: impl Fn(&mut PlaceOrder)) {
    let mut command = place_order();
    change(&mut command);
    let event = OrderRejected {
        order_id: ORDER.to_owned(),
        customer_id: command.customer_id.clone(),
        reason,
        detail: detail.to_owned(),
        request_digest: command.request_digest.clone(),
        occurred_at: NOW_MS,
    };
    let outcome = new().when(&received(ORDER, command)).then([event]).and();
    assert_eq!(outcome.state().phase, OrderPhase::Rejected);
}

#[test]
fn an_unknown_customer_is_rejected() {
    rejected_with(RejectReason::UnknownCustomer, "no customer customer-1", |c| c.customer = None);
}

#[test]
fn a_forgotten_customer_is_rejected() {
    rejected_with(RejectReason::CustomerForgotten, "customer customer-1 was forgotten", |c| {
        c.customer.as_mut().unwrap().forgotten = true;
    });
}

#[test]
fn an_unknown_sku_is_rejected() {
    rejected_with(RejectReason::UnknownSku, "the catalogue does not list the sku LP-2", |c| c.lines[1].album = None);
}

#[test]
fn an_album_without_a_price_is_rejected() {
    rejected_with(RejectReason::PriceGone, "LP-2 is no longer sold", |c| {
        c.lines[1].album.as_mut().unwrap().unit_price = None;
    });
}

#[test]
fn prices_in_two_currencies_are_rejected() {
    rejected_with(RejectReason::MixedCurrencies, "EUR and GBP in one order", |c| {
        c.lines[1] = wanted("LP-2", 1, Some(Money { amount_minor: 1, currency: "GBP".to_owned() }));
    });
}

#[test]
fn too_many_lines_are_rejected() {
    rejected_with(RejectReason::TooLarge, "201 lines, at most 200", |c| {
        c.lines = (0..=MAX_LINES).map(|n| wanted(&format!("LP-{n}"), 1, Some(eur(1)))).collect();
    });
}

#[test]
fn the_most_lines_are_placed() {
    let mut command = place_order();
    command.lines = (0..MAX_LINES).map(|n| wanted(&format!("LP-{n}"), 1, Some(eur(1)))).collect();
    let after = new().when(&received(ORDER, command)).and();
    assert_eq!(after.state().phase, OrderPhase::Placed);
}

#[test]
fn too_many_copies_are_rejected() {
    rejected_with(RejectReason::TooLarge, "1001 copies of LP-1, at most 1000", |c| {
        c.lines = vec![wanted("LP-1", MAX_QUANTITY + 1, Some(eur(1)))];
    });
}

#[test]
fn a_line_total_that_overflows_is_rejected() {
    rejected_with(RejectReason::TooLarge, "the total is above 100000000 minor units", |c| {
        c.lines = vec![wanted("LP-1", 2, Some(eur(i64::MAX)))];
    });
}

#[test]
fn a_total_that_overflows_is_rejected() {
    rejected_with(RejectReason::TooLarge, "the total is above 100000000 minor units", |c| {
        c.lines = vec![wanted("LP-1", 1, Some(eur(i64::MAX))), wanted("LP-2", 1, Some(eur(1)))];
    });
}

#[test]
fn a_total_above_the_limit_is_rejected() {
    rejected_with(RejectReason::TooLarge, "the total is above 100000000 minor units", |c| {
        c.lines = vec![wanted("LP-1", 1, Some(eur(MAX_TOTAL_MINOR + 1)))];
    });
}

#[track_caller]
fn refused_because(reason: &str, change: impl Fn(&mut PlaceOrder)) {
    let mut command = place_order();
    change(&mut command);
    let event = CommandRefused {
        entity_id: ORDER.to_owned(),
        command: "PlaceOrder".to_owned(),
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    };
    let after = new().when(&received(ORDER, command)).then([event]).and();
    assert_eq!(after.state(), &State::default());
}

#[test]
fn an_order_without_lines_is_refused() {
    refused_because("the order has no lines", |c| c.lines.clear());
}

#[test]
fn a_line_without_copies_is_refused() {
    refused_because("a line needs at least one copy; 0 of LP-1 were requested", |c| c.lines[0].quantity = 0);
    refused_because("a line needs at least one copy; -3 of LP-1 were requested", |c| c.lines[0].quantity = -3);
}

#[test]
fn a_sku_in_two_lines_is_refused() {
    refused_because("the sku LP-1 is in two lines", |c| c.lines[1].sku = "LP-1".to_owned());
}

#[test]
fn a_price_of_zero_is_refused() {
    refused_because("the price of LP-1 is 0", |c| c.lines[0] = wanted("LP-1", 1, Some(eur(0))));
}

#[test]
fn a_repeated_request_causes_no_event() {
    placed().when(&received(ORDER, place_order())).then_nothing();
    let mut command = place_order();
    command.customer = None;
    new().given_received(&received(ORDER, command)).when(&received(ORDER, place_order())).then_nothing();
}

#[test]
fn a_repeated_request_is_recognised_by_its_digest_even_after_the_end() {
    let ended = shipped().given([order_completed()]);
    ended.clone().when(&received(ORDER, place_order())).then_nothing();
    let other = PlaceOrder { request_digest: "digest-2".to_owned(), ..place_order() };
    let after = ended.clone().when(&received(ORDER, other)).and();
    assert_eq!(after.state(), ended.state());
}

#[test]
fn another_request_for_the_same_order_is_refused() {
    let command = PlaceOrder { request_digest: "digest-2".to_owned(), ..place_order() };
    placed().when(&received(ORDER, command)).then([CommandRefused {
        entity_id: ORDER.to_owned(),
        command: "PlaceOrder".to_owned(),
        reason: "the order id belongs to another request".to_owned(),
        occurred_at: NOW_MS,
    }]);
}

#[test]
fn a_taken_payment_makes_a_paid_order() {
    placed().when(&payment_taken()).then([order_paid()]);
}

#[test]
fn started_picking_makes_a_picking_order() {
    paid().when(&picking_started()).then([order_picking()]);
}

#[test]
fn a_dispatched_parcel_makes_a_shipped_order() {
    picking().when(&dispatched()).then([order_shipped()]);
}

#[test]
fn awarded_points_complete_a_shipped_order() {
    shipped().when(&points_awarded()).then([order_completed()]);
}

#[test]
fn stock_short_cancels_an_order_that_is_not_shipped() {
    for scenario in [placed(), paid(), picking()] {
        scenario.when(&stock_short()).then([order_cancelled(CancelReason::OutOfStock, "2 of LP-2 wanted, 1 free")]);
    }
}

#[test]
fn a_declined_payment_cancels() {
    placed().when(&payment_declined()).then([order_cancelled(CancelReason::PaymentDeclined, "insufficient funds")]);
}

#[test]
fn failed_packaging_cancels() {
    picking()
        .when(&packaging_failed())
        .then([order_cancelled(CancelReason::LostAtPackaging, "LP-2 was not on the shelf")]);
}

#[test]
fn a_shipped_order_is_not_cancelled() {
    for fact in [stock_short(), payment_declined(), packaging_failed()] {
        shipped().when(&fact).then_nothing();
    }
}

#[test]
fn picking_started_received_early_is_noted_and_takes_effect_with_the_payment() {
    placed()
        .when(&picking_started())
        .then([noted(NotedFact::PickingStarted)])
        .and()
        .when(&payment_taken())
        .then([Event::from(order_paid()), Event::from(order_picking())]);
}

#[test]
fn a_dispatch_received_early_is_noted_and_takes_effect_with_the_picking() {
    let early = OrderFactNoted {
        carrier: Some("Parcelwing".to_owned()),
        tracking_number: Some("PW-1".to_owned()),
        ..noted(NotedFact::Dispatched)
    };
    for scenario in [placed(), paid()] {
        scenario.when(&dispatched()).then([early.clone()]);
    }
    paid()
        .given_received(&dispatched())
        .when(&picking_started())
        .then([Event::from(order_picking()), Event::from(order_shipped())]);
}

#[test]
fn points_received_early_are_noted_and_take_effect_with_the_dispatch() {
    let early = OrderFactNoted { points: Some(64), ..noted(NotedFact::PointsAwarded) };
    for scenario in [placed(), paid(), picking()] {
        scenario.when(&points_awarded()).then([early.clone()]);
    }
    picking()
        .given_received(&points_awarded())
        .when(&dispatched())
        .then([Event::from(order_shipped()), Event::from(order_completed())]);
}

#[test]
fn all_noted_facts_take_effect_at_once() {
    placed()
        .given_received(&points_awarded())
        .given_received(&dispatched())
        .given_received(&picking_started())
        .when(&payment_taken())
        .then([
            Event::from(order_paid()),
            Event::from(order_picking()),
            Event::from(order_shipped()),
            Event::from(order_completed()),
        ]);
}

#[test]
fn a_repeated_fact_is_ignored() {
    for scenario in [paid(), picking(), shipped()] {
        scenario.when(&payment_taken()).then_nothing();
    }
    for scenario in [picking(), shipped()] {
        scenario.when(&picking_started()).then_nothing();
    }
    shipped().when(&dispatched()).then_nothing();
    placed().given_received(&picking_started()).when(&picking_started()).then_nothing();
}

fn facts() -> [Received<Input>; 12] {
    [
        payment_taken(),
        picking_started(),
        dispatched(),
        points_awarded(),
        stock_short(),
        payment_declined(),
        packaging_failed(),
        cancel_accepted(1),
        cancel_too_late(1),
        payment_abandoned(),
        dispatch_delayed("no van has room"),
        dispatch_abandoned(5),
    ]
}

#[test]
fn an_ended_order_ignores_every_fact() {
    let cancelled = placed().given([order_cancelled(CancelReason::OutOfStock, "")]);
    let completed = shipped().given([order_completed()]);
    let mut command = place_order();
    command.customer = None;
    let rejected = new().given_received(&received(ORDER, command));
    for scenario in [cancelled, completed, rejected] {
        for fact in facts() {
            scenario.clone().when(&fact).then_nothing();
        }
    }
}

#[test]
fn a_fact_about_an_unknown_order_is_ignored() {
    for fact in facts() {
        new().when(&fact).then_nothing();
    }
}

#[test]
fn an_ended_order_keeps_no_personal_data() {
    for scenario in
        [shipped().given([order_completed()]), placed().given([order_cancelled(CancelReason::OutOfStock, "")])]
    {
        assert_eq!(scenario.state().order, None);
    }
}

#[test]
fn facts_end_in_completed_in_every_pairwise_order() {
    let facts = [payment_taken(), picking_started(), dispatched(), points_awarded()];
    in_every_pairwise_order(&placed(), &facts, |after| after.state().clone());
    let after = facts.iter().rev().fold(placed(), Scenario::given_received);
    assert_eq!(after.state().phase, OrderPhase::Completed);
}

#[test]
fn facts_of_each_cancelled_order_end_in_cancelled_in_every_pairwise_order() {
    let cancelling = [
        vec![stock_short()],
        vec![payment_declined()],
        vec![payment_taken(), stock_short()],
        vec![payment_taken(), picking_started(), packaging_failed()],
    ];
    for facts in cancelling {
        in_every_pairwise_order(&placed(), &facts, |after| after.state().clone());
        let after = facts.iter().fold(placed(), Scenario::given_received);
        assert_eq!(after.state().phase, OrderPhase::Cancelled);
    }
}

#[test]
fn every_decision_in_every_phase_makes_a_legal_transition() {
    let requested = |scenario: Scenario<OrderProcessor>| scenario.given([cancel_requested(1)]);
    let starts =
        [new(), placed(), paid(), picking(), shipped(), requested(placed()), requested(paid()), requested(picking())];
    let mut inputs = facts().to_vec();
    inputs.extend([received(ORDER, place_order()), cancel(), give_up(), refund_failed(1)]);
    for start in &starts {
        for first in &inputs {
            for second in &inputs {
                let mut state = start.state().clone();
                for input in [first, second] {
                    for event in OrderProcessor.decide(&state, input).events {
                        let before = state.phase;
                        state = OrderProcessor.evolve(state, &event);
                        let legal = before == state.phase || before.may_become(state.phase);
                        assert!(legal, "{before:?} -> {:?} on {:?}", state.phase, input.body);
                    }
                }
            }
        }
    }
}

#[test]
fn every_input_belongs_to_the_order_that_its_body_names() {
    for fact in facts().into_iter().chain([cancel(), give_up(), refund_failed(1), received(ORDER, place_order())]) {
        let misrouted = Received { key: "somebody-else".to_owned(), ..fact };
        assert_eq!(OrderProcessor.entity(&misrouted), ORDER);
    }
}
