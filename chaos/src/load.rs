//! The load: orders over HTTP at a steady rate, some of them called off at once, customers who register, prices that change.
//!
//! A request that gets no definite answer is sent again under the same key, to whichever instance comes next, until it gets one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dacapo::{
    orders::{Generator, Mix, Order},
    seed::{ALBUMS, Shelf},
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::fleet::Fleet;

/// How long one request may take. Shorter than an outage: the next instance is tried.
const REQUEST: Duration = Duration::from_secs(5);
/// The pause before a request is sent again.
const RETRY: Duration = Duration::from_millis(150);
/// Price changes and registrations for each order: they keep the two services busy that orders do not reach.
const OTHERS_PER_ORDER: u64 = 1;

/// What the load was answered.
#[derive(Debug, Default)]
pub struct Answers {
    /// Orders that were acknowledged (201, 202) or rejected (422), by id: each must be on the topic.
    pub orders: Vec<String>,
    /// Requests of any kind that were answered.
    pub answered: u64,
    /// Requests that were sent again.
    pub repeated: u64,
    /// Requests that never got a definite answer, and the last thing that was heard.
    pub unanswered: Vec<String>,
    /// Answers that no request should get.
    pub wrong: Vec<String>,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    placing: tokio::task::JoinHandle<()>,
}

struct Shared {
    fleet: Arc<Fleet>,
    client: Client,
    generator: Generator,
    answers: Mutex<Answers>,
    stopping: AtomicBool,
    turn: AtomicU64,
    give_up: Mutex<Option<Instant>>,
}

impl Load {
    /// Starts to place `rate` orders a second.
    #[must_use]
    pub fn start(fleet: Arc<Fleet>, seed: u64, rate: f64) -> Self {
        let mix = Mix { cancelled: 8.0, delayed: 6.0, ..Mix::default() };
        let shared = Arc::new(Shared {
            fleet,
            client: Client::new(),
            generator: Generator::new(seed, mix),
            answers: Mutex::default(),
            stopping: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            give_up: Mutex::new(None),
        });
        let placing = tokio::spawn(Arc::clone(&shared).place_until_told(rate));
        Self { shared, placing }
    }

    /// Places no more, waits until everything that was sent is answered, at most `patience`.
    pub async fn stop(self, patience: Duration) -> Answers {
        *self.shared.give_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + patience);
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Err(error) = self.placing.await {
            self.shared.answers().wrong.push(format!("the load broke off: {error}"));
        }
        std::mem::take(&mut *self.shared.answers())
    }
}

impl Shared {
    async fn place_until_told(self: Arc<Self>, rate: f64) {
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut under_way = JoinSet::new();
        for index in 0.. {
            tick.tick().await;
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            let order = self.generator.order(index);
            under_way.spawn(Arc::clone(&self).order(order));
            for other in index * OTHERS_PER_ORDER..(index + 1) * OTHERS_PER_ORDER {
                under_way.spawn(Arc::clone(&self).change_price(other));
                under_way.spawn(Arc::clone(&self).register(other));
            }
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn order(self: Arc<Self>, order: Order) {
        let request = Request {
            service: "order-processor",
            method: Method::POST,
            path: "/orders".to_owned(),
            key: order.key.clone(),
            body: order.body,
            definite: &[StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::UNPROCESSABLE_ENTITY],
        };
        let Some((status, body)) = self.ask(request).await else { return };
        let named = body["order_id"].as_str().map(str::to_owned);
        let id = named.or_else(|| body["instance"].as_str()?.strip_prefix("/orders/").map(str::to_owned));
        let Some(id) = id else {
            self.answers().wrong.push(format!("order {}: {status} without an order's id: {body}", order.key));
            return;
        };
        self.answers().orders.push(id.clone());
        if order.cancel && status != StatusCode::UNPROCESSABLE_ENTITY {
            let request = Request {
                service: "order-processor",
                method: Method::POST,
                path: format!("/orders/{id}/cancel"),
                key: format!("{}-cancel", order.key),
                body: json!({ "reason": "changed my mind" }),
                definite: &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::CONFLICT],
            };
            self.ask(request).await;
        }
    }

    async fn change_price(self: Arc<Self>, index: u64) {
        let stocked: Vec<_> = ALBUMS.iter().filter(|album| album.shelf == Shelf::Stocked).collect();
        let album = stocked[usize::try_from(index).unwrap_or_default() % stocked.len()];
        let amount_minor = album.price_minor + i64::try_from(index % 97).unwrap_or_default();
        let request = Request {
            service: "catalogue",
            method: Method::PUT,
            path: format!("/albums/{}/price", album.sku),
            key: format!("price-{index}"),
            body: json!({ "price": { "amount_minor": amount_minor, "currency": "EUR" } }),
            definite: &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::CONFLICT],
        };
        self.ask(request).await;
    }

    async fn register(self: Arc<Self>, index: u64) {
        let request = Request {
            service: "customers",
            method: Method::POST,
            path: "/customers".to_owned(),
            key: format!("shopper-{index}"),
            body: json!({ "name": format!("Shopper {index}"), "email": format!("shopper.{index}@example.org") }),
            definite: &[StatusCode::OK, StatusCode::CREATED, StatusCode::ACCEPTED],
        };
        self.ask(request).await;
    }

    /// Asks one instance after the other until one answers definitely.
    async fn ask(&self, request: Request) -> Option<(StatusCode, Value)> {
        let mut heard = "nothing".to_owned();
        for attempt in 0.. {
            if attempt > 0 {
                self.answers().repeated += 1;
                tokio::time::sleep(RETRY).await;
            }
            match self.ask_once(&request).await {
                Ok((status, body)) if request.definite.contains(&status) => {
                    self.answers().answered += 1;
                    return Some((status, body));
                }
                Ok((status, body)) if status.is_client_error() && status != StatusCode::NOT_FOUND => {
                    self.answers().wrong.push(format!("{} {}: {status} {body}", request.method, request.path));
                    return None;
                }
                Ok((status, body)) => heard = format!("{status} {body}"),
                Err(error) => heard = format!("{error:#}"),
            }
            let give_up = *self.give_up.lock().unwrap_or_else(PoisonError::into_inner);
            if give_up.is_some_and(|at| Instant::now() >= at) {
                break;
            }
        }
        self.answers().unanswered.push(format!("{} {} {}: {heard}", request.method, request.path, request.key));
        None
    }

    async fn ask_once(&self, request: &Request) -> anyhow::Result<(StatusCode, Value)> {
        let urls = self.fleet.urls(request.service);
        let turn = usize::try_from(self.turn.fetch_add(1, Ordering::Relaxed)).unwrap_or_default();
        let url = urls.get(turn % urls.len().max(1)).map_or("http://127.0.0.1:1", String::as_str);
        let response = self
            .client
            .request(request.method.clone(), format!("{url}{}", request.path))
            .header("idempotency-key", &request.key)
            .json(&request.body)
            .timeout(REQUEST)
            .send()
            .await?;
        let status = response.status();
        Ok((status, serde_json::from_slice(&response.bytes().await?).unwrap_or_default()))
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Request {
    service: &'static str,
    method: Method,
    path: String,
    key: String,
    body: Value,
    /// The answers after which it is not sent again.
    definite: &'static [StatusCode],
}
