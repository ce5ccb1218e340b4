//! The promises of MusicCorp: the audit of its facts, the accounts of its external services, the projector's view, the tally.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use dacapo::audit::{AuditRecord, AuditReport, AuditRule, Auditor};
use projector::{AvroBodyDecoder, Declaration, SagaView, query::SagaFilter, record::ProjectedRecord};
use runtime::{codec::Vocabulary, core::ParkingUpdate, envelope::Position};
use serde::Deserialize;

use super::{
    Gateway, MailServer, PickingAndCourier, SYSTEM,
    tally::{self, HOUSE},
};
use crate::{
    cluster::{StoredRecord, TopicPartition},
    driver::Violation,
    trace::Trace,
    workload::{ReadPositions, Snapshot},
};

/// The saga of an order.
const ORDERS: &str = "order-fulfilment";
/// How far a clock may differ from the true time.
const SKEW_MS: i64 = 1_600;

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrderEnd {
    Open,
    Completed,
    Cancelled(CancelReason),
    Rejected,
}

impl OrderEnd {
    fn sighting(self) -> &'static str {
        match self {
            Self::Open => "an order is open before the end",
            Self::Completed => "an order is completed",
            Self::Rejected => "an order is rejected",
            Self::Cancelled(CancelReason::OutOfStock) => "an order is cancelled because stock was short",
            Self::Cancelled(CancelReason::PaymentDeclined) => "an order is cancelled because the payment was declined",
            Self::Cancelled(CancelReason::LostAtPackaging) => "an order is lost at packaging",
            Self::Cancelled(CancelReason::PaymentAbandoned) => {
                "an order is cancelled because the gateway did not answer"
            }
            Self::Cancelled(CancelReason::CustomerRequest) => "an order is cancelled because the customer asked",
            Self::Cancelled(CancelReason::GivenUp) => "an order is given up",
            Self::Cancelled(CancelReason::Other) => "an order is cancelled for another reason",
        }
    }
}

/// Why an order was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum CancelReason {
    OutOfStock,
    PaymentDeclined,
    PaymentAbandoned,
    LostAtPackaging,
    CustomerRequest,
    GivenUp,
    #[serde(other)]
    Other,
}

macro_rules! facts {
    ($( $Name:ident { $( $field:ident: $Type:ty ),* } )*) => { $(
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        struct $Name { $( $field: $Type, )* }
    )* };
}

facts! {
    Money { amount_minor: i64 }
    OrderPlaced { order_id: String }
    OrderRejected { order_id: String }
    OrderCompleted { order_id: String, customer_id: String, total: Money }
    OrderCancelled { order_id: String, reason: CancelReason }
    CustomerNotified { notification_id: String }
    AlbumPriceChanged { sku: String }
}

runtime::consumes! {
    /// The facts that the promises refer to.
    enum Fact {
        events of "order-processor" { OrderPlaced, OrderRejected, OrderCompleted, OrderCancelled }
        events of "notifications" { CustomerNotified }
        events of "catalogue" { AlbumPriceChanged }
    }
}

/// What was computed from the records so far. Later records are added to it.
pub(super) struct Totals {
    next: ReadPositions,
    auditor: Auditor,
    vocabulary: Vocabulary<Fact>,
    facts: FactTotals,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            next: ReadPositions::new(),
            auditor: Auditor::new(SYSTEM),
            vocabulary: Vocabulary::new(SYSTEM),
            facts: FactTotals::default(),
        }
    }
}

/// What the facts so far say.
#[derive(Default)]
struct FactTotals {
    ends: BTreeMap<String, OrderEnd>,
    completed: Vec<OrderCompleted>,
    notified: BTreeSet<String>,
    repriced: Vec<String>,
}

/// Checks every promise.
pub(super) fn check(
    snapshot: &Snapshot<'_>,
    totals: &mut Totals,
    (gateway, picking, mail): (&Gateway, &PickingAndCourier, &MailServer),
    rung: &[(String, i64)],
    trace: &mut Trace,
) -> Result<(), Violation> {
    totals.catch_up(snapshot);
    let facts = &totals.facts;
    no_findings(snapshot, &totals.auditor.report())?;
    dead_letters(snapshot)?;
    for (order_id, end) in &facts.ends {
        external_services_agree(order_id, *end, gateway, picking)?;
        trace.sometimes(end.sighting());
    }
    tally(snapshot, facts, rung, trace)?;
    if let Some(unsent) = facts.notified.iter().find(|id| !mail.sent.contains_key(*id)) {
        return Err(Violation::new(
            "a notified customer was sent a mail",
            format!("notification {unsent} was never sent"),
        ));
    }
    if snapshot.is_settled { projector_agrees(snapshot, &facts.ends) } else { Ok(()) }
}

