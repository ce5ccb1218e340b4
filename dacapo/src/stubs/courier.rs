//! The courier: it takes a parcel, refuses it, or confirms that it never took it, once per idempotency key.
//!
//! Rules decide what goes wrong, so that a test can ask for it. With the postcode `REFUSED n` the first `n` attempts to dispatch a
//! parcel are refused. With `SILENT` an attempt gets no response until it is withdrawn. A withdrawal that arrives before the parcel
//! blocks it for ever; a later withdrawal returns what happened to the parcel.

use std::{collections::HashMap, io, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    faults::StubFaults,
    requests::{handle, unavailable},
    responses::{IdempotentResponses, ResponseState},
};

/// A parcel to a postcode with this prefix is refused as often as the number after it says.
const REFUSED_PREFIX: &str = "REFUSED ";
/// A parcel to this postcode gets no response.
const SILENT_POSTCODE: &str = "SILENT";

#[derive(Debug, Deserialize)]
struct ParcelRequest {
    parcel_id: String,
    ship_to: ShipTo,
}

#[derive(Debug, Deserialize)]
struct ShipTo {
    postcode: String,
    country: String,
}

impl ParcelRequest {
    fn is_complete(&self) -> bool {
        !self.parcel_id.is_empty() && !self.ship_to.postcode.is_empty() && !self.ship_to.country.is_empty()
    }

    fn refusals(&self) -> usize {
        self.ship_to.postcode.strip_prefix(REFUSED_PREFIX).and_then(|times| times.parse().ok()).unwrap_or(0)
    }
}

/// The result of one attempt, as the journal holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum CourierEntry {
    Taken { key: String, tracking_number: String },
    Refused { key: String, parcel_id: String, reason: String },
    Withdrawn { key: String },
}

/// How often each parcel was refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<String, usize>);

impl ResponseState for Refusals {
    type Entry = CourierEntry;

    fn key(entry: &CourierEntry) -> &str {
        match entry {
            CourierEntry::Taken { key, .. } | CourierEntry::Refused { key, .. } | CourierEntry::Withdrawn { key } => {
                key
            }
        }
    }

    fn apply(&mut self, entry: &CourierEntry) {
        if let CourierEntry::Refused { parcel_id, .. } = entry {
            *self.0.entry(parcel_id.clone()).or_default() += 1;
        }
    }
}

/// The courier's responses.
#[derive(Debug)]
pub(super) struct Courier(IdempotentResponses<Refusals>);

impl Courier {
    /// Restores what the journal holds.
    pub(super) fn open(folder: Option<&Path>) -> io::Result<Self> {
        Ok(Self(IdempotentResponses::open(folder, "courier-book.ndjson")?))
    }

    fn take(&self, key: &str, request: &ParcelRequest, refuse: bool) -> io::Result<CourierEntry> {
        self.0.once(key, |refusals| {
            let before = refusals.0.get(&request.parcel_id).copied().unwrap_or_default();
            let key = key.to_owned();
            if refuse || before < request.refusals() {
                let parcel_id = request.parcel_id.clone();
                return CourierEntry::Refused { key, parcel_id, reason: "no van has room for it today".to_owned() };
            }
            let number = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple().to_string().to_uppercase();
            CourierEntry::Taken { key, tracking_number: format!("PH{}", &number[..14]) }
        })
    }

    fn withdraw(&self, key: &str) -> io::Result<CourierEntry> {
        self.0.once(key, |_| CourierEntry::Withdrawn { key: key.to_owned() })
    }
}

#[derive(Debug, Clone)]
struct Shared {
    courier: Arc<Courier>,
    faults: Arc<StubFaults>,
}

/// The courier's calls.
pub(super) fn routes(courier: Arc<Courier>, faults: Arc<StubFaults>) -> Router {
    Router::new()
        .route("/parcels", post(parcels))
        .route("/withdrawals", post(withdrawals))
        .with_state(Shared { courier, faults })
}

async fn parcels(State(shared): State<Shared>, headers: HeaderMap, Json(request): Json<ParcelRequest>) -> Response {
    if !request.is_complete() {
        let reason = "a parcel needs an id, a postcode and a country";
        return (StatusCode::BAD_REQUEST, Json(json!({ "status": "invalid", "reason": reason }))).into_response();
    }
    if request.ship_to.postcode == SILENT_POSTCODE {
        return unavailable();
    }
    let refuse = |key: &str| shared.faults.applies_to(shared.faults.refused_parcels, "parcel", key);
    shared.answer(&headers, |courier, key| courier.take(key, &request, refuse(key))).await
}

async fn withdrawals(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    shared.answer(&headers, Courier::withdraw).await
}

impl Shared {
    async fn answer(
        &self,
        headers: &HeaderMap,
        act: impl FnOnce(&Courier, &str) -> io::Result<CourierEntry>,
    ) -> Response {
        handle(&self.faults, headers, "courier", |key| act(&self.courier, key), response_to).await
    }
}

fn response_to(entry: &CourierEntry) -> Response {
    let (status, body) = match entry {
        CourierEntry::Taken { tracking_number, .. } => {
            (StatusCode::OK, json!({ "status": "taken", "carrier": "Post Haste", "tracking_number": tracking_number }))
        }
        CourierEntry::Refused { reason, .. } => {
            (StatusCode::CONFLICT, json!({ "status": "refused", "reason": reason }))
        }
        CourierEntry::Withdrawn { .. } => (StatusCode::OK, json!({ "status": "withdrawn" })),
    };
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(postcode: &str) -> ParcelRequest {
        let ship_to = ShipTo { postcode: postcode.to_owned(), country: "DE".to_owned() };
        ParcelRequest { parcel_id: "parcel-1".to_owned(), ship_to }
    }

    #[test]
    fn the_first_attempts_are_refused_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |courier: &Courier, key| {
            matches!(courier.take(key, &parcel("REFUSED 2"), false).unwrap(), CourierEntry::Refused { .. })
        };
        let first = Courier::open(Some(folder.path())).unwrap();
        assert!(refused(&first, "one") && refused(&first, "one"), "one key gets one response");
        drop(first);
        let second = Courier::open(Some(folder.path())).unwrap();
        assert!(refused(&second, "one") && refused(&second, "two"));
        assert!(!refused(&second, "three"));
    }

    #[test]
    fn a_withdrawal_blocks_the_parcel_or_reports_that_it_was_taken() {
        let courier = Courier::open(None).unwrap();
        let withdrawn = CourierEntry::Withdrawn { key: "early".to_owned() };
        assert_eq!(courier.withdraw("early").unwrap(), withdrawn);
        assert_eq!(courier.take("early", &parcel("04105"), false).unwrap(), withdrawn);
        let taken = courier.take("late", &parcel("04105"), false).unwrap();
        assert!(matches!(taken, CourierEntry::Taken { .. }));
        assert_eq!(courier.withdraw("late").unwrap(), taken);
    }
}
