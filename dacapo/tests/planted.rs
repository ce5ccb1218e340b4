//! The audit finds planted defects: the topics of a run are copied record by record to another broker with one change, such as a lost
//! disk, a broken fence or a human error would cause. The audit of an unchanged copy is clean.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _},
};
use serde_json::json;
use support::{
    Infrastructure, PATIENCE, Setup, exits_with_success,
    pair::Pair,
    records::{TopicRecord, encoded, framed, producer, read_all, schema_id},
};

const SERVICES: [&str; 7] =
    ["customers", "catalogue", "order-processor", "warehouse", "payment", "loyalty", "notifications"];

/// All events of a run, with their topics.
type TopicRecords = Vec<(String, TopicRecord)>;

#[test]
fn the_audit_finds_every_planted_defect() {
    let original = Pair::start();
    let setup = Setup::new(&Infrastructure::Embedded);
    let orders = ["--orders", "24", "--cancelled", "20", "--until-settled"];
    let on_it = ["--bootstrap", &original.bootstrap(), "--registry", &original.registry()];
    let run = setup.up(&[&orders[..], &on_it].concat()).spawn().unwrap();
    assert!(exits_with_success(run, PATIENCE), "{}", setup.log());
    let records: TopicRecords = SERVICES
        .iter()
        .map(|service| format!("musiccorp.{service}.events"))
        .flat_map(|topic| read_all(&original.bootstrap(), &topic).into_iter().map(move |found| (topic.clone(), found)))
        .collect();
    let plant = Planting { setup: &setup, registry: original.registry() };
    assert_eq!(plant.audited(&records), (Some(0), String::new()), "an unchanged copy is clean");
    plant.finds(&lost(&records, "OrderCompleted"), &["one outcome: order ", "has no outcome"]);
    plant.finds(&lost(&records, "StockReserved"), &["sequence: musiccorp.warehouse.events", "is due"]);
    plant.finds(&lost(&records, "PaymentTaken"), &["money: order ", "without exactly one capture"]);
    plant.finds(&captured_twice(&records), &["money: order ", "was captured 2 times", "captured minus refunded is"]);
    plant.finds(&second_outcome(&records, &plant), &["one outcome: order ", "has more than one outcome"]);
    plant.finds(&wrong_sequence(&records), &["sequence: musiccorp.payment.events"]);
    plant
        .finds(&shipped_from_nowhere(&records, &plant), &["stock: order nobody released 3 lp-trout more than it held"]);
    plant.finds(&refunded_and_voided(&records, &plant), &["money: order ", "its payment has more than one outcome"]);
}

struct Planting<'a> {
    setup: &'a Setup,
    registry: String,
}

