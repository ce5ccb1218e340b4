//! The books: what the facts add up to, and where they do not. Pure; it knows no Kafka.
//!
//! Every rule is checked from the facts alone, in whatever order topics are read; only facts about one sku are taken to come in
//! their own order, which one partition guarantees.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use uuid::Uuid;

use super::reads::{Fact, Money};

/// What identifies a record for the rules that hold for every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    pub(crate) topic: &'a str,
    pub(crate) place: Place,
    pub(crate) key: &'a str,
    pub(crate) id: Uuid,
    pub(crate) sequence: Option<u64>,
    /// A digest of key, type and body.
    pub(crate) content: u64,
}

/// Partition and offset of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} offset {}", self.partition, self.offset)
    }
}

/// The rule that a finding breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every accepted order is in exactly one end.
    OneEnd,
    /// What was captured and not refunded is the total of the completed orders.
    Money,
    /// received = free + held + shipped + written off, at every prefix.
    Stock,
    /// No id has two contents.
    OneContent,
    /// An entity's events are numbered 1, 2, 3 … without a gap.
    Sequence,
    /// No record lies in a dead-letter topic or waits in a parked one, and every event can be read.
    Readable,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneEnd => "one end",
            Self::Money => "money",
            Self::Stock => "stock",
            Self::OneContent => "one content per id",
            Self::Sequence => "sequence",
            Self::Readable => "readable",
        })
    }
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule it breaks.
    pub rule: Rule,
    /// What, about what, and where.
    pub what: String,
}

/// How many orders ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    /// Shipped, paid and rewarded.
    pub completed: u64,
    /// Cancelled, and everything undone.
    pub cancelled: u64,
    /// Refused at the door.
    pub rejected: u64,
    /// Accepted and not in one end yet.
    pub open: u64,
}

/// What there is of one sku.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Came in.
    pub received: i64,
    /// Can be sold.
    pub free: i64,
    /// Belongs to an order that has not left.
    pub held: i64,
    /// Left.
    pub shipped: i64,
    /// Was not on the shelf.
    pub written_off: i64,
}

impl Stock {
    fn add(&mut self, other: Self) {
        self.received += other.received;
        self.free += other.free;
        self.held += other.held;
        self.shipped += other.shipped;
        self.written_off += other.written_off;
    }
}

#[derive(Debug, Default)]
struct Order {
    placed: Option<Money>,
    rejected: u8,
    completed: Option<Money>,
    completions: u8,
    cancelled: u8,
    /// Requests to cancel it that the warehouse was asked about, by number.
    requests: BTreeSet<i32>,
    /// What the customer or operator was told.
    refusals_told: BTreeSet<i32>,
    /// What the warehouse answered; of several answers to one request the number stands in both.
    accepted: BTreeSet<i32>,
    refused: BTreeSet<i32>,
    charges: Vec<Money>,
    abandoned: u8,
    taken: Vec<Money>,
    refunded: Vec<Money>,
    declined: u8,
    voided: u8,
    dispatched: u8,
    dispatches_abandoned: u32,
    released: u8,
    rewarded: u8,
    held: i64,
}

/// Everything that was read so far.
#[derive(Debug, Default)]
pub(crate) struct Books {
    orders: HashMap<String, Order>,
    stock: BTreeMap<String, Stock>,
    held_by: HashMap<(String, String), i64>,
    content_of: HashMap<Uuid, u64>,
    /// By topic and key.
    last_sequence: HashMap<String, HashMap<String, u64>>,
    found: Found,
    events: u64,
}

/// What does not add up.
#[derive(Debug, Clone, Default)]
struct Found {
    listed: Vec<Finding>,
    unlisted: u64,
}

impl Found {
    fn add(&mut self, rule: Rule, what: String) {
        if self.listed.len() < Balance::MAX_FINDINGS {
            self.listed.push(Finding { rule, what });
        } else {
            self.unlisted += 1;
        }
    }
}

/// The balance: what was found, and the totals.
#[derive(Debug, Clone, PartialEq)]
pub struct Balance {
    /// What does not add up; empty when the books are clean. At most [`Balance::MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond the listed ones.
    pub unlisted_findings: u64,
    /// Orders by end.
    pub ends: Ends,
    /// Captured minor units by currency.
    pub captured_minor: BTreeMap<String, i64>,
    /// Refunded minor units by currency.
    pub refunded_minor: BTreeMap<String, i64>,
    /// Totals of completed orders by currency.
    pub completed_minor: BTreeMap<String, i64>,
    /// All stock together.
    pub stock: Stock,
    /// Events read.
    pub events: u64,
}

impl Balance {
    /// How many findings are listed; more are only counted.
    pub const MAX_FINDINGS: usize = 1_000;

