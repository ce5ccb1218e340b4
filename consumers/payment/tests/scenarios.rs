//! Every rule of payment: given events, when an input, then events. Each input is handled twice.

use payment::{
    Payment,
    effects::GatewayCall,
    events::*,
    evolve::State,
    inbox::*,
    reads::{Input, OrderCancelled, OrderPlaced, StockReserved},
};
use runtime::{
    Decider, Decision, Effect as _, Received, TimerFired,
    testing::{NOW_MS, Scenario, in_every_pairwise_order, received},
};

const ORDER: &str = "order-1";
const CHARGE: &str = "charge-order-1";
const REFUND: &str = "refund-order-1";
const DEADLINE: i64 = NOW_MS + 15 * 60 * 1_000;

fn an_order() -> Scenario<Payment> {
    Scenario::of(Payment::default())
}

// ── charges ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_placed_order_awaits_its_stock() {
    an_order().when(&placed(6497)).then([awaited_with_terms()]).then_pending([]);
}

#[test]
fn a_reserved_stock_awaits_its_order() {
    an_order().when(&reserved()).then([awaited_without_terms()]).then_pending([]);
}

#[test]
fn the_second_of_the_two_facts_requests_the_amount_of_the_order() {
    an_order().given([awaited_with_terms()]).when(&reserved()).then([requested()]).then_pending([charge()]);
    an_order().given([awaited_without_terms()]).when(&placed(6497)).then([requested()]).then_pending([charge()]);
}

#[test]
fn a_repeated_fact_requests_nothing_more() {
    an_order().given([awaited_with_terms()]).when(&placed(6497)).then_nothing();
    an_order().given([awaited_without_terms()]).when(&reserved()).then_nothing();
    for fact in [placed(6497), reserved()] {
        an_order().given(charging()).when(&fact).then_nothing();
        an_order().given(taken_events()).when(&fact).then_nothing();
        an_order().given(and(charging(), declined("no"))).when(&fact).then_nothing();
    }
}

#[test]
fn an_order_that_costs_nothing_is_taken_without_a_charge() {
    let nothing = Money { amount_minor: 0, ..amount() };
    let free = PaymentTaken { amount: nothing.clone(), payment_id: "nothing-to-pay".to_owned(), ..taken() };
    let awaited = PaymentAwaited { amount: Some(nothing), ..awaited_with_terms() };
    an_order().given([awaited]).when(&reserved()).then([free.clone()]).then_pending([]);
    an_order().given([awaited_without_terms()]).when(&placed(0)).then([free.clone()]).then_pending([]);
    let nothing = "nothing-to-pay".to_owned();
    let back = PaymentRefunded {
        amount: free.amount.clone(),
        payment_id: nothing.clone(),
        refund_id: nothing,
        ..payment_refunded()
    };
    an_order().given([free]).when(&cancelled()).then([back]).then_pending([]);
}

#[test]
fn a_negative_amount_is_declined_without_a_charge() {
    let negative = Money { amount_minor: -1, ..amount() };
    let refused = PaymentDeclined { amount: negative, ..declined("the amount is negative") };
    an_order().given([awaited_without_terms()]).when(&placed(-1)).then([refused]).then_pending([]);
}

// ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_captured_charge_is_taken() {
    an_order().given(charging()).when(&captured(GatewayRequest::Charge)).then([taken()]).then_pending([]);
}

#[test]
fn a_declined_charge_is_declined() {
    an_order()
        .given(charging())
        .when(&gateway_declined(GatewayRequest::Charge))
        .then([declined("insufficient funds")])
        .then_pending([]);
}

#[test]
fn a_declined_charge_without_a_reason_gets_a_default_reason() {
    let silent = GatewayAnswered { outcome: GatewayOutcome::Declined, ..answer(GatewayRequest::Charge) };
    an_order().given(charging()).when(&input(silent)).then([declined("the gateway gave no reason")]);
}

#[test]
fn a_charge_that_the_gateway_reports_as_voided_is_declined() {
    let voided = GatewayAnswered { outcome: GatewayOutcome::Voided, ..answer(GatewayRequest::Charge) };
    an_order().given(charging()).when(&input(voided)).then([declined("the gateway reports the charge as voided")]);
}

