//! HTTP for every service: problem details (RFC 9457), JSON bodies, health, metrics, and a server that shuts down gracefully.
//!
//! It knows no service. `request` validates bodies, and `edge` carries requests out.

use std::{
    future::{Future, IntoFuture},
    net::SocketAddr,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, OptionalFromRequest, Query, Request, State, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    edge::EdgeError,
    health::{HealthChecks, HealthProbe},
    publisher::PublishError,
    request::{self, FieldError},
    telemetry,
};

/// The largest accepted body.
pub const MAX_BODY_BYTES: usize = 256 << 10;
/// How long one request may take in total.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Why a request failed, for programs and people (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The type of problem: a path that is the same for every occurrence.
    #[serde(rename = "type")]
    pub kind: String,
    /// The type in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened in this occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The occurrence: usually the path of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The errors in the body, with their locations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// After how many seconds a retry makes sense.
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem of a type such as `insufficient-stock`.
    pub fn new(status: StatusCode, kind: &str, title: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{kind}"),
            title: title.into(),
            status: status.as_u16(),
            detail: None,
            instance: None,
            errors: Vec::new(),
            retry_after_s: None,
        }
    }

    /// Sets the detail of this occurrence.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Sets the instance.
    #[must_use]
    pub fn instance(self, instance: impl Into<String>) -> Self {
        Self { instance: Some(instance.into()), ..self }
    }

    /// Sets the `Retry-After` header, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// An invalid body: 422 with every error.
    #[must_use]
    pub fn invalid_body(errors: Vec<FieldError>) -> Self {
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "the body is not valid");
        Self { errors, ..problem }
    }

    /// A missing resource: 404.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "not found").detail(format!("there is no {what}"))
    }

    /// A service that cannot handle the request now: 503.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not available now").detail(detail).retry_after(1)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body is never read, so the client must not send another request on this connection.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<EdgeError> for Problem {
    fn from(error: EdgeError) -> Self {
        match error {
            EdgeError::NotReady | EdgeError::Busy => Self::unavailable(error.to_string()),
            EdgeError::NotAccepted { source: PublishError::Unsendable { problem, .. } } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "the body is not valid").detail(problem)
            }
            EdgeError::NotAccepted { ref source } => {
                tracing::warn!(error = telemetry::chain(source), "a command was not accepted");
                Self::unavailable(error.to_string())
            }
        }
    }
}

/// A JSON body of at most [`MAX_BODY_BYTES`]. A malformed body is rejected with a problem that names the location.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(pub serde_json::Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        request::parse(&bytes).map(Json).map_err(malformed)
    }
}

/// `Option<Json>` accepts a request without a body.
impl<S: Send + Sync> OptionalFromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        if bytes.is_empty() { Ok(None) } else { request::parse(&bytes).map(Json).map(Some).map_err(malformed) }
    }
}

fn malformed(error: FieldError) -> Problem {
    let problem = Problem::new(StatusCode::BAD_REQUEST, "malformed-json", "the body is not JSON");
    Problem { errors: vec![error], ..problem }
}

fn unread(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => Problem::new(status, "body-too-large", "the body is too large")
            .detail(format!("a body has at most {MAX_BODY_BYTES} bytes")),
        status => Problem::new(status, "unreadable-body", "the body could not be read"),
    }
}

/// The routes of every process: `/livez`, `/readyz`, `/metrics`.
pub fn operations(checks: HealthChecks) -> Router {
    Router::new()
        .route("/livez", get(|state, query| probe_response(HealthProbe::Live, state, query)))
        .route("/readyz", get(|state, query| probe_response(HealthProbe::Ready, state, query)))
        .route("/metrics", get(metrics))
        .with_state(checks)
}

/// The parameters of a probe. Their values have no meaning.
#[derive(Debug, Deserialize)]
struct ProbeQuery {
    /// Show every check, also if all of them pass.
    verbose: Option<String>,
    /// Fail if a piece is degraded.
    strict: Option<String>,
}

