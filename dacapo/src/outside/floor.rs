//! The picking floor: it takes an order's items from the shelves and packages them.
//!
//! What is missing is a rule, so that a test can ask for it: an item whose sku starts with `ghost-` stands in the books and never
//! on the shelf. So is what takes long: an order of a hundred pieces or more takes three seconds to pick. The answer depends on the
//! request alone, so the same request gets the same answer for ever.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    faults::{Fate, Faults, unavailable},
    idempotency_key,
};

/// Skus that start with this are never found on the shelf.
pub(crate) const GHOST_PREFIX: &str = "ghost-";
/// So many pieces take so long to pick.
const LARGE_ORDER: (i64, Duration) = (100, Duration::from_secs(3));

#[derive(Debug, Deserialize)]
struct PickRequest {
    order_id: String,
    lines: Vec<PickLine>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PickLine {
    sku: String,
    quantity: i32,
}

/// The floor's call.
pub(super) fn routes(faults: Arc<Faults>) -> Router {
    Router::new().route("/picks", post(picks)).with_state(faults)
}

async fn picks(State(faults): State<Arc<Faults>>, headers: HeaderMap, Json(request): Json<PickRequest>) -> Response {
    let key = match idempotency_key(&headers) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    if faults.befall(&key).await != Fate::Answered {
        return unavailable();
    }
    let pieces: i64 = request.lines.iter().map(|line| i64::from(line.quantity)).sum();
    if pieces >= LARGE_ORDER.0 {
        tokio::time::sleep(LARGE_ORDER.1).await;
    }
    let missing: Vec<&PickLine> = request.lines.iter().filter(|line| line.sku.starts_with(GHOST_PREFIX)).collect();
    if missing.is_empty() {
        let parcel_id = format!("parcel-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple());
        return Json(json!({ "outcome": "packaged", "parcel_id": parcel_id })).into_response();
    }
    let detail = format!(
        "{} of {} lines of order {} are not on the shelf",
        missing.len(),
        request.lines.len(),
        request.order_id
    );
    Json(json!({ "outcome": "missing", "missing": missing, "detail": detail })).into_response()
}
