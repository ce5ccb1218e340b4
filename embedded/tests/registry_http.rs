//! The registry's HTTP calls: paths, JSON, error codes, and the responses to invalid input.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use embedded::registry::{Level, Registry, RegistryConfig};
use reqwest::{
    Method, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::{Value, json};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

struct RegistryCaller {
    registry: Registry,
    http: reqwest::Client,
}

async fn start(level: Level) -> RegistryCaller {
    start_on(None, level).await
}

async fn start_on(data_dir: Option<&Path>, level: Level) -> RegistryCaller {
    let config = RegistryConfig {
        data_dir: data_dir.map(Path::to_owned),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        default_level: level,
        fsync: false,
    };
    RegistryCaller { registry: Registry::start(config).await.unwrap(), http: reqwest::Client::new() }
}

impl RegistryCaller {
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.registry.url()));
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, MEDIA_TYPE).body(body.to_string());
        }
        request.send().await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let response = self.send(method, path, body).await;
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE, "{path}");
        (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, response_body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {response_body}");
        response_body
    }

    async fn post(&self, path: &str, schema: &str) -> Value {
        let (status, response_body) = self.call(Method::POST, path, Some(json!({ "schema": schema }))).await;
        assert_eq!(status, 200, "{path}: {response_body}");
        response_body
    }

    async fn register(&self, subject: &str, schema: &str) -> u64 {
        self.post(&format!("/subjects/{subject}/versions"), schema).await["id"].as_u64().unwrap()
    }

    #[track_caller]
    fn refused(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        expected: (u16, u64),
    ) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let (status, response_body) = self.call(method, path, body).await;
            let code = response_body["error_code"].as_u64();
            assert_eq!((status, code), (expected.0, Some(expected.1)), "{path}: {response_body} ({caller})");
            response_body["message"].as_str().unwrap().to_owned()
        }
    }
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

const A: &str = r#"{"name":"a","type":"int"}"#;
const B: &str = r#"{"name":"b","type":"int","default":0}"#;
const C: &str = r#"{"name":"c","type":"int"}"#;

fn schema(text: &str) -> Option<Value> {
    Some(json!({ "schema": text }))
}

#[tokio::test]
async fn one_schema_has_one_id_under_every_subject_and_in_every_spelling() {
    let caller = start(Level::None).await;
    let first = caller.register("s1", &record(A)).await;
    assert_eq!(caller.register("s2", &record(A)).await, first);
    let spaced = r#" { "fields" : [ {"type": {"type": "int"}, "name": "a", "order": "ascending"} ], "name": "R", "type":"record" } "#;
    assert_eq!(caller.register("s1", spaced).await, first);
    assert_eq!(caller.post("/subjects/s1/versions?normalize=true", spaced).await["version"], 1);
    assert_eq!(caller.get("/subjects/s1/versions").await, json!([1]));
    assert_ne!(caller.register("s1", &record(B)).await, first);
    assert_eq!(caller.get(&format!("/schemas/ids/{first}/subjects")).await, json!(["s1", "s2"]));
    assert_eq!(
        caller.get(&format!("/schemas/ids/{first}/versions")).await,
        json!([{"subject": "s1", "version": 1}, {"subject": "s2", "version": 1}])
    );
}

#[tokio::test]
async fn a_schema_is_stored_in_the_form_that_avro_tools_write() {
    let caller = start(Level::None).await;
    let written = r#"{
        "namespace": "com.shop", "name": "Order", "type": "record", "aliases": ["Old"], "owner": "team", "doc": "An order.",
        "fields": [
            {"doc": "Amount.", "name": "total", "type": {"type": "record", "name": "com.shop.Money", "fields": [
                {"name": "minor", "type": {"type": "long"}}]}},
            {"name": "paid", "type": ["null", "com.shop.Money"], "default": null, "order": "ignore"},
            {"name": "at", "type": {"logicalType": "timestamp-millis", "type": "long"}},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "namespace": "com.other", "symbols": ["A"], "default": "A"}},
            {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
            {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "string"}}}
        ]}"#;
    let expected = concat!(
        r#"{"type":"record","name":"Order","namespace":"com.shop","doc":"An order.","fields":["#,
        r#"{"name":"total","type":{"type":"record","name":"Money","fields":[{"name":"minor","type":"long"}]},"doc":"Amount."},"#,
        r#"{"name":"paid","type":["null","Money"],"default":null,"order":"ignore"},"#,
        r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},"#,
        r#"{"name":"kind","type":{"type":"enum","name":"Kind","namespace":"com.other","symbols":["A"],"default":"A"}},"#,
        r#"{"name":"hash","type":{"type":"fixed","name":"Hash","size":4}},"#,
        r#"{"name":"tags","type":{"type":"map","values":{"type":"array","items":"string"}}}"#,
        r#"],"owner":"team","aliases":["Old"]}"#
    );
    let id = caller.register("order", written).await;
    assert_eq!(caller.get(&format!("/schemas/ids/{id}")).await["schema"], expected);
    let text = caller.send(Method::GET, &format!("/schemas/ids/{id}/schema"), None).await.text().await.unwrap();
    assert_eq!(text, expected);
    let text = caller.send(Method::GET, "/subjects/order/versions/latest/schema", None).await.text().await.unwrap();
    assert_eq!(text, expected);
    assert_eq!(caller.register("order", expected).await, id);
}

