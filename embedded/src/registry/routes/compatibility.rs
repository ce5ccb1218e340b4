//! Compatibility checks: whether a schema could be registered, and why not. They register nothing.

use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::HeaderMap,
};
use serde_json::json;

use super::{
    JsonResult, SharedStore, query_with_schema,
    request::{QueryOptions, SchemaBody},
    response::RegistryJson,
};
use crate::registry::state::VersionSelector;

pub(super) async fn check_all_versions(
    State(store): SharedStore,
    Path(subject): Path<String>,
    Query(options): Query<QueryOptions>,
    headers: HeaderMap,
    body: Bytes,
) -> JsonResult {
    let body = SchemaBody::read(&headers, &body)?;
    query_with_schema(store, body, move |state, schema| {
        let earlier = state.versions(&subject, false).unwrap_or_default();
        Ok(result_json(state.check_compatibility(&subject, &schema, &earlier), options.verbose))
    })
    .await
}

pub(super) async fn check_one_version(
    State(store): SharedStore,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<QueryOptions>,
    headers: HeaderMap,
    body: Bytes,
) -> JsonResult {
    let selector = VersionSelector::parse(&version)?;
    let body = SchemaBody::read(&headers, &body)?;
    query_with_schema(store, body, move |state, schema| {
        let earlier = match (state.version(&subject, selector, false), selector) {
            (Ok(version), _) => vec![version],
            // A subject without versions has no latest version that the schema could contradict.
            (Err(_), VersionSelector::Latest) => Vec::new(),
            (Err(error), VersionSelector::Number(_)) => return Err(error),
        };
        Ok(result_json(state.check_compatibility(&subject, &schema, &earlier), options.verbose))
    })
    .await
}

fn result_json(result: Result<(), Vec<String>>, verbose: bool) -> RegistryJson {
    let mut body = json!({"is_compatible": result.is_ok()});
    if verbose {
        body["messages"] = json!(result.err().unwrap_or_default());
    }
    RegistryJson(body)
}
