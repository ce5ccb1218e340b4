//! Customers over HTTP, on a broker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../runtime/tests/cluster/mod.rs"]
mod cluster;

use std::net::SocketAddr;

use cluster::{Cluster, PATIENCE};
use customers::{events::Event, inbox::Command};
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
        let cluster = Cluster::start("customers").await;
        let config = &cluster.config;
        cluster.create(&TopicSpec::of_service(&config.system, "customers", config.partitions)).await;
        cluster.register(&[Event::RECORDS, Command::RECORDS, RuntimeRecords::RECORDS].concat());
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let running = customers::service(Config { listen: Some(listen), ..config.clone() }).await.unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
        let base = format!("http://{}", running.http_addr().unwrap());
        Self { _cluster: cluster, running, base, client: Client::new() }
    }

    async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body.to_string());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_registered_verified_and_forgotten() {
    let service = TestService::open().await;
    let ines = json!({ "name": "Inés", "email": "ines@example.org" });
    let (status, reply) = service.ask(Method::POST, "/customers", Some("k-1"), &ines).await;
    assert_eq!((status, &reply["status"]), (201, &json!("registered")));
    let path = format!("/customers/{}", reply["customer_id"].as_str().unwrap());
    assert_eq!(service.ask(Method::POST, "/customers", Some("k-1"), &ines).await, (201, reply));
    let other = json!({ "name": "Inés", "email": "other@example.org" });
    let (status, reused) = service.ask(Method::POST, "/customers", Some("k-1"), &other).await;
    assert_eq!((status, &reused["type"]), (422, &json!("/problems/idempotency-key-reused")));
    let nothing = Value::Null;
    for _ in 0..2 {
        let (status, reply) = service.ask(Method::POST, &format!("{path}/verification"), None, &nothing).await;
        assert_eq!((status, &reply["status"]), (200, &json!("verified")));
    }
    for _ in 0..2 {
        let (status, reply) = service.ask(Method::DELETE, &path, None, &nothing).await;
        assert_eq!((status, &reply["status"]), (200, &json!("forgotten")));
    }
    assert_eq!(service.ask(Method::POST, &format!("{path}/verification"), None, &nothing).await.0, 409);
    assert_eq!(service.ask(Method::GET, &path, None, &nothing).await.1["status"], "forgotten");
    assert_eq!(service.ask(Method::DELETE, "/customers/nobody", None, &nothing).await.0, 404);
    let (status, problem) = service.ask(Method::POST, "/customers", None, &json!({ "name": "", "email": "x" })).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/name")));
    assert!(service.running.stop().await, "stops in time");
}
