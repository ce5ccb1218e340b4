//! The stock of one item: deliveries, holds, releases and write-offs.

use super::*;

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
fn a_repeated_delivery_with_another_quantity_is_refused() {
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
fn an_item_drops_the_orders_it_has_served() {
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
