//! The registry's HTTP calls: Confluent's paths, JSON and error codes.
//!
//! A handler reads the request (`request`), queries or changes the [`RegistryStore`] on a blocking thread, and writes the response
//! (`response`). The meaning of each call is in `super::state`.

mod compatibility;
mod request;
mod response;
mod schemas;
mod settings;
mod subjects;

use std::sync::Arc;

use avro_compat::Level;
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    middleware,
    routing::{get, post},
};
use serde_json::json;

use self::response::RegistryJson;
use super::{
    error::RegistryApiError,
    schema::ParsedSchema,
    state::{RegistryChange, RegistryState, SubjectMode},
    store::RegistryStore,
};

/// A schema with its documentation takes a few kilobytes; this is a hundred times the largest schema we know.
const MAX_BODY_BYTES: usize = 1 << 20;

type SharedStore = State<Arc<RegistryStore>>;
type JsonResult = Result<RegistryJson, RegistryApiError>;

pub(super) fn router(store: Arc<RegistryStore>) -> Router {
    Router::new()
        .route("/", get(async || RegistryJson(json!({}))))
        .route("/subjects", get(subjects::list))
        .route("/subjects/{subject}", post(subjects::look_up).delete(subjects::delete))
        .route("/subjects/{subject}/versions", get(subjects::list_versions).post(subjects::register))
        .route("/subjects/{subject}/versions/{version}", get(subjects::get_version).delete(subjects::delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(subjects::get_version_text))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(subjects::get_referenced_by))
        .route("/contexts", get(async || RegistryJson(json!(["."]))))
        .route("/schemas", get(schemas::list))
        .route("/schemas/types", get(async || RegistryJson(json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(schemas::get_by_id))
        .route("/schemas/ids/{id}/schema", get(schemas::get_text_by_id))
        .route("/schemas/ids/{id}/subjects", get(schemas::get_subjects_of_id))
        .route("/schemas/ids/{id}/versions", get(schemas::get_versions_of_id))
        .route("/schemas/guids/{guid}", get(schemas::get_by_guid))
        .route("/compatibility/subjects/{subject}/versions", post(compatibility::check_all_versions))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatibility::check_one_version))
        .route(
            "/config",
            get(settings::get_global::<Level>).put(settings::put_global::<Level>).delete(settings::delete_global_level),
        )
        .route(
            "/config/{subject}",
            get(settings::get_of_subject::<Level>)
                .put(settings::put_of_subject::<Level>)
                .delete(settings::delete_of_subject::<Level>),
        )
        .route("/mode", get(settings::get_global::<SubjectMode>).put(settings::put_global::<SubjectMode>))
        .route(
            "/mode/{subject}",
            get(settings::get_of_subject::<SubjectMode>)
                .put(settings::put_of_subject::<SubjectMode>)
                .delete(settings::delete_of_subject::<SubjectMode>),
        )
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(response::finish))
        .with_state(store)
}

/// Queries the state on a blocking thread: parsing and comparing hostile schemas must neither delay other requests nor end the
/// server with a panic.
async fn query_state<T: Send + 'static>(
    store: Arc<RegistryStore>,
    query: impl FnOnce(&RegistryState) -> Result<T, RegistryApiError> + Send + 'static,
) -> Result<T, RegistryApiError> {
    run_blocking(move || store.read(query)).await
}

/// Parses the schema before it takes the store's lock, then queries the state.
async fn query_with_schema(
    store: Arc<RegistryStore>,
    body: request::SchemaBody,
    query: impl FnOnce(&RegistryState, ParsedSchema) -> JsonResult + Send + 'static,
) -> JsonResult {
    run_blocking(move || {
        let schema = body.parse()?;
        store.read(|state| query(state, schema))
    })
    .await
}

async fn change_state<T: Send + 'static>(
    store: Arc<RegistryStore>,
    decide: impl FnOnce(&RegistryState) -> Result<(T, Vec<RegistryChange>), RegistryApiError> + Send + 'static,
) -> Result<T, RegistryApiError> {
    run_blocking(move || store.write(decide)).await
}

async fn run_blocking<T: Send + 'static>(
    operation: impl FnOnce() -> Result<T, RegistryApiError> + Send + 'static,
) -> Result<T, RegistryApiError> {
    tokio::task::spawn_blocking(operation)
        .await
        .unwrap_or_else(|error| Err(RegistryApiError::Store(format!("the call ended early: {error}"))))
}
