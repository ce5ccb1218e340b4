//! The payment gateway: it charges, voids and refunds, once per idempotency key, and keeps a ledger.
//!
//! A rule decides what goes wrong, so that a test can ask for it by the payment method; a flag sets a share of such faults:
//!
//! | payment method | |
//! |---|---|
//! | `card-declined` | is declined |
//! | `card-slow` | is captured, and the response takes two seconds |
//! | `card-silent` | is never answered and not captured; its void is answered |
//! | `card-late` | is captured, and the response to the charge is lost; its void returns it |
//! | `card-closed` | is captured; its first refund is refused, the next one is made |
//! | any other | is captured |
//!
//! A void that arrives before the charge blocks the charge for ever; a later void returns what happened to the charge.

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
    faults::StubFaults,
    requests::{handle, idempotency_key, unavailable},
    responses::{IdempotentResponses, ResponseState},
};

/// The payment method that is always declined.
const DECLINED_METHOD: &str = "card-declined";
/// The payment method whose charge is answered late, and the delay.
const SLOW_METHOD: (&str, Duration) = ("card-slow", Duration::from_secs(2));
/// The payment method whose charge never reaches the gateway.
const SILENT_METHOD: &str = "card-silent";
/// The payment method whose charge is captured while the response is lost.
const LATE_METHOD: &str = "card-late";
/// The payment method whose first refund is refused.
const CLOSED_METHOD: &str = "card-closed";
/// The prefix of its payment ids: a refund names the payment only.
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

/// What the gateway did under one key, as the journal holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum GatewayEntry {
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

/// The totals of the ledger.
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

/// The gateway's ledger.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What is left to refund of each payment.
    refundable: HashMap<String, (i64, String)>,
    /// Payments whose first refund a rule has refused.
    refused: HashSet<String>,
    totals: LedgerTotals,
}

impl ResponseState for Ledger {
    type Entry = GatewayEntry;

    fn key(entry: &GatewayEntry) -> &str {
        match entry {
            GatewayEntry::Captured { key, .. }
            | GatewayEntry::Declined { key, .. }
            | GatewayEntry::Voided { key }
            | GatewayEntry::Refunded { key, .. }
            | GatewayEntry::RefundRefused { key, .. } => key,
        }
    }

    fn apply(&mut self, entry: &GatewayEntry) {
        match entry {
            GatewayEntry::Captured { payment_id, amount_minor, currency, .. } => {
                self.refundable.insert(payment_id.clone(), (*amount_minor, currency.clone()));
                *self.totals.captured_minor.entry(currency.clone()).or_default() += amount_minor;
                self.totals.captures += 1;
            }
            GatewayEntry::Declined { .. } => self.totals.declines += 1,
            GatewayEntry::Voided { .. } => self.totals.voids += 1,
            GatewayEntry::Refunded { payment_id, amount_minor, currency, .. } => {
                if let Some((left, _)) = self.refundable.get_mut(payment_id) {
                    *left -= amount_minor;
                }
                *self.totals.refunded_minor.entry(currency.clone()).or_default() += amount_minor;
                self.totals.refunds += 1;
            }
            GatewayEntry::RefundRefused { payment_id, .. } => drop(self.refused.insert(payment_id.clone())),
        }
    }
}

/// The gateway's responses.
#[derive(Debug)]
pub(super) struct Gateway(IdempotentResponses<Ledger>);

impl Gateway {
    /// Restores what the journal holds.
    pub(super) fn open(folder: Option<&Path>) -> io::Result<Self> {
        Ok(Self(IdempotentResponses::open(folder, "gateway-ledger.ndjson")?))
    }

    fn totals(&self) -> LedgerTotals {
        self.0.read(|ledger| ledger.totals.clone())
    }

