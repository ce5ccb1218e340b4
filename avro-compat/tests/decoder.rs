//! The decoder reads what the comparison allows: generated schemas, random changes, generated values.
//!
//! The generator omits features that apache-avro's decoder lacks: field aliases, and decimals with a reader's schema.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value as AvroValue, writer::datum::GenericDatumWriter,
};
use avro_compat::{Role, check};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

/// A type without names; its location in the document determines them.
#[derive(Debug, Clone)]
enum GeneratedType {
    Primitive(&'static str),
    Fixed(usize),
    Enum { symbols: Vec<&'static str>, default: bool },
    Array(Box<GeneratedType>),
    Map(Box<GeneratedType>),
    Union(Vec<GeneratedType>),
    Record(Vec<GeneratedField>),
}

#[derive(Debug, Clone)]
struct GeneratedField {
    name: String,
    kind: GeneratedType,
    default: bool,
}

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
const SYMBOLS: [&str; 4] = ["UNKNOWN", "A", "B", "C"];

fn types() -> impl Strategy<Value = GeneratedType> {
    let symbols = proptest::sample::subsequence(&SYMBOLS[1..], 0..=3).prop_map(|mut symbols| {
        symbols.insert(0, SYMBOLS[0]);
        symbols
    });
    let leaf = prop_oneof![
        6 => proptest::sample::select(&PRIMITIVES[..]).prop_map(GeneratedType::Primitive),
        1 => (1_usize..4).prop_map(GeneratedType::Fixed),
        1 => (symbols, any::<bool>()).prop_map(|(symbols, default)| GeneratedType::Enum { symbols, default }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| GeneratedType::Array(Box::new(items))),
            inner.clone().prop_map(|values| GeneratedType::Map(Box::new(values))),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(union_of),
            proptest::collection::vec((inner, any::<bool>()), 0..4).prop_map(|fields| {
                let field = |(index, (kind, default))| GeneratedField { name: format!("f{index}"), kind, default };
                GeneratedType::Record(fields.into_iter().enumerate().map(field).collect())
            }),
        ]
    })
}

/// A union has at most one branch of each kind, and no nested union.
fn union_of(candidates: Vec<GeneratedType>) -> GeneratedType {
    let mut branches: Vec<GeneratedType> = Vec::new();
    for candidate in candidates {
        let flat = if let GeneratedType::Union(inner) = candidate { inner } else { vec![candidate] };
        for branch in flat {
            if !branches.iter().any(|known| known.kind() == branch.kind()) {
                branches.push(branch);
            }
        }
    }
    GeneratedType::Union(branches)
}

