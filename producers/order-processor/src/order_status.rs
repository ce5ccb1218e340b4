//! The status of each order for queries over HTTP: a fold of the own events topic. No decision reads it.
//!
//! Kept small, because it has every order: no lines, no personal data.

use std::collections::HashMap;

use runtime::{
    codec::Vocabulary,
    projection::{LogRecord, Projection},
};
use serde::{Deserialize, Serialize};

use crate::events::{CancelReason, Money, RejectReason};

runtime::consumes! {
    /// The own events that the statuses are folded from.
    pub enum OwnEvent {
        events of "order-processor" {
            OrderPlaced, OrderRejected, OrderPaid, OrderPicking, OrderShipped, OrderCompleted, OrderCancelled,
            OrderDelayed, OrderCancellationRequested, OrderCancellationRefused,
        }
    }
}

macro_rules! own_events {
    ($( $(#[$meta:meta])* $Name:ident { $( $field:ident: $type:ty ),* } )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        pub struct $Name {
            /// The order.
            pub order_id: String,
            $(
                #[doc = concat!("Its `", stringify!($field), "`.")]
                pub $field: $type,
            )*
            /// When it was decided.
            pub occurred_at: i64,
        }
    )* };
}

own_events! {
    /// Accepted.
    OrderPlaced { customer_id: String, total: Money, request_digest: String }
    /// Not accepted.
    OrderRejected { customer_id: String, reason: RejectReason, detail: String, request_digest: String }
    /// The money was taken.
    OrderPaid {}
    /// The warehouse is picking.
    OrderPicking {}
    /// The courier has the parcel.
    OrderShipped { carrier: String, tracking_number: String }
    /// Fulfilled.
    OrderCompleted { points_awarded: i64 }
    /// Cancelled.
    OrderCancelled { reason: CancelReason, detail: String }
    /// The courier has not taken the parcel yet.
    OrderDelayed { reason: String }
    /// Its cancellation was requested.
    OrderCancellationRequested {}
    /// The request was refused.
    OrderCancellationRefused { reason: String }
}

/// The status of one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderStatus {
    /// The customer.
    pub customer_id: String,
    /// What it costs; `None` if it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
    /// Its progress, with details.
    #[serde(flatten)]
    pub progress: OrderProgress,
    /// Why its parcel is late, until the courier has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delayed: Option<String>,
    /// The last request to cancel it, while it is open or after it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation: Option<CancellationStatus>,
    /// When its request was answered, in milliseconds since the epoch.
    pub placed_at: i64,
    /// When it last changed.
    pub changed_at: i64,
    /// Identifies the request.
    #[serde(skip)]
    pub request_digest: String,
}

/// The status of a request to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum CancellationStatus {
    /// The warehouse has not answered yet.
    Requested,
    /// It came too late.
    Refused {
        /// Why, for a person.
        reason: String,
    },
}

/// The progress of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum OrderProgress {
    /// Accepted.
    Placed,
    /// Not accepted.
    Rejected {
        /// The rule that the request violates.
        reason: RejectReason,
        /// The violating value.
        detail: String,
    },
    /// The money was taken.
    Paid,
    /// The warehouse is picking.
    Picking,
    /// The courier has the parcel.
    Shipped {
        /// The courier.
        carrier: String,
        /// The parcel's number.
        tracking_number: String,
    },
    /// Fulfilled.
    Completed {
        /// The loyalty points.
        points_awarded: i64,
    },
    /// Cancelled.
    Cancelled {
        /// The cause.
        reason: CancelReason,
        /// The cause, for a person.
        detail: String,
    },
}

/// The statuses of all orders.
#[derive(Debug)]
pub struct OrderStatuses {
    vocabulary: Vocabulary<OwnEvent>,
    orders: HashMap<String, OrderStatus>,
}

impl OrderStatuses {
    /// The statuses of a system, before any event.
    #[must_use]
    pub fn new(system: &str) -> Self {
        Self { vocabulary: Vocabulary::new(system), orders: HashMap::new() }
    }

    /// The status of an order; `None` if its request has no answer yet.
    #[must_use]
    pub fn get(&self, order_id: &str) -> Option<&OrderStatus> {
        self.orders.get(order_id)
    }

    /// The number of orders.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// True if there is no order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Folds one event.
    pub fn apply_event(&mut self, event: OwnEvent) {
        match event {
            OwnEvent::OrderPlaced(event) => self.answered(
                event.order_id,
                event.customer_id,
                Some(event.total),
                OrderProgress::Placed,
                event.request_digest,
                event.occurred_at,
            ),
            OwnEvent::OrderRejected(event) => {
                let progress = OrderProgress::Rejected { reason: event.reason, detail: event.detail };
                self.answered(
                    event.order_id,
                    event.customer_id,
                    None,
                    progress,
                    event.request_digest,
                    event.occurred_at,
                );
            }
            OwnEvent::OrderPaid(event) => self.moved(&event.order_id, OrderProgress::Paid, event.occurred_at),
            OwnEvent::OrderPicking(event) => self.moved(&event.order_id, OrderProgress::Picking, event.occurred_at),
            OwnEvent::OrderShipped(event) => {
                let progress =
                    OrderProgress::Shipped { carrier: event.carrier, tracking_number: event.tracking_number };
                self.moved(&event.order_id, progress, event.occurred_at);
            }
            OwnEvent::OrderCompleted(event) => {
                let progress = OrderProgress::Completed { points_awarded: event.points_awarded };
                self.moved(&event.order_id, progress, event.occurred_at);
            }
            OwnEvent::OrderCancelled(event) => {
                let progress = OrderProgress::Cancelled { reason: event.reason, detail: event.detail };
                self.moved(&event.order_id, progress, event.occurred_at);
                self.cancellation(&event.order_id, None, event.occurred_at);
            }
            OwnEvent::OrderDelayed(event) => {
                self.change(&event.order_id, event.occurred_at, |status| status.delayed = Some(event.reason));
            }
            OwnEvent::OrderCancellationRequested(event) => {
                self.cancellation(&event.order_id, Some(CancellationStatus::Requested), event.occurred_at);
            }
            OwnEvent::OrderCancellationRefused(event) => {
                let refused = CancellationStatus::Refused { reason: event.reason };
                self.cancellation(&event.order_id, Some(refused), event.occurred_at);
            }
        }
    }