#[test]
fn a_second_answer_changes_nothing() {
    for again in [captured(GatewayRequest::Charge), gateway_declined(GatewayRequest::Charge), gateway_voided()] {
        an_order().given(taken_events()).when(&again).then_nothing();
        an_order().given(and(charging(), declined("no"))).when(&again).then_nothing();
        an_order().given(and(voiding(), voided())).when(&again).then_nothing();
        an_order().given(refunding()).when(&again).then_nothing();
        an_order().when(&again).then_nothing();
    }
}

#[test]
fn an_answer_to_another_request_changes_nothing() {
    let other = GatewayAnswered { request_key: "charge-order-2".to_owned(), ..answer(GatewayRequest::Charge) };
    let other = GatewayAnswered { outcome: GatewayOutcome::Declined, ..other };
    an_order().given(charging()).when(&input(other)).then_nothing().then_pending([charge()]);
    an_order().given(charging()).when(&refunded()).then_nothing().then_pending([charge()]);
}

#[test]
fn an_unknown_answer_leaves_the_call_pending() {
    let unknown = |request| input(GatewayAnswered { outcome: GatewayOutcome::Unknown, ..answer(request) });
    an_order().given(charging()).when(&unknown(GatewayRequest::Charge)).then_nothing().then_pending([charge()]);
    an_order().given(voiding()).when(&unknown(GatewayRequest::Void)).then_nothing().then_pending([void()]);
}

#[test]
fn an_answer_without_an_id_leaves_the_call_pending() {
    let nameless = GatewayAnswered { outcome: GatewayOutcome::Captured, ..answer(GatewayRequest::Charge) };
    an_order().given(charging()).when(&input(nameless.clone())).then_nothing().then_pending([charge()]);
    an_order().given(voiding()).when(&input(nameless)).then_nothing().then_pending([void()]);
    let nameless = GatewayAnswered {
        request_key: REFUND.to_owned(),
        outcome: GatewayOutcome::Refunded,
        ..answer(GatewayRequest::Refund)
    };
    an_order().given(refunding()).when(&input(nameless)).then_nothing().then_pending([refund()]);
}

// ── deadlines ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_unanswered_charge_is_abandoned_at_its_deadline_and_not_repeated() {
    let waiting = an_order().given(charging());
    assert_eq!(waiting.wake_at(), Some(DEADLINE));
    let abandoned = waiting.when(&timer(DEADLINE)).then([abandoned()]).then_pending([]).and();
    assert_eq!(abandoned.wake_at(), None);
}

#[test]
fn a_deadline_counts_from_the_request_and_comes_from_the_service() {
    let hasty = Scenario::of(Payment { charge_deadline_ms: 1_500 });
    let by = PaymentRequested { answer_by: Some(NOW_MS + 1_500), ..requested() };
    hasty.given([awaited_with_terms()]).when(&reserved()).then([by]);
}

#[test]
fn an_expired_timer_that_is_not_pending_changes_nothing() {
    for events in [vec![], charging(), taken_events(), voiding(), refunding(), and(charging(), declined("no"))] {
        an_order().given(events).when(&timer(NOW_MS)).then_nothing();
    }
    for events in [taken_events(), voiding(), and(charging(), declined("no")), and(charging(), abandoned())] {
        an_order().given(events).when(&timer(DEADLINE)).then_nothing();
    }
    let of_old = PaymentRequested { answer_by: None, ..requested() };
    let waiting = an_order().given([Event::from(awaited_with_terms()), of_old.into()]);
    assert_eq!(waiting.wake_at(), None);
    waiting.when(&timer(DEADLINE)).then_nothing().then_pending([charge()]);
}

#[test]
fn an_abandoned_charge_of_a_cancelled_order_is_voided_under_the_same_key() {
    an_order()
        .given(and(charging(), abandoned()))
        .when(&cancelled())
        .then([void_requested()])
        .then_pending([void()])
        .and()
        .when(&gateway_voided())
        .then([voided()])
        .then_pending([]);
}

