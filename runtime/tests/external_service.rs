//! Calls to an external service, against a server that replies as expected and otherwise.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::ConnectInfo,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect},
    routing::post,
};
use runtime::external_service::ExternalService;
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    format!("http://{address}")
}

async fn reason(url: &str, path: &str) -> String {
    ExternalService::at(url).unwrap().post(path, "key-1", &json!({})).await.unwrap_err().reason
}

#[tokio::test]
async fn a_request_carries_body_and_key_and_returns_the_reply() {
    let echo = post(|headers: HeaderMap, Json(body): Json<Value>| async move {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        (StatusCode::PAYMENT_REQUIRED, Json(json!({ "key": key, "body": body })))
    });
    let url = serve(Router::new().route("/under/a/path/picks", echo)).await;
    for base in [format!("{url}/under/a/path"), format!("{url}/under/a/path/")] {
        let reply =
            ExternalService::at(&base).unwrap().post("picks", "key-1", &json!({ "order_id": "o" })).await.unwrap();
        assert_eq!(reply.status(), 402);
        assert_eq!(reply.json::<Value>().unwrap(), json!({ "key": "key-1", "body": { "order_id": "o" } }));
    }
}

#[tokio::test]
async fn connections_are_reused() {
    let peers = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&peers);
    let note = post(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        seen.lock().unwrap().insert(peer);
    });
    let service = ExternalService::at(&serve(Router::new().route("/picks", note)).await).unwrap();
    for _ in 0..20 {
        service.post("picks", "key-1", &json!({})).await.unwrap();
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_busy_reply_is_unanswered_with_its_retry_after() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let status = StatusCode::from_u16(status).unwrap();
        let busy = post(move || async move { (status, [("retry-after", "7")], "later").into_response() });
        let service = ExternalService::at(&serve(Router::new().route("/picks", busy)).await).unwrap();
        let unanswered = service.post("picks", "key-1", &json!({})).await.unwrap_err();
        assert_eq!(unanswered.retry_after, Some(Duration::from_secs(7)));
        assert!(unanswered.reason.ends_with(&format!("unexpected reply {}: \"later\"", status.as_u16())));
    }
}

#[tokio::test]
async fn a_retry_after_that_is_not_a_number_is_ignored() {
    let busy = post(|| async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]) });
    let service = ExternalService::at(&serve(Router::new().route("/picks", busy)).await).unwrap();
    assert_eq!(service.post("picks", "key-1", &json!({})).await.unwrap_err().retry_after, None);
}

#[tokio::test]
async fn a_request_ends_at_its_deadline() {
    let never = post(|| async { std::future::pending::<()>().await });
    let service = ExternalService::at(&serve(Router::new().route("/picks", never)).await).unwrap();
    let service = service.with_deadline(Duration::from_millis(50));
    let started = Instant::now();
    let unanswered = service.post("picks", "key-1", &json!({})).await.unwrap_err();
    assert!(unanswered.reason.contains("no reply in time"), "{unanswered}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_refused_connection_is_unanswered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(reason(&url, "picks").await.starts_with(&format!("POST {url}/picks: ")));
}

#[tokio::test]
async fn an_endless_reply_is_refused() {
    let endless = post(|| async { "x".repeat(10_000_000) });
    let url = serve(Router::new().route("/picks", endless)).await;
    assert!(reason(&url, "picks").await.contains("longer than"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let routes = Router::new()
        .route("/picks", post(|| async { Redirect::temporary("/elsewhere") }))
        .route("/elsewhere", post(|| async { Json(json!({})) }));
    let service = ExternalService::at(&serve(routes).await).unwrap();
    assert_eq!(service.post("picks", "key-1", &json!({})).await.unwrap().status(), 307);
}

#[tokio::test]
async fn malformed_json_is_quoted_in_the_error() {
    let routes = Router::new().route("/picks", post(|| async { "{\"outcome\":\n" }));
    let service = ExternalService::at(&serve(routes).await).unwrap();
    let reply = service.post("picks", "key-1", &json!({})).await.unwrap();
    let reason = reply.json::<Value>().unwrap_err().reason;
    assert!(reason.contains(r#"unexpected reply 200: "{\"outcome\":\n""#), "{reason}");
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_unanswered_without_a_panic() {
    let service = ExternalService::at("http://localhost:1").unwrap();
    let unanswered = service.post("picks", "key\r\nx: y", &json!({})).await.unwrap_err();
    assert!(unanswered.reason.contains("cannot be sent"), "{unanswered}");
}

#[test]
fn an_unusable_address_is_refused_at_construction() {
    for wrong in ["", "localhost:8090", "https://example.org", "ftp://example.org", "http://"] {
        assert!(ExternalService::at(wrong).is_err(), "{wrong:?}");
    }
    let message = ExternalService::at("https://example.org").unwrap_err().to_string();
    assert!(message.contains("only http is supported"), "{message}");
}