impl GeneratedType {
    fn kind(&self) -> &'static str {
        match self {
            GeneratedType::Primitive(name) => name,
            GeneratedType::Fixed(_) => "fixed",
            GeneratedType::Enum { .. } => "enum",
            GeneratedType::Array(_) => "array",
            GeneratedType::Map(_) => "map",
            GeneratedType::Union(_) => "union",
            GeneratedType::Record(_) => "record",
        }
    }

    fn json(&self, suffix: &str) -> Value {
        match self {
            GeneratedType::Primitive(name) => json!(name),
            GeneratedType::Fixed(size) => json!({"type": "fixed", "name": format!("F{suffix}"), "size": size}),
            GeneratedType::Enum { symbols, default: true } => {
                json!({"type": "enum", "name": format!("E{suffix}"), "symbols": symbols, "default": symbols[0]})
            }
            GeneratedType::Enum { symbols, default: false } => {
                json!({"type": "enum", "name": format!("E{suffix}"), "symbols": symbols})
            }
            GeneratedType::Array(items) => json!({"type": "array", "items": items.json(&format!("{suffix}a"))}),
            GeneratedType::Map(values) => json!({"type": "map", "values": values.json(&format!("{suffix}m"))}),
            GeneratedType::Union(branches) => branches.iter().map(|branch| branch.json(suffix)).collect(),
            GeneratedType::Record(fields) => {
                let fields: Vec<Value> = fields.iter().map(|field| field.json(suffix)).collect();
                json!({"type": "record", "name": format!("R{suffix}"), "fields": fields})
            }
        }
    }

    fn default(&self) -> Option<Value> {
        match self {
            GeneratedType::Primitive("null") => Some(Value::Null),
            GeneratedType::Primitive("boolean") => Some(json!(true)),
            GeneratedType::Primitive("bytes" | "string") => Some(json!("d")),
            GeneratedType::Primitive("float" | "double") => Some(json!(0.5)),
            GeneratedType::Primitive(_) => Some(json!(7)),
            GeneratedType::Fixed(_) => None,
            GeneratedType::Enum { symbols, .. } => Some(json!(symbols[0])),
            GeneratedType::Array(_) => Some(json!([])),
            GeneratedType::Map(_) => Some(json!({})),
            GeneratedType::Union(branches) => branches[0].default(),
            GeneratedType::Record(fields) => {
                fields.iter().all(|field| field.default && field.kind.default().is_some()).then(|| json!({}))
            }
        }
    }

    /// A value of this type; `choices` is an endless source of random choices.
    fn value(&self, choices: &mut Choices) -> AvroValue {
        match self {
            GeneratedType::Primitive("null") => AvroValue::Null,
            GeneratedType::Primitive("boolean") => AvroValue::Boolean(choices.below(2) == 1),
            GeneratedType::Primitive("int") => AvroValue::Int(i32::try_from(choices.below(100)).unwrap() - 50),
            GeneratedType::Primitive("long") => AvroValue::Long(i64::try_from(choices.below(100)).unwrap() - 50),
            GeneratedType::Primitive("float") => AvroValue::Float(1.5),
            GeneratedType::Primitive("double") => AvroValue::Double(2.5),
            GeneratedType::Primitive("bytes") => AvroValue::Bytes(b"bytes"[..choices.below(5)].to_vec()),
            GeneratedType::Primitive(_) => AvroValue::String("text"[..choices.below(5)].to_owned()),
            GeneratedType::Fixed(size) => AvroValue::Fixed(*size, vec![1; *size]),
            GeneratedType::Enum { symbols, .. } => {
                let index = choices.below(symbols.len());
                AvroValue::Enum(u32::try_from(index).unwrap(), symbols[index].to_owned())
            }
            GeneratedType::Array(items) => {
                AvroValue::Array((0..choices.below(3)).map(|_| items.value(choices)).collect())
            }
            GeneratedType::Map(values) => {
                AvroValue::Map((0..choices.below(3)).map(|i| (format!("k{i}"), values.value(choices))).collect())
            }
            GeneratedType::Union(branches) => {
                let index = choices.below(branches.len());
                AvroValue::Union(u32::try_from(index).unwrap(), Box::new(branches[index].value(choices)))
            }
            GeneratedType::Record(fields) => {
                AvroValue::Record(fields.iter().map(|field| (field.name.clone(), field.kind.value(choices))).collect())
            }
        }
    }

    /// This type after one or two changes of a developer, most of them compatible.
    fn changed(&self, choices: &mut Choices) -> GeneratedType {
        match (self, choices.below(8)) {
            (GeneratedType::Union(branches), 0) => union_of(
                branches
                    .iter()
                    .map(|branch| branch.changed(choices))
                    .chain([GeneratedType::Primitive("string")])
                    .collect(),
            ),
            (GeneratedType::Union(branches), 1) => branches[choices.below(branches.len())].clone(),
            (GeneratedType::Union(branches), _) => {
                union_of(branches.iter().map(|branch| branch.changed(choices)).collect())
            }
            (other, 0) => union_of(vec![GeneratedType::Primitive("null"), other.changed(choices)]),
            (GeneratedType::Primitive("int"), 1) => GeneratedType::Primitive("long"),
            (GeneratedType::Primitive("int" | "long" | "float"), 2) => GeneratedType::Primitive("double"),
            (GeneratedType::Primitive("string"), 1) => GeneratedType::Primitive("bytes"),
            (GeneratedType::Primitive("bytes"), 1) => GeneratedType::Primitive("string"),
            (GeneratedType::Primitive(_), 3) => GeneratedType::Primitive(PRIMITIVES[choices.below(PRIMITIVES.len())]),
            (GeneratedType::Enum { symbols, .. }, 1) => {
                GeneratedType::Enum { symbols: symbols[..1].to_vec(), default: true }
            }
            (GeneratedType::Enum { symbols, default }, 2) => {
                GeneratedType::Enum { symbols: symbols[..1].to_vec(), default: *default }
            }
            (GeneratedType::Array(items), _) => GeneratedType::Array(Box::new(items.changed(choices))),
            (GeneratedType::Map(values), _) => GeneratedType::Map(Box::new(values.changed(choices))),
            (GeneratedType::Record(fields), choice) => GeneratedType::Record(changed_fields(fields, choice, choices)),
            (other, _) => other.clone(),
        }
    }
}

