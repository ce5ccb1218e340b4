//! The HTTP interface: JSON under `/api/v1`, probes beside it. It only reads.
//!
//! Every reply says how far the view has read, every list is bounded, every wait has a deadline. Shapes of replies are `api`, of
//! errors `problem`; what may be asked is `query`.

mod params;
pub mod problem;
mod snapshot;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use self::{
    params::{Cursor, FILTERS, Pairs, Params},
    problem::Problem,
};
use crate::{
    api::{Changes, Counts, SagaList, SagaReply, TimelinePage, UnplacedRow},
    board::Board,
    declaration::{Declaration, Node, NodeKind},
    present::time,
    view::View,
};

/// How many requests may wait for changes at a time.
const WAITERS_MAX: usize = 64;
/// The longest wait for a change, in seconds.
const WAIT_S_MAX: u64 = 60;
/// How many snapshots may be written at a time.
const SNAPSHOTS_AT_A_TIME: usize = 2;
/// Rows of a timeline in one reply.
const TIMELINE_ROWS: usize = 200;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    board: Board,
    waiters: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    /// True once the server should end.
    ending: watch::Receiver<bool>,
}

type Reply<T> = Result<Json<T>, Problem>;

/// Serves until `ending` turns true (or its sender is gone).
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, board: Board, ending: watch::Receiver<bool>) -> std::io::Result<()> {
    let app = router(board, ending.clone());
    axum::serve(listener, app).with_graceful_shutdown(ended(ending)).await
}

/// The routes, without a listener.
pub fn router(board: Board, ending: watch::Receiver<bool>) -> Router {
    let shared = Shared {
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
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .fallback(|| async {
            Problem::not_found("no resource has this path; see /api/v1/sagas, /counts, /declarations, /health")
        })
        .layer(middleware::map_response(harden))
        .with_state(shared)
}

/// Replies are data of one moment, and never a page.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn ended(mut ending: watch::Receiver<bool>) {
    // A sender that is gone can no longer say it, so that counts as said.
    drop(ending.wait_for(|ending| *ending).await);
}

