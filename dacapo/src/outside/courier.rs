//! The courier: it takes parcels and gives tracking numbers, the same number for the same key.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    faults::{Fate, Faults, unavailable},
    idempotency_key,
};

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

/// The courier's call.
pub(super) fn routes(faults: Arc<Faults>) -> Router {
    Router::new().route("/parcels", post(parcels)).with_state(faults)
}

async fn parcels(
    State(faults): State<Arc<Faults>>,
    headers: HeaderMap,
    Json(request): Json<ParcelRequest>,
) -> Response {
    let key = match idempotency_key(&headers) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    if request.parcel_id.is_empty() || request.ship_to.postcode.is_empty() || request.ship_to.country.is_empty() {
        let reason = "a parcel needs an id, a postcode and a country";
        return (StatusCode::BAD_REQUEST, Json(json!({ "status": "invalid", "reason": reason }))).into_response();
    }
    if faults.befall(&key).await != Fate::Answered {
        return unavailable();
    }
    let number = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple().to_string().to_uppercase();
    Json(json!({ "carrier": "Post Haste", "tracking_number": format!("PH{}", &number[..14]) })).into_response()
}
