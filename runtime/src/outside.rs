//! Asking the outside world over HTTP: one JSON request with an idempotency key, one reply, with deadlines.
//!
//! Owns connections, deadlines and limits, and the verdict that somebody is too busy or broken to answer. What a reply means is
//! the business of the service that asked; nothing here knows a service.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::decider::Unanswered;

/// How long a connection may take to come about.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long a request may take in all. A slow answer is not lost: the far end gives it again under the same key.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Connections kept open between requests: as many as a busy worker has requests on their way.
const IDLE_CONNECTIONS: usize = 256;
/// More than this is no answer to a question of ours.
const LARGEST_REPLY: usize = 64 * 1024;
/// How much of an unexpected reply is shown.
const SHOWN_CHARS: usize = 200;

/// An address that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// It is no address, or not one that is spoken here.
    #[error("{url:?} is no address of a service: {reason} (expected something like http://localhost:8090)")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Somebody in the outside world who is asked over HTTP. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Outside {
    client: Client,
    base: Url,
    deadline: Duration,
}

impl Outside {
    /// Somebody at an address; a path in it is kept in front of what is asked.
    ///
    /// # Errors
    /// The address is not understood.
    pub fn at(url: &str) -> Result<Self, OutsideError> {
        let client = Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(OutsideError::Client)?;
        Ok(Self { client, base: base(url)?, deadline: REQUEST_DEADLINE })
    }

    /// Another one at another address, over the same client.
    ///
    /// # Errors
    /// The address is not understood.
    pub fn and_at(&self, url: &str) -> Result<Self, OutsideError> {
        Ok(Self { client: self.client.clone(), base: base(url)?, deadline: self.deadline })
    }

    /// The same one, given another time to reply than the usual ten seconds.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Posts `body` to `path` (`picks`, without a slash in front) under an idempotency key.
    ///
    /// # Errors
    /// No reply in time, or the reply says that there is no answer now: 408, 425, 429 or any 5xx. With a `Retry-After` in
    /// seconds it is handed on.
    pub async fn ask<B: Serialize + Sync>(&self, path: &str, key: &str, body: &B) -> Result<Reply, Unanswered> {
        let url = self.base.join(path).map_err(|error| Unanswered::new(format!("{path}: {error}")))?;
        let failed = |error: reqwest::Error| Unanswered::new(format!("POST {url}: {}", chain(&error)));
        // A key is made of an entity's id, which may be any text.
        let key = HeaderValue::from_bytes(key.as_bytes())
            .map_err(|_| Unanswered::new(format!("{key:?} cannot be sent as an idempotency key")))?;
        let json = serde_json::to_vec(body).map_err(|error| Unanswered::new(format!("POST {url}: {error}")))?;
        let request = self.client.post(url.clone()).header("idempotency-key", key);
        let request = request.header(CONTENT_TYPE, "application/json").timeout(self.deadline).body(json);
        let mut response = request.send().await.map_err(failed)?;
        let busy = busy(&response);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LARGEST_REPLY {
                return Err(Unanswered::new(format!("POST {url}: the reply is longer than {LARGEST_REPLY} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let reply = Reply { asked: format!("POST {url}"), status: response.status(), body };
        match busy {
            Some(retry_after) => Err(Unanswered { retry_after, ..reply.unexpected() }),
            None => Ok(reply),
        }
    }
}

/// The address with a slash at its end, so that joining a path adds to it.
fn base(url: &str) -> Result<Url, OutsideError> {
    let refused = |reason: &str| OutsideError::Address { url: url.to_owned(), reason: reason.to_owned() };
    let mut base = Url::parse(url).map_err(|error| refused(&error.to_string()))?;
    if base.scheme() != "http" {
        return Err(refused("only http is spoken; leave TLS to a proxy beside this process"));
    }
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    Ok(base)
}

/// Whether a reply says "not now", and if so, when to come back.
fn busy(response: &Response) -> Option<Option<Duration>> {
    let not_now = response.status().is_server_error()
        || matches!(
            response.status(),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    let after = || response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs);
    not_now.then(after)
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no reply in time".to_owned() } else { error.to_string() };
    let mut cause = std::error::Error::source(error);
    while let Some(because) = cause {
        text = format!("{text}: {because}");
        cause = because.source();
    }
    text
}

/// What came back: a status and a body of limited length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    asked: String,
    status: StatusCode,
    body: Vec<u8>,
}

impl Reply {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The body as JSON; unknown fields are passed over.
    ///
    /// # Errors
    /// It is something else: then nobody knows what was done, and asking again under the same key is safe.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Unanswered> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let Unanswered { reason, .. } = self.unexpected();
            Unanswered::new(format!("{reason} ({error})"))
        })
    }

    /// What to say of a reply that means nothing to who asked. Its text is shown cut and escaped.
    #[must_use]
    pub fn unexpected(&self) -> Unanswered {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(SHOWN_CHARS).collect();
        Unanswered::new(format!("{}: unexpected reply {}: {text:?}", self.asked, self.status.as_u16()))
    }
}
