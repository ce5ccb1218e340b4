//! A reader with one field of a record skips the other fields, whatever their Avro types.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter};
use runtime::codec::RecordReader;
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mood {
    Calm,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Holder {
    last: String,
    mood: Mood,
}

fn schema_with(ignored: &serde_json::Value) -> Schema {
    let text = json!({ "type": "record", "name": "Holder", "fields": [
        { "name": "ignored", "type": ignored },
        { "name": "mood", "type": { "type": "enum", "name": "Mood", "symbols": ["UNKNOWN", "CALM", "WILD"], "default": "UNKNOWN" } },
        { "name": "last", "type": "string" },
    ] });
    Schema::parse_str(&text.to_string()).unwrap()
}

fn read(ignored: &serde_json::Value, value: &serde_json::Value, mood: &str) -> Holder {
    let schema: &'static Schema = Box::leak(Box::new(schema_with(ignored)));
    let record = json!({ "ignored": value, "mood": mood, "last": "here" });
    let value = Value::try_from(record).unwrap().resolve(schema).unwrap();
    let bytes = GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap();
    let datum = GenericDatumReader::builder(schema).build().unwrap();
    RecordReader::new(&datum, &bytes).read().unwrap()
}

#[test]
fn a_field_of_any_type_that_the_struct_does_not_name_is_ignored() {
    let inner = json!({ "type": "record", "name": "Inner", "fields": [
        { "name": "a", "type": "long" }, { "name": "b", "type": ["null", "string"] },
    ] });
    let colour = json!({ "type": "enum", "name": "Colour", "symbols": ["UNKNOWN", "RED"], "default": "UNKNOWN" });
    let cases = [
        (json!("long"), json!(7)),
        (json!({ "type": "long", "logicalType": "timestamp-millis" }), json!(7)),
        (json!("boolean"), json!(true)),
        (json!("double"), json!(0.5)),
        (json!("string"), json!("text")),
        (inner.clone(), json!({ "a": 1, "b": "x" })),
        (colour.clone(), json!("RED")),
        (json!(["null", colour]), json!("RED")),
        (json!(["null", inner]), json!(null)),
        (json!(["null", inner]), json!({ "a": 1, "b": null })),
        (json!({ "type": "array", "items": inner }), json!([{ "a": 1, "b": null }, { "a": 2, "b": "y" }])),
        (json!({ "type": "map", "values": "int" }), json!({ "k": 3 })),
    ];
    for (ignored, value) in cases {
        assert_eq!(read(&ignored, &value, "CALM"), Holder { last: "here".to_owned(), mood: Mood::Calm }, "{ignored}");
    }
}

#[test]
fn a_symbol_that_the_enum_does_not_name_is_read_as_unknown() {
    assert_eq!(read(&json!("long"), &json!(7), "WILD").mood, Mood::Unknown);
}
