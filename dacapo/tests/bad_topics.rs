//! Records that nobody should ever have written, put by a plain Kafka client onto the topics that running services read: they are
//! parked or laid aside whole, with the place and the reason, and everything else goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};
use serde_json::{Value, json};
use support::{
    Http, Place, System, ground,
    records::{self, Acknowledged, Found, encoded, read_all},
};

/// How a record is to be told from every other.
const MARK: &str = "x-test";
/// As large as a topic takes, nearly: its letter is larger than that.
const BIG: usize = 1_048_000;

/// A record that somebody wrote by mistake or by malice.
struct Bad {
    name: &'static str,
    /// The topic, without the system's name.
    topic: &'static str,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(&'static str, &'static str)>,
    /// The services that cannot read it, and the kind of reason that they must give. Empty: everybody reads it.
    letters: Letters,
}

type Letters = (&'static [&'static str], &'static str);

/// Who reads the order-processor's events.
const READERS: &[&str] = &["warehouse", "payment", "loyalty", "notifications"];

#[test]
fn what_cannot_be_read_is_put_aside_whole_and_the_rest_goes_on() {
    let place = Place::new(&ground());
    // A schema that never comes would hold its partition for half a minute.
    let settings = place.data().join("settings.toml");
    std::fs::write(&settings, "partitions = 4\n[timeouts]\nschema = 1000\n").unwrap();
    let mut system = place.start(&["--config", settings.to_str().unwrap()]);
    let writer = Writer::new(&place);
    let bad = bad_records(&writer);
    for record in bad.iter().chain(&foreign_records(&writer)) {
        writer.write(record);
    }
    writer.flush();
    let written = ["payment.inbox", "order-processor.events"].map(|topic| format!("{}.{topic}", place.system()));
    let written: Vec<Found> = written.iter().flat_map(|topic| read_all(&kafka_of(&place), topic)).collect();
    for service in READERS {
        let unread = bad.iter().filter(|record| record.letters.0.contains(service));
        let (parked, letters): (Vec<&Bad>, Vec<&Bad>) = unread.partition(|record| is_parked(record, service));
        are_put_aside(&mut system, &place, (service, format!("dlq.{}.{service}", place.system())), &letters, &written);
        let topic = format!("{}.{service}.parked", place.system());
        are_put_aside(&mut system, &place, (service, topic), &parked, &written);
    }
    foreign_records_are_heard(&mut system, &place);
    every_service_is_ready(&place);
    later_orders_settle(&mut system, &place);
    audit_tells_the_letters(&place);
    what_is_parked_is_given_up(&place);
    system.stop();
}

