//! What payment asks of the gateway, and what it makes of its replies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use payment::{
    effects::{Effect, Gateway},
    events::Money,
    inbox::{Command, GatewayAnswered, GatewayOutcome, GatewayRequest},
};
use runtime::{Answer, Due, Perform, Unanswered};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ORDER: &str = "order-1";
const CHARGE: &str = "charge-order-1";
const REFUND: &str = "refund-order-1";
const CAPTURED: &str = r#"{"status":"captured","payment_id":"pay-1","fee":12}"#;
const DECLINED: &str = r#"{"status":"declined","reason":"insufficient funds"}"#;
const VOIDED: &str = r#"{"status":"voided"}"#;
const REFUNDED: &str = r#"{"status":"refunded","refund_id":"ref-1"}"#;

#[tokio::test]
async fn a_charge_is_asked_in_full_and_captured() {
    let (gateway, url) = FarEnd::replying(&[(200, CAPTURED)]).await;
    let answer = perform(&url, charge()).await.unwrap();
    assert_eq!(answer, captured(GatewayRequest::Charge));
    let body = json!({ "order_id": ORDER, "amount_minor": 6497, "currency": "EUR", "payment_method": "card-ok" });
    assert_eq!(gateway.asked(), [Asked { path: "/charges".to_owned(), key: CHARGE.to_owned(), body }]);
}

#[tokio::test]
async fn a_charge_may_be_declined() {
    for status in [402, 200] {
        let (_, url) = FarEnd::replying(&[(status, DECLINED)]).await;
        assert_eq!(perform(&url, charge()).await.unwrap(), declined(GatewayRequest::Charge));
    }
}

#[tokio::test]
async fn a_void_is_asked_under_the_charges_key_and_tells_what_became_of_it() {
    let (gateway, url) = FarEnd::replying(&[(200, VOIDED), (200, CAPTURED), (402, DECLINED), (200, DECLINED)]).await;
    assert_eq!(perform(&url, void()).await.unwrap(), voided(GatewayRequest::Void));
    assert_eq!(perform(&url, void()).await.unwrap(), captured(GatewayRequest::Void));
    assert_eq!(perform(&url, void()).await.unwrap(), declined(GatewayRequest::Void));
    assert_eq!(perform(&url, void()).await.unwrap(), declined(GatewayRequest::Void));
    let asked = Asked { path: "/voids".to_owned(), key: CHARGE.to_owned(), body: json!({ "order_id": ORDER }) };
    assert_eq!(gateway.asked(), vec![asked; 4]);
}

#[tokio::test]
async fn a_charge_that_was_voided_meanwhile_says_so() {
    let (_, url) = FarEnd::replying(&[(200, VOIDED)]).await;
    assert_eq!(perform(&url, charge()).await.unwrap(), voided(GatewayRequest::Charge));
}

#[tokio::test]
async fn a_refund_is_asked_for_the_payment_and_made() {
    let (gateway, url) = FarEnd::replying(&[(200, REFUNDED)]).await;
    let expected = GatewayAnswered {
        request_key: REFUND.to_owned(),
        outcome: GatewayOutcome::Refunded,
        refund_id: Some("ref-1".to_owned()),
        ..answered(GatewayRequest::Refund)
    };
    let expected = Answer { outcome: "refunded ref-1".to_owned(), command: expected.into() };
    assert_eq!(perform(&url, refund()).await.unwrap(), expected);
    let body = json!({ "payment_id": "pay-1", "order_id": ORDER, "amount_minor": 6497, "currency": "EUR" });
    assert_eq!(gateway.asked(), [Asked { path: "/refunds".to_owned(), key: REFUND.to_owned(), body }]);
}

