//! The client of the HTTP API, for commands: typed replies, and errors that a person can act on.
//!
//! `render` formats the replies for a terminal.

use std::time::Duration;

use reqwest::Url;
use serde::de::DeserializeOwned;

use crate::{
    api::{CountsReply, SagaChanges, SagaList, SagaReply, SnapshotHead, SnapshotLine, SnapshotTail, TimelinePage},
    http::problem::ApiProblem,
    query::SagaFilter,
};

/// The timeout of a reply, in addition to the requested wait.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest line of a snapshot that the client accepts.
const LINE_MAX: usize = 16 << 20;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not a URL of a projector.
    #[error("{0:?} is not the address of a projector, like http://127.0.0.1:8080")]
    Address(String),
    /// The projector is unreachable, or the connection was closed before the reply was complete.
    #[error("the projector at {url} does not answer; is it running?")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The projector replied with a problem.
    #[error("the projector replied: {}", .0.detail)]
    Problem(ApiProblem),
    /// The reply is not that of a projector.
    #[error("the server at {url} is not a projector of this version: {detail}")]
    UnexpectedReply {
        /// Its address.
        url: String,
        /// What was wrong.
        detail: String,
    },
}

impl ClientError {
    /// True if the requested item does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.status == 404)
    }
}

/// A client of one projector.
#[derive(Debug, Clone)]
pub struct ProjectorClient {
    base: Url,
    http: reqwest::Client,
}

impl ProjectorClient {
    /// A client of the projector at `base`. Sends no request yet.
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(base.to_owned());
        let url = Url::parse(base).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(wrong());
        }
        // A projector runs in the same network and its address is given in full, so no proxy applies.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5)).build();
        Ok(Self { base: url, http: http.map_err(|_| wrong())? })
    }

    /// One page of a list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self, filter: &SagaFilter, limit: usize, cursor: Option<&str>) -> Result<SagaList, ClientError> {
        let mut pairs = pairs(filter);
        pairs.push(("limit", limit.to_string()));
        pairs.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.get(&["sagas"], &pairs, Duration::ZERO).await
    }

    /// One saga.
    ///
    /// # Errors
    /// [`ClientError`]; see [`ClientError::is_not_found`].
    pub async fn show(&self, id: &str, saga: Option<&str>) -> Result<SagaReply, ClientError> {
        let pairs: Vec<_> = saga.map(|saga| ("saga", saga.to_owned())).into_iter().collect();
        self.get(&["sagas", id], &pairs, Duration::ZERO).await
    }

    /// One page of a saga's timeline.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn timeline(
        &self,
        id: &str,
        saga: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<TimelinePage, ClientError> {
        let mut pairs = vec![("limit", crate::query::LIMIT_MAX.to_string())];
        pairs.extend(saga.map(|saga| ("saga", saga.to_owned())));
        pairs.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.get(&["sagas", id, "timeline"], &pairs, Duration::ZERO).await
    }

    /// One saga with its whole timeline.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn show_all(&self, id: &str, saga: Option<&str>) -> Result<SagaReply, ClientError> {
        let mut reply = self.show(id, saga).await?;
        let name = reply.saga.saga.saga.clone();
        while let Some(cursor) = reply.saga.timeline_next.take() {
            let page = self.timeline(id, Some(&name), Some(&cursor)).await?;
            reply.saga.timeline.extend(page.items);
            reply.saga.timeline_next = page.next;
        }
        Ok(reply)
    }

    /// The counts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn counts(&self) -> Result<CountsReply, ClientError> {
        self.get(&["counts"], &[], Duration::ZERO).await
    }

    /// The changes since `since` (the `next` of the last reply; `None` means "from now on"), waiting up to `wait` for one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn changes(
        &self,
        filter: &SagaFilter,
        since: Option<&str>,
        wait: Duration,
    ) -> Result<SagaChanges, ClientError> {
        let mut pairs = pairs(filter);
        pairs.push(("limit", crate::query::LIMIT_MAX.to_string()));
        pairs.push(("wait", wait.as_secs().to_string()));
        pairs.extend(since.map(|since| ("since", since.to_owned())));
        self.get(&["sagas", "changes"], &pairs, wait).await
    }

    /// Starts to read a snapshot, with digests only or with every saga in full.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot(&self, full: bool) -> Result<SnapshotReader, ClientError> {
        let form = if full { "full" } else { "digest" };
        let response = self.send(self.http.get(self.url(&["snapshot"], &[("form", form.to_owned())]))).await?;
        let mut reader =
            SnapshotReader { url: self.base.to_string(), response, rest: Vec::new(), head: None, tail: None };
        let head = reader.line().await?.ok_or_else(|| reader.unexpected("the snapshot is empty"))?;
        reader.head = Some(reader.parse(&head)?);
        Ok(reader)
    }

    /// One saga as it was when a snapshot was frozen.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn frozen(&self, snapshot: u64, saga: &str, id: &str) -> Result<serde_json::Value, ClientError> {
        self.get(&["snapshots", &snapshot.to_string(), "sagas", saga, id], &[], Duration::ZERO).await
    }

    fn url(&self, path: &[&str], pairs: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        url
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        pairs: &[(&str, String)],
        wait: Duration,
    ) -> Result<T, ClientError> {
        let request = self.http.get(self.url(path, pairs)).timeout(wait + PATIENCE);
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::UnexpectedReply { url: self.base.to_string(), detail: error.to_string() })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        Err(serde_json::from_slice(&body).map_or_else(
            |_| ClientError::UnexpectedReply { url: self.base.to_string(), detail: format!("status {status}") },
            ClientError::Problem,
        ))
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.base.to_string(), source }
    }
}

