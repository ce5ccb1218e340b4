//! The calls of payment to the gateway, and its handling of the replies.

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
    effects::{Gateway, GatewayCall},
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
async fn a_charge_is_requested_with_its_details_and_captured() {
    let (gateway, url) = FakeGateway::replying(&[(200, CAPTURED)]).await;
    let answer = perform(&url, charge()).await.unwrap();
    assert_eq!(answer, captured(GatewayRequest::Charge));
    let body = json!({ "order_id": ORDER, "amount_minor": 6497, "currency": "EUR", "payment_method": "card-ok" });
    assert_eq!(gateway.requests(), [ReceivedRequest { path: "/charges".to_owned(), key: CHARGE.to_owned(), body }]);
}

#[tokio::test]
async fn a_charge_may_be_declined() {
    for status in [402, 200] {
        let (_, url) = FakeGateway::replying(&[(status, DECLINED)]).await;
        assert_eq!(perform(&url, charge()).await.unwrap(), declined(GatewayRequest::Charge));
    }
}

#[tokio::test]
async fn a_void_uses_the_key_of_the_charge_and_returns_what_became_of_it() {
    let (gateway, url) =
        FakeGateway::replying(&[(200, VOIDED), (200, CAPTURED), (402, DECLINED), (200, DECLINED)]).await;
    assert_eq!(perform(&url, void()).await.unwrap(), voided(GatewayRequest::Void));
    assert_eq!(perform(&url, void()).await.unwrap(), captured(GatewayRequest::Void));
    assert_eq!(perform(&url, void()).await.unwrap(), declined(GatewayRequest::Void));
    assert_eq!(perform(&url, void()).await.unwrap(), declined(GatewayRequest::Void));
    let requests =
        ReceivedRequest { path: "/voids".to_owned(), key: CHARGE.to_owned(), body: json!({ "order_id": ORDER }) };
    assert_eq!(gateway.requests(), vec![requests; 4]);
}

#[tokio::test]
async fn a_charge_that_was_voided_meanwhile_is_reported_as_voided() {
    let (_, url) = FakeGateway::replying(&[(200, VOIDED)]).await;
    assert_eq!(perform(&url, charge()).await.unwrap(), voided(GatewayRequest::Charge));
}

#[tokio::test]
async fn a_refund_is_requested_for_the_payment_and_made() {
    let (gateway, url) = FakeGateway::replying(&[(200, REFUNDED)]).await;
    let expected = GatewayAnswered {
        request_key: REFUND.to_owned(),
        outcome: GatewayOutcome::Refunded,
        refund_id: Some("ref-1".to_owned()),
        ..answered(GatewayRequest::Refund)
    };
    let expected = Answer { outcome: "refunded ref-1".to_owned(), command: expected.into() };
    assert_eq!(perform(&url, refund()).await.unwrap(), expected);
    let body = json!({ "payment_id": "pay-1", "order_id": ORDER, "amount_minor": 6497, "currency": "EUR" });
    assert_eq!(gateway.requests(), [ReceivedRequest { path: "/refunds".to_owned(), key: REFUND.to_owned(), body }]);
}

#[tokio::test]
async fn a_refund_may_be_refused() {
    for status in [409, 200] {
        let (_, url) =
            FakeGateway::replying(&[(status, r#"{"status":"refused","reason":"the card is closed"}"#)]).await;
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
async fn a_repeated_reply_gives_the_same_answer() {
    let (gateway, url) = FakeGateway::replying(&[(200, CAPTURED)]).await;
    let (first, second) = (perform(&url, charge()).await.unwrap(), perform(&url, charge()).await.unwrap());
    assert_eq!(first, second);
    assert_eq!(gateway.requests()[0], gateway.requests()[1], "the second request equals the first");
}

#[tokio::test]
async fn any_other_reply_is_no_answer() {
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
        let (_, url) = FakeGateway::replying(&[(status, reply)]).await;
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
        let (_, url) = FakeGateway::replying(&[(status, reply)]).await;
        let unanswered = perform(&url, refund()).await.expect_err(reply);
        assert!(unanswered.reason.contains("unexpected reply"), "{unanswered}");
    }
}

#[tokio::test]
async fn a_busy_gateway_is_called_again_under_the_same_key() {
    let (gateway, url) = FakeGateway::replying(&[(429, "later"), (500, "sorry"), (200, CAPTURED)]).await;
    perform(&url, charge()).await.unwrap_err();
    perform(&url, charge()).await.unwrap_err();
    assert_eq!(perform(&url, charge()).await.unwrap(), captured(GatewayRequest::Charge));
    assert!(gateway.requests().iter().all(|requests| requests.key == CHARGE));
}

#[tokio::test]
async fn an_invalid_address_is_refused_at_the_start() {
    assert!(Gateway::at("gateway").is_err());
}

async fn perform(url: &str, effect: GatewayCall) -> Result<Answer<Command>, Unanswered> {
    let due = Due { key: ORDER.to_owned(), correlation_id: ORDER.to_owned(), effect, attempt: 0 };
    let gateway = Gateway::at(url).unwrap();
    tokio::time::timeout(Duration::from_secs(20), gateway.perform(due)).await.unwrap()
}

fn amount() -> Money {
    Money { amount_minor: 6497, currency: "EUR".to_owned() }
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

/// A gateway that returns prepared replies, repeating the last one, and records the requests.
#[derive(Clone, Default)]
struct FakeGateway {
    replies: Arc<Mutex<VecDeque<(u16, String)>>>,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct ReceivedRequest {
    path: String,
    key: String,
    body: Value,
}

impl FakeGateway {
    async fn replying(replies: &[(u16, &str)]) -> (Self, String) {
        let fake = Self::default();
        fake.replies.lock().unwrap().extend(replies.iter().map(|&(status, body)| (status, body.to_owned())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(reply).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (fake, url)
    }

    fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().unwrap().clone()
    }
}

async fn reply(State(fake): State<FakeGateway>, uri: Uri, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    assert_eq!(headers["content-type"], "application/json");
    let body = serde_json::from_str(&body).unwrap();
    fake.requests.lock().unwrap().push(ReceivedRequest { path: uri.path().to_owned(), key, body });
    let mut replies = fake.replies.lock().unwrap();
    let (status, text) = if replies.len() > 1 { replies.pop_front().unwrap() } else { replies[0].clone() };
    (StatusCode::from_u16(status).unwrap(), text)
}
