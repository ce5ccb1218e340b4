//! The comparison of two schemas: can the reader schema decode everything that the writer schema can encode?
//!
//! The rules are Avro's schema resolution as the Java checker applies it: named types match by unqualified name or by a reader
//! alias, a reader's enum default absorbs unknown symbols, every branch of a writer's union must be readable, logical types are
//! ignored. Each side's references are resolved in its own document, so it does not matter which field defines a named type. Pure
//! and total: a document that is too deep or too large is refused, so the comparison always ends.

use std::{
    collections::HashMap,
    fmt::{self, Write},
};

use apache_avro::{
    Schema,
    schema::{Aliases, EnumSchema, InnerDecimalSchema, Name, RecordField, RecordSchema, UuidSchema},
};

/// Which of the two schemas is the newer one: it decides how messages name them.
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

/// The kind of an incompatibility, under Confluent's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// Two named types whose names do not match.
    NameMismatch,
    /// Two fixed types of different size.
    FixedSizeMismatch,
    /// The reader's enum lacks symbols and has no default.
    MissingEnumSymbols,
    /// The reader requires a field that the writer lacks, and has no default for it.
    ReaderFieldMissingDefaultValue,
    /// The reader's type cannot decode the writer's type.
    TypeMismatch,
    /// The writer may write a branch that the reader's union lacks.
    MissingUnionBranch,
    /// The pair is nested too deep, or has too many combinations, to be compared.
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

/// One reason why a reader cannot decode everything that a writer can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatibility {
    /// The kind of the reason.
    pub error_type: ErrorType,
    /// The location in the reader's schema, as a JSON pointer (`/fields/1/type`).
    pub path: String,
    /// A sentence for people.
    pub description: String,
    /// The subject of the reason: a field's name, the missing symbols, both sizes.
    pub additional_info: String,
}

impl fmt::Display for Incompatibility {
    /// The format in which Confluent's registry lists reasons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{{errorType:'{}', description:'{}', additionalInfo:'{}'}}",
            self.error_type.name(),
            self.description,
            self.additional_info
        )
    }
}

/// Every reason why `reader` cannot decode all data of `writer`; empty if it can.
#[must_use]
pub fn check(reader: &Schema, writer: &Schema, reader_is: Role) -> Vec<Incompatibility> {
    let mut comparison = Comparison {
        readers: NamedTypes::of(reader),
        writers: NamedTypes::of(writer),
        role: reader_is,
        path: Vec::new(),
        pairs: HashMap::new(),
        compatible_pairs: Vec::new(),
        steps_left: MAX_STEPS,
        exhausted: false,
    };
    comparison.compare_pair(reader, writer)
}

/// Limits for documents from outside: the depth of the recursion and the number of compared pairs.
const MAX_DEPTH: usize = 256;
const MAX_STEPS: u32 = 200_000;
/// People read the list of reasons, so it is bounded: two entirely different records may have 10,000 fields.
const MAX_REASONS: usize = 100;

/// Identifies a schema in its document. Both documents are borrowed during the whole comparison, so addresses are stable.
type SchemaAddress = *const Schema;

#[derive(Clone)]
enum PairState {
    /// An outer comparison is in progress: the pair counts as compatible unless that comparison fails.
    InProgress,
    Compatible,
    Incompatible(Vec<Incompatibility>),
}

struct Comparison<'a> {
    readers: NamedTypes<'a>,
    writers: NamedTypes<'a>,
    role: Role,
    path: Vec<String>,
    pairs: HashMap<(SchemaAddress, SchemaAddress), PairState>,
    /// Compatible pairs in the order of their comparison. A pair is dropped again if an assumption it depends on fails.
    compatible_pairs: Vec<(SchemaAddress, SchemaAddress)>,
    steps_left: u32,
    exhausted: bool,
}

