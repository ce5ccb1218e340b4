//! Plain JSON to Avro and back: accepted JSON, error messages, and equality with the bytes of Avro's own library.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value as Avro, writer::datum::GenericDatumWriter};
use proptest::prelude::*;
use runtime::schemas::{avro_to_json, json_to_avro};
use serde_json::{Value, json};

const ORDER: &str = r#"{
  "type": "record", "name": "Order", "fields": [
    { "name": "id", "type": "string" },
    { "name": "lines", "type": { "type": "array", "items": {
        "type": "record", "name": "Line", "fields": [
          { "name": "sku", "type": "string" },
          { "name": "quantity", "type": "int" },
          { "name": "album", "type": ["null", { "type": "record", "name": "Album", "fields": [
              { "name": "title", "type": "string" }] }], "default": null }] } } },
    { "name": "kind", "type": { "type": "enum", "name": "Kind", "symbols": ["UNKNOWN", "GIFT"], "default": "UNKNOWN" }, "default": "UNKNOWN" },
    { "name": "tags", "type": { "type": "map", "values": ["int", "string"] }, "default": {} },
    { "name": "digest", "type": { "type": "fixed", "name": "Digest", "size": 2 }, "default": "\u00ff\u0001" },
    { "name": "blob", "type": "bytes", "default": "A" },
    { "name": "first", "type": ["null", "Line"], "default": null },
    { "name": "ratio", "type": "double", "default": 0.5 },
    { "name": "share", "type": "float", "default": 0.1 },
    { "name": "gift", "type": "boolean", "default": false },
    { "name": "at", "type": { "type": "long", "logicalType": "timestamp-millis" }, "default": 0 }
  ]
}"#;

fn order() -> Schema {
    Schema::parse_str(ORDER).unwrap()
}

fn full() -> Value {
    json!({
        "id": "o-1",
        "lines": [
            { "sku": "LP-1", "quantity": 2, "album": { "title": "Blue" } },
            { "sku": "LP-2", "quantity": 1, "album": null },
        ],
        "kind": "GIFT",
        "tags": { "rank": 7, "note": "fragile" },
        "digest": "00ff",
        "blob": "",
        "first": { "sku": "LP-1", "quantity": 2, "album": null },
        "ratio": 1.25,
        "share": 0.1,
        "gift": true,
        "at": 1_795_248_000_000_i64,
    })
}

#[test]
fn a_value_round_trips() {
    let bytes = json_to_avro(&order(), &full()).unwrap();
    assert_eq!(avro_to_json(&order(), &bytes).unwrap(), full());
}

#[test]
fn missing_fields_take_their_defaults() {
    let bytes = json_to_avro(&order(), &json!({ "id": "o", "lines": [{ "sku": "s", "quantity": 1 }] })).unwrap();
    let expected = json!({
        "id": "o", "lines": [{ "sku": "s", "quantity": 1, "album": null }], "kind": "UNKNOWN", "tags": {},
        "digest": "ff01", "blob": "41", "first": null, "ratio": 0.5, "share": 0.1, "gift": false, "at": 0,
    });
    assert_eq!(avro_to_json(&order(), &bytes).unwrap(), expected);
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut Value), path: &str, reason: &str) {
    let mut json = full();
    change(&mut json);
    let error = json_to_avro(&order(), &json).unwrap_err();
    assert_eq!(error.path, path);
    assert!(error.reason.contains(reason), "{error}");
}

#[test]
fn a_value_that_does_not_fit_is_reported_with_its_path() {
    refuses(
        |order| order["lines"][1]["quantity"] = json!("two"),
        "$.lines[1].quantity",
        "expected an int, found \"two\"",
    );
    refuses(|order| order["lines"][0]["quantity"] = json!(3_000_000_000_i64), "$.lines[0].quantity", "expected an int");
    refuses(|order| order["lines"][0]["quantity"] = json!(1.5), "$.lines[0].quantity", "found 1.5");
    refuses(|order| order["lines"][0]["album"] = json!({ "title": 1 }), "$.lines[0].album.title", "expected a string");
    refuses(
        |order| order["lines"][0]["albums"] = json!(null),
        "$.lines[0]",
        "no field \"albums\"; its fields are sku, quantity, album",
    );
    refuses(|order| order["id"] = json!(null), "$.id", "expected a string, found null");
    refuses(|order| order["kind"] = json!("TOY"), "$.kind", "expected one of UNKNOWN, GIFT, found \"TOY\"");
    refuses(|order| order["tags"]["x"] = json!([]), "$.tags[\"x\"]", "fits no branch of the union");
    refuses(|order| order["digest"] = json!("00ff00"), "$.digest", "expected 2 bytes, in hexadecimal");
    refuses(|order| order["blob"] = json!("xy"), "$.blob", "expected bytes, in hexadecimal");
    refuses(|order| order["at"] = json!("2026-11-21"), "$.at", "expected a long");
    refuses(
        |order| {
            order.as_object_mut().unwrap().remove("id");
        },
        "$.id",
        "missing",
    );
    refuses(|order| *order = json!([]), "$", "expected a Order, found an array");
}