fn changed_fields(fields: &[GeneratedField], choice: usize, choices: &mut Choices) -> Vec<GeneratedField> {
    let mut fields: Vec<GeneratedField> =
        fields.iter().map(|field| GeneratedField { kind: field.kind.changed(choices), ..field.clone() }).collect();
    match choice {
        1 if !fields.is_empty() => {
            fields.remove(choices.below(fields.len()));
        }
        2 => fields.insert(
            0,
            GeneratedField { name: "added".to_owned(), kind: GeneratedType::Primitive("long"), default: true },
        ),
        3 => fields.push(GeneratedField {
            name: "required".to_owned(),
            kind: GeneratedType::Primitive("long"),
            default: false,
        }),
        4 => fields.reverse(),
        _ => {}
    }
    fields
}

impl GeneratedField {
    fn json(&self, suffix: &str) -> Value {
        let mut field = json!({"name": self.name, "type": self.kind.json(&format!("{suffix}{}", self.name))});
        if let (true, Some(default)) = (self.default, self.kind.default()) {
            field["default"] = default;
        }
        field
    }
}

struct Choices {
    choices: Vec<Index>,
    next: usize,
}

impl Choices {
    fn below(&mut self, count: usize) -> usize {
        self.next += 1;
        self.choices[self.next % self.choices.len()].index(count)
    }
}

fn choices() -> impl Strategy<Value = Choices> {
    proptest::collection::vec(any::<Index>(), 40).prop_map(|choices| Choices { choices, next: 0 })
}

impl std::fmt::Debug for Choices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} picks", self.choices.len())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decoder_reads_what_the_comparison_allows(writer in types(), mut changes in choices(), mut values in choices()) {
        let reader = writer.changed(&mut changes);
        let writer_schema = Schema::parse(&writer.json("")).unwrap();
        let reader_schema = Schema::parse(&reader.json("")).unwrap();
        prop_assume!(check(&reader_schema, &writer_schema, Role::New).is_empty());
        let value = writer.value(&mut values);
        let bytes = GenericDatumWriter::builder(&writer_schema).build().unwrap()
            .write_value_to_vec(value.clone()).unwrap();
        let datum = GenericDatumReader::builder(&writer_schema).reader_schema(&reader_schema).build().unwrap();
        let read = datum.read_value(&mut bytes.as_slice());
        prop_assert!(read.is_ok(), "{:?}\nwritten with {}\nread with {}\n{:?}", value, writer.json(""), reader.json(""), read);
    }

    #[test]
    fn every_schema_reads_itself(schema in types()) {
        let schema = Schema::parse(&schema.json("")).unwrap();
        prop_assert_eq!(check(&schema, &schema.clone(), Role::New), vec![]);
    }
}
