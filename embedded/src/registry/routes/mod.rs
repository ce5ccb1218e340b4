//! The registry's HTTP calls, in Confluent's paths, shapes and error codes.
//!
//! A handler reads the request, asks the [`Store`] on a blocking thread, and shapes the answer; what a call means is in `state`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, Request, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Value, json};

use super::{
    error::RegistryError,
    schema::ParsedSchema,
    state::{Asked, Change, Found, Mode, State},
    store::Store,
};

/// A schema with its documentation is a few kilobytes; a hundred of the largest we know fit.
const MAX_BODY_BYTES: usize = 1 << 20;
/// No client waits longer for a registry, and no slow body may hold a connection for ever.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
const MAX_SUBJECT_BYTES: usize = 1024;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

pub(super) fn router(store: Arc<Store>) -> Router {
    Router::new()
        .route("/", get(async || Json(json!({}))))
        .route("/subjects", get(list_subjects))
        .route("/subjects/{subject}", post(look_up).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(list_versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(get_version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(get_version_text))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(get_referenced_by))
        .route("/contexts", get(async || Json(json!(["."]))))
        .route("/schemas", get(list_schemas))
        .route("/schemas/types", get(async || Json(json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(get_by_id))
        .route("/schemas/ids/{id}/schema", get(get_text_by_id))
        .route("/schemas/ids/{id}/subjects", get(get_subjects_of_id))
        .route("/schemas/ids/{id}/versions", get(get_versions_of_id))
        .route("/schemas/guids/{guid}", get(get_by_guid))
        .route("/compatibility/subjects/{subject}/versions", post(check_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(check_one))
        .route("/config", get(get_level).put(put_level).delete(delete_level))
        .route("/config/{subject}", get(get_subject_level).put(put_subject_level).delete(delete_subject_level))
        .route("/mode", get(get_mode).put(put_mode))
        .route("/mode/{subject}", get(get_subject_mode).put(put_subject_mode).delete(delete_subject_mode))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(finish))
        .with_state(store)
}

type Answer = Result<Json, RegistryError>;
type Registry = Shared<Arc<Store>>;

/// An answer's body. Its content type is chosen by [`finish`].
struct Json(Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], self.0.to_string()).into_response()
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        if matches!(self, RegistryError::Store(_)) {
            tracing::error!(error = %self, "schema registry");
        }
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({"error_code": self.code(), "message": self.to_string()}))).into_response()
    }
}

/// Around every call: the deadline, the framework's own refusals in the registry's shape, and the content type asked for.
async fn finish(request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let plain_json = accept.contains("application/json") && !accept.contains("vnd.schemaregistry");
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, 50002, "The request took too long"),
    };
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_ours(&response) {
        let message = match status {
            StatusCode::NOT_FOUND => format!("HTTP 404 Not Found: this registry has no {path}"),
            StatusCode::METHOD_NOT_ALLOWED => format!("HTTP 405 Method Not Allowed: {method} {path}"),
            StatusCode::PAYLOAD_TOO_LARGE => format!("The body is larger than {MAX_BODY_BYTES} bytes"),
            other => format!("HTTP {other}: a parameter of {path} is not understood"),
        };
        response = refusal(status, u32::from(status.as_u16()), &message);
    }
    if plain_json && is_ours(&response) {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

fn refusal(status: StatusCode, code: u32, message: &str) -> Response {
    (status, Json(json!({"error_code": code, "message": message}))).into_response()
}

fn is_ours(response: &Response<Body>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == MEDIA_TYPE)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    #[serde(deserialize_with = "flag")]
    deleted: bool,
    #[serde(deserialize_with = "flag")]
    deleted_only: bool,
    #[serde(deserialize_with = "flag")]
    permanent: bool,
    #[serde(deserialize_with = "flag")]
    verbose: bool,
    #[serde(deserialize_with = "flag")]
    default_to_global: bool,
    #[serde(deserialize_with = "flag")]
    latest_only: bool,
    #[serde(deserialize_with = "flag")]
    fetch_max_id: bool,
    subject_prefix: String,
    subject: String,
    offset: usize,
    limit: Option<i64>,
}

