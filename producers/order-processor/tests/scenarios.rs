//! What the order-processor says when. Every input is handled twice, and facts come in every pairwise order.

#[path = "scenarios/called_off.rs"]
mod called_off;

use order_processor::{
    OrderProcessor,
    decide::{MAX_LINES, MAX_QUANTITY, MAX_TOTAL_MINOR},
    events::{
        Address, AttentionNeed, CancelReason, CancelRequester, CommandRefused, Contact, Event, Money, NotedFact,
        OrderCancellationRefused, OrderCancellationRequested, OrderCancelled, OrderCompleted, OrderDelayed,
        OrderFactNoted, OrderLine, OrderNeedsAttention, OrderPaid, OrderPicking, OrderPlaced, OrderRejected,
        OrderShipped, RejectReason,
    },
    evolve::{State, Status},
    inbox::{CancelOrder, GiveUpOrder, PlaceOrder, RequestedLine, ResolvedAlbum, ResolvedCustomer},
    reads::{
        CancellationAccepted, CancellationRefused, DispatchAbandoned, DispatchDelayed, Input, OrderDispatched,
        PackagingFailed, PaymentAbandoned, PaymentDeclined, PaymentTaken, PickingStarted, PointsAwarded, RefundFailed,
        StockShort,
    },
};
use runtime::{
    Decider, Received,
    testing::{NOW_MS, Scenario, in_every_pairwise_order, received},
};

const ORDER: &str = "order-1";

fn eur(amount_minor: i64) -> Money {
    Money { amount_minor, currency: "EUR".to_owned() }
}

fn contact() -> Contact {
    Contact { name: "Inés Calderón".to_owned(), email: "ines.calderon@example.org".to_owned() }
}

fn ship_to() -> Address {
    Address {
        street: "Lindenstraße 14".to_owned(),
        city: "Leipzig".to_owned(),
        postcode: "04105".to_owned(),
        country: "DE".to_owned(),
    }
}

fn wanted(sku: &str, quantity: i32, unit_price: Option<Money>) -> RequestedLine {
    let album = ResolvedAlbum { title: "Blue".to_owned(), artist: "Joni Mitchell".to_owned(), unit_price };
    RequestedLine { sku: sku.to_owned(), quantity, album: Some(album) }
}

fn place_order() -> PlaceOrder {
    PlaceOrder {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        customer: Some(ResolvedCustomer { contact: contact(), forgotten: false }),
        ship_to: ship_to(),
        lines: vec![wanted("LP-1", 1, Some(eur(2499))), wanted("LP-2", 2, Some(eur(1999)))],
        payment_method: "card-ok".to_owned(),
        request_digest: "digest-1".to_owned(),
    }
}

fn sold(sku: &str, quantity: i32, unit: i64) -> OrderLine {
    OrderLine {
        sku: sku.to_owned(),
        title: "Blue".to_owned(),
        artist: "Joni Mitchell".to_owned(),
        quantity,
        unit_price: eur(unit),
        line_total: eur(unit * i64::from(quantity)),
    }
}

fn lines() -> Vec<OrderLine> {
    vec![sold("LP-1", 1, 2499), sold("LP-2", 2, 1999)]
}