async fn list(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Reply<SagaList> {
    let params = Params::sort(pairs, FILTERS, &["limit", "cursor"])?;
    let limit = params.limit()?;
    let view = shared.board.view();
    let before = match params.get("cursor") {
        Some(text) => Some(Cursor::read(text, view.epoch(), &params.filter)?.revision),
        None => None,
    };
    let page = view.list(&params.filter, before, limit)?;
    let next = page.next.map(|revision| Cursor::new(view.epoch(), revision, &params.filter).text());
    Ok(Json(SagaList { items: page.items, next, as_of: shared.board.as_of(&view) }))
}

async fn show(State(shared): State<Shared>, Path(id): Path<String>, Query(pairs): Query<Pairs>) -> Reply<SagaReply> {
    let params = Params::sort(pairs, &["saga"], &[])?;
    let view = shared.board.view();
    let instance = find(&shared.board, &view, &params, &id)?;
    Ok(Json(SagaReply { saga: view.present_detail(instance, TIMELINE_ROWS), as_of: shared.board.as_of(&view) }))
}

async fn timeline(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Reply<TimelinePage> {
    let params = Params::sort(pairs, &["saga"], &["limit", "cursor"])?;
    let from = usize::try_from(params.number("cursor", 0, u64::from(u32::MAX))?).unwrap_or(usize::MAX);
    let limit = params.limit()?;
    let view = shared.board.view();
    let instance = find(&shared.board, &view, &params, &id)?;
    let (items, more) = view.present_timeline(instance, from, limit);
    let next = more.then(|| (from + limit).to_string());
    Ok(Json(TimelinePage { items, next, as_of: shared.board.as_of(&view) }))
}

/// The saga of an id: of the declaration that is asked for, else of the first that knows it.
fn find(board: &Board, view: &View, params: &Params, id: &str) -> Result<u32, Problem> {
    let known = view.declarations();
    if let Some(name) = params.filter.saga.as_deref().filter(|name| !known.iter().any(|known| known.name == *name)) {
        let hint = crate::nearest::hint(name, known.iter().map(|known| known.name.as_str()));
        return Err(Problem::bad(format!("{name:?} is no saga here{hint}")));
    }
    let wanted = |instance: &u32| {
        params.filter.saga.as_deref().is_none_or(|name| view.subject(*instance).declaration.name == name)
    };
    view.find(id).iter().copied().filter(wanted).min_by_key(|instance| view.subject(*instance).number).ok_or_else(
        || {
            let as_of = board.as_of(view);
            let yet = if as_of.caught_up { "" } else { " yet: the view has not read everything" };
            Problem::not_found(format!("no saga has the id {id:?}{yet}"))
        },
    )
}

async fn counts(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Reply<Counts> {
    Params::sort(pairs, &[], &[])?;
    let view = shared.board.view();
    Ok(Json(Counts {
        sagas: view.counts(),
        records: view.records(),
        unplaced: view.unplaced_counts().into_iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        as_of: shared.board.as_of(&view),
    }))
}

/// What has changed since a revision; with `wait`, the reply comes as soon as something has.
async fn changes(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Reply<Changes> {
    let params = Params::sort(pairs, FILTERS, &["limit", "since", "wait"])?;
    let limit = params.limit()?;
    let wait = Duration::from_secs(params.number("wait", 0, WAIT_S_MAX)?);
    let mut revisions = shared.board.revisions();
    let mut since = match params.get("since") {
        None => None,
        Some(text) => Some(read_since(text)?),
    };
    let _place = shared
        .waiters
        .try_acquire()
        .map_err(|_| Problem::busy(format!("{WAITERS_MAX} requests wait for changes already")))?;
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

fn changes_now(board: &Board, params: &Params, since: Option<(u64, u64)>, limit: usize) -> Result<Changes, Problem> {
    let view = board.view();
    let (epoch, now) = (view.epoch(), view.revision());
    let since = since.unwrap_or((epoch, now));
    let reset = since.0 != epoch || since.1 > now;
    let (changes, next) = if reset { (Vec::new(), now) } else { view.changes(&params.filter, since.1, limit)? };
    Ok(Changes { changes, next: format!("{epoch}.{next}"), reset, as_of: board.as_of(&view) })
}

/// `epoch.revision`.
fn read_since(text: &str) -> Result<(u64, u64), Problem> {
    let numbers =
        text.split_once('.').and_then(|(epoch, revision)| Some((epoch.parse().ok()?, revision.parse().ok()?)));
    numbers.ok_or_else(|| Problem::bad(format!("since {text:?} is not an epoch and a revision, like 1.42")))
}

#[derive(Serialize)]
struct DeclarationReply {
    name: String,
    title: String,
    start: Vec<String>,
    topics: Vec<String>,
    owners: std::collections::BTreeMap<String, String>,
    steps: Vec<NodeReply>,
    compensations: Vec<NodeReply>,
    outcomes: Vec<OutcomeReply>,
}

#[derive(Serialize)]
struct NodeReply {
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
struct OutcomeReply {
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

async fn declarations(State(shared): State<Shared>) -> Json<DeclarationsReply> {
    let view = shared.board.view();
    let items = view.declarations().iter().map(declaration_reply).collect();
    Json(DeclarationsReply { items, as_of: shared.board.as_of(&view) })
}

fn declaration_reply(declaration: &Declaration) -> DeclarationReply {
    let nodes = |undo: bool| {
        let chosen = declaration.nodes.iter().filter(|node| (node.kind == NodeKind::Compensation) == undo);
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
            .map(|outcome| OutcomeReply {
                name: outcome.name.clone(),
                kind: outcome.kind.name(),
                when: event_names(declaration, outcome.when),
                settled_by: node_ids(declaration, outcome.settled_by),
            })
            .collect(),
    }
}

fn node_reply(declaration: &Declaration, node: &Node) -> NodeReply {
    NodeReply {
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
    items: Vec<UnplacedRow>,
    as_of: crate::api::AsOf,
}

/// The last records that are in no saga, newest first.
async fn unplaced(State(shared): State<Shared>) -> Json<UnplacedReply> {
    let view = shared.board.view();
    let items = view.unplaced().rev().map(|record| UnplacedRow {
        reason: record.reason.name().to_owned(),
        topic: record.topic.clone(),
        partition: record.partition,
        offset: record.offset,
        at: time(record.at_ms),
        detail: record.detail.clone(),
    });
    Json(UnplacedReply { items: items.collect(), as_of: shared.board.as_of(&view) })
}

#[derive(Serialize)]
struct HealthReply {
    status: &'static str,
    trouble: Option<String>,
    topics: Vec<String>,
    positions: crate::api::Positions,
    sagas: usize,
    records: u64,
    as_of: crate::api::AsOf,
}

async fn health(State(shared): State<Shared>) -> Json<HealthReply> {
    let reading = shared.board.reading();
    let view = shared.board.view();
    let status = match (&reading.trouble, reading.caught_up) {
        (Some(_), _) => "trouble",
        (None, true) => "serving",
        (None, false) => "catching-up",
    };
    Json(HealthReply {
        status,
        trouble: reading.trouble,
        topics: reading.topics,
        positions: view.positions(),
        sagas: view.sagas(),
        records: view.records(),
        as_of: shared.board.as_of(&view),
    })
}

/// Ready once the view has caught up and reading goes on.
async fn readyz(State(shared): State<Shared>) -> Response {
    let reading = shared.board.reading();
    match reading.trouble {
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
        None if reading.caught_up => "ready\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, format!("catching up: {} records behind\n", reading.lag_records))
            .into_response(),
    }
}