    fn answered(
        &mut self,
        order_id: String,
        customer_id: String,
        total: Option<Money>,
        progress: OrderProgress,
        request_digest: String,
        at: i64,
    ) {
        let status = OrderStatus {
            customer_id,
            total,
            progress,
            delayed: None,
            cancellation: None,
            placed_at: at,
            changed_at: at,
            request_digest,
        };
        self.orders.insert(order_id, status);
    }

    fn moved(&mut self, order_id: &str, progress: OrderProgress, at: i64) {
        let is_late = matches!(progress, OrderProgress::Placed | OrderProgress::Paid | OrderProgress::Picking);
        self.change(order_id, at, |status| {
            status.progress = progress;
            status.delayed.take_if(|_| !is_late);
        });
    }

    fn cancellation(&mut self, order_id: &str, cancellation: Option<CancellationStatus>, at: i64) {
        self.change(order_id, at, |status| status.cancellation = cancellation);
    }

    fn change(&mut self, order_id: &str, at: i64, change: impl FnOnce(&mut OrderStatus)) {
        if let Some(status) = self.orders.get_mut(order_id) {
            change(status);
            status.changed_at = at;
        }
    }
}

impl Projection for OrderStatuses {
    fn apply(&mut self, record: &LogRecord<'_>) {
        // The decoder has counted a body that cannot be read.
        if let Some(decoded) = record.decoded()
            && let Ok(Some(event)) = self.vocabulary.read(&decoded)
        {
            self.apply_event(event);
        }
    }

    fn reset(&mut self) -> bool {
        self.orders.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ORDER: &str = "order-1";

    fn placed() -> OwnEvent {
        let total = Money { amount_minor: 6497, currency: "EUR".to_owned() };
        OrderPlaced {
            order_id: ORDER.to_owned(),
            customer_id: "customer-1".to_owned(),
            total,
            request_digest: "d".to_owned(),
            occurred_at: 1,
        }
        .into()
    }

    fn status_after(events: impl IntoIterator<Item = OwnEvent>) -> serde_json::Value {
        let mut statuses = OrderStatuses::new("musiccorp");
        for event in events {
            statuses.apply_event(event);
        }
        serde_json::to_value(statuses.get(ORDER)).unwrap()
    }

    #[test]
    fn a_status_shows_the_progress_of_its_order() {
        let shipped = OrderShipped {
            order_id: ORDER.to_owned(),
            carrier: "Parcelwing".to_owned(),
            tracking_number: "PW-1".to_owned(),
            occurred_at: 5,
        };
        let expected = json!({
            "customer_id": "customer-1",
            "total": { "amount_minor": 6497, "currency": "EUR" },
            "status": "shipped",
            "carrier": "Parcelwing",
            "tracking_number": "PW-1",
            "placed_at": 1,
            "changed_at": 5,
        });
        assert_eq!(status_after([placed(), shipped.into()]), expected);
    }

    #[test]
    fn the_status_of_a_rejected_order_has_the_reason() {
        let rejected = OrderRejected {
            order_id: ORDER.to_owned(),
            customer_id: "customer-1".to_owned(),
            reason: RejectReason::UnknownSku,
            detail: "the catalogue does not list the sku LP-9".to_owned(),
            request_digest: "d".to_owned(),
            occurred_at: 1,
        };
        let expected = json!({
            "customer_id": "customer-1",
            "status": "rejected",
            "reason": "UNKNOWN_SKU",
            "detail": "the catalogue does not list the sku LP-9",
            "placed_at": 1,
            "changed_at": 1,
        });
        assert_eq!(status_after([rejected.into()]), expected);
    }

    #[test]
    fn a_request_to_cancel_is_shown_until_the_order_is_cancelled() {
        let order_id = || ORDER.to_owned();
        let requested = OwnEvent::from(OrderCancellationRequested { order_id: order_id(), occurred_at: 2 });
        let reason = "the parcel is packed".to_owned();
        let refused = OrderCancellationRefused { order_id: order_id(), reason, occurred_at: 3 };
        let (reason, detail) = (CancelReason::CustomerRequest, "the customer asked".to_owned());
        let cancelled = OrderCancelled { order_id: order_id(), reason, detail, occurred_at: 4 };
        let cancellation =
            |events: Vec<OwnEvent>| status_after([placed()].into_iter().chain(events))["cancellation"].take();
        assert_eq!(cancellation(vec![]), json!(null));
        assert_eq!(cancellation(vec![requested.clone()]), json!({ "status": "requested" }));
        let expected = json!({ "status": "refused", "reason": "the parcel is packed" });
        assert_eq!(cancellation(vec![requested.clone(), refused.into()]), expected);
        assert_eq!(cancellation(vec![requested, cancelled.into()]), json!(null));
    }

    #[test]
    fn an_order_without_an_answer_has_no_status() {
        let paid = OrderPaid { order_id: ORDER.to_owned(), occurred_at: 2 };
        assert_eq!(status_after([paid.into()]), json!(null));
    }
}