#[tokio::test]
async fn versions_are_read_by_number_and_as_the_latest() {
    let caller = start(Level::Backward).await;
    caller.register("s", &record(A)).await;
    caller.register("s", &record(&format!("{A},{B}"))).await;
    assert_eq!(caller.get("/subjects").await, json!(["s"]));
    assert_eq!(caller.get("/subjects?subjectPrefix=t").await, json!([]));
    assert_eq!(caller.get("/subjects?subjectPrefix=:*:").await, json!(["s"]));
    let latest = caller.get("/subjects/s/versions/latest").await;
    assert_eq!((&latest["version"], &latest["id"], &latest["subject"]), (&json!(2), &json!(2), &json!("s")));
    assert_eq!(caller.get("/subjects/s/versions/-1").await, latest);
    assert_eq!(caller.get("/subjects/s/versions/1").await["schema"], record(A));
    assert_eq!(caller.get("/subjects/s/versions/1/referencedby").await, json!([]));
    assert_eq!(caller.get("/schemas/types").await, json!(["AVRO"]));
    assert_eq!(caller.get("/schemas").await.as_array().unwrap().len(), 2);
    assert_eq!(caller.get("/schemas?latestOnly=true").await, json!([latest]));
    let guid = latest["guid"].as_str().unwrap();
    assert_eq!(caller.get(&format!("/schemas/guids/{guid}")).await["schema"], latest["schema"]);
    assert_eq!(caller.get("/schemas/ids/1?fetchMaxId=true").await["maxId"], 2);

    caller.refused(Method::GET, "/subjects/none/versions", None, (404, 40401)).await;
    caller.refused(Method::GET, "/subjects/none/versions/1", None, (404, 40401)).await;
    caller.refused(Method::GET, "/subjects/s/versions/3", None, (404, 40402)).await;
    for version in ["0", "-2", "2147483648", "first", "1.0"] {
        caller.refused(Method::GET, &format!("/subjects/s/versions/{version}"), None, (422, 42202)).await;
    }
    caller.refused(Method::GET, "/schemas/ids/3", None, (404, 40403)).await;
    caller.refused(Method::GET, "/schemas/ids/x", None, (404, 40403)).await;
    caller.refused(Method::GET, "/schemas/guids/3", None, (404, 40403)).await;
    caller.refused(Method::POST, "/subjects/none", schema(&record(A)), (404, 40401)).await;
    caller.refused(Method::POST, "/subjects/s", schema(&record(C)), (404, 40403)).await;
}

