//! The decisions of notifications and the due mails. Every input is handled twice, and facts are received in every pairwise
//! order.

use notifications::{
    Notifications,
    decide::notification_id,
    effects::SendMail,
    events::{
        Contact, CustomerNotified, NotificationAbandoned, NotificationKind, NotificationRequested, NotificationsStopped,
    },
    inbox::{MailRefused, MailSent},
    reads::{
        self, CancelReason, CancelRequester, CustomerForgotten, CustomerRegistered, Input, Money,
        OrderCancellationRefused, OrderCancelled, OrderDelayed, OrderLine, OrderPaid, OrderShipped,
    },
};
use runtime::{
    Decider, Effect, Received,
    testing::{NOW_MS, Scenario, in_every_pairwise_order, received},
};

const ORDER: &str = "order-1";
const CUSTOMER: &str = "customer-1";

fn contact() -> reads::Contact {
    reads::Contact { name: "Inés Calderón".to_owned(), email: "ines.calderon@example.org".to_owned() }
}

fn lines() -> Vec<OrderLine> {
    vec![
        OrderLine { title: "Kind of Blue".to_owned(), artist: "Miles Davis".to_owned(), quantity: 1 },
        OrderLine { title: "Blue".to_owned(), artist: "Joni Mitchell".to_owned(), quantity: 2 },
    ]
}

fn registered() -> Received<Input> {
    received(CUSTOMER, CustomerRegistered { customer_id: CUSTOMER.to_owned(), contact: contact() })
}

fn forgotten() -> Received<Input> {
    received(CUSTOMER, CustomerForgotten { customer_id: CUSTOMER.to_owned() })
}

fn paid() -> Received<Input> {
    received(
        ORDER,
        OrderPaid {
            order_id: ORDER.to_owned(),
            customer_id: CUSTOMER.to_owned(),
            contact: contact(),
            lines: lines(),
            total: Money { amount_minor: 6407, currency: "EUR".to_owned() },
        },
    )
}

fn shipped() -> Received<Input> {
    received(
        ORDER,
        OrderShipped {
            order_id: ORDER.to_owned(),
            customer_id: CUSTOMER.to_owned(),
            contact: contact(),
            lines: lines(),
            carrier: "Parcelwing".to_owned(),
            tracking_number: "PW-1".to_owned(),
        },
    )
}

fn cancelled(reason: CancelReason) -> Received<Input> {
    received(
        ORDER,
        OrderCancelled {
            order_id: ORDER.to_owned(),
            customer_id: CUSTOMER.to_owned(),
            contact: contact(),
            lines: lines(),
            reason,
        },
    )
}

fn delayed() -> Received<Input> {
    received(
        ORDER,
        OrderDelayed {
            order_id: ORDER.to_owned(),
            customer_id: CUSTOMER.to_owned(),
            contact: contact(),
            lines: lines(),
        },
    )
}

fn cancellation_refused(requested_by: CancelRequester) -> Received<Input> {
    received(
        ORDER,
        OrderCancellationRefused {
            order_id: ORDER.to_owned(),
            customer_id: CUSTOMER.to_owned(),
            contact: contact(),
            lines: lines(),
            requested_by,
            reason: "the parcel is packed".to_owned(),
        },
    )
}

fn requested(kind: NotificationKind, subject: &str, body: &str) -> NotificationRequested {
    let about_order = kind != NotificationKind::Welcome;
    NotificationRequested {
        notification_id: notification_id(if about_order { ORDER } else { CUSTOMER }, kind),
        customer_id: CUSTOMER.to_owned(),
        order_id: about_order.then(|| ORDER.to_owned()),
        kind,
        to: Contact { name: "Inés Calderón".to_owned(), email: "ines.calderon@example.org".to_owned() },
        subject: subject.to_owned(),
        body: body.to_owned(),
        occurred_at: NOW_MS,
    }
}

fn due(request: &NotificationRequested) -> SendMail {
    SendMail {
        notification_id: request.notification_id.clone(),
        name: request.to.name.clone(),
        email: request.to.email.clone(),
        subject: request.subject.clone(),
        body: request.body.clone(),
        requested_at_ms: request.occurred_at,
    }
}