fn is_of_musiccorp(topic: &str) -> bool {
    topic.ends_with(".events") && !topic.ends_with("tally.events")
}

impl Totals {
    /// Adds the records that were committed since the last call.
    fn catch_up(&mut self, snapshot: &Snapshot<'_>) {
        let Self { next, auditor, vocabulary, facts } = self;
        snapshot.records_since(next, is_of_musiccorp, |topic, partition, offset, stored| {
            stored.with_record(topic, partition, offset, |record| {
                let (envelope, key) = (record.envelope().ok(), record.key_text());
                let decoded = snapshot.fixtures.readers().decode(record.value, None).ok();
                let is_deletion = record.value.is_none();
                let envelope = envelope.as_ref();
                auditor.read(&AuditRecord { topic, partition, offset, envelope, key, decoded, is_deletion });
                if let Some(Ok(Some(fact))) = decoded.map(|decoded| vocabulary.read(&decoded)) {
                    facts.add(fact);
                }
            });
        });
    }
}

/// Until the run has settled, an order may be open, with its money and stock; afterwards none may be.
fn no_findings(snapshot: &Snapshot<'_>, report: &AuditReport) -> Result<(), Violation> {
    let counts = |rule: &AuditRule| {
        snapshot.is_settled || matches!(rule, AuditRule::UniqueContent | AuditRule::Sequence | AuditRule::Readable)
    };
    if let Some(finding) = report.findings.iter().find(|finding| counts(&finding.rule)) {
        let promise = match finding.rule {
            AuditRule::SingleOutcome => "an order has one outcome",
            AuditRule::Money => "money adds up",
            AuditRule::Stock => "stock adds up",
            AuditRule::UniqueContent => "an id has one content",
            AuditRule::Sequence => "sequences have no gap",
            AuditRule::Readable => "every event can be read",
        };
        return Err(Violation::new(promise, finding.what.clone()));
    }
    Ok(())
}

/// Every record that cannot be read is dead-lettered, or parked and dropped by an operator; no other record is. A record is
/// dead-lettered once, even if the group has lost its offsets behind it. After the run has settled, nothing is parked.
fn dead_letters(snapshot: &Snapshot<'_>) -> Result<(), Violation> {
    let (mut count, mut dead_lettered) = (0, BTreeSet::new());
    snapshot.records(
        |topic| topic.starts_with("dlq."),
        |topic, _, _, stored| {
            let parts = ["topic", "partition", "offset"].map(|part| stored.header(&format!("__dlq.errors.{part}")));
            count += 1;
            dead_lettered.insert((topic.to_string(), parts.map(|part| part.unwrap_or_default().to_owned())));
        },
    );
    let is_repeated = count > dead_lettered.len();
    let mut given_up: BTreeSet<Position> =
        dead_lettered.into_iter().filter_map(|(_, parts)| parts.join("/").parse().ok()).collect();
    let parked = parked(snapshot)?;
    given_up.extend(parked.dropped);
    let readable = given_up.iter().find(|position| !snapshot.poison_records.contains(position));
    let skipped = snapshot.poison_records.iter().find(|known| snapshot.is_settled && !given_up.contains(known));
    let waiting = parked.waiting.first().filter(|_| snapshot.is_settled);
    let what = match (readable, skipped, waiting) {
        (Some(position), ..) => format!("{position} was dead-lettered or dropped, and can be read"),
        (_, Some(position), _) => format!("{position} was neither dead-lettered nor dropped, and cannot be read"),
        (.., Some(position)) => format!("{position} is still parked"),
        _ if is_repeated => format!("{count} dead letters about fewer records"),
        _ => return Ok(()),
    };
    Err(Violation::new("unreadable records are dead-lettered or dropped once, and no others", what))
}

#[derive(Default)]
struct ParkedRecords {
    waiting: Vec<Position>,
    dropped: Vec<Position>,
}

