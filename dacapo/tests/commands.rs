//! Every command of `dacapo`, as a person uses it: what it prints, what it refuses and in which words, and its exit code.

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
use support::{Ground, Http, PATIENCE, Place, System, endless::Endless, ground, pair::Pair, wait_until_ended};

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

/// A command that must fail with exit code 1. Answers what it says.
#[track_caller]
fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    said
}

/// A command that must succeed. Answers its standard output.
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
    let place = Place::new(&ground());
    let mut system =
        place.start(&["--orders", "8", "--declined", "0", "--lost", "0", "--refused", "0", "--short", "50"]);
    all_settled(&mut system, &place, 8);
    it_sends(&mut system, &place);
    it_refuses_to_send(&place);
    it_publishes(&place);
    it_tails(&place);
    it_follows(&place);
    it_lists_sagas(&place);
    it_shows_a_saga(&place);
    it_counts_and_watches(&mut system, &place);
    it_proves(&place);
    it_has_nothing_to_do(&place);
    it_closes_quietly(&place);
    system.stop();
    // An Apache Kafka is still there when `up` has ended.
    if matches!(ground(), Ground::Embedded) {
        says(&place.fails(&["audit"]), &["does not answer", "is its `dacapo up` still running?"]);
    }
}

fn all_settled(system: &mut System<'_>, place: &Place, orders: u64) {
    system.wait_for("the end of every order", || {
        let counts: Value = serde_json::from_str(&place.ok(&["sagas", "counts", "--json"])).unwrap();
        counts["sagas"][0]["total"] == json!(orders) && counts["sagas"][0]["open"] == json!(0)
    });
}