/// A record that nobody can read, about an item: orders for it wait, all others are delivered; `up` starts again meanwhile.
#[test]
fn a_parked_item_holds_up_its_own_orders_only_and_is_put_right() {
    let place = Place::new(&ground());
    let mut system = place.start(&[]);
    let poison = Bad {
        headers: vec![("ce_correlationid", "a person's mistake")],
        ..bad(
            "poison",
            "warehouse.inbox",
            Some(b"lp-trout".to_vec()),
            Some(b"{}".to_vec()),
            (&["warehouse"], "framing"),
        )
    };
    let writer = Writer::new(&place);
    writer.write(&poison);
    writer.flush();
    let at = parked_place(&mut system, &place);
    let (http, endpoints) = (Http::new(), place.endpoints());
    let url = format!("{}/orders", endpoints["services"]["order-processor"].as_str().unwrap());
    let waits = place_order(&http, &url, "waits", "lp-trout");
    let goes_on = place_order(&http, &url, "goes-on", "lp-goldberg");
    let mut shown = String::new();
    system
        .wait_for("the end of the order for another item", || saga(&place, &goes_on).contains("completed (completed)"));
    system.wait_for("the order that waits", || {
        shown = saga(&place, &waits);
        shown.contains("[parked]")
    });
    assert!(shown.contains(&format!("waits in warehouse behind {at}: HoldItem at")), "{shown}");
    assert!(shown.contains("An operator must act: HoldItem waits in warehouse behind"), "{shown}");
    assert!(place.ok(&["sagas", "list", "--flag", "parked"]).contains(&waits));
    system.stop();
    let mut system = place.start(&[]);
    assert_eq!(parked_place(&mut system, &place), at, "it outlives its owner");
    let refused = place.run(&["parked", "retry", &at]);
    let said = String::from_utf8(refused.stdout).unwrap();
    assert!(!refused.status.success() && said.contains("still cannot work, tried 2 times"), "{said}");
    let behind = place.ok(&["parked", "list", "--all", "--json"]);
    let behind: Vec<Value> = serde_json::from_str(&behind).unwrap();
    let behind =
        behind.iter().find(|record| record["behind"] == json!(0)).unwrap()["place"].as_str().unwrap().to_owned();
    let said = place.fails(&["parked", "retry", &behind]);
    assert!(said.contains(&format!("waits behind {at}")) && said.contains("keeps its order"), "{said}");
    assert!(
        place
            .fails(&["parked", "drop", "nowhere/0/0", "--reason", "none"])
            .contains("nothing is parked at nowhere/0/0")
    );
    let done = place.ok(&["parked", "drop", &at, "--reason", "not a command"]);
    assert!(done.contains("is out of the way; nothing of its entity waits any more"), "{done}");
    system.wait_for("the end of the order that waited", || saga(&place, &waits).contains("completed (completed)"));
    assert_eq!(place.ok(&["parked", "list"]).trim(), "nothing is parked");
    place.ok(&["audit"]);
    system.stop();
}

/// What the board shows of a saga; it may not have heard of it yet.
fn saga(place: &Place, id: &str) -> String {
    String::from_utf8(place.run(&["sagas", "show", id]).stdout).unwrap()
}