    /// True if nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Books {
    /// Enters one event of any type.
    pub(crate) fn stamp(&mut self, stamp: &Stamp<'_>) {
        self.events += 1;
        let before = *self.content_of.entry(stamp.id).or_insert(stamp.content);
        if before != stamp.content {
            self.find(
                Rule::OneContent,
                format!("id {} has two contents, the second in {} {}", stamp.id, stamp.topic, stamp.place),
            );
        }
        let expected = self.last_of(stamp).map_or(0, |last| *last) + 1;
        match stamp.sequence {
            Some(sequence) if sequence == expected => self.note_sequence(stamp, sequence),
            Some(sequence) => {
                self.note_sequence(stamp, sequence.max(expected - 1));
                let what = format!(
                    "{} {}: {} has sequence {sequence} where {expected} is due",
                    stamp.topic, stamp.place, stamp.key
                );
                self.find(Rule::Sequence, what);
            }
            None => {
                self.find(Rule::Sequence, format!("{} {}: {} has no sequence", stamp.topic, stamp.place, stamp.key));
            }
        }
    }

    fn last_of(&mut self, stamp: &Stamp<'_>) -> Option<&mut u64> {
        self.last_sequence.get_mut(stamp.topic)?.get_mut(stamp.key)
    }

    fn note_sequence(&mut self, stamp: &Stamp<'_>, sequence: u64) {
        // Names are copied once per entity, not once per event.
        match self.last_of(stamp) {
            Some(last) => *last = sequence,
            None => {
                let of_topic = self.last_sequence.entry(stamp.topic.to_owned()).or_default();
                of_topic.insert(stamp.key.to_owned(), sequence);
            }
        }
    }

    /// Enters a record that could not be read, or a dead letter.
    pub(crate) fn unreadable(&mut self, topic: &str, place: Place, why: &str) {
        self.find(Rule::Readable, unreadable(topic, place, why));
    }

    /// Enters one fact.
    pub(crate) fn enter(&mut self, fact: Fact) {
        match fact {
            Fact::OrderPlaced(fact) => self.order(fact.order_id).placed = Some(fact.total),
            Fact::OrderRejected(fact) => self.order(fact.order_id).rejected += 1,
            Fact::OrderCompleted(fact) => {
                let order = self.order(fact.order_id);
                order.completed = Some(fact.total);
                order.completions += 1;
            }
            Fact::OrderCancelled(fact) => self.order(fact.order_id).cancelled += 1,
            Fact::OrderCancellationRequested(fact) => drop(self.order(fact.order_id).requests.insert(fact.request)),
            Fact::OrderCancellationRefused(fact) => drop(self.order(fact.order_id).refusals_told.insert(fact.request)),
            Fact::CancellationAccepted(fact) => drop(self.order(fact.order_id).accepted.insert(fact.request)),
            Fact::CancellationRefused(fact) => drop(self.order(fact.order_id).refused.insert(fact.request)),
            Fact::PaymentRequested(fact) => self.order(fact.order_id).charges.push(fact.amount),
            Fact::PaymentAbandoned(fact) => self.order(fact.order_id).abandoned += 1,
            Fact::DispatchAbandoned(fact) => self.order(fact.order_id).dispatches_abandoned += 1,
            Fact::PaymentTaken(fact) => self.order(fact.order_id).taken.push(fact.amount),
            Fact::PaymentDeclined(fact) => self.order(fact.order_id).declined += 1,
            Fact::PaymentVoided(fact) => self.order(fact.order_id).voided += 1,
            Fact::PaymentRefunded(fact) => self.order(fact.order_id).refunded.push(fact.amount),
            Fact::OrderDispatched(fact) => self.order(fact.order_id).dispatched += 1,
            Fact::StockReleased(fact) => self.order(fact.order_id).released += 1,
            Fact::PointsAwarded(fact) => self.order(fact.order_id).rewarded += 1,
            Fact::GoodsReceived(fact) => {
                let stock = self.stock.entry(fact.sku.clone()).or_default();
                stock.received += i64::from(fact.quantity);
                stock.free += i64::from(fact.quantity);
                self.not_negative(&fact.sku);
            }
            Fact::ItemHeld(fact) => self.hold(&fact.sku, &fact.order_id, fact.quantity),
            Fact::ItemShort(fact) => self.short(&fact.sku, fact.free),
            Fact::ItemFreed(fact) => {
                self.let_go(&fact.sku, &fact.order_id, fact.quantity, |stock, quantity| stock.free += quantity);
            }
            Fact::ItemShipped(fact) => {
                self.let_go(&fact.sku, &fact.order_id, fact.quantity, |stock, quantity| stock.shipped += quantity);
            }
            Fact::StockWrittenOff(fact) => {
                self.let_go(&fact.sku, &fact.order_id, fact.quantity, |stock, quantity| stock.written_off += quantity);
            }
        }
    }

