//! Responses: the registry's JSON and media type, and one format for every error.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::MAX_BODY_BYTES;
use crate::registry::{error::RegistryApiError, state::SubjectVersion};

pub(super) const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// No client waits longer for a registry, and no slow body may hold a connection for ever.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// A response body. [`finish`] chooses its content type.
pub(super) struct RegistryJson(pub(super) Value);

impl IntoResponse for RegistryJson {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], self.0.to_string()).into_response()
    }
}

impl IntoResponse for RegistryApiError {
    fn into_response(self) -> Response {
        if matches!(self, RegistryApiError::Store(_)) {
            tracing::error!(error = %self, "schema registry");
        }
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        error_response(status, self.code(), &self.to_string())
    }
}

/// Wraps every call: applies the deadline, rewrites the framework's own errors to the registry's format, and sets the content
/// type that the client accepts.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let plain_json = accept.contains("application/json") && !accept.contains("vnd.schemaregistry");
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => error_response(StatusCode::INTERNAL_SERVER_ERROR, 50002, "The request took too long"),
    };
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_registry_response(&response) {
        let message = match status {
            StatusCode::NOT_FOUND => format!("HTTP 404 Not Found: this registry has no {path}"),
            StatusCode::METHOD_NOT_ALLOWED => format!("HTTP 405 Method Not Allowed: {method} {path}"),
            StatusCode::PAYLOAD_TOO_LARGE => format!("The body is larger than {MAX_BODY_BYTES} bytes"),
            other => format!("HTTP {other}: a parameter of {path} is not understood"),
        };
        response = error_response(status, u32::from(status.as_u16()), &message);
    }
    if plain_json && is_registry_response(&response) {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

fn error_response(status: StatusCode, code: u32, message: &str) -> Response {
    (status, RegistryJson(json!({"error_code": code, "message": message}))).into_response()
}

fn is_registry_response(response: &Response<Body>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == MEDIA_TYPE)
}

/// A schema's text as the whole body.
pub(super) fn text_response(text: String) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response()
}

pub(super) fn version_json(version: &SubjectVersion<'_>) -> Value {
    json!({
        "subject": version.subject,
        "version": version.version,
        "id": version.id,
        "guid": version.schema.guid(),
        "schema": version.schema.text,
    })
}