fn sent(notification_id: &str) -> Received<Input> {
    let (notification_id, message_id) = (notification_id.to_owned(), "<1@example.org>".to_owned());
    received(ORDER, MailSent { notification_id, message_id })
}

fn refused(notification_id: &str) -> Received<Input> {
    let (notification_id, reason) = (notification_id.to_owned(), "550 no such mailbox".to_owned());
    received(ORDER, MailRefused { notification_id, reason })
}

fn new() -> Scenario<Notifications> {
    Scenario::of(Notifications)
}

#[track_caller]
fn requests(input: &Received<Input>, request: &NotificationRequested) {
    new().when(input).then([request.clone()]).then_pending([due(request)]).and().when(input).then_nothing();
}

#[test]
fn a_registered_customer_is_welcomed() {
    let body = "Hello Inés Calderón,\n\nwelcome to MusicCorp. Please follow the link on your account page to verify this \
                address.\n\nMusicCorp\n";
    requests(&registered(), &requested(NotificationKind::Welcome, "Welcome to MusicCorp", body));
}

#[test]
fn a_delayed_order_is_notified() {
    let body = "Hello Inés Calderón,\n\nthe courier has not taken the parcel of your order order-1 yet. We keep trying; you need \
                not do anything:\n\n  1 x Kind of Blue, Miles Davis\n  2 x Blue, Joni Mitchell\n\nMusicCorp\n";
    requests(&delayed(), &requested(NotificationKind::OrderDelayed, "Your records are delayed", body));
}

#[test]
fn a_customer_whose_request_is_refused_is_notified_with_the_reason() {
    let body = "Hello Inés Calderón,\n\nit was too late to cancel your order order-1: the parcel is packed. It comes as you \
                ordered it:\n\n  1 x Kind of Blue, Miles Davis\n  2 x Blue, Joni Mitchell\n\nMusicCorp\n";
    let subject = "Your order could not be cancelled";
    let expected = requested(NotificationKind::OrderCancellationRefused, subject, body);
    requests(&cancellation_refused(CancelRequester::Customer), &expected);
}

#[test]
fn a_customer_without_a_request_is_not_notified() {
    new().when(&cancellation_refused(CancelRequester::Unknown)).then_nothing();
}

#[test]
fn a_paid_order_is_notified_with_the_amount() {
    let body = "Hello Inés Calderón,\n\nwe received 64.07 EUR for your order order-1:\n\n  1 x Kind of Blue, Miles Davis\n  \
                2 x Blue, Joni Mitchell\n\nMusicCorp\n";
    requests(&paid(), &requested(NotificationKind::OrderPaid, "We received your payment", body));
}

#[test]
fn a_shipped_order_is_notified_with_the_parcel_number() {
    let body = "Hello Inés Calderón,\n\nParcelwing has the parcel of your order order-1; its number is PW-1:\n\n  1 x Kind of \
                Blue, Miles Davis\n  2 x Blue, Joni Mitchell\n\nMusicCorp\n";
    requests(&shipped(), &requested(NotificationKind::OrderShipped, "Your records are on their way", body));
}

#[test]
fn a_cancelled_order_is_notified_with_its_reason() {
    let reasons = [
        (CancelReason::OutOfStock, "we do not have enough of it in stock"),
        (CancelReason::PaymentDeclined, "your payment was declined"),
        (CancelReason::PaymentAbandoned, "your payment could not be completed in time"),
        (CancelReason::LostAtPackaging, "we could not find all of it when we packed your parcel"),
        (CancelReason::CustomerRequest, "you asked us to"),
        (CancelReason::Unknown, "we cannot fulfil it"),
    ];
    for (reason, why) in reasons {
        let body = format!(
            "Hello Inés Calderón,\n\nwe cancelled your order order-1, because {why}. Whatever you paid for it is paid \
             back:\n\n  1 x Kind of Blue, Miles Davis\n  2 x Blue, Joni Mitchell\n\nMusicCorp\n"
        );
        let request = requested(NotificationKind::OrderCancelled, "Your order was cancelled", &body);
        requests(&cancelled(reason), &request);
    }
}