async fn probe_response(
    probe: HealthProbe,
    State(checks): State<HealthChecks>,
    Query(query): Query<ProbeQuery>,
) -> Response {
    let report = checks.report(probe);
    let name = if probe == HealthProbe::Live { "livez" } else { "readyz" };
    let is_degraded = !report.degraded.is_empty();
    let passes = report.is_fine && !(is_degraded && query.strict.is_some());
    let text = match (passes, is_degraded, query.verbose) {
        (true, false, None) => "ok\n".to_owned(),
        (true, false, Some(_)) => format!("{}{name} check passed\n", report.text),
        (true, true, _) => format!("{}{name} check passed: degraded\n", report.text),
        (false, _, _) => format!("{}{name} check failed\n", report.text),
    };
    (if passes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

async fn metrics() -> Response {
    match telemetry::render_metrics() {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        None => Problem::not_found("recorder of metrics in this process").into_response(),
    }
}

/// An HTTP server that failed.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}; hint: is another process there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Serving ended with an error.
    #[error("serving on {address} failed")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// A server that listens, but does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on an address; port 0 selects a free port.
    ///
    /// # Errors
    /// [`ServerError::Listen`].
    pub async fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes, then waits at most `patience` for open requests.
    ///
    /// # Errors
    /// [`ServerError::Serve`].
    pub async fn serve(
        self,
        routes: Router,
        stop: impl Future<Output = ()> + Send + 'static,
        patience: Duration,
    ) -> Result<(), ServerError> {
        let address = self.address;
        let routes = routes
            .fallback(|| async { Problem::not_found("such resource") })
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(middleware::from_fn(within_deadline));
        let (stopping, stopped) = oneshot::channel();
        let stop = async move {
            stop.await;
            // The receiver is gone only if serving has ended already.
            let _ended = stopping.send(());
        };
        let serving = axum::serve(self.listener, routes).with_graceful_shutdown(stop).into_future();
        let out_of_patience = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(patience).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            served = serving => served.map_err(|source| ServerError::Serve { address, source }),
            () = out_of_patience => {
                tracing::warn!(%address, "open requests were aborted at shutdown");
                Ok(())
            }
        }
    }
}

