//! Clean books are clean, and every planted defect is found.

use uuid::Uuid;

use super::{
    books::{Balance, Books, Ends, Place, Rule, Stamp, Stock},
    reads::*,
};

fn eur(amount_minor: i64) -> Money {
    Money { amount_minor, currency: "EUR".to_owned() }
}

fn order_id(id: &str) -> String {
    id.to_owned()
}

/// A completed order of two `blue` for 10.00.
fn completed(id: &str) -> Vec<Fact> {
    let order_id = || order_id(id);
    let sku = || "blue".to_owned();
    vec![
        OrderPlaced { order_id: order_id(), total: eur(1000) }.into(),
        ItemHeld { sku: sku(), order_id: order_id(), quantity: 2 }.into(),
        PaymentTaken { order_id: order_id(), amount: eur(1000) }.into(),
        ItemShipped { sku: sku(), order_id: order_id(), quantity: 2 }.into(),
        OrderDispatched { order_id: order_id() }.into(),
        PointsAwarded { order_id: order_id() }.into(),
        OrderCompleted { order_id: order_id(), total: eur(1000) }.into(),
    ]
}

/// An order of one `blue`, lost at packaging: written off, refunded, released.
fn lost(id: &str) -> Vec<Fact> {
    let order_id = || order_id(id);
    vec![
        OrderPlaced { order_id: order_id(), total: eur(500) }.into(),
        ItemHeld { sku: "blue".to_owned(), order_id: order_id(), quantity: 1 }.into(),
        PaymentTaken { order_id: order_id(), amount: eur(500) }.into(),
        OrderCancelled { order_id: order_id() }.into(),
        StockWrittenOff { sku: "blue".to_owned(), order_id: order_id(), quantity: 1 }.into(),
        StockReleased { order_id: order_id() }.into(),
        PaymentRefunded { order_id: order_id(), amount: eur(500) }.into(),
    ]
}

/// An order of one `blue` that was called off while the gateway was silent.
fn called_off(id: &str) -> Vec<Fact> {
    let order_id = || order_id(id);
    vec![
        OrderPlaced { order_id: order_id(), total: eur(700) }.into(),
        ItemHeld { sku: "blue".to_owned(), order_id: order_id(), quantity: 1 }.into(),
        PaymentRequested { order_id: order_id(), amount: eur(700) }.into(),
        OrderCancellationRequested { order_id: order_id(), request: 1 }.into(),
        CancellationAccepted { order_id: order_id(), request: 1 }.into(),
        OrderCancelled { order_id: order_id() }.into(),
        ItemFreed { sku: "blue".to_owned(), order_id: order_id(), quantity: 1 }.into(),
        StockReleased { order_id: order_id() }.into(),
        PaymentVoided { order_id: order_id() }.into(),
    ]
}

/// An order whose gateway answered too late: captured, and refunded.
fn unanswered(id: &str) -> Vec<Fact> {
    let order_id = || order_id(id);
    vec![
        OrderPlaced { order_id: order_id(), total: eur(300) }.into(),
        PaymentRequested { order_id: order_id(), amount: eur(300) }.into(),
        PaymentAbandoned { order_id: order_id() }.into(),
        OrderCancelled { order_id: order_id() }.into(),
        StockReleased { order_id: order_id() }.into(),
        PaymentTaken { order_id: order_id(), amount: eur(300) }.into(),
        PaymentRefunded { order_id: order_id(), amount: eur(300) }.into(),
    ]
}

/// A completed order that somebody wanted cancelled when the parcel was packed.
fn asked_too_late(id: &str) -> Vec<Fact> {
    let asked: Vec<Fact> = vec![
        OrderCancellationRequested { order_id: order_id(id), request: 1 }.into(),
        CancellationRefused { order_id: order_id(id), request: 1 }.into(),
        OrderCancellationRefused { order_id: order_id(id), request: 1 }.into(),
    ];
    [completed(id), asked].concat()
}

fn goods(quantity: i32) -> Fact {
    GoodsReceived { sku: "blue".to_owned(), quantity }.into()
}

fn balance(facts: impl IntoIterator<Item = Fact>) -> Balance {
    let mut books = Books::default();
    facts.into_iter().for_each(|fact| books.enter(fact));
    books.balance([])
}

#[track_caller]
fn finds(balance: &Balance, rule: Rule, words: &str) {
    assert!(
        balance.findings.iter().any(|finding| finding.rule == rule && finding.what.contains(words)),
        "no finding of {rule} says {words:?}: {:?}",
        balance.findings
    );
}

