//! Validates JSON request bodies field by field and reports every error with its location.
//!
//! An HTTP API reads a body through [`Fields`], which never fails: it notes a [`FieldError`] and returns an empty value, so one pass
//! finds every error. [`FieldErrors::finish`] then returns the result only if there was none. It knows JSON, but neither HTTP nor
//! any service.

use std::{cell::RefCell, ops::RangeInclusive};

use serde::Serialize;
use serde_json::{Map, Value};

/// The most errors that one response reports. The next request reports the rest.
pub const MAX_FIELD_ERRORS: usize = 32;

/// One error in a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where, as a JSON pointer (RFC 6901); empty for the body as a whole.
    pub pointer: String,
    /// What is wrong, and what is expected.
    pub detail: String,
}

/// The errors found so far.
#[derive(Debug, Default)]
pub struct FieldErrors(RefCell<Vec<FieldError>>);

/// Parses a body as JSON.
///
/// # Errors
/// The body is not UTF-8, or not JSON: the error names the byte, or the line and column.
pub fn parse(body: &[u8]) -> Result<Value, FieldError> {
    let whole = |detail| FieldError { pointer: String::new(), detail };
    let text = std::str::from_utf8(body)
        .map_err(|error| whole(format!("byte {} is not UTF-8 text", error.valid_up_to() + 1)))?;
    serde_json::from_str(text).map_err(|error| whole(format!("is not JSON: {error}")))
}

impl FieldErrors {
    /// Notes an error.
    pub fn add(&self, pointer: impl Into<String>, detail: impl Into<String>) {
        let mut errors = self.0.borrow_mut();
        if errors.len() < MAX_FIELD_ERRORS {
            errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        }
    }

    /// The body's outermost object. Any field but the `known` ones is an error.
    pub fn object<'a>(&'a self, body: &'a Value, known: &[&str]) -> Fields<'a> {
        Fields::at(self, String::new(), Some(body), known)
    }

    /// Returns `value` if the body has no error.
    ///
    /// # Errors
    /// Every error that was noted.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        let errors = self.0.into_inner();
        if errors.is_empty() { Ok(value) } else { Err(errors) }
    }
}

