//! Plain JSON to Avro and back, for people: what they type into a command, and what they read of a topic.
//!
//! The JSON is what a person would write: a union's value stands without its type, bytes are hexadecimal, an enum is its symbol,
//! a timestamp is its number. Both directions walk the schema themselves, so that an error names the place in the JSON and hostile
//! bytes cost neither stack nor memory. Not for the hot path: that is the business of `codec`.

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, NamesRef, RecordField, RecordSchema, ResolvedSchema, UuidSchema},
};
use serde_json::{Map, Value};

/// A JSON value that does not fit a schema, or bytes that do not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct JsonError {
    /// Where, as one would write it in a program: `$.lines[0].quantity`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// Encodes a JSON value with a schema. Fields that are left out take their default; unknown fields are refused.
///
/// # Errors
/// [`JsonError`] names the first place that does not fit, and what would.
pub fn json_to_avro(schema: &Schema, json: &Value) -> Result<Vec<u8>, JsonError> {
    let names = resolve(schema)?;
    let mut encoder = Encoder { names: names.get_names(), place: Place::default(), is_default: false };
    let mut out = Vec::new();
    encoder.write(schema, json, &mut out)?;
    Ok(out)
}

/// Decodes one whole body (without a registry's prefix) with the schema that it was written with.
///
/// # Errors
/// [`JsonError`] if the bytes are truncated, do not fit, or go on after the value.
pub fn avro_to_json(schema: &Schema, bytes: &[u8]) -> Result<Value, JsonError> {
    let names = resolve(schema)?;
    let mut decoder =
        Decoder { names: names.get_names(), place: Place::default(), rest: bytes, values_left: MAX_VALUES };
    let value = decoder.read(schema)?;
    match decoder.rest.len() {
        0 => Ok(value),
        left => Err(decoder.place.error(format!("{left} bytes are left over after the value"))),
    }
}

/// Deeper values than this are refused in both directions: a schema may refer to itself.
const MAX_DEPTH: usize = 128;
/// Values that take no bytes (nulls) could be repeated without end.
const MAX_VALUES: usize = 1_000_000;

fn resolve(schema: &Schema) -> Result<ResolvedSchema<'_>, JsonError> {
    ResolvedSchema::new(schema).map_err(|error| JsonError {
        path: "$".to_owned(),
        reason: format!("the schema is not self-contained: {error}"),
    })
}

