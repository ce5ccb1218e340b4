//! The audit finds what is planted: a run's topics are copied record by record onto another broker, with one thing changed on the way,
//! as a lost disk, a broken fence or a mistaken hand would change it. The copy without a change is clean.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _},
};
use serde_json::json;
use support::{
    Ground, PATIENCE, Place,
    pair::Pair,
    records::{Found, encoded, framed, producer, read_all, schema_id},
    wait_until_ended,
};

const SERVICES: [&str; 7] =
    ["customers", "catalogue", "order-processor", "warehouse", "payment", "loyalty", "notifications"];

/// Everything that was said, with its topic.
type Said = Vec<(String, Found)>;

#[test]
fn the_audit_finds_every_planted_defect() {
    let original = Pair::start();
    let place = Place::new(&Ground::Embedded);
    let orders = ["--orders", "24", "--cancelled", "20", "--until-settled"];
    let on_it = ["--bootstrap", &original.bootstrap(), "--registry", &original.registry()];
    let run = place.up(&[&orders[..], &on_it].concat()).spawn().unwrap();
    assert!(wait_until_ended(run, PATIENCE), "{}", place.log());
    let said: Said = SERVICES
        .iter()
        .map(|service| format!("musiccorp.{service}.events"))
        .flat_map(|topic| read_all(&original.bootstrap(), &topic).into_iter().map(move |found| (topic.clone(), found)))
        .collect();
    let plant = Planting { place: &place, registry: original.registry() };
    assert_eq!(plant.audited(&said), (Some(0), String::new()), "the copy without a change is clean");
    plant.finds(&lost(&said, "OrderCompleted"), &["one end: order ", "is in no end"]);
    plant.finds(&lost(&said, "StockReserved"), &["sequence: musiccorp.warehouse.events", "is due"]);
    plant.finds(&lost(&said, "PaymentTaken"), &["money: order ", "without exactly one capture"]);
    plant.finds(&captured_twice(&said), &["money: order ", "was captured 2 times", "captured minus refunded is"]);
    plant.finds(&ended_twice(&said, &plant), &["one end: order ", "has more than one end"]);
    plant.finds(&numbered_wrongly(&said), &["sequence: musiccorp.payment.events"]);
    plant.finds(&shipped_from_nowhere(&said, &plant), &["stock: order nobody let go of 3 lp-trout more than it held"]);
    plant.finds(&paid_back_and_voided(&said, &plant), &["money: order ", "its payment ended more than once"]);
}

struct Planting<'a> {
    place: &'a Place,
    registry: String,
}

impl Planting<'_> {
    #[track_caller]
    fn finds(&self, said: &Said, words: &[&str]) {
        let (code, findings) = self.audited(said);
        assert_eq!(code, Some(1), "nothing was found where {words:?} should be");
        for word in words {
            assert!(findings.contains(word), "no finding says {word:?}:\n{findings}");
        }
    }

    /// Writes everything onto a broker of its own. Answers the exit code of the audit there, and what it found.
    fn audited(&self, said: &Said) -> (Option<i32>, String) {
        let mut copy = Pair::absent();
        copy.start_broker();
        let (bootstrap, registry) = (copy.bootstrap(), self.registry.as_str());
        let create = ["topics", "create", "--apply", "--partitions", "4", "--bootstrap", &bootstrap];
        self.place.ok(&create);
        let writer = producer(&bootstrap);
        for (topic, found) in said {
            let headers = found
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers).partition(found.partition);
            (record.key, record.payload) = (found.key.as_deref(), found.value.as_deref());
            assert!(writer.send(record).is_ok(), "{topic}");
        }
        writer.flush(Duration::from_secs(30)).unwrap();
        let output = self.place.run(&["audit", "--bootstrap", &bootstrap, "--registry", registry, "--findings", "50"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let findings = text.lines().filter(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect();
        (output.status.code(), findings)
    }

    fn body(&self, name: &str, path: &str, change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        framed(schema_id(&self.registry, &format!("com.musiccorp.{name}")), &encoded(path, change))
    }
}

fn is(found: &Found, name: &str) -> bool {
    found.header("ce_type").ends_with(&format!(".{name}"))
}

fn first(said: &Said, name: &str) -> usize {
    said.iter().position(|(_, found)| is(found, name)).unwrap_or_else(|| panic!("nobody said {name}"))
}

fn lost(said: &Said, name: &str) -> Said {
    let mut said = said.clone();
    said.remove(first(&said, name));
    said
}

/// The same again as the entity's next event, with an id of its own.
fn next_of(said: &Said, at: usize) -> (String, Found) {
    let (topic, mut next) = said[at].clone();
    let last = said.iter().filter(|(of, found)| *of == topic && found.key == next.key).count();
    next.headers.insert("ce_sequence".to_owned(), (last + 1).to_string());
    next.headers.insert("ce_id".to_owned(), uuid::Uuid::now_v7().to_string());
    (topic, next)
}

fn captured_twice(said: &Said) -> Said {
    let mut twice = said.clone();
    twice.push(next_of(said, first(said, "PaymentTaken")));
    twice
}

fn ended_twice(said: &Said, plant: &Planting<'_>) -> Said {
    let (topic, mut cancelled) = next_of(said, first(said, "OrderCompleted"));
    let order = String::from_utf8(cancelled.key.clone().unwrap()).unwrap();
    let name = "order_processor.OrderCancelled";
    cancelled.headers.insert("ce_type".to_owned(), format!("com.musiccorp.{name}"));
    let path = "order-processor/events/OrderCancelled";
    cancelled.value = Some(plant.body(name, path, |fields| fields["order_id"] = json!(order)));
    let mut twice = said.clone();
    twice.push((topic, cancelled));
    twice
}

fn numbered_wrongly(said: &Said) -> Said {
    let mut wrong = said.clone();
    let at = first(said, "PaymentRequested");
    wrong[at].1.headers.insert("ce_sequence".to_owned(), "9".to_owned());
    wrong
}

fn shipped_from_nowhere(said: &Said, plant: &Planting<'_>) -> Said {
    let received = said
        .iter()
        .position(|(_, found)| is(found, "GoodsReceived") && found.key.as_deref() == Some(b"lp-trout"))
        .unwrap();
    let (topic, mut shipped) = next_of(said, received);
    let name = "warehouse.ItemShipped";
    shipped.headers.insert("ce_type".to_owned(), format!("com.musiccorp.{name}"));
    shipped.value = Some(plant.body(name, "warehouse/events/ItemShipped", |fields| {
        *fields =
            json!({ "sku": "lp-trout", "order_id": "nobody", "quantity": 3, "occurred_at": 1_795_248_001_200_i64 });
    }));
    let mut more = said.clone();
    more.push((topic, shipped));
    more
}

/// A cancelled order's payment that ended, ended once more in another way.
fn paid_back_and_voided(said: &Said, plant: &Planting<'_>) -> Said {
    let end =
        ["PaymentDeclined", "PaymentRefunded"].iter().find_map(|name| said.iter().position(|(_, of)| is(of, name)));
    let (topic, mut voided) = next_of(said, end.expect("some payment was declined or refunded"));
    let order = String::from_utf8(voided.key.clone().unwrap()).unwrap();
    voided.headers.insert("ce_type".to_owned(), "com.musiccorp.payment.PaymentVoided".to_owned());
    let path = "payment/events/PaymentVoided";
    voided.value = Some(plant.body("payment.PaymentVoided", path, |fields| fields["order_id"] = json!(order)));
    let mut more = said.clone();
    more.push((topic, voided));
    more
}
