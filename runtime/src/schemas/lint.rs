//! The rules of the schema catalog, each with a message that tells an author how to keep it.
//!
//! A rule concerns one schema file, two versions of one record, or one example. Compatibility is checked with the same code as in the
//! embedded registry. This module knows no registry and no network.

use std::collections::HashMap;

use apache_avro::{Schema, schema::RecordSchema};
use avro_compat::Level;
use serde_json::Value;

use super::{CatalogRecord, LintFinding, SchemaCatalog, SchemaVersion, json, namespace_of};
use crate::{config::default, message::Channel};

/// Checks a catalog against every rule. Returns an empty list if none is broken.
#[must_use]
pub fn lint(catalog: &SchemaCatalog) -> Vec<LintFinding> {
    let mut findings = Vec::new();
    for record in catalog.records() {
        for version in &record.versions {
            let mut file = FileLint { path: &version.path, findings: &mut findings };
            file.name(record, version);
            file.text(&version.text);
            file.event_time(record, version);
            file.example(version);
        }
        versions(record, &mut findings);
    }
    shared_types(catalog, &mut findings);
    findings
}

/// Logical types that every tool reads alike. `decimal`, `uuid` and `duration` are not among them.
const LOGICAL_TYPES: [&str; 9] = [
    "date",
    "time-millis",
    "time-micros",
    "timestamp-millis",
    "timestamp-micros",
    "timestamp-nanos",
    "local-timestamp-millis",
    "local-timestamp-micros",
    "local-timestamp-nanos",
];
const EVENT_TIME: &str = "occurred_at";
const UNKNOWN: &str = "UNKNOWN";

struct FileLint<'a> {
    path: &'a str,
    findings: &'a mut Vec<LintFinding>,
}

impl FileLint<'_> {
    fn violation(&mut self, message: impl Into<String>) {
        self.findings.push(LintFinding { path: self.path.to_owned(), message: message.into() });
    }

    fn name(&mut self, record: &CatalogRecord, version: &SchemaVersion) {
        let expected = format!("{}.{}", namespace_of(&record.owner), record.name);
        match &version.schema {
            Schema::Record(schema) if schema.name.fullname(None) == expected => {}
            Schema::Record(schema) => {
                self.violation(format!("is called {}; its path requires {expected}", schema.name.fullname(None)));
            }
            _ => self.violation(format!("is no record; its path requires the record {expected}")),
        }
    }

    /// Rules about the text of a schema, which the parser drops or ignores.
    fn text(&mut self, text: &str) {
        if let Ok(json) = serde_json::from_str::<Value>(text) {
            self.schema_json(&json, "$", true);
        }
    }

    fn schema_json(&mut self, json: &Value, at: &str, is_root: bool) {
        match json {
            Value::Array(branches) => {
                for (index, branch) in branches.iter().enumerate() {
                    self.schema_json(branch, &format!("{at}[{index}]"), false);
                }
            }
            Value::Object(object) => {
                self.attributes(object, at);
                let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
                match kind {
                    "record" | "error" => self.record_json(object, at),
                    "enum" => self.enum_json(object, at),
                    "fixed" => self.doc(object, at),
                    _ => {}
                }
                if matches!(kind, "record" | "error" | "enum" | "fixed") && !is_root {
                    self.nested_namespace(object, at);
                }
                for inner in ["items", "values"] {
                    if let Some(schema) = object.get(inner) {
                        self.schema_json(schema, &format!("{at}.{inner}"), false);
                    }
                }
                if let Some(schema @ (Value::Object(_) | Value::Array(_))) = object.get("type") {
                    self.schema_json(schema, &format!("{at}.type"), false);
                }
            }
            _ => {}
        }
    }

    fn attributes(&mut self, object: &serde_json::Map<String, Value>, at: &str) {
        if object.contains_key("aliases") {
            self.violation(format!("{at} has aliases, which decoders disagree about; give the new thing a new name"));
        }
        if let Some(logical) = object.get("logicalType") {
            let known = logical.as_str().is_some_and(|logical| LOGICAL_TYPES.contains(&logical));
            if !known {
                self.violation(format!(
                    "{at} has the logical type {logical}; only dates, times and timestamps are safe"
                ));
            }
        }
    }

    fn record_json(&mut self, object: &serde_json::Map<String, Value>, at: &str) {
        self.doc(object, at);
        let fields = object.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for field in fields {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            let at = format!("{at}.{name}");
            if let Value::Object(field) = field {
                self.doc(field, &at);
                self.attributes(field, &at);
                if field.contains_key("logicalType") {
                    self.violation(format!(
                        "{at} has its logical type beside the type instead of inside it; parsers drop it"
                    ));
                }
            }
            if let Some(schema) = field.get("type") {
                self.schema_json(schema, &at, false);
            }
        }
    }

    fn enum_json(&mut self, object: &serde_json::Map<String, Value>, at: &str) {
        self.doc(object, at);
        let has_unknown = object
            .get("symbols")
            .and_then(Value::as_array)
            .is_some_and(|symbols| symbols.iter().any(|symbol| symbol == UNKNOWN));
        if !has_unknown || object.get("default").and_then(Value::as_str) != Some(UNKNOWN) {
            self.violation(format!(
                "{at} is an enum without the symbol {UNKNOWN} as its default: old readers could not read new symbols"
            ));
        }
    }

    fn doc(&mut self, object: &serde_json::Map<String, Value>, at: &str) {
        if object.get("doc").and_then(Value::as_str).is_none_or(|doc| doc.trim().is_empty()) {
            self.violation(format!("{at} has no doc; say what it means"));
        }
    }

    fn nested_namespace(&mut self, object: &serde_json::Map<String, Value>, at: &str) {
        let expected = format!("com.{}.common", default::SYSTEM);
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
        let namespace = match name.rsplit_once('.') {
            Some((namespace, _)) => Some(namespace),
            None => object.get("namespace").and_then(Value::as_str),
        };
        if namespace != Some(expected.as_str()) {
            self.violation(format!("{at}: the nested type {name} must state the namespace {expected}"));
        }
    }

    fn event_time(&mut self, record: &CatalogRecord, version: &SchemaVersion) {
        let (Channel::Events, Schema::Record(schema)) = (record.channel, &version.schema) else { return };
        let Some(field) = schema.fields.iter().find(|field| field.name == EVENT_TIME) else {
            return self.violation(format!("is an event without the field {EVENT_TIME} (long, timestamp-millis)"));
        };
        if !matches!(field.schema, Schema::TimestampMillis) {
            self.violation(format!("{EVENT_TIME} must be a long with the logical type timestamp-millis"));
        }
        if version.number == 1 && schema.fields.last().is_some_and(|last| last.name != EVENT_TIME) {
            self.violation(format!("{EVENT_TIME} must be the last field of v1; later versions append after it"));
        }
    }

    fn example(&mut self, version: &SchemaVersion) {
        let Some(text) = &version.example else {
            return self.violation(format!("has no v{}.example.json beside it", version.number));
        };
        let example: Value = match serde_json::from_str(text) {
            Ok(example) => example,
            Err(error) => return self.violation(format!("its example is not JSON: {error}")),
        };
        let again =
            json::json_to_avro(&version.schema, &example).and_then(|bytes| json::avro_to_json(&version.schema, &bytes));
        match again {
            Ok(again) => {
                if let Some(difference) = difference(&example, &again, "$") {
                    self.violation(format!("its example does not round-trip: {difference}"));
                }
            }
            Err(error) => self.violation(format!("its example does not fit the schema: {error}")),
        }
    }
}

