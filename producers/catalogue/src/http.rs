//! The catalogue over HTTP: `POST /albums`, `GET /albums/{sku}`, `PUT /albums/{sku}/price`.

use axum::{
    Router,
    extract::{Path, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use runtime::{
    edge::{BackgroundEdge, EdgeError, Submission, Submitted},
    http::{Json, Problem},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    Catalogue,
    events::{Event, Money},
    evolve::Album,
    inbox::Command,
    request::{listing, new_price},
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
        Event::AlbumListed(_) | Event::AlbumPriceChanged(_) => CommandOutcome::Done,
    })
}

type CatalogueEdge = BackgroundEdge<Catalogue, CommandOutcome>;

/// The routes.
pub(crate) fn routes(edge: CatalogueEdge) -> Router {
    Router::new()
        .route("/albums", post(list))
        .route("/albums/{sku}", get(show))
        .route("/albums/{sku}/price", put(change_price))
        .with_state(edge)
}

async fn list(Shared(edge): Shared<CatalogueEdge>, Json(body): Json) -> Result<Response, Problem> {
    let command = listing(&body).map_err(Problem::invalid_body)?;
    let sku = command.sku.clone();
    if let Some(album) = listed(&edge, &sku)? {
        let same = album.title == command.title && album.artist == command.artist && album.first_price == command.price;
        return if same {
            Ok(status_response(StatusCode::OK, &sku, "listed"))
        } else {
            Err(refused("the sku is listed already, with other data"))
        };
    }
    submit(&edge, Submission::new(sku.as_str(), command), StatusCode::CREATED, &sku).await
}

async fn change_price(
    Shared(edge): Shared<CatalogueEdge>,
    Path(sku): Path<String>,
    Json(body): Json,
) -> Result<Response, Problem> {
    let command = new_price(&body, &sku).map_err(Problem::invalid_body)?;
    let Some(album) = listed(&edge, &sku)? else { return Err(unlisted()) };
    if album.price == command.new_price {
        return Ok(status_response(StatusCode::OK, &sku, "listed"));
    }
    // The command gets a new id: a price that returns is another change.
    let submission = Submission::new(sku.as_str(), command).with_id(Uuid::now_v7());
    submit(&edge, submission, StatusCode::OK, &sku).await
}

async fn show(Shared(edge): Shared<CatalogueEdge>, Path(sku): Path<String>) -> Result<Response, Problem> {
    let Some(Album { title, artist, price, .. }) = listed(&edge, &sku)? else { return Err(unlisted()) };
    let price =
        price.map(|Money { amount_minor, currency }| json!({ "amount_minor": amount_minor, "currency": currency }));
    Ok(axum::Json(json!({ "sku": sku, "title": title, "artist": artist, "price": price })).into_response())
}

fn listed(edge: &CatalogueEdge, sku: &str) -> Result<Option<Album>, EdgeError> {
    Ok(edge.state(sku)?.and_then(|state| state.album))
}

async fn submit(
    edge: &CatalogueEdge,
    submission: Submission<Command>,
    done: StatusCode,
    sku: &str,
) -> Result<Response, Problem> {
    match edge.submit(submission).await? {
        Submitted::Answered(answered) => match answered.summary {
            CommandOutcome::Done => Ok(status_response(done, sku, "listed")),
            CommandOutcome::Refused(reason) => Err(refused(reason)),
        },
        Submitted::Pending { .. } => Ok(status_response(StatusCode::ACCEPTED, sku, "pending")),
    }
}

fn status_response(status: StatusCode, sku: &str, status_text: &str) -> Response {
    let body = json!({ "sku": sku, "status": status_text });
    (status, [(header::LOCATION, format!("/albums/{sku}"))], axum::Json(body)).into_response()
}

fn unlisted() -> Problem {
    Problem::not_found("album of that sku")
}

fn refused(reason: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, "refused", "the command is not allowed now").detail(reason)
}