#[tokio::test]
async fn the_first_deletion_hides_and_the_second_removes() {
    let caller = start(Level::Backward).await;
    let id = caller.register("s", &record(A)).await;
    caller.register("s", &record(&format!("{A},{B}"))).await;

    caller.refused(Method::DELETE, "/subjects/s/versions/1?permanent=true", None, (404, 40407)).await;
    assert_eq!(caller.call(Method::DELETE, "/subjects/s/versions/1", None).await, (200, json!(1)));
    caller.refused(Method::DELETE, "/subjects/s/versions/1", None, (404, 40406)).await;
    caller.refused(Method::GET, "/subjects/s/versions/1", None, (404, 40402)).await;
    assert_eq!(caller.get("/subjects/s/versions").await, json!([2]));
    assert_eq!(caller.get("/subjects/s/versions?deleted=true").await, json!([1, 2]));
    assert_eq!(caller.get("/subjects/s/versions?deletedOnly=true").await, json!([1]));
    assert_eq!(caller.get("/subjects/s/versions/1?deleted=true").await["id"], id);
    // Old records must stay readable.
    assert_eq!(caller.get(&format!("/schemas/ids/{id}")).await["schema"], record(A));
    caller.refused(Method::POST, "/subjects/s", schema(&record(A)), (404, 40403)).await;
    assert_eq!(caller.post("/subjects/s?deleted=true", &record(A)).await["version"], 1);
    assert_eq!(caller.call(Method::DELETE, "/subjects/s/versions/1?permanent=true", None).await, (200, json!(1)));
    caller.refused(Method::GET, &format!("/schemas/ids/{id}"), None, (404, 40403)).await;

    caller.refused(Method::DELETE, "/subjects/s?permanent=true", None, (404, 40405)).await;
    assert_eq!(caller.call(Method::DELETE, "/subjects/s", None).await, (200, json!([2])));
    caller.refused(Method::DELETE, "/subjects/s", None, (404, 40404)).await;
    assert_eq!(caller.get("/subjects").await, json!([]));
    assert_eq!(caller.get("/subjects?deleted=true").await, json!(["s"]));
    assert_eq!(caller.get("/subjects?deletedOnly=true").await, json!(["s"]));
    // As Python prints it.
    assert_eq!(caller.get("/subjects?deletedOnly=True&deleted=False").await, json!(["s"]));
    // Later versions continue the numbering, and an id never changes its schema.
    assert_eq!(caller.post("/subjects/s/versions", &record(A)).await["version"], 3);
    assert_eq!(caller.register("s", &record(A)).await, id);
    caller.call(Method::DELETE, "/subjects/s", None).await;
    assert_eq!(caller.call(Method::DELETE, "/subjects/s?permanent=true", None).await, (200, json!([2, 3])));
    caller.refused(Method::DELETE, "/subjects/s", None, (404, 40401)).await;
    assert_eq!(caller.get("/subjects?deleted=true").await, json!([]));
    assert_eq!(caller.register("s", &record(C)).await, 3);
}