fn tail(place: &Place, args: &[&str]) -> Vec<Value> {
    let text = place.ok(&[&["events", "tail"], args].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn it_sends(system: &mut System<'_>, place: &Place) {
    let id = "0190a5a0-0000-7000-8000-000000000001";
    let sent = place.ok(&["send", "customers", "RegisterCustomer", "--key", "c-1", "--id", id, &customer("c-1")]);
    says(&sent, &[&format!("{}.customers.inbox/", place.system()), id]);
    let mut registered = Vec::new();
    system.wait_for("the decision about the sent command", || {
        registered = tail(place, &["--type", "CustomerRegistered", "--key", "c-1"]);
        !registered.is_empty()
    });
    assert_eq!(registered[0]["value"]["contact"]["email"], json!("ada@example.org"));
    assert_eq!(registered[0]["headers"]["ce_causationid"], json!(id));
    assert_eq!(registered[0]["headers"]["ce_correlationid"], json!("c-1"));
    // The same record again, and then something that only a later decision can say: nothing new came of the repeated one.
    place.ok(&["send", "customers", "RegisterCustomer", "--key", "c-1", "--id", id, &customer("c-1")]);
    let verify = r#"{"customer_id":"c-1"}"#;
    place.ok(&["send", "customers", "VerifyCustomer", "--key", "c-1", verify]);
    system.wait_for("the decision about the later command", || {
        !tail(place, &["--type", "CustomerVerified", "--key", "c-1"]).is_empty()
    });
    assert_eq!(
        tail(place, &["--correlation", "c-1", "--topic", &format!("{}.customers.events", place.system())]).len(),
        2
    );
}

fn it_refuses_to_send(place: &Place) {
    let send = |service, command, body: &str| place.fails(&["send", service, command, "--key", "c-2", body]);
    says(&send("custmers", "RegisterCustomer", "{}"), &["no service \"custmers\"", "order-processor"]);
    says(
        &send("customers", "RegisterCustmer", "{}"),
        &["no command \"RegisterCustmer\"", "ForgetCustomer, RegisterCustomer"],
    );
    says(&send("customers", "RegisterCustomer", "{"), &["not JSON"]);
    let mut fields: Value = serde_json::from_str(&customer("c-2")).unwrap();
    fields["contact"]["email"] = json!(7);
    says(&send("customers", "RegisterCustomer", &fields.to_string()), &["$.contact.email", "expected a string", "7"]);
    fields["contact"] = json!({ "name": "Ada", "email": "a@example.org", "phone": "1" });
    says(
        &send("customers", "RegisterCustomer", &fields.to_string()),
        &["$.contact", "no field \"phone\"", "name, email"],
    );
    says(&send("customers", "RegisterCustomer", r#"{"customer_id":"c-2"}"#), &["$.contact", "missing"]);
    assert!(tail(place, &["--key", "c-2", "--inboxes"]).is_empty(), "nothing of it was written");
}

fn it_publishes(place: &Place) {
    let events = format!("{}.payment.events", place.system());
    let record = format!("com.{}.payment.PaymentTaken", place.system());
    says(
        &place.fails(&["publish", &events, &record, "--key", "o", "{}"]),
        &["written by its owner only", "dacapo send payment"],
    );
    let parked = format!("{}.payment.parked", place.system());
    says(&place.fails(&["publish", &parked, &record, "--key", "o", "{}"]), &["may not write", "`dacapo parked`"]);
    let inbox = format!("{}.payment.inbox", place.system());
    says(&place.fails(&["publish", &inbox, &record, "--key", "o", "{}"]), &["takes commands", "dacapo send payment"]);
    let (radio, play) = (format!("radio.{}", place.system()), format!("org.radio.{}.Played", place.system()));
    says(&place.fails(&["publish", &radio, &play, "--key", "o", "{}"]), &["there is no topic", &radio]);
    create_topic(place.endpoints()["kafka"].as_str().unwrap(), &radio, 2);
    says(&place.fails(&["publish", &radio, &play, "--key", "o", "{}"]), &["no version of", &play]);
    let (namespace, name) = play.rsplit_once('.').unwrap();
    let schema = json!({ "type": "record", "namespace": namespace, "name": name,
        "fields": [{ "name": "title", "type": "string" }, { "name": "listeners", "type": "int" }] });
    let subject = format!("{}/subjects/{play}/versions", place.endpoints()["registry"].as_str().unwrap());
    let (status, answer) = Http::new().post(&subject, "-", json!({ "schema": schema.to_string() }).to_string());
    assert_eq!(status, 200, "{answer}");
    says(&place.fails(&["publish", &radio, &play, "--key", "o", r#"{"title":"Trout"}"#]), &["$.listeners", "missing"]);
    place.ok(&["publish", &radio, &play, "--key", "trout", r#"{"title":"Trout","listeners":7}"#]);
    let heard = tail(place, &["--topic", &radio]);
    assert_eq!(heard.len(), 1);
    assert_eq!((&heard[0]["type"], &heard[0]["key"]), (&json!(play), &json!("trout")));
    assert_eq!(heard[0]["value"], json!({ "title": "Trout", "listeners": 7 }));
}

fn it_tails(place: &Place) {
    let placed = tail(place, &["--type", "OrderPlaced"]);
    assert_eq!(placed.len(), 8);
    let full_name = format!("com.{}.order_processor.OrderPlaced", place.system());
    // Partitions are read side by side, so only each one's own order is the same every time.
    let in_order = |mut events: Vec<Value>| {
        events.sort_by_key(ToString::to_string);
        events
    };
    assert_eq!(in_order(tail(place, &["--type", &full_name])), in_order(placed.clone()));
    let order = placed[0]["key"].as_str().unwrap();
    let of_order = tail(place, &["--correlation", order]);
    assert!(of_order.len() > 5 && of_order.iter().all(|event| event["headers"]["ce_correlationid"] == json!(order)));
    let with_inboxes = tail(place, &["--correlation", order, "--inboxes"]);
    assert!(with_inboxes.iter().any(|record| record["type"].as_str().unwrap().ends_with(".PlaceOrder")));
    assert!(tail(place, &["--type", "OrderPlaced", "--key", "nobody"]).is_empty());
    says(
        &place.fails(&["events", "tail", "--topic", "no.such.topic"]),
        &["there is no topic no.such.topic", "--follow"],
    );
    let data = place.data().to_str().unwrap();
    for command in [&["events", "tail"][..], &["audit"]] {
        let elsewhere = fails(place.command().args(command).args(["--data", data, "--system", "elsewhere"]));
        says(&elsewhere, &["no topic of system \"elsewhere\"", "--system"]);
    }
}

fn it_follows(place: &Place) {
    let follow =
        Endless::start(&mut place.command_on_this(&["events", "tail", "--follow", "--type", "CustomerRegistered"]));
    follow.wait_for("customer-0001");
    place.ok(&["send", "customers", "RegisterCustomer", "--key", "c-3", &customer("c-3")]);
    follow.wait_for("\"c-3\"");
    follow.interrupt();
}

fn it_lists_sagas(place: &Place) {
    let list = |args: &[&str]| -> Value {
        let orders = ["sagas", "list", "--json", "--saga", "order-fulfilment"];
        serde_json::from_str(&place.ok(&[&orders[..], args].concat())).unwrap()
    };
    let all = list(&[]);
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 8);
    let short = list(&["--outcome", "short"]);
    let completed = list(&["--state", "completed"]);
    let count = |reply: &Value| reply["items"].as_array().unwrap().len();
    assert_eq!(count(&short) + count(&completed), 8);
    assert!(count(&short) > 0 && count(&completed) > 0, "the mix has both");
    // Page by page: everything once.
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
    let text = place.ok(&["sagas", "list", "--saga", "order-fulfilment", "--limit", "3"]);
    says(&text, &["STATE", "there are more", "next: --cursor ", seen[0].as_str().unwrap()]);
    says(&place.ok(&["sagas", "list", "--flag", "stuck"]), &["no saga fits"]);
    says(&place.fails(&["sagas", "list", "--state", "complet"]), &["\"complet\"", "did you mean \"completed\""]);
    says(&place.fails(&["sagas", "list", "--owner", "waerhouse"]), &["did you mean \"warehouse\""]);
    says(&place.fails(&["sagas", "list", "--step", "pakage"]), &["\"pakage\""]);
    says(&place.fails(&["sagas", "list", "--saga", "order-fullfilment"]), &["did you mean \"order-fulfilment\""]);
    says(&place.fails(&["sagas", "list", "--limit", "0"]), &["limit"]);
    says(&place.fails(&["sagas", "list", "--cursor", "nonsense"]), &["cursor"]);
}

fn it_shows_a_saga(place: &Place) {
    let short: Value =
        serde_json::from_str(&place.ok(&["sagas", "list", "--outcome", "short", "--limit", "1", "--json"])).unwrap();
    let id = short["items"][0]["id"].as_str().unwrap();
    says(
        &place.ok(&["sagas", "show", id]),
        &[id, "compensated", "short", "StockShort", "StockReleased", "PaymentVoided"],
    );
    let shown: Value = serde_json::from_str(&place.ok(&["sagas", "show", id, "--json"])).unwrap();
    assert_eq!((&shown["id"], &shown["settled"]), (&json!(id), &json!(true)), "{shown}");
    says(&place.fails(&["sagas", "show", "no-such-order"]), &["no saga has the id \"no-such-order\""]);
    says(&place.fails(&["sagas", "show", "../../etc/passwd"]), &["no saga has the id"]);
}

fn it_counts_and_watches(system: &mut System<'_>, place: &Place) {
    says(&place.ok(&["sagas", "counts"]), &["order-fulfilment", "8", "completed", "ended: short"]);
    let watch = Endless::start(&mut place.command_on_this(&["sagas", "watch"]));
    let watch_json = Endless::start(&mut place.command_on_this(&["sagas", "watch", "--json", "--state", "completed"]));
    watch.wait_for("Ctrl-C ends");
    // A change before the first question is not told, so orders come until one is.
    let order = r#"{"customer_id":"customer-0001","ship_to":{"street":"1 Quay","city":"Bristol","postcode":"BS1","country":"GB"},
        "lines":[{"sku":"lp-goldberg","quantity":1}],"payment_method":"card-ok"}"#;
    let url = format!("{}/orders", place.endpoints()["services"]["order-processor"].as_str().unwrap());
    let (http, mut orders, mut is_told) = (Http::new(), 0, [false; 2]);
    system.wait_for("a change on both watches", || {
        orders += 1;
        let (status, placed) = http.post(&url, &format!("watched-{orders}"), order);
        assert_eq!(status, 201, "{placed}");
        is_told[0] |= watch.lines.recv_timeout(Duration::from_secs(1)).is_ok_and(|line| line.contains("running"));
        is_told[1] |= watch_json
            .lines
            .recv_timeout(Duration::from_secs(1))
            .is_ok_and(|line| serde_json::from_str::<Value>(&line).unwrap().to_string().contains("completed"));
        is_told == [true, true]
    });
    watch.interrupt();
    watch_json.interrupt();
    all_settled(system, place, 8 + orders);
}

fn it_proves(place: &Place) {
    says(&place.ok(&["audit"]), &["money: captured", "stock: received", "audit: clean"]);
    says(&place.ok(&["replay", "projection", "sagas", "--verify"]), &["rebuilt ", "both views are equal: digest "]);
    let kafka = place.endpoints()["kafka"].as_str().unwrap().to_owned();
    says(&place.fails(&["audit", "--bootstrap", &kafka]), &["--bootstrap", "--registry", "go together"]);
    let registry = place.endpoints()["registry"].as_str().unwrap().to_owned();
    let replay = ["replay", "projection", "sagas", "--verify", "--bootstrap", &kafka, "--registry", &registry];
    says(&place.fails(&replay), &["the projector must be named too", "--projector"]);
}

fn it_has_nothing_to_do(place: &Place) {
    says(&place.ok(&["topics", "create"]), &["nothing to do"]);
    says(&place.ok(&["schemas", "register"]), &["nothing to do"]);
    let said = fails(&mut place.command_on_this(&["topics", "create", "--partitions", "7", "--apply"]));
    says(&said, &["never altered"]);
}

fn it_closes_quietly(place: &Place) {
    for args in [&["events", "tail"][..], &["events", "tail", "--follow"], &["orders", "100000"]] {
        let mut command = if args[0] == "orders" { place.command() } else { place.command_on_this(args) };
        if args[0] == "orders" {
            command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        assert!(first.starts_with('{'), "{args:?} printed {first:?}");
        drop(out);
        let mut errors = child.stderr.take().unwrap();
        assert!(wait_until_ended(child, Duration::from_secs(20)), "{args:?} ends well when nobody reads any more");
        let mut said = String::new();
        errors.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{args:?}");
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
fn an_empty_pair_gets_what_it_lacks_when_asked_and_not_before() {
    let (pair, place) = (Pair::start(), Place::new(&Ground::Embedded));
    let nowhere = place.data().join("nothing-here");
    let dacapo = |args: &[&str]| {
        let mut command = place.command();
        command.args(args).arg("--data").arg(&nowhere);
        command
    };
    let (bootstrap, registry) = (pair.bootstrap(), pair.registry());
    let schemas = ["schemas", "register", "--registry", &registry];
    let shown = ok(&mut dacapo(&schemas));
    says(&shown, &["com.musiccorp.order_processor.OrderPlaced", "would make", "--apply does it"]);
    assert_eq!(shown, ok(&mut dacapo(&schemas)), "showing changes nothing");
    says(&ok(dacapo(&schemas).arg("--apply")), &["made "]);
    says(&ok(&mut dacapo(&schemas)), &["nothing to do"]);

    create_topic(&bootstrap, "musiccorp.payment.events", 3);
    let topics = ["topics", "create", "--bootstrap", &bootstrap];
    let refused = dacapo(&topics).args(["--partitions", "6", "--apply"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    says(
        &String::from_utf8(refused.stdout).unwrap(),
        &["differs musiccorp.payment.events: partitions is 3, expected 6"],
    );
    says(&String::from_utf8(refused.stderr).unwrap(), &["never altered"]);
    assert_eq!(partitions_of(&bootstrap, "musiccorp.payment.events"), 3);
    assert_eq!(partitions_of(&bootstrap, "musiccorp.payment.inbox"), 0, "nothing was made beside it either");

    let other = |more: &[&str]| ok(dacapo(&topics).args(["--system", "other"]).args(more));
    says(&other(&[]), &["create  other.payment.events (8 partitions)", "would create 29 topics", "--apply does it"]);
    says(&other(&["--partitions", "2", "--apply"]), &["created 29 topics"]);
    says(&other(&[]), &["nothing to do"]);
    assert_eq!(partitions_of(&bootstrap, "other.payment.events"), 2);
    let schemas_of_other = ["schemas", "register", "--registry", &registry, "--system", "other", "--apply"];
    says(&ok(&mut dacapo(&schemas_of_other)), &["made "]);

    // What was made is what `up` needs: it takes the two partitions as they are.
    let up = ["up", "--bootstrap", &bootstrap, "--registry", &registry, "--system", "other", "--orders", "3"];
    let free = ["--listen-http", "127.0.0.1:0", "--listen-outside", "127.0.0.1:0", "--until-settled"];
    says(&ok(dacapo(&up).args(free)), &["3 orders in", "audit: clean"]);
}

#[test]
fn schemas_are_checked_and_listed_without_any_system() {
    let place = Place::new(&Ground::Embedded);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let schemas = format!("{root}/schemas");
    says(&ok(place.command().args(["schemas", "check", &schemas])), &["keep the rules"]);
    let list = ok(place.command().args(["schemas", "list", "--system", "shop"]));
    says(&list, &["com.shop.order_processor.OrderPlaced v1 on shop.order-processor.events"]);
    let broken = place.data().join("schemas/shop/events/Opened");
    fs::create_dir_all(&broken).unwrap();
    fs::write(
        broken.join("v1.avsc"),
        r#"{"type":"record","name":"Opened","fields":[{"name":"price","type":"float"}]}"#,
    )
    .unwrap();
    let folder = place.data().join("schemas");
    says(&fails(place.command().args(["schemas", "check"]).arg(&folder)), &["Opened", "doc"]);
    let none = place.data().join("none");
    says(&fails(place.command().args(["schemas", "check"]).arg(&none)), &["none", "No such file"]);
}

#[test]
fn without_a_system_every_command_says_what_to_do() {
    let place = Place::new(&Ground::Embedded);
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
        says(&place.fails(command), &["no system is known in ", "dacapo up"]);
    }
    fs::write(place.data().join("endpoints.json"), "{").unwrap();
    says(&place.fails(&["sagas", "list"]), &["endpoints.json"]);
    let nobody = ["--bootstrap", "127.0.0.1:1", "--registry", "http://127.0.0.1:1"];
    says(&place.fails(&[&["audit"], &nobody[..]].concat()), &["127.0.0.1:1", "does not answer"]);
    says(&place.fails(&["sagas", "list", "--projector", "http://127.0.0.1:1"]), &["127.0.0.1:1", "is it running?"]);
    let file = place.data().join("none.ndjson");
    let mut up = place.command();
    up.args(["up", "--orders-from"]).arg(&file).arg("--data").arg(place.data().join("new"));
    says(&fails(&mut up), &["cannot read the orders", "none.ndjson"]);
    assert!(!place.data().join("new/endpoints.json").exists(), "nothing was started for it");
}

#[test]
fn bad_lines_are_told_with_number_and_reason_and_the_others_settle() {
    let place = Place::new(&ground());
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
    let file = place.data().join("orders.ndjson");
    fs::write(&file, lines.join(&b'\n')).unwrap();
    // One at a time, so that it is certain which of two lines with one key comes first.
    let up = place.up(&["--orders-from", file.to_str().unwrap(), "--rate", "4", "--until-settled"]).spawn().unwrap();
    assert!(wait_until_ended(up, PATIENCE), "bad lines alone do not fail the run\n{}", place.log());
    let log = place.log();
    for (number, words) in [
        (2, &["not JSON"][..]),
        (3, &["byte 17 is not UTF-8"]),
        (4, &["longer than 1048576 bytes"]),
        (5, &["coupon"]),
        (6, &["/lines/0/quantity"]),
        (8, &["idempotency key"]),
    ] {
        let told = log.lines().find(|line| line.starts_with(&format!("line {number} is not placed: ")));
        says(told.unwrap_or_else(|| panic!("line {number} is not told\n{log}")), words);
    }
    assert_eq!(log.lines().filter(|line| line.contains("is not placed")).count(), 6, "{log}");
    says(&log, &["2 orders in ", "1 had been placed before", "6 were not placed", "audit: clean"]);
}
