//! The schema registry over HTTP: the calls of serializers, and refused requests.

use reqwest::Method;
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_all_subjects, get_schema_by_id, get_schema_by_subject, post_schema,
};
use schema_registry_converter::schema_registry_common::{SchemaType, SubjectNameStrategy, SuppliedSchema};
use serde_json::{Value, json};

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::context::CheckContext;
use crate::http::{call, delete, get, post, put, register, registered, set_level};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Registry, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("a registered schema is found by id, by version, as the latest and by its text", register_and_find),
    check("registering the same text returns the same id and adds no version", same_text),
    check("concurrent registrations return one id", concurrently),
    check("versions count up and are listed", versions),
    check("an incompatible change is refused and changes nothing", incompatible),
    check("the compatibility endpoint reports both outcomes and registers nothing", compatibility),
    check("each compatibility level allows exactly the compatible changes", levels),
    check("FULL_TRANSITIVE compares all versions, FULL only the last", transitive),
    check("levels are set, read and fall back per subject", config),
    check("unknown subjects, versions, ids and schemas have distinct errors", unknown),
    check("an unparsable schema is refused", unparsable),
    check("an invalid body is a client error, not a server error", invalid_body),
    check("a deleted subject is gone, but its ids still resolve for old records", deletion),
    check("the services' registry client finds, registers and looks up schemas", client),
];

fn field(name: &str, kind: &str) -> Value {
    json!({ "name": name, "type": kind })
}

fn with_default(name: &str, kind: &str, default: &Value) -> Value {
    json!({ "name": name, "type": kind, "default": default })
}

/// A record type that is unique to this check: some registries fail when two subjects register the same new text at once.
fn record(cx: &CheckContext, fields: &[Value]) -> Value {
    json!({ "type": "record", "name": "Placed", "namespace": cx.namespace(), "fields": fields })
}

/// Compares schemas as JSON, because a registry may change the formatting.
fn same_schema(response: &Value, expected: &Value) -> Result<(), CheckFailure> {
    let text = response["schema"].as_str().context("the schema in the response")?;
    let observed: Value = serde_json::from_str(text).context("parsing the schema in the response")?;
    ensure_eq!(observed, *expected, "the schema in the response");
    Ok(())
}

fn register_and_find(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Found");
    let schema = record(cx, &[field("order_id", "string")]);
    let id = registered(cx, &subject, &schema)?;
    same_schema(&get(cx, &format!("/schemas/ids/{id}"))?.ok()?, &schema)?;
    // The query of serializers in other languages.
    same_schema(&get(cx, &format!("/schemas/ids/{id}?fetchMaxId=false&subject={subject}"))?.ok()?, &schema)?;
    for version in ["1", "latest"] {
        let observed = get(cx, &format!("/subjects/{subject}/versions/{version}"))?.ok()?;
        same_schema(&observed, &schema)?;
        ensure_eq!(
            (&observed["subject"], &observed["version"], &observed["id"]),
            (&json!(subject), &json!(1), &json!(id)),
            "{version}"
        );
    }
    let looked_up = post(cx, &format!("/subjects/{subject}"), &json!({ "schema": schema.to_string() }))?.ok()?;
    ensure_eq!((&looked_up["id"], &looked_up["version"]), (&json!(id), &json!(1)), "the look-up by text");
    let subjects = get(cx, "/subjects")?.ok()?;
    ensure!(subjects.as_array().is_some_and(|all| all.contains(&json!(subject))), "{subject} is not listed");
    Ok(format!("id {id}"))
}

fn same_text(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Same");
    let schema = record(cx, &[field("order_id", "string")]);
    let id = registered(cx, &subject, &schema)?;
    ensure_eq!(registered(cx, &subject, &schema)?, id, "the id of the same text");
    ensure_eq!(get(cx, &format!("/subjects/{subject}/versions"))?.ok()?, json!([1]), "the versions");
    if cx.target.exact_confluent_codes {
        ensure_eq!(registered(cx, &cx.subject("SameElsewhere"), &schema)?, id, "the id under another subject");
        let spaced = serde_json::to_string_pretty(&schema).context("spacing a schema")?;
        let body = json!({ "schema": spaced, "schemaType": "AVRO" });
        let again = post(cx, &format!("/subjects/{subject}/versions"), &body)?.ok()?;
        ensure_eq!(again["id"], json!(id), "the id of the same text, spaced");
    }
    Ok(String::new())
}

