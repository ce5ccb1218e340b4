//! The walk: can a reader schema decode everything that a writer schema can have written?
//!
//! The rules are Avro's schema resolution as the Java checker applies it: named types match by unqualified name or by a reader
//! alias, a reader's enum default absorbs unknown symbols, every branch of a writer's union must be readable, logical types are
//! looked through. References are resolved on both sides, each in its own document, so it makes no difference at which field a
//! named type happens to be defined. Pure and total: a document that is too deep or too large is refused, never followed for ever.

use std::{
    collections::HashMap,
    fmt::{self, Write},
};

use apache_avro::{
    Schema,
    schema::{Aliases, EnumSchema, InnerDecimalSchema, Name, RecordField, RecordSchema, UuidSchema},
};

/// Which of the two schemas is the newer one: it decides how the messages name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The reader is the new schema (a backward check).
    New,
    /// The reader is the old schema (a forward check).
    Old,
}

impl Role {
    fn reader(self) -> &'static str {
        match self {
            Role::New => "new",
            Role::Old => "old",
        }
    }

    fn writer(self) -> &'static str {
        match self {
            Role::New => "old",
            Role::Old => "new",
        }
    }
}

/// The kind of an incompatibility, named as registries name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// Two named types whose names do not match.
    NameMismatch,
    /// Two fixed types of different size.
    FixedSizeMismatch,
    /// The reader's enum lacks symbols and has no default.
    MissingEnumSymbols,
    /// The reader needs a field that the writer never wrote, and has no default for it.
    ReaderFieldMissingDefaultValue,
    /// Two types of which the one cannot be read as the other.
    TypeMismatch,
    /// The writer may write a branch that the reader's union does not have.
    MissingUnionBranch,
    /// The pair is nested too deep, or has too many combinations, to be judged.
    TooComplex,
}

impl ErrorType {
    /// The name on the wire: `TYPE_MISMATCH`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::NameMismatch => "NAME_MISMATCH",
            ErrorType::FixedSizeMismatch => "FIXED_SIZE_MISMATCH",
            ErrorType::MissingEnumSymbols => "MISSING_ENUM_SYMBOLS",
            ErrorType::ReaderFieldMissingDefaultValue => "READER_FIELD_MISSING_DEFAULT_VALUE",
            ErrorType::TypeMismatch => "TYPE_MISMATCH",
            ErrorType::MissingUnionBranch => "MISSING_UNION_BRANCH",
            ErrorType::TooComplex => "TOO_COMPLEX",
        }
    }
}

/// One reason why a reader cannot decode all that a writer can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatibility {
    /// What kind of reason.
    pub error_type: ErrorType,
    /// Where in the reader's schema, as a JSON pointer (`/fields/1/type`).
    pub path: String,
    /// A sentence for a person.
    pub description: String,
    /// What it hangs on: a field's name, the symbols that are missing, both sizes.
    pub additional: String,
}

impl fmt::Display for Incompatibility {
    /// The form in which registries list reasons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{{errorType:'{}', description:'{}', additionalInfo:'{}'}}",
            self.error_type.name(),
            self.description,
            self.additional
        )
    }
}

/// Every reason why `reader` cannot decode all data of `writer`; empty if it can.
#[must_use]
pub fn check(reader: &Schema, writer: &Schema, reader_is: Role) -> Vec<Incompatibility> {
    let mut walk = Walk {
        readers: Names::of(reader),
        writers: Names::of(writer),
        role: reader_is,
        path: Vec::new(),
        verdicts: HashMap::new(),
        held: Vec::new(),
        steps_left: MAX_STEPS,
        exhausted: false,
    };
    walk.pair(reader, writer)
}

/// Bounds for documents from outside: no recursion deeper than this, no more pairs than this.
const MAX_DEPTH: usize = 256;
const MAX_STEPS: u32 = 200_000;
/// A list of reasons is for a person; two wholly different records of 10,000 fields are refused all the same.
const MAX_REASONS: usize = 100;

/// A schema's address: each document is borrowed unchanged through the whole walk, so an address names a place in it.
type Place = *const Schema;

#[derive(Clone)]
enum Verdict {
    /// Being compared further up: compatible unless that comparison finds otherwise.
    Open,
    Compatible,
    Incompatible(Vec<Incompatibility>),
}

struct Walk<'a> {
    readers: Names<'a>,
    writers: Names<'a>,
    role: Role,
    path: Vec<String>,
    verdicts: HashMap<(Place, Place), Verdict>,
    /// Pairs found compatible, in that order. What was found under an assumption that then failed is forgotten again.
    held: Vec<(Place, Place)>,
    steps_left: u32,
    exhausted: bool,
}

