//! Calls to the registry, and what it answered. Knows the paths of no check.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::check::{Doing, Failure, ensure, ensure_eq};
use crate::context::Context;

const JSON: &str = "application/vnd.schemaregistry.v1+json";

/// A registry's answer; an empty body is null.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    asked: String,
}

impl Answer {
    pub(crate) fn ok(self) -> Result<Value, Failure> {
        ensure!(self.status == 200, "{} gave {} {}", self.asked, self.status, self.body);
        Ok(self.body)
    }

    /// A refusal with this status; with this error code too where exactly Confluent's are asked for.
    pub(crate) fn refused(self, cx: &Context, status: u16, code: u64) -> Result<(), Failure> {
        let Self { status: seen, body, asked } = self;
        ensure!(seen == status, "{asked} gave {seen} {body}, wanted {status}");
        ensure!(
            body["error_code"].is_u64() && body["message"].is_string(),
            "{asked} gave {status} with the body {body}"
        );
        if cx.target.exact_confluent_codes {
            ensure_eq!(body["error_code"].as_u64(), Some(code), "the error code of {asked} ({body})");
        }
        Ok(())
    }
}

pub(crate) fn get(cx: &Context, path: &str) -> Result<Answer, Failure> {
    call(cx, Method::GET, path, None)
}

pub(crate) fn post(cx: &Context, path: &str, body: &Value) -> Result<Answer, Failure> {
    call(cx, Method::POST, path, Some(body.to_string()))
}

pub(crate) fn put(cx: &Context, path: &str, body: &Value) -> Result<Answer, Failure> {
    call(cx, Method::PUT, path, Some(body.to_string()))
}

pub(crate) fn delete(cx: &Context, path: &str) -> Result<Answer, Failure> {
    call(cx, Method::DELETE, path, None)
}

pub(crate) fn call(cx: &Context, method: Method, path: &str, body: Option<String>) -> Result<Answer, Failure> {
    let asked = format!("{method} {path}");
    let mut request = cx.http.request(method, format!("{}{path}", cx.target.registry)).header(ACCEPT, JSON);
    if let Some(body) = body {
        request = request.header(CONTENT_TYPE, JSON).body(body);
    }
    cx.wait(async {
        let response = request.send().await.doing(&asked)?;
        let status = response.status().as_u16();
        let text = response.text().await.doing(&asked)?;
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(json!(text)) };
        Ok(Answer { status, body, asked })
    })
}

/// Registers a schema and gives the answer, whatever it is.
pub(crate) fn register(cx: &Context, subject: &str, schema: &Value) -> Result<Answer, Failure> {
    let ask = || post(cx, &format!("/subjects/{subject}/versions"), &json!({ "schema": schema.to_string() }));
    let mut answer = ask()?;
    // Apicurio 2.6 loses races with itself when several new schemas come at once: its own error of storage, or an artifact that
    // "already exists" because the request before this one lost half way. The same request then works.
    for _ in 0..20 {
        let said = answer.body.to_string();
        let lost = (answer.status == 500 && said.contains("io.apicurio.registry.storage"))
            || (answer.status == 409 && said.contains("already exists"));
        if !lost {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        answer = ask()?;
    }
    Ok(answer)
}

/// Registers a schema that must be accepted, and gives its id.
pub(crate) fn registered(cx: &Context, subject: &str, schema: &Value) -> Result<u64, Failure> {
    register(cx, subject, schema)?.ok()?["id"].as_u64().doing("the id of a registered schema")
}

pub(crate) fn set_level(cx: &Context, subject: &str, level: &str) -> Result<(), Failure> {
    put(cx, &format!("/config/{subject}"), &json!({ "compatibility": level }))?.ok().map(|_| ())
}