    fn order(&mut self, id: String) -> &mut Order {
        self.orders.entry(id).or_default()
    }

    fn hold(&mut self, sku: &str, order_id: &str, quantity: i32) {
        let quantity = i64::from(quantity);
        let stock = self.stock.entry(sku.to_owned()).or_default();
        stock.free -= quantity;
        stock.held += quantity;
        *self.held_by.entry((order_id.to_owned(), sku.to_owned())).or_default() += quantity;
        self.order(order_id.to_owned()).held += quantity;
        self.not_negative(sku);
    }

    fn let_go(&mut self, sku: &str, order_id: &str, quantity: i32, to: impl FnOnce(&mut Stock, i64)) {
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
                self.find(Rule::Stock, format!("order {order_id} let go of {} {sku} more than it held", -left));
            }
            _ => {}
        }
        self.not_negative(sku);
    }

    /// The warehouse says how much was free when an order came short: an independent statement to hold the sum against.
    fn short(&mut self, sku: &str, said_free: i32) {
        let free = self.stock.get(sku).map_or(0, |stock| stock.free);
        if free != i64::from(said_free) {
            self.find(Rule::Stock, format!("{sku}: the warehouse said {said_free} were free when {free} were"));
        }
    }

    fn not_negative(&mut self, sku: &str) {
        let stock = self.stock.get(sku).copied().unwrap_or_default();
        if stock.free < 0 || stock.held < 0 {
            self.find(
                Rule::Stock,
                format!("{sku}: {} free and {} held; stock came from nowhere", stock.free, stock.held),
            );
        }
    }

    fn find(&mut self, rule: Rule, what: String) {
        self.found.add(rule, what);
    }

    /// Strikes the balance; `waiting` is where records wait, by topic.
    pub(crate) fn balance<'a>(&self, waiting: impl IntoIterator<Item = (&'a str, Place)>) -> Balance {
        let (mut ends, mut found) = (Ends::default(), self.found.clone());
        for (topic, place) in waiting {
            let why = "a record waits: it, or one before it, cannot work (`dacapo parked list`)";
            found.add(Rule::Readable, unreadable(topic, place, why));
        }
        let (mut captured, mut refunded, mut completed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut orders: Vec<(&String, &Order)> = self.orders.iter().collect();
        orders.sort_by_key(|(id, _)| *id);
        for (id, order) in orders {
            order.taken.iter().for_each(|money| add(&mut captured, money));
            order.refunded.iter().for_each(|money| add(&mut refunded, money));
            order.completed.iter().for_each(|money| add(&mut completed, money));
            let faults = match order.end() {
                End::Completed => count(&mut ends.completed, order.faults_of_completed()),
                End::Cancelled => count(&mut ends.cancelled, order.faults_of_cancelled()),
                End::Rejected => count(&mut ends.rejected, order.faults_of_rejected()),
                End::Open(why) => count(&mut ends.open, vec![(Rule::OneEnd, why)]),
                End::Several => vec![(Rule::OneEnd, "has more than one end".to_owned())],
            };
            for (rule, fault) in faults {
                found.add(rule, format!("order {id} {fault}"));
            }
        }
        for currency in captured.keys().chain(completed.keys()).cloned().collect::<std::collections::BTreeSet<String>>()
        {
            let of = |sums: &BTreeMap<String, i64>| sums.get(&currency).copied().unwrap_or_default();
            let (kept, due) = (of(&captured) - of(&refunded), of(&completed));
            if kept != due {
                let what = format!(
                    "captured minus refunded is {kept} {currency} (minor units), completed orders are worth {due}"
                );
                found.add(Rule::Money, what);
            }
        }
        let mut stock = Stock::default();
        self.stock.values().for_each(|of_sku| stock.add(*of_sku));
        Balance {
            findings: found.listed,
            unlisted_findings: found.unlisted,
            ends,
            captured_minor: captured,
            refunded_minor: refunded,
            completed_minor: completed,
            stock,
            events: self.events,
        }
    }
}

fn unreadable(topic: &str, place: Place, why: &str) -> String {
    format!("{topic} {place}: {why}")
}

enum End {
    Completed,
    Cancelled,
    Rejected,
    Open(String),
    Several,
}

impl Order {
    fn end(&self) -> End {
        match (self.completions > 0, self.cancelled > 0, self.rejected > 0) {
            (true, false, false) => End::Completed,
            (false, true, false) if self.released == 0 => {
                End::Open("was cancelled and its stock is not released".to_owned())
            }
            (false, true, false) if self.payment_ends() == 0 => {
                End::Open("was cancelled and its payment is neither declined, voided nor refunded".to_owned())
            }
            (false, true, false) => End::Cancelled,
            (false, false, true) => End::Rejected,
            (false, false, false) if !self.accepted.is_empty() => {
                End::Open("is in no end, although its cancellation was accepted".to_owned())
            }
            (false, false, false) if self.abandoned > 0 => {
                End::Open("is in no end, although its payment was abandoned".to_owned())
            }
            (false, false, false) if self.dispatches_abandoned > 0 && self.dispatched == 0 => {
                End::Open("is in no end: its dispatch was abandoned, and an operator has to decide".to_owned())
            }
            (false, false, false) => End::Open("is in no end".to_owned()),
            _ => End::Several,
        }
    }

