//! A payment gateway: it charges, voids and refunds, once per idempotency key, and keeps a ledger.
//!
//! Declines are a rule, so that a test can ask for one: the payment method `card-declined` is always declined, every other is
//! captured. A void before the charge arrives makes that charge decline for ever; a void after it tells what had happened.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    faults::{Fate, Faults, unavailable},
    idempotency_key,
    journal::Journal,
};

/// The payment method that is always declined.
const DECLINED_METHOD: &str = "card-declined";

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
enum Entry {
    Captured { key: String, payment_id: String, amount_minor: i64, currency: String },
    Declined { key: String, reason: String },
    Voided { key: String },
    Refunded { key: String, payment_id: String, refund_id: String, amount_minor: i64, currency: String },
    RefundRefused { key: String, reason: String },
}

impl Entry {
    fn key(&self) -> &str {
        match self {
            Self::Captured { key, .. }
            | Self::Declined { key, .. }
            | Self::Voided { key }
            | Self::Refunded { key, .. }
            | Self::RefundRefused { key, .. } => key,
        }
    }
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

#[derive(Debug, Default)]
struct Ledger {
    by_key: HashMap<String, Entry>,
    /// What is left to refund of each payment.
    refundable: HashMap<String, (i64, String)>,
    totals: LedgerTotals,
}

impl Ledger {
    fn enter(&mut self, entry: Entry) {
        match &entry {
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
            Entry::RefundRefused { .. } => {}
        }
        self.by_key.insert(entry.key().to_owned(), entry);
    }
}

/// The gateway's memory.
#[derive(Debug)]
pub(super) struct Gateway {
    ledger: Mutex<Ledger>,
    journal: Journal,
}

impl Gateway {
    /// Opens the ledger and brings back what its journal holds.
    pub(super) fn open(folder: Option<&Path>) -> io::Result<Self> {
        let (journal, entries) = Journal::open(folder, "gateway-ledger.ndjson")?;
        let mut ledger = Ledger::default();
        entries.into_iter().for_each(|entry| ledger.enter(entry));
        Ok(Self { ledger: Mutex::new(ledger), journal })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done under the key before, or what `decide` does now. Recorded before it is told.
    fn once(&self, key: &str, decide: impl FnOnce(&Ledger) -> Entry) -> io::Result<Entry> {
        let mut ledger = self.ledger();
        if let Some(before) = ledger.by_key.get(key) {
            return Ok(before.clone());
        }
        let entry = decide(&ledger);
        self.journal.append(&entry)?;
        ledger.enter(entry.clone());
        Ok(entry)
    }

    fn charge(&self, key: &str, request: &ChargeRequest) -> io::Result<Entry> {
        self.once(key, |_| {
            let key = key.to_owned();
            if request.payment_method == DECLINED_METHOD {
                return Entry::Declined { key, reason: "the card was declined".to_owned() };
            }
            if request.amount_minor <= 0 {
                return Entry::Declined { key, reason: "the amount must be positive".to_owned() };
            }
            let payment_id = format!("pay-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple());
            Entry::Captured { key, payment_id, amount_minor: request.amount_minor, currency: request.currency.clone() }
        })
    }

    fn void(&self, charge_key: &str) -> io::Result<Entry> {
        self.once(charge_key, |_| Entry::Voided { key: charge_key.to_owned() })
    }

    fn refund(&self, key: &str, request: &RefundRequest) -> io::Result<Entry> {
        self.once(key, |ledger| {
            let key = key.to_owned();
            match ledger.refundable.get(&request.payment_id) {
                Some((left, currency)) if *left >= request.amount_minor && *currency == request.currency => {
                    let refund_id = format!("ref-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple());
                    let RefundRequest { payment_id, amount_minor, currency, .. } = request.clone();
                    Entry::Refunded { key, payment_id, refund_id, amount_minor, currency }
                }
                Some((left, currency)) => {
                    Entry::RefundRefused { key, reason: format!("only {left} {currency} are left of this payment") }
                }
                None => Entry::RefundRefused { key, reason: "no such payment".to_owned() },
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
    shared.answer(&headers, |gateway, key| gateway.charge(key, &request)).await
}

async fn voids(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    shared.answer(&headers, Gateway::void).await
}

async fn refunds(State(shared): State<Shared>, headers: HeaderMap, Json(request): Json<RefundRequest>) -> Response {
    shared.answer(&headers, |gateway, key| gateway.refund(key, &request)).await
}

async fn totals(State(shared): State<Shared>) -> Json<LedgerTotals> {
    Json(shared.gateway.ledger().totals.clone())
}

impl Shared {
    async fn answer(&self, headers: &HeaderMap, act: impl FnOnce(&Gateway, &str) -> io::Result<Entry>) -> Response {
        let key = match idempotency_key(headers) {
            Ok(key) => key,
            Err(refusal) => return *refusal,
        };
        let fate = self.faults.befall(&key).await;
        if fate == Fate::FailsBefore {
            return unavailable();
        }
        match act(&self.gateway, &key) {
            Ok(_) if fate == Fate::FailsAfter => unavailable(),
            Ok(entry) => told(&entry),
            Err(error) => {
                tracing::error!(error = %error, "the gateway cannot write its journal");
                unavailable()
            }
        }
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
        assert_eq!(second.ledger().totals.captured_minor["EUR"], 500);
    }

    #[test]
    fn a_void_that_comes_first_keeps_the_charge_out_and_one_that_comes_late_tells_what_happened() {
        let gateway = Gateway::open(None).unwrap();
        assert_eq!(gateway.void("early").unwrap(), Entry::Voided { key: "early".to_owned() });
        assert_eq!(gateway.charge("early", &charge("card-ok")).unwrap(), Entry::Voided { key: "early".to_owned() });
        let captured = gateway.charge("late", &charge("card-ok")).unwrap();
        assert_eq!(gateway.void("late").unwrap(), captured);
        assert_eq!(gateway.ledger().totals.captures, 1);
    }

    #[test]
    fn no_more_is_refunded_than_was_captured() {
        let gateway = Gateway::open(None).unwrap();
        let Entry::Captured { payment_id, .. } = gateway.charge("k", &charge("card-ok")).unwrap() else { panic!() };
        let refund =
            RefundRequest { order_id: "o-1".to_owned(), payment_id, amount_minor: 500, currency: "EUR".to_owned() };
        assert!(matches!(gateway.refund("r1", &refund).unwrap(), Entry::Refunded { .. }));
        assert!(matches!(gateway.refund("r1", &refund).unwrap(), Entry::Refunded { .. }));
        assert!(matches!(gateway.refund("r2", &refund).unwrap(), Entry::RefundRefused { .. }));
        assert_eq!(gateway.ledger().totals.refunded_minor["EUR"], 500);
    }
}
