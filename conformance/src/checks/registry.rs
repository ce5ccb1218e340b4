//! The schema registry, over HTTP: the calls that serializers make, and what it refuses.

use reqwest::Method;
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_all_subjects, get_schema_by_id, get_schema_by_subject, post_schema,
};
use schema_registry_converter::schema_registry_common::{SchemaType, SubjectNameStrategy, SuppliedSchema};
use serde_json::{Value, json};

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::context::Context;
use crate::http::{call, delete, get, post, put, register, registered, set_level};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Registry, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "a schema that is registered can be found by id, by version, as the latest and by its text",
        register_and_find,
    ),
    check("the same text gives the same id and no new version", same_text),
    check("registering at the same time gives one id", at_once),
    check("versions count up and are listed", versions),
    check("an incompatible change is refused and changes nothing", incompatible),
    check("the compatibility endpoint says yes, no, and registers nothing", compatibility),
    check("each compatibility level lets through what it should and nothing else", levels),
    check("FULL_TRANSITIVE looks at all versions, FULL only at the last", transitive),
    check("levels are set, read and fall back per subject", config),
    check("unknown subjects, versions, ids and schemas are told apart", unknown),
    check("an unparsable schema is refused", unparsable),
    check("a body that makes no sense is refused, not an error of the server", nonsense),
    check("a deleted subject is gone but its ids still decode old records", deletion),
    check("the registry client of the services finds, registers and looks up", client),
];

fn field(name: &str, kind: &str) -> Value {
    json!({ "name": name, "type": kind })
}

fn with_default(name: &str, kind: &str, default: &Value) -> Value {
    json!({ "name": name, "type": kind, "default": default })
}

/// A record of this check's own: some registries fail when two subjects bring the same new text at the same time.
fn record(cx: &Context, fields: &[Value]) -> Value {
    json!({ "type": "record", "name": "Placed", "namespace": cx.namespace(), "fields": fields })
}

/// A registry may give the schema back in its own formatting.
fn same_schema(answer: &Value, wanted: &Value) -> Result<(), Failure> {
    let text = answer["schema"].as_str().doing("the schema in the answer")?;
    let seen: Value = serde_json::from_str(text).doing("parsing the schema in the answer")?;
    ensure_eq!(seen, *wanted, "the schema in the answer");
    Ok(())
}

fn register_and_find(cx: &Context) -> Verdict {
    let subject = cx.subject("Found");
    let schema = record(cx, &[field("order_id", "string")]);
    let id = registered(cx, &subject, &schema)?;
    same_schema(&get(cx, &format!("/schemas/ids/{id}"))?.ok()?, &schema)?;
    // As the serializers of other languages ask.
    same_schema(&get(cx, &format!("/schemas/ids/{id}?fetchMaxId=false&subject={subject}"))?.ok()?, &schema)?;
    for version in ["1", "latest"] {
        let seen = get(cx, &format!("/subjects/{subject}/versions/{version}"))?.ok()?;
        same_schema(&seen, &schema)?;
        ensure_eq!(
            (&seen["subject"], &seen["version"], &seen["id"]),
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

fn same_text(cx: &Context) -> Verdict {
    let subject = cx.subject("Same");
    let schema = record(cx, &[field("order_id", "string")]);
    let id = registered(cx, &subject, &schema)?;
    ensure_eq!(registered(cx, &subject, &schema)?, id, "the id of the same text");
    ensure_eq!(get(cx, &format!("/subjects/{subject}/versions"))?.ok()?, json!([1]), "the versions");
    if cx.target.exact_confluent_codes {
        ensure_eq!(registered(cx, &cx.subject("SameElsewhere"), &schema)?, id, "the id under another subject");
        let spaced = serde_json::to_string_pretty(&schema).doing("spacing a schema")?;
        let body = json!({ "schema": spaced, "schemaType": "AVRO" });
        let again = post(cx, &format!("/subjects/{subject}/versions"), &body)?.ok()?;
        ensure_eq!(again["id"], json!(id), "the id of the same text, spaced");
    }
    Ok(String::new())
}

fn at_once(cx: &Context) -> Verdict {
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
            ids.push(request.await.doing("a request")?.doing("registering")?["id"].clone());
        }
        Ok::<_, Failure>(ids)
    })?;
    // Some registries turn the losers of the race away. Those they let in must agree.
    if !cx.target.exact_confluent_codes {
        ids.retain(Value::is_u64);
    }
    ensure!(!ids.is_empty() && ids.iter().all(|id| id.is_u64() && *id == ids[0]), "the ids are {ids:?}");
    let versions = get(cx, &format!("/subjects/{subject}/versions"))?.ok()?;
    // And some let one in twice, as two versions of one id.
    ensure!(versions == json!([1]) || !cx.target.exact_confluent_codes, "the versions are {versions}");
    Ok(format!("{} of 8 were let in, versions {versions}", ids.len()))
}