    fn payment_ends(&self) -> usize {
        usize::from(self.declined) + usize::from(self.voided) + self.refunded.len()
    }

    fn faults_of_completed(&self) -> Vec<(Rule, String)> {
        let mut faults = self.faults_of_accepted();
        let mut check = |ok: bool, rule, fault: &str| {
            if !ok {
                faults.push((rule, fault.to_owned()));
            }
        };
        check(self.completions == 1, Rule::OneEnd, "was completed more than once");
        check(self.taken.len() == 1, Rule::Money, "was completed without exactly one capture");
        check(self.completed == self.placed, Rule::Money, "was completed with another total than it was placed with");
        check(self.payment_ends() == 0, Rule::Money, "was completed, and its payment undone");
        check(self.abandoned == 0, Rule::Money, "was completed, and its payment abandoned");
        check(self.accepted.is_empty(), Rule::OneEnd, "was completed, and its cancellation accepted");
        check(
            self.requests.is_subset(&self.refusals_told),
            Rule::OneEnd,
            "was completed, and a request to cancel it was never answered",
        );
        check(self.dispatched == 1, Rule::OneEnd, "was completed without exactly one dispatch");
        check(self.rewarded == 1, Rule::OneEnd, "was completed without being rewarded exactly once");
        check(self.held == 0, Rule::Stock, "was completed and still holds stock");
        check(self.released == 0, Rule::OneEnd, "was completed, and its stock released");
        faults
    }

    fn faults_of_cancelled(&self) -> Vec<(Rule, String)> {
        let mut faults = self.faults_of_accepted();
        let mut check = |ok: bool, rule, fault: &str| {
            if !ok {
                faults.push((rule, fault.to_owned()));
            }
        };
        check(self.cancelled == 1, Rule::OneEnd, "was cancelled more than once");
        check(self.payment_ends() == 1, Rule::Money, "was cancelled and its payment ended more than once");
        check(
            self.taken.len() == self.refunded.len(),
            Rule::Money,
            "was cancelled, and captures and refunds differ in number",
        );
        check(self.taken == self.refunded, Rule::Money, "was cancelled and not refunded what was captured");
        check(self.released == 1, Rule::OneEnd, "was cancelled and its stock released more than once");
        check(self.dispatched == 0, Rule::OneEnd, "was cancelled and dispatched");
        check(self.rewarded == 0, Rule::OneEnd, "was cancelled and rewarded");
        check(self.held == 0, Rule::Stock, "was cancelled and still holds stock");
        faults
    }

    fn faults_of_rejected(&self) -> Vec<(Rule, String)> {
        let mut faults = Vec::new();
        if self.rejected != 1 || self.placed.is_some() {
            faults.push((Rule::OneEnd, "was rejected more than once, or rejected and placed".to_owned()));
        }
        if !self.taken.is_empty() || self.held != 0 {
            faults.push((Rule::Money, "was rejected, and money or stock was taken for it".to_owned()));
        }
        faults
    }

    fn faults_of_accepted(&self) -> Vec<(Rule, String)> {
        let mut faults = Vec::new();
        match &self.placed {
            None => faults.push((Rule::OneEnd, "ended without having been placed".to_owned())),
            Some(total) if self.taken.iter().any(|taken| taken != total) => {
                faults.push((Rule::Money, "was charged another amount than its total".to_owned()));
            }
            Some(_) => {}
        }
        if self.taken.len() > 1 {
            faults.push((Rule::Money, format!("was captured {} times", self.taken.len())));
        }
        if self.charges.len() > 1 {
            faults.push((Rule::Money, format!("was charged {} times", self.charges.len())));
        }
        if self.accepted.intersection(&self.refused).next().is_some() {
            faults.push((Rule::OneEnd, "had a request to cancel it both accepted and refused".to_owned()));
        }
        if !self.accepted.is_subset(&self.requests) || !self.refused.is_subset(&self.requests) {
            faults.push((Rule::OneEnd, "had a cancellation answered that nobody asked for".to_owned()));
        }
        faults
    }
}

fn count(ends: &mut u64, faults: Vec<(Rule, String)>) -> Vec<(Rule, String)> {
    *ends += 1;
    faults
}

fn add(sums: &mut BTreeMap<String, i64>, money: &Money) {
    *sums.entry(money.currency.clone()).or_default() += money.amount_minor;
}