/// Clients write flags as their language prints them: `true`, `True`.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        _ => Err(D::Error::custom("a flag is true or false")),
    }
}

impl Options {
    fn page<T>(&self, items: impl Iterator<Item = T>) -> Vec<T> {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        items.skip(self.offset).take(limit).collect()
    }

    /// Confluent's tools ask for `:*:` when they mean every subject.
    fn has_prefix(&self, subject: &str) -> bool {
        self.subject_prefix == ":*:" || subject.starts_with(&self.subject_prefix)
    }
}

/// The body of the calls that bring a schema.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    schema: Option<String>,
    schema_type: Option<String>,
    references: Option<Vec<Value>>,
    metadata: Option<HashMap<String, Value>>,
    rule_set: Option<HashMap<String, Value>>,
    id: Option<i64>,
    version: Option<i64>,
}

impl SchemaBody {
    fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, RegistryError> {
        read_json(headers, body)
    }

    /// Parses the schema; refuses what this registry would otherwise silently forget.
    fn parse(&self) -> Result<ParsedSchema, RegistryError> {
        let refuse = |text: String| Err(RegistryError::InvalidSchema(text));
        match self.schema_type.as_deref() {
            None | Some("" | "AVRO") => {}
            Some(other) => return refuse(format!("this registry keeps AVRO schemas, not {other}")),
        }
        if self.references.as_ref().is_some_and(|references| !references.is_empty()) {
            return refuse("this registry takes no references: write the referenced types into the schema".to_owned());
        }
        let has_values =
            |map: &Option<HashMap<String, Value>>| map.iter().flat_map(HashMap::values).any(|value| !value.is_null());
        if has_values(&self.metadata) || has_values(&self.rule_set) {
            return refuse("this registry keeps no metadata and no rules: leave them out".to_owned());
        }
        match &self.schema {
            Some(text) => ParsedSchema::parse(text),
            None => refuse("the body has no 'schema'".to_owned()),
        }
    }

    /// Clients that copy registries ask for certain ids and versions.
    fn check_numbers(&self, subject: &str, id: u32, version: u32) -> Result<(), RegistryError> {
        if self.id.is_some_and(|asked| asked > 0 && asked != i64::from(id)) {
            return Err(RegistryError::NotPermitted(format!("Subject {subject} is not in import mode")));
        }
        if self.version.is_some_and(|asked| asked > 0 && asked != i64::from(version)) {
            return Err(RegistryError::InvalidSchema(format!("the next version of {subject} is {version}")));
        }
        Ok(())
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &Bytes) -> Result<T, RegistryError> {
    const UNDERSTOOD: [&str; 4] =
        [MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json", "application/octet-stream"];
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        let text = value.to_str().unwrap_or("not text");
        let media_type = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        if !UNDERSTOOD.contains(&media_type.as_str()) {
            return Err(RegistryError::UnsupportedMediaType(text.to_owned()));
        }
    }
    serde_json::from_slice(body).map_err(|error| RegistryError::MalformedBody(error.to_string()))
}

fn checked_subject(subject: String) -> Result<String, RegistryError> {
    if subject.trim().is_empty() || subject.len() > MAX_SUBJECT_BYTES || subject.chars().any(char::is_control) {
        let shown: String = subject.chars().filter(|c| !c.is_control()).take(60).collect();
        return Err(RegistryError::InvalidSubject(shown));
    }
    Ok(subject)
}

/// Asks the state on a blocking thread: parsing and comparing hostile schemas must not hold up the loop, nor a panic end it.
async fn read<T: Send + 'static>(
    store: Arc<Store>,
    ask: impl FnOnce(&State) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    blocking(move || store.read(ask)).await
}

async fn write<T: Send + 'static>(
    store: Arc<Store>,
    decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    blocking(move || store.write(decide)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RegistryError::Store(format!("the call ended early: {error}"))))
}

