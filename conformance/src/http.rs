//! HTTP calls to the registry and their responses. Knows no check.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::check::{CheckFailure, FailureContext, ensure, ensure_eq};
use crate::context::CheckContext;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A registry's response; an empty body is null.
#[derive(Debug)]
pub(crate) struct RegistryResponse {
    pub(crate) status: u16,
    pub(crate) body: Value,
    call: String,
}

impl RegistryResponse {
    pub(crate) fn ok(self) -> Result<Value, CheckFailure> {
        ensure!(self.status == 200, "{} gave {} {}", self.call, self.status, self.body);
        Ok(self.body)
    }

    /// Ensures an error with this status, and with this error code if the target must use exactly Confluent's codes.
    pub(crate) fn refused(self, cx: &CheckContext, status: u16, code: u64) -> Result<(), CheckFailure> {
        let Self { status: observed, body, call } = self;
        ensure!(observed == status, "{call} gave {observed} {body}, expected {status}");
        ensure!(
            body["error_code"].is_u64() && body["message"].is_string(),
            "{call} gave {status} with the body {body}"
        );
        if cx.target.exact_confluent_codes {
            ensure_eq!(body["error_code"].as_u64(), Some(code), "the error code of {call} ({body})");
        }
        Ok(())
    }
}

pub(crate) fn get(cx: &CheckContext, path: &str) -> Result<RegistryResponse, CheckFailure> {
    call(cx, Method::GET, path, None)
}

pub(crate) fn post(cx: &CheckContext, path: &str, body: &Value) -> Result<RegistryResponse, CheckFailure> {
    call(cx, Method::POST, path, Some(body.to_string()))
}

pub(crate) fn put(cx: &CheckContext, path: &str, body: &Value) -> Result<RegistryResponse, CheckFailure> {
    call(cx, Method::PUT, path, Some(body.to_string()))
}

pub(crate) fn delete(cx: &CheckContext, path: &str) -> Result<RegistryResponse, CheckFailure> {
    call(cx, Method::DELETE, path, None)
}

pub(crate) fn call(
    cx: &CheckContext,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<RegistryResponse, CheckFailure> {
    let call = format!("{method} {path}");
    let mut request = cx.http.request(method, format!("{}{path}", cx.target.registry)).header(ACCEPT, MEDIA_TYPE);
    if let Some(body) = body {
        request = request.header(CONTENT_TYPE, MEDIA_TYPE).body(body);
    }
    cx.wait(async {
        let response = request.send().await.context(&call)?;
        let status = response.status().as_u16();
        let text = response.text().await.context(&call)?;
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(json!(text)) };
        Ok(RegistryResponse { status, body, call })
    })
}

/// Registers a schema and returns the response, whatever its status.
pub(crate) fn register(cx: &CheckContext, subject: &str, schema: &Value) -> Result<RegistryResponse, CheckFailure> {
    let register = || post(cx, &format!("/subjects/{subject}/versions"), &json!({ "schema": schema.to_string() }));
    let mut response = register()?;
    // Apicurio 2.6 has race conditions when several new schemas arrive at once. It then returns a storage error, or an artifact
    // "already exists" because the previous request failed half-way. A retry succeeds.
    for _ in 0..20 {
        let text = response.body.to_string();
        let race_lost = (response.status == 500 && text.contains("io.apicurio.registry.storage"))
            || (response.status == 409 && text.contains("already exists"));
        if !race_lost {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        response = register()?;
    }
    Ok(response)
}

/// Registers a schema that must be accepted, and returns its id.
pub(crate) fn registered(cx: &CheckContext, subject: &str, schema: &Value) -> Result<u64, CheckFailure> {
    register(cx, subject, schema)?.ok()?["id"].as_u64().context("the id of a registered schema")
}

pub(crate) fn set_level(cx: &CheckContext, subject: &str, level: &str) -> Result<(), CheckFailure> {
    put(cx, &format!("/config/{subject}"), &json!({ "compatibility": level }))?.ok().map(|_| ())
}