#[tokio::test]
async fn each_level_refuses_incompatible_changes() {
    // A level, and whether it allows to add a field with a default, to add a required field, and to remove a required field.
    let expected = [
        ("NONE", [true, true, true]),
        ("BACKWARD", [true, false, true]),
        ("BACKWARD_TRANSITIVE", [true, false, true]),
        ("FORWARD", [true, true, false]),
        ("FORWARD_TRANSITIVE", [true, true, false]),
        ("FULL", [true, false, false]),
        ("FULL_TRANSITIVE", [true, false, false]),
    ];
    let caller = start(Level::None).await;
    let first = record(&format!("{A},{C}"));
    let changes = [record(&format!("{A},{C},{B}")), record(&format!("{A},{C},{}", C.replace('c', "d"))), record(A)];
    for (level, allowed) in expected {
        let subject = level.to_lowercase();
        caller.register(&subject, &first).await;
        let set =
            caller.call(Method::PUT, &format!("/config/{subject}"), Some(json!({ "compatibility": level }))).await;
        assert_eq!(set, (200, json!({ "compatibility": level })));
        for (change, allowed) in changes.iter().zip(allowed) {
            for version in ["", "/latest", "/1"] {
                let path = format!("/compatibility/subjects/{subject}/versions{version}");
                assert_eq!(caller.post(&path, change).await, json!({ "is_compatible": allowed }), "{level} {change}");
            }
            if !allowed {
                let path = format!("/subjects/{subject}/versions");
                let message = caller.refused(Method::POST, &path, schema(change), (409, 409)).await;
                assert!(message.contains("oldSchemaVersion: 1") && message.contains(level), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn the_compatibility_check_returns_its_reasons() {
    let caller = start(Level::FullTransitive).await;
    caller.register("s", &record(A)).await;
    let path = "/compatibility/subjects/s/versions/latest?verbose=true";
    assert_eq!(caller.post(path, &record(A)).await, json!({ "is_compatible": true, "messages": [] }));
    let response_body = caller.post(path, &record(&format!("{A},{C}"))).await;
    let messages = response_body["messages"].as_array().unwrap();
    assert!(messages[0].as_str().unwrap().starts_with(
        "{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'The field 'c' at path '/fields/1'"
    ));
    assert_eq!(messages[1], "{oldSchemaVersion: 1}");
    assert_eq!(messages[3], "{compatibility: 'FULL_TRANSITIVE'}");
    let path = "/compatibility/subjects/none/versions";
    assert_eq!(caller.post(path, &record(A)).await, json!({ "is_compatible": true }));
    assert_eq!(caller.post(&format!("{path}/latest"), &record(A)).await, json!({ "is_compatible": true }));
    caller.refused(Method::POST, &format!("{path}/1"), schema(&record(A)), (404, 40401)).await;
    let path = "/compatibility/subjects/s/versions/9";
    caller.refused(Method::POST, path, schema(&record(A)), (404, 40402)).await;
    caller.refused(Method::POST, "/compatibility/subjects/s/versions", schema("{}"), (422, 42201)).await;
}

#[tokio::test]
async fn a_level_is_global_or_belongs_to_a_subject() {
    let caller = start(Level::FullTransitive).await;
    let level = |level: &str| json!({ "compatibilityLevel": level });
    let set = |level: &str| Some(json!({ "compatibility": level }));
    assert_eq!(caller.get("/config").await, level("FULL_TRANSITIVE"));
    caller.refused(Method::GET, "/config/s", None, (404, 40408)).await;
    assert_eq!(caller.get("/config/s?defaultToGlobal=true").await, level("FULL_TRANSITIVE"));
    caller.call(Method::PUT, "/config", set("FORWARD")).await;
    caller.call(Method::PUT, "/config/s", set("none")).await;
    assert_eq!(caller.get("/config").await, level("FORWARD"));
    assert_eq!(caller.get("/config/s").await, level("NONE"));
    assert_eq!(caller.call(Method::DELETE, "/config/s", None).await, (200, level("NONE")));
    caller.refused(Method::DELETE, "/config/s", None, (404, 40401)).await;
    assert_eq!(caller.call(Method::DELETE, "/config", None).await, (200, level("FORWARD")));
    assert_eq!(caller.get("/config").await, level("FULL_TRANSITIVE"));
    caller.refused(Method::PUT, "/config", set("TOTAL"), (422, 42203)).await;
    caller.refused(Method::PUT, "/config", Some(json!({})), (422, 42203)).await;
}

#[tokio::test]
async fn a_read_only_subject_refuses_changes() {
    let caller = start(Level::Backward).await;
    caller.register("s", &record(A)).await;
    assert_eq!(caller.get("/mode").await, json!({ "mode": "READWRITE" }));
    caller.refused(Method::GET, "/mode/s", None, (404, 40409)).await;
    let read_only = Some(json!({ "mode": "READONLY" }));
    assert_eq!(caller.call(Method::PUT, "/mode/s", read_only).await, (200, json!({ "mode": "READONLY" })));
    caller.refused(Method::POST, "/subjects/s/versions", schema(&record(B)), (422, 42205)).await;
    caller.refused(Method::DELETE, "/subjects/s", None, (422, 42205)).await;
    caller.register("t", &record(A)).await;
    assert_eq!(caller.call(Method::DELETE, "/mode/s", None).await, (200, json!({ "mode": "READONLY" })));
    caller.call(Method::DELETE, "/subjects/s", None).await;
    caller.refused(Method::PUT, "/mode", Some(json!({ "mode": "IMPORT" })), (422, 42204)).await;
}

#[tokio::test]
async fn a_subject_may_contain_any_printable_text() {
    let caller = start(Level::None).await;
    for (path, subject) in [("a%2Fb", "a/b"), ("a%20b%3Fc%23d%25", "a b?c#d%"), ("%C3%A4", "ä")] {
        caller.register(path, &record(A)).await;
        assert_eq!(caller.get(&format!("/subjects/{path}/versions/1")).await["subject"], subject);
    }
    assert_eq!(caller.get("/subjects").await, json!(["a b?c#d%", "a/b", "ä"]));
    for bad in ["%00", "a%0Ab", "%20", &"x".repeat(2000)] {
        let path = format!("/subjects/{bad}/versions");
        caller.refused(Method::POST, &path, schema(&record(A)), (422, 42208)).await;
    }
    caller.refused(Method::POST, "/subjects/%FF/versions", schema(&record(A)), (400, 400)).await;
}

#[tokio::test]
async fn invalid_and_unsupported_schemas_are_refused_with_the_reason() {
    let caller = start(Level::None).await;
    let path = "/subjects/s/versions";
    for text in [
        "",
        " ",
        "{",
        "{}",
        "[]x",
        r#""integer""#,
        r#"{"type":"record","name":"R"}"#,
        r#"{"type":"record","name":"1","fields":[]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"Unknown"}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
    ] {
        let message = caller.refused(Method::POST, path, schema(text), (422, 42201)).await;
        assert!(message.len() > 20, "{message}");
    }
    let refuse = async |body: Value, reason: &str, code| {
        let message = caller.refused(Method::POST, path, Some(body), (422, code)).await;
        assert!(message.contains(reason), "{message}");
    };
    let text = record(A);
    refuse(json!({}), "no 'schema'", 42201).await;
    refuse(json!({ "schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF" }), "not PROTOBUF", 42201).await;
    refuse(json!({ "schema": "{}", "schemaType": "JSON" }), "not JSON", 42201).await;
    let reference = json!([{ "name": "a", "subject": "a", "version": 1 }]);
    refuse(json!({ "schema": text, "references": reference }), "no references", 42201).await;
    refuse(json!({ "schema": text, "metadata": { "properties": { "a": "b" } } }), "no metadata", 42201).await;
    refuse(json!({ "schema": text, "id": 77 }), "import mode", 42205).await;
    refuse(json!({ "schema": text, "version": 5 }), "next version of s is 1", 42201).await;
    caller.refused(Method::GET, "/subjects/s/versions", None, (404, 40401)).await;
    let body = json!({ "schema": text, "schemaType": "AVRO", "references": [], "metadata": null, "ruleSet": null, "version": -1 });
    assert_eq!(caller.call(Method::POST, path, Some(body)).await.0, 200);
}

#[tokio::test]
async fn invalid_requests_receive_a_clear_error() {
    let caller = start(Level::None).await;
    let url = format!("{}/subjects/s/versions", caller.registry.url());
    let post = async |content_type: &str, body: Vec<u8>| {
        let request = caller.http.post(&url).header(CONTENT_TYPE, content_type).body(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap())
    };
    let (status, response_body) = post("application/x-www-form-urlencoded", b"{}".to_vec()).await;
    assert_eq!((status, &response_body["error_code"]), (415, &json!(415)));
    assert!(response_body["message"].as_str().unwrap().contains("x-www-form-urlencoded"), "{response_body}");
    let good = json!({ "schema": record(A) }).to_string().into_bytes();
    assert_eq!(post("application/json; charset=utf-8", good).await.0, 200);
    for body in [&b"{"[..], b"", b"[]", b"\xff", br#"{"schema": 1}"#, &b"[".repeat(100_000)] {
        let (status, response_body) = post(MEDIA_TYPE, body.to_vec()).await;
        assert_eq!((status, &response_body["error_code"]), (400, &json!(400)), "{response_body}");
    }
    let (status, response_body) = post(MEDIA_TYPE, vec![b' '; 2 << 20]).await;
    assert_eq!(status, 413, "{response_body}");
    let nested = json!({ "schema": r#"{"type":"array","items":"#.repeat(500) }).to_string().into_bytes();
    assert_eq!(post(MEDIA_TYPE, nested).await.0, 422);

    caller.refused(Method::GET, "/nothing/here", None, (404, 404)).await;
    caller.refused(Method::PUT, "/subjects", Some(json!({})), (405, 405)).await;
    caller.refused(Method::GET, "/subjects?deleted=perhaps", None, (400, 400)).await;
}

#[tokio::test]
async fn a_response_has_the_accepted_content_type() {
    let caller = start(Level::None).await;
    let content_type = async |accept: &str, path: &str| {
        let url = format!("{}{path}", caller.registry.url());
        caller.http.get(url).header(ACCEPT, accept).send().await.unwrap().headers()[CONTENT_TYPE].clone()
    };
    assert_eq!(content_type("application/json", "/subjects").await, "application/json");
    assert_eq!(content_type("application/json", "/schemas/ids/1").await, "application/json");
    assert_eq!(content_type("*/*", "/subjects").await, MEDIA_TYPE);
    let both = "application/vnd.schemaregistry.v1+json, application/json; q=0.5";
    assert_eq!(content_type(both, "/subjects").await, MEDIA_TYPE);
}
