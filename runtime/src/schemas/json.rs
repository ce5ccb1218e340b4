//! Converts plain JSON to Avro and back, for bodies that people type into a command or read from a topic.
//!
//! The JSON is plain: a union's value has no type tag, bytes are hexadecimal, an enum is its symbol, a timestamp its number. Both
//! directions walk the schema themselves, so that an error names the path in the JSON, and hostile bytes can exhaust neither stack nor
//! memory. The hot path uses `codec` instead.

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
    /// The path of the value: `$.lines[0].quantity`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Encodes a JSON value with a schema. A missing field gets its default; an unknown field is an error.
///
/// # Errors
/// [`JsonError`] names the first value that does not fit, and what is expected.
pub fn json_to_avro(schema: &Schema, json: &Value) -> Result<Vec<u8>, JsonError> {
    let names = resolve(schema)?;
    let mut encoder = Encoder { names: names.get_names(), path: JsonPath::default(), is_default: false };
    let mut out = Vec::new();
    encoder.write(schema, json, &mut out)?;
    Ok(out)
}

/// Decodes one whole body (without a registry's prefix) with the schema that it was written with.
///
/// # Errors
/// [`JsonError`] if the bytes are truncated, do not fit, or continue after the value.
pub fn avro_to_json(schema: &Schema, bytes: &[u8]) -> Result<Value, JsonError> {
    let names = resolve(schema)?;
    let mut decoder =
        Decoder { names: names.get_names(), path: JsonPath::default(), rest: bytes, values_left: MAX_VALUES };
    let value = decoder.read(schema)?;
    match decoder.rest.len() {
        0 => Ok(value),
        left => Err(decoder.path.error(format!("{left} bytes are left over after the value"))),
    }
}

/// The deepest nesting, in both directions: a schema may refer to itself.
const MAX_DEPTH: usize = 128;
/// The most values of one body: values without bytes (nulls) could repeat endlessly.
const MAX_VALUES: usize = 1_000_000;

fn resolve(schema: &Schema) -> Result<ResolvedSchema<'_>, JsonError> {
    ResolvedSchema::new(schema).map_err(|error| JsonError {
        path: "$".to_owned(),
        reason: format!("the schema is not self-contained: {error}"),
    })
}

/// The encoded type of a schema, without its logical type.
enum WireType<'a> {
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

impl<'a> WireType<'a> {
    fn of(schema: &'a Schema, names: &NamesRef<'a>) -> Option<Self> {
        Some(match schema {
            Schema::Null => WireType::Null,
            Schema::Boolean => WireType::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => WireType::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => WireType::Long,
            Schema::Float => WireType::Float,
            Schema::Double => WireType::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => WireType::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => WireType::String,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                WireType::Fixed(fixed.size)
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => WireType::Bytes,
                InnerDecimalSchema::Fixed(fixed) => WireType::Fixed(fixed.size),
            },
            Schema::Enum(symbols) => WireType::Enum(&symbols.symbols),
            Schema::Array(array) => WireType::Array(&array.items),
            Schema::Map(map) => WireType::Map(&map.types),
            Schema::Union(union) => WireType::Union(union.variants()),
            Schema::Record(record) => WireType::Record(record),
            Schema::Ref { name } => {
                let target = names.get(name).copied().filter(|target| !matches!(target, Schema::Ref { .. }))?;
                return WireType::of(target, names);
            }
        })
    }

    fn name(&self) -> String {
        match self {
            WireType::Null => "null".to_owned(),
            WireType::Boolean => "a boolean".to_owned(),
            WireType::Int => "an int".to_owned(),
            WireType::Long => "a long".to_owned(),
            WireType::Float => "a float".to_owned(),
            WireType::Double => "a double".to_owned(),
            WireType::Bytes => "bytes, in hexadecimal".to_owned(),
            WireType::String => "a string".to_owned(),
            WireType::Fixed(size) => format!("{size} bytes, in hexadecimal"),
            WireType::Enum(symbols) => format!("one of {}", symbols.join(", ")),
            WireType::Array(_) => "an array".to_owned(),
            WireType::Map(_) => "an object of any keys".to_owned(),
            WireType::Union(_) => "a union".to_owned(),
            WireType::Record(record) => format!("a {}", record.name.name()),
        }
    }
}

/// The current path in the JSON value.
#[derive(Default)]
struct JsonPath {
    steps: Vec<String>,
}

impl JsonPath {
    fn to_text(&self) -> String {
        format!("${}", self.steps.concat())
    }

