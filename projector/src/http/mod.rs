//! The HTTP API: JSON under `/api/v1`, and probes. It is read-only.
//!
//! Every reply has the read progress, every list is bounded and every wait has a deadline. `api` has the types of replies,
//! `problem` those of errors, `query` the queries.

mod params;
pub mod problem;
mod snapshot;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderValue, header},
    middleware,
    response::Response,
    routing::get,
};
use runtime::{health::HealthChecks, http::operations};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use self::{
    params::{FILTERS, ListCursor, QueryPairs, QueryParams},
    problem::ApiProblem,
};
use crate::{
    api::{CountsReply, SagaChanges, SagaList, SagaReply, TimelinePage, UnplacedItem},
    board::Board,
    declaration::{Declaration, NodeKind, SagaNode},
    time::rfc3339,
    view::SagaView,
};

/// The most requests that wait for changes at a time.
const WAITERS_MAX: usize = 64;
/// The longest wait for a change, in seconds.
const WAIT_S_MAX: u64 = 60;
/// The most snapshots that are written at a time.
const SNAPSHOTS_AT_A_TIME: usize = 2;
/// Records of a timeline in one reply.
const TIMELINE_ROWS: usize = 200;

/// The state that the handlers share.
#[derive(Clone)]
struct ApiState {
    board: Board,
    waiters: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    /// True once the server must stop.
    ending: watch::Receiver<bool>,
}

type ApiReply<T> = Result<Json<T>, ApiProblem>;

/// Serves until `ending` is true or its sender is dropped.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    board: Board,
    checks: HealthChecks,
    ending: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let app = router(board, checks, ending.clone());
    axum::serve(listener, app).with_graceful_shutdown(ended(ending)).await
}

/// The routes, without a listener.
pub fn router(board: Board, checks: HealthChecks, ending: watch::Receiver<bool>) -> Router {
    let shared = ApiState {
        board,
        waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
        snapshots: Arc::new(Semaphore::new(SNAPSHOTS_AT_A_TIME)),
        ending,
    };
    let api = Router::new()
        .route("/sagas", get(list))
        .route("/sagas/changes", get(changes))
        .route("/sagas/{id}", get(show))
        .route("/sagas/{id}/timeline", get(timeline))
        .route("/counts", get(counts))
        .route("/declarations", get(declarations))
        .route("/unplaced", get(unplaced))
        .route("/health", get(health))
        .route("/snapshot", get(snapshot::stream))
        .route("/snapshots/{snapshot}/sagas/{saga}/{id}", get(snapshot::one));
    Router::new()
        .nest("/api/v1", api)
        .with_state(shared)
        .merge(operations(checks))
        .fallback(|| async {
            ApiProblem::not_found("no resource has this path; see /api/v1/sagas, /counts, /declarations, /health")
        })
        .layer(middleware::map_response(harden))
}

/// Replies are valid for one moment and are never rendered as a page.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn ended(mut ending: watch::Receiver<bool>) {
    // A dropped sender ends the wait too.
    drop(ending.wait_for(|ending| *ending).await);
}

async fn list(State(shared): State<ApiState>, Query(pairs): Query<QueryPairs>) -> ApiReply<SagaList> {
    let params = QueryParams::sort(pairs, FILTERS, &["limit", "cursor"])?;
    let limit = params.limit()?;
    let view = shared.board.view();
    let before = match params.get("cursor") {
        Some(text) => Some(ListCursor::read(text, view.epoch(), &params.filter)?.revision),
        None => None,
    };
    let page = view.list(&params.filter, before, limit)?;
    let next = page.next.map(|revision| ListCursor::new(view.epoch(), revision, &params.filter).text());
    Ok(Json(SagaList { items: page.items, next, as_of: shared.board.as_of(&view) }))
}

async fn show(
    State(shared): State<ApiState>,
    Path(id): Path<String>,
    Query(pairs): Query<QueryPairs>,
) -> ApiReply<SagaReply> {
    let params = QueryParams::sort(pairs, &["saga"], &[])?;
    let view = shared.board.view();
    let instance = find(&shared.board, &view, &params, &id)?;
    Ok(Json(SagaReply { saga: view.present_detail(instance, TIMELINE_ROWS), as_of: shared.board.as_of(&view) }))
}