fn parked(snapshot: &Snapshot<'_>) -> Result<ParkedRecords, Violation> {
    let (mut waiting, mut parked, mut broken) = (BTreeSet::new(), ParkedRecords::default(), None);
    snapshot.records(
        |topic| topic.ends_with(".parked"),
        |topic, partition, offset, stored| {
            let update = stored.with_record(topic, partition, offset, |record| ParkingUpdate::read(SYSTEM, record));
            let identity = |of: &Position| (topic.to_string(), of.clone());
            match update {
                Ok(ParkingUpdate::Parked(update)) => drop(waiting.insert(identity(&update.position))),
                Ok(ParkingUpdate::Released(released)) => {
                    waiting.remove(&identity(&released.position));
                    parked.dropped.extend(released.dropped.then_some(released.position));
                }
                Err(error) => broken = Some(error.to_string()),
            }
        },
    );
    parked.waiting = waiting.into_iter().map(|(_, position)| position).collect();
    broken.map_or(Ok(parked), |what| Err(Violation::new("every parked record can be read", what)))
}

impl FactTotals {
    fn add(&mut self, fact: Fact) {
        match fact {
            Fact::OrderPlaced(of) => {
                self.ends.entry(of.order_id).or_insert(OrderEnd::Open);
            }
            Fact::OrderRejected(of) => {
                self.ends.insert(of.order_id, OrderEnd::Rejected);
            }
            Fact::OrderCancelled(of) => {
                self.ends.insert(of.order_id, OrderEnd::Cancelled(of.reason));
            }
            Fact::OrderCompleted(of) => {
                self.ends.insert(of.order_id.clone(), OrderEnd::Completed);
                self.completed.push(of);
            }
            Fact::CustomerNotified(of) => {
                self.notified.insert(of.notification_id);
            }
            Fact::AlbumPriceChanged(of) => self.repriced.push(of.sku),
        }
    }
}

fn fact<M: runtime::Message>(snapshot: &Snapshot<'_>, vocabulary: &Vocabulary<M>, stored: &StoredRecord) -> Option<M> {
    let decoded = snapshot.fixtures.readers().decode(stored.value.as_deref(), None).ok()?;
    vocabulary.read(&decoded).ok()?
}

/// The accounts of the external services agree with the events.
fn external_services_agree(
    order_id: &str,
    end: OrderEnd,
    gateway: &Gateway,
    picking: &PickingAndCourier,
) -> Result<(), Violation> {
    let account = gateway.account(order_id);
    let parcels = picking.dispatched(order_id);
    let broken = |promise, what: String| Err(Violation::new(promise, format!("order {order_id} {what}")));
    if account.captured.len() > 1 || account.refunded.len() > account.captured.len() {
        return broken("money is captured and refunded once", format!("has {account:?}"));
    }
    if parcels > 1 {
        return broken("a parcel is sent once", format!("was sent {parcels} times"));
    }
    match end {
        OrderEnd::Completed if account.captured.len() != 1 || !account.refunded.is_empty() => {
            broken("money adds up", format!("is completed, and the gateway has {account:?}"))
        }
        OrderEnd::Completed if parcels != 1 => {
            broken("a parcel is sent once", "is completed and was never sent".to_owned())
        }
        OrderEnd::Cancelled(_) | OrderEnd::Rejected if parcels > 0 => {
            broken("no parcel of a cancelled order is sent", "is cancelled and was sent".to_owned())
        }
        OrderEnd::Rejected if !account.captured.is_empty() => {
            broken("money adds up", "was rejected, and money was captured".to_owned())
        }
        _ => Ok(()),
    }
}

/// Each sale is added exactly once, and no account is closed before earlier input is added.
fn tally(
    snapshot: &Snapshot<'_>,
    facts: &FactTotals,
    rung: &[(String, i64)],
    trace: &mut Trace,
) -> Result<(), Violation> {
    let vocabulary = Vocabulary::<tally::Event>::new(SYSTEM);
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    let mut closed: BTreeMap<String, i64> = BTreeMap::new();
    let mut overtaken = None;
    snapshot.records(
        |topic| topic.ends_with("tally.events"),
        |_, _, _, stored| match fact(snapshot, &vocabulary, stored) {
            Some(tally::Event::Rung(rung)) => {
                let readable_ms = cause_of(stored).and_then(|cause| {
                    let topic = snapshot.cluster.log.find(&cause.topic)?;
                    snapshot.cluster.log.readable_ms(TopicPartition { topic, partition: cause.partition }, cause.offset)
                });
                if let (Some(due_at), Some(readable_ms)) = (closed.get(&rung.account), readable_ms)
                    && readable_ms < due_at - SKEW_MS
                {
                    overtaken = Some(format!(
                        "account {} was closed at {due_at} before the input readable since {readable_ms} was added",
                        rung.account
                    ));
                }
                sums.insert(rung.account, rung.sum_minor);
            }
            Some(tally::Event::Closed(event)) => {
                trace.sometimes("an account is closed by a timer");
                closed.insert(event.account, event.due_at);
            }
            None => {}
        },
    );
    if let Some(what) = overtaken {
        return Err(Violation::new("a timer does not overtake earlier input", what));
    }
    if snapshot.is_settled {
        let mut sold: BTreeMap<String, i64> = BTreeMap::new();
        for order in &facts.completed {
            *sold.entry(order.customer_id.clone()).or_default() += order.total.amount_minor;
            *sold.entry(HOUSE.to_owned()).or_default() += order.total.amount_minor;
        }
        for sku in &facts.repriced {
            *sold.entry(sku.clone()).or_default() += 1;
        }
        for (account, amount_minor) in rung {
            *sold.entry(account.clone()).or_default() += amount_minor;
        }
        if sold != sums {
            return Err(Violation::new("an input counts once", format!("sold {sold:?}, but counted {sums:?}")));
        }
    }
    Ok(())
}

