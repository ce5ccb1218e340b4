//! The schema registry's client: schemas by id, ids by content, and what an operator does to subjects.
//!
//! Owns the calls, their deadlines, and whether a failure is transient. It caches nothing (`codec` does), and it never registers a
//! schema or uses "the latest" one on behalf of a producer. The calls block and may be made from any thread: they run on a small
//! async runtime of their own, so neither a worker's loop nor a handler's executor drives them.

use std::{
    future::Future,
    sync::{Arc, mpsc},
    time::Duration,
};

use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_all_subjects, perform_sr_call},
    error::SRCError,
    schema_registry_common::{RawError, RawRegisteredSchema, SrCall},
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    codec::{CodecError, RegisteredSchema, SchemaRef, SchemaSource, SchemaSourceError, WriterError, Writers},
    config::Config,
    message::RecordType,
    telemetry::chain,
};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A failed call to the registry.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The registry cannot be reached, is overloaded, or returns an unexpected reply: a retry may succeed.
    #[error("schema registry at {url} cannot {operation}: {reason}")]
    Unavailable {
        /// The registry's address, without credentials.
        url: String,
        /// The failed operation.
        operation: String,
        /// The cause.
        reason: String,
    },
    /// The registry reports that something does not exist or is invalid: a retry does not change that by itself.
    #[error("schema registry at {url} refuses to {operation}: {message} (error code {code})")]
    Refused {
        /// The registry's address, without credentials.
        url: String,
        /// The failed operation.
        operation: String,
        /// Its error code (40401 no subject, 40403 no schema, 409 incompatible, 42201 invalid).
        code: u32,
        /// Its message.
        message: String,
    },
}

impl RegistryError {
    /// True if a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// True if the registry reports that the subject or schema does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if http_class(*code) == 404)
    }
}

/// The client. Clones share it.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: String,
    timeout: Duration,
    schema_patience: Duration,
    settings: SrSettings,
    http: reqwest::Client,
    credentials: Option<(String, String)>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which panics inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl SchemaSource for RegistryClient {
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, SchemaSourceError> {
        let found = match schema {
            SchemaRef::Id(id) => self.schema_by_id(id),
            SchemaRef::Guid(guid) => self.schema_by_guid(guid),
        };
        found.map_err(|error| match error {
            error if error.is_not_found() => SchemaSourceError::NotFound(Box::new(error)),
            error if error.is_transient() => SchemaSourceError::Unavailable(Box::new(error)),
            error => SchemaSourceError::Refused(Box::new(error)),
        })
    }

    fn patience(&self) -> Duration {
        self.schema_patience()
    }
}

impl RegistryClient {
    /// Writers of these record types: looks up every compiled schema by its content, and registers nothing.
    ///
    /// # Errors
    /// [`WriterError`].
    pub fn writers(&self, system: &str, records: &[RecordType]) -> Result<Writers, WriterError> {
        Writers::with_ids(system, records, |subject, text| {
            let found = self.find(subject, text).map_err(|source| {
                let subject = subject.to_owned();
                let transient = source.is_transient();
                let source = Box::new(source);
                if transient {
                    WriterError::Unavailable { subject, source }
                } else {
                    WriterError::NotRegistered { subject, source }
                }
            })?;
            found.id.ok_or_else(|| WriterError::Unusable {
                subject: subject.to_owned(),
                source: CodecError::new("the registry gave no id for it"),
            })
        })
    }

