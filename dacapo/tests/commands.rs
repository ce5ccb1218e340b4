//! Every command of `dacapo` as a user runs it: its output, its error messages and its exit code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};
use support::{
    Http, Infrastructure, PATIENCE, RunningSystem, Setup, exits_with_success, infrastructure,
    long_running::LongRunning, pair::Pair,
};

#[track_caller]
fn assert_contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// Runs a command that must fail with exit code 1. Returns its standard error.
#[track_caller]
fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {errors}");
    errors
}

/// Runs a command that must succeed. Returns its standard output.
#[track_caller]
fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn customer(id: &str) -> String {
    json!({ "customer_id": id, "contact": { "name": "Ada", "email": "ada@example.org" }, "marketing_consent": false })
        .to_string()
}

#[test]
fn a_running_system_answers_every_command() {
    let setup = Setup::new(&infrastructure());
    let mut system =
        setup.start(&["--orders", "8", "--declined", "0", "--lost", "0", "--rejected", "0", "--short", "50"]);
    all_settled(&mut system, &setup, 8);
    it_sends(&mut system, &setup);
    it_refuses_to_send(&setup);
    it_publishes(&setup);
    it_tails(&setup);
    it_follows(&setup);
    it_lists_sagas(&setup);
    it_shows_a_saga(&setup);
    it_counts_and_watches(&mut system, &setup);
    it_audits_and_replays(&setup);
    it_has_nothing_to_do(&setup);
    it_ends_quietly_on_a_closed_pipe(&setup);
    system.stop();
    // An Apache Kafka still runs after `up` has ended.
    if matches!(infrastructure(), Infrastructure::Embedded) {
        assert_contains(&setup.fails(&["audit"]), &["does not answer", "is its `dacapo up` still running?"]);
    }
}

fn all_settled(system: &mut RunningSystem<'_>, setup: &Setup, orders: u64) {
    system.wait_for("the end of every order", || {
        let counts: Value = serde_json::from_str(&setup.ok(&["sagas", "counts", "--json"])).unwrap();
        counts["sagas"][0]["total"] == json!(orders) && counts["sagas"][0]["open"] == json!(0)
    });
}