fn pairs(filter: &SagaFilter) -> Vec<(&'static str, String)> {
    filter.parts().map(|(key, value)| (key, value.to_owned())).collect()
}

/// A snapshot while it is read.
#[derive(Debug)]
pub struct SnapshotReader {
    url: String,
    response: reqwest::Response,
    rest: Vec<u8>,
    head: Option<SnapshotHead>,
    tail: Option<SnapshotTail>,
}

impl SnapshotReader {
    /// The first line.
    ///
    /// # Errors
    /// [`ClientError::UnexpectedReply`] if there was none.
    pub fn head(&self) -> Result<&SnapshotHead, ClientError> {
        self.head.as_ref().ok_or_else(|| self.unexpected("the snapshot has no head"))
    }

    /// The next saga; `None` once the tail was read.
    ///
    /// # Errors
    /// [`ClientError`]; a snapshot that ends without its tail is an error.
    pub async fn next(&mut self) -> Result<Option<SnapshotLine>, ClientError> {
        if self.tail.is_some() {
            return Ok(None);
        }
        let line = self.line().await?.ok_or_else(|| self.unexpected("the snapshot broke off before its last line"))?;
        if let Ok(line) = serde_json::from_slice::<SnapshotLine>(&line) {
            return Ok(Some(line));
        }
        self.tail = Some(self.parse(&line)?);
        Ok(None)
    }

    /// The last line, once it was read.
    #[must_use]
    pub fn tail(&self) -> Option<&SnapshotTail> {
        self.tail.as_ref()
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(searched + end + 1);
                let mut line = std::mem::replace(&mut self.rest, rest);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.rest.len();
            if searched > LINE_MAX {
                return Err(self.unexpected("a line is longer than any saga"));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| self.unexpected("the snapshot has stalled"))?;
            match chunk.map_err(|source| ClientError::Unreachable { url: self.url.clone(), source })? {
                Some(bytes) => self.rest.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(line).map_err(|error| self.unexpected(&error.to_string()))
    }

    fn unexpected(&self, detail: &str) -> ClientError {
        ClientError::UnexpectedReply { url: self.url.clone(), detail: detail.to_owned() }
    }
}