fn version_json(found: &Found<'_>) -> Value {
    json!({
        "subject": found.subject,
        "version": found.version,
        "id": found.id,
        "guid": found.schema.guid(),
        "schema": found.schema.text,
    })
}

// Subjects and versions.

async fn list_subjects(Shared(store): Registry, Query(options): Query<Options>) -> Answer {
    read(store, move |state| {
        let subjects =
            state.subjects(options.deleted, options.deleted_only).filter(|subject| options.has_prefix(subject));
        Ok(Json(json!(options.page(subjects))))
    })
    .await
}

async fn list_versions(Shared(store): Registry, Path(subject): Path<String>, Query(options): Query<Options>) -> Answer {
    read(store, move |state| {
        let versions = state.versions(&subject, options.deleted || options.deleted_only)?;
        let live: Vec<u32> =
            state.versions(&subject, false).unwrap_or_default().iter().map(|found| found.version).collect();
        let numbers = versions
            .iter()
            .map(|found| found.version)
            .filter(|version| !options.deleted_only || !live.contains(version));
        Ok(Json(json!(options.page(numbers))))
    })
    .await
}

async fn get_version(
    Shared(store): Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Answer {
    let asked = Asked::parse(&version)?;
    read(store, move |state| Ok(Json(version_json(&state.version(&subject, asked, options.deleted)?)))).await
}

async fn get_version_text(
    Shared(store): Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Result<Response, RegistryError> {
    let asked = Asked::parse(&version)?;
    let text =
        read(store, move |state| Ok(state.version(&subject, asked, options.deleted)?.schema.text.clone())).await?;
    Ok(text_answer(text))
}

fn text_answer(text: String) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response()
}

/// There are no references, so nothing refers to a version.
async fn get_referenced_by(Shared(store): Registry, Path((subject, version)): Path<(String, String)>) -> Answer {
    let asked = Asked::parse(&version)?;
    read(store, move |state| state.version(&subject, asked, true).map(|_| Json(json!([])))).await
}

async fn look_up(
    Shared(store): Registry,
    Path(subject): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body = SchemaBody::read(&headers, &body)?;
    read_parsed(store, body, move |state, schema| {
        Ok(Json(version_json(&state.look_up(&subject, &schema, options.deleted)?)))
    })
    .await
}

/// Parses outside the store's lock, then asks.
async fn read_parsed(
    store: Arc<Store>,
    body: SchemaBody,
    ask: impl FnOnce(&State, ParsedSchema) -> Answer + Send + 'static,
) -> Answer {
    blocking(move || {
        let schema = body.parse()?;
        store.read(|state| ask(state, schema))
    })
    .await
}

async fn register(Shared(store): Registry, Path(subject): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let subject = checked_subject(subject)?;
    let body = SchemaBody::read(&headers, &body)?;
    blocking(move || {
        let schema = body.parse()?;
        let (id, version) = store.write(|state| {
            let (id, version, changes) = state.register(&subject, &schema)?;
            body.check_numbers(&subject, id, version)?;
            Ok(((id, version), changes))
        })?;
        Ok(Json(json!({"id": id, "version": version, "guid": schema.guid(), "schema": schema.text})))
    })
    .await
}

async fn delete_subject(
    Shared(store): Registry,
    Path(subject): Path<String>,
    Query(options): Query<Options>,
) -> Answer {
    write(store, move |state| state.delete_subject(&subject, options.permanent)).await.map(|v| Json(json!(v)))
}

async fn delete_version(
    Shared(store): Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Answer {
    let asked = Asked::parse(&version)?;
    write(store, move |state| state.delete_version(&subject, asked, options.permanent)).await.map(|v| Json(json!(v)))
}

// Schemas by id.

fn parse_id(text: &str) -> Result<u32, RegistryError> {
    text.parse().map_err(|_| RegistryError::IdNotFound(text.chars().take(60).collect()))
}

fn schema_by_id<'a>(state: &'a State, text: &str) -> Result<(u32, &'a ParsedSchema), RegistryError> {
    let id = parse_id(text)?;
    state.by_id(id).map(|schema| (id, schema)).ok_or_else(|| RegistryError::IdNotFound(text.to_owned()))
}

async fn list_schemas(Shared(store): Registry, Query(options): Query<Options>) -> Answer {
    read(store, move |state| {
        let mut found: Vec<_> =
            state.all_versions(options.deleted).filter(|found| options.has_prefix(found.subject)).collect();
        if options.latest_only {
            // Versions of one subject stand together, oldest first.
            let latest: HashMap<&str, u32> = found.iter().map(|found| (found.subject, found.version)).collect();
            found.retain(|found| latest.get(found.subject) == Some(&found.version));
        }
        Ok(Json(json!(options.page(found.iter().map(version_json)))))
    })
    .await
}

async fn get_by_id(Shared(store): Registry, Path(id): Path<String>, Query(options): Query<Options>) -> Answer {
    read(store, move |state| {
        let (_, schema) = schema_by_id(state, &id)?;
        let mut answer = json!({"schema": schema.text, "guid": schema.guid()});
        if options.fetch_max_id {
            answer["maxId"] = json!(state.max_id());
        }
        Ok(Json(answer))
    })
    .await
}

async fn get_text_by_id(Shared(store): Registry, Path(id): Path<String>) -> Result<Response, RegistryError> {
    let text = read(store, move |state| Ok(schema_by_id(state, &id)?.1.text.clone())).await?;
    Ok(text_answer(text))
}

async fn get_subjects_of_id(Shared(store): Registry, Path(id): Path<String>, Query(options): Query<Options>) -> Answer {
    read(store, move |state| {
        let (id, _) = schema_by_id(state, &id)?;
        let mut subjects: Vec<_> =
            state.all_versions(options.deleted).filter(|found| found.id == id).map(|found| found.subject).collect();
        subjects.dedup();
        Ok(Json(json!(options.page(subjects.into_iter()))))
    })
    .await
}

async fn get_versions_of_id(Shared(store): Registry, Path(id): Path<String>, Query(options): Query<Options>) -> Answer {
    read(store, move |state| {
        let (id, _) = schema_by_id(state, &id)?;
        let versions = state
            .all_versions(options.deleted)
            .filter(|found| found.id == id && (options.subject.is_empty() || found.subject == options.subject))
            .map(|found| json!({"subject": found.subject, "version": found.version}));
        Ok(Json(json!(options.page(versions))))
    })
    .await
}

async fn get_by_guid(Shared(store): Registry, Path(guid): Path<String>) -> Answer {
    read(store, move |state| {
        let (id, schema) =
            state.by_guid(&guid).ok_or_else(|| RegistryError::IdNotFound(guid.chars().take(60).collect()))?;
        Ok(Json(json!({"schema": schema.text, "guid": schema.guid(), "id": id})))
    })
    .await
}

// Compatibility.

async fn check_all(
    Shared(store): Registry,
    Path(subject): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body = SchemaBody::read(&headers, &body)?;
    read_parsed(store, body, move |state, schema| {
        let earlier = state.versions(&subject, false).unwrap_or_default();
        Ok(verdict(state.compatible(&subject, &schema, &earlier), options.verbose))
    })
    .await
}

async fn check_one(
    Shared(store): Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let asked = Asked::parse(&version)?;
    let body = SchemaBody::read(&headers, &body)?;
    read_parsed(store, body, move |state, schema| {
        let earlier = match (state.version(&subject, asked, false), asked) {
            (Ok(found), _) => vec![found],
            // The first schema of a subject goes with any latest version there is.
            (Err(_), Asked::Latest) => Vec::new(),
            (Err(error), Asked::Number(_)) => return Err(error),
        };
        Ok(verdict(state.compatible(&subject, &schema, &earlier), options.verbose))
    })
    .await
}

fn verdict(compatible: Result<(), Vec<String>>, verbose: bool) -> Json {
    let mut answer = json!({"is_compatible": compatible.is_ok()});
    if verbose {
        answer["messages"] = json!(compatible.err().unwrap_or_default());
    }
    Json(answer)
}

// Levels and modes.

#[derive(Debug, Deserialize)]
struct LevelBody {
    compatibility: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ModeBody {
    mode: String,
}

async fn get_level(Shared(store): Registry) -> Answer {
    read(store, |state| Ok(Json(json!({"compatibilityLevel": state.level().name()})))).await
}

async fn get_subject_level(
    Shared(store): Registry,
    Path(subject): Path<String>,
    Query(options): Query<Options>,
) -> Answer {
    read(store, move |state| {
        let level = match state.level_of(&subject) {
            Some(level) => level,
            None if options.default_to_global => state.level(),
            None => return Err(RegistryError::LevelNotConfigured(subject)),
        };
        Ok(Json(json!({"compatibilityLevel": level.name()})))
    })
    .await
}

async fn put_level(store: Registry, headers: HeaderMap, body: Bytes) -> Answer {
    set_level(store, None, &headers, &body).await
}

async fn put_subject_level(store: Registry, Path(subject): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    set_level(store, Some(checked_subject(subject)?), &headers, &body).await
}

async fn set_level(Shared(store): Registry, subject: Option<String>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body: LevelBody = read_json(headers, body)?;
    let level: avro_compat::Level = body.compatibility.as_deref().unwrap_or("").parse()?;
    write(store, move |state| {
        let current = match &subject {
            Some(subject) => state.level_of(subject),
            None => state.configured_level(),
        };
        let change = Change::Level { subject, level: Some(level.name().to_owned()) };
        Ok(((), if current == Some(level) { Vec::new() } else { vec![change] }))
    })
    .await?;
    Ok(Json(json!({"compatibility": level.name()})))
}

async fn delete_level(Shared(store): Registry) -> Answer {
    let old = write(store, |state| Ok((state.level(), vec![Change::Level { subject: None, level: None }]))).await?;
    Ok(Json(json!({"compatibilityLevel": old.name()})))
}

async fn delete_subject_level(Shared(store): Registry, Path(subject): Path<String>) -> Answer {
    let old = write(store, move |state| {
        let old = state.level_of(&subject).ok_or_else(|| RegistryError::SubjectNotFound(subject.clone()))?;
        Ok((old, vec![Change::Level { subject: Some(subject), level: None }]))
    })
    .await?;
    Ok(Json(json!({"compatibilityLevel": old.name()})))
}

async fn get_mode(Shared(store): Registry) -> Answer {
    read(store, |state| Ok(Json(json!({"mode": state.mode().name()})))).await
}

async fn get_subject_mode(
    Shared(store): Registry,
    Path(subject): Path<String>,
    Query(options): Query<Options>,
) -> Answer {
    read(store, move |state| {
        let mode = match state.mode_of(&subject) {
            Some(mode) => mode,
            None if options.default_to_global => state.mode(),
            None => return Err(RegistryError::ModeNotConfigured(subject)),
        };
        Ok(Json(json!({"mode": mode.name()})))
    })
    .await
}

async fn put_mode(store: Registry, headers: HeaderMap, body: Bytes) -> Answer {
    set_mode(store, None, &headers, &body).await
}

async fn put_subject_mode(store: Registry, Path(subject): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    set_mode(store, Some(checked_subject(subject)?), &headers, &body).await
}

async fn set_mode(Shared(store): Registry, subject: Option<String>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body: ModeBody = read_json(headers, body)?;
    let mode = Mode::parse(&body.mode)?;
    write(store, move |_| Ok(((), vec![Change::Mode { subject, mode: Some(mode) }]))).await?;
    Ok(Json(json!({"mode": mode.name()})))
}

async fn delete_subject_mode(Shared(store): Registry, Path(subject): Path<String>) -> Answer {
    let old = write(store, move |state| {
        let old = state.mode_of(&subject).ok_or_else(|| RegistryError::SubjectNotFound(subject.clone()))?;
        Ok((old, vec![Change::Mode { subject: Some(subject), mode: None }]))
    })
    .await?;
    Ok(Json(json!({"mode": old.name()})))
}