async fn timeline(
    State(shared): State<ApiState>,
    Path(id): Path<String>,
    Query(pairs): Query<QueryPairs>,
) -> ApiReply<TimelinePage> {
    let params = QueryParams::sort(pairs, &["saga"], &["limit", "cursor"])?;
    let from = usize::try_from(params.number("cursor", 0, u64::from(u32::MAX))?).unwrap_or(usize::MAX);
    let limit = params.limit()?;
    let view = shared.board.view();
    let instance = find(&shared.board, &view, &params, &id)?;
    let (items, more) = view.present_timeline(instance, from, limit);
    let next = more.then(|| (from + limit).to_string());
    Ok(Json(TimelinePage { items, next, as_of: shared.board.as_of(&view) }))
}

/// The saga of an id: of the requested declaration, else of the first declaration that has it.
fn find(board: &Board, view: &SagaView, params: &QueryParams, id: &str) -> Result<u32, ApiProblem> {
    let known = view.declarations();
    if let Some(name) = params.filter.saga.as_deref().filter(|name| !known.iter().any(|known| known.name == *name)) {
        let hint = crate::nearest::hint(name, known.iter().map(|known| known.name.as_str()));
        return Err(ApiProblem::bad(format!("{name:?} is not a declared saga{hint}")));
    }
    let wanted = |instance: &u32| {
        params.filter.saga.as_deref().is_none_or(|name| view.subject(*instance).declaration.name == name)
    };
    view.find(id).iter().copied().filter(wanted).min_by_key(|instance| view.subject(*instance).number).ok_or_else(
        || {
            let as_of = board.as_of(view);
            let yet = if as_of.caught_up { "" } else { " yet: the view has not caught up" };
            ApiProblem::not_found(format!("no saga has the id {id:?}{yet}"))
        },
    )
}

async fn counts(State(shared): State<ApiState>, Query(pairs): Query<QueryPairs>) -> ApiReply<CountsReply> {
    QueryParams::sort(pairs, &[], &[])?;
    let view = shared.board.view();
    Ok(Json(CountsReply {
        sagas: view.counts(),
        records: view.records(),
        unplaced: view.unplaced_counts().into_iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        as_of: shared.board.as_of(&view),
    }))
}

/// The changes since a revision. With `wait`, the reply is sent as soon as there is one.
async fn changes(State(shared): State<ApiState>, Query(pairs): Query<QueryPairs>) -> ApiReply<SagaChanges> {
    let params = QueryParams::sort(pairs, FILTERS, &["limit", "since", "wait"])?;
    let limit = params.limit()?;
    let wait = Duration::from_secs(params.number("wait", 0, WAIT_S_MAX)?);
    let mut revisions = shared.board.revisions();
    let mut since = match params.get("since") {
        None => None,
        Some(text) => Some(read_since(text)?),
    };
    let _permit = shared
        .waiters
        .try_acquire()
        .map_err(|_| ApiProblem::busy(format!("{WAITERS_MAX} requests are waiting for changes already")))?;
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        revisions.mark_unchanged();
        let reply = changes_now(&shared.board, &params, since, limit)?;
        since = since.or_else(|| read_since(&reply.next).ok());
        if !reply.changes.is_empty() || reply.reset {
            return Ok(Json(reply));
        }
        let mut ending = shared.ending.clone();
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return Ok(Json(reply)) },
            () = tokio::time::sleep_until(deadline) => return Ok(Json(reply)),
            _ = ending.wait_for(|ending| *ending) => return Ok(Json(reply)),
        }
    }
}

fn changes_now(
    board: &Board,
    params: &QueryParams,
    since: Option<(u64, u64)>,
    limit: usize,
) -> Result<SagaChanges, ApiProblem> {
    let view = board.view();
    let (epoch, now) = (view.epoch(), view.revision());
    let since = since.unwrap_or((epoch, now));
    let reset = since.0 != epoch || since.1 > now;
    let (changes, next) = if reset { (Vec::new(), now) } else { view.changes(&params.filter, since.1, limit)? };
    Ok(SagaChanges { changes, next: format!("{epoch}.{next}"), reset, as_of: board.as_of(&view) })
}

/// `epoch.revision`.
fn read_since(text: &str) -> Result<(u64, u64), ApiProblem> {
    let numbers =
        text.split_once('.').and_then(|(epoch, revision)| Some((epoch.parse().ok()?, revision.parse().ok()?)));
    numbers.ok_or_else(|| ApiProblem::bad(format!("since {text:?} is not an epoch and a revision, like 1.42")))
}

#[derive(Serialize)]
struct DeclarationReply {
    name: String,
    title: String,
    start: Vec<String>,
    topics: Vec<String>,
    owners: std::collections::BTreeMap<String, String>,
    steps: Vec<DeclaredNodeReply>,
    compensations: Vec<DeclaredNodeReply>,
    outcomes: Vec<DeclaredOutcomeReply>,
}