/// The fields of one object. An invalid field is noted as an error, and an empty value is returned for it.
#[derive(Debug)]
pub struct Fields<'a> {
    errors: &'a FieldErrors,
    pointer: String,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    fn at(errors: &'a FieldErrors, pointer: String, value: Option<&'a Value>, known: &[&str]) -> Self {
        let map = match value {
            Some(Value::Object(map)) => Some(map),
            Some(other) => {
                errors.add(&pointer, format!("must be an object, not {}", kind(other)));
                None
            }
            None => None,
        };
        for name in map.into_iter().flat_map(Map::keys).filter(|name| !known.contains(&name.as_str())) {
            let expected = known.join(", ");
            errors.add(format!("{pointer}/{}", escape(name)), format!("is not known here; known are {expected}"));
        }
        Self { errors, pointer, map }
    }

    /// The JSON pointer of a field of this object.
    #[must_use]
    pub fn pointer_of(&self, name: &str) -> String {
        format!("{}/{name}", self.pointer)
    }

    /// Notes an error of a field.
    pub fn error(&self, name: &str, detail: impl Into<String>) {
        self.errors.add(self.pointer_of(name), detail);
    }

    /// A text of 1 to `max_chars` characters without control characters, and not only of spaces.
    #[must_use]
    pub fn text(&self, name: &str, max_chars: usize) -> String {
        match self.required(name) {
            Some(Value::String(text)) => match text_error(text, max_chars) {
                None => return text.clone(),
                Some(detail) => self.error(name, detail),
            },
            Some(other) => self.error(name, format!("must be a text, not {}", kind(other))),
            None => {}
        }
        String::new()
    }

    /// A text as [`Fields::text`] accepts it; `None` if it is missing or null.
    #[must_use]
    pub fn optional_text(&self, name: &str, max_chars: usize) -> Option<String> {
        match self.get(name) {
            None | Some(Value::Null) => None,
            Some(_) => Some(self.text(name, max_chars)),
        }
    }

    /// A whole number in a range.
    #[must_use]
    pub fn whole(&self, name: &str, range: RangeInclusive<i64>) -> i64 {
        match self.required(name).map(|value| (value, value.as_i64())) {
            Some((_, Some(number))) if range.contains(&number) => return number,
            Some((value @ Value::Number(_), _)) => {
                let (least, most) = (range.start(), range.end());
                self.error(name, format!("must be a whole number from {least} to {most}, not {value}"));
            }
            Some((other, _)) => self.error(name, format!("must be a whole number, not {}", kind(other))),
            None => {}
        }
        *range.start()
    }

    /// `true` or `false`; `default` if it is missing.
    #[must_use]
    pub fn flag(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.error(name, format!("must be true or false, not {}", kind(other)));
                default
            }
        }
    }

    /// A required object.
    #[must_use]
    pub fn object(&self, name: &str, known: &[&str]) -> Fields<'a> {
        Fields::at(self.errors, self.pointer_of(name), self.required(name), known)
    }

    /// An optional object: it may be missing or null.
    #[must_use]
    pub fn optional_object(&self, name: &str, known: &[&str]) -> Option<Fields<'a>> {
        match self.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => Some(Fields::at(self.errors, self.pointer_of(name), Some(value), known)),
        }
    }

    /// A list of objects whose length is in a range. The entries of a list that is too long are not checked.
    #[must_use]
    pub fn objects(&self, name: &str, length: RangeInclusive<usize>, known: &[&str]) -> Vec<Fields<'a>> {
        match self.required(name) {
            Some(Value::Array(items)) if length.contains(&items.len()) => items
                .iter()
                .enumerate()
                .map(|(at, item)| Fields::at(self.errors, format!("{}/{at}", self.pointer_of(name)), Some(item), known))
                .collect(),
            Some(Value::Array(items)) => {
                let (least, most) = (length.start(), length.end());
                self.error(name, format!("must have {least} to {most} entries, not {}", items.len()));
                Vec::new()
            }
            Some(other) => {
                self.error(name, format!("must be a list, not {}", kind(other)));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.and_then(|map| map.get(name))
    }

    /// Notes a missing field, unless the object itself is missing or no object, which was noted already.
    fn required(&self, name: &str) -> Option<&'a Value> {
        let value = self.get(name);
        if value.is_none() && self.map.is_some() {
            self.error(name, "is missing");
        }
        value
    }
}