fn concurrently(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("AtOnce");
    let body = json!({ "schema": record(cx, &[field("order_id", "string")]).to_string() }).to_string();
    let address = format!("{}/subjects/{subject}/versions", cx.target.registry);
    let mut ids: Vec<Value> = cx.wait(async {
        let requests: Vec<_> = (0..8)
            .map(|_| {
                let request = cx.http.post(&address).header("content-type", "application/json").body(body.clone());
                tokio::spawn(async move { request.send().await?.json::<Value>().await })
            })
            .collect();
        let mut ids = Vec::new();
        for request in requests {
            ids.push(request.await.context("a request")?.context("registering")?["id"].clone());
        }
        Ok::<_, CheckFailure>(ids)
    })?;
    // Some registries refuse the requests that lose the race. The accepted requests must return the same id.
    if !cx.target.exact_confluent_codes {
        ids.retain(Value::is_u64);
    }
    ensure!(!ids.is_empty() && ids.iter().all(|id| id.is_u64() && *id == ids[0]), "the ids are {ids:?}");
    let versions = get(cx, &format!("/subjects/{subject}/versions"))?.ok()?;
    // Some registries add the schema twice, as two versions of one id.
    ensure!(versions == json!([1]) || !cx.target.exact_confluent_codes, "the versions are {versions}");
    Ok(format!("{} of 8 were accepted, versions {versions}", ids.len()))
}

fn versions(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Versions");
    set_level(cx, &subject, "FULL_TRANSITIVE")?;
    let mut fields = vec![field("order_id", "string")];
    let mut ids = Vec::new();
    for version in 1..=4 {
        ids.push(registered(cx, &subject, &record(cx, &fields))?);
        let observed = get(cx, &format!("/subjects/{subject}/versions"))?.ok()?;
        ensure_eq!(observed, json!((1..=version).collect::<Vec<_>>()), "the versions");
        fields.push(with_default(&format!("added_{version}"), "string", &json!("")));
    }
    ensure!(ids.windows(2).all(|pair| pair[0] != pair[1]), "different schemas share an id: {ids:?}");
    Ok(format!("ids {ids:?}"))
}

fn incompatible(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Incompatible");
    set_level(cx, &subject, "FULL_TRANSITIVE")?;
    registered(cx, &subject, &record(cx, &[field("order_id", "string")]))?;
    let refused = [
        record(cx, &[field("order_id", "int")]),
        record(cx, &[field("order_id", "string"), field("more", "string")]),
        record(cx, &[]),
    ];
    for schema in &refused {
        register(cx, &subject, schema)?.refused(cx, 409, 409)?;
    }
    ensure_eq!(get(cx, &format!("/subjects/{subject}/versions"))?.ok()?, json!([1]), "the versions");
    Ok(String::new())
}

fn compatible(cx: &CheckContext, subject: &str, version: &str, schema: &Value) -> Result<bool, CheckFailure> {
    let path = format!("/compatibility/subjects/{subject}/versions{version}");
    let body = post(cx, &path, &json!({ "schema": schema.to_string() }))?.ok()?;
    body["is_compatible"].as_bool().context("is_compatible")
}

fn compatibility(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Compatibility");
    set_level(cx, &subject, "FULL_TRANSITIVE")?;
    registered(cx, &subject, &record(cx, &[field("order_id", "string")]))?;
    let good = record(cx, &[field("order_id", "string"), with_default("note", "string", &json!(""))]);
    let bad = record(cx, &[field("order_id", "long")]);
    for version in ["/latest", "/1", "", "/latest?verbose=true"] {
        ensure!(
            compatible(cx, &subject, version, &good)?,
            "a compatible change is reported as incompatible ({version:?})"
        );
        ensure!(
            !compatible(cx, &subject, version, &bad)?,
            "an incompatible change is reported as compatible ({version:?})"
        );
    }
    ensure_eq!(get(cx, &format!("/subjects/{subject}/versions"))?.ok()?, json!([1]), "the versions");
    Ok(String::new())
}