fn order_placed() -> OrderPlaced {
    OrderPlaced {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        ship_to: ship_to(),
        lines: lines(),
        total: eur(6497),
        payment_method: "card-ok".to_owned(),
        request_digest: "digest-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn order_paid() -> OrderPaid {
    OrderPaid {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        total: eur(6497),
        payment_id: "pay-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn order_picking() -> OrderPicking {
    OrderPicking {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        lines: lines(),
        occurred_at: NOW_MS,
    }
}

fn order_shipped() -> OrderShipped {
    OrderShipped {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        ship_to: ship_to(),
        lines: lines(),
        total: eur(6497),
        carrier: "Parcelwing".to_owned(),
        tracking_number: "PW-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn order_completed() -> OrderCompleted {
    OrderCompleted {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        lines: lines(),
        total: eur(6497),
        points_awarded: 64,
        occurred_at: NOW_MS,
    }
}

fn order_cancelled(reason: CancelReason, detail: &str) -> OrderCancelled {
    OrderCancelled {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        total: eur(6497),
        reason,
        detail: detail.to_owned(),
        occurred_at: NOW_MS,
    }
}

fn cancel_requested(request: i32) -> OrderCancellationRequested {
    OrderCancellationRequested {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        request,
        requested_by: CancelRequester::Customer,
        reason: "bought twice".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn cancel_refused(request: i32, reason: &str) -> OrderCancellationRefused {
    OrderCancellationRefused {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        request,
        requested_by: CancelRequester::Customer,
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

fn command_refused(command: &str, reason: &str) -> CommandRefused {
    CommandRefused {
        entity_id: ORDER.to_owned(),
        command: command.to_owned(),
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

fn noted(fact: NotedFact) -> OrderFactNoted {
    let order_id = ORDER.to_owned();
    OrderFactNoted { order_id, fact, carrier: None, tracking_number: None, points: None, occurred_at: NOW_MS }
}

fn payment_taken() -> Received<Input> {
    received(ORDER, PaymentTaken { order_id: ORDER.to_owned(), payment_id: "pay-1".to_owned() })
}

fn picking_started() -> Received<Input> {
    received(ORDER, PickingStarted { order_id: ORDER.to_owned() })
}

fn dispatched() -> Received<Input> {
    let (carrier, tracking_number) = ("Parcelwing".to_owned(), "PW-1".to_owned());
    received(ORDER, OrderDispatched { order_id: ORDER.to_owned(), carrier, tracking_number })
}

fn points_awarded() -> Received<Input> {
    received("customer-1", PointsAwarded { order_id: ORDER.to_owned(), points: 64 })
}

fn stock_short() -> Received<Input> {
    received(ORDER, StockShort { order_id: ORDER.to_owned(), sku: "LP-2".to_owned(), wanted: 2, free: 1 })
}

fn payment_declined() -> Received<Input> {
    received(ORDER, PaymentDeclined { order_id: ORDER.to_owned(), reason: "insufficient funds".to_owned() })
}

fn packaging_failed() -> Received<Input> {
    received(ORDER, PackagingFailed { order_id: ORDER.to_owned(), detail: "LP-2 was not on the shelf".to_owned() })
}

fn cancel() -> Received<Input> {
    received(ORDER, CancelOrder { order_id: ORDER.to_owned(), reason: "bought twice".to_owned() })
}

fn cancel_accepted(request: i32) -> Received<Input> {
    received(ORDER, CancellationAccepted { order_id: ORDER.to_owned(), request })
}

fn cancel_too_late(request: i32) -> Received<Input> {
    let reason = "the parcel is packed".to_owned();
    received(ORDER, CancellationRefused { order_id: ORDER.to_owned(), request, reason })
}

fn give_up() -> Received<Input> {
    received(ORDER, GiveUpOrder { order_id: ORDER.to_owned(), reason: "no courier goes there".to_owned() })
}

fn payment_abandoned() -> Received<Input> {
    received(ORDER, PaymentAbandoned { order_id: ORDER.to_owned(), reason: "no answer in time".to_owned() })
}

fn refund_failed(attempt: i32) -> Received<Input> {
    received(ORDER, RefundFailed { order_id: ORDER.to_owned(), attempt, reason: "the card is closed".to_owned() })
}

fn dispatch_delayed(reason: &str) -> Received<Input> {
    received(ORDER, DispatchDelayed { order_id: ORDER.to_owned(), reason: reason.to_owned() })
}

fn dispatch_abandoned(attempt: i32) -> Received<Input> {
    received(ORDER, DispatchAbandoned { order_id: ORDER.to_owned(), attempt, reason: "no van has room".to_owned() })
}

fn order_delayed() -> OrderDelayed {
    OrderDelayed {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        reason: "no van has room".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn needs_attention(need: AttentionNeed, attempt: i32, detail: &str) -> OrderNeedsAttention {
    OrderNeedsAttention { order_id: ORDER.to_owned(), need, attempt, detail: detail.to_owned(), occurred_at: NOW_MS }
}

fn new() -> Scenario<OrderProcessor> {
    Scenario::of(OrderProcessor)
}

fn placed() -> Scenario<OrderProcessor> {
    new().given([order_placed()])
}

fn paid() -> Scenario<OrderProcessor> {
    placed().given([order_paid()])
}

fn picking() -> Scenario<OrderProcessor> {
    paid().given([order_picking()])
}

fn shipped() -> Scenario<OrderProcessor> {
    picking().given([order_shipped()])
}

#[test]
fn a_good_request_is_placed_with_prices_and_total() {
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
    assert_eq!(outcome.state().status, Status::Rejected);
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
    rejected_with(RejectReason::UnknownSku, "nobody lists the sku LP-2", |c| c.lines[1].album = None);
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
    assert_eq!(after.state().status, Status::Placed);
}

#[test]
fn too_many_copies_are_rejected() {
    rejected_with(RejectReason::TooLarge, "1001 copies of LP-1, at most 1000", |c| {
        c.lines = vec![wanted("LP-1", MAX_QUANTITY + 1, Some(eur(1)))];
    });
}

#[test]
fn a_line_total_beyond_all_numbers_is_rejected() {
    rejected_with(RejectReason::TooLarge, "the total is above 100000000 minor units", |c| {
        c.lines = vec![wanted("LP-1", 2, Some(eur(i64::MAX)))];
    });
}

#[test]
fn a_total_beyond_all_numbers_is_rejected() {
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
    refused_because("0 copies of LP-1 make no line", |c| c.lines[0].quantity = 0);
    refused_because("-3 copies of LP-1 make no line", |c| c.lines[0].quantity = -3);
}

#[test]
fn a_sku_in_two_lines_is_refused() {
    refused_because("the sku LP-1 stands in two lines", |c| c.lines[1].sku = "LP-1".to_owned());
}

#[test]
fn a_price_that_is_no_price_is_refused() {
    refused_because("the price of LP-1 is 0", |c| c.lines[0] = wanted("LP-1", 1, Some(eur(0))));
}

#[test]
fn a_repeated_request_is_answered_by_what_was_said_before() {
    placed().when(&received(ORDER, place_order())).then_nothing();
    let mut command = place_order();
    command.customer = None;
    new().given_received(&received(ORDER, command)).when(&received(ORDER, place_order())).then_nothing();
}

#[test]
fn a_repeated_request_is_answered_by_its_digest_even_after_the_end() {
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
        reason: "another request was answered under this order id".to_owned(),
        occurred_at: NOW_MS,
    }]);
}

#[test]
fn taken_money_makes_a_paid_order() {
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
fn stock_short_cancels_an_order_whose_parcel_is_not_gone() {
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
fn started_picking_that_comes_early_is_noted_and_takes_effect_with_the_money() {
    placed()
        .when(&picking_started())
        .then([noted(NotedFact::PickingStarted)])
        .and()
        .when(&payment_taken())
        .then([Event::from(order_paid()), Event::from(order_picking())]);
}

#[test]
fn a_dispatch_that_comes_early_is_noted_and_takes_effect_with_the_picking() {
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
fn points_that_come_early_are_noted_and_take_effect_with_the_dispatch() {
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
fn everything_that_came_early_takes_effect_at_once() {
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
fn a_fact_that_comes_again_is_passed_over() {
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
fn a_fact_about_an_order_that_never_was_is_passed_over() {
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
    assert_eq!(after.state().status, Status::Completed);
}

#[test]
fn facts_of_each_cancelled_order_end_in_cancelled_in_every_pairwise_order() {
    let stories = [
        vec![stock_short()],
        vec![payment_declined()],
        vec![payment_taken(), stock_short()],
        vec![payment_taken(), picking_started(), packaging_failed()],
    ];
    for story in stories {
        in_every_pairwise_order(&placed(), &story, |after| after.state().clone());
        let after = story.iter().fold(placed(), Scenario::given_received);
        assert_eq!(after.state().status, Status::Cancelled);
    }
}

#[test]
fn every_decision_in_every_status_moves_as_the_table_has_it() {
    let asked = |scenario: Scenario<OrderProcessor>| scenario.given([cancel_requested(1)]);
    let starts = [new(), placed(), paid(), picking(), shipped(), asked(placed()), asked(paid()), asked(picking())];
    let mut inputs = facts().to_vec();
    inputs.extend([received(ORDER, place_order()), cancel(), give_up(), refund_failed(1)]);
    for start in &starts {
        for first in &inputs {
            for second in &inputs {
                let mut state = start.state().clone();
                for input in [first, second] {
                    for event in OrderProcessor.decide(&state, input).events {
                        let before = state.status;
                        state = OrderProcessor.evolve(state, &event);
                        let legal = before == state.status || before.may_become(state.status);
                        assert!(legal, "{before:?} -> {:?} on {:?}", state.status, input.body);
                    }
                }
            }
        }
    }
}

#[test]
fn every_input_belongs_to_the_order_that_its_body_names() {
    for fact in facts().into_iter().chain([cancel(), give_up(), refund_failed(1), received(ORDER, place_order())]) {
        let astray = Received { key: "somebody-else".to_owned(), ..fact };
        assert_eq!(OrderProcessor.entity(&astray), ORDER);
    }
}
