//! Schema text from clients: parsed, and normalized to the form in which it is stored and compared.
//!
//! The stored form is that of Avro's own tools: no white space, primitives as plain names, attributes in a fixed order, names
//! without the namespace they inherit. Two texts that differ only in these points are one schema with one id.

use std::sync::Arc;

use apache_avro::Schema;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::RegistryApiError;

/// A schema that this registry can store.
#[derive(Debug, Clone)]
pub(super) struct ParsedSchema {
    /// The stored form.
    pub(super) text: String,
    /// The input of the compatibility check.
    pub(super) schema: Arc<Schema>,
}

impl ParsedSchema {
    /// Parses a text from a client.
    pub(super) fn parse(text: &str) -> Result<Self, RegistryApiError> {
        let invalid = |reason: &dyn std::fmt::Display| RegistryApiError::InvalidSchema(shortened(&reason.to_string()));
        if text.trim().is_empty() {
            return Err(RegistryApiError::InvalidSchema("the schema is empty".to_owned()));
        }
        let json: Value = serde_json::from_str(text).map_err(|error| invalid(&error))?;
        let schema = Schema::parse(&json).map_err(|error| invalid(&error))?;
        let canonical = canonical_text(&json);
        // A name outside any namespace has no short form inside one. Such a schema is stored unchanged.
        let text = match Schema::parse_str(&canonical) {
            Ok(again) if again == schema => canonical,
            _ => json.to_string(),
        };
        Ok(Self { text, schema: Arc::new(schema) })
    }

    /// Parses a text that this registry stored.
    pub(super) fn stored(text: String) -> Result<Self, String> {
        let schema = Schema::parse_str(&text).map_err(|error| shortened(&error.to_string()))?;
        Ok(Self { text, schema: Arc::new(schema) })
    }

    /// The same schema has the same guid in every embedded registry.
    pub(super) fn guid(&self) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, self.text.as_bytes())
    }
}

/// Parser errors quote whole schemas; a response should not.
fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 500;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// The stored form of a schema that parses.
fn canonical_text(json: &Value) -> String {
    let mut out = String::new();
    write_schema(&mut out, json, None);
    out
}

fn write_schema(out: &mut String, json: &Value, namespace: Option<&str>) {
    match json {
        Value::String(name) => write_name(out, name, namespace),
        Value::Array(branches) => write_list(out, branches, |out, branch| write_schema(out, branch, namespace)),
        Value::Object(object) => write_complex(out, object, namespace),
        other => out.push_str(&other.to_string()),
    }
}

fn write_complex(out: &mut String, object: &Map<String, Value>, namespace: Option<&str>) {
    match object.get("type") {
        Some(Value::String(kind)) => match kind.as_str() {
            "record" | "error" | "enum" | "fixed" => write_named(out, object, kind, namespace),
            "array" => write_container(out, object, "array", "items", namespace),
            "map" => write_container(out, object, "map", "values", namespace),
            name => write_annotated(out, object, |out| write_name(out, name, namespace)),
        },
        Some(inner) => write_annotated(out, object, |out| write_schema(out, inner, namespace)),
        None => out.push_str(&Value::Object(object.clone()).to_string()),
    }
}

/// A type with its properties (`logicalType`), or only the type if it has none.
fn write_annotated(out: &mut String, object: &Map<String, Value>, write_inner: impl FnOnce(&mut String)) {
    if properties(object, &SCHEMA_ATTRIBUTES).next().is_none() {
        return write_inner(out);
    }
    let mut members = ObjectWriter::open(out);
    write_inner(members.member("type"));
    members.properties(object, &SCHEMA_ATTRIBUTES);
    members.close();
}

fn write_container(out: &mut String, object: &Map<String, Value>, kind: &str, inner: &str, namespace: Option<&str>) {
    let mut members = ObjectWriter::open(out);
    members.text("type", kind);
    if let Some(schema) = object.get(inner) {
        write_schema(members.member(inner), schema, namespace);
    }
    members.properties(object, &SCHEMA_ATTRIBUTES);
    members.close();
}