async fn within_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the request took too long").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;

    use super::*;
    use crate::health::{CheckResult, DegradedPiece};

    async fn served(routes: Router) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let server = Server::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let base = format!("http://{}", server.address());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let stop = async { drop(stopped.await) };
            server.serve(routes, stop, Duration::from_secs(5)).await.expect("serving");
        });
        (base, stop, serving)
    }

    fn echo() -> Router {
        Router::new().route("/echo", post(|Json(body): Json| async move { body.to_string() }))
    }

    async fn post_to(base: &str, body: Vec<u8>) -> (u16, serde_json::Value) {
        let response = reqwest::Client::new().post(format!("{base}/echo")).body(body).send().await.expect("an answer");
        let status = response.status().as_u16();
        let is_problem = response.headers().get("content-type").is_some_and(|t| t == "application/problem+json");
        assert_eq!(is_problem, status >= 400);
        (status, serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON"))
    }

    #[tokio::test]
    async fn a_malformed_body_is_a_problem_with_its_location() {
        let (base, _stop, _serving) = served(echo()).await;
        assert_eq!(post_to(&base, b"{\"a\": 1}".to_vec()).await.0, 200);
        let (status, problem) = post_to(&base, b"{\"a\":\n  1,}".to_vec()).await;
        assert_eq!((status, &problem["type"]), (400, &"/problems/malformed-json".into()));
        let detail = problem["errors"][0]["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains("line 2 column 5"), "{detail}");
        let (status, problem) = post_to(&base, b"{\"a\": \"\xff\"}".to_vec()).await;
        assert_eq!((status, &problem["errors"][0]["detail"]), (400, &"byte 8 is not UTF-8 text".into()));
    }

    #[tokio::test]
    async fn an_optional_body_is_parsed_if_it_is_present() {
        let echo =
            post(|body: Option<Json>| async move { body.map_or("none".to_owned(), |Json(body)| body.to_string()) });
        let (base, _stop, _serving) = served(Router::new().route("/echo", echo)).await;
        let text = async |body: &'static str| {
            let sent = reqwest::Client::new().post(format!("{base}/echo")).body(body).send().await.expect("an answer");
            (sent.status().as_u16(), sent.text().await.expect("a body"))
        };
        assert_eq!(text("").await, (200, "none".to_owned()));
        assert_eq!(text("{\"a\":1}").await, (200, "{\"a\":1}".to_owned()));
        assert_eq!(text("{").await.0, 400);
    }

    #[tokio::test]
    async fn an_oversized_body_is_not_read_and_closes_the_connection() {
        let (base, _stop, _serving) = served(echo()).await;
        let (status, problem) = post_to(&base, vec![b' '; MAX_BODY_BYTES + 1]).await;
        assert_eq!((status, &problem["type"]), (413, &"/problems/body-too-large".into()));
        let answer = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "too large").into_response();
        assert_eq!(answer.headers()["connection"], "close");
    }

    #[tokio::test]
    async fn a_probe_returns_a_status_and_a_text() {
        let checks = HealthChecks::default();
        checks.ready("view", || Err("still reading".to_owned()));
        let (base, _stop, _serving) = served(operations(checks)).await;
        let live = reqwest::get(format!("{base}/livez")).await.expect("an answer");
        assert_eq!((live.status().as_u16(), live.text().await.expect("text").as_str()), (200, "ok\n"));
        let ready = reqwest::get(format!("{base}/readyz?verbose")).await.expect("an answer");
        assert_eq!(ready.status().as_u16(), 503);
        assert_eq!(ready.text().await.expect("text"), "[-]view failed: still reading\nreadyz check failed\n");
        let checks = HealthChecks::default();
        checks.ready("view", || CheckResult::Degraded(vec![DegradedPiece::new("t/0/7", "held")]));
        let (degraded, _stop_degraded, _serving_degraded) = served(operations(checks)).await;
        for (path, status, last) in [("/readyz", 200, "passed: degraded"), ("/readyz?strict", 503, "failed")] {
            let ready = reqwest::get(format!("{degraded}{path}")).await.expect("an answer");
            assert_eq!(ready.status().as_u16(), status);
            let text = ready.text().await.expect("text");
            assert_eq!(text, format!("[!]view degraded: t/0/7: held\nreadyz check {last}\n"));
        }
        let absent = reqwest::get(format!("{base}/nowhere")).await.expect("an answer");
        assert_eq!(absent.headers()["content-type"], "application/problem+json");
    }

    #[tokio::test]
    async fn metrics_are_rendered_for_prometheus() {
        telemetry::record_metrics().expect("a recorder");
        metrics::counter!("dacapo_test_total", "kind" => "x").increment(3);
        let (base, _stop, _serving) = served(operations(HealthChecks::default())).await;
        let text = reqwest::get(format!("{base}/metrics")).await.expect("an answer").text().await.expect("text");
        assert!(text.contains("dacapo_test_total{kind=\"x\"} 3"), "{text}");
    }

    #[tokio::test]
    async fn open_requests_finish_when_the_server_stops() {
        let (begun, mut has_begun) = tokio::sync::mpsc::channel::<()>(1);
        let (release, released) = tokio::sync::watch::channel(false);
        let slow = Router::new().route(
            "/slow",
            get(move || async move {
                begun.send(()).await.expect("the test listens");
                released.clone().wait_for(|is_released| *is_released).await.expect("the test releases it");
                "done"
            }),
        );
        let (base, stop, serving) = served(slow).await;
        let request = tokio::spawn(reqwest::get(format!("{base}/slow")));
        has_begun.recv().await.expect("the request has begun");
        stop.send(()).expect("the server runs");
        release.send(true).expect("the request waits");
        let answer = request.await.expect("no panic").expect("an answer");
        assert_eq!(answer.text().await.expect("text"), "done");
        serving.await.expect("a clean end");
    }
}