fn versions(cx: &Context) -> Verdict {
    let subject = cx.subject("Versions");
    set_level(cx, &subject, "FULL_TRANSITIVE")?;
    let mut fields = vec![field("order_id", "string")];
    let mut ids = Vec::new();
    for version in 1..=4 {
        ids.push(registered(cx, &subject, &record(cx, &fields))?);
        let seen = get(cx, &format!("/subjects/{subject}/versions"))?.ok()?;
        ensure_eq!(seen, json!((1..=version).collect::<Vec<_>>()), "the versions");
        fields.push(with_default(&format!("added_{version}"), "string", &json!("")));
    }
    ensure!(ids.windows(2).all(|pair| pair[0] != pair[1]), "different schemas share an id: {ids:?}");
    Ok(format!("ids {ids:?}"))
}

fn incompatible(cx: &Context) -> Verdict {
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

fn compatible(cx: &Context, subject: &str, version: &str, schema: &Value) -> Result<bool, Failure> {
    let path = format!("/compatibility/subjects/{subject}/versions{version}");
    let body = post(cx, &path, &json!({ "schema": schema.to_string() }))?.ok()?;
    body["is_compatible"].as_bool().doing("is_compatible")
}

fn compatibility(cx: &Context) -> Verdict {
    let subject = cx.subject("Compatibility");
    set_level(cx, &subject, "FULL_TRANSITIVE")?;
    registered(cx, &subject, &record(cx, &[field("order_id", "string")]))?;
    let good = record(cx, &[field("order_id", "string"), with_default("note", "string", &json!(""))]);
    let bad = record(cx, &[field("order_id", "long")]);
    for version in ["/latest", "/1", "", "/latest?verbose=true"] {
        ensure!(compatible(cx, &subject, version, &good)?, "a compatible change is said to be none ({version:?})");
        ensure!(!compatible(cx, &subject, version, &bad)?, "an incompatible change is said to be fine ({version:?})");
    }
    ensure_eq!(get(cx, &format!("/subjects/{subject}/versions"))?.ok()?, json!([1]), "the versions");
    Ok(String::new())
}

fn levels(cx: &Context) -> Verdict {
    let first = record(cx, &[field("order_id", "string"), with_default("note", "string", &json!(""))]);
    let adds = record(
        cx,
        &[field("order_id", "string"), with_default("note", "string", &json!("")), field("required", "string")],
    );
    let removes = record(cx, &[with_default("note", "string", &json!(""))]);
    let retypes = record(cx, &[field("order_id", "bytes"), with_default("note", "long", &json!(0))]);
    // Whether a new reader without defaults, one without a field, one of other types may come after the first.
    let cases = [
        ("BACKWARD", [false, true, false]),
        ("BACKWARD_TRANSITIVE", [false, true, false]),
        ("FORWARD", [true, false, false]),
        ("FORWARD_TRANSITIVE", [true, false, false]),
        ("FULL", [false, false, false]),
        ("FULL_TRANSITIVE", [false, false, false]),
        ("NONE", [true, true, true]),
    ];
    for (level, wanted) in cases {
        let subject = cx.subject(&format!("Level_{level}"));
        // In this order: not every registry takes a level for a subject that is not there yet.
        registered(cx, &subject, &first)?;
        set_level(cx, &subject, level)?;
        for (schema, wanted) in [&adds, &removes, &retypes].into_iter().zip(wanted) {
            let seen = compatible(cx, &subject, "/latest", schema)?;
            ensure!(seen == wanted, "{level}: is_compatible is {seen} for {schema}");
        }
    }
    Ok(String::new())
}

/// `note` comes as a string, goes, and comes back as a number: fine for the last version, not for the second.
fn transitive(cx: &Context) -> Verdict {
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
        let answer = register(cx, &subject, &candidate)?;
        if accepted {
            answer.ok()?;
        } else {
            answer.refused(cx, 409, 409)?;
        }
    }
    Ok(String::new())
}

