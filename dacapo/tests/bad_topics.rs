//! A plain Kafka client writes invalid records to the topics that running services read. Each is parked or dead-lettered unchanged,
//! with its position and the reason, and all other records are handled.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../runtime/tests/cluster/raw.rs"]
mod raw;
mod support;

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};
use serde_json::{Value, json};
use support::{
    Http, RunningSystem, Setup, infrastructure,
    records::{self, Acknowledged, TopicRecord, encoded, read_all},
};

/// The header that identifies a record of this test.
const TEST_HEADER: &str = "x-test";
/// Nearly the largest record that a topic accepts; the dead letter made of it is larger.
const BIG: usize = 1_048_000;

/// An invalid record.
struct BadRecord {
    name: &'static str,
    /// The topic, without the system's name.
    topic: &'static str,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(&'static str, &'static str)>,
    /// The services that cannot read it, and the class of the failure. Empty if every service can read it.
    failures: ExpectedFailures,
}

type ExpectedFailures = (&'static [&'static str], &'static str);

/// The services that consume the order-processor's events.
const READERS: &[&str] = &["warehouse", "payment", "loyalty", "notifications"];

#[test]
fn unreadable_records_are_parked_or_dead_lettered_and_all_others_are_handled() {
    let setup = Setup::new(&infrastructure());
    // An unknown schema would hold its partition for half a minute by default.
    let settings = setup.data().join("settings.toml");
    std::fs::write(&settings, "partitions = 4\n[timeouts]\nschema = 1000\n").unwrap();
    let mut system = setup.start(&["--config", settings.to_str().unwrap()]);
    let writer = Writer::new(&setup);
    let bad = bad_records(&writer);
    for record in bad.iter().chain(&foreign_records(&writer)) {
        writer.write(record);
    }
    writer.flush();
    let written = ["payment.inbox", "order-processor.events"].map(|topic| format!("{}.{topic}", setup.system()));
    let written: Vec<TopicRecord> = written.iter().flat_map(|topic| read_all(&kafka_of(&setup), topic)).collect();
    for service in READERS {
        let unread = bad.iter().filter(|record| record.failures.0.contains(service));
        let (parked, dead_letters): (Vec<&BadRecord>, Vec<&BadRecord>) =
            unread.partition(|record| is_parked(record, service));
        are_parked_or_dead_lettered(
            &mut system,
            &setup,
            (service, format!("dlq.{}.{service}", setup.system())),
            &dead_letters,
            &written,
        );
        let topic = format!("{}.{service}.parked", setup.system());
        are_parked_or_dead_lettered(&mut system, &setup, (service, topic), &parked, &written);
    }
    foreign_records_are_handled(&mut system, &setup);
    every_service_is_ready(&setup);
    later_orders_settle(&mut system, &setup);
    audit_finds_the_dead_letters(&setup);
    an_operator_drops_parked_records(&setup);
    system.stop();
}

/// An unreadable record of a stock item: orders for the item wait, all others are delivered; `up` restarts meanwhile.
#[test]
fn a_parked_item_delays_only_its_own_orders_until_it_is_dropped() {
    let setup = Setup::new(&infrastructure());
    let mut system = setup.start(&[]);
    let poison = BadRecord {
        headers: vec![("ce_correlationid", "a human error")],
        ..bad(
            "poison",
            "warehouse.inbox",
            Some(b"lp-trout".to_vec()),
            Some(b"{}".to_vec()),
            (&["warehouse"], "framing"),
        )
    };
    let writer = Writer::new(&setup);
    writer.write(&poison);
    writer.flush();
    let at = parked_place(&mut system, &setup);
    let (http, endpoints) = (Http::new(), setup.endpoints());
    let url = format!("{}/orders", endpoints["services"]["order-processor"].as_str().unwrap());
    let waits = place_order(&http, &url, "waits", "lp-trout");
    let unaffected = place_order(&http, &url, "unaffected", "lp-goldberg");
    let mut shown = String::new();
    system.wait_for("the end of the order for another item", || {
        saga(&setup, &unaffected).contains("completed (completed)")
    });
    system.wait_for("the order that waits", || {
        shown = saga(&setup, &waits);
        shown.contains("[parked]")
    });
    assert!(shown.contains(&format!("parked in warehouse behind {at}: HoldItem at")), "{shown}");
    assert!(shown.contains("An operator must act: HoldItem is parked in warehouse behind"), "{shown}");
    assert!(setup.ok(&["sagas", "list", "--flag", "parked"]).contains(&waits));
    system.stop();
    let mut system = setup.start(&[]);
    assert_eq!(parked_place(&mut system, &setup), at, "it is still parked after a restart");
    let refused = setup.run(&["parked", "retry", &at]);
    let output = String::from_utf8(refused.stdout).unwrap();
    assert!(!refused.status.success() && output.contains("failed again, tried 2 times"), "{output}");
    let behind = setup.ok(&["parked", "list", "--all", "--json"]);
    let behind: Vec<Value> = serde_json::from_str(&behind).unwrap();
    let behind =
        behind.iter().find(|record| record["behind"] == json!(0)).unwrap()["place"].as_str().unwrap().to_owned();
    let output = setup.fails(&["parked", "retry", &behind]);
    assert!(output.contains(&format!("waits behind {at}")) && output.contains("keeps the order of"), "{output}");
    assert!(
        setup
            .fails(&["parked", "drop", "nowhere/0/0", "--reason", "none"])
            .contains("nothing is parked at nowhere/0/0")
    );
    let done = setup.ok(&["parked", "drop", &at, "--reason", "not a command"]);
    assert!(done.contains("is no longer parked; no record of its entity waits any more"), "{done}");
    system.wait_for("the end of the order that waited", || saga(&setup, &waits).contains("completed (completed)"));
    assert_eq!(setup.ok(&["parked", "list"]).trim(), "nothing is parked");
    setup.ok(&["audit"]);
    system.stop();
}