#[test]
fn a_late_answer_to_an_abandoned_charge_is_reconciled() {
    let late = || an_order().given(and(charging(), abandoned()));
    let why = "the gateway gave no definite answer in time".to_owned();
    late()
        .when(&captured(GatewayRequest::Charge))
        .then([Event::from(taken()), RefundRequested { reason: why.clone(), ..refund_requested() }.into()])
        .then_pending([refund()])
        .and()
        .when(&cancelled())
        .then_nothing();
    late().when(&gateway_declined(GatewayRequest::Charge)).then([declined("insufficient funds")]).then_pending([]);
    late().when(&gateway_voided()).then([PaymentVoided { reason: why, ..voided() }]).then_pending([]);
}

// ── refused refunds ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_refused_refund_waits_for_a_person() {
    an_order().given(refunding()).when(&refund_refused(REFUND)).then([refund_failed(REFUND, 1)]).then_pending([]);
}

#[test]
fn an_operator_retries_a_refused_refund_under_a_new_key() {
    let again = "refund-order-1-2";
    let asked = RefundRequested {
        request_key: again.to_owned(),
        attempt: 2,
        reason: "an operator asked for it again".to_owned(),
        ..refund_requested()
    };
    let effect =
        GatewayCall::Refund { request_key: again.to_owned(), payment_id: "pay-1".to_owned(), amount: amount() };
    let failed = an_order().given(and(refunding(), refund_failed(REFUND, 1)));
    assert_eq!(Payment::default().decide(failed.state(), &retry_refund()), Decision::event(asked));
    let retried = failed.given_received(&retry_refund());
    assert_eq!(retried.pending(), [effect]);
    retried.clone().when(&refund_refused(REFUND)).then_nothing();
    retried.clone().when(&refund_refused(again)).then([refund_failed(again, 2)]);
    let paid_back = GatewayAnswered { request_key: again.to_owned(), ..refunded_answer() };
    retried.when(&input(paid_back)).then([payment_refunded()]).then_pending([]);
}

#[test]
fn a_retry_without_a_refused_refund_is_refused() {
    let refused = |events: Vec<Event>, reason: &str| {
        let expected = CommandRefused {
            entity_id: order(),
            command: "RetryRefund".to_owned(),
            reason: reason.to_owned(),
            occurred_at: NOW_MS,
        };
        an_order().given(events).when(&retry_refund()).then([expected]);
    };
    for events in [vec![], charging(), taken_events(), voiding(), and(charging(), abandoned())] {
        refused(events, "the gateway has refused no refund of this order");
    }
    refused(refunding(), "the refund is requested already");
    refused(and(refunding(), payment_refunded()), "the money was refunded");
}

// ── cancelled ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_order_cancelled_before_any_charge_is_voided() {
    an_order().when(&cancelled()).then([voided()]);
    an_order().given([awaited_with_terms()]).when(&cancelled()).then([voided()]);
    an_order().given([awaited_without_terms()]).when(&cancelled()).then([voided()]);
}

#[test]
fn a_voided_order_is_never_charged() {
    for fact in [placed(6497), reserved(), cancelled()] {
        an_order().given([voided()]).when(&fact).then_nothing().then_pending([]);
    }
}

#[test]
fn an_order_cancelled_while_the_charge_is_unanswered_is_voided_at_the_gateway() {
    an_order().given(charging()).when(&cancelled()).then([void_requested()]).then_pending([void()]);
}

#[test]
fn a_confirmed_void_ends_the_payment() {
    an_order().given(voiding()).when(&gateway_voided()).then([voided()]).then_pending([]);
}

#[test]
fn money_captured_before_the_void_is_refunded() {
    for request in [GatewayRequest::Charge, GatewayRequest::Void] {
        an_order()
            .given(voiding())
            .when(&captured(request))
            .then([Event::from(taken()), refund_requested().into()])
            .then_pending([refund()]);
    }
}

#[test]
fn a_charge_declined_before_the_void_ends_the_payment() {
    for request in [GatewayRequest::Charge, GatewayRequest::Void] {
        an_order()
            .given(voiding())
            .when(&gateway_declined(request))
            .then([declined("insufficient funds")])
            .then_pending([]);
    }
}

#[test]
fn captured_money_of_a_cancelled_order_is_refunded() {
    an_order()
        .given(taken_events())
        .when(&cancelled())
        .then([refund_requested()])
        .then_pending([refund()])
        .and()
        .when(&refunded())
        .then([payment_refunded()])
        .then_pending([]);
}