fn parked_place(system: &mut System<'_>, place: &Place) -> String {
    let mut listed = Vec::new();
    system.wait_for("something parked", || {
        listed = serde_json::from_str::<Vec<Value>>(&place.ok(&["parked", "list", "--json"])).unwrap();
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

fn bad_records(writer: &Writer) -> Vec<Bad> {
    let (answered, answer) =
        (writer.id_of("payment.GatewayAnswered"), encoded("payment/inbox/GatewayAnswered", |_| ()));
    let (placed, order) =
        (writer.id_of("order_processor.OrderPlaced"), encoded("order-processor/events/OrderPlaced", |_| ()));
    // Of an entity each, so that none waits behind another.
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
        // Loyalty does not list OrderPlaced, so it need not be able to read it.
        bad(
            "truncated in events",
            events,
            key(),
            framed(placed, &order[..order.len() / 2]),
            (&["warehouse", "payment"], "body"),
        ),
        bad("big in events", events, key(), Some(vec![b'x'; BIG]), (READERS, "framing")),
        Bad {
            headers: vec![("ce_id", "no-uuid")],
            ..bad("header that makes no sense", inbox, key(), framed(answered, &answer), payment("headers"))
        },
    ]
}

/// Records that nobody here wrote and that can be read all the same: they are no letters.
fn foreign_records(writer: &Writer) -> Vec<Bad> {
    let (reserved, stock) =
        (writer.id_of("warehouse.StockReserved"), encoded("warehouse/events/StockReserved", |_| ()));
    let registers = writer.id_of("customers.RegisterCustomer");
    let customer = |id: &str| encoded("customers/inbox/RegisterCustomer", |fields| fields["customer_id"] = json!(id));
    let foreign = vec![("ce_source", "urn:somebody-else"), ("content-type", "text/plain"), ("traceparent", "nonsense")];
    vec![
        // A fact about an order that never was is a fact: payment remembers it and waits. It is no letter.
        bad(
            "event of no order",
            "warehouse.events",
            Some(b"order-never".to_vec()),
            framed(reserved, &stock),
            (&[], ""),
        ),
        // Nor is a command without any of our headers, under a key that is not its entity's, or with somebody else's headers.
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
        Bad {
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

fn bad(name: &'static str, topic: &'static str, key: Option<Vec<u8>>, value: Option<Vec<u8>>, letters: Letters) -> Bad {
    Bad { name, topic, key, value, headers: Vec::new(), letters }
}

/// The records that are no letters were heard: commands from anybody are decided.
fn foreign_records_are_heard(system: &mut System<'_>, place: &Place) {
    for customer in ["c-bare", "c-routed", "c-foreign"] {
        system.wait_for(&format!("what customers says about {customer}"), || {
            place.ok(&["events", "tail", "--type", "CustomerRegistered", "--key", customer]).lines().count() == 1
        });
    }
    let order =
        serde_json::from_str::<Value>(include_str!("../../schemas/warehouse/events/StockReserved/v1.example.json"))
            .unwrap();
    let order = order["order_id"].as_str().unwrap();
    system.wait_for("what payment remembers of an order that never was", || {
        place.ok(&["events", "tail", "--type", "PaymentAwaited", "--key", order]).lines().count() == 1
    });
}

/// Whose it is must be known by the key alone: loyalty's customers are not the order-processor's orders.
fn is_parked(record: &Bad, service: &str) -> bool {
    let is_text = record.key.as_deref().is_some_and(|key| std::str::from_utf8(key).is_ok());
    is_text && !(service == "loyalty" && record.topic == "order-processor.events")
}

/// What a service has put aside on a topic are these records, byte for byte, and nothing else.
fn are_put_aside(
    system: &mut System<'_>,
    place: &Place,
    (service, topic): (&str, String),
    expected: &[&Bad],
    written: &[Found],
) {
    let mut letters = Vec::new();
    system.wait_for(&format!("{} records in {topic}", expected.len()), || {
        letters = read_all(&kafka_of(place), &topic);
        if topic.ends_with(".parked") {
            // Of a dead letter there is a tombstone alone.
            letters.retain(|letter| letter.value.is_some());
        }
        letters.len() >= expected.len()
    });
    let found: BTreeSet<&str> = letters.iter().map(|letter| letter.header(MARK)).collect();
    assert_eq!(found, expected.iter().map(|record| record.name).collect(), "{topic}");
    assert_eq!(letters.len(), expected.len(), "{topic} has each once");
    for letter in &letters {
        let record = expected.iter().find(|record| record.name == letter.header(MARK)).unwrap();
        let original = written.iter().find(|found| found.header(MARK) == record.name).unwrap();
        is_whole(place, service, record, letter, original);
    }
}

fn is_whole(place: &Place, service: &str, record: &Bad, letter: &Found, original: &Found) {
    let name = record.name;
    if is_parked(record, service) {
        let ours = |name: &str| letter.header(&format!("{}.parked.{name}", place.system()));
        assert_eq!(letter.value, Some(record.value.clone().unwrap_or_default()), "{name} is not what was written");
        assert_eq!(Some(ours("key").as_bytes()), record.key.as_deref(), "{name}");
        assert_eq!(ours("entity"), ours("key"), "{name}");
    } else {
        assert!(letter.key == record.key && letter.value == record.value, "{name} is not what was written");
    }
    for (header, value) in &record.headers {
        assert_eq!(letter.header(header), *value, "{name}");
    }
    assert_eq!(letter.header("__dlq.errors.topic"), format!("{}.{}", place.system(), record.topic), "{name}");
    assert_eq!(letter.header("__dlq.errors.partition"), original.partition.to_string(), "{name}");
    assert_eq!(letter.header("__dlq.errors.offset"), original.offset.to_string(), "{name}");
    assert_eq!(letter.header("__dlq.errors.group"), format!("{}.{service}", place.system()), "{name}");
    assert!(!letter.header("__dlq.errors.message").is_empty(), "{name}");
    assert_eq!(letter.header(&format!("{}.errors.class", place.system())), record.letters.1, "{name} of {service}");
}

fn every_service_is_ready(place: &Place) {
    let (http, endpoints) = (Http::new(), place.endpoints());
    for service in SERVICES {
        let url = endpoints["services"][service].as_str().unwrap();
        assert_eq!(http.get(&format!("{url}/readyz")).0, 200, "{service} is ready");
    }
}

fn later_orders_settle(system: &mut System<'_>, place: &Place) {
    let (http, endpoints) = (Http::new(), place.endpoints());
    let url = format!("{}/orders", endpoints["services"]["order-processor"].as_str().unwrap());
    for number in 0..6 {
        place_order(&http, &url, &format!("later-{number}"), "lp-goldberg");
    }
    system.wait_for("the end of the later orders", || {
        let list = place.ok(&["sagas", "list", "--outcome", "completed", "--json"]);
        serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().len() == 6
    });
}

fn audit_tells_the_letters(place: &Place) {
    let output = place.run(&["audit", "--findings", "200"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let letters = ["loyalty", "payment"].map(|service| format!("dlq.{}.{service} partition ", place.system()));
    let parked = ["warehouse", "payment", "notifications"]
        .map(|service| format!("{}.{service}.parked partition ", place.system()));
    for told in letters.iter().chain(&parked) {
        assert!(said.contains(told), "{told:?} is missing in\n{said}");
    }
    assert!(said.contains("a dead letter lies here") && said.contains("a record waits"), "{said}");
    let events = format!("{}.order-processor.events partition ", place.system());
    assert!(said.contains(&events), "{events:?}: what cannot be read is told where it lies\n{said}");
}

/// An operator gives some of it up, and the rest is left as it is.
fn what_is_parked_is_given_up(place: &Place) {
    let parked = || -> Vec<Value> { serde_json::from_str(&place.ok(&["parked", "list", "--json"])).unwrap() };
    let before = parked();
    assert!(before.len() > 10, "{before:?}");
    let given_up = 3;
    for record in &before[..given_up] {
        let (service, at) = (record["service"].as_str().unwrap(), record["place"].as_str().unwrap());
        let shown = place.ok(&["parked", "show", at, "--service", service]);
        assert!(shown.contains("tried       1 times"), "{shown}");
        let done = place.ok(&["parked", "drop", at, "--service", service, "--reason", "a test", "--by", "ada"]);
        assert!(done.contains("is out of the way"), "{done}");
    }
    assert_eq!(parked(), before[given_up..]);
}

fn kafka_of(place: &Place) -> String {
    place.endpoints()["kafka"].as_str().unwrap().to_owned()
}

/// A plain client that knows no rule.
struct Writer {
    system: String,
    registry: String,
    producer: ThreadedProducer<Acknowledged>,
}

impl Writer {
    fn new(place: &Place) -> Self {
        let endpoints = place.endpoints();
        let text = |name: &str| endpoints[name].as_str().unwrap().to_owned();
        let producer = records::producer(&text("kafka"));
        Self { system: place.system().to_owned(), registry: text("registry"), producer }
    }

    fn id_of(&self, name: &str) -> u32 {
        records::schema_id(&self.registry, &format!("com.{}.{name}", self.system))
    }

    fn write(&self, record: &Bad) {
        let topic = format!("{}.{}", self.system, record.topic);
        let mark = OwnedHeaders::new().insert(Header { key: MARK, value: Some(record.name) });
        let headers = record
            .headers
            .iter()
            .fold(mark, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let mut message = BaseRecord::<[u8], [u8]>::to(&topic).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        assert!(self.producer.send(message).is_ok(), "{}", record.name);
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }
}