impl<'a> Comparison<'a> {
    fn compare_pair(&mut self, reader: &'a Schema, writer: &'a Schema) -> Vec<Incompatibility> {
        let (reader, writer) = (self.readers.resolve(reader), self.writers.resolve(writer));
        let key = (std::ptr::from_ref(reader), std::ptr::from_ref(writer));
        match self.pairs.get(&key) {
            Some(PairState::InProgress | PairState::Compatible) => return Vec::new(),
            Some(PairState::Incompatible(reasons)) => return reasons.clone(),
            None => {}
        }
        if self.path.len() >= MAX_DEPTH || !self.take_step() {
            return self.too_complex();
        }
        self.pairs.insert(key, PairState::InProgress);
        let compatible_before = self.compatible_pairs.len();
        let mut reasons = self.compare(reader, writer);
        reasons.truncate(MAX_REASONS);
        if reasons.is_empty() {
            self.compatible_pairs.push(key);
            self.pairs.insert(key, PairState::Compatible);
        } else {
            for assumed in self.compatible_pairs.drain(compatible_before..) {
                self.pairs.remove(&assumed);
            }
            self.pairs.insert(key, PairState::Incompatible(reasons.clone()));
        }
        reasons
    }

    /// The same comparison without the reasons: copying them for every union branch that does not match would be waste.
    fn can_read(&mut self, reader: &'a Schema, writer: &'a Schema) -> bool {
        let (reader, writer) = (self.readers.resolve(reader), self.writers.resolve(writer));
        match self.pairs.get(&(std::ptr::from_ref(reader), std::ptr::from_ref(writer))) {
            Some(PairState::InProgress | PairState::Compatible) => self.take_step(),
            Some(PairState::Incompatible(_)) => {
                self.take_step();
                false
            }
            None => self.compare_pair(reader, writer).is_empty(),
        }
    }

    /// Counts one step. Returns false if the limit is reached.
    fn take_step(&mut self) -> bool {
        self.steps_left = self.steps_left.saturating_sub(1);
        !self.exhausted && self.steps_left > 0
    }

    fn compare(&mut self, reader: &'a Schema, writer: &'a Schema) -> Vec<Incompatibility> {
        match (WireType::of(reader), WireType::of(writer)) {
            (reader_type, WireType::Union(branches)) => self.writer_union(reader, &reader_type, branches),
            (WireType::Union(branches), writer_type) => self.reader_union(branches, writer, &writer_type),
            (WireType::Record(reader), WireType::Record(writer)) => {
                let mut reasons = self.compare_names(&reader.name, &reader.aliases, &writer.name);
                reasons.extend(self.compare_fields(reader, writer));
                reasons
            }
            (WireType::Enum(reader), WireType::Enum(writer)) => {
                let mut reasons = self.compare_names(&reader.name, &reader.aliases, &writer.name);
                reasons.extend(self.compare_symbols(reader, writer));
                reasons
            }
            (WireType::Fixed(reader), WireType::Fixed(writer)) => {
                let mut reasons = match (reader.name, writer.name) {
                    (Some(name), Some(writer_name)) => self.compare_names(name, reader.aliases, writer_name),
                    _ => Vec::new(),
                };
                reasons.extend(self.compare_sizes(reader.size, writer.size));
                reasons
            }
            (WireType::Array(reader), WireType::Array(writer)) => {
                self.at_path("items", |comparison| comparison.compare_pair(reader, writer))
            }
            (WireType::Map(reader), WireType::Map(writer)) => {
                self.at_path("values", |comparison| comparison.compare_pair(reader, writer))
            }
            (WireType::Primitive(reader), WireType::Primitive(writer)) if reader.can_read(writer) => Vec::new(),
            (reader, writer) => self.type_mismatch(&reader, &writer),
        }
    }