fn cause_of(stored: &StoredRecord) -> Option<Position> {
    stored.header("ce_causeposition")?.parse().ok()
}

fn declarations() -> &'static [Declaration] {
    static SHIPPED: OnceLock<Vec<Declaration>> = OnceLock::new();
    SHIPPED.get_or_init(|| Declaration::shipped().unwrap_or_default())
}

/// The projector's view shows each order as its facts do, and does not depend on the order in which topics are read.
fn projector_agrees(snapshot: &Snapshot<'_>, ends: &BTreeMap<String, OrderEnd>) -> Result<(), Violation> {
    let promise = "the board shows the true status";
    let (one, other) = (project(snapshot, false)?, project(snapshot, true)?);
    for (order_id, end) in ends {
        if one.canonical(ORDERS, order_id) != other.canonical(ORDERS, order_id) {
            return Err(Violation::new(
                promise,
                format!("order {order_id} depends on the order in which topics are read"),
            ));
        }
        let filter = SagaFilter { saga: Some(ORDERS.to_owned()), key: Some(order_id.clone()), ..SagaFilter::default() };
        let page = one.list(&filter, None, 1).map_err(|e| Violation::new(promise, e.to_string()))?;
        let Some(saga) = page.items.first() else {
            return Err(Violation::new(promise, format!("order {order_id} is missing")));
        };
        let expected = match end {
            OrderEnd::Completed => "completed",
            OrderEnd::Cancelled(_) => "compensated",
            OrderEnd::Rejected => "rejected",
            OrderEnd::Open => "running",
        };
        if saga.state != expected || !saga.settled {
            let what = format!(
                "order {order_id} is {} and settled: {}, where it is {expected}; {}",
                saga.state, saga.settled, saga.sentence
            );
            return Err(Violation::new(promise, what));
        }
        let wrong = |flag: &&String| ["gap", "contradiction", "truncated"].contains(&flag.as_str());
        if let Some(flag) = saga.flags.iter().find(wrong) {
            return Err(Violation::new(promise, format!("order {order_id} has the flag {flag}")));
        }
    }
    Ok(())
}

fn project(snapshot: &Snapshot<'_>, is_reversed: bool) -> Result<SagaView, Violation> {
    let broken = |what: String| Violation::new("the board shows the true status", what);
    let mut projected = SagaView::new(declarations(), 1).map_err(|e| broken(e.to_string()))?;
    let mut failed = None;
    let mut topic_partitions: Vec<TopicPartition> = snapshot
        .cluster
        .log
        .topic_partitions()
        .filter(|known| is_of_musiccorp(snapshot.cluster.log.name(known.topic)))
        .collect();
    if is_reversed {
        topic_partitions.reverse();
    }
    for topic_partition in topic_partitions {
        let topic = snapshot.cluster.log.name(topic_partition.topic);
        for (offset, stored) in snapshot.cluster.log.committed(topic_partition) {
            let headers: Vec<(&str, &[u8])> =
                stored.headers.iter().map(|(name, value)| (&**name, value.as_deref().unwrap_or_default())).collect();
            let decoded = snapshot.fixtures.readers().decode(stored.value.as_deref(), None).ok();
            let record = ProjectedRecord {
                topic,
                partition: topic_partition.partition,
                offset,
                at_ms: stored.timestamp_ms,
                key: stored.key.as_deref(),
                headers: &headers,
                value: stored.value.as_deref(),
                readable: decoded.is_some(),
            };
            if let Err(later) = projected.fold(&record, false, &AvroBodyDecoder(decoded)) {
                failed = Some(later.to_string());
            }
        }
    }
    projected.commit(0);
    match failed {
        Some(what) => Err(broken(what)),
        None => Ok(projected),
    }
}
