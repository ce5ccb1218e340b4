//! What the walk allows, the decoder reads: generated schemas, changed at random, with generated values.
//!
//! Left out is what apache-avro's decoder does not do, whatever a walk says: field aliases, and decimals with a reader's schema.

#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value as Avro, writer::datum::GenericDatumWriter};
use avro_compat::{Role, check};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

/// A type, without the names that its place in the document gives it.
#[derive(Debug, Clone)]
enum Type {
    Primitive(&'static str),
    Fixed(usize),
    Enum { symbols: Vec<&'static str>, default: bool },
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    Record(Vec<Field>),
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    kind: Type,
    default: bool,
}

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
const SYMBOLS: [&str; 4] = ["UNKNOWN", "A", "B", "C"];

fn types() -> impl Strategy<Value = Type> {
    let symbols = proptest::sample::subsequence(&SYMBOLS[1..], 0..=3).prop_map(|mut symbols| {
        symbols.insert(0, SYMBOLS[0]);
        symbols
    });
    let leaf = prop_oneof![
        6 => proptest::sample::select(&PRIMITIVES[..]).prop_map(Type::Primitive),
        1 => (1_usize..4).prop_map(Type::Fixed),
        1 => (symbols, any::<bool>()).prop_map(|(symbols, default)| Type::Enum { symbols, default }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| Type::Array(Box::new(items))),
            inner.clone().prop_map(|values| Type::Map(Box::new(values))),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(union_of),
            proptest::collection::vec((inner, any::<bool>()), 0..4).prop_map(|fields| {
                let field = |(index, (kind, default))| Field { name: format!("f{index}"), kind, default };
                Type::Record(fields.into_iter().enumerate().map(field).collect())
            }),
        ]
    })
}

/// A union may hold one branch of each kind, and no union.
fn union_of(candidates: Vec<Type>) -> Type {
    let mut branches: Vec<Type> = Vec::new();
    for candidate in candidates {
        let flat = if let Type::Union(inner) = candidate { inner } else { vec![candidate] };
        for branch in flat {
            if !branches.iter().any(|known| known.kind() == branch.kind()) {
                branches.push(branch);
            }
        }
    }
    Type::Union(branches)
}