    fn error(&self, reason: impl Into<String>) -> JsonError {
        JsonError { path: self.to_text(), reason: reason.into() }
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
    path: JsonPath,
    /// Defaults in a schema have bytes in Avro's form, one character per byte.
    is_default: bool,
}

impl<'a> Encoder<'a, '_> {
    fn write(&mut self, schema: &'a Schema, json: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let wire =
            WireType::of(schema, self.names).ok_or_else(|| self.path.error("the schema does not define this type"))?;
        match (&wire, json) {
            (WireType::Null, Value::Null) => {}
            (WireType::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
            (WireType::Int, Value::Number(number)) => {
                let value = number.as_i64().and_then(|value| i32::try_from(value).ok());
                write_long(i64::from(value.ok_or_else(|| self.misfit(&wire, json))?), out);
            }
            (WireType::Long, Value::Number(number)) => {
                write_long(number.as_i64().ok_or_else(|| self.misfit(&wire, json))?, out);
            }
            (WireType::Float | WireType::Double, _) => {
                let value = as_float(json).ok_or_else(|| self.misfit(&wire, json))?;
                write_float(&wire, value, out);
            }
            (WireType::String, Value::String(text)) => write_bytes(text.as_bytes(), out),
            (WireType::Bytes, Value::String(text)) => {
                let bytes = self.bytes(text).ok_or_else(|| self.misfit(&wire, json))?;
                write_bytes(&bytes, out);
            }
            (WireType::Fixed(size), Value::String(text)) => {
                let bytes = self.bytes(text).filter(|bytes| bytes.len() == *size);
                out.extend(bytes.ok_or_else(|| self.misfit(&wire, json))?);
            }
            (WireType::Enum(symbols), Value::String(text)) => {
                let index = symbols.iter().position(|symbol| symbol == text);
                write_long(index.ok_or_else(|| self.misfit(&wire, json))? as i64, out);
            }
            (WireType::Array(items), Value::Array(values)) => self.write_array(items, values, out)?,
            (WireType::Map(values), Value::Object(members)) => self.write_map(values, members, out)?,
            (WireType::Record(record), Value::Object(members)) => self.write_record(record, members, out)?,
            (WireType::Union(branches), _) => self.write_union(branches, json, out)?,
            _ => return Err(self.misfit(&wire, json)),
        }
        Ok(())
    }

    fn write_array(&mut self, items: &'a Schema, values: &[Value], out: &mut Vec<u8>) -> Result<(), JsonError> {
        if !values.is_empty() {
            write_long(values.len() as i64, out);
        }
        for (index, value) in values.iter().enumerate() {
            self.path.enter(format!("[{index}]"))?;
            self.write(items, value, out)?;
            self.path.leave();
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
            self.path.enter(format!("[{key:?}]"))?;
            self.write(values, value, out)?;
            self.path.leave();
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
            return Err(self.path.error(format!(
                "{} has no field {unknown:?}; its fields are {}",
                record.name.name(),
                known.join(", ")
            )));
        }
        for field in &record.fields {
            self.path.enter(format!(".{}", field.name))?;
            match members.get(&field.name) {
                Some(value) => self.write(&field.schema, value, out)?,
                None => self.write_default(field, out)?,
            }
            self.path.leave();
        }
        Ok(())
    }

    fn write_default(&mut self, field: &'a RecordField, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Some(default) = &field.default else {
            return Err(self.path.error("this field is missing, and the schema has no default for it"));
        };
        let outer = std::mem::replace(&mut self.is_default, true);
        self.write(&field.schema, default, out)?;
        self.is_default = outer;
        Ok(())
    }

    /// Writes the value with the first branch that it fits.
    fn write_union(&mut self, branches: &'a [Schema], json: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let (start, depth) = (out.len(), self.path.steps.len());
        let is_default = self.is_default;
        let mut misfits = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            write_long(index as i64, out);
            match self.write(branch, json, out) {
                Ok(()) => return Ok(()),
                Err(misfit) => {
                    out.truncate(start);
                    self.path.steps.truncate(depth);
                    self.is_default = is_default;
                    if !matches!(branch, Schema::Null) {
                        misfits.push(misfit);
                    }
                }
            }
        }
        // For an optional value the single error is more helpful than "fits no branch".
        match <[JsonError; 1]>::try_from(misfits) {
            Ok([misfit]) => Err(misfit),
            Err(misfits) => {
                let reasons: Vec<String> = misfits.iter().map(ToString::to_string).collect();
                Err(self.path.error(format!("fits no branch of the union ({})", reasons.join("; "))))
            }
        }
    }

    fn bytes(&self, text: &str) -> Option<Vec<u8>> {
        if self.is_default {
            return text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        }
        from_hex(text)
    }

    fn misfit(&self, wire: &WireType<'_>, json: &Value) -> JsonError {
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
        self.path.error(format!("expected {}, found {found}", wire.name()))
    }
}