#[test]
fn bytes_that_do_not_fit_are_reported_with_their_path() {
    let bytes = json_to_avro(&order(), &full()).unwrap();
    for length in 0..bytes.len() {
        let error = avro_to_json(&order(), &bytes[..length]).unwrap_err();
        assert!(error.path.starts_with('$'), "{error}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(avro_to_json(&order(), &longer).unwrap_err().reason.contains("1 bytes are left over"));
}

#[test]
fn hostile_bytes_exhaust_neither_stack_nor_memory() {
    let list =
        Schema::parse_str(r#"{"type":"record","name":"N","fields":[{"name":"next","type":["null","N"]}]}"#).unwrap();
    let endless = vec![2_u8; 1_000_000];
    assert!(avro_to_json(&list, &endless).unwrap_err().reason.contains("nested deeper"));
    let nulls = Schema::parse_str(r#"{"type":"array","items":"null"}"#).unwrap();
    let mut many = vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    many.push(0);
    assert!(avro_to_json(&nulls, &many).unwrap_err().reason.contains("too many values"));
    let text = Schema::parse_str(r#""string""#).unwrap();
    assert!(avro_to_json(&text, &many).unwrap_err().reason.contains("the body ends early"));
}

#[test]
fn a_default_that_contains_itself_is_refused() {
    let schema = Schema::parse_str(
        r#"{"type":"record","name":"N","fields":[{"name":"next","type":["null",{"type":"array","items":"N"}],"default":null}]}"#,
    )
    .unwrap();
    assert_eq!(json_to_avro(&schema, &json!({})).unwrap(), [0]);
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({ "next": [deep] });
    }
    assert!(json_to_avro(&schema, &deep).unwrap_err().to_string().contains("nested deeper"));
}

/// Values of the order's schema in the form of Avro's own library.
fn orders() -> impl Strategy<Value = Avro> {
    let album = proptest::option::of(any::<String>()).prop_map(|title| match title {
        None => Avro::Union(0, Box::new(Avro::Null)),
        Some(title) => Avro::Union(1, Box::new(Avro::Record(vec![("title".to_owned(), Avro::String(title))]))),
    });
    let line = (any::<String>(), any::<i32>(), album).prop_map(|(sku, quantity, album)| {
        Avro::Record(vec![
            ("sku".to_owned(), Avro::String(sku)),
            ("quantity".to_owned(), Avro::Int(quantity)),
            ("album".to_owned(), album),
        ])
    });
    let tag = prop_oneof![
        any::<i32>().prop_map(|value| Avro::Union(0, Box::new(Avro::Int(value)))),
        any::<String>().prop_map(|value| Avro::Union(1, Box::new(Avro::String(value)))),
    ];
    (
        (any::<String>(), proptest::collection::vec(line, 0..4), any::<bool>()),
        // One key at most: the order of a map's entries is unspecified.
        proptest::collection::hash_map("[a-z]{1,5}", tag, 0..2),
        (any::<[u8; 2]>(), any::<Vec<u8>>(), any::<f64>(), any::<f32>(), any::<bool>(), any::<i64>()),
    )
        .prop_filter("NaN differs from itself", |(.., (_, _, ratio, share, ..))| !ratio.is_nan() && !share.is_nan())
        .prop_map(|((id, lines, gift_kind), tags, (digest, blob, ratio, share, gift, at))| {
            let kind = if gift_kind { (1, "GIFT") } else { (0, "UNKNOWN") };
            Avro::Record(vec![
                ("id".to_owned(), Avro::String(id)),
                ("lines".to_owned(), Avro::Array(lines)),
                ("kind".to_owned(), Avro::Enum(kind.0, kind.1.to_owned())),
                ("tags".to_owned(), Avro::Map(tags)),
                ("digest".to_owned(), Avro::Fixed(2, digest.to_vec())),
                ("blob".to_owned(), Avro::Bytes(blob)),
                ("first".to_owned(), Avro::Union(0, Box::new(Avro::Null))),
                ("ratio".to_owned(), Avro::Double(ratio)),
                ("share".to_owned(), Avro::Float(share)),
                ("gift".to_owned(), Avro::Boolean(gift)),
                ("at".to_owned(), Avro::TimestampMillis(at)),
            ])
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_carries_everything_that_avros_own_library_writes_and_reads(value in orders()) {
        let schema = order();
        let written = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value.clone()).unwrap();
        let json = avro_to_json(&schema, &written).unwrap();
        let again = json_to_avro(&schema, &json).unwrap();
        let read = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut again.as_slice()).unwrap();
        prop_assert_eq!(read, value);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
        if let Ok(json) = avro_to_json(&order(), &bytes) {
            json_to_avro(&order(), &json).unwrap();
        }
    }
}