impl<'a> Walk<'a> {
    fn pair(&mut self, reader: &'a Schema, writer: &'a Schema) -> Vec<Incompatibility> {
        let (reader, writer) = (self.readers.resolve(reader), self.writers.resolve(writer));
        let key = (std::ptr::from_ref(reader), std::ptr::from_ref(writer));
        match self.verdicts.get(&key) {
            Some(Verdict::Open | Verdict::Compatible) => return Vec::new(),
            Some(Verdict::Incompatible(found)) => return found.clone(),
            None => {}
        }
        if self.path.len() >= MAX_DEPTH || !self.step() {
            return self.too_complex();
        }
        self.verdicts.insert(key, Verdict::Open);
        let held_before = self.held.len();
        let mut found = self.compare(reader, writer);
        found.truncate(MAX_REASONS);
        if found.is_empty() {
            self.held.push(key);
            self.verdicts.insert(key, Verdict::Compatible);
        } else {
            for assumed in self.held.drain(held_before..) {
                self.verdicts.remove(&assumed);
            }
            self.verdicts.insert(key, Verdict::Incompatible(found.clone()));
        }
        found
    }

    /// The same question where the reasons do not matter: a branch that does not fit is not worth a copy of them.
    fn reads(&mut self, reader: &'a Schema, writer: &'a Schema) -> bool {
        let (reader, writer) = (self.readers.resolve(reader), self.writers.resolve(writer));
        match self.verdicts.get(&(std::ptr::from_ref(reader), std::ptr::from_ref(writer))) {
            Some(Verdict::Open | Verdict::Compatible) => self.step(),
            Some(Verdict::Incompatible(_)) => {
                self.step();
                false
            }
            None => self.pair(reader, writer).is_empty(),
        }
    }

    /// Takes one of the steps that the walk may take. False if there is none left.
    fn step(&mut self) -> bool {
        self.steps_left = self.steps_left.saturating_sub(1);
        !self.exhausted && self.steps_left > 0
    }

    fn compare(&mut self, reader: &'a Schema, writer: &'a Schema) -> Vec<Incompatibility> {
        match (Shape::of(reader), Shape::of(writer)) {
            (reader_shape, Shape::Union(branches)) => self.writer_union(reader, &reader_shape, branches),
            (Shape::Union(branches), written) => self.reader_union(branches, writer, &written),
            (Shape::Record(reader), Shape::Record(writer)) => {
                let mut found = self.names(&reader.name, &reader.aliases, &writer.name);
                found.extend(self.fields(reader, writer));
                found
            }
            (Shape::Enum(reader), Shape::Enum(writer)) => {
                let mut found = self.names(&reader.name, &reader.aliases, &writer.name);
                found.extend(self.symbols(reader, writer));
                found
            }
            (Shape::Fixed(reader), Shape::Fixed(writer)) => {
                let mut found = match (reader.name, writer.name) {
                    (Some(read), Some(written)) => self.names(read, reader.aliases, written),
                    _ => Vec::new(),
                };
                found.extend(self.sizes(reader.size, writer.size));
                found
            }
            (Shape::Array(reader), Shape::Array(writer)) => self.below("items", |walk| walk.pair(reader, writer)),
            (Shape::Map(reader), Shape::Map(writer)) => self.below("values", |walk| walk.pair(reader, writer)),
            (Shape::Primitive(reader), Shape::Primitive(writer)) if reader.reads(writer) => Vec::new(),
            (reader, writer) => self.type_mismatch(&reader, &writer),
        }
    }

