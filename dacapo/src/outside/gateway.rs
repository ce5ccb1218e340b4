//! A payment gateway: it charges, voids and refunds, once per idempotency key, and keeps a ledger.
//!
//! What goes wrong is a rule, so that a test can ask for it by the payment method, or a share that a flag sets:
//!
//! | payment method | |
//! |---|---|
//! | `card-declined` | is declined |
//! | `card-slow` | is captured, and the answer takes two seconds |
//! | `card-silent` | is never answered and not captured; its void is answered |
//! | `card-late` | is captured, and no answer to the charge arrives; its void tells |
//! | `card-closed` | is captured; the first refund of it is refused, the next one is made |
//! | any other | is captured |
//!
//! A void before the charge arrives keeps that charge out for ever; a void after it tells what had happened.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    answers::{Answers, Memory},
    faults::{Faults, unavailable},
    idempotency_key,
};

/// The payment method that is always declined.
const DECLINED_METHOD: &str = "card-declined";
/// The payment method whose charge is answered late, and how late.
const SLOW_METHOD: (&str, Duration) = ("card-slow", Duration::from_secs(2));
/// The payment method that the gateway is deaf to.
const SILENT_METHOD: &str = "card-silent";
/// The payment method whose charge is captured while its answers are lost.
const LATE_METHOD: &str = "card-late";
/// The payment method whose first refund is refused.
const CLOSED_METHOD: &str = "card-closed";
/// What the ids of its payments start with: a refund names the payment only.
const CLOSED_PREFIX: &str = "pay-closed-";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ChargeRequest {
    order_id: String,
    amount_minor: i64,
    currency: String,
    payment_method: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct RefundRequest {
    order_id: String,
    payment_id: String,
    amount_minor: i64,
    currency: String,
}

/// What the gateway did under one key, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Entry {
    Captured {
        key: String,
        payment_id: String,
        amount_minor: i64,
        currency: String,
    },
    Declined {
        key: String,
        reason: String,
    },
    Voided {
        key: String,
    },
    Refunded {
        key: String,
        payment_id: String,
        refund_id: String,
        amount_minor: i64,
        currency: String,
    },
    RefundRefused {
        key: String,
        #[serde(default)]
        payment_id: String,
        reason: String,
    },
}

/// What the ledger adds up to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerTotals {
    /// Captured minor units by currency.
    pub captured_minor: BTreeMap<String, i64>,
    /// Refunded minor units by currency.
    pub refunded_minor: BTreeMap<String, i64>,
    /// Charges captured.
    pub captures: u64,
    /// Charges declined.
    pub declines: u64,
    /// Charges voided before they were captured.
    pub voids: u64,
    /// Refunds made.
    pub refunds: u64,
}

/// What the gateway remembers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What is left to refund of each payment.
    refundable: HashMap<String, (i64, String)>,
    /// Payments of which a refund was refused once by a rule.
    refused: HashSet<String>,
    totals: LedgerTotals,
}

impl Memory for Ledger {
    type Entry = Entry;

    fn key(entry: &Entry) -> &str {
        match entry {
            Entry::Captured { key, .. }
            | Entry::Declined { key, .. }
            | Entry::Voided { key }
            | Entry::Refunded { key, .. }
            | Entry::RefundRefused { key, .. } => key,
        }
    }

    fn enter(&mut self, entry: &Entry) {
        match entry {
            Entry::Captured { payment_id, amount_minor, currency, .. } => {
                self.refundable.insert(payment_id.clone(), (*amount_minor, currency.clone()));
                *self.totals.captured_minor.entry(currency.clone()).or_default() += amount_minor;
                self.totals.captures += 1;
            }
            Entry::Declined { .. } => self.totals.declines += 1,
            Entry::Voided { .. } => self.totals.voids += 1,
            Entry::Refunded { payment_id, amount_minor, currency, .. } => {
                if let Some((left, _)) = self.refundable.get_mut(payment_id) {
                    *left -= amount_minor;
                }
                *self.totals.refunded_minor.entry(currency.clone()).or_default() += amount_minor;
                self.totals.refunds += 1;
            }
            Entry::RefundRefused { payment_id, .. } => drop(self.refused.insert(payment_id.clone())),
        }
    }
}

/// The gateway's memory.
#[derive(Debug)]
pub(super) struct Gateway(Answers<Ledger>);

impl Gateway {
    /// Opens the ledger and brings back what its journal holds.
    pub(super) fn open(folder: Option<&Path>) -> io::Result<Self> {
        Ok(Self(Answers::open(folder, "gateway-ledger.ndjson")?))
    }

