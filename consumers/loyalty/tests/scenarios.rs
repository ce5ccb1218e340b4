//! The decisions of loyalty. Every input is handled twice, and facts are received in every pairwise order.

use loyalty::{
    Loyalty,
    events::{Event, LoyaltyAccountClosed, LoyaltyAccountOpened, PointsAwarded},
    evolve::AccountStatus,
    reads::{CustomerForgotten, CustomerRegistered, Input, Money, OrderShipped},
};
use runtime::{
    Decider, Received,
    testing::{NOW_MS, Scenario, in_every_pairwise_order, received, received_at},
};

const ID: &str = "customer-1";

fn registered() -> Received<Input> {
    received(ID, CustomerRegistered { customer_id: ID.to_owned() })
}

fn forgotten() -> Received<Input> {
    received(ID, CustomerForgotten { customer_id: ID.to_owned() })
}

fn shipment(order_id: &str, amount_minor: i64) -> OrderShipped {
    OrderShipped { order_id: order_id.to_owned(), customer_id: ID.to_owned(), total: Money { amount_minor } }
}

fn shipped(order_id: &str, amount_minor: i64) -> Received<Input> {
    received(order_id, shipment(order_id, amount_minor))
}

fn opened() -> LoyaltyAccountOpened {
    LoyaltyAccountOpened { customer_id: ID.to_owned(), occurred_at: NOW_MS }
}

fn awarded(order_id: &str, points: i64, balance: i64) -> PointsAwarded {
    PointsAwarded { customer_id: ID.to_owned(), order_id: order_id.to_owned(), points, balance, occurred_at: NOW_MS }
}

fn closed() -> LoyaltyAccountClosed {
    LoyaltyAccountClosed { customer_id: ID.to_owned(), occurred_at: NOW_MS }
}

fn new() -> Scenario<Loyalty> {
    Scenario::of(Loyalty)
}

fn open() -> Scenario<Loyalty> {
    new().given([opened()])
}

#[test]
fn a_registered_customer_gets_an_account() {
    new().when(&registered()).then([opened()]);
}

#[test]
fn an_open_account_is_not_opened_again() {
    open().when(&registered()).then_nothing();
}

#[test]
fn a_shipped_order_earns_a_point_for_each_full_hundred_minor_units() {
    for (total, points) in [(6497, 64), (100, 1), (99, 0), (0, 0), (-500, 0)] {
        open().when(&shipped("order-1", total)).then([awarded("order-1", points, points)]);
    }
}

#[test]
fn points_add_up() {
    open().given([awarded("order-1", 64, 64)]).when(&shipped("order-2", 1000)).then([awarded("order-2", 10, 74)]);
}

#[test]
fn points_never_overflow() {
    open().given([awarded("order-1", i64::MAX, i64::MAX)]).when(&shipped("order-2", i64::MAX)).then([awarded(
        "order-2",
        i64::MAX / 100,
        i64::MAX,
    )]);
}

#[test]
fn an_order_of_an_unknown_customer_opens_the_account_first() {
    new()
        .when(&shipped("order-1", 6497))
        .then([Event::from(opened()), Event::from(awarded("order-1", 64, 64))])
        .and()
        .when(&registered())
        .then_nothing();
}

#[test]
fn an_order_earns_points_once_however_late_it_is_repeated() {
    let later = open().given([awarded("order-1", 64, 64), awarded("order-2", 1, 65)]);
    later.clone().when(&shipped("order-1", 6497)).then_nothing();
    later.given([closed()]).when(&received_at(NOW_MS + 1, "order-1", shipment("order-1", 6497))).then_nothing();
}

#[test]
fn an_order_of_a_closed_account_is_answered_with_no_points() {
    open()
        .given([Event::from(awarded("order-1", 64, 64)), closed().into()])
        .when(&shipped("order-2", 6497))
        .then([awarded("order-2", 0, 0)]);
}

#[test]
fn a_forgotten_customer_loses_the_account_and_its_points() {
    let after = open().given([awarded("order-1", 64, 64)]).when(&forgotten()).then([closed()]).and();
    assert_eq!((after.state().account, after.state().balance), (AccountStatus::Closed, 0));
}

#[test]
fn a_closed_account_stays_closed() {
    let closed_one = open().given([closed()]);
    closed_one.clone().when(&forgotten()).then_nothing();
    closed_one.when(&registered()).then_nothing();
}

#[test]
fn every_order_is_answered_and_the_account_ends_closed_in_every_pairwise_order() {
    let facts = [registered(), shipped("order-1", 6497), shipped("order-2", 250), forgotten()];
    in_every_pairwise_order(&new(), &facts, |after| {
        let state = after.state();
        (state.account, state.balance, state.answered.clone())
    });
}

#[test]
fn points_are_the_same_in_every_pairwise_order_of_an_open_account() {
    let facts = [registered(), shipped("order-1", 6497), shipped("order-2", 250)];
    in_every_pairwise_order(&new(), &facts, |after| after.state().clone());
}

#[test]
fn a_shipped_order_belongs_to_its_customer() {
    assert_eq!(Loyalty.entity(&shipped("order-1", 1)), ID);
    assert_eq!(Loyalty.entity(&registered()), ID);
    assert_eq!(Loyalty.entity(&forgotten()), ID);
}
