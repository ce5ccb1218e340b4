//! The state of an audit: what the events add up to, and which rules they break. Pure; it knows no Kafka.
//!
//! The rules hold in whatever order the topics are read. Only the events of one sku must arrive in their own order, which one
//! partition guarantees.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use uuid::Uuid;

use super::{
    order::{AuditedOrder, OrderFault, OrderOutcome},
    reads::{AuditedEvent, Money},
    report::{AuditFinding, AuditReport, AuditRule, OrderOutcomes, StockTotals},
};

/// What identifies an event, for the rules that hold for every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventStamp<'a> {
    pub(crate) topic: &'a str,
    pub(crate) position: PartitionOffset,
    pub(crate) key: &'a str,
    pub(crate) id: Uuid,
    pub(crate) sequence: Option<u64>,
    /// A digest of key, type and body.
    pub(crate) content: u64,
}

/// Partition and offset of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionOffset {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl fmt::Display for PartitionOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} offset {}", self.partition, self.offset)
    }
}

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct AuditState {
    orders: HashMap<String, AuditedOrder>,
    stock: BTreeMap<String, StockTotals>,
    /// Pieces held, by order and sku.
    held_by: HashMap<(String, String), i64>,
    content_by_id: HashMap<Uuid, u64>,
    /// By topic and key.
    last_sequence: HashMap<String, HashMap<String, u64>>,
    findings: FindingList,
    events: u64,
}

/// The findings, bounded: beyond the limit they are only counted.
#[derive(Debug, Clone, Default)]
struct FindingList {
    listed: Vec<AuditFinding>,
    unlisted: u64,
}

impl FindingList {
    fn add(&mut self, rule: AuditRule, what: String) {
        if self.listed.len() < AuditReport::MAX_FINDINGS {
            self.listed.push(AuditFinding { rule, what });
        } else {
            self.unlisted += 1;
        }
    }
}

/// Sums of minor units by currency.
#[derive(Debug, Default)]
struct MoneyTotals {
    captured: BTreeMap<String, i64>,
    refunded: BTreeMap<String, i64>,
    completed: BTreeMap<String, i64>,
}

impl MoneyTotals {
    fn add(&mut self, order: &AuditedOrder) {
        let add = |sums: &mut BTreeMap<String, i64>, money: &Money| {
            *sums.entry(money.currency.clone()).or_default() += money.amount_minor;
        };
        order.taken.iter().for_each(|money| add(&mut self.captured, money));
        order.refunded.iter().for_each(|money| add(&mut self.refunded, money));
        order.completed.iter().for_each(|money| add(&mut self.completed, money));
    }

    fn check(&self, findings: &mut FindingList) {
        let currencies: BTreeSet<&String> = self.captured.keys().chain(self.completed.keys()).collect();
        for currency in currencies {
            let of = |sums: &BTreeMap<String, i64>| sums.get(currency).copied().unwrap_or_default();
            let (kept, due) = (of(&self.captured) - of(&self.refunded), of(&self.completed));
            if kept != due {
                let what = format!(
                    "captured minus refunded is {kept} {currency} (minor units), completed orders are worth {due}"
                );
                findings.add(AuditRule::Money, what);
            }
        }
    }
}

impl AuditState {
    /// Checks the rules that hold for an event of any type.
    pub(crate) fn check_stamp(&mut self, stamp: &EventStamp<'_>) {
        self.events += 1;
        let before = *self.content_by_id.entry(stamp.id).or_insert(stamp.content);
        if before != stamp.content {
            self.find(
                AuditRule::UniqueContent,
                format!("id {} has two contents, the second in {} {}", stamp.id, stamp.topic, stamp.position),
            );
        }
        let expected = self.last_of(stamp).map_or(0, |last| *last) + 1;
        match stamp.sequence {
            Some(sequence) if sequence == expected => self.note_sequence(stamp, sequence),
            Some(sequence) => {
                self.note_sequence(stamp, sequence.max(expected - 1));
                let what = format!(
                    "{} {}: {} has sequence {sequence} where {expected} is due",
                    stamp.topic, stamp.position, stamp.key
                );
                self.find(AuditRule::Sequence, what);
            }
            None => {
                let what = format!("{} {}: {} has no sequence", stamp.topic, stamp.position, stamp.key);
                self.find(AuditRule::Sequence, what);
            }
        }
    }