    /// Every branch that can have been written must be readable.
    fn writer_union(&mut self, reader: &'a Schema, shape: &Shape<'a>, branches: &'a [Schema]) -> Vec<Incompatibility> {
        let reader_is_union = matches!(shape, Shape::Union(_));
        let mut found = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            if found.len() >= MAX_REASONS {
                break;
            }
            if reader_is_union {
                // A branch that no branch reads already says so in one reason: MISSING_UNION_BRANCH, at its own index.
                found.extend(self.below(&index.to_string(), |walk| walk.pair(reader, branch)));
            } else {
                found.extend(self.pair(reader, branch));
            }
        }
        found
    }

    fn reader_union(
        &mut self,
        branches: &'a [Schema],
        writer: &'a Schema,
        written: &Shape<'a>,
    ) -> Vec<Incompatibility> {
        if branches.iter().any(|branch| self.reads(branch, writer)) {
            return Vec::new();
        }
        if self.steps_left == 0 {
            return self.too_complex();
        }
        let description = format!(
            "The {} schema lacks a union branch at path '{}' that can read {} of the {} schema",
            self.role.reader(),
            self.pointer(),
            written.name(),
            self.role.writer()
        );
        let additional = format!("reader union lacks the writer's type: {}", written.name());
        vec![self.reason(ErrorType::MissingUnionBranch, description, additional)]
    }

    fn fields(&mut self, reader: &'a RecordSchema, writer: &'a RecordSchema) -> Vec<Incompatibility> {
        let written: HashMap<&str, &RecordField> =
            writer.fields.iter().map(|field| (field.name.as_str(), field)).collect();
        let mut found = Vec::new();
        for (index, field) in reader.fields.iter().enumerate() {
            if found.len() >= MAX_REASONS {
                break;
            }
            let source =
                std::iter::once(&field.name).chain(&field.aliases).find_map(|name| written.get(name.as_str()).copied());
            found.extend(self.below(&format!("fields/{index}"), |walk| match source {
                Some(source) => walk.below("type", |walk| walk.pair(&field.schema, &source.schema)),
                None if field.default.is_some() => Vec::new(),
                None => vec![walk.missing_default(field)],
            }));
        }
        found
    }

    fn missing_default(&self, field: &RecordField) -> Incompatibility {
        let description = format!(
            "The field '{}' at path '{}' in the {} schema has no default value and is missing in the {} schema",
            field.name,
            self.pointer(),
            self.role.reader(),
            self.role.writer()
        );
        self.reason(ErrorType::ReaderFieldMissingDefaultValue, description, field.name.clone())
    }

    /// Namespaces are not compared: Avro matches unqualified names. An alias is a full name.
    fn names(&self, reader: &Name, aliases: &Aliases, writer: &Name) -> Vec<Incompatibility> {
        let full = writer.fullname(None);
        let by_alias = aliases.iter().flatten().any(|alias| alias.fullname(None) == full);
        if reader.name() == writer.name() || by_alias {
            return Vec::new();
        }
        let description = format!(
            "The {} schema calls '{}' at path '{}' what the {} schema calls '{full}'",
            self.role.reader(),
            reader.fullname(None),
            self.pointer(),
            self.role.writer(),
        );
        vec![self.reason(ErrorType::NameMismatch, description, format!("expected: {full}"))]
    }

    fn symbols(&self, reader: &EnumSchema, writer: &EnumSchema) -> Vec<Incompatibility> {
        let missing: Vec<&str> =
            writer.symbols.iter().filter(|symbol| !reader.symbols.contains(symbol)).map(String::as_str).collect();
        if missing.is_empty() || reader.default.is_some() {
            return Vec::new();
        }
        let missing = format!("[{}]", missing.join(", "));
        let description = format!(
            "The {} schema lacks the enum symbols {missing} of the {} schema at path '{}' and has no default symbol",
            self.role.reader(),
            self.role.writer(),
            self.pointer()
        );
        vec![self.reason(ErrorType::MissingEnumSymbols, description, missing)]
    }

    fn sizes(&self, reader: usize, writer: usize) -> Vec<Incompatibility> {
        if reader == writer {
            return Vec::new();
        }
        let description = format!(
            "The fixed type at path '{}' has another size in the {} schema than in the {} schema",
            self.pointer(),
            self.role.reader(),
            self.role.writer()
        );
        vec![self.reason(ErrorType::FixedSizeMismatch, description, format!("expected: {writer}, found: {reader}"))]
    }

    fn type_mismatch(&self, reader: &Shape<'_>, writer: &Shape<'_>) -> Vec<Incompatibility> {
        let description = format!(
            "The type at path '{}' in the {} schema, {}, cannot read {} of the {} schema",
            self.pointer(),
            self.role.reader(),
            reader.name(),
            writer.name(),
            self.role.writer()
        );
        let additional = format!("reader type: {} not compatible with writer type: {}", reader.name(), writer.name());
        vec![self.reason(ErrorType::TypeMismatch, description, additional)]
    }

    /// Once the walk gave up, nothing else it says counts: the first such reason ends it.
    fn too_complex(&mut self) -> Vec<Incompatibility> {
        self.exhausted = true;
        let description = format!(
            "The schemas are nested deeper than {MAX_DEPTH} or have more than {MAX_STEPS} pairs to compare at path '{}'",
            self.pointer()
        );
        vec![self.reason(ErrorType::TooComplex, description, String::new())]
    }

    fn reason(&self, error_type: ErrorType, description: String, additional: String) -> Incompatibility {
        Incompatibility { error_type, path: self.pointer(), description, additional }
    }

    fn below<T>(&mut self, token: &str, visit: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(token.to_owned());
        let result = visit(self);
        self.path.pop();
        result
    }

    fn pointer(&self) -> String {
        if self.path.is_empty() {
            return "/".to_owned();
        }
        self.path.iter().fold(String::new(), |mut pointer, token| {
            // Writing to a string cannot fail.
            write!(pointer, "/{token}").expect("a String takes any text");
            pointer
        })
    }
}