/// Why a text of a request is refused; `None` if it is valid.
#[must_use]
pub fn text_error(text: &str, max_chars: usize) -> Option<String> {
    if text.trim().is_empty() {
        Some("must not be empty".to_owned())
    } else if text.chars().nth(max_chars).is_some() {
        Some(format!("must have at most {max_chars} characters, not {}", text.chars().count()))
    } else if text.chars().any(char::is_control) {
        Some("must not have control characters".to_owned())
    } else {
        None
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A field name of a request as part of a pointer: escaped, and truncated so that the response stays small.
fn escape(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    short.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(body: &Value, read: impl Fn(&Fields<'_>)) -> Vec<(String, String)> {
        let errors = FieldErrors::default();
        read(&errors.object(body, &["name", "count", "inner", "items", "flag"]));
        let found = errors.finish(()).err().unwrap_or_default();
        found.into_iter().map(|error| (error.pointer, error.detail)).collect()
    }

    fn one(pointer: &str, detail: &str) -> Vec<(String, String)> {
        vec![(pointer.to_owned(), detail.to_owned())]
    }

    #[test]
    fn a_valid_body_is_read_completely() {
        let body =
            json!({ "name": "x", "count": 3, "inner": { "a": "y" }, "items": [{ "n": 1 }, { "n": 2 }], "flag": true });
        let errors = FieldErrors::default();
        let fields = errors.object(&body, &["name", "count", "inner", "items", "flag"]);
        assert_eq!(fields.text("name", 10), "x");
        assert_eq!(fields.whole("count", 1..=5), 3);
        assert_eq!(fields.object("inner", &["a"]).text("a", 1), "y");
        let items: Vec<i64> = fields.objects("items", 1..=2, &["n"]).iter().map(|f| f.whole("n", 0..=9)).collect();
        assert_eq!(items, [1, 2]);
        assert!(fields.flag("flag", false));
        assert!(fields.optional_object("missing", &[]).is_none());
        assert_eq!(fields.optional_text("missing", 9), None);
        assert_eq!(fields.optional_text("name", 9).as_deref(), Some("x"));
        drop(fields);
        assert_eq!(errors.finish("kept"), Ok("kept"));
    }

    #[test]
    fn each_error_states_its_reason_and_location() {
        let text = |value: Value| errors(&json!({ "name": value }), |f| drop(f.text("name", 3)));
        assert_eq!(text(json!("")), one("/name", "must not be empty"));
        let optional = errors(&json!({ "name": 5 }), |f| drop(f.optional_text("name", 3)));
        assert_eq!(optional, one("/name", "must be a text, not a number"));
        assert_eq!(text(json!(" ")), one("/name", "must not be empty"));
        assert_eq!(text(json!("éééé")), one("/name", "must have at most 3 characters, not 4"));
        assert_eq!(text(json!("a\u{7}")), one("/name", "must not have control characters"));
        assert_eq!(text(json!(7)), one("/name", "must be a text, not a number"));
        let whole = |value: Value| errors(&json!({ "count": value }), |f| assert_eq!(f.whole("count", 1..=5), 1));
        for absurd in [json!(0), json!(-1), json!(6), json!(1.5), json!(1e300), json!(u64::MAX)] {
            let detail = format!("must be a whole number from 1 to 5, not {absurd}");
            assert_eq!(whole(absurd), one("/count", &detail));
        }
        assert_eq!(whole(json!("2")), one("/count", "must be a whole number, not a text"));
        let flag = errors(&json!({ "flag": 1 }), |f| assert!(!f.flag("flag", false)));
        assert_eq!(flag, one("/flag", "must be true or false, not a number"));
    }

    #[test]
    fn missing_and_unknown_fields_are_reported_once() {
        assert_eq!(errors(&json!({}), |f| drop(f.text("name", 3))), one("/name", "is missing"));
        let unknown = errors(&json!({ "a/b~": 1 }), |_| {});
        assert_eq!(unknown, one("/a~1b~0", "is not known here; known are name, count, inner, items, flag"));
        let nested = errors(&json!({ "inner": 5 }), |f| drop(f.object("inner", &["a"]).text("a", 3)));
        assert_eq!(nested, one("/inner", "must be an object, not a number"));
        assert_eq!(errors(&json!([]), |f| drop(f.text("name", 3))), one("", "must be an object, not a list"));
    }

    #[test]
    fn the_entries_of_a_list_are_checked_unless_it_is_too_long() {
        let items = |value: Value| {
            errors(&json!({ "items": value }), |f| {
                for item in f.objects("items", 1..=3, &["n"]) {
                    drop(item.text("n", 3));
                }
            })
        };
        assert_eq!(items(json!([{ "n": "a" }, { "n": 1 }])), one("/items/1/n", "must be a text, not a number"));
        assert_eq!(items(json!([])), one("/items", "must have 1 to 3 entries, not 0"));
        let endless: Vec<Value> = vec![json!({}); 10_000];
        assert_eq!(items(json!(endless)), one("/items", "must have 1 to 3 entries, not 10000"));
        assert_eq!(items(json!({})), one("/items", "must be a list, not an object"));
    }

    #[test]
    fn the_number_of_reported_errors_is_bounded() {
        let many: Map<String, Value> = (0..1000).map(|n| (format!("f{n}"), Value::Null)).collect();
        assert_eq!(errors(&Value::Object(many), |_| {}).len(), MAX_FIELD_ERRORS);
    }

    #[test]
    fn a_body_that_is_not_json_is_reported_with_its_location() {
        assert_eq!(parse(b"{\"a\":\xff}").unwrap_err().detail, "byte 6 is not UTF-8 text");
        assert_eq!(parse(b"{").unwrap_err().detail, "is not JSON: EOF while parsing an object at line 1 column 1");
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).unwrap_err().detail.contains("recursion limit"));
    }
}