    /// A client of the configured registry. It connects with the first call.
    ///
    /// # Errors
    /// The client cannot be created (no threads, no sockets).
    pub fn new(config: &Config) -> Result<Self, RegistryError> {
        let url = config.registry_url.trim_end_matches('/').to_owned();
        let failed =
            |reason: String| RegistryError::Unavailable { url: url.clone(), operation: "be set up".to_owned(), reason };
        let credentials = config
            .registry_user
            .clone()
            .map(|user| (user, config.registry_password.as_ref().map_or("", |p| p.expose()).to_owned()));
        let mut settings = SrSettings::new_builder(url.clone());
        settings.no_proxy().set_timeout(config.timeouts.registry);
        if let Some((user, password)) = &credentials {
            settings.set_basic_authorization(user, Some(password));
        }
        let http = reqwest::Client::builder().no_proxy().timeout(config.timeouts.registry).build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                settings: settings.build().map_err(|e| failed(reason_of(&e)))?,
                http: http.map_err(|e| failed(e.to_string()))?,
                runtime: Some(runtime),
                timeout: config.timeouts.registry,
                schema_patience: config.timeouts.schema,
                url: url.clone(),
                credentials,
            }),
        })
    }

    /// The address, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// How long the registry must report a schema as missing, without interruption, before it counts as missing for good.
    #[must_use]
    pub fn schema_patience(&self) -> Duration {
        self.inner.schema_patience
    }

    /// The schema with this id.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn schema_by_id(&self, id: u32) -> Result<RegisteredSchema, RegistryError> {
        self.schema(format!("give schema {id}"), move |settings| async move {
            perform_sr_call(&settings, SrCall::GetById(id)).await
        })
    }

    /// The schema with this global id.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn schema_by_guid(&self, guid: uuid::Uuid) -> Result<RegisteredSchema, RegistryError> {
        self.schema(format!("give schema {guid}"), move |settings| async move {
            perform_sr_call(&settings, SrCall::GetByGuid(&guid.to_string())).await
        })
    }

    /// Looks up a schema by its content, as a producer does at start. It never registers.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::is_not_found`] if the subject or this schema in it does not exist.
    pub fn find(&self, subject: &str, text: &str) -> Result<RegisteredSchema, RegistryError> {
        let (subject, body) = (subject.to_owned(), schema_body(text));
        self.schema(format!("find the schema of {subject}"), move |settings| async move {
            perform_sr_call(&settings, SrCall::PostForVersion(&subject, &body)).await
        })
    }

    /// Registers a schema on behalf of an operator. Returns its id.
    ///
    /// # Errors
    /// [`RegistryError`]; refused if it is not compatible with what the subject holds.
    pub fn register(&self, subject: &str, text: &str) -> Result<u32, RegistryError> {
        let operation = format!("register the schema of {subject}");
        let (subject, body) = (subject.to_owned(), schema_body(text));
        let raw = self.call(operation.clone(), move |settings| async move {
            perform_sr_call(&settings, SrCall::PostNew(&subject, &body)).await
        })?;
        raw.id.ok_or_else(|| self.unavailable(operation, "the reply has no id".to_owned()))
    }

    /// Every subject.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.call("list subjects".to_owned(), |settings| async move { get_all_subjects(&settings).await })
    }

    /// The subjects that use a schema, each with the version. Looking up a schema by its id does not return them.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn usages(&self, id: u32) -> Result<Vec<(String, u32)>, RegistryError> {
        let request = self.request(reqwest::Method::GET, &format!("/schemas/ids/{id}/versions"));
        let usages: Vec<Usage> = self.json(format!("list the subjects of schema {id}"), request)?;
        Ok(usages.into_iter().map(|usage| (usage.subject, usage.version)).collect())
    }

    /// Every version of a subject; none if there is no such subject.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let request = self.request(reqwest::Method::GET, &format!("/subjects/{}/versions", in_path(subject)));
        match self.json::<Vec<u32>>(format!("list the versions of {subject}"), request) {
            Err(e) if e.is_not_found() => Ok(Vec::new()),
            other => other,
        }
    }

    /// One version of a subject.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn schema_of_version(&self, subject: &str, version: u32) -> Result<RegisteredSchema, RegistryError> {
        let operation = format!("give version {version} of {subject}");
        let subject = subject.to_owned();
        self.schema(operation, move |settings| async move {
            perform_sr_call(&settings, SrCall::GetBySubjectAndVersion(&subject, version)).await
        })
    }

    /// The compatibility level set on a subject itself; `None` if the registry's own applies.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn compatibility(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        let request = self.request(reqwest::Method::GET, &format!("/config/{}", in_path(subject)));
        match self.json::<CompatibilityLevel>(format!("read the compatibility level of {subject}"), request) {
            Ok(level) => Ok(Some(level.level)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Sets a subject's compatibility level on behalf of an operator.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), RegistryError> {
        let request = self
            .request(reqwest::Method::PUT, &format!("/config/{}", in_path(subject)))
            .body(json!({ "compatibility": level }).to_string());
        self.json::<serde_json::Value>(format!("set the compatibility level of {subject}"), request).map(|_| ())
    }

    /// Checks whether a schema could be registered. Returns the registry's objections; none if it could.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn objections(&self, subject: &str, text: &str) -> Result<Vec<String>, RegistryError> {
        let path = format!("/compatibility/subjects/{}/versions?verbose=true", in_path(subject));
        let request = self.request(reqwest::Method::POST, &path).body(schema_body(text));
        match self.json::<CompatibilityAnswer>(format!("check the schema of {subject}"), request) {
            Ok(answer) if answer.is_compatible => Ok(Vec::new()),
            Ok(answer) if answer.messages.is_empty() => Ok(vec!["incompatible (no reason given)".to_owned()]),
            Ok(answer) => Ok(answer.messages),
            Err(e) if e.is_not_found() => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn schema<F>(
        &self,
        operation: String,
        call: impl FnOnce(SrSettings) -> F,
    ) -> Result<RegisteredSchema, RegistryError>
    where
        F: Future<Output = Result<RawRegisteredSchema, SRCError>> + Send + 'static,
    {
        let raw = self.call(operation.clone(), call)?;
        let avro = raw.schema_type.as_deref().is_none_or(|kind| kind == "AVRO");
        match raw.schema {
            Some(text) if avro => Ok(RegisteredSchema { id: raw.id, version: raw.version, text: text.into() }),
            Some(_) => Err(RegistryError::Refused {
                url: self.inner.url.clone(),
                operation,
                code: 422,
                message: "the schema is not an Avro schema".to_owned(),
            }),
            None => Err(self.unavailable(operation, "the reply has no schema".to_owned())),
        }
    }

    /// Runs a call of the converter crate and classifies its failure.
    fn call<T, F>(&self, operation: String, call: impl FnOnce(SrSettings) -> F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, SRCError>> + Send + 'static,
    {
        let answer = self.wait(&operation, call(self.inner.settings.clone()))?;
        answer.map_err(|e| {
            let raw = std::error::Error::source(&e).and_then(|source| source.downcast_ref::<RawError>());
            match raw {
                Some(raw) if is_refusal(raw.error_code) => self.refused(operation, raw.error_code, &raw.message),
                _ => self.unavailable(operation, reason_of(&e)),
            }
        })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self
            .inner
            .http
            .request(method, format!("{}{path}", self.inner.url))
            .header("content-type", MEDIA_TYPE)
            .header("accept", MEDIA_TYPE);
        match &self.inner.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// Runs a call that the converter crate does not offer.
    fn json<T>(&self, operation: String, request: reqwest::RequestBuilder) -> Result<T, RegistryError>
    where
        T: for<'de> Deserialize<'de> + Send + 'static,
    {
        let answer = self.wait(&operation, async move {
            let response = request.send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.text().await?))
        })?;
        let (status, body) = match answer {
            Ok(answer) => answer,
            Err(e) => return Err(self.unavailable(operation, chain(&e))),
        };
        if status.is_success() {
            return serde_json::from_str(&body)
                .map_err(|e| self.unavailable(operation, format!("the reply cannot be parsed: {e}")));
        }
        match serde_json::from_str::<RawError>(&body) {
            Ok(raw) if is_refusal(raw.error_code) => Err(self.refused(operation, raw.error_code, &raw.message)),
            Ok(raw) => Err(self.unavailable(operation, raw.message)),
            Err(_) => Err(self.unavailable(operation, format!("it replies with status {status}"))),
        }
    }

    /// Runs a future on the client's own runtime. The HTTP client enforces the deadline; this wait is longer.
    fn wait<T: Send + 'static>(
        &self,
        operation: &str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (send, receive) = mpsc::sync_channel(1);
        if let Some(runtime) = &self.inner.runtime {
            runtime.spawn(async move {
                // The receiver is gone only if the caller's deadline has passed.
                let _ignored = send.send(future.await);
            });
        }
        receive
            .recv_timeout(self.inner.timeout * 2)
            .map_err(|_| self.unavailable(operation.to_owned(), "no reply in time".to_owned()))
    }

    fn refused(&self, operation: String, code: u32, message: &str) -> RegistryError {
        let message = crate::telemetry::printable(message, 400).into_owned();
        RegistryError::Refused { url: self.inner.url.clone(), operation, code, message }
    }

    fn unavailable(&self, operation: String, reason: String) -> RegistryError {
        RegistryError::Unavailable { url: self.inner.url.clone(), operation, reason }
    }
}