#[derive(Serialize)]
struct DeclaredNodeReply {
    id: String,
    title: String,
    owner: String,
    after: Vec<String>,
    reached_by: Vec<String>,
    completed_by: Vec<String>,
    failed_by: Vec<String>,
    undone_by: Vec<String>,
    deadline_ms: i64,
}

#[derive(Serialize)]
struct DeclaredOutcomeReply {
    name: String,
    kind: &'static str,
    when: Vec<String>,
    settled_by: Vec<String>,
}

#[derive(Serialize)]
struct DeclarationsReply {
    items: Vec<DeclarationReply>,
    as_of: crate::api::AsOf,
}

async fn declarations(State(shared): State<ApiState>) -> Json<DeclarationsReply> {
    let view = shared.board.view();
    let items = view.declarations().iter().map(declaration_reply).collect();
    Json(DeclarationsReply { items, as_of: shared.board.as_of(&view) })
}

fn declaration_reply(declaration: &Declaration) -> DeclarationReply {
    let nodes = |compensating: bool| {
        let chosen = declaration.nodes.iter().filter(|node| (node.kind == NodeKind::Compensation) == compensating);
        chosen.map(|node| node_reply(declaration, node)).collect()
    };
    DeclarationReply {
        name: declaration.name.clone(),
        title: declaration.title.clone(),
        start: event_names(declaration, declaration.start),
        topics: declaration.topics.clone(),
        owners: declaration.owners.iter().map(|owner| (owner.id.clone(), owner.title.clone())).collect(),
        steps: nodes(false),
        compensations: nodes(true),
        outcomes: declaration
            .outcomes
            .iter()
            .map(|outcome| DeclaredOutcomeReply {
                name: outcome.name.clone(),
                kind: outcome.kind.name(),
                when: event_names(declaration, outcome.when),
                settled_by: node_ids(declaration, outcome.settled_by),
            })
            .collect(),
    }
}

fn node_reply(declaration: &Declaration, node: &SagaNode) -> DeclaredNodeReply {
    DeclaredNodeReply {
        id: node.id.clone(),
        title: node.title.clone(),
        owner: declaration.owners[node.owner].id.clone(),
        after: node_ids(declaration, node.after),
        reached_by: event_names(declaration, node.reached_by),
        completed_by: event_names(declaration, node.completed_by),
        failed_by: event_names(declaration, node.failed_by),
        undone_by: event_names(declaration, node.undone_by),
        deadline_ms: node.deadline_ms,
    }
}

fn event_names(declaration: &Declaration, set: crate::declaration::EventSet) -> Vec<String> {
    let chosen = declaration.events.iter().enumerate().filter(|(index, _)| set & (1 << index) != 0);
    chosen.map(|(_, event)| event.to_string()).collect()
}

fn node_ids(declaration: &Declaration, set: crate::declaration::NodeSet) -> Vec<String> {
    let chosen = declaration.nodes.iter().enumerate().filter(|(index, _)| set & (1 << index) != 0);
    chosen.map(|(_, node)| node.id.clone()).collect()
}

#[derive(Serialize)]
struct UnplacedReply {
    items: Vec<UnplacedItem>,
    as_of: crate::api::AsOf,
}

/// The last records that are in no saga, newest first.
async fn unplaced(State(shared): State<ApiState>) -> Json<UnplacedReply> {
    let view = shared.board.view();
    let items = view.unplaced().rev().map(|record| UnplacedItem {
        reason: record.reason.name().to_owned(),
        topic: record.topic.clone(),
        partition: record.partition,
        offset: record.offset,
        at: rfc3339(record.at_ms),
        detail: record.detail.clone(),
    });
    Json(UnplacedReply { items: items.collect(), as_of: shared.board.as_of(&view) })
}

#[derive(Serialize)]
struct HealthReply {
    status: &'static str,
    degraded_reason: Option<String>,
    topics: Vec<String>,
    positions: crate::api::NextOffsets,
    sagas: usize,
    records: u64,
    as_of: crate::api::AsOf,
}

async fn health(State(shared): State<ApiState>) -> Json<HealthReply> {
    let reading = shared.board.read_progress();
    let view = shared.board.view();
    let status = match (&reading.degraded_reason, reading.caught_up) {
        (Some(_), _) => "degraded",
        (None, true) if !reading.held.is_empty() => "degraded",
        (None, true) => "serving",
        (None, false) => "catching-up",
    };
    Json(HealthReply {
        status,
        degraded_reason: reading.degraded_reason,
        topics: reading.topics,
        positions: view.positions(),
        sagas: view.sagas(),
        records: view.records(),
        as_of: shared.board.as_of(&view),
    })
}