    fn last_of(&mut self, stamp: &EventStamp<'_>) -> Option<&mut u64> {
        self.last_sequence.get_mut(stamp.topic)?.get_mut(stamp.key)
    }

    fn note_sequence(&mut self, stamp: &EventStamp<'_>, sequence: u64) {
        // Names are copied once per entity, not once per event.
        match self.last_of(stamp) {
            Some(last) => *last = sequence,
            None => {
                let of_topic = self.last_sequence.entry(stamp.topic.to_owned()).or_default();
                of_topic.insert(stamp.key.to_owned(), sequence);
            }
        }
    }

    /// Notes a record that cannot be read, or a dead letter.
    pub(crate) fn note_unreadable(&mut self, topic: &str, position: PartitionOffset, why: &str) {
        self.find(AuditRule::Readable, unreadable(topic, position, why));
    }

    /// Applies one event.
    pub(crate) fn apply(&mut self, event: AuditedEvent) {
        use AuditedEvent as E;
        match event {
            E::OrderPlaced(of) => self.order(of.order_id).placed = Some(of.total),
            E::OrderRejected(of) => self.order(of.order_id).rejected += 1,
            E::OrderCompleted(of) => {
                let order = self.order(of.order_id);
                order.completed = Some(of.total);
                order.completions += 1;
            }
            E::OrderCancelled(of) => self.order(of.order_id).cancelled += 1,
            E::OrderCancellationRequested(of) => drop(self.order(of.order_id).requests.insert(of.request)),
            E::OrderCancellationRefused(of) => drop(self.order(of.order_id).refusals_published.insert(of.request)),
            E::CancellationAccepted(of) => drop(self.order(of.order_id).accepted.insert(of.request)),
            E::CancellationRefused(of) => drop(self.order(of.order_id).refused.insert(of.request)),
            E::PaymentRequested(of) => self.order(of.order_id).charges.push(of.amount),
            E::PaymentAbandoned(of) => self.order(of.order_id).abandoned += 1,
            E::DispatchAbandoned(of) => self.order(of.order_id).dispatches_abandoned += 1,
            E::PaymentTaken(of) => self.order(of.order_id).taken.push(of.amount),
            E::PaymentDeclined(of) => self.order(of.order_id).declined += 1,
            E::PaymentVoided(of) => self.order(of.order_id).voided += 1,
            E::PaymentRefunded(of) => self.order(of.order_id).refunded.push(of.amount),
            E::OrderDispatched(of) => self.order(of.order_id).dispatched += 1,
            E::StockReleased(of) => self.order(of.order_id).released += 1,
            E::PointsAwarded(of) => self.order(of.order_id).rewarded += 1,
            E::GoodsReceived(of) => self.receive(&of.sku, of.quantity),
            E::ItemHeld(of) => self.hold(&of.sku, &of.order_id, of.quantity),
            E::ItemShort(of) => self.check_free(&of.sku, of.free),
            E::ItemFreed(of) => self.release(&of.sku, &of.order_id, of.quantity, |stock, pieces| stock.free += pieces),
            E::ItemShipped(of) => {
                self.release(&of.sku, &of.order_id, of.quantity, |stock, pieces| stock.shipped += pieces);
            }
            E::StockWrittenOff(of) => {
                self.release(&of.sku, &of.order_id, of.quantity, |stock, pieces| stock.written_off += pieces);
            }
        }
    }

    fn order(&mut self, id: String) -> &mut AuditedOrder {
        self.orders.entry(id).or_default()
    }

    fn receive(&mut self, sku: &str, quantity: i32) {
        let stock = self.stock.entry(sku.to_owned()).or_default();
        stock.received += i64::from(quantity);
        stock.free += i64::from(quantity);
        self.check_not_negative(sku);
    }

    fn hold(&mut self, sku: &str, order_id: &str, quantity: i32) {
        let quantity = i64::from(quantity);
        let stock = self.stock.entry(sku.to_owned()).or_default();
        stock.free -= quantity;
        stock.held += quantity;
        *self.held_by.entry((order_id.to_owned(), sku.to_owned())).or_default() += quantity;
        self.order(order_id.to_owned()).held += quantity;
        self.check_not_negative(sku);
    }

