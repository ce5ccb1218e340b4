//! Snapshots: every saga at one moment, as lines of JSON, written while the live view continues.
//!
//! The moment is a set of offsets. Each record has its offset, so a saga at that moment is derived from the records below it.
//! Only a record that was replaced meanwhile is lost, and the last line reports that. Memory is bounded by a few chunks.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures_core::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    ApiState,
    params::{QueryPairs, QueryParams},
    problem::ApiProblem,
};
use crate::{
    api::{SnapshotLine, SnapshotTail},
    board::{Board, FrozenView},
    digest::{self, SetDigest},
};

/// The number of sagas that are derived under one lock of the view.
const CHUNK: u32 = 128;
/// How long a client may take to read a chunk.
const PATIENCE: Duration = Duration::from_secs(30);

/// The lines of a snapshot as they become available.
struct SnapshotLines(mpsc::Receiver<Bytes>);

impl Stream for SnapshotLines {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|line| line.map(Ok))
    }
}

/// `GET /snapshot?form=digest|full`: a head, one line per saga, a tail.
pub(super) async fn stream(
    State(shared): State<ApiState>,
    Query(pairs): Query<QueryPairs>,
) -> Result<Response, ApiProblem> {
    let params = QueryParams::sort(pairs, &[], &["form"])?;
    let full = match params.get("form") {
        None | Some("full") => true,
        Some("digest") => false,
        Some(other) => return Err(ApiProblem::bad(format!("form {other:?} is neither \"full\" nor \"digest\""))),
    };
    let permit = shared.snapshots.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiProblem::busy("the maximum number of snapshots is being written already"))?;
    let (lines, receiver) = mpsc::channel(4);
    tokio::spawn(write(shared.board, full, lines, permit));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(SnapshotLines(receiver))).into_response())
}

/// Writes a snapshot until it is complete or the client disconnects. A snapshot without its tail is incomplete.
async fn write(board: Board, full: bool, lines: mpsc::Sender<Bytes>, _place: OwnedSemaphorePermit) {
    let frozen = std::sync::Arc::new(board.freeze());
    let send = async |text: String| matches!(tokio::time::timeout(PATIENCE, lines.send(text.into())).await, Ok(Ok(())));
    if !send(json_line(&frozen.head)).await {
        return;
    }
    let (mut sagas, mut set) = (0, SetDigest::default());
    let mut from = 0;
    while from < frozen.instances {
        let to = from.saturating_add(CHUNK).min(frozen.instances);
        let (of, at) = (board.clone(), std::sync::Arc::clone(&frozen));
        let Ok(chunk) = tokio::task::spawn_blocking(move || chunk(&of, &at, from..to, full)).await else { return };
        for digest in &chunk.digests {
            sagas += 1;
            set.add(*digest);
        }
        if !send(chunk.text).await {
            return;
        }
        from = to;
    }
    let disturbed = board.view().rewritten() != frozen.rewritten;
    // A client that has disconnected needs no tail.
    send(json_line(&SnapshotTail { sagas, digest: set.to_string(), disturbed })).await;
}

struct SnapshotChunk {
    text: String,
    digests: Vec<u128>,
}

fn chunk(board: &Board, frozen: &FrozenView, instances: std::ops::Range<u32>, full: bool) -> SnapshotChunk {
    let view = board.view();
    let mut chunk = SnapshotChunk { text: String::new(), digests: Vec::new() };
    for instance in instances {
        let Some(canonical) = view.canonical_at(instance, &frozen.at) else { continue };
        let context = view.subject(instance);
        let digest = digest::of(&canonical);
        chunk.digests.push(digest);
        chunk.text.push_str(&json_line(&SnapshotLine {
            saga: context.declaration.name.clone(),
            id: context.id.to_owned(),
            digest: format!("{digest:032x}"),
            canonical: if full { serde_json::from_str(&canonical).ok() } else { None },
        }));
    }
    chunk
}

/// Plain structs of texts and numbers always have a JSON form.
fn json_line(value: &impl serde::Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// `GET /snapshots/{snapshot}/sagas/{saga}/{id}`: one saga as it was when the snapshot was frozen.
pub(super) async fn one(
    State(shared): State<ApiState>,
    Path((snapshot, saga, id)): Path<(u64, String, String)>,
) -> Result<Json<serde_json::Value>, ApiProblem> {
    let positions = shared
        .board
        .snapshot(snapshot)
        .ok_or_else(|| ApiProblem::expired(format!("snapshot {snapshot} is not known or no longer kept")))?;
    let view = shared.board.view();
    let at = view.freeze(&positions);
    let instance = view.find(&id).iter().copied().find(|instance| view.subject(*instance).declaration.name == saga);
    let canonical = instance.and_then(|instance| view.canonical_at(instance, &at));
    let value = canonical.and_then(|canonical| serde_json::from_str(&canonical).ok());
    value
        .map(Json)
        .ok_or_else(|| ApiProblem::not_found(format!("{saga} {id:?} did not exist when the snapshot was frozen")))
}