/// The first difference between the written and the decoded example; a field that the example omits is one.
fn difference(written: &Value, read: &Value, at: &str) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => read.iter().find_map(|(key, read)| match written.get(key) {
            Some(written) => difference(written, read, &format!("{at}.{key}")),
            None => Some(format!("{at}.{key} is missing; an example names every field")),
        }),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            let pairs = written.iter().zip(read).enumerate();
            pairs.into_iter().find_map(|(i, (written, read))| difference(written, read, &format!("{at}[{i}]")))
        }
        (Value::Number(written), Value::Number(read)) if written.as_f64() == read.as_f64() => None,
        (Value::String(written), Value::String(read)) if written.eq_ignore_ascii_case(read) => None,
        (written, read) if written == read => None,
        (written, read) => Some(format!("{at} was written as {written} and read as {read}")),
    }
}

fn versions(record: &CatalogRecord, findings: &mut Vec<LintFinding>) {
    for (index, version) in record.versions.iter().enumerate() {
        let expected = index + 1;
        if usize::try_from(version.number).ok() != Some(expected) {
            let message = format!("is v{} where v{expected} is missing; versions count up from 1", version.number);
            findings.push(LintFinding { path: version.path.clone(), message });
            break;
        }
    }
    for pair in record.versions.windows(2) {
        let (old, new) = (NamedTypes::of(&pair[0].schema), NamedTypes::of(&pair[1].schema));
        let mut appended = AppendOnlyCheck { old, new, seen: Vec::new(), violations: Vec::new() };
        appended.compare(&pair[0].schema, &pair[1].schema, "$");
        findings
            .extend(appended.violations.into_iter().map(|message| LintFinding { path: pair[1].path.clone(), message }));
    }
    for (index, version) in record.versions.iter().enumerate().skip(1) {
        let earlier: Vec<&Schema> = record.versions[..index].iter().map(|version| &version.schema).collect();
        if let Err(refusal) = Level::FullTransitive.check(&version.schema, &earlier) {
            for reason in refusal.found {
                let message =
                    format!("is incompatible with v{}: {}", record.versions[refusal.index].number, reason.description);
                findings.push(LintFinding { path: version.path.clone(), message });
            }
        }
    }
}