    /// Takes pieces from what an order holds; `to` says where they went.
    fn release(&mut self, sku: &str, order_id: &str, quantity: i32, to: impl FnOnce(&mut StockTotals, i64)) {
        let quantity = i64::from(quantity);
        let stock = self.stock.entry(sku.to_owned()).or_default();
        stock.held -= quantity;
        to(stock, quantity);
        self.order(order_id.to_owned()).held -= quantity;
        let held_by = (order_id.to_owned(), sku.to_owned());
        let held = self.held_by.entry(held_by.clone()).or_default();
        *held -= quantity;
        match *held {
            0 => drop(self.held_by.remove(&held_by)),
            left if left < 0 => {
                let what = format!("order {order_id} released {} {sku} more than it held", -left);
                self.find(AuditRule::Stock, what);
            }
            _ => {}
        }
        self.check_not_negative(sku);
    }

    /// Compares the sum with what the warehouse published as free when an order came short: an independent statement.
    fn check_free(&mut self, sku: &str, published: i32) {
        let free = self.stock.get(sku).map_or(0, |stock| stock.free);
        if free != i64::from(published) {
            let what = format!("{sku}: the warehouse reported {published} free when {free} were");
            self.find(AuditRule::Stock, what);
        }
    }

    fn check_not_negative(&mut self, sku: &str) {
        let stock = self.stock.get(sku).copied().unwrap_or_default();
        if stock.free < 0 || stock.held < 0 {
            self.find(
                AuditRule::Stock,
                format!("{sku}: {} free and {} held; more left than was received", stock.free, stock.held),
            );
        }
    }

    fn find(&mut self, rule: AuditRule, what: String) {
        self.findings.add(rule, what);
    }

    /// The report on everything read so far; `parked` has the topic and position of every parked record.
    pub(crate) fn report<'a>(&self, parked: impl IntoIterator<Item = (&'a str, PartitionOffset)>) -> AuditReport {
        let (mut outcomes, mut findings) = (OrderOutcomes::default(), self.findings.clone());
        for (topic, position) in parked {
            let why = "a parked record: it, or a record before it, has failed (`dacapo parked list`)";
            findings.add(AuditRule::Readable, unreadable(topic, position, why));
        }
        let mut money = MoneyTotals::default();
        let mut orders: Vec<(&String, &AuditedOrder)> = self.orders.iter().collect();
        orders.sort_by_key(|(id, _)| *id);
        for (id, order) in orders {
            money.add(order);
            for (rule, fault) in check_order(order, &mut outcomes) {
                findings.add(rule, format!("order {id} {fault}"));
            }
        }
        money.check(&mut findings);
        let mut stock = StockTotals::default();
        self.stock.values().for_each(|of_sku| stock.add(*of_sku));
        AuditReport {
            findings: findings.listed,
            unlisted_findings: findings.unlisted,
            orders: outcomes,
            captured_minor: money.captured,
            refunded_minor: money.refunded,
            completed_minor: money.completed,
            stock,
            events: self.events,
        }
    }
}

/// Counts an order under its outcome and returns what is wrong with it.
fn check_order(order: &AuditedOrder, outcomes: &mut OrderOutcomes) -> Vec<OrderFault> {
    let (count, faults) = match order.outcome() {
        OrderOutcome::Completed => (&mut outcomes.completed, order.faults_of_completed()),
        OrderOutcome::Cancelled => (&mut outcomes.cancelled, order.faults_of_cancelled()),
        OrderOutcome::Rejected => (&mut outcomes.rejected, order.faults_of_rejected()),
        OrderOutcome::Open(why) => (&mut outcomes.open, vec![(AuditRule::SingleOutcome, why)]),
        OrderOutcome::Several => return vec![(AuditRule::SingleOutcome, "has more than one outcome".to_owned())],
    };
    *count += 1;
    faults
}

fn unreadable(topic: &str, position: PartitionOffset, why: &str) -> String {
    format!("{topic} {position}: {why}")
}
