//! What must hold of MusicCorp: the audit of its facts, the books of its outside world, the projector's view, the tally.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use dacapo::audit::{AuditRecord, AuditReport, AuditRule, Auditor};
use projector::{AvroBodyDecoder, Declaration, SagaView, query::SagaFilter, record::ProjectedRecord};
use runtime::{codec::Vocabulary, core::ParkingUpdate, envelope::Position};
use serde::Deserialize;

use super::{
    FloorAndCourier, Gateway, Mail, SYSTEM,
    tally::{self, HOUSE},
};
use crate::{
    cluster::{Place, Stored},
    driver::Violation,
    history::{Finale, Positions},
    trace::Trace,
};

/// The saga that orders are.
const ORDERS: &str = "order-fulfilment";
/// How far a clock may be off.
const SKEW_MS: i64 = 1_600;

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Completed,
    Cancelled(CancelReason),
    Rejected,
}

impl End {
    fn seen(self) -> &'static str {
        match self {
            Self::Open => "an order is open in the middle",
            Self::Completed => "an order is completed",
            Self::Rejected => "an order is rejected",
            Self::Cancelled(CancelReason::OutOfStock) => "an order is cancelled for lack of stock",
            Self::Cancelled(CancelReason::PaymentDeclined) => "an order is cancelled for lack of money",
            Self::Cancelled(CancelReason::LostAtPackaging) => "an order is lost at packaging",
            Self::Cancelled(CancelReason::PaymentAbandoned) => "an order is cancelled because the gateway was silent",
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
    /// What orders came to.
    enum Fact {
        events of "order-processor" { OrderPlaced, OrderRejected, OrderCompleted, OrderCancelled }
        events of "notifications" { CustomerNotified }
        events of "catalogue" { AlbumPriceChanged }
    }
}

/// What has been added up so far, record by record; what comes later is added to it.
pub(super) struct Books {
    next: Positions,
    auditor: Auditor,
    facts: Vocabulary<Fact>,
    read: Read,
}

impl Default for Books {
    fn default() -> Self {
        let (next, read) = (Positions::new(), Read::default());
        Self { next, auditor: Auditor::new(SYSTEM), facts: Vocabulary::new(SYSTEM), read }
    }
}

/// What was read of the facts.
#[derive(Default)]
struct Read {
    ends: BTreeMap<String, End>,
    completed: Vec<OrderCompleted>,
    notified: BTreeSet<String>,
    repriced: Vec<String>,
}

/// Looks after every promise.
pub(super) fn check(
    view: &Finale<'_>,
    books: &mut Books,
    (gateway, floor, mail): (&Gateway, &FloorAndCourier, &Mail),
    rung: &[(String, i64)],
    trace: &mut Trace,
) -> Result<(), Violation> {
    books.catch_up(view);
    let read = &books.read;
    no_findings(view, &books.auditor.report())?;
    letters(view)?;
    for (order_id, end) in &read.ends {
        outside_agrees(order_id, *end, gateway, floor)?;
        trace.sometimes(end.seen());
    }
    tally(view, read, rung, trace)?;
    if let Some(unsent) = read.notified.iter().find(|id| !mail.sent.contains_key(*id)) {
        return Err(Violation::new("who was told was sent a mail", format!("notification {unsent} never went out")));
    }
    if view.is_quiet { projector_agrees(view, &read.ends) } else { Ok(()) }
}

fn is_of_musiccorp(topic: &str) -> bool {
    topic.ends_with(".events") && !topic.ends_with("tally.events")
}

impl Books {
    /// Enters what was committed meanwhile.
    fn catch_up(&mut self, view: &Finale<'_>) {
        let Self { next, auditor, facts, read } = self;
        view.records_since(next, is_of_musiccorp, |topic, partition, offset, stored| {
            stored.with_record(topic, partition, offset, |record| {
                let (envelope, key) = (record.envelope().ok(), record.key_text());
                let decoded = view.workshop.readers().decode(record.value, None).ok();
                let is_deletion = record.value.is_none();
                let envelope = envelope.as_ref();
                auditor.read(&AuditRecord { topic, partition, offset, envelope, key, decoded, is_deletion });
                if let Some(Ok(Some(fact))) = decoded.map(|decoded| facts.read(&decoded)) {
                    read.enter(fact);
                }
            });
        });
    }
}

/// In the middle an order may be open, and its money and stock with it; at the end nothing may.
fn no_findings(view: &Finale<'_>, balance: &AuditReport) -> Result<(), Violation> {
    let counts = |rule: &AuditRule| {
        view.is_quiet || matches!(rule, AuditRule::UniqueContent | AuditRule::Sequence | AuditRule::Readable)
    };
    if let Some(finding) = balance.findings.iter().find(|finding| counts(&finding.rule)) {
        let promise = match finding.rule {
            AuditRule::SingleOutcome => "an order comes to one end",
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

/// What cannot be read is put aside, and nothing else is given up. A letter lies there once, also if the group's offsets were lost
/// behind it. In the end nothing waits.
fn letters(view: &Finale<'_>) -> Result<(), Violation> {
    let (mut count, mut places) = (0, BTreeSet::new());
    view.records(
        |topic| topic.starts_with("dlq."),
        |topic, _, _, stored| {
            let place = ["topic", "partition", "offset"].map(|part| stored.header(&format!("__dlq.errors.{part}")));
            count += 1;
            places.insert((topic.to_string(), place.map(|part| part.unwrap_or_default().to_owned())));
        },
    );
    let is_repeated = count > places.len();
    let mut put_aside: BTreeSet<Position> =
        places.into_iter().filter_map(|(_, place)| place.join("/").parse().ok()).collect();
    let parked = parked(view)?;
    put_aside.extend(parked.dropped);
    let is_too_much = put_aside.iter().find(|place| !view.poisons.contains(place));
    let is_missing = view.poisons.iter().find(|place| view.is_quiet && !put_aside.contains(place));
    let waits = parked.waits.first().filter(|_| view.is_quiet);
    let what = match (is_too_much, is_missing, waits) {
        (Some(place), ..) => format!("{place} was put aside, and can be read"),
        (_, Some(place), _) => format!("{place} was passed over, and cannot be read"),
        (.., Some(place)) => format!("{place} waits in the end"),
        _ if is_repeated => format!("{count} dead letters about fewer records"),
        _ => return Ok(()),
    };
    Err(Violation::new("what cannot be read is put aside once, and nothing else is", what))
}

#[derive(Default)]
struct ParkedRecords {
    waits: Vec<Position>,
    dropped: Vec<Position>,
}

fn parked(view: &Finale<'_>) -> Result<ParkedRecords, Violation> {
    let (mut waits, mut parked, mut broken) = (BTreeSet::new(), ParkedRecords::default(), None);
    view.records(
        |topic| topic.ends_with(".parked"),
        |topic, partition, offset, stored| {
            let read = stored.with_record(topic, partition, offset, |record| ParkingUpdate::read(SYSTEM, record));
            let place = |of: &Position| (topic.to_string(), of.clone());
            match read {
                Ok(ParkingUpdate::Parked(news)) => drop(waits.insert(place(&news.position))),
                Ok(ParkingUpdate::Released(left)) => {
                    waits.remove(&place(&left.position));
                    parked.dropped.extend(left.dropped.then_some(left.position));
                }
                Err(error) => broken = Some(error.to_string()),
            }
        },
    );
    parked.waits = waits.into_iter().map(|(_, place)| place).collect();
    broken.map_or(Ok(parked), |what| Err(Violation::new("what is parked can be read", what)))
}

impl Read {
    fn enter(&mut self, fact: Fact) {
        match fact {
            Fact::OrderPlaced(of) => {
                self.ends.entry(of.order_id).or_insert(End::Open);
            }
            Fact::OrderRejected(of) => {
                self.ends.insert(of.order_id, End::Rejected);
            }
            Fact::OrderCancelled(of) => {
                self.ends.insert(of.order_id, End::Cancelled(of.reason));
            }
            Fact::OrderCompleted(of) => {
                self.ends.insert(of.order_id.clone(), End::Completed);
                self.completed.push(of);
            }
            Fact::CustomerNotified(of) => {
                self.notified.insert(of.notification_id);
            }
            Fact::AlbumPriceChanged(of) => self.repriced.push(of.sku),
        }
    }
}

fn fact<M: runtime::Message>(view: &Finale<'_>, vocabulary: &Vocabulary<M>, stored: &Stored) -> Option<M> {
    let decoded = view.workshop.readers().decode(stored.value.as_deref(), None).ok()?;
    vocabulary.read(&decoded).ok()?
}

/// What really happened outside is what the events say.
fn outside_agrees(order_id: &str, end: End, gateway: &Gateway, floor: &FloorAndCourier) -> Result<(), Violation> {
    let account = gateway.account(order_id);
    let parcels = floor.dispatched(order_id);
    let broken = |promise, what: String| Err(Violation::new(promise, format!("order {order_id} {what}")));
    if account.captured.len() > 1 || account.refunded.len() > account.captured.len() {
        return broken("money is captured and refunded once", format!("has {account:?}"));
    }
    if parcels > 1 {
        return broken("a parcel is sent once", format!("was sent {parcels} times"));
    }
    match end {
        End::Completed if account.captured.len() != 1 || !account.refunded.is_empty() => {
            broken("money adds up", format!("is completed, and the gateway has {account:?}"))
        }
        End::Completed if parcels != 1 => broken("a parcel is sent once", "is completed and was never sent".to_owned()),
        End::Cancelled(_) | End::Rejected if parcels > 0 => {
            broken("nothing is sent of a cancelled order", "is cancelled and was sent".to_owned())
        }
        End::Rejected if !account.captured.is_empty() => {
            broken("money adds up", "was rejected, and money was captured".to_owned())
        }
        _ => Ok(()),
    }
}

/// Everything that was sold is added exactly once, and no account is closed before what was there first is added.
fn tally(view: &Finale<'_>, read: &Read, rung: &[(String, i64)], trace: &mut Trace) -> Result<(), Violation> {
    let vocabulary = Vocabulary::<tally::Event>::new(SYSTEM);
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    let mut closed: BTreeMap<String, i64> = BTreeMap::new();
    let mut overtaken = None;
    view.records(
        |topic| topic.ends_with("tally.events"),
        |_, _, _, stored| match fact(view, &vocabulary, stored) {
            Some(tally::Event::Rung(rung)) => {
                let was_there_ms = cause_of(stored).and_then(|cause| {
                    let topic = view.cluster.log.find(&cause.topic)?;
                    view.cluster.log.readable_ms(Place { topic, partition: cause.partition }, cause.offset)
                });
                if let (Some(due_at), Some(was_there_ms)) = (closed.get(&rung.account), was_there_ms)
                    && was_there_ms < due_at - SKEW_MS
                {
                    overtaken = Some(format!(
                        "account {} was closed at {due_at} before what lay there at {was_there_ms} was added",
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
        return Err(Violation::new("a timer does not overtake what was there first", what));
    }
    if view.is_quiet {
        let mut sold: BTreeMap<String, i64> = BTreeMap::new();
        for order in &read.completed {
            *sold.entry(order.customer_id.clone()).or_default() += order.total.amount_minor;
            *sold.entry(HOUSE.to_owned()).or_default() += order.total.amount_minor;
        }
        for sku in &read.repriced {
            *sold.entry(sku.clone()).or_default() += 1;
        }
        for (account, amount_minor) in rung {
            *sold.entry(account.clone()).or_default() += amount_minor;
        }
        if sold != sums {
            return Err(Violation::new("an input counts once", format!("sold {sold:?}, and counted {sums:?}")));
        }
    }
    Ok(())
}

fn cause_of(stored: &Stored) -> Option<Position> {
    stored.header("ce_causeposition")?.parse().ok()
}

fn declarations() -> &'static [Declaration] {
    static SHIPPED: OnceLock<Vec<Declaration>> = OnceLock::new();
    SHIPPED.get_or_init(|| Declaration::shipped().unwrap_or_default())
}

/// The projector's view says of each order what its facts say, in whatever order the topics are read.
fn projector_agrees(view: &Finale<'_>, ends: &BTreeMap<String, End>) -> Result<(), Violation> {
    let promise = "the board shows what is";
    let (one, other) = (project(view, false)?, project(view, true)?);
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
            return Err(Violation::new(promise, format!("order {order_id} is not there")));
        };
        let expected = match end {
            End::Completed => "completed",
            End::Cancelled(_) => "compensated",
            End::Rejected => "rejected",
            End::Open => "running",
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

fn project(view: &Finale<'_>, is_reversed: bool) -> Result<SagaView, Violation> {
    let broken = |what: String| Violation::new("the board shows what is", what);
    let mut projected = SagaView::new(declarations(), 1).map_err(|e| broken(e.to_string()))?;
    let mut failed = None;
    let mut places: Vec<Place> =
        view.cluster.log.places().filter(|place| is_of_musiccorp(view.cluster.log.name(place.topic))).collect();
    if is_reversed {
        places.reverse();
    }
    for place in places {
        let topic = view.cluster.log.name(place.topic);
        for (offset, stored) in view.cluster.log.committed(place) {
            let headers: Vec<(&str, &[u8])> =
                stored.headers.iter().map(|(name, value)| (&**name, value.as_deref().unwrap_or_default())).collect();
            let decoded = view.workshop.readers().decode(stored.value.as_deref(), None).ok();
            let record = ProjectedRecord {
                topic,
                partition: place.partition,
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
