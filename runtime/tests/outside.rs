//! Asking the outside world, against a server that behaves and misbehaves.

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
use runtime::outside::Outside;
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
    Outside::at(url).unwrap().ask(path, "key-1", &json!({})).await.unwrap_err().reason
}

#[tokio::test]
async fn body_and_key_go_out_and_the_reply_comes_back() {
    let echo = post(|headers: HeaderMap, Json(body): Json<Value>| async move {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        (StatusCode::PAYMENT_REQUIRED, Json(json!({ "key": key, "body": body })))
    });
    let url = serve(Router::new().route("/under/a/path/picks", echo)).await;
    for base in [format!("{url}/under/a/path"), format!("{url}/under/a/path/")] {
        let reply = Outside::at(&base).unwrap().ask("picks", "key-1", &json!({ "order_id": "o" })).await.unwrap();
        assert_eq!(reply.status(), 402);
        assert_eq!(reply.json::<Value>().unwrap(), json!({ "key": "key-1", "body": { "order_id": "o" } }));
    }
}

#[tokio::test]
async fn connections_are_kept() {
    let peers = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&peers);
    let note = post(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        seen.lock().unwrap().insert(peer);
    });
    let outside = Outside::at(&serve(Router::new().route("/picks", note)).await).unwrap();
    for _ in 0..20 {
        outside.ask("picks", "key-1", &json!({})).await.unwrap();
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn not_now_is_no_answer_and_says_when_to_come_back() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let status = StatusCode::from_u16(status).unwrap();
        let busy = post(move || async move { (status, [("retry-after", "7")], "later").into_response() });
        let outside = Outside::at(&serve(Router::new().route("/picks", busy)).await).unwrap();
        let unanswered = outside.ask("picks", "key-1", &json!({})).await.unwrap_err();
        assert_eq!(unanswered.retry_after, Some(Duration::from_secs(7)));
        assert!(unanswered.reason.ends_with(&format!("unexpected reply {}: \"later\"", status.as_u16())));
    }
}

#[tokio::test]
async fn a_retry_after_that_is_no_number_is_passed_over() {
    let busy = post(|| async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]) });
    let outside = Outside::at(&serve(Router::new().route("/picks", busy)).await).unwrap();
    assert_eq!(outside.ask("picks", "key-1", &json!({})).await.unwrap_err().retry_after, None);
}

#[tokio::test]
async fn who_does_not_reply_in_time_is_not_waited_for() {
    let never = post(|| async { std::future::pending::<()>().await });
    let outside = Outside::at(&serve(Router::new().route("/picks", never)).await).unwrap();
    let outside = outside.within(Duration::from_millis(50));
    let started = Instant::now();
    let unanswered = outside.ask("picks", "key-1", &json!({})).await.unwrap_err();
    assert!(unanswered.reason.contains("no reply in time"), "{unanswered}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn who_is_not_there_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(reason(&url, "picks").await.starts_with(&format!("POST {url}/picks: ")));
}

#[tokio::test]
async fn a_reply_without_end_is_cut_off() {
    let endless = post(|| async { "x".repeat(10_000_000) });
    let url = serve(Router::new().route("/picks", endless)).await;
    assert!(reason(&url, "picks").await.contains("longer than"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let routes = Router::new()
        .route("/picks", post(|| async { Redirect::temporary("/elsewhere") }))
        .route("/elsewhere", post(|| async { Json(json!({})) }));
    let outside = Outside::at(&serve(routes).await).unwrap();
    assert_eq!(outside.ask("picks", "key-1", &json!({})).await.unwrap().status(), 307);
}

#[tokio::test]
async fn malformed_json_shows_what_came() {
    let routes = Router::new().route("/picks", post(|| async { "{\"outcome\":\n" }));
    let outside = Outside::at(&serve(routes).await).unwrap();
    let reply = outside.ask("picks", "key-1", &json!({})).await.unwrap();
    let reason = reply.json::<Value>().unwrap_err().reason;
    assert!(reason.contains(r#"unexpected reply 200: "{\"outcome\":\n""#), "{reason}");
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_no_answer_and_no_panic() {
    let outside = Outside::at("http://localhost:1").unwrap();
    let unanswered = outside.ask("picks", "key\r\nx: y", &json!({})).await.unwrap_err();
    assert!(unanswered.reason.contains("cannot be sent"), "{unanswered}");
}

#[test]
fn an_address_that_cannot_be_asked_is_refused_at_the_start() {
    for wrong in ["", "localhost:8090", "https://example.org", "ftp://example.org", "http://"] {
        assert!(Outside::at(wrong).is_err(), "{wrong:?}");
    }
    let message = Outside::at("https://example.org").unwrap_err().to_string();
    assert!(message.contains("only http is spoken"), "{message}");
}
