//! Customers over HTTP: `POST /customers`, `GET /customers/{id}`, `POST /customers/{id}/verification`, `DELETE /customers/{id}`.
//!
//! Answers carry no personal data: whoever knows an id learns only how far that customer is.

use axum::{
    Router,
    extract::{Path, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use runtime::{
    edge::{BackgroundEdge, Submission, Submitted, entity_of_key},
    http::{Json, Problem},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    Customers,
    events::Event,
    evolve::State,
    inbox::{Command, ForgetCustomer, VerifyCustomer},
    request::{key_fault, registration},
};

/// What of an answering event the edge needs again.
#[derive(Debug, Clone)]
pub(crate) enum Summary {
    /// It was done.
    Done,
    /// It was refused.
    Refused(String),
}

/// Draws from an event what the edge needs again.
pub(crate) fn summarise(event: &Event) -> Option<Summary> {
    Some(match event {
        Event::CommandRefused(refused) => Summary::Refused(refused.reason.clone()),
        Event::CustomerRegistered(_) | Event::CustomerVerified(_) | Event::CustomerForgotten(_) => Summary::Done,
    })
}

#[derive(Clone)]
struct Desk {
    system: String,
    edge: BackgroundEdge<Customers, Summary>,
}

/// The routes.
pub(crate) fn routes(system: &str, edge: BackgroundEdge<Customers, Summary>) -> Router {
    Router::new()
        .route("/customers", post(register))
        .route("/customers/{customer_id}", get(show).delete(forget))
        .route("/customers/{customer_id}/verification", post(verify))
        .with_state(Desk { system: system.to_owned(), edge })
}

async fn register(Shared(desk): Shared<Desk>, headers: HeaderMap, Json(body): Json) -> Result<Response, Problem> {
    let id = match headers.get("idempotency-key") {
        None => Uuid::now_v7(),
        Some(key) => {
            let key = key.to_str().map_err(|_| bad_key("is not plain text"))?;
            if let Some(fault) = key_fault(key) {
                return Err(bad_key(&fault));
            }
            entity_of_key(&desk.system, "customers", key)
        }
    };
    let command = registration(&body, id).map_err(Problem::invalid_body)?;
    let id = id.to_string();
    // Made of the content, so the same registration again is the same command.
    let submission = Submission::new(id.as_str(), command);
    match desk.submit(submission).await? {
        Some(Summary::Done) => Ok(told(StatusCode::CREATED, &id, "registered")),
        Some(Summary::Refused(_)) if desk.edge.state(&id)?.is_some() => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "the Idempotency-Key was used for another request",
        )),
        Some(Summary::Refused(reason)) => Err(refused(reason)),
        None => Ok(told(StatusCode::ACCEPTED, &id, "pending")),
    }
}

async fn verify(Shared(desk): Shared<Desk>, Path(id): Path<String>) -> Result<Response, Problem> {
    match desk.edge.state(&id)? {
        None | Some(State::Unknown) => Err(nobody()),
        Some(State::Verified(_)) => Ok(told(StatusCode::OK, &id, "verified")),
        Some(State::Forgotten) => Err(refused("the customer was forgotten")),
        Some(State::Registered(_)) => {
            let command = VerifyCustomer { customer_id: id.clone() };
            desk.ask(&id, command, "verified").await
        }
    }
}

async fn forget(Shared(desk): Shared<Desk>, Path(id): Path<String>) -> Result<Response, Problem> {
    match desk.edge.state(&id)? {
        None | Some(State::Unknown) => Err(nobody()),
        Some(State::Forgotten) => Ok(told(StatusCode::OK, &id, "forgotten")),
        Some(State::Registered(_) | State::Verified(_)) => {
            let command = ForgetCustomer { customer_id: id.clone() };
            desk.ask(&id, command, "forgotten").await
        }
    }
}

async fn show(Shared(desk): Shared<Desk>, Path(id): Path<String>) -> Result<Response, Problem> {
    let status = match desk.edge.state(&id)? {
        None | Some(State::Unknown) => return Err(nobody()),
        Some(State::Registered(_)) => "registered",
        Some(State::Verified(_)) => "verified",
        Some(State::Forgotten) => "forgotten",
    };
    Ok(told(StatusCode::OK, &id, status))
}

impl Desk {
    /// The answer, if it came in time.
    async fn submit(&self, submission: Submission<Command>) -> Result<Option<Summary>, Problem> {
        match self.edge.submit(submission).await? {
            Submitted::Answered(answered) => Ok(Some(answered.summary)),
            Submitted::Pending { .. } => Ok(None),
        }
    }

    async fn ask(&self, id: &str, command: impl Into<Command>, done: &str) -> Result<Response, Problem> {
        match self.submit(Submission::new(id, command).with_id(Uuid::now_v7())).await? {
            Some(Summary::Done) => Ok(told(StatusCode::OK, id, done)),
            Some(Summary::Refused(reason)) => Err(refused(reason)),
            None => Ok(told(StatusCode::ACCEPTED, id, "pending")),
        }
    }
}

fn told(status: StatusCode, id: &str, standing: &str) -> Response {
    let location = format!("/customers/{id}");
    let body = json!({ "customer_id": id, "status": standing });
    (status, [(header::LOCATION, location)], axum::Json(body)).into_response()
}

fn bad_key(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-idempotency-key", "the Idempotency-Key is not valid")
        .detail(format!("the Idempotency-Key {detail}"))
}

fn nobody() -> Problem {
    Problem::not_found("customer of that id")
}

fn refused(reason: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, "refused", "this may not be done now").detail(reason)
}
