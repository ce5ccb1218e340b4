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
        Event::AlbumListed(_) | Event::AlbumPriceChanged(_) => Summary::Done,
    })
}

type Desk = BackgroundEdge<Catalogue, Summary>;

/// The routes.
pub(crate) fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/albums", post(list))
        .route("/albums/{sku}", get(show))
        .route("/albums/{sku}/price", put(change_price))
        .with_state(desk)
}

async fn list(Shared(desk): Shared<Desk>, Json(body): Json) -> Result<Response, Problem> {
    let command = listing(&body).map_err(Problem::invalid_body)?;
    let sku = command.sku.clone();
    if let Some(album) = listed(&desk, &sku)? {
        let same = album.title == command.title && album.artist == command.artist && album.first_price == command.price;
        return if same {
            Ok(told(StatusCode::OK, &sku, "listed"))
        } else {
            Err(refused("the sku is listed already, with other data"))
        };
    }
    submit(&desk, Submission::new(sku.as_str(), command), StatusCode::CREATED, &sku).await
}

async fn change_price(
    Shared(desk): Shared<Desk>,
    Path(sku): Path<String>,
    Json(body): Json,
) -> Result<Response, Problem> {
    let command = new_price(&body, &sku).map_err(Problem::invalid_body)?;
    let Some(album) = listed(&desk, &sku)? else { return Err(unlisted()) };
    if album.price == command.new_price {
        return Ok(told(StatusCode::OK, &sku, "listed"));
    }
    // An id of its own: a price that comes back is another change.
    let submission = Submission::new(sku.as_str(), command).with_id(Uuid::now_v7());
    submit(&desk, submission, StatusCode::OK, &sku).await
}

async fn show(Shared(desk): Shared<Desk>, Path(sku): Path<String>) -> Result<Response, Problem> {
    let Some(Album { title, artist, price, .. }) = listed(&desk, &sku)? else { return Err(unlisted()) };
    let price =
        price.map(|Money { amount_minor, currency }| json!({ "amount_minor": amount_minor, "currency": currency }));
    Ok(axum::Json(json!({ "sku": sku, "title": title, "artist": artist, "price": price })).into_response())
}

fn listed(desk: &Desk, sku: &str) -> Result<Option<Album>, EdgeError> {
    Ok(desk.state(sku)?.and_then(|state| state.album))
}

async fn submit(
    desk: &Desk,
    submission: Submission<Command>,
    done: StatusCode,
    sku: &str,
) -> Result<Response, Problem> {
    match desk.submit(submission).await? {
        Submitted::Answered(answered) => match answered.summary {
            Summary::Done => Ok(told(done, sku, "listed")),
            Summary::Refused(reason) => Err(refused(reason)),
        },
        Submitted::Pending { .. } => Ok(told(StatusCode::ACCEPTED, sku, "pending")),
    }
}

fn told(status: StatusCode, sku: &str, standing: &str) -> Response {
    let body = json!({ "sku": sku, "status": standing });
    (status, [(header::LOCATION, format!("/albums/{sku}"))], axum::Json(body)).into_response()
}

fn unlisted() -> Problem {
    Problem::not_found("album of that sku")
}

fn refused(reason: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, "refused", "this may not be done now").detail(reason)
}
