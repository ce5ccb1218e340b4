//! A clean run is clean, and every planted defect is found.

use uuid::Uuid;

use super::{
    checks::{AuditState, EventStamp, PartitionOffset},
    reads::*,
    report::{AuditReport, AuditRule, OrderOutcomes, StockTotals},
};

fn eur(amount_minor: i64) -> Money {
    Money { amount_minor, currency: "EUR".to_owned() }
}

fn order_id(id: &str) -> String {
    id.to_owned()
}

/// A completed order of two `blue` for 10.00.
fn completed(id: &str) -> Vec<AuditedEvent> {
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

/// An order of one `blue` that is missing at packaging: written off, refunded, released.
fn lost(id: &str) -> Vec<AuditedEvent> {
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

/// An order of one `blue` that was cancelled while the gateway did not answer.
fn cancelled_while_charging(id: &str) -> Vec<AuditedEvent> {
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

/// An order whose gateway answered after the deadline: captured, and refunded.
fn answered_late(id: &str) -> Vec<AuditedEvent> {
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

/// A completed order whose cancellation was requested when the parcel was packed already.
fn cancelled_too_late(id: &str) -> Vec<AuditedEvent> {
    let refusal: Vec<AuditedEvent> = vec![
        OrderCancellationRequested { order_id: order_id(id), request: 1 }.into(),
        CancellationRefused { order_id: order_id(id), request: 1 }.into(),
        OrderCancellationRefused { order_id: order_id(id), request: 1 }.into(),
    ];
    [completed(id), refusal].concat()
}

fn goods(quantity: i32) -> AuditedEvent {
    GoodsReceived { sku: "blue".to_owned(), quantity }.into()
}

fn audited(events: impl IntoIterator<Item = AuditedEvent>) -> AuditReport {
    let mut state = AuditState::default();
    events.into_iter().for_each(|event| state.apply(event));
    state.report([])
}

#[track_caller]
fn assert_finding(report: &AuditReport, rule: AuditRule, words: &str) {
    assert!(
        report.findings.iter().any(|finding| finding.rule == rule && finding.what.contains(words)),
        "no finding of {rule} contains {words:?}: {:?}",
        report.findings
    );
}

fn without(mut events: Vec<AuditedEvent>, at: usize) -> Vec<AuditedEvent> {
    events.remove(at);
    events
}

fn clean_run() -> Vec<AuditedEvent> {
    let rejected = AuditedEvent::from(OrderRejected { order_id: order_id("c") });
    [vec![goods(10)], completed("a"), lost("b"), vec![rejected]].concat()
}

#[test]
fn a_clean_run_has_no_findings() {
    let report = audited(clean_run());
    assert_eq!(report.findings, []);
    assert_eq!(report.orders, OrderOutcomes { completed: 1, cancelled: 1, rejected: 1, open: 0 });
    assert_eq!(report.stock, StockTotals { received: 10, free: 7, held: 0, shipped: 2, written_off: 1 });
    assert_eq!((report.captured_minor["EUR"], report.refunded_minor["EUR"]), (1500, 500));
}

#[test]
fn the_order_in_which_topics_are_read_does_not_matter() {
    let (stock, rest): (Vec<AuditedEvent>, Vec<AuditedEvent>) = clean_run().into_iter().partition(|event| {
        matches!(
            event,
            AuditedEvent::GoodsReceived(_)
                | AuditedEvent::ItemHeld(_)
                | AuditedEvent::ItemShipped(_)
                | AuditedEvent::StockWrittenOff(_)
        )
    });
    assert_eq!(audited(rest.into_iter().rev().chain(stock)).findings, []);
}

#[test]
fn any_one_lost_event_is_found() {
    for at in 0..clean_run().len() {
        let lost = clean_run()[at].clone();
        // No other event mentions a rejected order, and free stock may go unused. The gap in the sequence shows those losses.
        if matches!(lost, AuditedEvent::OrderRejected(_) | AuditedEvent::GoodsReceived(_)) {
            continue;
        }
        assert!(!audited(without(clean_run(), at)).is_clean(), "losing {lost:?} was not found");
    }
}

#[test]
fn a_double_capture_is_found() {
    let again = AuditedEvent::from(PaymentTaken { order_id: order_id("a"), amount: eur(1000) });
    let report = audited(clean_run().into_iter().chain([again]));
    assert_finding(&report, AuditRule::Money, "order a was captured 2 times");
    assert_finding(&report, AuditRule::Money, "captured minus refunded is 2000 EUR");
}

#[test]
fn a_second_outcome_is_found() {
    let cancelled = AuditedEvent::from(OrderCancelled { order_id: order_id("a") });
    assert_finding(
        &audited(clean_run().into_iter().chain([cancelled])),
        AuditRule::SingleOutcome,
        "order a has more than one outcome",
    );
}

#[test]
fn cancelled_and_abandoned_orders_have_no_findings() {
    let events = [vec![goods(10)], cancelled_while_charging("d"), answered_late("e"), cancelled_too_late("f")].concat();
    let report = audited(events);
    assert_eq!(report.findings, []);
    assert_eq!(report.orders, OrderOutcomes { completed: 1, cancelled: 2, rejected: 0, open: 0 });
    assert_eq!((report.captured_minor["EUR"], report.refunded_minor["EUR"]), (1300, 300));
}

#[test]
fn a_cancelled_order_without_one_of_its_compensations_is_found() {
    let lost = |events: Vec<AuditedEvent>, is_lost: fn(&AuditedEvent) -> bool, rule, words: &str| {
        let events = events.into_iter().filter(|event| !is_lost(event));
        assert_finding(&audited([goods(10)].into_iter().chain(events)), rule, words);
    };
    let outcome = AuditRule::SingleOutcome;
    lost(
        cancelled_while_charging("d"),
        |event| matches!(event, AuditedEvent::PaymentVoided(_)),
        outcome,
        "neither declined, voided nor refunded",
    );
    lost(
        cancelled_while_charging("d"),
        |event| matches!(event, AuditedEvent::StockReleased(_)),
        outcome,
        "its stock is not released",
    );
    lost(
        cancelled_while_charging("d"),
        |event| matches!(event, AuditedEvent::OrderCancelled(_)),
        outcome,
        "although its cancellation was accepted",
    );
    lost(
        cancelled_while_charging("d"),
        |event| matches!(event, AuditedEvent::ItemFreed(_)),
        AuditRule::Stock,
        "still holds stock",
    );
    lost(
        cancelled_while_charging("d"),
        |event| matches!(event, AuditedEvent::OrderCancellationRequested(_)),
        outcome,
        "that nobody requested",
    );
    lost(
        answered_late("e"),
        |event| matches!(event, AuditedEvent::OrderCancelled(_)),
        outcome,
        "although its payment was abandoned",
    );
    lost(
        answered_late("e"),
        |event| matches!(event, AuditedEvent::PaymentTaken(_)),
        AuditRule::Money,
        "captures and refunds differ",
    );
    let refusal = |event: &AuditedEvent| matches!(event, AuditedEvent::OrderCancellationRefused(_));
    lost(cancelled_too_late("f"), refusal, outcome, "a cancellation request was never answered");
}

#[test]
fn a_cancelled_order_whose_payment_has_two_outcomes_is_found() {
    let voided = AuditedEvent::from(PaymentVoided { order_id: order_id("e") });
    let report = audited(answered_late("e").into_iter().chain([voided]));
    assert_finding(&report, AuditRule::Money, "order e was cancelled, and its payment has more than one outcome");
}

#[test]
fn an_order_that_ships_after_an_accepted_cancellation_is_found() {
    let mut events = [vec![goods(10)], completed("a")].concat();
    events.push(OrderCancellationRequested { order_id: order_id("a"), request: 1 }.into());
    events.push(CancellationAccepted { order_id: order_id("a"), request: 1 }.into());
    assert_finding(
        &audited(events.clone()),
        AuditRule::SingleOutcome,
        "order a was completed, and its cancellation accepted",
    );
    events.push(CancellationRefused { order_id: order_id("a"), request: 1 }.into());
    assert_finding(&audited(events), AuditRule::SingleOutcome, "both accepted and refused");
}

#[test]
fn a_charge_under_two_keys_is_found() {
    let again = AuditedEvent::from(PaymentRequested { order_id: order_id("d"), amount: eur(700) });
    assert_finding(
        &audited(cancelled_while_charging("d").into_iter().chain([again])),
        AuditRule::Money,
        "order d was charged 2 times",
    );
}

#[test]
fn an_order_without_an_outcome_is_found() {
    let placed = AuditedEvent::from(OrderPlaced { order_id: order_id("open"), total: eur(1) });
    let report = audited(clean_run().into_iter().chain([placed]));
    assert_finding(&report, AuditRule::SingleOutcome, "order open has no outcome");
    assert_eq!(report.orders.open, 1);
}

#[test]
fn a_wrong_amount_is_found() {
    let mut events = clean_run();
    events[3] = PaymentTaken { order_id: order_id("a"), amount: eur(999) }.into();
    assert_finding(&audited(events), AuditRule::Money, "order a was charged another amount");
}

#[test]
fn stock_from_nowhere_is_found() {
    let events = [vec![goods(1)], completed("a")].concat();
    assert_finding(&audited(events), AuditRule::Stock, "blue: -1 free");
    let stray = AuditedEvent::from(ItemShipped { sku: "blue".to_owned(), order_id: order_id("x"), quantity: 3 });
    assert_finding(
        &audited(clean_run().into_iter().chain([stray])),
        AuditRule::Stock,
        "order x released 3 blue more than it held",
    );
}

#[test]
fn a_wrong_count_of_free_stock_is_found() {
    let short = |free| AuditedEvent::from(ItemShort { sku: "blue".to_owned(), free });
    assert!(audited(clean_run().into_iter().chain([short(7)])).is_clean());
    assert_finding(
        &audited(clean_run().into_iter().chain([short(6)])),
        AuditRule::Stock,
        "reported 6 free when 7 were",
    );
}

fn stamped(stamps: &[(Uuid, Option<u64>, u64)]) -> AuditReport {
    let mut state = AuditState::default();
    for (offset, (id, sequence, content)) in (0..).zip(stamps) {
        let position = PartitionOffset { partition: 0, offset };
        state.check_stamp(&EventStamp {
            topic: "t",
            position,
            key: "k",
            id: *id,
            sequence: *sequence,
            content: *content,
        });
    }
    state.report([])
}

#[test]
fn a_gap_or_a_repeat_in_a_sequence_is_found() {
    let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
    assert!(stamped(&[(a, Some(1), 1), (b, Some(2), 2)]).is_clean());
    assert_finding(&stamped(&[(a, Some(1), 1), (b, Some(3), 2)]), AuditRule::Sequence, "sequence 3 where 2 is due");
    assert_finding(&stamped(&[(a, Some(1), 1), (b, Some(1), 2)]), AuditRule::Sequence, "sequence 1 where 2 is due");
    assert_finding(&stamped(&[(a, None, 1)]), AuditRule::Sequence, "no sequence");
    assert_eq!(
        stamped(&[(a, Some(1), 1), (b, Some(3), 2), (c, Some(4), 3)]).findings.len(),
        1,
        "one gap is one finding"
    );
}

#[test]
fn one_id_with_two_contents_is_found() {
    let id = Uuid::from_u128(1);
    assert_finding(&stamped(&[(id, Some(1), 1), (id, Some(2), 2)]), AuditRule::UniqueContent, "two contents");
}

#[test]
fn a_dead_letter_is_found() {
    let mut state = AuditState::default();
    state.note_unreadable("dlq.warehouse", PartitionOffset { partition: 1, offset: 2 }, "a dead letter");
    assert_finding(&state.report([]), AuditRule::Readable, "dlq.warehouse partition 1 offset 2: a dead letter");
}