#[test]
fn a_second_cancel_changes_nothing() {
    for events in [voiding(), refunding(), and(refunding(), payment_refunded()), and(charging(), declined("no"))] {
        an_order().given(events).when(&cancelled()).then_nothing();
    }
}

#[test]
fn an_ended_payment_is_remembered_by_its_end_alone() {
    assert_eq!(an_order().given(and(refunding(), payment_refunded())).state(), &State::Refunded);
    assert_eq!(an_order().given(and(charging(), declined("no"))).state(), &State::Declined);
    assert_eq!(an_order().given([voided()]).state(), &State::Voided);
}

// ── all rules ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn facts_end_in_the_same_state_in_every_order() {
    let end = |scenario: &Scenario<Payment>| scenario.state().clone();
    in_every_pairwise_order(&an_order(), &[placed(6497), reserved()], end);
    in_every_pairwise_order(&an_order(), &[reserved(), placed(6497)], end);
    let settled = |scenario: &Scenario<Payment>| {
        // A gateway that never received the charge answers the pending call.
        let after = if scenario.pending() == [void()] {
            scenario.clone().given_received(&gateway_voided())
        } else {
            scenario.clone()
        };
        (after.state().clone(), after.pending())
    };
    in_every_pairwise_order(&an_order(), &[placed(6497), reserved(), cancelled()], settled);
    // The gateway never received the charge, whichever comes first: the cancellation or the deadline.
    in_every_pairwise_order(&an_order().given(charging()), &[timer(DEADLINE), cancelled()], settled);
    let late = [timer(DEADLINE), cancelled(), captured(GatewayRequest::Charge)];
    in_every_pairwise_order(&an_order().given(charging()), &late, |scenario| {
        scenario.clone().given_received(&refunded()).state().clone()
    });
}

#[test]
fn a_charge_and_its_void_have_different_keys() {
    assert_eq!(charge().key(), CHARGE);
    assert_eq!(refund().key(), REFUND);
    assert_ne!(void().key(), charge().key());
}

#[test]
fn every_input_belongs_to_the_order_it_names() {
    for input in [placed(1), reserved(), cancelled(), refunded(), retry_refund(), timer(1)] {
        assert_eq!(Payment::default().entity(&input), ORDER);
    }
}

// ── fixtures ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn order() -> String {
    ORDER.to_owned()
}

fn amount() -> Money {
    Money { amount_minor: 6497, currency: "EUR".to_owned() }
}

fn input(body: impl Into<Input>) -> Received<Input> {
    received(ORDER, body)
}

fn placed(amount_minor: i64) -> Received<Input> {
    input(OrderPlaced {
        order_id: order(),
        customer_id: "customer-1".to_owned(),
        total: Money { amount_minor, ..amount() },
        payment_method: "card-ok".to_owned(),
    })
}

fn reserved() -> Received<Input> {
    input(StockReserved { order_id: order() })
}

fn cancelled() -> Received<Input> {
    input(OrderCancelled { order_id: order(), detail: "out of stock".to_owned() })
}

fn answer(request: GatewayRequest) -> GatewayAnswered {
    GatewayAnswered {
        order_id: order(),
        request_key: CHARGE.to_owned(),
        request,
        outcome: GatewayOutcome::Unknown,
        payment_id: None,
        refund_id: None,
        reason: None,
    }
}

fn captured(request: GatewayRequest) -> Received<Input> {
    let payment_id = Some("pay-1".to_owned());
    input(GatewayAnswered { outcome: GatewayOutcome::Captured, payment_id, ..answer(request) })
}

fn gateway_declined(request: GatewayRequest) -> Received<Input> {
    let reason = Some("insufficient funds".to_owned());
    input(GatewayAnswered { outcome: GatewayOutcome::Declined, reason, ..answer(request) })
}

fn gateway_voided() -> Received<Input> {
    input(GatewayAnswered { outcome: GatewayOutcome::Voided, ..answer(GatewayRequest::Void) })
}

fn refunded_answer() -> GatewayAnswered {
    GatewayAnswered {
        request_key: REFUND.to_owned(),
        outcome: GatewayOutcome::Refunded,
        refund_id: Some("ref-1".to_owned()),
        ..answer(GatewayRequest::Refund)
    }
}