/// What is on the wire, logical types looked through.
enum Wire<'a> {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(&'a [String]),
    Array(&'a Schema),
    Map(&'a Schema),
    Union(&'a [Schema]),
    Record(&'a RecordSchema),
}

impl<'a> Wire<'a> {
    fn of(schema: &'a Schema, names: &NamesRef<'a>) -> Option<Self> {
        Some(match schema {
            Schema::Null => Wire::Null,
            Schema::Boolean => Wire::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Wire::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Wire::Long,
            Schema::Float => Wire::Float,
            Schema::Double => Wire::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Wire::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Wire::String,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Wire::Fixed(fixed.size)
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Wire::Bytes,
                InnerDecimalSchema::Fixed(fixed) => Wire::Fixed(fixed.size),
            },
            Schema::Enum(symbols) => Wire::Enum(&symbols.symbols),
            Schema::Array(array) => Wire::Array(&array.items),
            Schema::Map(map) => Wire::Map(&map.types),
            Schema::Union(union) => Wire::Union(union.variants()),
            Schema::Record(record) => Wire::Record(record),
            Schema::Ref { name } => {
                let target = names.get(name).copied().filter(|target| !matches!(target, Schema::Ref { .. }))?;
                return Wire::of(target, names);
            }
        })
    }

    fn name(&self) -> String {
        match self {
            Wire::Null => "null".to_owned(),
            Wire::Boolean => "a boolean".to_owned(),
            Wire::Int => "an int".to_owned(),
            Wire::Long => "a long".to_owned(),
            Wire::Float => "a float".to_owned(),
            Wire::Double => "a double".to_owned(),
            Wire::Bytes => "bytes, in hexadecimal".to_owned(),
            Wire::String => "a string".to_owned(),
            Wire::Fixed(size) => format!("{size} bytes, in hexadecimal"),
            Wire::Enum(symbols) => format!("one of {}", symbols.join(", ")),
            Wire::Array(_) => "an array".to_owned(),
            Wire::Map(_) => "an object of any keys".to_owned(),
            Wire::Union(_) => "a union".to_owned(),
            Wire::Record(record) => format!("a {}", record.name.name()),
        }
    }
}

/// Where the walk is.
#[derive(Default)]
struct Place {
    steps: Vec<String>,
}

impl Place {
    fn path(&self) -> String {
        format!("${}", self.steps.concat())
    }

    fn error(&self, reason: impl Into<String>) -> JsonError {
        JsonError { path: self.path(), reason: reason.into() }
    }

    fn enter(&mut self, step: String) -> Result<(), JsonError> {
        if self.steps.len() >= MAX_DEPTH {
            return Err(self.error(format!("the value is nested deeper than {MAX_DEPTH}")));
        }
        self.steps.push(step);
        Ok(())
    }

    fn leave(&mut self) {
        self.steps.pop();
    }
}

struct Encoder<'a, 'n> {
    names: &'n NamesRef<'a>,
    place: Place,
    /// Defaults in a schema write bytes as Avro does, one character per byte.
    is_default: bool,
}

impl<'a> Encoder<'a, '_> {
    fn write(&mut self, schema: &'a Schema, json: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let wire =
            Wire::of(schema, self.names).ok_or_else(|| self.place.error("the schema does not define this type"))?;
        match (&wire, json) {
            (Wire::Null, Value::Null) => {}
            (Wire::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
            (Wire::Int, Value::Number(number)) => {
                let value = number.as_i64().and_then(|value| i32::try_from(value).ok());
                write_long(i64::from(value.ok_or_else(|| self.misfit(&wire, json))?), out);
            }
            (Wire::Long, Value::Number(number)) => {
                write_long(number.as_i64().ok_or_else(|| self.misfit(&wire, json))?, out);
            }
            (Wire::Float | Wire::Double, _) => {
                let value = as_float(json).ok_or_else(|| self.misfit(&wire, json))?;
                write_float(&wire, value, out);
            }
            (Wire::String, Value::String(text)) => write_bytes(text.as_bytes(), out),
            (Wire::Bytes, Value::String(text)) => {
                let bytes = self.bytes(text).ok_or_else(|| self.misfit(&wire, json))?;
                write_bytes(&bytes, out);
            }
            (Wire::Fixed(size), Value::String(text)) => {
                let bytes = self.bytes(text).filter(|bytes| bytes.len() == *size);
                out.extend(bytes.ok_or_else(|| self.misfit(&wire, json))?);
            }
            (Wire::Enum(symbols), Value::String(text)) => {
                let index = symbols.iter().position(|symbol| symbol == text);
                write_long(index.ok_or_else(|| self.misfit(&wire, json))? as i64, out);
            }
            (Wire::Array(items), Value::Array(values)) => self.write_array(items, values, out)?,
            (Wire::Map(values), Value::Object(members)) => self.write_map(values, members, out)?,
            (Wire::Record(record), Value::Object(members)) => self.write_record(record, members, out)?,
            (Wire::Union(branches), _) => self.write_union(branches, json, out)?,
            _ => return Err(self.misfit(&wire, json)),
        }
        Ok(())
    }

    fn write_array(&mut self, items: &'a Schema, values: &[Value], out: &mut Vec<u8>) -> Result<(), JsonError> {
        if !values.is_empty() {
            write_long(values.len() as i64, out);
        }
        for (index, value) in values.iter().enumerate() {
            self.place.enter(format!("[{index}]"))?;
            self.write(items, value, out)?;
            self.place.leave();
        }
        out.push(0);
        Ok(())
    }

    fn write_map(
        &mut self,
        values: &'a Schema,
        members: &Map<String, Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        if !members.is_empty() {
            write_long(members.len() as i64, out);
        }
        for (key, value) in members {
            write_bytes(key.as_bytes(), out);
            self.place.enter(format!("[{key:?}]"))?;
            self.write(values, value, out)?;
            self.place.leave();
        }
        out.push(0);
        Ok(())
    }

    fn write_record(
        &mut self,
        record: &'a RecordSchema,
        members: &Map<String, Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        if let Some(unknown) = members.keys().find(|key| !record.fields.iter().any(|field| field.name == **key)) {
            let known: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
            return Err(self.place.error(format!(
                "{} has no field {unknown:?}; its fields are {}",
                record.name.name(),
                known.join(", ")
            )));
        }
        for field in &record.fields {
            self.place.enter(format!(".{}", field.name))?;
            match members.get(&field.name) {
                Some(value) => self.write(&field.schema, value, out)?,
                None => self.write_default(field, out)?,
            }
            self.place.leave();
        }
        Ok(())
    }

    fn write_default(&mut self, field: &'a RecordField, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Some(default) = &field.default else {
            return Err(self.place.error("this field is missing, and the schema has no default for it"));
        };
        let outer = std::mem::replace(&mut self.is_default, true);
        self.write(&field.schema, default, out)?;
        self.is_default = outer;
        Ok(())
    }

    /// Takes the first branch that the value fits.
    fn write_union(&mut self, branches: &'a [Schema], json: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let (start, depth) = (out.len(), self.place.steps.len());
        let is_default = self.is_default;
        let mut misfits = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            write_long(index as i64, out);
            match self.write(branch, json, out) {
                Ok(()) => return Ok(()),
                Err(misfit) => {
                    out.truncate(start);
                    self.place.steps.truncate(depth);
                    self.is_default = is_default;
                    if !matches!(branch, Schema::Null) {
                        misfits.push(misfit);
                    }
                }
            }
        }
        // An optional value that does not fit has one thing wrong with it, and that is worth more than "fits no branch".
        match <[JsonError; 1]>::try_from(misfits) {
            Ok([misfit]) => Err(misfit),
            Err(misfits) => {
                let reasons: Vec<String> = misfits.iter().map(ToString::to_string).collect();
                Err(self.place.error(format!("fits no branch of the union ({})", reasons.join("; "))))
            }
        }
    }

    fn bytes(&self, text: &str) -> Option<Vec<u8>> {
        if self.is_default {
            return text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        }
        from_hex(text)
    }

    fn misfit(&self, wire: &Wire<'_>, json: &Value) -> JsonError {
        const MAX_SHOWN: usize = 60;
        let found = match json {
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            other => {
                let text = other.to_string();
                match text.char_indices().nth(MAX_SHOWN) {
                    Some((cut, _)) => format!("{}…", &text[..cut]),
                    None => text,
                }
            }
        };
        self.place.error(format!("expected {}, found {found}", wire.name()))
    }
}

