//! The project's own schema catalog against every rule, and every rule against a catalog that breaks it.

use std::path::Path;

use runtime::{
    Channel,
    schemas::{CatalogError, SchemaCatalog, lint},
};

#[test]
fn the_schema_catalog_of_this_repository_keeps_the_rules() {
    let contract = SchemaCatalog::load_and_lint(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas"))
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(contract.records().len() > 10);
    let placed = contract.find("order-processor", Channel::Events, "OrderPlaced").unwrap();
    assert_eq!(placed.full_name("shop"), "com.shop.order_processor.OrderPlaced");
    assert_eq!(placed.topic("shop"), "shop.order-processor.events");
    assert!(placed.latest().text_in("shop").contains("\"com.shop.common\""));
}

const PATH: &str = "order-desk/events/OrderTaken/v1.avsc";
const EXAMPLE_PATH: &str = "order-desk/events/OrderTaken/v1.example.json";
const V2_PATH: &str = "order-desk/events/OrderTaken/v2.avsc";
const V2_EXAMPLE_PATH: &str = "order-desk/events/OrderTaken/v2.example.json";

const SCHEMA: &str = r#"{
  "type": "record", "namespace": "com.musiccorp.order_desk", "name": "OrderTaken", "doc": "An order was taken.",
  "fields": [
    { "name": "order_id", "type": "string", "doc": "The order." },
    { "name": "state", "doc": "How it stands.", "type": {
      "type": "enum", "namespace": "com.musiccorp.common", "name": "State", "doc": "A state.",
      "symbols": ["UNKNOWN", "OPEN"], "default": "UNKNOWN" } },
    { "name": "total", "doc": "What it costs.", "type": ["null", {
      "type": "record", "namespace": "com.musiccorp.common", "name": "Money", "doc": "An amount.",
      "fields": [{ "name": "amount_minor", "type": "long", "doc": "Minor units." }] }] },
    { "name": "occurred_at", "type": { "type": "long", "logicalType": "timestamp-millis" }, "doc": "When." }
  ]
}"#;
const EXAMPLE: &str =
    r#"{ "order_id": "o-1", "state": "OPEN", "total": { "amount_minor": 5 }, "occurred_at": 1795248000000 }"#;