/// What the board shows of a saga, which may not exist yet.
#[test]
fn a_batch_that_no_client_can_read_is_named_and_waits_until_each_reader_skips_it() {
    let setup = Setup::new(&infrastructure());
    let mut system = setup.start(&[]);
    let (http, kafka, endpoints) = (Http::new(), kafka_of(&setup), setup.endpoints());
    let topic = |name: &str| format!("{}.{name}", setup.system());
    let batch = raw::zstd_batch(&[("no-order", b"one"), ("no-order", b"two")]);
    let inbox = topic("payment.inbox");
    let inbox_place = format!("{inbox}/0/{}", raw::append_raw(&kafka, &inbox, 0, &batch));
    let events = topic("loyalty.events");
    let events_place = format!("{events}/1/{}", raw::append_raw(&kafka, &events, 1, &batch));
    let service = |name: &str| endpoints["services"][name].as_str().unwrap().to_owned();
    let payment = format!("{}/readyz", service("payment"));
    system.wait_for("a degraded service", || {
        let (status, text) = http.get_text(&payment);
        status == 200 && text.contains(&inbox_place) && text.contains("check passed: degraded")
    });
    assert_eq!(http.get(&format!("{payment}?strict")).0, 503);
    // The order-processor consumes what loyalty produces.
    let list = || setup.ok(&["parked", "list"]);
    system.wait_for("the batches in the list", || {
        list().contains(&format!("waits in front of {inbox_place}")) && list().contains(&events_place)
    });
    system.wait_for("a board that names the partition", || {
        let sagas = setup.ok(&["sagas", "list"]);
        sagas.contains(&format!("waits at {events_place}")) && sagas.contains("--view")
    });
    let audit = setup.run(&["audit"]);
    assert_eq!(audit.status.code(), Some(1), "an audit of a part is not clean");

    let refused = setup.run(&["parked", "skip", &events_place, "--group", &topic("loyalty"), "--reason", "a test"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("restore the topic"), "{refused:?}");
    let unknown = setup.run(&["parked", "skip", &inbox_place, "--group", &topic("paymnt"), "--reason", "a test"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no consumer group"), "{unknown:?}");
    let readable =
        setup.run(&["parked", "skip", &format!("{inbox}/1/0"), "--group", &topic("payment"), "--reason", "x"]);
    assert!(String::from_utf8_lossy(&readable.stderr).contains("no unreadable batch"), "{readable:?}");

    for (place, group) in [(&inbox_place, "payment"), (&events_place, "order-processor")] {
        let skipped =
            setup.ok(&["parked", "skip", place, "--group", &topic(group), "--reason", "a test", "--by", "ada"]);
        assert!(skipped.contains("continues at offset"), "{skipped}");
    }
    let view = format!("{}.projector.sagas", setup.system());
    setup.ok(&["parked", "skip", &events_place, "--view", &view, "--reason", "a test"]);
    system.wait_for("a board without a gap", || !setup.ok(&["sagas", "list"]).contains("waits at"));
    system.wait_for("a service without issues", || http.get(&format!("{payment}?strict")).0 == 200);
    assert_eq!(list().trim(), "nothing is parked");
    let decisions = setup.ok(&["events", "tail", "--type", "BatchSkipped"]);
    assert_eq!(decisions.matches("\"by\":\"ada\"").count(), 2, "{decisions}");
    later_orders_settle(&mut system, &setup);
    let verified = setup.ok(&["replay", "projection", "sagas", "--verify"]);
    assert!(verified.contains("equal"), "{verified}");
    system.stop();
}

fn saga(setup: &Setup, id: &str) -> String {
    String::from_utf8(setup.run(&["sagas", "show", id]).stdout).unwrap()
}

fn parked_place(system: &mut RunningSystem<'_>, setup: &Setup) -> String {
    let mut listed = Vec::new();
    system.wait_for("something parked", || {
        listed = serde_json::from_str::<Vec<Value>>(&setup.ok(&["parked", "list", "--json"])).unwrap();
        listed.len() == 1
    });
    assert_eq!((&listed[0]["entity"], &listed[0]["failure"]["class"]), (&json!("lp-trout"), &json!("framing")));
    listed[0]["place"].as_str().unwrap().to_owned()
}

fn place_order(http: &Http, url: &str, key: &str, sku: &str) -> String {
    let order = json!({ "customer_id": "customer-0003", "payment_method": "card-ok",
        "ship_to": { "street": "1 Quay", "city": "Bristol", "postcode": "BS1", "country": "GB" },
        "lines": [{ "sku": sku, "quantity": 1 }] });
    let (status, answer) = http.post(url, key, order.to_string());
    assert_eq!(status, 201, "{answer}");
    answer["order_id"].as_str().unwrap().to_owned()
}

const SERVICES: [&str; 7] =
    ["customers", "catalogue", "order-processor", "warehouse", "payment", "loyalty", "notifications"];

fn bad_records(writer: &Writer) -> Vec<BadRecord> {
    let (answered, answer) =
        (writer.id_of("payment.GatewayAnswered"), encoded("payment/inbox/GatewayAnswered", |_| ()));
    let (placed, order) =
        (writer.id_of("order_processor.OrderPlaced"), encoded("order-processor/events/OrderPlaced", |_| ()));
    // Each has its own entity, so that none waits behind another.
    let keys = std::cell::Cell::new(0);
    let key = || Some(format!("order-bad-{}", keys.replace(keys.get() + 1)).into_bytes());
    let (inbox, events) = ("payment.inbox", "order-processor.events");
    let payment = |class| (&["payment"][..], class);
    vec![
        bad("wrong magic byte", inbox, key(), Some(b"\x07{}".to_vec()), payment("framing")),
        bad("shorter than a frame", inbox, key(), Some(vec![0, 0]), payment("framing")),
        bad("no value", inbox, key(), None, payment("tombstone")),
        bad("unknown schema id", inbox, key(), framed(987_654, &answer), payment("schema")),
        bad("truncated", inbox, key(), framed(answered, &answer[..answer.len() / 2]), payment("body")),
        bad("big", inbox, key(), framed(answered, &vec![0xff; BIG]), payment("body")),
        bad("no key", inbox, None, framed(answered, &answer), payment("key")),
        bad("key that is no text", inbox, Some(vec![0xff, 0xfe]), framed(answered, &answer), payment("key")),
        bad("wrong magic byte in events", events, key(), Some(b"{\"order\":1}".to_vec()), (READERS, "framing")),
        bad("no value in events", events, key(), None, (READERS, "tombstone")),
        // Loyalty does not consume OrderPlaced, so it need not read it.
        bad(
            "truncated in events",
            events,
            key(),
            framed(placed, &order[..order.len() / 2]),
            (&["warehouse", "payment"], "body"),
        ),
        bad("big in events", events, key(), Some(vec![b'x'; BIG]), (READERS, "framing")),
        BadRecord {
            headers: vec![("ce_id", "no-uuid")],
            ..bad("header that makes no sense", inbox, key(), framed(answered, &answer), payment("headers"))
        },
    ]
}

/// Records of other writers that can be read: they are not dead-lettered.
fn foreign_records(writer: &Writer) -> Vec<BadRecord> {
    let (reserved, stock) =
        (writer.id_of("warehouse.StockReserved"), encoded("warehouse/events/StockReserved", |_| ()));
    let registers = writer.id_of("customers.RegisterCustomer");
    let customer = |id: &str| encoded("customers/inbox/RegisterCustomer", |fields| fields["customer_id"] = json!(id));
    let foreign = vec![("ce_source", "urn:somebody-else"), ("content-type", "text/plain"), ("traceparent", "nonsense")];
    vec![
        // An event about an unknown order is valid: payment remembers it and waits.
        bad(
            "event of no order",
            "warehouse.events",
            Some(b"order-never".to_vec()),
            framed(reserved, &stock),
            (&[], ""),
        ),
        // A command is valid without CloudEvents headers, with another key than its entity's, or with foreign headers.
        bad(
            "no headers",
            "customers.inbox",
            Some(b"c-bare".to_vec()),
            framed(registers, &customer("c-bare")),
            (&[], ""),
        ),
        bad(
            "wrong key",
            "customers.inbox",
            Some(b"some-key".to_vec()),
            framed(registers, &customer("c-routed")),
            (&[], ""),
        ),
        BadRecord {
            headers: foreign,
            ..bad(
                "foreign",
                "customers.inbox",
                Some(b"c-foreign".to_vec()),
                framed(registers, &customer("c-foreign")),
                (&[], ""),
            )
        },
    ]
}

fn framed(id: u32, body: &[u8]) -> Option<Vec<u8>> {
    Some(records::framed(id, body))
}

fn bad(
    name: &'static str,
    topic: &'static str,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    failures: ExpectedFailures,
) -> BadRecord {
    BadRecord { name, topic, key, value, headers: Vec::new(), failures }
}

/// The valid records were handled: commands of any writer are decided.
fn foreign_records_are_handled(system: &mut RunningSystem<'_>, setup: &Setup) {
    for customer in ["c-bare", "c-routed", "c-foreign"] {
        system.wait_for(&format!("the decision of customers about {customer}"), || {
            setup.ok(&["events", "tail", "--type", "CustomerRegistered", "--key", customer]).lines().count() == 1
        });
    }
    let order =
        serde_json::from_str::<Value>(include_str!("../../schemas/warehouse/events/StockReserved/v1.example.json"))
            .unwrap();
    let order = order["order_id"].as_str().unwrap();
    system.wait_for("the event of payment about an unknown order", || {
        setup.ok(&["events", "tail", "--type", "PaymentAwaited", "--key", order]).lines().count() == 1
    });
}

/// A record is parked if its key names its entity: loyalty's customers are not the order-processor's orders.
fn is_parked(record: &BadRecord, service: &str) -> bool {
    let is_text = record.key.as_deref().is_some_and(|key| std::str::from_utf8(key).is_ok());
    is_text && !(service == "loyalty" && record.topic == "order-processor.events")
}

/// A service's parked or dead-letter topic has exactly these records, byte for byte.
fn are_parked_or_dead_lettered(
    system: &mut RunningSystem<'_>,
    setup: &Setup,
    (service, topic): (&str, String),
    expected: &[&BadRecord],
    written: &[TopicRecord],
) {
    let mut dead_letters = Vec::new();
    system.wait_for(&format!("{} records in {topic}", expected.len()), || {
        dead_letters = read_all(&kafka_of(setup), &topic);
        if topic.ends_with(".parked") {
            // A dead letter leaves only a tombstone on this topic.
            dead_letters.retain(|dead_letter| dead_letter.value.is_some());
        }
        dead_letters.len() >= expected.len()
    });
    let found: BTreeSet<&str> = dead_letters.iter().map(|dead_letter| dead_letter.header(TEST_HEADER)).collect();
    assert_eq!(found, expected.iter().map(|record| record.name).collect(), "{topic}");
    assert_eq!(dead_letters.len(), expected.len(), "{topic} has each record once");
    for dead_letter in &dead_letters {
        let record = expected.iter().find(|record| record.name == dead_letter.header(TEST_HEADER)).unwrap();
        let original = written.iter().find(|found| found.header(TEST_HEADER) == record.name).unwrap();
        is_unchanged(setup, service, record, dead_letter, original);
    }
}

fn is_unchanged(setup: &Setup, service: &str, record: &BadRecord, dead_letter: &TopicRecord, original: &TopicRecord) {
    let name = record.name;
    if is_parked(record, service) {
        let ours = |name: &str| dead_letter.header(&format!("{}.parked.{name}", setup.system()));
        assert_eq!(dead_letter.value, Some(record.value.clone().unwrap_or_default()), "{name} is not what was written");
        assert_eq!(Some(ours("key").as_bytes()), record.key.as_deref(), "{name}");
        assert_eq!(ours("entity"), ours("key"), "{name}");
    } else {
        assert!(dead_letter.key == record.key && dead_letter.value == record.value, "{name} is not what was written");
    }
    for (header, value) in &record.headers {
        assert_eq!(dead_letter.header(header), *value, "{name}");
    }
    assert_eq!(dead_letter.header("__dlq.errors.topic"), format!("{}.{}", setup.system(), record.topic), "{name}");
    assert_eq!(dead_letter.header("__dlq.errors.partition"), original.partition.to_string(), "{name}");
    assert_eq!(dead_letter.header("__dlq.errors.offset"), original.offset.to_string(), "{name}");
    assert_eq!(dead_letter.header("__dlq.errors.group"), format!("{}.{service}", setup.system()), "{name}");
    assert!(!dead_letter.header("__dlq.errors.message").is_empty(), "{name}");
    assert_eq!(
        dead_letter.header(&format!("{}.errors.class", setup.system())),
        record.failures.1,
        "{name} of {service}"
    );
}

fn every_service_is_ready(setup: &Setup) {
    let (http, endpoints) = (Http::new(), setup.endpoints());
    for service in SERVICES {
        let url = endpoints["services"][service].as_str().unwrap();
        assert_eq!(http.get(&format!("{url}/readyz")).0, 200, "{service} is ready");
    }
}

fn later_orders_settle(system: &mut RunningSystem<'_>, setup: &Setup) {
    let (http, endpoints) = (Http::new(), setup.endpoints());
    let url = format!("{}/orders", endpoints["services"]["order-processor"].as_str().unwrap());
    for number in 0..6 {
        place_order(&http, &url, &format!("later-{number}"), "lp-goldberg");
    }
    system.wait_for("the end of the later orders", || {
        let list = setup.ok(&["sagas", "list", "--outcome", "completed", "--json"]);
        serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().len() == 6
    });
}

fn audit_finds_the_dead_letters(setup: &Setup) {
    let output = setup.run(&["audit", "--findings", "200"]);
    assert_eq!(output.status.code(), Some(1));
    let output = String::from_utf8(output.stdout).unwrap();
    let dead_letters = ["loyalty", "payment"].map(|service| format!("dlq.{}.{service} partition ", setup.system()));
    let parked = ["warehouse", "payment", "notifications"]
        .map(|service| format!("{}.{service}.parked partition ", setup.system()));
    for expected in dead_letters.iter().chain(&parked) {
        assert!(output.contains(expected), "{expected:?} is missing in\n{output}");
    }
    assert!(output.contains("a dead-lettered record") && output.contains("a parked record"), "{output}");
    let events = format!("{}.order-processor.events partition ", setup.system());
    assert!(output.contains(&events), "{events:?}: the position of an unreadable event is missing in\n{output}");
}

/// An operator drops some of the parked records; the others stay.
fn an_operator_drops_parked_records(setup: &Setup) {
    let parked = || -> Vec<Value> { serde_json::from_str(&setup.ok(&["parked", "list", "--json"])).unwrap() };
    let before = parked();
    assert!(before.len() > 10, "{before:?}");
    let dropped = 3;
    for record in &before[..dropped] {
        let (service, at) = (record["service"].as_str().unwrap(), record["place"].as_str().unwrap());
        let shown = setup.ok(&["parked", "show", at, "--service", service]);
        assert!(shown.contains("tried       1 times"), "{shown}");
        let done = setup.ok(&["parked", "drop", at, "--service", service, "--reason", "a test", "--by", "ada"]);
        assert!(done.contains("is no longer parked"), "{done}");
    }
    assert_eq!(parked(), before[dropped..]);
}

fn kafka_of(setup: &Setup) -> String {
    setup.endpoints()["kafka"].as_str().unwrap().to_owned()
}

/// A plain Kafka client that enforces no rule.
struct Writer {
    system: String,
    registry: String,
    producer: ThreadedProducer<Acknowledged>,
}

impl Writer {
    fn new(setup: &Setup) -> Self {
        let endpoints = setup.endpoints();
        let text = |name: &str| endpoints[name].as_str().unwrap().to_owned();
        let producer = records::producer(&text("kafka"));
        Self { system: setup.system().to_owned(), registry: text("registry"), producer }
    }

    fn id_of(&self, name: &str) -> u32 {
        records::schema_id(&self.registry, &format!("com.{}.{name}", self.system))
    }

    fn write(&self, record: &BadRecord) {
        let topic = format!("{}.{}", self.system, record.topic);
        let own = OwnedHeaders::new().insert(Header { key: TEST_HEADER, value: Some(record.name) });
        let headers = record
            .headers
            .iter()
            .fold(own, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let mut message = BaseRecord::<[u8], [u8]>::to(&topic).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        assert!(self.producer.send(message).is_ok(), "{}", record.name);
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }
}
