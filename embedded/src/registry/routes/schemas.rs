//! Schemas by id and by guid.

use std::collections::HashMap;

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use serde_json::json;

use super::{
    JsonResult, SharedStore, query_state,
    request::QueryOptions,
    response::{RegistryJson, text_response, version_json},
};
use crate::registry::{error::RegistryApiError, schema::ParsedSchema, state::RegistryState};

fn parse_id(text: &str) -> Result<u32, RegistryApiError> {
    text.parse().map_err(|_| RegistryApiError::IdNotFound(text.chars().take(60).collect()))
}

fn schema_by_id<'a>(state: &'a RegistryState, text: &str) -> Result<(u32, &'a ParsedSchema), RegistryApiError> {
    let id = parse_id(text)?;
    state.schema_by_id(id).map(|schema| (id, schema)).ok_or_else(|| RegistryApiError::IdNotFound(text.to_owned()))
}

pub(super) async fn list(State(store): SharedStore, Query(options): Query<QueryOptions>) -> JsonResult {
    query_state(store, move |state| {
        let mut versions: Vec<_> =
            state.all_versions(options.deleted).filter(|version| options.has_prefix(version.subject)).collect();
        if options.latest_only {
            // Versions are listed by subject, oldest first, so the last entry of a subject wins.
            let latest: HashMap<&str, u32> =
                versions.iter().map(|version| (version.subject, version.version)).collect();
            versions.retain(|version| latest.get(version.subject) == Some(&version.version));
        }
        Ok(RegistryJson(json!(options.page(versions.iter().map(version_json)))))
    })
    .await
}

pub(super) async fn get_by_id(
    State(store): SharedStore,
    Path(id): Path<String>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    query_state(store, move |state| {
        let (_, schema) = schema_by_id(state, &id)?;
        let mut body = json!({"schema": schema.text, "guid": schema.guid()});
        if options.fetch_max_id {
            body["maxId"] = json!(state.max_id());
        }
        Ok(RegistryJson(body))
    })
    .await
}

pub(super) async fn get_text_by_id(
    State(store): SharedStore,
    Path(id): Path<String>,
) -> Result<Response, RegistryApiError> {
    let text = query_state(store, move |state| Ok(schema_by_id(state, &id)?.1.text.clone())).await?;
    Ok(text_response(text))
}

pub(super) async fn get_subjects_of_id(
    State(store): SharedStore,
    Path(id): Path<String>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    query_state(store, move |state| {
        let (id, _) = schema_by_id(state, &id)?;
        let mut subjects: Vec<_> = state
            .all_versions(options.deleted)
            .filter(|version| version.id == id)
            .map(|version| version.subject)
            .collect();
        subjects.dedup();
        Ok(RegistryJson(json!(options.page(subjects.into_iter()))))
    })
    .await
}

pub(super) async fn get_versions_of_id(
    State(store): SharedStore,
    Path(id): Path<String>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    query_state(store, move |state| {
        let (id, _) = schema_by_id(state, &id)?;
        let versions = state
            .all_versions(options.deleted)
            .filter(|version| version.id == id)
            .filter(|version| options.subject.is_empty() || version.subject == options.subject)
            .map(|version| json!({"subject": version.subject, "version": version.version}));
        Ok(RegistryJson(json!(options.page(versions))))
    })
    .await
}

pub(super) async fn get_by_guid(State(store): SharedStore, Path(guid): Path<String>) -> JsonResult {
    query_state(store, move |state| {
        let (id, schema) =
            state.schema_by_guid(&guid).ok_or_else(|| RegistryApiError::IdNotFound(guid.chars().take(60).collect()))?;
        Ok(RegistryJson(json!({"schema": schema.text, "guid": schema.guid(), "id": id})))
    })
    .await
}