    /// Every branch of the writer's union must be readable.
    fn writer_union(
        &mut self,
        reader: &'a Schema,
        reader_type: &WireType<'a>,
        branches: &'a [Schema],
    ) -> Vec<Incompatibility> {
        let reader_is_union = matches!(reader_type, WireType::Union(_));
        let mut reasons = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            if reasons.len() >= MAX_REASONS {
                break;
            }
            if reader_is_union {
                // A branch that the reader's union lacks gives one reason, MISSING_UNION_BRANCH, at the branch's own index.
                reasons.extend(self.at_path(&index.to_string(), |comparison| comparison.compare_pair(reader, branch)));
            } else {
                reasons.extend(self.compare_pair(reader, branch));
            }
        }
        reasons
    }

    fn reader_union(
        &mut self,
        branches: &'a [Schema],
        writer: &'a Schema,
        writer_type: &WireType<'a>,
    ) -> Vec<Incompatibility> {
        if branches.iter().any(|branch| self.can_read(branch, writer)) {
            return Vec::new();
        }
        if self.steps_left == 0 {
            return self.too_complex();
        }
        let description = format!(
            "The {} schema lacks a union branch at path '{}' that can read {} of the {} schema",
            self.role.reader(),
            self.pointer(),
            writer_type.name(),
            self.role.writer()
        );
        let additional_info = format!("reader union lacks the writer's type: {}", writer_type.name());
        vec![self.reason(ErrorType::MissingUnionBranch, description, additional_info)]
    }

    fn compare_fields(&mut self, reader: &'a RecordSchema, writer: &'a RecordSchema) -> Vec<Incompatibility> {
        let writer_fields: HashMap<&str, &RecordField> =
            writer.fields.iter().map(|field| (field.name.as_str(), field)).collect();
        let mut reasons = Vec::new();
        for (index, field) in reader.fields.iter().enumerate() {
            if reasons.len() >= MAX_REASONS {
                break;
            }
            let source = std::iter::once(&field.name)
                .chain(&field.aliases)
                .find_map(|name| writer_fields.get(name.as_str()).copied());
            reasons.extend(self.at_path(&format!("fields/{index}"), |comparison| match source {
                Some(source) => {
                    comparison.at_path("type", |comparison| comparison.compare_pair(&field.schema, &source.schema))
                }
                None if field.default.is_some() => Vec::new(),
                None => vec![comparison.missing_default(field)],
            }));
        }
        reasons
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

    /// Namespaces are ignored: Avro matches unqualified names. An alias is a full name.
    fn compare_names(&self, reader: &Name, aliases: &Aliases, writer: &Name) -> Vec<Incompatibility> {
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

    fn compare_symbols(&self, reader: &EnumSchema, writer: &EnumSchema) -> Vec<Incompatibility> {
        let missing_symbols: Vec<&str> =
            writer.symbols.iter().filter(|symbol| !reader.symbols.contains(symbol)).map(String::as_str).collect();
        if missing_symbols.is_empty() || reader.default.is_some() {
            return Vec::new();
        }
        let missing_symbols = format!("[{}]", missing_symbols.join(", "));
        let description = format!(
            "The {} schema lacks the enum symbols {missing_symbols} of the {} schema at path '{}' and has no default symbol",
            self.role.reader(),
            self.role.writer(),
            self.pointer()
        );
        vec![self.reason(ErrorType::MissingEnumSymbols, description, missing_symbols)]
    }

    fn compare_sizes(&self, reader: usize, writer: usize) -> Vec<Incompatibility> {
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

    fn type_mismatch(&self, reader: &WireType<'_>, writer: &WireType<'_>) -> Vec<Incompatibility> {
        let description = format!(
            "The type at path '{}' in the {} schema, {}, cannot read {} of the {} schema",
            self.pointer(),
            self.role.reader(),
            reader.name(),
            writer.name(),
            self.role.writer()
        );
        let additional_info =
            format!("reader type: {} not compatible with writer type: {}", reader.name(), writer.name());
        vec![self.reason(ErrorType::TypeMismatch, description, additional_info)]
    }

    /// Ends the comparison: once a limit is reached, further reasons have no meaning.
    fn too_complex(&mut self) -> Vec<Incompatibility> {
        self.exhausted = true;
        let description = format!(
            "The schemas are nested deeper than {MAX_DEPTH} or have more than {MAX_STEPS} pairs to compare at path '{}'",
            self.pointer()
        );
        vec![self.reason(ErrorType::TooComplex, description, String::new())]
    }

    fn reason(&self, error_type: ErrorType, description: String, additional_info: String) -> Incompatibility {
        Incompatibility { error_type, path: self.pointer(), description, additional_info }
    }

    fn at_path<T>(&mut self, token: &str, visit: impl FnOnce(&mut Self) -> T) -> T {
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
            // Writing to a string never fails.
            write!(pointer, "/{token}").expect("a String takes any text");
            pointer
        })
    }
}