#[derive(Deserialize)]
struct Usage {
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct CompatibilityLevel {
    #[serde(alias = "compatibility", rename = "compatibilityLevel")]
    level: String,
}

#[derive(Deserialize)]
struct CompatibilityAnswer {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

fn schema_body(text: &str) -> String {
    json!({ "schema": text, "schemaType": "AVRO" }).to_string()
}

/// A subject as one path segment.
fn in_path(subject: &str) -> String {
    subject
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// The registry's error codes start with the HTTP status (40401), or are it (409).
fn http_class(code: u32) -> u32 {
    if code >= 10_000 { code / 100 } else { code }
}

/// Only a definite "does not exist" or "is invalid" is permanent. A refused login, for example, is for an operator to fix, and no
/// record must be dead-lettered because of it.
fn is_refusal(code: u32) -> bool {
    matches!(http_class(code), 404 | 409 | 422)
}

fn reason_of(error: &SRCError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{}: {}", error.error, chain(source)),
        None => error.error.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definite_refusal_is_permanent() {
        for code in [404, 40_401, 40_403, 409, 40_901, 42_201] {
            assert!(is_refusal(code), "{code}");
        }
        for code in [0, 401, 40_101, 429, 500, 50_001, 503] {
            assert!(!is_refusal(code), "{code}");
        }
    }

    #[test]
    fn a_subject_is_one_path_segment() {
        assert_eq!(in_path("com.musiccorp.payment.PaymentTaken"), "com.musiccorp.payment.PaymentTaken");
        assert_eq!(in_path("a/b?c"), "a%2Fb%3Fc");
    }

    #[tokio::test]
    async fn an_unreachable_registry_is_transient_even_from_async_code() {
        let mut config = Config::for_tests();
        config.registry_url = "http://127.0.0.1:1/apis/ccompat/v7/".to_owned();
        let error = RegistryClient::new(&config).expect("a client").schema_by_id(1).expect_err("no registry");
        assert!(error.is_transient());
        assert!(error.to_string().contains("http://127.0.0.1:1/apis/ccompat/v7 cannot give schema 1"), "{error}");
    }
}