fn tail(setup: &Setup, args: &[&str]) -> Vec<Value> {
    let text = setup.ok(&[&["events", "tail"], args].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn it_sends(system: &mut RunningSystem<'_>, setup: &Setup) {
    let id = "0190a5a0-0000-7000-8000-000000000001";
    let sent = setup.ok(&["send", "customers", "RegisterCustomer", "--key", "c-1", "--id", id, &customer("c-1")]);
    assert_contains(&sent, &[&format!("{}.customers.inbox/", setup.system()), id]);
    let mut registered = Vec::new();
    system.wait_for("the decision about the sent command", || {
        registered = tail(setup, &["--type", "CustomerRegistered", "--key", "c-1"]);
        !registered.is_empty()
    });
    assert_eq!(registered[0]["value"]["contact"]["email"], json!("ada@example.org"));
    assert_eq!(registered[0]["headers"]["ce_causationid"], json!(id));
    assert_eq!(registered[0]["headers"]["ce_correlationid"], json!("c-1"));
    // The same record again, then a command whose event shows that the repeated record was read and had no effect.
    setup.ok(&["send", "customers", "RegisterCustomer", "--key", "c-1", "--id", id, &customer("c-1")]);
    let verify = r#"{"customer_id":"c-1"}"#;
    setup.ok(&["send", "customers", "VerifyCustomer", "--key", "c-1", verify]);
    system.wait_for("the decision about the later command", || {
        !tail(setup, &["--type", "CustomerVerified", "--key", "c-1"]).is_empty()
    });
    assert_eq!(
        tail(setup, &["--correlation", "c-1", "--topic", &format!("{}.customers.events", setup.system())]).len(),
        2
    );
}

fn it_refuses_to_send(setup: &Setup) {
    let send = |service, command, body: &str| setup.fails(&["send", service, command, "--key", "c-2", body]);
    assert_contains(&send("custmers", "RegisterCustomer", "{}"), &["no service \"custmers\"", "order-processor"]);
    assert_contains(
        &send("customers", "RegisterCustmer", "{}"),
        &["no command \"RegisterCustmer\"", "ForgetCustomer, RegisterCustomer"],
    );
    assert_contains(&send("customers", "RegisterCustomer", "{"), &["not JSON"]);
    let mut fields: Value = serde_json::from_str(&customer("c-2")).unwrap();
    fields["contact"]["email"] = json!(7);
    assert_contains(
        &send("customers", "RegisterCustomer", &fields.to_string()),
        &["$.contact.email", "expected a string", "7"],
    );
    fields["contact"] = json!({ "name": "Ada", "email": "a@example.org", "phone": "1" });
    assert_contains(
        &send("customers", "RegisterCustomer", &fields.to_string()),
        &["$.contact", "no field \"phone\"", "name, email"],
    );
    assert_contains(&send("customers", "RegisterCustomer", r#"{"customer_id":"c-2"}"#), &["$.contact", "missing"]);
    assert!(tail(setup, &["--key", "c-2", "--inboxes"]).is_empty(), "nothing was written");
}

fn it_publishes(setup: &Setup) {
    let events = format!("{}.payment.events", setup.system());
    let record = format!("com.{}.payment.PaymentTaken", setup.system());
    assert_contains(
        &setup.fails(&["publish", &events, &record, "--key", "o", "{}"]),
        &["written by its owner only", "dacapo send payment"],
    );
    let parked = format!("{}.payment.parked", setup.system());
    assert_contains(
        &setup.fails(&["publish", &parked, &record, "--key", "o", "{}"]),
        &["may not write", "`dacapo parked`"],
    );
    let inbox = format!("{}.payment.inbox", setup.system());
    assert_contains(
        &setup.fails(&["publish", &inbox, &record, "--key", "o", "{}"]),
        &["takes commands", "dacapo send payment"],
    );
    let (radio, play) = (format!("radio.{}", setup.system()), format!("org.radio.{}.Played", setup.system()));
    assert_contains(&setup.fails(&["publish", &radio, &play, "--key", "o", "{}"]), &["there is no topic", &radio]);
    create_topic(setup.endpoints()["kafka"].as_str().unwrap(), &radio, 2);
    assert_contains(&setup.fails(&["publish", &radio, &play, "--key", "o", "{}"]), &["no version of", &play]);
    let (namespace, name) = play.rsplit_once('.').unwrap();
    let schema = json!({ "type": "record", "namespace": namespace, "name": name,
        "fields": [{ "name": "title", "type": "string" }, { "name": "listeners", "type": "int" }] });
    let subject = format!("{}/subjects/{play}/versions", setup.endpoints()["registry"].as_str().unwrap());
    let (status, answer) = Http::new().post(&subject, "-", json!({ "schema": schema.to_string() }).to_string());
    assert_eq!(status, 200, "{answer}");
    assert_contains(
        &setup.fails(&["publish", &radio, &play, "--key", "o", r#"{"title":"Trout"}"#]),
        &["$.listeners", "missing"],
    );
    setup.ok(&["publish", &radio, &play, "--key", "trout", r#"{"title":"Trout","listeners":7}"#]);
    let played = tail(setup, &["--topic", &radio]);
    assert_eq!(played.len(), 1);
    assert_eq!((&played[0]["type"], &played[0]["key"]), (&json!(play), &json!("trout")));
    assert_eq!(played[0]["value"], json!({ "title": "Trout", "listeners": 7 }));
}

fn it_tails(setup: &Setup) {
    let placed = tail(setup, &["--type", "OrderPlaced"]);
    assert_eq!(placed.len(), 8);
    let full_name = format!("com.{}.order_processor.OrderPlaced", setup.system());
    // Partitions are read concurrently, so only the order within a partition is stable.
    let in_order = |mut events: Vec<Value>| {
        events.sort_by_key(ToString::to_string);
        events
    };
    assert_eq!(in_order(tail(setup, &["--type", &full_name])), in_order(placed.clone()));
    let order = placed[0]["key"].as_str().unwrap();
    let of_order = tail(setup, &["--correlation", order]);
    assert!(of_order.len() > 5 && of_order.iter().all(|event| event["headers"]["ce_correlationid"] == json!(order)));
    let with_inboxes = tail(setup, &["--correlation", order, "--inboxes"]);
    assert!(with_inboxes.iter().any(|record| record["type"].as_str().unwrap().ends_with(".PlaceOrder")));
    assert!(tail(setup, &["--type", "OrderPlaced", "--key", "nobody"]).is_empty());
    assert_contains(
        &setup.fails(&["events", "tail", "--topic", "no.such.topic"]),
        &["there is no topic no.such.topic", "--follow"],
    );
    let data = setup.data().to_str().unwrap();
    for command in [&["events", "tail"][..], &["audit"]] {
        let elsewhere = fails(setup.command().args(command).args(["--data", data, "--system", "elsewhere"]));
        assert_contains(&elsewhere, &["no topic of system \"elsewhere\"", "--system"]);
    }
}

fn it_follows(setup: &Setup) {
    let follow =
        LongRunning::start(&mut setup.command_on_this(&["events", "tail", "--follow", "--type", "CustomerRegistered"]));
    follow.wait_for("customer-0001");
    setup.ok(&["send", "customers", "RegisterCustomer", "--key", "c-3", &customer("c-3")]);
    follow.wait_for("\"c-3\"");
    follow.interrupt();
}

fn it_lists_sagas(setup: &Setup) {
    let list = |args: &[&str]| -> Value {
        let orders = ["sagas", "list", "--json", "--saga", "order-fulfilment"];
        serde_json::from_str(&setup.ok(&[&orders[..], args].concat())).unwrap()
    };
    let all = list(&[]);
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 8);
    let short = list(&["--outcome", "short"]);
    let completed = list(&["--state", "completed"]);
    let count = |reply: &Value| reply["items"].as_array().unwrap().len();
    assert_eq!(count(&short) + count(&completed), 8);
    assert!(count(&short) > 0 && count(&completed) > 0, "the mix has both");
    // The pages contain every saga once.
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = match &cursor {
            Some(cursor) => list(&["--limit", "3", "--cursor", cursor]),
            None => list(&["--limit", "3"]),
        };
        seen.extend(page["items"].as_array().unwrap().iter().map(|saga| saga["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = Some(next.to_owned());
    }
    assert_eq!(seen, items.iter().map(|saga| saga["id"].clone()).collect::<Vec<_>>());
    let text = setup.ok(&["sagas", "list", "--saga", "order-fulfilment", "--limit", "3"]);
    assert_contains(&text, &["STATE", "there are more", "next: --cursor ", seen[0].as_str().unwrap()]);
    assert_contains(&setup.ok(&["sagas", "list", "--flag", "stuck"]), &["no saga matches"]);
    assert_contains(
        &setup.fails(&["sagas", "list", "--state", "complet"]),
        &["\"complet\"", "did you mean \"completed\""],
    );
    assert_contains(&setup.fails(&["sagas", "list", "--owner", "waerhouse"]), &["did you mean \"warehouse\""]);
    assert_contains(&setup.fails(&["sagas", "list", "--step", "pakage"]), &["\"pakage\""]);
    assert_contains(
        &setup.fails(&["sagas", "list", "--saga", "order-fullfilment"]),
        &["did you mean \"order-fulfilment\""],
    );
    assert_contains(&setup.fails(&["sagas", "list", "--limit", "0"]), &["limit"]);
    assert_contains(&setup.fails(&["sagas", "list", "--cursor", "nonsense"]), &["cursor"]);
}

fn it_shows_a_saga(setup: &Setup) {
    let short: Value =
        serde_json::from_str(&setup.ok(&["sagas", "list", "--outcome", "short", "--limit", "1", "--json"])).unwrap();
    let id = short["items"][0]["id"].as_str().unwrap();
    assert_contains(
        &setup.ok(&["sagas", "show", id]),
        &[id, "compensated", "short", "StockShort", "StockReleased", "PaymentVoided"],
    );
    let shown: Value = serde_json::from_str(&setup.ok(&["sagas", "show", id, "--json"])).unwrap();
    assert_eq!((&shown["id"], &shown["settled"]), (&json!(id), &json!(true)), "{shown}");
    assert_contains(&setup.fails(&["sagas", "show", "no-such-order"]), &["no saga has the id \"no-such-order\""]);
    assert_contains(&setup.fails(&["sagas", "show", "../../etc/passwd"]), &["no saga has the id"]);
}

fn it_counts_and_watches(system: &mut RunningSystem<'_>, setup: &Setup) {
    assert_contains(&setup.ok(&["sagas", "counts"]), &["order-fulfilment", "8", "completed", "ended: short"]);
    let watch = LongRunning::start(&mut setup.command_on_this(&["sagas", "watch"]));
    let watch_json =
        LongRunning::start(&mut setup.command_on_this(&["sagas", "watch", "--json", "--state", "completed"]));
    watch.wait_for("Ctrl-C ends");
    // A change before the first poll is not reported, so orders are placed until one is.
    let order = r#"{"customer_id":"customer-0001","ship_to":{"street":"1 Quay","city":"Bristol","postcode":"BS1","country":"GB"},
        "lines":[{"sku":"lp-goldberg","quantity":1}],"payment_method":"card-ok"}"#;
    let url = format!("{}/orders", setup.endpoints()["services"]["order-processor"].as_str().unwrap());
    let (http, mut orders, mut is_reported) = (Http::new(), 0, [false; 2]);
    system.wait_for("a change on both watches", || {
        orders += 1;
        let (status, placed) = http.post(&url, &format!("watched-{orders}"), order);
        assert_eq!(status, 201, "{placed}");
        is_reported[0] |= watch.lines.recv_timeout(Duration::from_secs(1)).is_ok_and(|line| line.contains("running"));
        is_reported[1] |= watch_json
            .lines
            .recv_timeout(Duration::from_secs(1))
            .is_ok_and(|line| serde_json::from_str::<Value>(&line).unwrap().to_string().contains("completed"));
        is_reported == [true, true]
    });
    watch.interrupt();
    watch_json.interrupt();
    all_settled(system, setup, 8 + orders);
}

fn it_audits_and_replays(setup: &Setup) {
    assert_contains(&setup.ok(&["audit"]), &["money: captured", "stock: received", "audit: clean"]);
    assert_contains(
        &setup.ok(&["replay", "projection", "sagas", "--verify"]),
        &["rebuilt ", "both views are equal: digest "],
    );
    let kafka = setup.endpoints()["kafka"].as_str().unwrap().to_owned();
    assert_contains(&setup.fails(&["audit", "--bootstrap", &kafka]), &["--bootstrap", "--registry", "go together"]);
    let registry = setup.endpoints()["registry"].as_str().unwrap().to_owned();
    let replay = ["replay", "projection", "sagas", "--verify", "--bootstrap", &kafka, "--registry", &registry];
    assert_contains(&setup.fails(&replay), &["the projector must be named too", "--projector"]);
}

fn it_has_nothing_to_do(setup: &Setup) {
    assert_contains(&setup.ok(&["topics", "create"]), &["nothing to do"]);
    assert_contains(&setup.ok(&["schemas", "register"]), &["nothing to do"]);
    let errors = fails(&mut setup.command_on_this(&["topics", "create", "--partitions", "7", "--apply"]));
    assert_contains(&errors, &["never altered"]);
}

fn it_ends_quietly_on_a_closed_pipe(setup: &Setup) {
    for args in [&["events", "tail"][..], &["events", "tail", "--follow"], &["orders", "100000"]] {
        let mut command = if args[0] == "orders" { setup.command() } else { setup.command_on_this(args) };
        if args[0] == "orders" {
            command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        assert!(first.starts_with('{'), "{args:?} printed {first:?}");
        drop(out);
        let mut stderr = child.stderr.take().unwrap();
        assert!(
            exits_with_success(child, Duration::from_secs(20)),
            "{args:?} must end with success when its reader is gone"
        );
        let mut errors = String::new();
        stderr.read_to_string(&mut errors).unwrap();
        assert_eq!(errors, "", "{args:?}");
    }
}

fn create_topic(bootstrap: &str, name: &str, partitions: i32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
}

fn partitions_of(bootstrap: &str, name: &str) -> usize {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    client.fetch_metadata(Some(name), Duration::from_secs(10)).unwrap().topics()[0].partitions().len()
}

#[test]
fn missing_topics_and_schemas_are_created_only_with_apply() {
    let (pair, setup) = (Pair::start(), Setup::new(&Infrastructure::Embedded));
    let nowhere = setup.data().join("nothing-here");
    let dacapo = |args: &[&str]| {
        let mut command = setup.command();
        command.args(args).arg("--data").arg(&nowhere);
        command
    };
    let (bootstrap, registry) = (pair.bootstrap(), pair.registry());
    let schemas = ["schemas", "register", "--registry", &registry];
    let shown = ok(&mut dacapo(&schemas));
    assert_contains(&shown, &["com.musiccorp.order_processor.OrderPlaced", "would make", "--apply does it"]);
    assert_eq!(shown, ok(&mut dacapo(&schemas)), "showing changes nothing");
    assert_contains(&ok(dacapo(&schemas).arg("--apply")), &["made "]);
    assert_contains(&ok(&mut dacapo(&schemas)), &["nothing to do"]);

    create_topic(&bootstrap, "musiccorp.payment.events", 3);
    let topics = ["topics", "create", "--bootstrap", &bootstrap];
    let refused = dacapo(&topics).args(["--partitions", "6", "--apply"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_contains(
        &String::from_utf8(refused.stdout).unwrap(),
        &["differs musiccorp.payment.events: partitions is 3, expected 6"],
    );
    assert_contains(&String::from_utf8(refused.stderr).unwrap(), &["never altered"]);
    assert_eq!(partitions_of(&bootstrap, "musiccorp.payment.events"), 3);
    assert_eq!(partitions_of(&bootstrap, "musiccorp.payment.inbox"), 0, "no other topic was created");

    let other = |more: &[&str]| ok(dacapo(&topics).args(["--system", "other"]).args(more));
    assert_contains(
        &other(&[]),
        &["create  other.payment.events (4 partitions)", "would create 30 topics", "--apply does it"],
    );
    assert_contains(&other(&["--partitions", "2", "--apply"]), &["created 30 topics"]);
    assert_contains(&other(&[]), &["nothing to do"]);
    assert_eq!(partitions_of(&bootstrap, "other.payment.events"), 2);
    let schemas_of_other = ["schemas", "register", "--registry", &registry, "--system", "other", "--apply"];
    assert_contains(&ok(&mut dacapo(&schemas_of_other)), &["made "]);

    // `up` accepts the created topics with their two partitions.
    let up = ["up", "--bootstrap", &bootstrap, "--registry", &registry, "--system", "other", "--orders", "3"];
    let free = ["--listen-http", "127.0.0.1:0", "--listen-stubs", "127.0.0.1:0", "--until-settled"];
    assert_contains(&ok(dacapo(&up).args(free)), &["3 orders in", "audit: clean"]);
}

#[test]
fn schemas_are_checked_and_listed_without_any_system() {
    let setup = Setup::new(&Infrastructure::Embedded);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let schemas = format!("{root}/schemas");
    assert_contains(&ok(setup.command().args(["schemas", "check", &schemas])), &["keep the rules"]);
    let list = ok(setup.command().args(["schemas", "list", "--system", "shop"]));
    assert_contains(&list, &["com.shop.order_processor.OrderPlaced v1 on shop.order-processor.events"]);
    let broken = setup.data().join("schemas/shop/events/Opened");
    fs::create_dir_all(&broken).unwrap();
    fs::write(
        broken.join("v1.avsc"),
        r#"{"type":"record","name":"Opened","fields":[{"name":"price","type":"float"}]}"#,
    )
    .unwrap();
    let folder = setup.data().join("schemas");
    assert_contains(&fails(setup.command().args(["schemas", "check"]).arg(&folder)), &["Opened", "doc"]);
    let none = setup.data().join("none");
    assert_contains(&fails(setup.command().args(["schemas", "check"]).arg(&none)), &["none", "No such file"]);
}

#[test]
fn without_a_system_every_command_reports_what_to_do() {
    let setup = Setup::new(&Infrastructure::Embedded);
    let commands: [&[&str]; 8] = [
        &["sagas", "list"],
        &["sagas", "show", "x"],
        &["audit"],
        &["events", "tail"],
        &["replay", "projection", "sagas", "--verify"],
        &["topics", "create"],
        &["schemas", "register"],
        &["send", "customers", "VerifyCustomer", "--key", "c", r#"{"customer_id":"c"}"#],
    ];
    for command in commands {
        assert_contains(&setup.fails(command), &["no system is known in ", "dacapo up"]);
    }
    fs::write(setup.data().join("endpoints.json"), "{").unwrap();
    assert_contains(&setup.fails(&["sagas", "list"]), &["endpoints.json"]);
    let nobody = ["--bootstrap", "127.0.0.1:1", "--registry", "http://127.0.0.1:1"];
    assert_contains(&setup.fails(&[&["audit"], &nobody[..]].concat()), &["127.0.0.1:1", "does not answer"]);
    assert_contains(
        &setup.fails(&["sagas", "list", "--projector", "http://127.0.0.1:1"]),
        &["127.0.0.1:1", "is it running?"],
    );
    let file = setup.data().join("none.ndjson");
    let mut up = setup.command();
    up.args(["up", "--orders-from"]).arg(&file).arg("--data").arg(setup.data().join("new"));
    assert_contains(&fails(&mut up), &["cannot read the orders", "none.ndjson"]);
    assert!(!setup.data().join("new/endpoints.json").exists(), "nothing was started");
}

#[test]
fn bad_lines_are_reported_with_number_and_reason_and_the_others_settle() {
    let setup = Setup::new(&infrastructure());
    let order = |key: &str, quantity: u64| {
        json!({ "key": key, "customer_id": "customer-0002", "payment_method": "card-ok",
            "ship_to": { "street": "1 Quay", "city": "Bristol", "postcode": "BS1", "country": "GB" },
            "lines": [{ "sku": "lp-goldberg", "quantity": quantity }] })
    };
    let mut unknown = order("unknown-field", 1);
    unknown["coupon"] = json!("X");
    let lines: [Vec<u8>; 10] = [
        order("first", 1).to_string().into_bytes(),
        b"{\"customer_id\":".to_vec(),
        b"{\"customer_id\":\"\xff\xfe\"}".to_vec(),
        vec![b'x'; 1024 * 1024 + 1],
        unknown.to_string().into_bytes(),
        order("absurd", 2_000_000_000).to_string().into_bytes(),
        order("first", 1).to_string().into_bytes(),
        order("first", 2).to_string().into_bytes(),
        Vec::new(),
        order("last", 3).to_string().into_bytes(),
    ];
    let file = setup.data().join("orders.ndjson");
    fs::write(&file, lines.join(&b'\n')).unwrap();
    // One at a time, so that the first of two lines with one key always comes first.
    let up = setup.up(&["--orders-from", file.to_str().unwrap(), "--rate", "4", "--until-settled"]).spawn().unwrap();
    assert!(exits_with_success(up, PATIENCE), "bad lines alone do not fail the run\n{}", setup.log());
    let log = setup.log();
    for (number, words) in [
        (2, &["not JSON"][..]),
        (3, &["byte 17 is not UTF-8"]),
        (4, &["longer than 1048576 bytes"]),
        (5, &["coupon"]),
        (6, &["/lines/0/quantity"]),
        (8, &["idempotency key"]),
    ] {
        let note = log.lines().find(|line| line.starts_with(&format!("line {number} is not placed: ")));
        assert_contains(note.unwrap_or_else(|| panic!("line {number} is not reported\n{log}")), words);
    }
    assert_eq!(log.lines().filter(|line| line.contains("is not placed")).count(), 6, "{log}");
    assert_contains(&log, &["2 orders in ", "1 had been placed before", "6 were not placed", "audit: clean"]);
}
