//! What the order-processor remembers of an order: the fold of its own events, nothing else.

use serde::{Deserialize, Serialize};

use crate::events::{
    Address, AttentionNeed, CancelRequester, Contact, Event, Money, NotedFact, OrderCancellationRequested,
    OrderFactNoted, OrderLine, OrderNeedsAttention, OrderPlaced,
};

/// Where an order stands.
///
/// ```text
///  (unplaced) ──> placed ──> paid ──> picking ──> shipped ──> completed
///      │            │          │         │
///      │            └──────────┴─────────┴──────> cancelled
///      └────────────────────────────────────────> rejected
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Nothing was ever said about it.
    #[default]
    Unplaced,
    /// Accepted; the warehouse and payment are at work.
    Placed,
    /// The money was taken.
    Paid,
    /// The warehouse is picking it.
    Picking,
    /// The parcel is with the courier.
    Shipped,
    /// The good end.
    Completed,
    /// The bad end of an accepted order.
    Cancelled,
    /// The end of an order that was never accepted.
    Rejected,
}

impl Status {
    /// Every legal move; all others are none. A test holds every decision against this table.
    pub const MOVES: &'static [(Status, Status)] = &[
        (Status::Unplaced, Status::Placed),
        (Status::Unplaced, Status::Rejected),
        (Status::Placed, Status::Paid),
        (Status::Placed, Status::Cancelled),
        (Status::Paid, Status::Picking),
        (Status::Paid, Status::Cancelled),
        (Status::Picking, Status::Shipped),
        (Status::Picking, Status::Cancelled),
        (Status::Shipped, Status::Completed),
    ];

    /// True if an order may go from here to `next`.
    #[must_use]
    pub fn may_become(self, next: Status) -> bool {
        Self::MOVES.contains(&(self, next))
    }
}

/// What is remembered of one order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// Tells a repeated request from another one; empty while unplaced.
    pub request_digest: String,
    /// What was ordered, while the order is open. An ended order says nothing more, so it keeps nothing more.
    pub order: Option<Order>,
    /// Facts that came early.
    pub noted: Noted,
    /// How many times the warehouse was asked to cancel it.
    pub cancel_requests: i32,
    /// The request that the warehouse has not answered yet.
    pub cancel_request: Option<CancelRequest>,
    /// What was said of what held it up.
    pub trouble: Trouble,
}

/// What was said of what held an order up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The customer knows that the parcel is late.
    pub delay_told: bool,
    /// The last dispatch attempt that a person was called for.
    pub dispatch_attempt: i32,
    /// The last refund attempt that a person was called for.
    pub refund_attempt: i32,
}

/// A request to cancel an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Its number, counted from 1 per order.
    pub number: i32,
    /// Who asked.
    pub requested_by: CancelRequester,
    /// Why.
    pub reason: String,
}

/// What an open order's events tell in full.
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

/// Facts that came before the one they follow from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The warehouse started to pick.
    pub picking_started: bool,
    /// The parcel is with the courier.
    pub dispatch: Option<Dispatch>,
    /// The points were awarded.
    pub points: Option<i64>,
}

/// Who has the parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// The courier.
    pub carrier: String,
    /// The parcel's number with that courier.
    pub tracking_number: String,
}

impl State {
    fn moved(self, status: Status) -> Self {
        Self { status, ..self }
    }

    fn ended(self, status: Status) -> Self {
        Self { status, order: None, noted: Noted::default(), cancel_request: None, ..self }
    }

    fn cancel_requested(self, event: &OrderCancellationRequested) -> Self {
        let open =
            CancelRequest { number: event.request, requested_by: event.requested_by, reason: event.reason.clone() };
        Self { cancel_requests: event.request, cancel_request: Some(open), ..self }
    }

    fn needing_attention(mut self, event: &OrderNeedsAttention) -> Self {
        match event.need {
            AttentionNeed::DispatchAbandoned => self.trouble.dispatch_attempt = event.attempt,
            AttentionNeed::RefundFailed => self.trouble.refund_attempt = event.attempt,
            AttentionNeed::Unknown => {}
        }
        self
    }

    fn noting(mut self, event: &OrderFactNoted) -> Self {
        match event.fact {
            NotedFact::PickingStarted => self.noted.picking_started = true,
            NotedFact::Dispatched => {
                self.noted.dispatch = Some(Dispatch {
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

/// Folds one event. Total: what was said is never argued with.
pub fn evolve(state: State, event: &Event) -> State {
    match event {
        Event::OrderPlaced(placed) => State {
            status: Status::Placed,
            request_digest: placed.request_digest.clone(),
            order: Some(Order::from(placed)),
            ..state
        },
        Event::OrderRejected(rejected) => {
            State { request_digest: rejected.request_digest.clone(), ..state.ended(Status::Rejected) }
        }
        Event::OrderPaid(_) => state.moved(Status::Paid),
        Event::OrderPicking(_) => state.moved(Status::Picking),
        Event::OrderShipped(_) => state.moved(Status::Shipped),
        Event::OrderCompleted(_) => state.ended(Status::Completed),
        Event::OrderCancelled(_) => state.ended(Status::Cancelled),
        Event::OrderDelayed(_) => State { trouble: Trouble { delay_told: true, ..state.trouble }, ..state },
        Event::OrderNeedsAttention(needed) => state.needing_attention(needed),
        Event::OrderCancellationRequested(requested) => state.cancel_requested(requested),
        Event::OrderCancellationRefused(_) => State { cancel_request: None, ..state },
        Event::OrderFactNoted(noted) => state.noting(noted),
        Event::CommandRefused(_) => state,
    }
}
