//! Errors as RFC 9457 problems.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::query::FilterError;

/// One problem, as the server sends it and the client parses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiProblem {
    /// `/problems/<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem, for a person.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The details of this occurrence.
    pub detail: String,
}

impl ApiProblem {
    pub(super) fn new(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "The resource does not exist", detail)
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-filter", "The request asks for something that does not exist", detail)
    }

    pub(super) fn expired(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "cursor-expired", "The view that the request refers to is gone", detail)
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-many", "Too many requests at a time", detail)
    }
}

impl From<FilterError> for ApiProblem {
    fn from(bad: FilterError) -> Self {
        Self::bad(bad.to_string())
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
