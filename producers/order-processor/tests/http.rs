//! Orders over HTTP, on a broker: placed, rejected, refused, repeated, and every kind of invalid input.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../runtime/tests/cluster/mod.rs"]
mod cluster;

use std::net::SocketAddr;

use cluster::{Cluster, PATIENCE};
use order_processor::{
    edge::{OrderEdge, PlacementOutcome, RequestError},
    events::{Contact, Event, Money},
    inbox::Command,
};
use reqwest::{Client, RequestBuilder, Response};
use runtime::{
    Channel, Config, Message, TimerFired,
    kafka::{TopicKind, TopicSpec},
    message::topic,
    publisher::{Authority, Outgoing, Publisher},
    service::Running,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CustomerRegistered {
    customer_id: String,
    contact: Contact,
    marketing_consent: bool,
    occurred_at: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AlbumListed {
    sku: String,
    title: String,
    artist: String,
    price: Option<Money>,
    occurred_at: i64,
}

runtime::produces! {
    enum Others in "../../schemas" {
        events of "customers" { CustomerRegistered = 1 }
        events of "catalogue" { AlbumListed = 1 }
        inbox of "runtime" { TimerFired = 1 }
    }
}

struct Shop {
    cluster: Cluster,
    running: Running,
    edge: OrderEdge,
    base: String,
    client: Client,
}

impl Shop {
    async fn open() -> Self {
        let cluster = Cluster::start("order-processor").await;
        let system = cluster.config.system.clone();
        let partitions = cluster.config.partitions;
        let mut specs = TopicSpec::of_service(&system, "order-processor", partitions);
        for service in ["customers", "catalogue", "warehouse", "payment", "loyalty"] {
            specs.push(TopicSpec::new(topic(&system, service, Channel::Events), partitions, TopicKind::Events));
        }
        cluster.create(&specs).await;
        cluster.register(&[Event::RECORDS, Command::RECORDS, Others::RECORDS].concat());
        seed(&cluster).await;
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let config = Config { listen: Some(listen), ..cluster.config.clone() };
        let edge = OrderEdge::start(&config);
        let running = order_processor::service(config, edge.clone()).await.unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
        let base = format!("http://{}", running.http_addr().unwrap());
        Self { cluster, running, edge, base, client: Client::new() }
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}/orders", self.base)).body(body.to_string())
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    async fn close(self) {
        assert!(self.running.stop().await, "stops in time");
        drop(self.cluster);
    }
}

async fn seed(cluster: &Cluster) {
    let publish = async |service: &str, messages: Vec<(&str, Others)>| {
        let config = cluster.config.for_service(service);
        let records: Vec<_> = Others::RECORDS.iter().filter(|record| record.owner == service).copied().collect();
        let writers = cluster.registry.writers(&config.system, &records).unwrap();
        let publisher = Publisher::new(&config, Authority::Service, writers).unwrap();
        let batch = messages.into_iter().map(|(key, message)| Outgoing::<Others>::new(key, message));
        publisher.publish(batch, PATIENCE).await.unwrap();
    };
    let contact = Contact { name: "Inés Calderón".to_owned(), email: "ines.calderon@example.org".to_owned() };
    let registered =
        CustomerRegistered { customer_id: "customer-1".to_owned(), contact, marketing_consent: false, occurred_at: 1 };
    publish("customers", vec![("customer-1", registered.into())]).await;
    let album = |sku: &str, price: Option<i64>| AlbumListed {
        sku: sku.to_owned(),
        title: "Blue".to_owned(),
        artist: "Joni Mitchell".to_owned(),
        price: price.map(|amount_minor| Money { amount_minor, currency: "EUR".to_owned() }),
        occurred_at: 1,
    };
    let albums = [album("LP-1", Some(2499)), album("LP-2", Some(1999)), album("LP-3", None)];
    publish("catalogue", albums.iter().map(|album| (album.sku.as_str(), album.clone().into())).collect()).await;
}

fn order() -> Value {
    json!({
        "customer_id": "customer-1",
        "ship_to": { "street": "Lindenstraße 14", "city": "Leipzig", "postcode": "04105", "country": "DE" },
        "lines": [{ "sku": "LP-1", "quantity": 1 }, { "sku": "LP-2", "quantity": 2 }],
        "payment_method": "card-ok",
    })
}

fn with(change: impl Fn(&mut Value)) -> Value {
    let mut body = order();
    change(&mut body);
    body
}

async fn problem(response: Response) -> (u16, Value) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_once_and_shown() {
    let shop = Shop::open().await;
    let placed = shop.post(&order()).header("idempotency-key", "k-1").send().await.unwrap();
    assert_eq!(placed.status(), 201);
    let location = placed.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = placed.json().await.unwrap();
    assert_eq!(body["total"], json!({ "amount_minor": 6497, "currency": "EUR" }));
    let again = shop.post(&order()).header("idempotency-key", "k-1").send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["location"].to_str().unwrap()), (201, location.as_str()));
    assert_eq!(again.json::<Value>().await.unwrap(), body);
    let other = with(|body| body["lines"][0]["quantity"] = json!(7));
    let (status, reused) = problem(shop.post(&other).header("idempotency-key", "k-1").send().await.unwrap()).await;
    assert_eq!((status, &reused["type"]), (422, &json!("/problems/idempotency-key-reused")));
    let shown: Value = shop.get(&location).await.json().await.unwrap();
    assert_eq!((&shown["status"], &shown["customer_id"]), (&json!("placed"), &json!("customer-1")));
    assert_eq!(problem(shop.get("/orders/nobodys").await).await.0, 404);
    let without_key = shop.post(&order()).send().await.unwrap();
    assert_ne!(without_key.headers()["location"].to_str().unwrap(), location);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_violates_a_rule_is_rejected_with_its_reason() {
    let shop = Shop::open().await;
    let cases = [
        ("UNKNOWN_CUSTOMER", with(|body| body["customer_id"] = json!("nobody"))),
        ("UNKNOWN_SKU", with(|body| body["lines"][0]["sku"] = json!("LP-9"))),
        ("PRICE_GONE", with(|body| body["lines"][0]["sku"] = json!("LP-3"))),
    ];
    for (reason, body) in cases {
        let (status, rejected) = problem(shop.post(&body).send().await.unwrap()).await;
        assert_eq!((status, &rejected["type"]), (422, &json!("/problems/order-rejected")));
        assert!(rejected["title"].as_str().unwrap().ends_with(reason), "{rejected}");
        let path = rejected["instance"].as_str().unwrap().to_owned();
        assert_eq!(shop.get(&path).await.json::<Value>().await.unwrap()["status"], "rejected");
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_input_is_a_problem_that_names_the_field() {
    let shop = Shop::open().await;
    let invalid = [
        ("/lines/0/quantity", with(|body| body["lines"][0]["quantity"] = json!(0))),
        ("/lines/0/quantity", with(|body| body["lines"][0]["quantity"] = json!(1e12))),
        ("/lines", with(|body| body["lines"] = json!(vec![json!({ "sku": "LP-1", "quantity": 1 }); 5_000]))),
        ("/ship_to/street", with(|body| body["ship_to"]["street"] = json!("x".repeat(10_000)))),
        ("/coupon", with(|body| body["coupon"] = json!(1))),
    ];
    for (pointer, body) in invalid {
        let (status, problem) = problem(shop.post(&body).send().await.unwrap()).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!(pointer)), "{problem}");
    }
    let raw = |body: Vec<u8>| shop.client.post(format!("{}/orders", shop.base)).body(body).send();
    assert_eq!(problem(raw(b"{\"customer_id\":".to_vec()).await.unwrap()).await.0, 400);
    let (status, not_utf8) = problem(raw(b"{\"customer_id\": \"\xff\"}".to_vec()).await.unwrap()).await;
    assert_eq!((status, &not_utf8["errors"][0]["detail"]), (400, &json!("byte 18 is not UTF-8 text")));
    assert_eq!(problem(raw(vec![b' '; 1 << 20]).await.unwrap()).await.0, 413);
    let long_key = shop.post(&order()).header("idempotency-key", "k".repeat(201)).send().await.unwrap();
    let (status, bad_key) = problem(long_key).await;
    assert_eq!((status, &bad_key["type"]), (400, &json!("/problems/bad-idempotency-key")));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_without_http_and_a_repeat_is_not_new() {
    let shop = Shop::open().await;
    let first = shop.edge.place("line-1", &order()).await.unwrap();
    assert!(first.is_new && matches!(first.outcome, PlacementOutcome::Accepted { .. }), "{first:?}");
    let again = shop.edge.place("line-1", &order()).await.unwrap();
    assert_eq!((again.is_new, again.order_id), (false, first.order_id));
    let other = with(|body| body["payment_method"] = json!("card-declined"));
    assert!(matches!(shop.edge.place("line-1", &other).await, Err(RequestError::KeyReused)));
    let order = order();
    let (left, right) = tokio::join!(shop.edge.place("line-2", &order), shop.edge.place("line-2", &order));
    assert_eq!(left.unwrap().order_id, right.unwrap().order_id);
    assert!(shop.edge.knows_album("LP-3") && shop.edge.knows_customer("customer-1"));
    assert!(!shop.edge.knows_album("LP-9") && !shop.edge.knows_customer("nobody"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_is_requested_once_and_an_unknown_order_is_not_found() {
    let shop = Shop::open().await;
    let placed = shop.post(&order()).send().await.unwrap();
    let location = placed.headers()["location"].to_str().unwrap().to_owned();
    let cancel = |path: &str, key: &str, body: Option<Value>| {
        let request = shop.client.post(format!("{}{path}/cancel", shop.base)).header("idempotency-key", key);
        body.into_iter().fold(request, |request, body| request.body(body.to_string())).send()
    };
    for (key, body) in [("c-1", Some(json!({ "reason": "bought twice" }))), ("c-1", None), ("c-2", Some(json!({})))] {
        let asked = cancel(&location, key, body).await.unwrap();
        assert_eq!((asked.status().as_u16(), asked.headers()["location"].to_str().unwrap()), (202, location.as_str()));
        assert_eq!(asked.json::<Value>().await.unwrap()["status"], "cancellation-requested");
    }
    let status: Value = shop.get(&location).await.json().await.unwrap();
    assert_eq!((&status["status"], &status["cancellation"]), (&json!("placed"), &json!({ "status": "requested" })));
    let (status, unknown) = problem(cancel("/orders/nobodys", "c-3", None).await.unwrap()).await;
    assert_eq!((status, &unknown["type"]), (404, &json!("/problems/not-found")), "{unknown}");
    let rejected = shop.post(&with(|body| body["customer_id"] = json!("nobody"))).send().await.unwrap();
    let rejected = problem(rejected).await.1["instance"].as_str().unwrap().to_owned();
    let (status, refused) = problem(cancel(&rejected, "c-4", None).await.unwrap()).await;
    assert_eq!((status, &refused["type"]), (409, &json!("/problems/cancellation-refused")), "{refused}");
    assert_eq!(refused["detail"], "the order was rejected");
    let (status, invalid) = problem(cancel(&location, "c-5", Some(json!({ "why": 1 }))).await.unwrap()).await;
    assert_eq!((status, &invalid["errors"][0]["pointer"]), (422, &json!("/why")), "{invalid}");
    shop.close().await;
}
