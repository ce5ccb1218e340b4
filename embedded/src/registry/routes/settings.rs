//! The two settings that are global or a subject's own: the compatibility level (`/config`) and the mode (`/mode`).

use avro_compat::Level;
use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::HeaderMap,
};
use serde_json::{Value, json};

use super::{
    JsonResult, SharedStore, change_state, query_state,
    request::{QueryOptions, checked_subject, read_json},
    response::RegistryJson,
};
use crate::registry::{
    error::RegistryApiError,
    state::{RegistryChange, RegistryState, SubjectMode},
};

/// What a level and a mode have in common.
pub(super) trait SubjectSetting: Copy + PartialEq + Send + 'static {
    /// The field that holds it where it is read.
    const READ_FIELD: &'static str;
    /// The field that holds it where it is set.
    const WRITE_FIELD: &'static str;

    fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, RegistryApiError>;
    fn name(self) -> &'static str;
    /// The global value in force.
    fn global(state: &RegistryState) -> Self;
    /// The value that a client has set, globally or for a subject.
    fn configured(state: &RegistryState, subject: Option<&str>) -> Option<Self>;
    fn not_configured(subject: String) -> RegistryApiError;
    fn change(subject: Option<String>, value: Option<Self>) -> RegistryChange;
}

impl SubjectSetting for Level {
    const READ_FIELD: &'static str = "compatibilityLevel";
    const WRITE_FIELD: &'static str = "compatibility";

    fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, RegistryApiError> {
        #[derive(serde::Deserialize)]
        struct LevelBody {
            compatibility: Option<String>,
        }
        let body: LevelBody = read_json(headers, body)?;
        Ok(body.compatibility.as_deref().unwrap_or("").parse()?)
    }

    fn name(self) -> &'static str {
        Level::name(self)
    }

    fn global(state: &RegistryState) -> Self {
        state.level()
    }

    fn configured(state: &RegistryState, subject: Option<&str>) -> Option<Self> {
        state.configured_level(subject)
    }

    fn not_configured(subject: String) -> RegistryApiError {
        RegistryApiError::LevelNotConfigured(subject)
    }

    fn change(subject: Option<String>, value: Option<Self>) -> RegistryChange {
        RegistryChange::Level { subject, level: value.map(|level| level.name().to_owned()) }
    }
}

impl SubjectSetting for SubjectMode {
    const READ_FIELD: &'static str = "mode";
    const WRITE_FIELD: &'static str = "mode";

    fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, RegistryApiError> {
        #[derive(serde::Deserialize)]
        struct ModeBody {
            mode: String,
        }
        let body: ModeBody = read_json(headers, body)?;
        SubjectMode::parse(&body.mode)
    }

    fn name(self) -> &'static str {
        SubjectMode::name(self)
    }

    fn global(state: &RegistryState) -> Self {
        state.mode()
    }

    fn configured(state: &RegistryState, subject: Option<&str>) -> Option<Self> {
        state.configured_mode(subject)
    }

    fn not_configured(subject: String) -> RegistryApiError {
        RegistryApiError::ModeNotConfigured(subject)
    }

    fn change(subject: Option<String>, value: Option<Self>) -> RegistryChange {
        RegistryChange::Mode { subject, mode: value }
    }
}

fn read_json_of<S: SubjectSetting>(value: S) -> RegistryJson {
    RegistryJson(field(S::READ_FIELD, value.name()))
}

fn field(name: &str, value: &str) -> Value {
    json!({ name: value })
}

pub(super) async fn get_global<S: SubjectSetting>(State(store): SharedStore) -> JsonResult {
    query_state(store, |state| Ok(read_json_of(S::global(state)))).await
}

pub(super) async fn get_of_subject<S: SubjectSetting>(
    State(store): SharedStore,
    Path(subject): Path<String>,
    Query(options): Query<QueryOptions>,
) -> JsonResult {
    query_state(store, move |state| match S::configured(state, Some(&subject)) {
        Some(value) => Ok(read_json_of(value)),
        None if options.default_to_global => Ok(read_json_of(S::global(state))),
        None => Err(S::not_configured(subject)),
    })
    .await
}

pub(super) async fn put_global<S: SubjectSetting>(store: SharedStore, headers: HeaderMap, body: Bytes) -> JsonResult {
    put::<S>(store, None, &headers, &body).await
}

pub(super) async fn put_of_subject<S: SubjectSetting>(
    store: SharedStore,
    Path(subject): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> JsonResult {
    put::<S>(store, Some(checked_subject(subject)?), &headers, &body).await
}

async fn put<S: SubjectSetting>(
    State(store): SharedStore,
    subject: Option<String>,
    headers: &HeaderMap,
    body: &Bytes,
) -> JsonResult {
    let value = S::read(headers, body)?;
    change_state(store, move |state| {
        let unchanged = S::configured(state, subject.as_deref()) == Some(value);
        Ok(((), if unchanged { Vec::new() } else { vec![S::change(subject, Some(value))] }))
    })
    .await?;
    Ok(RegistryJson(field(S::WRITE_FIELD, value.name())))
}

/// Returns to the level the registry was started with.
pub(super) async fn delete_global_level(State(store): SharedStore) -> JsonResult {
    let former = change_state(store, |state| Ok((state.level(), vec![Level::change(None, None)]))).await?;
    Ok(read_json_of(former))
}

pub(super) async fn delete_of_subject<S: SubjectSetting>(
    State(store): SharedStore,
    Path(subject): Path<String>,
) -> JsonResult {
    let former = change_state(store, move |state| {
        let former =
            S::configured(state, Some(&subject)).ok_or_else(|| RegistryApiError::SubjectNotFound(subject.clone()))?;
        Ok((former, vec![S::change(Some(subject), None)]))
    })
    .await?;
    Ok(read_json_of(former))
}