struct NamedTypes(HashMap<String, Schema>);

impl NamedTypes {
    fn of(schema: &Schema) -> Self {
        Self(json::named_types(schema))
    }

    fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Ref { name } => self.0.get(&name.fullname(None)).unwrap_or(schema),
            _ => schema,
        }
    }
}

/// Checks that a new version only appends to the old one.
struct AppendOnlyCheck {
    old: NamedTypes,
    new: NamedTypes,
    seen: Vec<String>,
    violations: Vec<String>,
}

impl AppendOnlyCheck {
    fn compare(&mut self, old: &Schema, new: &Schema, at: &str) {
        let (old, new) = (self.old.resolve(old).clone(), self.new.resolve(new).clone());
        match (&old, &new) {
            (Schema::Record(old), Schema::Record(new)) => {
                let name = new.name.fullname(None);
                if old.name != new.name {
                    self.violations.push(format!(
                        "{at} was a {} and is a {name}; a new record needs a new name elsewhere",
                        old.name.fullname(None)
                    ));
                } else if !self.seen.contains(&name) {
                    self.seen.push(name);
                    self.fields(old, new, at);
                }
            }
            (Schema::Enum(old), Schema::Enum(new)) if old.name == new.name => {
                if !new.symbols.starts_with(&old.symbols) {
                    self.violations.push(format!(
                        "{at}: symbols are only ever appended; they were {} and are {}",
                        old.symbols.join(", "),
                        new.symbols.join(", ")
                    ));
                }
            }
            (Schema::Array(old), Schema::Array(new)) => self.compare(&old.items, &new.items, &format!("{at}[]")),
            (Schema::Map(old), Schema::Map(new)) => self.compare(&old.types, &new.types, &format!("{at}[]")),
            (Schema::Union(old), Schema::Union(new)) if old.variants().len() == new.variants().len() => {
                for (old, new) in old.variants().iter().zip(new.variants()) {
                    self.compare(old, new, at);
                }
            }
            (old, new) if old == new => {}
            (old, new) => {
                self.violations
                    .push(format!("{at} changed its type from {old} to {new}; append a field of the new type instead"));
            }
        }
    }

    fn fields(&mut self, old: &RecordSchema, new: &RecordSchema, at: &str) {
        for (index, field) in old.fields.iter().enumerate() {
            let at = format!("{at}.{}", field.name);
            match new.fields.get(index) {
                Some(same) if same.name == field.name => self.compare(&field.schema, &same.schema, &at),
                _ if new.fields.iter().any(|other| other.name == field.name) => {
                    self.violations.push(format!("{at} moved; fields keep their order and new ones are appended"));
                }
                _ => self.violations.push(format!("{at} was removed; a field is never removed or renamed")),
            }
        }
        let added = new.fields.iter().filter(|field| !old.fields.iter().any(|known| known.name == field.name));
        for field in added.filter(|field| field.default.is_none()) {
            self.violations.push(format!("{at}.{} is new and has no default; older events lack it", field.name));
        }
    }
}

/// Every file that uses a shared type repeats its definition. The copies may be different versions, but must be compatible.
fn shared_types(catalog: &SchemaCatalog, findings: &mut Vec<LintFinding>) {
    let mut known: HashMap<String, Vec<(Schema, &str)>> = HashMap::new();
    for version in catalog.records().iter().flat_map(|record| &record.versions) {
        let root = match &version.schema {
            Schema::Record(record) => record.name.fullname(None),
            _ => continue,
        };
        for (name, schema) in json::named_types(&version.schema).into_iter().filter(|(name, _)| *name != root) {
            let copies = known.entry(name.clone()).or_default();
            let schema = whole(&schema, &version.schema);
            if copies.iter().any(|(copy, _)| *copy == schema) {
                continue;
            }
            let earlier: Vec<&Schema> = copies.iter().map(|(copy, _)| copy).collect();
            if let Err(refusal) = Level::FullTransitive.check(&schema, &earlier) {
                let reasons: Vec<_> = refusal.found.iter().map(|reason| reason.description.as_str()).collect();
                let message = format!(
                    "its {name} is incompatible with the one in {}: {}",
                    copies[refusal.index].1,
                    reasons.join("; ")
                );
                findings.push(LintFinding { path: version.path.clone(), message });
            }
            copies.push((schema, &version.path));
        }
    }
}

/// A nested type with every type that it refers to inlined.
fn whole(schema: &Schema, root: &Schema) -> Schema {
    let mut whole = schema.clone();
    // Inlining fails only for a name that the document does not define, which parsing refuses; then the type alone is compared.
    let others: Vec<Schema> = json::named_types(root).into_values().collect();
    match whole.denormalize(&others) {
        Ok(()) => whole,
        Err(_) => schema.clone(),
    }
}
