//! The calls of the warehouse to picking and the courier, and its handling of the replies.

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
use runtime::{Answer, Due, Perform, Unanswered};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use warehouse::{
    effects::{PickingAndCourier, WarehouseCall},
    events::{Address, ItemLine},
    inbox::{Command, CourierAnswer, CourierOutcome, PickOutcome, PickResult},
};

const ORDER: &str = "order-1";

#[tokio::test]
async fn picking_receives_the_lines_and_returns_the_parcel() {
    let (picking, url) =
        FakeService::replying(&[(200, r#"{"outcome":"packaged","parcel_id":"parcel-1","shelf":14}"#)]).await;
    let answer = perform(&url, pick()).await.unwrap();
    assert_eq!(answer.outcome, "packaged parcel-1");
    assert_eq!(
        answer.command,
        PickResult { parcel_id: Some("parcel-1".to_owned()), ..result(PickOutcome::Packaged) }.into()
    );
    let lines = json!([{ "sku": "a", "quantity": 1 }, { "sku": "b", "quantity": 2 }]);
    let asked = ReceivedRequest {
        path: "/picks".to_owned(),
        key: "pick-order-1".to_owned(),
        body: json!({ "order_id": ORDER, "lines": lines }),
    };
    assert_eq!(picking.requests(), [asked]);
}

#[tokio::test]
async fn picking_returns_the_missing_items() {
    let reply = r#"{"outcome":"missing","missing":[{"sku":"b","quantity":2}],"detail":"shelf 14 is empty"}"#;
    let (_, url) = FakeService::replying(&[(200, reply)]).await;
    let answer = perform(&url, pick()).await.unwrap();
    assert_eq!(answer.outcome, "missing 2*b");
    let missing = vec![ItemLine { sku: "b".to_owned(), quantity: 2 }];
    let detail = Some("shelf 14 is empty".to_owned());
    assert_eq!(answer.command, PickResult { missing, detail, ..result(PickOutcome::Missing) }.into());
}

#[tokio::test]
async fn the_courier_receives_the_address_and_returns_the_carrier() {
    let reply = r#"{"carrier":"Northwind Parcels","tracking_number":"NW1"}"#;
    let (courier, url) = FakeService::replying(&[(200, reply)]).await;
    let answer = perform(&url, dispatch()).await.unwrap();
    assert_eq!(answer.outcome, "dispatched Northwind Parcels NW1");
    let expected = CourierAnswer {
        order_id: ORDER.to_owned(),
        outcome: CourierOutcome::Dispatched,
        parcel_id: Some("parcel-1".to_owned()),
        carrier: Some("Northwind Parcels".to_owned()),
        tracking_number: Some("NW1".to_owned()),
        attempt: 1,
        reason: None,
    };
    assert_eq!(answer.command, expected.into());
    let ship_to = json!({ "street": "Lindenstraße 14", "city": "Leipzig", "postcode": "04105", "country": "DE" });
    let asked = ReceivedRequest {
        path: "/parcels".to_owned(),
        key: "dispatch-order-1".to_owned(),
        body: json!({ "parcel_id": "parcel-1", "order_id": ORDER, "ship_to": ship_to }),
    };
    assert_eq!(courier.requests(), [asked]);
}

#[tokio::test]
async fn a_withdrawal_uses_the_key_of_its_attempt_and_returns_what_became_of_the_parcel() {
    let taken = r#"{"status":"taken","carrier":"Northwind Parcels","tracking_number":"NW1"}"#;
    let refused = r#"{"status":"refused","reason":"no van has room"}"#;
    let replies = [(200, r#"{"status":"withdrawn"}"#), (409, refused), (200, taken)];
    let (courier, url) = FakeService::replying(&replies).await;
    let withdrawn = perform(&url, withdraw()).await.unwrap();
    assert_eq!(withdrawn.command, courier_answer(CourierOutcome::Withdrawn, None).into());
    let refused = perform(&url, withdraw()).await.unwrap();
    assert_eq!(refused.command, courier_answer(CourierOutcome::Refused, Some("no van has room")).into());
    let taken = perform(&url, withdraw()).await.unwrap();
    let expected = CourierAnswer {
        carrier: Some("Northwind Parcels".to_owned()),
        tracking_number: Some("NW1".to_owned()),
        ..courier_answer(CourierOutcome::Dispatched, None)
    };
    assert_eq!(taken.command, expected.into());
    let asked = ReceivedRequest {
        path: "/withdrawals".to_owned(),
        key: "dispatch-order-1-2".to_owned(),
        body: json!({ "parcel_id": "parcel-1", "order_id": ORDER }),
    };
    assert_eq!(courier.requests(), vec![asked; 3]);
}

#[tokio::test]
async fn the_courier_may_refuse() {
    let (_, url) = FakeService::replying(&[(409, r#"{"status":"refused","reason":"no van has room"}"#)]).await;
    let answer = perform(&url, dispatch()).await.unwrap();
    let expected = CourierAnswer { attempt: 1, ..courier_answer(CourierOutcome::Refused, Some("no van has room")) };
    assert_eq!((answer.outcome.as_str(), answer.command), ("refused", expected.into()));
}

#[tokio::test]
async fn a_repeated_reply_gives_the_same_answer() {
    let (picking, url) = FakeService::replying(&[(200, r#"{"outcome":"packaged","parcel_id":"parcel-1"}"#)]).await;
    let (first, second) = (perform(&url, pick()).await.unwrap(), perform(&url, pick()).await.unwrap());
    assert_eq!(first, second);
    let asked = picking.requests();
    assert_eq!(asked[0], asked[1], "the second request equals the first");
}

#[tokio::test]
async fn any_other_reply_is_no_answer() {
    for (status, reply) in [
        (200, ""),
        (200, "{"),
        (200, "[]"),
        (200, r#"{"outcome":"eaten by mice"}"#),
        (200, r#"{"outcome":"packaged"}"#),
        (200, r#"{"outcome":"packaged","parcel_id":""}"#),
        (200, r#"{"outcome":"packaged","parcel_id":7}"#),
        (200, r#"{"outcome":"missing"}"#),
        (200, r#"{"outcome":"missing","missing":[{"sku":"b","quantity":3000000000}]}"#),
        (201, r#"{"outcome":"packaged","parcel_id":"parcel-1"}"#),
        (400, r#"{"outcome":"packaged","parcel_id":"parcel-1"}"#),
        (404, "no such call"),
        (500, r#"{"outcome":"packaged","parcel_id":"parcel-1"}"#),
    ] {
        let (_, url) = FakeService::replying(&[(status, reply)]).await;
        let unanswered = perform(&url, pick()).await.expect_err(reply);
        assert!(unanswered.reason.contains("unexpected reply"), "{unanswered}");
    }
    for (status, reply) in [
        (200, "{}"),
        (200, r#"{"carrier":"Northwind Parcels"}"#),
        (200, r#"{"carrier":"","tracking_number":"NW1"}"#),
        (200, r#"{"carrier":"Northwind Parcels","tracking_number":""}"#),
        (400, r#"{"status":"invalid"}"#),
        (409, r#"{"status":"taken","carrier":"Northwind Parcels","tracking_number":"NW1"}"#),
        (200, r#"{"status":"refused","carrier":"Northwind Parcels","tracking_number":"NW1"}"#),
        (409, r#"{"reason":"no van has room"}"#),
        (503, r#"{"carrier":"Northwind Parcels","tracking_number":"NW1"}"#),
    ] {
        let (_, url) = FakeService::replying(&[(status, reply)]).await;
        let unanswered = perform(&url, dispatch()).await.expect_err(reply);
        assert!(unanswered.reason.contains("unexpected reply"), "{unanswered}");
    }
}

#[tokio::test]
async fn a_busy_service_is_called_again_under_the_same_key() {
    let (picking, url) = FakeService::replying(&[
        (429, "later"),
        (500, "sorry"),
        (200, r#"{"outcome":"packaged","parcel_id":"parcel-1"}"#),
    ])
    .await;
    perform(&url, pick()).await.unwrap_err();
    perform(&url, pick()).await.unwrap_err();
    assert_eq!(perform(&url, pick()).await.unwrap().outcome, "packaged parcel-1");
    assert!(picking.requests().iter().all(|asked| asked.key == "pick-order-1"));
}

#[tokio::test]
async fn invalid_addresses_are_refused_at_the_start() {
    assert!(PickingAndCourier::at("floor", "http://localhost:1").is_err());
    assert!(PickingAndCourier::at("http://localhost:1", "courier").is_err());
}

async fn perform(url: &str, effect: WarehouseCall) -> Result<Answer<Command>, Unanswered> {
    let due = Due { key: ORDER.to_owned(), correlation_id: ORDER.to_owned(), effect, attempt: 0 };
    let performed = PickingAndCourier::at(url, url).unwrap();
    tokio::time::timeout(Duration::from_secs(20), performed.perform(due)).await.unwrap()
}

fn pick() -> WarehouseCall {
    let lines = [("a", 1), ("b", 2)].map(|(sku, quantity)| ItemLine { sku: sku.to_owned(), quantity });
    WarehouseCall::Pick { order_id: ORDER.to_owned(), lines: lines.into() }
}

fn dispatch() -> WarehouseCall {
    let [street, city, postcode, country] = ["Lindenstraße 14", "Leipzig", "04105", "DE"].map(str::to_owned);
    let ship_to = Address { street, city, postcode, country };
    WarehouseCall::Dispatch { order_id: ORDER.to_owned(), parcel_id: "parcel-1".to_owned(), ship_to, attempt: 1 }
}

fn withdraw() -> WarehouseCall {
    WarehouseCall::Withdraw { order_id: ORDER.to_owned(), parcel_id: "parcel-1".to_owned(), attempt: 2 }
}

fn courier_answer(outcome: CourierOutcome, reason: Option<&str>) -> CourierAnswer {
    CourierAnswer {
        order_id: ORDER.to_owned(),
        outcome,
        parcel_id: Some("parcel-1".to_owned()),
        carrier: None,
        tracking_number: None,
        attempt: 2,
        reason: reason.map(str::to_owned),
    }
}

fn result(outcome: PickOutcome) -> PickResult {
    PickResult { order_id: ORDER.to_owned(), outcome, parcel_id: None, missing: vec![], detail: None }
}

/// A service that returns prepared replies, repeating the last one, and records the requests.
#[derive(Clone, Default)]
struct FakeService {
    replies: Arc<Mutex<VecDeque<(u16, String)>>>,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct ReceivedRequest {
    path: String,
    key: String,
    body: Value,
}

impl FakeService {
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

async fn reply(State(fake): State<FakeService>, uri: Uri, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    assert_eq!(headers["content-type"], "application/json");
    let body = serde_json::from_str(&body).unwrap();
    fake.requests.lock().unwrap().push(ReceivedRequest { path: uri.path().to_owned(), key, body });
    let mut replies = fake.replies.lock().unwrap();
    let (status, text) = if replies.len() > 1 { replies.pop_front().unwrap() } else { replies[0].clone() };
    (StatusCode::from_u16(status).unwrap(), text)
}