    fn totals(&self) -> LedgerTotals {
        self.0.read(|ledger| ledger.totals.clone())
    }

    fn charge(&self, key: &str, request: &ChargeRequest) -> io::Result<Entry> {
        self.0.once(key, |_| {
            let key = key.to_owned();
            if request.payment_method == DECLINED_METHOD {
                return Entry::Declined { key, reason: "the card was declined".to_owned() };
            }
            if request.amount_minor <= 0 {
                return Entry::Declined { key, reason: "the amount must be positive".to_owned() };
            }
            let prefix = if request.payment_method == CLOSED_METHOD { CLOSED_PREFIX } else { "pay-" };
            let payment_id = format!("{prefix}{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple());
            Entry::Captured { key, payment_id, amount_minor: request.amount_minor, currency: request.currency.clone() }
        })
    }

    fn void(&self, charge_key: &str) -> io::Result<Entry> {
        self.0.once(charge_key, |_| Entry::Voided { key: charge_key.to_owned() })
    }

    fn refund(&self, key: &str, request: &RefundRequest, refuse_first: bool) -> io::Result<Entry> {
        self.0.once(key, |ledger| {
            let key = key.to_owned();
            let RefundRequest { payment_id, amount_minor, currency, .. } = request.clone();
            let refused = |key, reason: String| Entry::RefundRefused { key, payment_id: payment_id.clone(), reason };
            let is_closed = refuse_first || payment_id.starts_with(CLOSED_PREFIX);
            if is_closed && !ledger.refused.contains(&payment_id) {
                return refused(key, "the card is closed".to_owned());
            }
            match ledger.refundable.get(&payment_id) {
                Some((left, of)) if *left >= amount_minor && *of == currency => {
                    let refund_id = format!("ref-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple());
                    Entry::Refunded { key, payment_id, refund_id, amount_minor, currency }
                }
                Some((left, currency)) => refused(key, format!("only {left} {currency} are left of this payment")),
                None => refused(key, "no such payment".to_owned()),
            }
        })
    }
}

#[derive(Debug, Clone)]
struct Shared {
    gateway: Arc<Gateway>,
    faults: Arc<Faults>,
}

/// The gateway's calls.
pub(super) fn routes(gateway: Arc<Gateway>, faults: Arc<Faults>) -> Router {
    Router::new()
        .route("/charges", post(charges))
        .route("/voids", post(voids))
        .route("/refunds", post(refunds))
        .route("/ledger", get(totals))
        .with_state(Shared { gateway, faults })
}

async fn charges(State(shared): State<Shared>, headers: HeaderMap, Json(request): Json<ChargeRequest>) -> Response {
    let method = request.payment_method.as_str();
    if method == SLOW_METHOD.0 {
        tokio::time::sleep(SLOW_METHOD.1).await;
    }
    let charge = || shared.answer(&headers, |gateway, key| gateway.charge(key, &request));
    match idempotency_key(&headers).map_or(Line::Open, |key| shared.line(method, &key)) {
        Line::Open => charge().await,
        Line::Deaf => unavailable(),
        Line::Mute => {
            charge().await;
            unavailable()
        }
    }
}

async fn voids(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    shared.answer(&headers, Gateway::void).await
}

async fn refunds(State(shared): State<Shared>, headers: HeaderMap, Json(request): Json<RefundRequest>) -> Response {
    let refuse = shared.faults.falls_on(shared.faults.refused_refunds, "refund", &request.payment_id);
    shared.answer(&headers, |gateway, key| gateway.refund(key, &request, refuse)).await
}

async fn totals(State(shared): State<Shared>) -> Json<LedgerTotals> {
    Json(shared.gateway.totals())
}

/// How much of a charge gets through.
enum Line {
    /// The charge, and its answer.
    Open,
    /// Nothing.
    Deaf,
    /// The charge, but no answer to it.
    Mute,
}

impl Shared {
    fn line(&self, method: &str, key: &str) -> Line {
        match method {
            SILENT_METHOD => Line::Deaf,
            LATE_METHOD => Line::Mute,
            _ if !self.faults.falls_on(self.faults.silent_charges, "silent", key) => Line::Open,
            _ if self.faults.falls_on(0.5, "late", key) => Line::Mute,
            _ => Line::Deaf,
        }
    }

    async fn answer(&self, headers: &HeaderMap, act: impl FnOnce(&Gateway, &str) -> io::Result<Entry>) -> Response {
        self.faults.answer(headers, "gateway", |key| act(&self.gateway, key), told).await
    }
}

fn told(entry: &Entry) -> Response {
    let (status, body) = match entry {
        Entry::Captured { payment_id, .. } => {
            (StatusCode::OK, json!({ "status": "captured", "payment_id": payment_id }))
        }
        Entry::Declined { reason, .. } => {
            (StatusCode::PAYMENT_REQUIRED, json!({ "status": "declined", "reason": reason }))
        }
        Entry::Voided { .. } => (StatusCode::OK, json!({ "status": "voided" })),
        Entry::Refunded { refund_id, .. } => (StatusCode::OK, json!({ "status": "refunded", "refund_id": refund_id })),
        Entry::RefundRefused { reason, .. } => (StatusCode::CONFLICT, json!({ "status": "refused", "reason": reason })),
    };
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(method: &str) -> ChargeRequest {
        ChargeRequest {
            order_id: "o-1".to_owned(),
            amount_minor: 500,
            currency: "EUR".to_owned(),
            payment_method: method.to_owned(),
        }
    }

    #[test]
    fn a_key_is_charged_once_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = Gateway::open(Some(folder.path())).unwrap();
        let answer = first.charge("k", &charge("card-ok")).unwrap();
        assert_eq!(first.charge("k", &charge("card-ok")).unwrap(), answer);
        drop(first);
        let second = Gateway::open(Some(folder.path())).unwrap();
        assert_eq!(second.charge("k", &charge("card-ok")).unwrap(), answer);
        assert_eq!(second.totals().captured_minor["EUR"], 500);
    }

    #[test]
    fn a_void_that_comes_first_keeps_the_charge_out_and_one_that_comes_late_tells_what_happened() {
        let gateway = Gateway::open(None).unwrap();
        assert_eq!(gateway.void("early").unwrap(), Entry::Voided { key: "early".to_owned() });
        assert_eq!(gateway.charge("early", &charge("card-ok")).unwrap(), Entry::Voided { key: "early".to_owned() });
        let captured = gateway.charge("late", &charge("card-ok")).unwrap();
        assert_eq!(gateway.void("late").unwrap(), captured);
        assert_eq!(gateway.totals().captures, 1);
    }

    #[test]
    fn no_more_is_refunded_than_was_captured() {
        let gateway = Gateway::open(None).unwrap();
        let Entry::Captured { payment_id, .. } = gateway.charge("k", &charge("card-ok")).unwrap() else { panic!() };
        let refund =
            RefundRequest { order_id: "o-1".to_owned(), payment_id, amount_minor: 500, currency: "EUR".to_owned() };
        assert!(matches!(gateway.refund("r1", &refund, false).unwrap(), Entry::Refunded { .. }));
        assert!(matches!(gateway.refund("r1", &refund, false).unwrap(), Entry::Refunded { .. }));
        assert!(matches!(gateway.refund("r2", &refund, false).unwrap(), Entry::RefundRefused { .. }));
        assert_eq!(gateway.totals().refunded_minor["EUR"], 500);
    }

    #[test]
    fn the_first_refund_of_a_closed_card_is_refused_and_the_next_one_made() {
        let gateway = Gateway::open(None).unwrap();
        let Entry::Captured { payment_id, .. } = gateway.charge("k", &charge(CLOSED_METHOD)).unwrap() else { panic!() };
        let refund =
            RefundRequest { order_id: "o-1".to_owned(), payment_id, amount_minor: 500, currency: "EUR".to_owned() };
        for _ in 0..2 {
            assert!(matches!(gateway.refund("r1", &refund, false).unwrap(), Entry::RefundRefused { .. }));
        }
        assert!(matches!(gateway.refund("r2", &refund, false).unwrap(), Entry::Refunded { .. }));
    }

    #[tokio::test]
    async fn a_silent_charge_is_captured_or_not_and_its_void_tells() {
        for (method, captured) in [(SILENT_METHOD, false), (LATE_METHOD, true)] {
            let (gateway, faults) = (Arc::new(Gateway::open(None).unwrap()), Arc::new(Faults::default()));
            let shared = Shared { gateway: Arc::clone(&gateway), faults };
            let headers = HeaderMap::from_iter([("idempotency-key".parse().unwrap(), "k".parse().unwrap())]);
            for _ in 0..2 {
                let answer = charges(State(shared.clone()), headers.clone(), Json(charge(method))).await;
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            }
            let told = gateway.void("k").unwrap();
            assert_eq!(matches!(told, Entry::Captured { .. }), captured, "{told:?}");
        }
    }
}