fn refunded() -> Received<Input> {
    input(refunded_answer())
}

fn refund_refused(request_key: &str) -> Received<Input> {
    input(GatewayAnswered {
        request_key: request_key.to_owned(),
        outcome: GatewayOutcome::Refused,
        reason: Some("the card is closed".to_owned()),
        ..answer(GatewayRequest::Refund)
    })
}

fn retry_refund() -> Received<Input> {
    input(RetryRefund { order_id: order() })
}

fn timer(due_at: i64) -> Received<Input> {
    input(TimerFired { due_at })
}

fn charge() -> GatewayCall {
    GatewayCall::Charge { request_key: CHARGE.to_owned(), amount: amount(), payment_method: "card-ok".to_owned() }
}

fn void() -> GatewayCall {
    GatewayCall::Void { charge_key: CHARGE.to_owned() }
}

fn refund() -> GatewayCall {
    GatewayCall::Refund { request_key: REFUND.to_owned(), payment_id: "pay-1".to_owned(), amount: amount() }
}

fn awaited_with_terms() -> PaymentAwaited {
    PaymentAwaited {
        order_id: order(),
        customer_id: Some("customer-1".to_owned()),
        amount: Some(amount()),
        payment_method: Some("card-ok".to_owned()),
        stock_reserved: false,
        occurred_at: NOW_MS,
    }
}

fn awaited_without_terms() -> PaymentAwaited {
    PaymentAwaited {
        order_id: order(),
        customer_id: None,
        amount: None,
        payment_method: None,
        stock_reserved: true,
        occurred_at: NOW_MS,
    }
}

fn requested() -> PaymentRequested {
    PaymentRequested {
        order_id: order(),
        customer_id: "customer-1".to_owned(),
        amount: amount(),
        payment_method: "card-ok".to_owned(),
        request_key: CHARGE.to_owned(),
        occurred_at: NOW_MS,
        answer_by: Some(DEADLINE),
    }
}

fn abandoned() -> PaymentAbandoned {
    PaymentAbandoned {
        order_id: order(),
        customer_id: "customer-1".to_owned(),
        amount: amount(),
        request_key: CHARGE.to_owned(),
        reason: "the gateway gave no definite answer in time".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn refund_failed(request_key: &str, attempt: i32) -> RefundFailed {
    RefundFailed {
        order_id: order(),
        payment_id: "pay-1".to_owned(),
        amount: amount(),
        request_key: request_key.to_owned(),
        attempt,
        reason: "the card is closed".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn taken() -> PaymentTaken {
    PaymentTaken {
        order_id: order(),
        customer_id: "customer-1".to_owned(),
        amount: amount(),
        payment_id: "pay-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn declined(reason: &str) -> PaymentDeclined {
    PaymentDeclined {
        order_id: order(),
        customer_id: "customer-1".to_owned(),
        amount: amount(),
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

fn void_requested() -> PaymentVoidRequested {
    PaymentVoidRequested {
        order_id: order(),
        request_key: CHARGE.to_owned(),
        reason: "out of stock".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn voided() -> PaymentVoided {
    PaymentVoided { order_id: order(), reason: "out of stock".to_owned(), occurred_at: NOW_MS }
}

fn refund_requested() -> RefundRequested {
    RefundRequested {
        order_id: order(),
        payment_id: "pay-1".to_owned(),
        amount: amount(),
        request_key: REFUND.to_owned(),
        reason: "out of stock".to_owned(),
        occurred_at: NOW_MS,
        attempt: 1,
    }
}

fn payment_refunded() -> PaymentRefunded {
    PaymentRefunded {
        order_id: order(),
        payment_id: "pay-1".to_owned(),
        amount: amount(),
        refund_id: "ref-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

fn charging() -> Vec<Event> {
    vec![awaited_with_terms().into(), requested().into()]
}

fn taken_events() -> Vec<Event> {
    and(charging(), taken())
}

fn voiding() -> Vec<Event> {
    and(charging(), void_requested())
}

fn refunding() -> Vec<Event> {
    and(taken_events(), refund_requested())
}

fn and(mut events: Vec<Event>, event: impl Into<Event>) -> Vec<Event> {
    events.push(event.into());
    events
}