fn levels(cx: &CheckContext) -> CheckResult {
    let first = record(cx, &[field("order_id", "string"), with_default("note", "string", &json!(""))]);
    let adds = record(
        cx,
        &[field("order_id", "string"), with_default("note", "string", &json!("")), field("required", "string")],
    );
    let removes = record(cx, &[with_default("note", "string", &json!(""))]);
    let retypes = record(cx, &[field("order_id", "bytes"), with_default("note", "long", &json!(0))]);
    // Whether each level allows: a new required field, a removed required field, changed types.
    let cases = [
        ("BACKWARD", [false, true, false]),
        ("BACKWARD_TRANSITIVE", [false, true, false]),
        ("FORWARD", [true, false, false]),
        ("FORWARD_TRANSITIVE", [true, false, false]),
        ("FULL", [false, false, false]),
        ("FULL_TRANSITIVE", [false, false, false]),
        ("NONE", [true, true, true]),
    ];
    for (level, expected) in cases {
        let subject = cx.subject(&format!("Level_{level}"));
        // In this order: not every registry accepts a level for a subject without versions.
        registered(cx, &subject, &first)?;
        set_level(cx, &subject, level)?;
        for (schema, expected) in [&adds, &removes, &retypes].into_iter().zip(expected) {
            let observed = compatible(cx, &subject, "/latest", schema)?;
            ensure!(observed == expected, "{level}: is_compatible is {observed} for {schema}");
        }
    }
    Ok(String::new())
}

/// `note` is added as a string, removed, and added again as a number: compatible with the last version, not with the second.
fn transitive(cx: &CheckContext) -> CheckResult {
    let id = field("order_id", "string");
    let versions = [
        record(cx, std::slice::from_ref(&id)),
        record(cx, &[id.clone(), with_default("note", "string", &json!(""))]),
        record(cx, &[id.clone(), with_default("other", "string", &json!(""))]),
    ];
    let candidate = record(cx, &[id, with_default("note", "long", &json!(0))]);
    for (level, accepted) in [("FULL_TRANSITIVE", false), ("FULL", true)] {
        let subject = cx.subject(level);
        set_level(cx, &subject, level)?;
        for version in &versions {
            registered(cx, &subject, version)?;
        }
        let response = register(cx, &subject, &candidate)?;
        if accepted {
            response.ok()?;
        } else {
            response.refused(cx, 409, 409)?;
        }
    }
    Ok(String::new())
}

fn config(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Config");
    let global = get(cx, "/config")?.ok()?["compatibilityLevel"].clone();
    ensure!(global.is_string(), "the global level is {global}");
    registered(cx, &subject, &record(cx, &[field("order_id", "string")]))?;
    let own = format!("/config/{subject}");
    if cx.target.exact_confluent_codes {
        get(cx, &own)?.refused(cx, 404, 40408)?;
    }
    let fallback = get(cx, &format!("{own}?defaultToGlobal=true"))?.ok()?;
    ensure_eq!(fallback["compatibilityLevel"], global, "the level of a subject without one");
    for level in ["NONE", "BACKWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"] {
        let set = put(cx, &own, &json!({ "compatibility": level }))?.ok()?;
        ensure_eq!(set["compatibility"], json!(level), "the response to setting it");
        ensure_eq!(get(cx, &own)?.ok()?["compatibilityLevel"], json!(level), "the level");
    }
    let sideways = put(cx, &own, &json!({ "compatibility": "SIDEWAYS" }))?;
    if cx.target.exact_confluent_codes {
        sideways.refused(cx, 422, 42203)?;
    } else {
        ensure!((400..500).contains(&sideways.status), "an unknown level gave {}", sideways.status);
    }
    ensure_eq!(get(cx, &own)?.ok()?["compatibilityLevel"], json!("FULL_TRANSITIVE"), "the level after a refused one");
    ensure_eq!(get(cx, "/config")?.ok()?["compatibilityLevel"], global, "the global level afterwards");
    Ok(format!("global: {global}"))
}

fn unknown(cx: &CheckContext) -> CheckResult {
    let (known, unknown) = (cx.subject("Known"), cx.subject("Unknown"));
    let schema = record(cx, &[field("order_id", "string")]);
    registered(cx, &known, &schema)?;
    for path in ["", "/1", "/latest"] {
        get(cx, &format!("/subjects/{unknown}/versions{path}"))?.refused(cx, 404, 40401)?;
    }
    post(cx, &format!("/subjects/{unknown}"), &json!({ "schema": schema.to_string() }))?.refused(cx, 404, 40401)?;
    delete(cx, &format!("/subjects/{unknown}"))?.refused(cx, 404, 40401)?;
    get(cx, &format!("/subjects/{known}/versions/99"))?.refused(cx, 404, 40402)?;
    get(cx, "/schemas/ids/2000000000")?.refused(cx, 404, 40403)?;
    let other = record(cx, &[field("something_else", "string")]);
    post(cx, &format!("/subjects/{known}"), &json!({ "schema": other.to_string() }))?.refused(cx, 404, 40403)?;
    if cx.target.exact_confluent_codes {
        for version in ["0", "-7", "word"] {
            get(cx, &format!("/subjects/{known}/versions/{version}"))?.refused(cx, 422, 42202)?;
        }
    }
    Ok(String::new())
}