/// Avro has values that JSON numbers do not; they travel as text.
fn as_float(json: &Value) -> Option<f64> {
    match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn float_json(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn write_float(wire: &Wire<'_>, value: f64, out: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "a float field holds the nearest float")]
    match wire {
        Wire::Float => out.extend((value as f32).to_le_bytes()),
        _ => out.extend(value.to_le_bytes()),
    }
}

fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend(bytes);
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks_exact(2).map(|pair| Some((digit(pair[0])? << 4) | digit(pair[1])?)).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Decoder<'a, 'n, 'b> {
    names: &'n NamesRef<'a>,
    place: Place,
    rest: &'b [u8],
    values_left: usize,
}

impl<'a, 'b> Decoder<'a, '_, 'b> {
    fn read(&mut self, schema: &'a Schema) -> Result<Value, JsonError> {
        let wire =
            Wire::of(schema, self.names).ok_or_else(|| self.place.error("the schema does not define this type"))?;
        self.values_left =
            self.values_left.checked_sub(1).ok_or_else(|| self.place.error("the body holds too many values"))?;
        Ok(match wire {
            Wire::Null => Value::Null,
            Wire::Boolean => match self.take(1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                other => return Err(self.place.error(format!("{other:?} is no boolean"))),
            },
            Wire::Int => {
                let value = self.long()?;
                i32::try_from(value).map_err(|_| self.place.error(format!("{value} is no int")))?.into()
            }
            Wire::Long => self.long()?.into(),
            Wire::Float => {
                let value = f32::from_le_bytes(self.array()?);
                // Through text, so that 1.1 is shown as 1.1 and not as the double nearest to the float.
                float_json(value.to_string().parse().unwrap_or(f64::from(value)))
            }
            Wire::Double => float_json(f64::from_le_bytes(self.array()?)),
            Wire::Bytes => to_hex(self.sized()?).into(),
            Wire::Fixed(size) => to_hex(self.take(size)?).into(),
            Wire::String => self.text()?.into(),
            Wire::Enum(symbols) => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                symbol.ok_or_else(|| self.place.error(format!("the enum has no symbol {index}")))?.as_str().into()
            }
            Wire::Array(items) => self.read_array(items)?,
            Wire::Map(values) => self.read_map(values)?,
            Wire::Record(record) => self.read_record(record)?,
            Wire::Union(branches) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
                self.read(branch.ok_or_else(|| self.place.error(format!("the union has no branch {index}")))?)?
            }
        })
    }

    fn read_array(&mut self, items: &'a Schema) -> Result<Value, JsonError> {
        let mut values = Vec::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                self.place.enter(format!("[{}]", values.len()))?;
                values.push(self.read(items)?);
                self.place.leave();
            }
        }
        Ok(Value::Array(values))
    }

    fn read_map(&mut self, schema: &'a Schema) -> Result<Value, JsonError> {
        let mut members = Map::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                self.place.enter(format!("[{key:?}]"))?;
                let value = self.read(schema)?;
                self.place.leave();
                members.insert(key, value);
            }
        }
        Ok(Value::Object(members))
    }

    fn read_record(&mut self, record: &'a RecordSchema) -> Result<Value, JsonError> {
        let mut members = Map::new();
        for field in &record.fields {
            self.place.enter(format!(".{}", field.name))?;
            members.insert(field.name.clone(), self.read(&field.schema)?);
            self.place.leave();
        }
        Ok(Value::Object(members))
    }

    /// The size of the next block of an array or a map; `None` after the last one.
    fn block(&mut self) -> Result<Option<u64>, JsonError> {
        match self.long()? {
            0 => Ok(None),
            count @ 1.. => Ok(Some(count.unsigned_abs())),
            count => {
                // A negative count is followed by the block's size in bytes, which only skipping needs.
                self.long()?;
                Ok(Some(count.unsigned_abs()))
            }
        }
    }

    fn long(&mut self) -> Result<i64, JsonError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(self.place.error("a number is longer than ten bytes"))
    }

    fn text(&mut self) -> Result<String, JsonError> {
        let bytes = self.sized()?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.place.error(format!("the text is not UTF-8: {error}"))),
        }
    }

    fn sized(&mut self) -> Result<&'b [u8], JsonError> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| self.place.error(format!("{length} is no length")))?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JsonError> {
        let place = self.place.path();
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| JsonError { path: place, reason: "the body ends early".to_owned() })
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], JsonError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => {
                Err(self.place.error(format!("the body ends early: {length} bytes wanted, {} left", self.rest.len())))
            }
        }
    }
}

/// The named types of a schema by full name, for whoever compares documents.
pub(super) fn named_types(schema: &Schema) -> HashMap<String, Schema> {
    match ResolvedSchema::new(schema) {
        Ok(resolved) => {
            resolved.get_names().iter().map(|(name, schema)| (name.fullname(None), (*schema).clone())).collect()
        }
        Err(_) => HashMap::new(),
    }
}