#[test]
fn text_from_events_stays_on_its_line() {
    let mut input = paid();
    if let Input::OrderPaid(fact) = &mut input.body {
        fact.contact.name = "Inés\r\n\r\nYou owe us".to_owned();
    }
    let outcome = new().when(&input);
    let [notifications::events::Event::NotificationRequested(request)] = outcome.decision().events.as_slice() else {
        panic!("expected one request, got {:?}", outcome.decision());
    };
    assert!(request.body.starts_with("Hello Inés    You owe us,\n\nwe received"), "{}", request.body);
}

#[test]
fn a_sent_mail_notifies_the_customer_once() {
    let id = notification_id(ORDER, NotificationKind::OrderPaid);
    let notified = CustomerNotified {
        notification_id: id.clone(),
        customer_id: CUSTOMER.to_owned(),
        order_id: Some(ORDER.to_owned()),
        kind: NotificationKind::OrderPaid,
        message_id: "<1@example.org>".to_owned(),
        occurred_at: NOW_MS,
    };
    new().given_received(&paid()).when(&sent(&id)).then([notified]).then_pending([]).and().when(&paid()).then_nothing();
}

#[test]
fn a_refused_mail_is_abandoned() {
    let id = notification_id(ORDER, NotificationKind::OrderPaid);
    let abandoned = NotificationAbandoned {
        notification_id: id.clone(),
        customer_id: CUSTOMER.to_owned(),
        order_id: Some(ORDER.to_owned()),
        kind: NotificationKind::OrderPaid,
        reason: "550 no such mailbox".to_owned(),
        occurred_at: NOW_MS,
    };
    new()
        .given_received(&paid())
        .when(&refused(&id))
        .then([abandoned])
        .then_pending([])
        .and()
        .when(&paid())
        .then_nothing();
}

#[test]
fn an_answer_that_is_not_pending_is_ignored() {
    let id = notification_id(ORDER, NotificationKind::OrderPaid);
    new().when(&sent(&id)).then_nothing();
    new().when(&refused(&id)).then_nothing();
    new().given_received(&paid()).given_received(&sent(&id)).when(&refused(&id)).then_nothing();
}

#[test]
fn a_forgotten_customer_gets_no_due_and_no_later_mail() {
    let stopped = NotificationsStopped { customer_id: CUSTOMER.to_owned(), occurred_at: NOW_MS };
    let after = new().given_received(&registered()).when(&forgotten()).then([stopped]).then_pending([]).and();
    after.clone().when(&registered()).then_nothing();
    after.when(&sent(&notification_id(CUSTOMER, NotificationKind::Welcome))).then_nothing();
    new().given_received(&forgotten()).when(&registered()).then_nothing();
}

#[test]
fn the_same_mails_are_due_in_every_pairwise_order() {
    let facts = [paid(), shipped(), cancelled(CancelReason::LostAtPackaging)];
    in_every_pairwise_order(&new(), &facts, |after| after.state().clone());
    let of_customer = [registered(), forgotten()];
    in_every_pairwise_order(&new(), &of_customer, |after| (after.pending(), after.state().stopped));
}

#[test]
fn a_mail_always_has_the_same_key_and_message_id() {
    let request = requested(NotificationKind::OrderPaid, "", "");
    let mail = due(&request);
    assert_eq!(mail.key(), request.notification_id);
    assert_eq!(mail.message_id(), format!("<{}@musiccorp.example>", request.notification_id));
    assert_ne!(
        notification_id(ORDER, NotificationKind::OrderPaid),
        notification_id(ORDER, NotificationKind::OrderShipped)
    );
}

#[test]
fn an_input_belongs_to_the_order_or_customer_that_it_is_about() {
    for (input, entity) in [(paid(), ORDER), (shipped(), ORDER), (registered(), CUSTOMER), (forgotten(), CUSTOMER)] {
        let misrouted = Received { key: "somebody-else".to_owned(), ..input };
        assert_eq!(Notifications.entity(&misrouted), entity);
    }
    assert_eq!(Notifications.entity(&sent("n")), ORDER);
}