/// A schema without its logical type: the type of the encoded data.
enum WireType<'a> {
    Primitive(Primitive),
    Array(&'a Schema),
    Map(&'a Schema),
    Union(&'a [Schema]),
    Record(&'a RecordSchema),
    Enum(&'a EnumSchema),
    Fixed(FixedType<'a>),
    /// A reference that its document does not define. Parsing refuses such documents, and nothing can decode such data.
    Unknown(&'a Name),
}

struct FixedType<'a> {
    name: Option<&'a Name>,
    aliases: &'a Aliases,
    size: usize,
}

impl<'a> WireType<'a> {
    fn of(schema: &'a Schema) -> Self {
        match schema {
            Schema::Null => WireType::Primitive(Primitive::Null),
            Schema::Boolean => WireType::Primitive(Primitive::Boolean),
            Schema::Int | Schema::Date | Schema::TimeMillis => WireType::Primitive(Primitive::Int),
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => WireType::Primitive(Primitive::Long),
            Schema::Float => WireType::Primitive(Primitive::Float),
            Schema::Double => WireType::Primitive(Primitive::Double),
            Schema::String | Schema::Uuid(UuidSchema::String) => WireType::Primitive(Primitive::String),
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => {
                WireType::Primitive(Primitive::Bytes)
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => WireType::Primitive(Primitive::Bytes),
                InnerDecimalSchema::Fixed(fixed) => WireType::fixed(&fixed.name, &fixed.aliases, fixed.size),
            },
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                WireType::fixed(&fixed.name, &fixed.aliases, fixed.size)
            }
            Schema::Array(array) => WireType::Array(&array.items),
            Schema::Map(map) => WireType::Map(&map.types),
            Schema::Union(union) => WireType::Union(union.variants()),
            Schema::Record(record) => WireType::Record(record),
            Schema::Enum(symbols) => WireType::Enum(symbols),
            Schema::Ref { name } => WireType::Unknown(name),
        }
    }

    fn fixed(name: &'a Name, aliases: &'a Aliases, size: usize) -> Self {
        WireType::Fixed(FixedType { name: Some(name), aliases, size })
    }

    fn name(&self) -> String {
        match self {
            WireType::Primitive(primitive) => primitive.name().to_owned(),
            WireType::Array(_) => "ARRAY".to_owned(),
            WireType::Map(_) => "MAP".to_owned(),
            WireType::Union(_) => "UNION".to_owned(),
            WireType::Record(_) => "RECORD".to_owned(),
            WireType::Enum(_) => "ENUM".to_owned(),
            WireType::Fixed(_) => "FIXED".to_owned(),
            WireType::Unknown(name) => format!("the undefined type {}", name.fullname(None)),
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
    fn can_read(self, writer: Self) -> bool {
        use Primitive::{Bytes, Double, Float, Int, Long, String};
        self == writer
            || matches!(
                (self, writer),
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
struct NamedTypes<'a>(HashMap<String, &'a Schema>);

impl<'a> NamedTypes<'a> {
    fn of(root: &'a Schema) -> Self {
        let mut types = NamedTypes(HashMap::new());
        let mut pending = vec![root];
        // Iteration instead of recursion: the depth of a document from outside is unbounded.
        while let Some(schema) = pending.pop() {
            match schema {
                Schema::Record(record) => {
                    types.define(&record.name, &record.aliases, schema);
                    pending.extend(record.fields.iter().map(|field| &field.schema));
                }
                Schema::Enum(symbols) => types.define(&symbols.name, &symbols.aliases, schema),
                Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                    types.define(&fixed.name, &fixed.aliases, schema);
                }
                Schema::Decimal(decimal) => {
                    if let InnerDecimalSchema::Fixed(fixed) = &decimal.inner {
                        types.define(&fixed.name, &fixed.aliases, schema);
                    }
                }
                Schema::Array(array) => pending.push(&array.items),
                Schema::Map(map) => pending.push(&map.types),
                Schema::Union(union) => pending.extend(union.variants()),
                _ => {}
            }
        }
        types
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
