//! The catalogue over HTTP, on a broker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../runtime/tests/cluster/mod.rs"]
mod cluster;

use std::net::SocketAddr;

use catalogue::{events::Event, inbox::Command};
use cluster::{Cluster, PATIENCE};
use reqwest::{Client, Method};
use runtime::{Config, Message, TimerFired, kafka::TopicSpec, service::Running};
use serde_json::{Value, json};

runtime::produces! {
    enum RuntimeRecords in "../../schemas" { inbox of "runtime" { TimerFired = 1 } }
}

struct TestService {
    _cluster: Cluster,
    running: Running,
    base: String,
    client: Client,
}

impl TestService {
    async fn open() -> Self {
        let cluster = Cluster::start("catalogue").await;
        let config = &cluster.config;
        cluster.create(&TopicSpec::of_service(&config.system, "catalogue", config.partitions)).await;
        cluster.register(&[Event::RECORDS, Command::RECORDS, RuntimeRecords::RECORDS].concat());
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let running = catalogue::service(Config { listen: Some(listen), ..config.clone() }).await.unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
        let base = format!("http://{}", running.http_addr().unwrap());
        Self { _cluster: cluster, running, base, client: Client::new() }
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.base)).body(body.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_album_is_listed_and_its_price_changed() {
    let service = TestService::open().await;
    let price = |amount_minor: i64| json!({ "amount_minor": amount_minor, "currency": "EUR" });
    let album = |amount_minor| json!({ "sku": "LP-1", "title": "Blue", "artist": "Joni Mitchell", "price": price(amount_minor) });
    assert_eq!(service.ask(Method::POST, "/albums", &album(1999)).await.0, 201);
    assert_eq!(service.ask(Method::POST, "/albums", &album(1)).await.0, 409);
    let change =
        async |price: Value| service.ask(Method::PUT, "/albums/LP-1/price", &json!({ "price": price })).await.0;
    // Each change counts, even if a price returns.
    assert_eq!(change(price(2499)).await, 200);
    assert_eq!(change(price(2499)).await, 200);
    assert_eq!(change(price(1999)).await, 200);
    assert_eq!(change(price(2499)).await, 200);
    assert_eq!(change(Value::Null).await, 200);
    assert_eq!(change(price(0)).await, 422);
    let shown = service.ask(Method::GET, "/albums/LP-1", &Value::Null).await.1;
    assert_eq!((&shown["title"], &shown["price"]), (&json!("Blue"), &Value::Null));
    let unlisted = service.ask(Method::PUT, "/albums/LP-9/price", &json!({ "price": null })).await;
    assert_eq!((unlisted.0, &unlisted.1["type"]), (404, &json!("/problems/not-found")));
    assert!(service.running.stop().await, "stops in time");
}