impl Planting<'_> {
    #[track_caller]
    fn finds(&self, records: &TopicRecords, words: &[&str]) {
        let (code, findings) = self.audited(records);
        assert_eq!(code, Some(1), "the audit did not find {words:?}");
        for word in words {
            assert!(findings.contains(word), "no finding contains {word:?}:\n{findings}");
        }
    }

    /// Writes the records to a new broker. Returns the exit code of the audit there, and its findings.
    fn audited(&self, records: &TopicRecords) -> (Option<i32>, String) {
        let mut copy = Pair::absent();
        copy.start_broker();
        let (bootstrap, registry) = (copy.bootstrap(), self.registry.as_str());
        let create = ["topics", "create", "--apply", "--partitions", "4", "--bootstrap", &bootstrap];
        self.setup.ok(&create);
        let writer = producer(&bootstrap);
        for (topic, found) in records {
            let headers = found
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers).partition(found.partition);
            (record.key, record.payload) = (found.key.as_deref(), found.value.as_deref());
            assert!(writer.send(record).is_ok(), "{topic}");
        }
        writer.flush(Duration::from_secs(30)).unwrap();
        let output = self.setup.run(&["audit", "--bootstrap", &bootstrap, "--registry", registry, "--findings", "50"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let findings = text.lines().filter(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect();
        (output.status.code(), findings)
    }

    fn body(&self, name: &str, path: &str, change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        framed(schema_id(&self.registry, &format!("com.musiccorp.{name}")), &encoded(path, change))
    }
}

fn is(found: &TopicRecord, name: &str) -> bool {
    found.header("ce_type").ends_with(&format!(".{name}"))
}

fn first(records: &TopicRecords, name: &str) -> usize {
    records.iter().position(|(_, found)| is(found, name)).unwrap_or_else(|| panic!("there is no {name}"))
}

fn lost(records: &TopicRecords, name: &str) -> TopicRecords {
    let mut records = records.clone();
    records.remove(first(&records, name));
    records
}

/// A copy of a record as the entity's next event, with a new id.
fn next_of(records: &TopicRecords, at: usize) -> (String, TopicRecord) {
    let (topic, mut next) = records[at].clone();
    let last = records.iter().filter(|(of, found)| *of == topic && found.key == next.key).count();
    next.headers.insert("ce_sequence".to_owned(), (last + 1).to_string());
    next.headers.insert("ce_id".to_owned(), uuid::Uuid::now_v7().to_string());
    (topic, next)
}

fn captured_twice(records: &TopicRecords) -> TopicRecords {
    let mut twice = records.clone();
    twice.push(next_of(records, first(records, "PaymentTaken")));
    twice
}

fn second_outcome(records: &TopicRecords, plant: &Planting<'_>) -> TopicRecords {
    let (topic, mut cancelled) = next_of(records, first(records, "OrderCompleted"));
    let order = String::from_utf8(cancelled.key.clone().unwrap()).unwrap();
    let name = "order_processor.OrderCancelled";
    cancelled.headers.insert("ce_type".to_owned(), format!("com.musiccorp.{name}"));
    let path = "order-processor/events/OrderCancelled";
    cancelled.value = Some(plant.body(name, path, |fields| fields["order_id"] = json!(order)));
    let mut twice = records.clone();
    twice.push((topic, cancelled));
    twice
}

fn wrong_sequence(records: &TopicRecords) -> TopicRecords {
    let mut wrong = records.clone();
    let at = first(records, "PaymentRequested");
    wrong[at].1.headers.insert("ce_sequence".to_owned(), "9".to_owned());
    wrong
}

fn shipped_from_nowhere(records: &TopicRecords, plant: &Planting<'_>) -> TopicRecords {
    let received = records
        .iter()
        .position(|(_, found)| is(found, "GoodsReceived") && found.key.as_deref() == Some(b"lp-trout"))
        .unwrap();
    let (topic, mut shipped) = next_of(records, received);
    let name = "warehouse.ItemShipped";
    shipped.headers.insert("ce_type".to_owned(), format!("com.musiccorp.{name}"));
    shipped.value = Some(plant.body(name, "warehouse/events/ItemShipped", |fields| {
        *fields =
            json!({ "sku": "lp-trout", "order_id": "nobody", "quantity": 3, "occurred_at": 1_795_248_001_200_i64 });
    }));
    let mut more = records.clone();
    more.push((topic, shipped));
    more
}

/// The payment of a cancelled order, with a second, different outcome.
fn refunded_and_voided(records: &TopicRecords, plant: &Planting<'_>) -> TopicRecords {
    let end =
        ["PaymentDeclined", "PaymentRefunded"].iter().find_map(|name| records.iter().position(|(_, of)| is(of, name)));
    let (topic, mut voided) = next_of(records, end.expect("a payment was declined or refunded"));
    let order = String::from_utf8(voided.key.clone().unwrap()).unwrap();
    voided.headers.insert("ce_type".to_owned(), "com.musiccorp.payment.PaymentVoided".to_owned());
    let path = "payment/events/PaymentVoided";
    voided.value = Some(plant.body("payment.PaymentVoided", path, |fields| fields["order_id"] = json!(order)));
    let mut more = records.clone();
    more.push((topic, voided));
    more
}