fn without(mut facts: Vec<Fact>, at: usize) -> Vec<Fact> {
    facts.remove(at);
    facts
}

fn story() -> Vec<Fact> {
    let rejected = Fact::from(OrderRejected { order_id: order_id("c") });
    [vec![goods(10)], completed("a"), lost("b"), vec![rejected]].concat()
}

#[test]
fn clean_books_balance() {
    let balance = balance(story());
    assert_eq!(balance.findings, []);
    assert_eq!(balance.ends, Ends { completed: 1, cancelled: 1, rejected: 1, open: 0 });
    assert_eq!(balance.stock, Stock { received: 10, free: 7, held: 0, shipped: 2, written_off: 1 });
    assert_eq!((balance.captured_minor["EUR"], balance.refunded_minor["EUR"]), (1500, 500));
}

#[test]
fn the_order_in_which_topics_are_read_does_not_matter() {
    let (stock, rest): (Vec<Fact>, Vec<Fact>) = story().into_iter().partition(|fact| {
        matches!(fact, Fact::GoodsReceived(_) | Fact::ItemHeld(_) | Fact::ItemShipped(_) | Fact::StockWrittenOff(_))
    });
    assert_eq!(balance(rest.into_iter().rev().chain(stock)).findings, []);
}

#[test]
fn any_one_lost_event_is_found() {
    for at in 0..story().len() {
        let lost = story()[at].clone();
        // Nothing else mentions a rejected order, and free stock that is not needed is not missed by the facts alone: the gap
        // in the sequence tells of those.
        if matches!(lost, Fact::OrderRejected(_) | Fact::GoodsReceived(_)) {
            continue;
        }
        assert!(!balance(without(story(), at)).is_clean(), "losing {lost:?} went unnoticed");
    }
}

#[test]
fn a_double_capture_is_found() {
    let again = Fact::from(PaymentTaken { order_id: order_id("a"), amount: eur(1000) });
    let balance = balance(story().into_iter().chain([again]));
    finds(&balance, Rule::Money, "order a was captured 2 times");
    finds(&balance, Rule::Money, "captured minus refunded is 2000 EUR");
}

#[test]
fn a_second_end_is_found() {
    let cancelled = Fact::from(OrderCancelled { order_id: order_id("a") });
    finds(&balance(story().into_iter().chain([cancelled])), Rule::OneEnd, "order a has more than one end");
}

#[test]
fn the_ends_of_cancelled_and_abandoned_orders_balance() {
    let facts = [vec![goods(10)], called_off("d"), unanswered("e"), asked_too_late("f")].concat();
    let balance = balance(facts);
    assert_eq!(balance.findings, []);
    assert_eq!(balance.ends, Ends { completed: 1, cancelled: 2, rejected: 0, open: 0 });
    assert_eq!((balance.captured_minor["EUR"], balance.refunded_minor["EUR"]), (1300, 300));
}

#[test]
fn a_cancelled_order_that_loses_an_event_that_undoes_it_is_found() {
    let lost = |facts: Vec<Fact>, is_lost: fn(&Fact) -> bool, rule, words: &str| {
        let facts = facts.into_iter().filter(|fact| !is_lost(fact));
        finds(&balance([goods(10)].into_iter().chain(facts)), rule, words);
    };
    let one_end = Rule::OneEnd;
    lost(
        called_off("d"),
        |fact| matches!(fact, Fact::PaymentVoided(_)),
        one_end,
        "neither declined, voided nor refunded",
    );
    lost(called_off("d"), |fact| matches!(fact, Fact::StockReleased(_)), one_end, "its stock is not released");
    lost(
        called_off("d"),
        |fact| matches!(fact, Fact::OrderCancelled(_)),
        one_end,
        "although its cancellation was accepted",
    );
    lost(called_off("d"), |fact| matches!(fact, Fact::ItemFreed(_)), Rule::Stock, "still holds stock");
    lost(called_off("d"), |fact| matches!(fact, Fact::OrderCancellationRequested(_)), one_end, "that nobody asked for");
    lost(
        unanswered("e"),
        |fact| matches!(fact, Fact::OrderCancelled(_)),
        one_end,
        "although its payment was abandoned",
    );
    lost(unanswered("e"), |fact| matches!(fact, Fact::PaymentTaken(_)), Rule::Money, "captures and refunds differ");
    let told = |fact: &Fact| matches!(fact, Fact::OrderCancellationRefused(_));
    lost(asked_too_late("f"), told, one_end, "a request to cancel it was never answered");
}