fn write_named(out: &mut String, object: &Map<String, Value>, kind: &str, enclosing: Option<&str>) {
    let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
    let stated = object.get("namespace").and_then(Value::as_str);
    let (namespace, short) = match name.rsplit_once('.') {
        Some((namespace, short)) => (Some(namespace), short),
        None => (stated.or(enclosing), name),
    };
    let namespace = namespace.filter(|namespace| !namespace.is_empty());
    let mut members = ObjectWriter::open(out);
    members.text("type", kind);
    members.text("name", short);
    if namespace != enclosing {
        members.text("namespace", namespace.unwrap_or_default());
    }
    if let Some(Value::String(doc)) = object.get("doc") {
        members.text("doc", doc);
    }
    match kind {
        "enum" => {
            members.copy(object, "symbols");
            members.copy(object, "default");
        }
        "fixed" => members.copy(object, "size"),
        _ => {
            let fields = object.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            write_list(members.member("fields"), fields, |out, field| write_field(out, field, namespace));
        }
    }
    members.properties(object, if kind == "enum" { &ENUM_ATTRIBUTES } else { &SCHEMA_ATTRIBUTES });
    members.copy(object, "aliases");
    members.close();
}

fn write_field(out: &mut String, field: &Value, namespace: Option<&str>) {
    let Value::Object(field) = field else {
        return out.push_str(&field.to_string());
    };
    let mut members = ObjectWriter::open(out);
    members.copy(field, "name");
    if let Some(schema) = field.get("type") {
        write_schema(members.member("type"), schema, namespace);
    }
    members.copy(field, "doc");
    members.copy(field, "default");
    if field.get("order").and_then(Value::as_str).is_some_and(|order| order != "ascending") {
        members.copy(field, "order");
    }
    members.copy(field, "aliases");
    members.properties(field, &FIELD_ATTRIBUTES);
    members.close();
}

/// A primitive, or a reference in its shortest form.
fn write_name(out: &mut String, name: &str, namespace: Option<&str>) {
    let short = match name.rsplit_once('.') {
        Some((space, short)) if Some(space) == namespace && !PRIMITIVES.contains(&short) => short,
        _ => name,
    };
    out.push_str(&Value::from(short).to_string());
}

fn write_list(out: &mut String, items: &[Value], mut write: impl FnMut(&mut String, &Value)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

const SCHEMA_ATTRIBUTES: [&str; 10] =
    ["type", "name", "namespace", "doc", "fields", "symbols", "size", "items", "values", "aliases"];
const ENUM_ATTRIBUTES: [&str; 11] =
    ["type", "name", "namespace", "doc", "fields", "symbols", "size", "items", "values", "aliases", "default"];
const FIELD_ATTRIBUTES: [&str; 6] = ["name", "type", "doc", "default", "order", "aliases"];

fn properties<'a>(
    object: &'a Map<String, Value>,
    attributes: &'a [&'a str],
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.iter().filter(|(key, _)| !attributes.contains(&key.as_str()))
}

/// Writes a JSON object whose members keep their order.
struct ObjectWriter<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> ObjectWriter<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    /// Starts a member; the caller writes its value.
    fn member(&mut self, key: &str) -> &mut String {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        self.out.push_str(&Value::from(key).to_string());
        self.out.push(':');
        self.out
    }

    fn text(&mut self, key: &str, value: &str) {
        self.member(key).push_str(&Value::from(value).to_string());
    }

    fn copy(&mut self, object: &Map<String, Value>, key: &str) {
        if let Some(value) = object.get(key) {
            self.member(key).push_str(&value.to_string());
        }
    }

    fn properties(&mut self, object: &Map<String, Value>, attributes: &[&str]) {
        for (key, value) in properties(object, attributes) {
            self.member(key).push_str(&value.to_string());
        }
    }

    fn close(self) {
        self.out.push('}');
    }
}