fn unparsable(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Unparsable");
    let texts = [
        "{",
        "{\"type\":\"integerr\"}",
        "{\"type\":\"record\",\"name\":\"A\",\"fields\":[{\"name\":\"a\",\"type\":\"Nowhere\"}]}",
        "{\"type\":\"record\",\"name\":\"A\"}",
    ];
    for text in texts {
        post(cx, &format!("/subjects/{subject}/versions"), &json!({ "schema": text }))?.refused(cx, 422, 42201)?;
    }
    get(cx, &format!("/subjects/{subject}/versions"))?.refused(cx, 404, 40401)?;
    Ok(String::new())
}

fn invalid_body(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("InvalidBody");
    let path = format!("/subjects/{subject}/versions");
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let bodies = ["", "not json", "[]", "{\"schema\": 7}", "{\"schema\": null}", "{}", deep.as_str()];
    let mut observed = Vec::new();
    for body in bodies {
        let response = call(cx, Method::POST, &path, Some(body.to_owned()))?;
        ensure!(
            (400..500).contains(&response.status),
            "{} bytes gave {} {}",
            body.len(),
            response.status,
            response.body
        );
        observed.push(response.status);
    }
    call(cx, Method::PATCH, &path, None).map(|response| observed.push(response.status))?;
    registered(cx, &subject, &record(cx, &[field("order_id", "string")])).context("registering afterwards")?;
    Ok(format!("{observed:?}"))
}

fn deletion(cx: &CheckContext) -> CheckResult {
    let subject = cx.subject("Deleted");
    let schema = record(cx, &[field("order_id", "string")]);
    let id = registered(cx, &subject, &schema)?;
    ensure_eq!(delete(cx, &format!("/subjects/{subject}"))?.ok()?, json!([1]), "the response to deleting");
    get(cx, &format!("/subjects/{subject}/versions/latest"))?.refused(cx, 404, 40401)?;
    let subjects = get(cx, "/subjects")?.ok()?;
    ensure!(subjects.as_array().is_some_and(|all| !all.contains(&json!(subject))), "{subject} is still listed");
    if cx.target.exact_confluent_codes {
        // Old records still refer to the id, so a soft deletion must not remove it.
        same_schema(&get(cx, &format!("/schemas/ids/{id}"))?.ok()?, &schema)?;
        delete(cx, &format!("/subjects/{subject}"))?.refused(cx, 404, 40404)?;
        delete(cx, &format!("/subjects/{subject}?permanent=true"))?.ok()?;
    }
    Ok(String::new())
}

fn client(cx: &CheckContext) -> CheckResult {
    let settings = SrSettings::new_builder(cx.target.registry.clone()).no_proxy().build().context("a client")?;
    let subject = cx.subject("Client");
    let text = record(cx, &[field("order_id", "string")]).to_string();
    let supplied = SuppliedSchema::new(Some(subject.clone()), SchemaType::Avro, text.clone());
    cx.wait(async {
        let strategy = SubjectNameStrategy::RecordNameStrategy(subject.clone());
        let missing = get_schema_by_subject(&settings, &strategy).await;
        ensure!(missing.is_err(), "a subject that is not there was found: {missing:?}");
        let posted = post_schema(&settings, subject.clone(), supplied).await.context("registering")?;
        let latest = get_schema_by_subject(&settings, &strategy).await.context("the latest by record name")?;
        ensure_eq!(latest.id, posted.id, "the id of the latest");
        let by_id = get_schema_by_id(posted.id, &settings).await.context("by id")?;
        let (observed, expected): (Value, Value) = (
            serde_json::from_str(&by_id.schema).context("parsing the schema by id")?,
            serde_json::from_str(&text).context("parsing the registered schema")?,
        );
        ensure_eq!(observed, expected, "the schema by id");
        let all = get_all_subjects(&settings).await.context("all subjects")?;
        ensure!(all.contains(&subject), "{subject} is not listed");
        Ok(String::new())
    })
}