fn config(cx: &Context) -> Verdict {
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
        ensure_eq!(set["compatibility"], json!(level), "the answer to setting it");
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

fn unknown(cx: &Context) -> Verdict {
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

fn unparsable(cx: &Context) -> Verdict {
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

fn nonsense(cx: &Context) -> Verdict {
    let subject = cx.subject("Nonsense");
    let path = format!("/subjects/{subject}/versions");
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let bodies = ["", "not json", "[]", "{\"schema\": 7}", "{\"schema\": null}", "{}", deep.as_str()];
    let mut seen = Vec::new();
    for body in bodies {
        let answer = call(cx, Method::POST, &path, Some(body.to_owned()))?;
        ensure!((400..500).contains(&answer.status), "{} bytes gave {} {}", body.len(), answer.status, answer.body);
        seen.push(answer.status);
    }
    call(cx, Method::PATCH, &path, None).map(|answer| seen.push(answer.status))?;
    registered(cx, &subject, &record(cx, &[field("order_id", "string")])).doing("registering after all that")?;
    Ok(format!("{seen:?}"))
}

fn deletion(cx: &Context) -> Verdict {
    let subject = cx.subject("Deleted");
    let schema = record(cx, &[field("order_id", "string")]);
    let id = registered(cx, &subject, &schema)?;
    ensure_eq!(delete(cx, &format!("/subjects/{subject}"))?.ok()?, json!([1]), "the answer to deleting");
    get(cx, &format!("/subjects/{subject}/versions/latest"))?.refused(cx, 404, 40401)?;
    let subjects = get(cx, "/subjects")?.ok()?;
    ensure!(subjects.as_array().is_some_and(|all| !all.contains(&json!(subject))), "{subject} is still listed");
    if cx.target.exact_confluent_codes {
        // Records written with it are still about, so a soft deletion must not take the id away.
        same_schema(&get(cx, &format!("/schemas/ids/{id}"))?.ok()?, &schema)?;
        delete(cx, &format!("/subjects/{subject}"))?.refused(cx, 404, 40404)?;
        delete(cx, &format!("/subjects/{subject}?permanent=true"))?.ok()?;
    }
    Ok(String::new())
}

fn client(cx: &Context) -> Verdict {
    let settings = SrSettings::new_builder(cx.target.registry.clone()).no_proxy().build().doing("a client")?;
    let subject = cx.subject("Client");
    let text = record(cx, &[field("order_id", "string")]).to_string();
    let supplied = SuppliedSchema::new(Some(subject.clone()), SchemaType::Avro, text.clone());
    cx.wait(async {
        let strategy = SubjectNameStrategy::RecordNameStrategy(subject.clone());
        let missing = get_schema_by_subject(&settings, &strategy).await;
        ensure!(missing.is_err(), "a subject that is not there was found: {missing:?}");
        let posted = post_schema(&settings, subject.clone(), supplied).await.doing("registering")?;
        let latest = get_schema_by_subject(&settings, &strategy).await.doing("the latest by record name")?;
        ensure_eq!(latest.id, posted.id, "the id of the latest");
        let by_id = get_schema_by_id(posted.id, &settings).await.doing("by id")?;
        let (seen, wanted): (Value, Value) = (
            serde_json::from_str(&by_id.schema).doing("parsing what came")?,
            serde_json::from_str(&text).doing("parsing what was sent")?,
        );
        ensure_eq!(seen, wanted, "the schema by id");
        let all = get_all_subjects(&settings).await.doing("all subjects")?;
        ensure!(all.contains(&subject), "{subject} is not listed");
        Ok(String::new())
    })
}
