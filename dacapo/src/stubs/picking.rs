//! The picking system: it takes an order's items from the shelves and packages them.
//!
//! Rules decide what goes wrong, so that a test can ask for it. An item whose sku starts with `ghost-` is in stock according to the
//! warehouse but not on the shelf. An order of a hundred pieces or more takes three seconds to pick. The response depends on the
//! request alone, so the same request always gets the same response.

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
    faults::{RequestFate, StubFaults},
    requests::{idempotency_key, unavailable},
};

/// Skus that start with this are never found on the shelf.
const MISSING_PREFIX: &str = "ghost-";
/// An order of this many pieces takes this long to pick.
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

/// The picking system's call.
pub(super) fn routes(faults: Arc<StubFaults>) -> Router {
    Router::new().route("/picks", post(picks)).with_state(faults)
}

async fn picks(
    State(faults): State<Arc<StubFaults>>,
    headers: HeaderMap,
    Json(request): Json<PickRequest>,
) -> Response {
    let key = match idempotency_key(&headers) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    if faults.next_fate(&key).await != RequestFate::Answered {
        return unavailable();
    }
    let pieces: i64 = request.lines.iter().map(|line| i64::from(line.quantity)).sum();
    if pieces >= LARGE_ORDER.0 {
        tokio::time::sleep(LARGE_ORDER.1).await;
    }
    let missing: Vec<&PickLine> = request.lines.iter().filter(|line| line.sku.starts_with(MISSING_PREFIX)).collect();
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
