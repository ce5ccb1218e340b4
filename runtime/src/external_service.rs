//! Calls external services over HTTP: one JSON request with an idempotency key, one reply, with deadlines.
//!
//! Owns connections, deadlines and limits, and decides which replies mean "too busy or broken to answer". What any other reply
//! means is the caller's business; nothing here knows a particular service.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::decider::Unanswered;

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long a request may take in total. A late reply is not lost: the external service repeats it for the same key.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Idle connections kept open: as many as a busy worker has requests in flight.
const IDLE_CONNECTIONS: usize = 256;
/// A longer reply is refused: no expected reply comes near it.
const LARGEST_REPLY: usize = 64 * 1024;
/// How much of an unexpected reply is quoted.
const SHOWN_CHARS: usize = 200;

/// An external service that cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum ExternalServiceError {
    /// The address is not a URL, or its scheme is not supported.
    #[error("{url:?} is not the address of a service: {reason} (expected something like http://localhost:8090)")]
    Address {
        /// The given address.
        url: String,
        /// Why it is refused.
        reason: String,
    },
    /// The HTTP client cannot be created.
    #[error("cannot create an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// An external service with an HTTP API. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct ExternalService {
    client: Client,
    base: Url,
    deadline: Duration,
}

impl ExternalService {
    /// The service at an address. A path in the address is prefixed to every request's path.
    ///
    /// # Errors
    /// [`ExternalServiceError`].
    pub fn at(url: &str) -> Result<Self, ExternalServiceError> {
        let client = Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(ExternalServiceError::Client)?;
        Ok(Self { client, base: base(url)?, deadline: REQUEST_DEADLINE })
    }

    /// Another service at another address, with the same HTTP client.
    ///
    /// # Errors
    /// [`ExternalServiceError`].
    pub fn with_address(&self, url: &str) -> Result<Self, ExternalServiceError> {
        Ok(Self { client: self.client.clone(), base: base(url)?, deadline: self.deadline })
    }

    /// The same service with another deadline per request than the default of ten seconds.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Posts `body` to `path` (`picks`, without a slash in front) under an idempotency key.
    ///
    /// # Errors
    /// No reply arrived in time, or the status means "not now": 408, 425, 429 or any 5xx. A `Retry-After` in seconds is passed
    /// on.
    pub async fn post<B: Serialize + Sync>(&self, path: &str, key: &str, body: &B) -> Result<ServiceReply, Unanswered> {
        let url = self.base.join(path).map_err(|error| Unanswered::new(format!("{path}: {error}")))?;
        let failed = |error: reqwest::Error| Unanswered::new(format!("POST {url}: {}", chain(&error)));
        // A key contains an entity's id, which may be any text.
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
        let reply = ServiceReply { request: format!("POST {url}"), status: response.status(), body };
        match busy {
            Some(retry_after) => Err(Unanswered { retry_after, ..reply.unexpected() }),
            None => Ok(reply),
        }
    }
}

/// The address with a trailing slash, so that joining a path appends to it.
fn base(url: &str) -> Result<Url, ExternalServiceError> {
    let refused = |reason: &str| ExternalServiceError::Address { url: url.to_owned(), reason: reason.to_owned() };
    let mut base = Url::parse(url).map_err(|error| refused(&error.to_string()))?;
    if base.scheme() != "http" {
        return Err(refused("only http is supported; leave TLS to a proxy beside this process"));
    }
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    Ok(base)
}

/// `Some` if the status means "not now", with the delay from `Retry-After` if there is one.
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

/// A reply: its status and a body of bounded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReply {
    request: String,
    status: StatusCode,
    body: Vec<u8>,
}

impl ServiceReply {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The body as JSON; unknown fields are ignored.
    ///
    /// # Errors
    /// The body does not parse. Whether the request was carried out is then unknown; repeating it with the same key is safe.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Unanswered> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let Unanswered { reason, .. } = self.unexpected();
            Unanswered::new(format!("{reason} ({error})"))
        })
    }

    /// The error for a reply that the caller does not understand. The body is quoted, truncated and escaped.
    #[must_use]
    pub fn unexpected(&self) -> Unanswered {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(SHOWN_CHARS).collect();
        Unanswered::new(format!("{}: unexpected reply {}: {text:?}", self.request, self.status.as_u16()))
    }
}