/// A schema with logical types looked through: what is on the wire.
enum Shape<'a> {
    Primitive(Primitive),
    Array(&'a Schema),
    Map(&'a Schema),
    Union(&'a [Schema]),
    Record(&'a RecordSchema),
    Enum(&'a EnumSchema),
    Fixed(Fixed<'a>),
    /// A reference that its own document does not define. Parsing refuses such documents; nothing can be read through one.
    Unknown(&'a Name),
}

struct Fixed<'a> {
    name: Option<&'a Name>,
    aliases: &'a Aliases,
    size: usize,
}

impl<'a> Shape<'a> {
    fn of(schema: &'a Schema) -> Self {
        match schema {
            Schema::Null => Shape::Primitive(Primitive::Null),
            Schema::Boolean => Shape::Primitive(Primitive::Boolean),
            Schema::Int | Schema::Date | Schema::TimeMillis => Shape::Primitive(Primitive::Int),
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Shape::Primitive(Primitive::Long),
            Schema::Float => Shape::Primitive(Primitive::Float),
            Schema::Double => Shape::Primitive(Primitive::Double),
            Schema::String | Schema::Uuid(UuidSchema::String) => Shape::Primitive(Primitive::String),
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Shape::Primitive(Primitive::Bytes),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Shape::Primitive(Primitive::Bytes),
                InnerDecimalSchema::Fixed(fixed) => Shape::fixed(&fixed.name, &fixed.aliases, fixed.size),
            },
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Shape::fixed(&fixed.name, &fixed.aliases, fixed.size)
            }
            Schema::Array(array) => Shape::Array(&array.items),
            Schema::Map(map) => Shape::Map(&map.types),
            Schema::Union(union) => Shape::Union(union.variants()),
            Schema::Record(record) => Shape::Record(record),
            Schema::Enum(symbols) => Shape::Enum(symbols),
            Schema::Ref { name } => Shape::Unknown(name),
        }
    }

    fn fixed(name: &'a Name, aliases: &'a Aliases, size: usize) -> Self {
        Shape::Fixed(Fixed { name: Some(name), aliases, size })
    }

    fn name(&self) -> String {
        match self {
            Shape::Primitive(primitive) => primitive.name().to_owned(),
            Shape::Array(_) => "ARRAY".to_owned(),
            Shape::Map(_) => "MAP".to_owned(),
            Shape::Union(_) => "UNION".to_owned(),
            Shape::Record(_) => "RECORD".to_owned(),
            Shape::Enum(_) => "ENUM".to_owned(),
            Shape::Fixed(_) => "FIXED".to_owned(),
            Shape::Unknown(name) => format!("the undefined type {}", name.fullname(None)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

impl Primitive {
    fn reads(self, written: Self) -> bool {
        use Primitive::{Bytes, Double, Float, Int, Long, String};
        self == written
            || matches!(
                (self, written),
                (Long, Int) | (Float, Int | Long) | (Double, Int | Long | Float) | (Bytes, String) | (String, Bytes)
            )
    }

    fn name(self) -> &'static str {
        match self {
            Primitive::Null => "NULL",
            Primitive::Boolean => "BOOLEAN",
            Primitive::Int => "INT",
            Primitive::Long => "LONG",
            Primitive::Float => "FLOAT",
            Primitive::Double => "DOUBLE",
            Primitive::Bytes => "BYTES",
            Primitive::String => "STRING",
        }
    }
}

/// The named types of one document.
struct Names<'a>(HashMap<String, &'a Schema>);

impl<'a> Names<'a> {
    fn of(root: &'a Schema) -> Self {
        let mut names = Names(HashMap::new());
        let mut waiting = vec![root];
        // A list of what is still to visit instead of recursion: a document's depth is not ours to choose.
        while let Some(schema) = waiting.pop() {
            match schema {
                Schema::Record(record) => {
                    names.define(&record.name, &record.aliases, schema);
                    waiting.extend(record.fields.iter().map(|field| &field.schema));
                }
                Schema::Enum(symbols) => names.define(&symbols.name, &symbols.aliases, schema),
                Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                    names.define(&fixed.name, &fixed.aliases, schema);
                }
                Schema::Decimal(decimal) => {
                    if let InnerDecimalSchema::Fixed(fixed) = &decimal.inner {
                        names.define(&fixed.name, &fixed.aliases, schema);
                    }
                }
                Schema::Array(array) => waiting.push(&array.items),
                Schema::Map(map) => waiting.push(&map.types),
                Schema::Union(union) => waiting.extend(union.variants()),
                _ => {}
            }
        }
        names
    }

    fn define(&mut self, name: &Name, aliases: &Aliases, schema: &'a Schema) {
        self.0.insert(name.fullname(None), schema);
        for alias in aliases.iter().flatten() {
            self.0.entry(alias.fullname(None)).or_insert(schema);
        }
    }

    fn resolve(&self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Ref { name } => self.0.get(&name.fullname(None)).copied().unwrap_or(schema),
            _ => schema,
        }
    }
}
