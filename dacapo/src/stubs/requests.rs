//! What every stub does with a request: its idempotency key, the fault drawn for it, and the response.

use std::io;

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::faults::{RequestFate, StubFaults};

/// The idempotency key of a request, or the response to a request without one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<String, Box<Response>> {
    headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .filter(|key| !key.is_empty() && key.len() <= 200)
        .map(str::to_owned)
        .ok_or_else(|| {
            let reason = "the header Idempotency-Key is missing, empty or longer than 200 characters";
            Box::new((StatusCode::BAD_REQUEST, Json(json!({ "status": "invalid", "reason": reason }))).into_response())
        })
}

/// Handles a request under its idempotency key: `act` does what is asked and records it, `respond` turns the entry into a response.
pub(super) async fn handle<E>(
    faults: &StubFaults,
    headers: &HeaderMap,
    stub: &str,
    act: impl FnOnce(&str) -> io::Result<E>,
    respond: impl FnOnce(&E) -> Response,
) -> Response {
    let key = match idempotency_key(headers) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    let fate = faults.next_fate(&key).await;
    if fate == RequestFate::FailsBefore {
        return unavailable();
    }
    match act(&key) {
        Ok(_) if fate == RequestFate::FailsAfter => unavailable(),
        Ok(entry) => respond(&entry),
        Err(error) => {
            tracing::error!(stub, %error, "the journal cannot be written");
            unavailable()
        }
    }
}

/// The response to a request that failed.
pub(super) fn unavailable() -> Response {
    let body = json!({ "status": "unavailable", "reason": "simulated fault: try again with the same key" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
