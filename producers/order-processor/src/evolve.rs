//! The state of an order: the fold of its own events.

use serde::{Deserialize, Serialize};

use crate::events::{
    Address, AttentionNeed, CancelRequester, Contact, Event, Money, NotedFact, OrderCancellationRequested,
    OrderFactNoted, OrderLine, OrderNeedsAttention, OrderPlaced,
};

/// The phase of an order.
///
/// ```text
///  (unplaced) ──> placed ──> paid ──> picking ──> shipped ──> completed
///      │            │          │         │
///      │            └──────────┴─────────┴──────> cancelled
///      └────────────────────────────────────────> rejected
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderPhase {
    /// It has no event.
    #[default]
    Unplaced,
    /// Accepted; the warehouse and payment are working.
    Placed,
    /// The money was taken.
    Paid,
    /// The warehouse is picking it.
    Picking,
    /// The courier has the parcel.
    Shipped,
    /// Ended: fulfilled.
    Completed,
    /// Ended: accepted, but not fulfilled.
    Cancelled,
    /// Ended: never accepted.
    Rejected,
}

impl OrderPhase {
    /// Every legal transition. A test checks every decision against this table.
    pub const TRANSITIONS: &'static [(OrderPhase, OrderPhase)] = &[
        (OrderPhase::Unplaced, OrderPhase::Placed),
        (OrderPhase::Unplaced, OrderPhase::Rejected),
        (OrderPhase::Placed, OrderPhase::Paid),
        (OrderPhase::Placed, OrderPhase::Cancelled),
        (OrderPhase::Paid, OrderPhase::Picking),
        (OrderPhase::Paid, OrderPhase::Cancelled),
        (OrderPhase::Picking, OrderPhase::Shipped),
        (OrderPhase::Picking, OrderPhase::Cancelled),
        (OrderPhase::Shipped, OrderPhase::Completed),
    ];

    /// True if an order may change from this phase to `next`.
    #[must_use]
    pub fn may_become(self, next: OrderPhase) -> bool {
        Self::TRANSITIONS.contains(&(self, next))
    }
}

/// The state of one order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its phase.
    pub phase: OrderPhase,
    /// Identifies the request that placed it; empty while unplaced.
    pub request_digest: String,
    /// The order while it is open. An ended order needs none of this for further events.
    pub order: Option<Order>,
    /// Facts that were received early.
    pub noted: NotedFacts,
    /// The number of requests to cancel it.
    pub cancel_requests: i32,
    /// The request that the warehouse has not answered yet.
    pub cancel_request: Option<CancelRequest>,
    /// The issues that were reported.
    pub reported: ReportedIssues,
}

/// The issues of an order that were reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedIssues {
    /// The customer was notified of a delay.
    pub delay_reported: bool,
    /// The last dispatch attempt that was reported to a person.
    pub dispatch_attempt: i32,
    /// The last refund attempt that was reported to a person.
    pub refund_attempt: i32,
}

/// A request to cancel an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Its number, counted from 1 per order.
    pub number: i32,
    /// Who requested it.
    pub requested_by: CancelRequester,
    /// Why.
    pub reason: String,
}

/// The data of an open order that its events repeat in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The order.
    pub order_id: String,
    /// The customer who ordered.
    pub customer_id: String,
    /// How the customer is addressed.
    pub contact: Contact,
    /// Where the parcel goes.
    pub ship_to: Address,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What it costs.
    pub total: Money,
}

/// Facts that were received before the facts they follow from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedFacts {
    /// The warehouse started to pick.
    pub picking_started: bool,
    /// The courier has the parcel.
    pub shipment: Option<Shipment>,
    /// The points were awarded.
    pub points: Option<i64>,
}

/// The courier of the parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipment {
    /// The courier.
    pub carrier: String,
    /// The parcel's number with that courier.
    pub tracking_number: String,
}

impl State {
    fn moved(self, phase: OrderPhase) -> Self {
        Self { phase, ..self }
    }

    fn ended(self, phase: OrderPhase) -> Self {
        Self { phase, order: None, noted: NotedFacts::default(), cancel_request: None, ..self }
    }

    fn cancel_requested(self, event: &OrderCancellationRequested) -> Self {
        let open =
            CancelRequest { number: event.request, requested_by: event.requested_by, reason: event.reason.clone() };
        Self { cancel_requests: event.request, cancel_request: Some(open), ..self }
    }

    fn needing_attention(mut self, event: &OrderNeedsAttention) -> Self {
        match event.need {
            AttentionNeed::DispatchAbandoned => self.reported.dispatch_attempt = event.attempt,
            AttentionNeed::RefundFailed => self.reported.refund_attempt = event.attempt,
            AttentionNeed::Unknown => {}
        }
        self
    }

    fn noting(mut self, event: &OrderFactNoted) -> Self {
        match event.fact {
            NotedFact::PickingStarted => self.noted.picking_started = true,
            NotedFact::Dispatched => {
                self.noted.shipment = Some(Shipment {
                    carrier: event.carrier.clone().unwrap_or_default(),
                    tracking_number: event.tracking_number.clone().unwrap_or_default(),
                });
            }
            NotedFact::PointsAwarded => self.noted.points = Some(event.points.unwrap_or_default()),
            NotedFact::Unknown => {}
        }
        self
    }
}

impl From<&OrderPlaced> for Order {
    fn from(event: &OrderPlaced) -> Self {
        Self {
            order_id: event.order_id.clone(),
            customer_id: event.customer_id.clone(),
            contact: event.contact.clone(),
            ship_to: event.ship_to.clone(),
            lines: event.lines.clone(),
            total: event.total.clone(),
        }
    }
}

/// Applies one event. Total: an event is never rejected.
pub fn evolve(state: State, event: &Event) -> State {
    match event {
        Event::OrderPlaced(placed) => State {
            phase: OrderPhase::Placed,
            request_digest: placed.request_digest.clone(),
            order: Some(Order::from(placed)),
            ..state
        },
        Event::OrderRejected(rejected) => {
            State { request_digest: rejected.request_digest.clone(), ..state.ended(OrderPhase::Rejected) }
        }
        Event::OrderPaid(_) => state.moved(OrderPhase::Paid),
        Event::OrderPicking(_) => state.moved(OrderPhase::Picking),
        Event::OrderShipped(_) => state.moved(OrderPhase::Shipped),
        Event::OrderCompleted(_) => state.ended(OrderPhase::Completed),
        Event::OrderCancelled(_) => state.ended(OrderPhase::Cancelled),
        Event::OrderDelayed(_) => {
            State { reported: ReportedIssues { delay_reported: true, ..state.reported }, ..state }
        }
        Event::OrderNeedsAttention(needed) => state.needing_attention(needed),
        Event::OrderCancellationRequested(requested) => state.cancel_requested(requested),
        Event::OrderCancellationRefused(_) => State { cancel_request: None, ..state },
        Event::OrderFactNoted(noted) => state.noting(noted),
        Event::CommandRefused(_) => state,
    }
}