    fn charge(&self, key: &str, request: &ChargeRequest) -> io::Result<GatewayEntry> {
        self.0.once(key, |_| {
            let key = key.to_owned();
            if request.payment_method == DECLINED_METHOD {
                return GatewayEntry::Declined { key, reason: "the card was declined".to_owned() };
            }
            if request.amount_minor <= 0 {
                return GatewayEntry::Declined { key, reason: "the amount must be positive".to_owned() };
            }
            let prefix = if request.payment_method == CLOSED_METHOD { CLOSED_PREFIX } else { "pay-" };
            let payment_id = format!("{prefix}{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple());
            GatewayEntry::Captured {
                key,
                payment_id,
                amount_minor: request.amount_minor,
                currency: request.currency.clone(),
            }
        })
    }

    fn void(&self, charge_key: &str) -> io::Result<GatewayEntry> {
        self.0.once(charge_key, |_| GatewayEntry::Voided { key: charge_key.to_owned() })
    }

    fn refund(&self, key: &str, request: &RefundRequest, refuse_first: bool) -> io::Result<GatewayEntry> {
        self.0.once(key, |ledger| {
            let key = key.to_owned();
            let RefundRequest { payment_id, amount_minor, currency, .. } = request.clone();
            let refused =
                |key, reason: String| GatewayEntry::RefundRefused { key, payment_id: payment_id.clone(), reason };
            let is_closed = refuse_first || payment_id.starts_with(CLOSED_PREFIX);
            if is_closed && !ledger.refused.contains(&payment_id) {
                return refused(key, "the card is closed".to_owned());
            }
            match ledger.refundable.get(&payment_id) {
                Some((left, of)) if *left >= amount_minor && *of == currency => {
                    let refund_id = format!("ref-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple());
                    GatewayEntry::Refunded { key, payment_id, refund_id, amount_minor, currency }
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
    faults: Arc<StubFaults>,
}

/// The gateway's calls.
pub(super) fn routes(gateway: Arc<Gateway>, faults: Arc<StubFaults>) -> Router {
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
    match idempotency_key(&headers).map_or(ChargeDelivery::Answered, |key| shared.delivery(method, &key)) {
        ChargeDelivery::Answered => charge().await,
        ChargeDelivery::RequestLost => unavailable(),
        ChargeDelivery::ResponseLost => {
            charge().await;
            unavailable()
        }
    }
}

async fn voids(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    shared.answer(&headers, Gateway::void).await
}

async fn refunds(State(shared): State<Shared>, headers: HeaderMap, Json(request): Json<RefundRequest>) -> Response {
    let refuse = shared.faults.applies_to(shared.faults.refused_refunds, "refund", &request.payment_id);
    shared.answer(&headers, |gateway, key| gateway.refund(key, &request, refuse)).await
}

async fn totals(State(shared): State<Shared>) -> Json<LedgerTotals> {
    Json(shared.gateway.totals())
}

/// How far a charge and its response get.
enum ChargeDelivery {
    /// The charge is made, and the response arrives.
    Answered,
    /// The charge never arrives.
    RequestLost,
    /// The charge is made, and the response is lost.
    ResponseLost,
}

impl Shared {
    fn delivery(&self, method: &str, key: &str) -> ChargeDelivery {
        match method {
            SILENT_METHOD => ChargeDelivery::RequestLost,
            LATE_METHOD => ChargeDelivery::ResponseLost,
            _ if !self.faults.applies_to(self.faults.silent_charges, "silent", key) => ChargeDelivery::Answered,
            _ if self.faults.applies_to(0.5, "late", key) => ChargeDelivery::ResponseLost,
            _ => ChargeDelivery::RequestLost,
        }
    }

    async fn answer(
        &self,
        headers: &HeaderMap,
        act: impl FnOnce(&Gateway, &str) -> io::Result<GatewayEntry>,
    ) -> Response {
        handle(&self.faults, headers, "gateway", |key| act(&self.gateway, key), response_to).await
    }
}

fn response_to(entry: &GatewayEntry) -> Response {
    let (status, body) = match entry {
        GatewayEntry::Captured { payment_id, .. } => {
            (StatusCode::OK, json!({ "status": "captured", "payment_id": payment_id }))
        }
        GatewayEntry::Declined { reason, .. } => {
            (StatusCode::PAYMENT_REQUIRED, json!({ "status": "declined", "reason": reason }))
        }
        GatewayEntry::Voided { .. } => (StatusCode::OK, json!({ "status": "voided" })),
        GatewayEntry::Refunded { refund_id, .. } => {
            (StatusCode::OK, json!({ "status": "refunded", "refund_id": refund_id }))
        }
        GatewayEntry::RefundRefused { reason, .. } => {
            (StatusCode::CONFLICT, json!({ "status": "refused", "reason": reason }))
        }
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
    fn a_key_is_charged_once_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = Gateway::open(Some(folder.path())).unwrap();
        let entry = first.charge("k", &charge("card-ok")).unwrap();
        assert_eq!(first.charge("k", &charge("card-ok")).unwrap(), entry);
        drop(first);
        let second = Gateway::open(Some(folder.path())).unwrap();
        assert_eq!(second.charge("k", &charge("card-ok")).unwrap(), entry);
        assert_eq!(second.totals().captured_minor["EUR"], 500);
    }

    #[test]
    fn an_early_void_blocks_the_charge_and_a_late_void_reports_it() {
        let gateway = Gateway::open(None).unwrap();
        assert_eq!(gateway.void("early").unwrap(), GatewayEntry::Voided { key: "early".to_owned() });
        assert_eq!(
            gateway.charge("early", &charge("card-ok")).unwrap(),
            GatewayEntry::Voided { key: "early".to_owned() }
        );
        let captured = gateway.charge("late", &charge("card-ok")).unwrap();
        assert_eq!(gateway.void("late").unwrap(), captured);
        assert_eq!(gateway.totals().captures, 1);
    }

    #[test]
    fn refunds_never_exceed_the_capture() {
        let gateway = Gateway::open(None).unwrap();
        let GatewayEntry::Captured { payment_id, .. } = gateway.charge("k", &charge("card-ok")).unwrap() else {
            panic!()
        };
        let refund =
            RefundRequest { order_id: "o-1".to_owned(), payment_id, amount_minor: 500, currency: "EUR".to_owned() };
        assert!(matches!(gateway.refund("r1", &refund, false).unwrap(), GatewayEntry::Refunded { .. }));
        assert!(matches!(gateway.refund("r1", &refund, false).unwrap(), GatewayEntry::Refunded { .. }));
        assert!(matches!(gateway.refund("r2", &refund, false).unwrap(), GatewayEntry::RefundRefused { .. }));
        assert_eq!(gateway.totals().refunded_minor["EUR"], 500);
    }

    #[test]
    fn the_first_refund_of_a_closed_card_is_refused_and_the_next_one_is_made() {
        let gateway = Gateway::open(None).unwrap();
        let GatewayEntry::Captured { payment_id, .. } = gateway.charge("k", &charge(CLOSED_METHOD)).unwrap() else {
            panic!()
        };
        let refund =
            RefundRequest { order_id: "o-1".to_owned(), payment_id, amount_minor: 500, currency: "EUR".to_owned() };
        for _ in 0..2 {
            assert!(matches!(gateway.refund("r1", &refund, false).unwrap(), GatewayEntry::RefundRefused { .. }));
        }
        assert!(matches!(gateway.refund("r2", &refund, false).unwrap(), GatewayEntry::Refunded { .. }));
    }

    #[tokio::test]
    async fn the_void_of_an_unanswered_charge_reports_whether_it_was_captured() {
        for (method, captured) in [(SILENT_METHOD, false), (LATE_METHOD, true)] {
            let (gateway, faults) = (Arc::new(Gateway::open(None).unwrap()), Arc::new(StubFaults::default()));
            let shared = Shared { gateway: Arc::clone(&gateway), faults };
            let headers = HeaderMap::from_iter([("idempotency-key".parse().unwrap(), "k".parse().unwrap())]);
            for _ in 0..2 {
                let response = charges(State(shared.clone()), headers.clone(), Json(charge(method))).await;
                assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            }
            let voided = gateway.void("k").unwrap();
            assert_eq!(matches!(voided, GatewayEntry::Captured { .. }), captured, "{voided:?}");
        }
    }
}
