//! Subjects and their versions: list, find, register, delete.

use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use serde_json::json;

use super::{
    JsonResult, SharedStore, change_state, query_state, query_with_schema,
    request::{QueryOptions, SchemaBody, checked_subject},
    response::{RegistryJson, text_response, version_json},
    run_blocking,
};
use crate::registry::{error::RegistryApiError, state::VersionSelector};

pub(super) async fn list(State(store): SharedStore, Query(options): Query<QueryOptions>) -> JsonResult {
    query_state(store, move |state| {
        let subjects =
            state.subjects(options.deleted, options.deleted_only).filter(|subject| options.has_prefix(subject));
        Ok(RegistryJson(json!(options.page(subjects))))
    })
    .await
}

pub(super) async fn list_versions(
    State(store): SharedStore,
    Path(subject): Path<String>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    query_state(store, move |state| {
        let versions = state.versions(&subject, options.deleted || options.deleted_only)?;
        let live: Vec<u32> =
            state.versions(&subject, false).unwrap_or_default().iter().map(|version| version.version).collect();
        let numbers = versions
            .iter()
            .map(|version| version.version)
            .filter(|number| !options.deleted_only || !live.contains(number));
        Ok(RegistryJson(json!(options.page(numbers))))
    })
    .await
}

pub(super) async fn get_version(
    State(store): SharedStore,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    let selector = VersionSelector::parse(&version)?;
    query_state(store, move |state| {
        Ok(RegistryJson(version_json(&state.version(&subject, selector, options.deleted)?)))
    })
    .await
}

pub(super) async fn get_version_text(
    State(store): SharedStore,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<QueryOptions>,
) -> Result<Response, RegistryApiError> {
    let selector = VersionSelector::parse(&version)?;
    let text =
        query_state(store, move |state| Ok(state.version(&subject, selector, options.deleted)?.schema.text.clone()))
            .await?;
    Ok(text_response(text))
}

/// The list is always empty: this registry stores no references.
pub(super) async fn get_referenced_by(
    State(store): SharedStore,
    Path((subject, version)): Path<(String, String)>,
) -> JsonResult {
    let selector = VersionSelector::parse(&version)?;
    query_state(store, move |state| state.version(&subject, selector, true).map(|_| RegistryJson(json!([])))).await
}

pub(super) async fn look_up(
    State(store): SharedStore,
    Path(subject): Path<String>,
    Query(options): Query<QueryOptions>,
    headers: HeaderMap,
    body: Bytes,
) -> JsonResult {
    let body = SchemaBody::read(&headers, &body)?;
    query_with_schema(store, body, move |state, schema| {
        Ok(RegistryJson(version_json(&state.look_up(&subject, &schema, options.deleted)?)))
    })
    .await
}

pub(super) async fn register(
    State(store): SharedStore,
    Path(subject): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> JsonResult {
    let subject = checked_subject(subject)?;
    let body = SchemaBody::read(&headers, &body)?;
    run_blocking(move || {
        let schema = body.parse()?;
        let (id, version) = store.write(|state| {
            let (id, version, changes) = state.register(&subject, &schema)?;
            body.check_numbers(&subject, id, version)?;
            Ok(((id, version), changes))
        })?;
        Ok(RegistryJson(json!({"id": id, "version": version, "guid": schema.guid(), "schema": schema.text})))
    })
    .await
}

pub(super) async fn delete(
    State(store): SharedStore,
    Path(subject): Path<String>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    let deleted = change_state(store, move |state| state.delete_subject(&subject, options.permanent)).await?;
    Ok(RegistryJson(json!(deleted)))
}

pub(super) async fn delete_version(
    State(store): SharedStore,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    let selector = VersionSelector::parse(&version)?;
    let deleted = change_state(store, move |state| state.delete_version(&subject, selector, options.permanent)).await?;
    Ok(RegistryJson(json!(deleted)))
}
