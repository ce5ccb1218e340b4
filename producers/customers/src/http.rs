//! Customers over HTTP: `POST /customers`, `GET /customers/{id}`, `POST /customers/{id}/verification`, `DELETE /customers/{id}`.
//!
//! Replies have no personal data: a client that knows an id learns only the status of that customer.

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

/// The part of an answering event that the API needs again.
#[derive(Debug, Clone)]
pub(crate) enum CommandOutcome {
    /// The command was executed.
    Done,
    /// The command was refused.
    Refused(String),
}

/// Returns the part of an event that the API needs again.
pub(crate) fn outcome_of(event: &Event) -> Option<CommandOutcome> {
    Some(match event {
        Event::CommandRefused(refused) => CommandOutcome::Refused(refused.reason.clone()),
        Event::CustomerRegistered(_) | Event::CustomerVerified(_) | Event::CustomerForgotten(_) => CommandOutcome::Done,
    })
}

#[derive(Clone)]
struct ApiState {
    system: String,
    edge: BackgroundEdge<Customers, CommandOutcome>,
}

/// The routes.
pub(crate) fn routes(system: &str, edge: BackgroundEdge<Customers, CommandOutcome>) -> Router {
    Router::new()
        .route("/customers", post(register))
        .route("/customers/{customer_id}", get(show).delete(forget))
        .route("/customers/{customer_id}/verification", post(verify))
        .with_state(ApiState { system: system.to_owned(), edge })
}

async fn register(Shared(api): Shared<ApiState>, headers: HeaderMap, Json(body): Json) -> Result<Response, Problem> {
    let id = match headers.get("idempotency-key") {
        None => Uuid::now_v7(),
        Some(key) => {
            let key = key.to_str().map_err(|_| invalid_key("is not plain text"))?;
            if let Some(fault) = key_fault(key) {
                return Err(invalid_key(&fault));
            }
            entity_of_key(&api.system, "customers", key)
        }
    };
    let command = registration(&body, id).map_err(Problem::invalid_body)?;
    let id = id.to_string();
    // The id is derived from the content, so a repeated registration is the same command.
    let submission = Submission::new(id.as_str(), command);
    match api.submit(submission).await? {
        Some(CommandOutcome::Done) => Ok(status_response(StatusCode::CREATED, &id, "registered")),
        Some(CommandOutcome::Refused(_)) if api.edge.state(&id)?.is_some() => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "the Idempotency-Key was used for another request",
        )),
        Some(CommandOutcome::Refused(reason)) => Err(refused(reason)),
        None => Ok(status_response(StatusCode::ACCEPTED, &id, "pending")),
    }
}

async fn verify(Shared(api): Shared<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    match api.edge.state(&id)? {
        None | Some(State::Unknown) => Err(unknown_customer()),
        Some(State::Verified(_)) => Ok(status_response(StatusCode::OK, &id, "verified")),
        Some(State::Forgotten) => Err(refused("the customer was forgotten")),
        Some(State::Registered(_)) => {
            let command = VerifyCustomer { customer_id: id.clone() };
            api.execute(&id, command, "verified").await
        }
    }
}

async fn forget(Shared(api): Shared<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    match api.edge.state(&id)? {
        None | Some(State::Unknown) => Err(unknown_customer()),
        Some(State::Forgotten) => Ok(status_response(StatusCode::OK, &id, "forgotten")),
        Some(State::Registered(_) | State::Verified(_)) => {
            let command = ForgetCustomer { customer_id: id.clone() };
            api.execute(&id, command, "forgotten").await
        }
    }
}

async fn show(Shared(api): Shared<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let status = match api.edge.state(&id)? {
        None | Some(State::Unknown) => return Err(unknown_customer()),
        Some(State::Registered(_)) => "registered",
        Some(State::Verified(_)) => "verified",
        Some(State::Forgotten) => "forgotten",
    };
    Ok(status_response(StatusCode::OK, &id, status))
}

impl ApiState {
    /// The outcome, if it arrived in time.
    async fn submit(&self, submission: Submission<Command>) -> Result<Option<CommandOutcome>, Problem> {
        match self.edge.submit(submission).await? {
            Submitted::Answered(answered) => Ok(Some(answered.summary)),
            Submitted::Pending { .. } => Ok(None),
        }
    }

    async fn execute(&self, id: &str, command: impl Into<Command>, done: &str) -> Result<Response, Problem> {
        match self.submit(Submission::new(id, command).with_id(Uuid::now_v7())).await? {
            Some(CommandOutcome::Done) => Ok(status_response(StatusCode::OK, id, done)),
            Some(CommandOutcome::Refused(reason)) => Err(refused(reason)),
            None => Ok(status_response(StatusCode::ACCEPTED, id, "pending")),
        }
    }
}

fn status_response(status: StatusCode, id: &str, status_text: &str) -> Response {
    let location = format!("/customers/{id}");
    let body = json!({ "customer_id": id, "status": status_text });
    (status, [(header::LOCATION, location)], axum::Json(body)).into_response()
}

fn invalid_key(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-idempotency-key", "the Idempotency-Key is not valid")
        .detail(format!("the Idempotency-Key {detail}"))
}

fn unknown_customer() -> Problem {
    Problem::not_found("customer of that id")
}

fn refused(reason: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, "refused", "the command is not allowed now").detail(reason)
}