#[tokio::test]
async fn a_refund_may_be_refused() {
    for status in [409, 200] {
        let (_, url) = FarEnd::replying(&[(status, r#"{"status":"refused","reason":"the card is closed"}"#)]).await;
        let expected = GatewayAnswered {
            request_key: REFUND.to_owned(),
            outcome: GatewayOutcome::Refused,
            reason: Some("the card is closed".to_owned()),
            ..answered(GatewayRequest::Refund)
        };
        let expected = Answer { outcome: "refused".to_owned(), command: expected.into() };
        assert_eq!(perform(&url, refund()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_gateway_that_answers_twice_gives_the_same_answer() {
    let (gateway, url) = FarEnd::replying(&[(200, CAPTURED)]).await;
    let (first, second) = (perform(&url, charge()).await.unwrap(), perform(&url, charge()).await.unwrap());
    assert_eq!(first, second);
    assert_eq!(gateway.asked()[0], gateway.asked()[1], "asked again in the same words under the same key");
}

#[tokio::test]
async fn anything_else_is_no_answer() {
    let cases = [
        (200, ""),
        (200, "{"),
        (200, "null"),
        (200, "{}"),
        (200, r#"{"status":"pending"}"#),
        (200, r#"{"status":"captured"}"#),
        (200, r#"{"status":"captured","payment_id":""}"#),
        (200, r#"{"status":"captured","payment_id":7}"#),
        (200, REFUNDED),
        (201, CAPTURED),
        (402, CAPTURED),
        (402, "payment required"),
        (409, r#"{"status":"refused"}"#),
        (409, DECLINED),
        (400, DECLINED),
        (500, CAPTURED),
        (502, DECLINED),
    ];
    for (status, reply) in cases {
        let (_, url) = FarEnd::replying(&[(status, reply)]).await;
        for effect in [charge(), void()] {
            let unanswered = perform(&url, effect).await.expect_err(reply);
            assert!(unanswered.reason.contains("unexpected reply"), "{unanswered}");
        }
    }
    for (status, reply) in [
        (200, CAPTURED),
        (200, VOIDED),
        (200, DECLINED),
        (402, DECLINED),
        (200, r#"{"status":"refunded"}"#),
        (200, r#"{"status":"refunded","refund_id":""}"#),
        (503, REFUNDED),
    ] {
        let (_, url) = FarEnd::replying(&[(status, reply)]).await;
        let unanswered = perform(&url, refund()).await.expect_err(reply);
        assert!(unanswered.reason.contains("unexpected reply"), "{unanswered}");
    }
}

#[tokio::test]
async fn a_gateway_that_was_too_busy_is_asked_again_under_the_same_key() {
    let (gateway, url) = FarEnd::replying(&[(429, "later"), (500, "sorry"), (200, CAPTURED)]).await;
    perform(&url, charge()).await.unwrap_err();
    perform(&url, charge()).await.unwrap_err();
    assert_eq!(perform(&url, charge()).await.unwrap(), captured(GatewayRequest::Charge));
    assert!(gateway.asked().iter().all(|asked| asked.key == CHARGE));
}

#[tokio::test]
async fn a_wrong_address_is_refused_at_the_start() {
    assert!(Gateway::at("gateway").is_err());
}

async fn perform(url: &str, effect: Effect) -> Result<Answer<Command>, Unanswered> {
    let due = Due { key: ORDER.to_owned(), correlation_id: ORDER.to_owned(), effect, attempt: 0 };
    let gateway = Gateway::at(url).unwrap();
    tokio::time::timeout(Duration::from_secs(20), gateway.perform(due)).await.unwrap()
}

fn amount() -> Money {
    Money { amount_minor: 6497, currency: "EUR".to_owned() }
}

fn charge() -> Effect {
    Effect::Charge { request_key: CHARGE.to_owned(), amount: amount(), payment_method: "card-ok".to_owned() }
}

fn void() -> Effect {
    Effect::Void { charge_key: CHARGE.to_owned() }
}

fn refund() -> Effect {
    Effect::Refund { request_key: REFUND.to_owned(), payment_id: "pay-1".to_owned(), amount: amount() }
}

fn answered(request: GatewayRequest) -> GatewayAnswered {
    GatewayAnswered {
        order_id: ORDER.to_owned(),
        request_key: CHARGE.to_owned(),
        request,
        outcome: GatewayOutcome::Unknown,
        payment_id: None,
        refund_id: None,
        reason: None,
    }
}

fn captured(request: GatewayRequest) -> Answer<Command> {
    let payment_id = Some("pay-1".to_owned());
    let command = GatewayAnswered { outcome: GatewayOutcome::Captured, payment_id, ..answered(request) };
    Answer { outcome: "captured pay-1".to_owned(), command: command.into() }
}

fn declined(request: GatewayRequest) -> Answer<Command> {
    let reason = Some("insufficient funds".to_owned());
    let command = GatewayAnswered { outcome: GatewayOutcome::Declined, reason, ..answered(request) };
    Answer { outcome: "declined".to_owned(), command: command.into() }
}

fn voided(request: GatewayRequest) -> Answer<Command> {
    let command = GatewayAnswered { outcome: GatewayOutcome::Voided, ..answered(request) };
    Answer { outcome: "voided".to_owned(), command: command.into() }
}

/// A far end that gives prepared replies, the last one for ever, and keeps what it was asked.
#[derive(Clone, Default)]
struct FarEnd {
    replies: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Asked {
    path: String,
    key: String,
    body: Value,
}

impl FarEnd {
    async fn replying(replies: &[(u16, &str)]) -> (Self, String) {
        let far_end = Self::default();
        far_end.replies.lock().unwrap().extend(replies.iter().map(|&(status, body)| (status, body.to_owned())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(reply).with_state(far_end.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (far_end, url)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn reply(State(far_end): State<FarEnd>, uri: Uri, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    assert_eq!(headers["content-type"], "application/json");
    let body = serde_json::from_str(&body).unwrap();
    far_end.asked.lock().unwrap().push(Asked { path: uri.path().to_owned(), key, body });
    let mut replies = far_end.replies.lock().unwrap();
    let (status, text) = if replies.len() > 1 { replies.pop_front().unwrap() } else { replies[0].clone() };
    (StatusCode::from_u16(status).unwrap(), text)
}
