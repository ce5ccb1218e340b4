//! The order-processor over HTTP: `POST /orders`, `GET /orders/{id}`, `POST /orders/{id}/cancel`.
//!
//! | answer | when |
//! |---|---|
//! | 201, Location | the order was placed, by this request or by the same request before |
//! | 202, Location | the request was accepted; its answer did not arrive in time |
//! | 400 | the body is not JSON, or the Idempotency-Key is invalid |
//! | 422 | a field is invalid, the order was rejected, or the key was used for another request |
//! | 503, Retry-After | the request cannot be accepted now; the same request may be sent again |
//!
//! The warehouse decides a cancellation later. `GET /orders/{id}` shows the status of the request before and after that:
//!
//! | answer | when |
//! |---|---|
//! | 200 | the order is cancelled already |
//! | 202, Location | the warehouse was asked, or the request was accepted and its answer did not arrive in time |
//! | 404 | there is no such order |
//! | 409 | it is too late to cancel the order, or the order was rejected |
//! | 400, 422, 503 | as above |

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use runtime::http::{Json, Problem};
use serde::Serialize;
use serde_json::json;

use crate::{
    edge::{CancellationOutcome, OrderEdge, Placement, PlacementOutcome, RequestError},
    order_status::OrderStatus,
    request::{OrderRequest, cancellation_reason},
};

/// The routes.
pub(crate) fn routes(edge: OrderEdge) -> Router {
    Router::new()
        .route("/orders", post(place))
        .route("/orders/{order_id}", get(show))
        .route("/orders/{order_id}/cancel", post(cancel))
        .with_state(edge)
}

async fn place(State(edge): State<OrderEdge>, headers: HeaderMap, Json(body): Json) -> Result<Response, Problem> {
    let key = idempotency_key(&headers).map_err(invalid_key)?;
    let request = OrderRequest::read(&body).map_err(Problem::invalid_body)?;
    Ok(response(edge.place_request(key, &request).await?))
}

async fn cancel(
    State(edge): State<OrderEdge>,
    Path(order_id): Path<String>,
    headers: HeaderMap,
    body: Option<Json>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers).map_err(invalid_key)?;
    let reason = cancellation_reason(body.as_ref().map(|Json(body)| body)).map_err(Problem::invalid_body)?;
    let location = format!("/orders/{order_id}");
    let (code, status) = match edge.cancel(&order_id, key, &reason).await? {
        CancellationOutcome::Requested => (StatusCode::ACCEPTED, "cancellation-requested"),
        CancellationOutcome::Pending => (StatusCode::ACCEPTED, "pending"),
        CancellationOutcome::Cancelled => (StatusCode::OK, "cancelled"),
        CancellationOutcome::Refused(reason) => {
            let title = "the order can no longer be cancelled";
            let problem = Problem::new(StatusCode::CONFLICT, "cancellation-refused", title);
            return Err(problem.detail(reason).instance(location));
        }
    };
    let body = json!({ "order_id": order_id, "status": status });
    Ok((code, [(header::LOCATION, location)], axum::Json(body)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| "is not plain text")
}

fn invalid_key(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-idempotency-key", "the Idempotency-Key is not valid")
        .detail(format!("the Idempotency-Key {detail}"))
}

fn response(placement: Placement) -> Response {
    let Placement { order_id, outcome, .. } = placement;
    let location = format!("/orders/{order_id}");
    let (status, body) = match outcome {
        PlacementOutcome::Accepted { total } => {
            (StatusCode::CREATED, json!({ "order_id": order_id, "status": "placed", "total": total }))
        }
        PlacementOutcome::Pending => (StatusCode::ACCEPTED, json!({ "order_id": order_id, "status": "pending" })),
        PlacementOutcome::Rejected { reason, detail } => {
            let code = serde_json::to_value(reason).unwrap_or_default();
            let title = format!("the order was rejected: {}", code.as_str().unwrap_or("UNKNOWN"));
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "order-rejected", title);
            return problem.detail(detail).instance(location).into_response();
        }
    };
    (status, [(header::LOCATION, location)], axum::Json(body)).into_response()
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Invalid(faults) => Problem::invalid_body(faults),
            RequestError::InvalidKey(detail) => invalid_key(&detail),
            RequestError::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "the Idempotency-Key was used for another request",
            )
            .detail(error.to_string()),
            RequestError::Refused(reason) => {
                Problem::new(StatusCode::CONFLICT, "refused", "the order was refused").detail(reason)
            }
            RequestError::UnknownOrder => Problem::not_found("order of that id"),
            RequestError::NotReady(reason) => Problem::unavailable(reason),
            RequestError::NotSubmitted(error) => error.into(),
        }
    }
}

#[derive(Serialize)]
struct OrderResponse {
    order_id: String,
    #[serde(flatten)]
    status: OrderStatus,
}

async fn show(
    State(edge): State<OrderEdge>,
    Path(order_id): Path<String>,
) -> Result<axum::Json<OrderResponse>, Problem> {
    match edge.status(&order_id).await? {
        Some(status) => Ok(axum::Json(OrderResponse { order_id, status })),
        None => Err(Problem::not_found("order of that id")),
    }
}