#[test]
fn a_payment_that_ends_a_cancelled_order_in_two_ways_is_found() {
    let voided = Fact::from(PaymentVoided { order_id: order_id("e") });
    let balance = balance(unanswered("e").into_iter().chain([voided]));
    finds(&balance, Rule::Money, "order e was cancelled and its payment ended more than once");
}

#[test]
fn an_order_that_was_sent_in_spite_of_an_accepted_cancellation_is_found() {
    let mut facts = [vec![goods(10)], completed("a")].concat();
    facts.push(OrderCancellationRequested { order_id: order_id("a"), request: 1 }.into());
    facts.push(CancellationAccepted { order_id: order_id("a"), request: 1 }.into());
    finds(&balance(facts.clone()), Rule::OneEnd, "order a was completed, and its cancellation accepted");
    facts.push(CancellationRefused { order_id: order_id("a"), request: 1 }.into());
    finds(&balance(facts), Rule::OneEnd, "both accepted and refused");
}

#[test]
fn a_charge_under_two_keys_is_found() {
    let again = Fact::from(PaymentRequested { order_id: order_id("d"), amount: eur(700) });
    finds(&balance(called_off("d").into_iter().chain([again])), Rule::Money, "order d was charged 2 times");
}

#[test]
fn an_order_without_an_end_is_found() {
    let placed = Fact::from(OrderPlaced { order_id: order_id("open"), total: eur(1) });
    let balance = balance(story().into_iter().chain([placed]));
    finds(&balance, Rule::OneEnd, "order open is in no end");
    assert_eq!(balance.ends.open, 1);
}

#[test]
fn a_wrong_amount_is_found() {
    let mut facts = story();
    facts[3] = PaymentTaken { order_id: order_id("a"), amount: eur(999) }.into();
    finds(&balance(facts), Rule::Money, "order a was charged another amount");
}

#[test]
fn stock_from_nowhere_is_found() {
    let facts = [vec![goods(1)], completed("a")].concat();
    finds(&balance(facts), Rule::Stock, "blue: -1 free");
    let stray = Fact::from(ItemShipped { sku: "blue".to_owned(), order_id: order_id("x"), quantity: 3 });
    finds(&balance(story().into_iter().chain([stray])), Rule::Stock, "order x let go of 3 blue more than it held");
}

#[test]
fn a_wrong_count_of_free_stock_is_found() {
    let short = |free| Fact::from(ItemShort { sku: "blue".to_owned(), free });
    assert!(balance(story().into_iter().chain([short(7)])).is_clean());
    finds(&balance(story().into_iter().chain([short(6)])), Rule::Stock, "said 6 were free when 7 were");
}

fn stamped(stamps: &[(Uuid, Option<u64>, u64)]) -> Balance {
    let mut books = Books::default();
    for (offset, (id, sequence, content)) in (0..).zip(stamps) {
        let place = Place { partition: 0, offset };
        books.stamp(&Stamp { topic: "t", place, key: "k", id: *id, sequence: *sequence, content: *content });
    }
    books.balance([])
}

#[test]
fn a_gap_or_a_repeat_in_a_sequence_is_found() {
    let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
    assert!(stamped(&[(a, Some(1), 1), (b, Some(2), 2)]).is_clean());
    finds(&stamped(&[(a, Some(1), 1), (b, Some(3), 2)]), Rule::Sequence, "sequence 3 where 2 is due");
    finds(&stamped(&[(a, Some(1), 1), (b, Some(1), 2)]), Rule::Sequence, "sequence 1 where 2 is due");
    finds(&stamped(&[(a, None, 1)]), Rule::Sequence, "no sequence");
    assert_eq!(
        stamped(&[(a, Some(1), 1), (b, Some(3), 2), (c, Some(4), 3)]).findings.len(),
        1,
        "one gap is one finding"
    );
}

#[test]
fn one_id_with_two_contents_is_found() {
    let id = Uuid::from_u128(1);
    finds(&stamped(&[(id, Some(1), 1), (id, Some(2), 2)]), Rule::OneContent, "two contents");
}

#[test]
fn a_letter_that_nobody_could_read_is_found() {
    let mut books = Books::default();
    books.unreadable("dlq.warehouse", Place { partition: 1, offset: 2 }, "a dead letter");
    finds(&books.balance([]), Rule::Readable, "dlq.warehouse partition 1 offset 2: a dead letter");
}