/// Avro floats have values that JSON numbers lack; JSON has them as text.
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

fn write_float(wire: &WireType<'_>, value: f64, out: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "a float field holds the nearest float")]
    match wire {
        WireType::Float => out.extend((value as f32).to_le_bytes()),
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
    path: JsonPath,
    rest: &'b [u8],
    values_left: usize,
}

impl<'a, 'b> Decoder<'a, '_, 'b> {
    fn read(&mut self, schema: &'a Schema) -> Result<Value, JsonError> {
        let wire =
            WireType::of(schema, self.names).ok_or_else(|| self.path.error("the schema does not define this type"))?;
        self.values_left =
            self.values_left.checked_sub(1).ok_or_else(|| self.path.error("the body holds too many values"))?;
        Ok(match wire {
            WireType::Null => Value::Null,
            WireType::Boolean => match self.take(1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                other => return Err(self.path.error(format!("{other:?} is no boolean"))),
            },
            WireType::Int => {
                let value = self.long()?;
                i32::try_from(value).map_err(|_| self.path.error(format!("{value} is no int")))?.into()
            }
            WireType::Long => self.long()?.into(),
            WireType::Float => {
                let value = f32::from_le_bytes(self.array()?);
                // Converted through text, so that 1.1 is shown as 1.1 and not as the double nearest to the float.
                float_json(value.to_string().parse().unwrap_or(f64::from(value)))
            }
            WireType::Double => float_json(f64::from_le_bytes(self.array()?)),
            WireType::Bytes => to_hex(self.sized()?).into(),
            WireType::Fixed(size) => to_hex(self.take(size)?).into(),
            WireType::String => self.text()?.into(),
            WireType::Enum(symbols) => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                symbol.ok_or_else(|| self.path.error(format!("the enum has no symbol {index}")))?.as_str().into()
            }
            WireType::Array(items) => self.read_array(items)?,
            WireType::Map(values) => self.read_map(values)?,
            WireType::Record(record) => self.read_record(record)?,
            WireType::Union(branches) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
                self.read(branch.ok_or_else(|| self.path.error(format!("the union has no branch {index}")))?)?
            }
        })
    }

    fn read_array(&mut self, items: &'a Schema) -> Result<Value, JsonError> {
        let mut values = Vec::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                self.path.enter(format!("[{}]", values.len()))?;
                values.push(self.read(items)?);
                self.path.leave();
            }
        }
        Ok(Value::Array(values))
    }

    fn read_map(&mut self, schema: &'a Schema) -> Result<Value, JsonError> {
        let mut members = Map::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                self.path.enter(format!("[{key:?}]"))?;
                let value = self.read(schema)?;
                self.path.leave();
                members.insert(key, value);
            }
        }
        Ok(Value::Object(members))
    }

    fn read_record(&mut self, record: &'a RecordSchema) -> Result<Value, JsonError> {
        let mut members = Map::new();
        for field in &record.fields {
            self.path.enter(format!(".{}", field.name))?;
            members.insert(field.name.clone(), self.read(&field.schema)?);
            self.path.leave();
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
        Err(self.path.error("a number is longer than ten bytes"))
    }

    fn text(&mut self) -> Result<String, JsonError> {
        let bytes = self.sized()?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.path.error(format!("the text is not UTF-8: {error}"))),
        }
    }

    fn sized(&mut self) -> Result<&'b [u8], JsonError> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| self.path.error(format!("{length} is no length")))?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JsonError> {
        let path = self.path.to_text();
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| JsonError { path, reason: "the body ends early".to_owned() })
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], JsonError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => {
                Err(self.path.error(format!("the body ends early: {length} bytes wanted, {} left", self.rest.len())))
            }
        }
    }
}

/// The named types of a schema by full name.
pub(super) fn named_types(schema: &Schema) -> HashMap<String, Schema> {
    match ResolvedSchema::new(schema) {
        Ok(resolved) => {
            resolved.get_names().iter().map(|(name, schema)| (name.fullname(None), (*schema).clone())).collect()
        }
        Err(_) => HashMap::new(),
    }
}