/// A valid v2: one appended field with a default, and one more symbol.
fn second() -> (String, String) {
    let schema = SCHEMA
        .replace(
            r#""doc": "When." }"#,
            r#""doc": "When." }, { "name": "note", "type": "string", "default": "", "doc": "A note." }"#,
        )
        .replace(r#"["UNKNOWN", "OPEN"]"#, r#"["UNKNOWN", "OPEN", "SHUT"]"#);
    let example = EXAMPLE.replace(r#""o-1","#, r#""o-1", "note": "n","#);
    assert!(schema != SCHEMA && example != EXAMPLE);
    (schema, example)
}

fn findings(files: &[(&str, &str)]) -> Vec<String> {
    match SchemaCatalog::from_files(files.iter().copied()) {
        Ok(contract) => lint(&contract).iter().map(ToString::to_string).collect(),
        Err(CatalogError::RulesBroken(faults)) => faults.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn finds(files: &[(&str, &str)], expected: &str) {
    let findings = findings(files);
    assert!(findings.iter().any(|finding| finding.contains(expected)), "no {expected:?} in {findings:#?}");
}

/// Breaks one rule by replacing a part of the valid schema.
#[track_caller]
fn finds_in_schema(right: &str, wrong: &str, expected: &str) {
    let schema = SCHEMA.replacen(right, wrong, 1);
    assert_ne!(schema, SCHEMA, "{right:?} is not in the schema");
    finds(&[(PATH, &schema), (EXAMPLE_PATH, EXAMPLE)], expected);
}

/// Breaks one rule in the second version.
#[track_caller]
fn finds_in_second(right: &str, wrong: &str, expected: &str) {
    let (schema, example) = second();
    let planted = schema.replacen(right, wrong, 1);
    assert_ne!(planted, schema, "{right:?} is not in the schema");
    finds(&[(PATH, SCHEMA), (EXAMPLE_PATH, EXAMPLE), (V2_PATH, &planted), (V2_EXAMPLE_PATH, &example)], expected);
}

#[test]
fn a_catalog_that_keeps_the_rules_has_no_findings() {
    let (schema, example) = second();
    let files = [(PATH, SCHEMA), (EXAMPLE_PATH, EXAMPLE), (V2_PATH, &schema), (V2_EXAMPLE_PATH, &example)];
    assert_eq!(findings(&files), Vec::<String>::new());
}

#[test]
fn misplaced_files_are_found() {
    for path in [
        "OrderTaken.avsc",
        "order-desk/topics/OrderTaken/v1.avsc",
        "order-desk/events/OrderTaken/v01.avsc",
        "order-desk/events/OrderTaken/v0.avsc",
        "order-desk/events/OrderTaken/1.avsc",
        "order-desk/events/OrderTaken/v1.json",
    ] {
        finds(&[(path, SCHEMA)], "is misplaced");
    }
    finds(&[(EXAMPLE_PATH, EXAMPLE)], "v1.avsc, which does not exist");
}

#[test]
fn names_that_do_not_match_the_path_are_found() {
    finds(&[("other/events/OrderTaken/v1.avsc", SCHEMA)], "requires com.musiccorp.other.OrderTaken");
    finds_in_schema(
        r#""name": "OrderTaken""#,
        r#""name": "OrderTake""#,
        "is called com.musiccorp.order_desk.OrderTake;",
    );
    finds(&[(PATH, r#""string""#)], "is no record");
    finds_in_schema(
        r#""namespace": "com.musiccorp.common", "name": "Money""#,
        r#""name": "Money""#,
        "must state the namespace",
    );
}

#[test]
fn files_that_do_not_parse_are_found() {
    finds(&[(PATH, "{")], "is no self-contained Avro schema");
    finds_in_schema(
        r#""type": "string""#,
        r#""type": "com.musiccorp.common.Text""#,
        "is no self-contained Avro schema",
    );
}

#[test]
fn missing_documentation_is_found() {
    finds_in_schema(r#", "doc": "An order was taken.""#, "", "$ has no doc");
    finds_in_schema(r#", "doc": "The order.""#, r#", "doc": " ""#, "$.order_id has no doc");
    finds_in_schema(r#", "doc": "A state.""#, "", "$.state has no doc");
    finds_in_schema(r#", "doc": "Minor units.""#, "", "amount_minor has no doc");
}

#[test]
fn aliases_and_unsafe_logical_types_are_found() {
    finds_in_schema(r#""name": "OrderTaken","#, r#""name": "OrderTaken", "aliases": ["Old"],"#, "has aliases");
    finds_in_schema(r#""name": "order_id","#, r#""name": "order_id", "aliases": ["id"],"#, "$.order_id has aliases");
    finds_in_schema(
        r#""type": "string""#,
        r#""type": {"type": "string", "logicalType": "uuid"}"#,
        "logical type \"uuid\"",
    );
    let decimal = r#""type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}"#;
    finds_in_schema(r#""type": "string""#, decimal, "logical type \"decimal\"");
    finds_in_schema(
        r#""type": "long", "doc""#,
        r#""type": "long", "logicalType": "timestamp-millis", "doc""#,
        "beside the type",
    );
}

#[test]
fn enums_that_cannot_grow_are_found() {
    finds_in_schema(r#", "default": "UNKNOWN""#, "", "is an enum without the symbol UNKNOWN");
    finds_in_schema(
        r#""UNKNOWN", "OPEN"], "default": "UNKNOWN""#,
        r#""OPEN"], "default": "OPEN""#,
        "is an enum without",
    );
}

#[test]
fn an_event_without_its_timestamp_field_is_found() {
    finds_in_schema("occurred_at", "happened_at", "without the field occurred_at");
    finds_in_schema("timestamp-millis", "timestamp-micros", "must be a long with the logical type timestamp-millis");
    finds_in_schema(
        r#""doc": "When." }"#,
        r#""doc": "When." }, { "name": "z", "type": "string", "doc": "Z." }"#,
        "must be the last field of v1",
    );
    let inbox = SCHEMA.replace("occurred_at", "happened_at");
    let example = EXAMPLE.replace("occurred_at", "happened_at");
    let files =
        [("order-desk/inbox/OrderTaken/v1.avsc", &*inbox), ("order-desk/inbox/OrderTaken/v1.example.json", &*example)];
    assert_eq!(findings(&files), Vec::<String>::new());
}

#[test]
fn examples_that_are_missing_or_do_not_fit_are_found() {
    let with = |example: &str, expected: &str| finds(&[(PATH, SCHEMA), (EXAMPLE_PATH, example)], expected);
    finds(&[(PATH, SCHEMA)], "has no v1.example.json");
    with("{", "its example is not JSON");
    with(&EXAMPLE.replace("\"o-1\"", "7"), "$.order_id: expected a string, found 7");
    with(&EXAMPLE.replace("OPEN", "AJAR"), "$.state: expected one of UNKNOWN, OPEN");
    with(&EXAMPLE.replace("amount_minor", "amount"), "$.total: Money has no field \"amount\"");
    with(&EXAMPLE.replace("\"o-1\",", "\"o-1\", \"extra\": 1,"), "no field \"extra\"");
    let (schema, _) = second();
    finds(
        &[(PATH, SCHEMA), (EXAMPLE_PATH, EXAMPLE), (V2_PATH, &schema), (V2_EXAMPLE_PATH, EXAMPLE)],
        "$.note is missing",
    );
}

#[test]
fn gaps_between_versions_are_found() {
    finds(&[("order-desk/events/OrderTaken/v2.avsc", SCHEMA)], "is v2 where v1 is missing");
    let (schema, _) = second();
    finds(&[(PATH, SCHEMA), ("order-desk/events/OrderTaken/v3.avsc", &schema)], "is v3 where v2 is missing");
}

#[test]
fn changes_other_than_appending_are_found() {
    let order_id = r#"{ "name": "order_id", "type": "string", "doc": "The order." },"#;
    finds_in_second(order_id, "", "$.order_id was removed");
    finds_in_second(r#""name": "order_id""#, r#""name": "order""#, "$.order_id was removed");
    finds_in_second(
        r#""name": "order_id", "type": "string""#,
        r#""name": "order_id", "type": "bytes""#,
        "$.order_id changed its type",
    );
    finds_in_second(
        order_id,
        &format!(r#"{{ "name": "first", "type": "string", "default": "", "doc": "F." }}, {order_id}"#),
        "$.order_id moved",
    );
    finds_in_second(r#""type": "string", "default": """#, r#""type": "string""#, "$.note is new and has no default");
    finds_in_second(r#""OPEN", "SHUT""#, r#""SHUT", "OPEN""#, "symbols are only ever appended");
    finds_in_second(
        r#""name": "amount_minor", "type": "long""#,
        r#""name": "amount_minor", "type": "int""#,
        "$.total.amount_minor changed its type",
    );
    finds_in_second(r#""timestamp-millis""#, r#""timestamp-micros""#, "$.occurred_at changed its type");
}

#[test]
fn incompatible_versions_are_found() {
    finds_in_second(
        r#""name": "amount_minor", "type": "long""#,
        r#""name": "amount_minor", "type": "int""#,
        "is incompatible with v1",
    );
}

#[test]
fn incompatible_copies_of_a_shared_type_are_found() {
    let other = SCHEMA
        .replace("OrderTaken", "OrderLeft")
        .replace(r#""name": "amount_minor", "type": "long""#, r#""name": "amount_minor", "type": "string""#);
    let files = [(PATH, SCHEMA), (EXAMPLE_PATH, EXAMPLE), ("order-desk/events/OrderLeft/v1.avsc", &*other)];
    finds(&files, "its com.musiccorp.common.Money is incompatible with the one in");
}

#[test]
fn a_folder_is_read_like_its_compiled_in_files() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("order-desk/events/OrderTaken");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("v1.avsc"), SCHEMA).unwrap();
    std::fs::write(folder.join("v1.example.json"), EXAMPLE).unwrap();
    std::fs::write(root.path().join("README.md"), "notes").unwrap();
    let contract = SchemaCatalog::load_and_lint(root.path()).unwrap();
    assert_eq!(contract.records().len(), 1);
    assert_eq!(contract.records()[0].versions[0].path, PATH);
    std::fs::write(folder.join("v2.avsc"), "{}").unwrap();
    assert!(
        matches!(SchemaCatalog::load(root.path()), Err(CatalogError::RulesBroken(faults)) if faults[0].path == V2_PATH)
    );
    let absent = SchemaCatalog::load(&root.path().join("absent")).unwrap_err();
    assert!(absent.to_string().contains("absent"), "{absent}");
}
