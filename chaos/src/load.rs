//! The load: orders over HTTP at a steady rate, some of them cancelled at once, registrations of customers, and price changes.
//!
//! A request without a definite response is repeated under the same key at the next instance until it gets one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dacapo::{
    orders::{Order, OrderGenerator, OrderMix},
    sample_data::{ALBUMS, Availability},
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::instances::Instances;

/// The timeout of one request. It is shorter than an outage, so that the next instance is tried.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a request is repeated.
const RETRY: Duration = Duration::from_millis(150);
/// How many price changes and registrations come with each order: orders alone would not reach these two services.
const OTHERS_PER_ORDER: u64 = 1;

/// The responses that the load got.
#[derive(Debug, Default)]
pub struct LoadResults {
    /// Ids of orders that were acknowledged (201, 202) or rejected (422): each must be on the topic.
    pub orders: Vec<String>,
    /// Requests with a definite response.
    pub answered: u64,
    /// Repeated requests.
    pub repeated: u64,
    /// Requests that never got a definite response, with the last response.
    pub unanswered: Vec<String>,
    /// Responses that no request should get.
    pub wrong: Vec<String>,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    placing: tokio::task::JoinHandle<()>,
}

struct Shared {
    instances: Arc<Instances>,
    client: Client,
    generator: OrderGenerator,
    results: Mutex<LoadResults>,
    stopping: AtomicBool,
    next_instance: AtomicU64,
    deadline: Mutex<Option<Instant>>,
}

impl Load {
    /// Starts to place `rate` orders per second.
    #[must_use]
    pub fn start(instances: Arc<Instances>, seed: u64, rate: f64) -> Self {
        let mix = OrderMix { cancelled: 8.0, delayed: 6.0, ..OrderMix::default() };
        let shared = Arc::new(Shared {
            instances,
            client: Client::new(),
            generator: OrderGenerator::new(seed, mix),
            results: Mutex::default(),
            stopping: AtomicBool::new(false),
            next_instance: AtomicU64::new(0),
            deadline: Mutex::new(None),
        });
        let placing = tokio::spawn(Arc::clone(&shared).place_orders(rate));
        Self { shared, placing }
    }

    /// Stops placing orders, and waits until every request has a definite response, at most `patience`.
    pub async fn stop(self, patience: Duration) -> LoadResults {
        *self.shared.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + patience);
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Err(error) = self.placing.await {
            self.shared.results().wrong.push(format!("the load was aborted: {error}"));
        }
        std::mem::take(&mut *self.shared.results())
    }
}

impl Shared {
    async fn place_orders(self: Arc<Self>, rate: f64) {
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut in_flight = JoinSet::new();
        for index in 0.. {
            tick.tick().await;
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            let order = self.generator.order(index);
            in_flight.spawn(Arc::clone(&self).place_order(order));
            for other in index * OTHERS_PER_ORDER..(index + 1) * OTHERS_PER_ORDER {
                in_flight.spawn(Arc::clone(&self).change_price(other));
                in_flight.spawn(Arc::clone(&self).register(other));
            }
            while in_flight.try_join_next().is_some() {}
        }
        while in_flight.join_next().await.is_some() {}
    }

    async fn place_order(self: Arc<Self>, order: Order) {
        let request = LoadRequest {
            service: "order-processor",
            method: Method::POST,
            path: "/orders".to_owned(),
            key: order.key.clone(),
            body: order.body,
            definite: &[StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::UNPROCESSABLE_ENTITY],
        };
        let Some((status, body)) = self.send(request).await else { return };
        let named = body["order_id"].as_str().map(str::to_owned);
        let id = named.or_else(|| body["instance"].as_str()?.strip_prefix("/orders/").map(str::to_owned));
        let Some(id) = id else {
            self.results().wrong.push(format!("order {}: {status} without an order's id: {body}", order.key));
            return;
        };
        self.results().orders.push(id.clone());
        if order.cancel && status != StatusCode::UNPROCESSABLE_ENTITY {
            let request = LoadRequest {
                service: "order-processor",
                method: Method::POST,
                path: format!("/orders/{id}/cancel"),
                key: format!("{}-cancel", order.key),
                body: json!({ "reason": "changed my mind" }),
                definite: &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::CONFLICT],
            };
            self.send(request).await;
        }
    }

    async fn change_price(self: Arc<Self>, index: u64) {
        let stocked: Vec<_> = ALBUMS.iter().filter(|album| album.availability == Availability::InStock).collect();
        let album = stocked[usize::try_from(index).unwrap_or_default() % stocked.len()];
        let amount_minor = album.price_minor + i64::try_from(index % 97).unwrap_or_default();
        let request = LoadRequest {
            service: "catalogue",
            method: Method::PUT,
            path: format!("/albums/{}/price", album.sku),
            key: format!("price-{index}"),
            body: json!({ "price": { "amount_minor": amount_minor, "currency": "EUR" } }),
            definite: &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::CONFLICT],
        };
        self.send(request).await;
    }

    async fn register(self: Arc<Self>, index: u64) {
        let request = LoadRequest {
            service: "customers",
            method: Method::POST,
            path: "/customers".to_owned(),
            key: format!("shopper-{index}"),
            body: json!({ "name": format!("Shopper {index}"), "email": format!("shopper.{index}@example.org") }),
            definite: &[StatusCode::OK, StatusCode::CREATED, StatusCode::ACCEPTED],
        };
        self.send(request).await;
    }

    /// Sends a request to one instance after the other until one gives a definite response.
    async fn send(&self, request: LoadRequest) -> Option<(StatusCode, Value)> {
        let mut last_response = "nothing".to_owned();
        for attempt in 0.. {
            if attempt > 0 {
                self.results().repeated += 1;
                tokio::time::sleep(RETRY).await;
            }
            match self.send_once(&request).await {
                Ok((status, body)) if request.definite.contains(&status) => {
                    self.results().answered += 1;
                    return Some((status, body));
                }
                Ok((status, body)) if status.is_client_error() && status != StatusCode::NOT_FOUND => {
                    self.results().wrong.push(format!("{} {}: {status} {body}", request.method, request.path));
                    return None;
                }
                Ok((status, body)) => last_response = format!("{status} {body}"),
                Err(error) => last_response = format!("{error:#}"),
            }
            let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
            if deadline.is_some_and(|at| Instant::now() >= at) {
                break;
            }
        }
        self.results().unanswered.push(format!("{} {} {}: {last_response}", request.method, request.path, request.key));
        None
    }

    async fn send_once(&self, request: &LoadRequest) -> anyhow::Result<(StatusCode, Value)> {
        let urls = self.instances.urls(request.service);
        let next_instance = usize::try_from(self.next_instance.fetch_add(1, Ordering::Relaxed)).unwrap_or_default();
        let url = urls.get(next_instance % urls.len().max(1)).map_or("http://127.0.0.1:1", String::as_str);
        let response = self
            .client
            .request(request.method.clone(), format!("{url}{}", request.path))
            .header("idempotency-key", &request.key)
            .json(&request.body)
            .timeout(REQUEST_TIMEOUT)
            .send()
            .await?;
        let status = response.status();
        Ok((status, serde_json::from_slice(&response.bytes().await?).unwrap_or_default()))
    }

    fn results(&self) -> std::sync::MutexGuard<'_, LoadResults> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LoadRequest {
    service: &'static str,
    method: Method,
    path: String,
    key: String,
    body: Value,
    /// The status codes that are definite.
    definite: &'static [StatusCode],
}
