//! Requests: query parameters and bodies from outside, checked.

use std::collections::HashMap;

use axum::{
    body::Bytes,
    http::{HeaderMap, header},
};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use super::response::MEDIA_TYPE;
use crate::registry::{error::RegistryApiError, schema::ParsedSchema};

const MAX_SUBJECT_BYTES: usize = 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct QueryOptions {
    #[serde(deserialize_with = "parse_flag")]
    pub(super) deleted: bool,
    #[serde(deserialize_with = "parse_flag")]
    pub(super) deleted_only: bool,
    #[serde(deserialize_with = "parse_flag")]
    pub(super) permanent: bool,
    #[serde(deserialize_with = "parse_flag")]
    pub(super) verbose: bool,
    #[serde(deserialize_with = "parse_flag")]
    pub(super) default_to_global: bool,
    #[serde(deserialize_with = "parse_flag")]
    pub(super) latest_only: bool,
    #[serde(deserialize_with = "parse_flag")]
    pub(super) fetch_max_id: bool,
    subject_prefix: String,
    pub(super) subject: String,
    offset: usize,
    limit: Option<i64>,
}

/// Clients write flags as their language prints them: `true`, `True`.
fn parse_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        _ => Err(D::Error::custom("a flag is true or false")),
    }
}

impl QueryOptions {
    pub(super) fn page<T>(&self, items: impl Iterator<Item = T>) -> Vec<T> {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        items.skip(self.offset).take(limit).collect()
    }

    /// Confluent's tools send `:*:` to select every subject.
    pub(super) fn has_prefix(&self, subject: &str) -> bool {
        self.subject_prefix == ":*:" || subject.starts_with(&self.subject_prefix)
    }
}

/// The body of the calls that carry a schema.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaBody {
    schema: Option<String>,
    schema_type: Option<String>,
    references: Option<Vec<Value>>,
    metadata: Option<HashMap<String, Value>>,
    rule_set: Option<HashMap<String, Value>>,
    id: Option<i64>,
    version: Option<i64>,
}

impl SchemaBody {
    pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, RegistryApiError> {
        read_json(headers, body)
    }

    /// Parses the schema. Properties that this registry does not store are refused, so that no client relies on them.
    pub(super) fn parse(&self) -> Result<ParsedSchema, RegistryApiError> {
        let invalid = |text: String| Err(RegistryApiError::InvalidSchema(text));
        match self.schema_type.as_deref() {
            None | Some("" | "AVRO") => {}
            Some(other) => return invalid(format!("this registry keeps AVRO schemas, not {other}")),
        }
        if self.references.as_ref().is_some_and(|references| !references.is_empty()) {
            return invalid("this registry takes no references: write the referenced types into the schema".to_owned());
        }
        let has_values =
            |map: &Option<HashMap<String, Value>>| map.iter().flat_map(HashMap::values).any(|value| !value.is_null());
        if has_values(&self.metadata) || has_values(&self.rule_set) {
            return invalid("this registry keeps no metadata and no rules: leave them out".to_owned());
        }
        match &self.schema {
            Some(text) => ParsedSchema::parse(text),
            None => invalid("the body has no 'schema'".to_owned()),
        }
    }

    /// Clients that copy a registry ask for particular ids and versions.
    pub(super) fn check_numbers(&self, subject: &str, id: u32, version: u32) -> Result<(), RegistryApiError> {
        if self.id.is_some_and(|requested| requested > 0 && requested != i64::from(id)) {
            return Err(RegistryApiError::NotPermitted(format!("Subject {subject} is not in import mode")));
        }
        if self.version.is_some_and(|requested| requested > 0 && requested != i64::from(version)) {
            return Err(RegistryApiError::InvalidSchema(format!("the next version of {subject} is {version}")));
        }
        Ok(())
    }
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<T, RegistryApiError> {
    const ACCEPTED: [&str; 4] =
        [MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json", "application/octet-stream"];
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        let text = value.to_str().unwrap_or("not text");
        let media_type = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        if !ACCEPTED.contains(&media_type.as_str()) {
            return Err(RegistryApiError::UnsupportedMediaType(text.to_owned()));
        }
    }
    serde_json::from_slice(body).map_err(|error| RegistryApiError::MalformedBody(error.to_string()))
}

pub(super) fn checked_subject(subject: String) -> Result<String, RegistryApiError> {
    if subject.trim().is_empty() || subject.len() > MAX_SUBJECT_BYTES || subject.chars().any(char::is_control) {
        let printable: String = subject.chars().filter(|c| !c.is_control()).take(60).collect();
        return Err(RegistryApiError::InvalidSubject(printable));
    }
    Ok(subject)
}
