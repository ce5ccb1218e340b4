//! The order-processor over HTTP: `POST /orders`, `GET /orders/{id}`, `POST /orders/{id}/cancel`.
//!
//! | answer | when |
//! |---|---|
//! | 201, Location | the order was placed, now or by the same request before |
//! | 202, Location | it was taken; its answer was not seen in time |
//! | 400 | the body is no JSON, or the Idempotency-Key is none |
//! | 422 | a field is faulty, the order was rejected, or the key was used for another request |
//! | 503, Retry-After | it cannot be taken now; the same request may be sent again |
//!
//! A cancellation is answered by the warehouse later; until then, and after it, `GET /orders/{id}` tells how that stands:
//!
//! | answer | when |
//! |---|---|
//! | 200 | the order is cancelled already |
//! | 202, Location | the warehouse was asked, or the request was taken and its answer was not seen in time |
//! | 404 | there is no such order |
//! | 409 | the order has gone too far, or was rejected |
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
    edge::{Answer, Cancellation, Edge, Placed, RequestError},
    request::{OrderRequest, cancellation_reason},
    standing::Standing,
};

/// The routes.
pub(crate) fn routes(edge: Edge) -> Router {
    Router::new()
        .route("/orders", post(place))
        .route("/orders/{order_id}", get(show))
        .route("/orders/{order_id}/cancel", post(cancel))
        .with_state(edge)
}

async fn place(State(edge): State<Edge>, headers: HeaderMap, Json(body): Json) -> Result<Response, Problem> {
    let key = idempotency_key(&headers).map_err(bad_key)?;
    let request = OrderRequest::read(&body).map_err(Problem::invalid_body)?;
    Ok(answer(edge.place_request(key, &request).await?))
}

async fn cancel(
    State(edge): State<Edge>,
    Path(order_id): Path<String>,
    headers: HeaderMap,
    body: Option<Json>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers).map_err(bad_key)?;
    let reason = cancellation_reason(body.as_ref().map(|Json(body)| body)).map_err(Problem::invalid_body)?;
    let location = format!("/orders/{order_id}");
    let (status, standing) = match edge.cancel(&order_id, key, &reason).await? {
        Cancellation::Requested => (StatusCode::ACCEPTED, "cancellation-requested"),
        Cancellation::Pending => (StatusCode::ACCEPTED, "pending"),
        Cancellation::Cancelled => (StatusCode::OK, "cancelled"),
        Cancellation::Refused(reason) => {
            let title = "the order can no longer be cancelled";
            let problem = Problem::new(StatusCode::CONFLICT, "cancellation-refused", title);
            return Err(problem.detail(reason).instance(location));
        }
    };
    let body = json!({ "order_id": order_id, "status": standing });
    Ok((status, [(header::LOCATION, location)], axum::Json(body)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| "is not plain text")
}

fn bad_key(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-idempotency-key", "the Idempotency-Key is not valid")
        .detail(format!("the Idempotency-Key {detail}"))
}

fn answer(placed: Placed) -> Response {
    let Placed { order_id, answer, .. } = placed;
    let location = format!("/orders/{order_id}");
    let (status, body) = match answer {
        Answer::Accepted { total } => {
            (StatusCode::CREATED, json!({ "order_id": order_id, "status": "placed", "total": total }))
        }
        Answer::Pending => (StatusCode::ACCEPTED, json!({ "order_id": order_id, "status": "pending" })),
        Answer::Rejected { reason, detail } => {
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
            RequestError::Faulty(faults) => Problem::invalid_body(faults),
            RequestError::Key(detail) => bad_key(&detail),
            RequestError::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "the Idempotency-Key was used for another request",
            )
            .detail(error.to_string()),
            RequestError::Refused(reason) => {
                Problem::new(StatusCode::CONFLICT, "refused", "the order was refused").detail(reason)
            }
            RequestError::Unknown => Problem::not_found("order of that id"),
            RequestError::NotOpen(reason) => Problem::unavailable(reason),
            RequestError::NotTaken(error) => error.into(),
        }
    }
}

#[derive(Serialize)]
struct Shown {
    order_id: String,
    #[serde(flatten)]
    standing: Standing,
}

async fn show(State(edge): State<Edge>, Path(order_id): Path<String>) -> Result<axum::Json<Shown>, Problem> {
    match edge.standing(&order_id).await? {
        Some(standing) => Ok(axum::Json(Shown { order_id, standing })),
        None => Err(Problem::not_found("order of that id")),
    }
}