impl Type {
    fn kind(&self) -> &'static str {
        match self {
            Type::Primitive(name) => name,
            Type::Fixed(_) => "fixed",
            Type::Enum { .. } => "enum",
            Type::Array(_) => "array",
            Type::Map(_) => "map",
            Type::Union(_) => "union",
            Type::Record(_) => "record",
        }
    }

    fn json(&self, place: &str) -> Value {
        match self {
            Type::Primitive(name) => json!(name),
            Type::Fixed(size) => json!({"type": "fixed", "name": format!("F{place}"), "size": size}),
            Type::Enum { symbols, default: true } => {
                json!({"type": "enum", "name": format!("E{place}"), "symbols": symbols, "default": symbols[0]})
            }
            Type::Enum { symbols, default: false } => {
                json!({"type": "enum", "name": format!("E{place}"), "symbols": symbols})
            }
            Type::Array(items) => json!({"type": "array", "items": items.json(&format!("{place}a"))}),
            Type::Map(values) => json!({"type": "map", "values": values.json(&format!("{place}m"))}),
            Type::Union(branches) => branches.iter().map(|branch| branch.json(place)).collect(),
            Type::Record(fields) => {
                let fields: Vec<Value> = fields.iter().map(|field| field.json(place)).collect();
                json!({"type": "record", "name": format!("R{place}"), "fields": fields})
            }
        }
    }

    fn default(&self) -> Option<Value> {
        match self {
            Type::Primitive("null") => Some(Value::Null),
            Type::Primitive("boolean") => Some(json!(true)),
            Type::Primitive("bytes" | "string") => Some(json!("d")),
            Type::Primitive("float" | "double") => Some(json!(0.5)),
            Type::Primitive(_) => Some(json!(7)),
            Type::Fixed(_) => None,
            Type::Enum { symbols, .. } => Some(json!(symbols[0])),
            Type::Array(_) => Some(json!([])),
            Type::Map(_) => Some(json!({})),
            Type::Union(branches) => branches[0].default(),
            Type::Record(fields) => {
                fields.iter().all(|field| field.default && field.kind.default().is_some()).then(|| json!({}))
            }
        }
    }

    /// A value of this type; `picks` is an endless source of decisions.
    fn value(&self, picks: &mut Picks) -> Avro {
        match self {
            Type::Primitive("null") => Avro::Null,
            Type::Primitive("boolean") => Avro::Boolean(picks.one_of(2) == 1),
            Type::Primitive("int") => Avro::Int(i32::try_from(picks.one_of(100)).unwrap() - 50),
            Type::Primitive("long") => Avro::Long(i64::try_from(picks.one_of(100)).unwrap() - 50),
            Type::Primitive("float") => Avro::Float(1.5),
            Type::Primitive("double") => Avro::Double(2.5),
            Type::Primitive("bytes") => Avro::Bytes(b"bytes"[..picks.one_of(5)].to_vec()),
            Type::Primitive(_) => Avro::String("text"[..picks.one_of(5)].to_owned()),
            Type::Fixed(size) => Avro::Fixed(*size, vec![1; *size]),
            Type::Enum { symbols, .. } => {
                let index = picks.one_of(symbols.len());
                Avro::Enum(u32::try_from(index).unwrap(), symbols[index].to_owned())
            }
            Type::Array(items) => Avro::Array((0..picks.one_of(3)).map(|_| items.value(picks)).collect()),
            Type::Map(values) => {
                Avro::Map((0..picks.one_of(3)).map(|i| (format!("k{i}"), values.value(picks))).collect())
            }
            Type::Union(branches) => {
                let index = picks.one_of(branches.len());
                Avro::Union(u32::try_from(index).unwrap(), Box::new(branches[index].value(picks)))
            }
            Type::Record(fields) => {
                Avro::Record(fields.iter().map(|field| (field.name.clone(), field.kind.value(picks))).collect())
            }
        }
    }

    /// This type after a developer's change or two, most of them harmless.
    fn changed(&self, picks: &mut Picks) -> Type {
        match (self, picks.one_of(8)) {
            (Type::Union(branches), 0) => union_of(
                branches.iter().map(|branch| branch.changed(picks)).chain([Type::Primitive("string")]).collect(),
            ),
            (Type::Union(branches), 1) => branches[picks.one_of(branches.len())].clone(),
            (Type::Union(branches), _) => union_of(branches.iter().map(|branch| branch.changed(picks)).collect()),
            (other, 0) => union_of(vec![Type::Primitive("null"), other.changed(picks)]),
            (Type::Primitive("int"), 1) => Type::Primitive("long"),
            (Type::Primitive("int" | "long" | "float"), 2) => Type::Primitive("double"),
            (Type::Primitive("string"), 1) => Type::Primitive("bytes"),
            (Type::Primitive("bytes"), 1) => Type::Primitive("string"),
            (Type::Primitive(_), 3) => Type::Primitive(PRIMITIVES[picks.one_of(PRIMITIVES.len())]),
            (Type::Enum { symbols, .. }, 1) => Type::Enum { symbols: symbols[..1].to_vec(), default: true },
            (Type::Enum { symbols, default }, 2) => Type::Enum { symbols: symbols[..1].to_vec(), default: *default },
            (Type::Array(items), _) => Type::Array(Box::new(items.changed(picks))),
            (Type::Map(values), _) => Type::Map(Box::new(values.changed(picks))),
            (Type::Record(fields), pick) => Type::Record(changed_fields(fields, pick, picks)),
            (other, _) => other.clone(),
        }
    }
}

fn changed_fields(fields: &[Field], pick: usize, picks: &mut Picks) -> Vec<Field> {
    let mut fields: Vec<Field> =
        fields.iter().map(|field| Field { kind: field.kind.changed(picks), ..field.clone() }).collect();
    match pick {
        1 if !fields.is_empty() => {
            fields.remove(picks.one_of(fields.len()));
        }
        2 => fields.insert(0, Field { name: "added".to_owned(), kind: Type::Primitive("long"), default: true }),
        3 => fields.push(Field { name: "required".to_owned(), kind: Type::Primitive("long"), default: false }),
        4 => fields.reverse(),
        _ => {}
    }
    fields
}

impl Field {
    fn json(&self, place: &str) -> Value {
        let mut field = json!({"name": self.name, "type": self.kind.json(&format!("{place}{}", self.name))});
        if let (true, Some(default)) = (self.default, self.kind.default()) {
            field["default"] = default;
        }
        field
    }
}

struct Picks {
    picks: Vec<Index>,
    next: usize,
}

impl Picks {
    fn one_of(&mut self, count: usize) -> usize {
        self.next += 1;
        self.picks[self.next % self.picks.len()].index(count)
    }
}

fn picks() -> impl Strategy<Value = Picks> {
    proptest::collection::vec(any::<Index>(), 40).prop_map(|picks| Picks { picks, next: 0 })
}

impl std::fmt::Debug for Picks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} picks", self.picks.len())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_walk_allows_the_decoder_reads(writer in types(), mut changes in picks(), mut values in picks()) {
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
