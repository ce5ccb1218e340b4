//! Where each order stands, for whoever asks over HTTP: a fold of the own events topic. Never asked by a decision.
//!
//! Kept small, because it holds every order there ever was: no lines, no personal data.

use std::collections::HashMap;

use runtime::{
    codec::Vocabulary,
    projection::{LogRecord, Projection},
};
use serde::{Deserialize, Serialize};

use crate::events::{CancelReason, Money, RejectReason};

runtime::consumes! {
    /// The own events, as far as the edge needs them.
    pub enum Told {
        events of "order-processor" {
            OrderPlaced, OrderRejected, OrderPaid, OrderPicking, OrderShipped, OrderCompleted, OrderCancelled,
            OrderDelayed, OrderCancellationRequested, OrderCancellationRefused,
        }
    }
}

macro_rules! told {
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

told! {
    /// Accepted.
    OrderPlaced { customer_id: String, total: Money, request_digest: String }
    /// Not accepted.
    OrderRejected { customer_id: String, reason: RejectReason, detail: String, request_digest: String }
    /// The money was taken.
    OrderPaid {}
    /// The warehouse is at it.
    OrderPicking {}
    /// The parcel is gone.
    OrderShipped { carrier: String, tracking_number: String }
    /// The good end.
    OrderCompleted { points_awarded: i64 }
    /// The bad end.
    OrderCancelled { reason: CancelReason, detail: String }
    /// The courier has not taken the parcel yet.
    OrderDelayed { reason: String }
    /// Somebody wants it cancelled.
    OrderCancellationRequested {}
    /// It goes on all the same.
    OrderCancellationRefused { reason: String }
}

/// Where one order stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Who ordered.
    pub customer_id: String,
    /// What it costs; `None` if it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
    /// How far it got, with what there is to say about that.
    #[serde(flatten)]
    pub stage: Stage,
    /// Why its parcel is late, until the courier has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delayed: Option<String>,
    /// The last request to cancel it, if it goes on in spite of one or until one is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation: Option<Cancellation>,
    /// When it was answered, in milliseconds since the epoch.
    pub placed_at: i64,
    /// When it last changed.
    pub changed_at: i64,
    /// Tells a repeated request from another one.
    #[serde(skip)]
    pub request_digest: String,
}

/// How a request to cancel an order stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Cancellation {
    /// The warehouse has not answered yet.
    Requested,
    /// It came too late.
    Refused {
        /// Why, for a person.
        reason: String,
    },
}

/// How far an order got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Stage {
    /// Accepted.
    Placed,
    /// Not accepted.
    Rejected {
        /// The rule that was broken.
        reason: RejectReason,
        /// What broke it.
        detail: String,
    },
    /// The money was taken.
    Paid,
    /// The warehouse is at it.
    Picking,
    /// The parcel is gone.
    Shipped {
        /// The courier.
        carrier: String,
        /// The parcel's number.
        tracking_number: String,
    },
    /// The good end.
    Completed {
        /// The loyalty points.
        points_awarded: i64,
    },
    /// The bad end.
    Cancelled {
        /// What stopped it.
        reason: CancelReason,
        /// What stopped it, for a person.
        detail: String,
    },
}

/// Every order.
#[derive(Debug)]
pub struct Standings {
    vocabulary: Vocabulary<Told>,
    orders: HashMap<String, Standing>,
}

impl Standings {
    /// The orders of a system, before anything was heard.
    #[must_use]
    pub fn new(system: &str) -> Self {
        Self { vocabulary: Vocabulary::new(system), orders: HashMap::new() }
    }

    /// Where an order stands; `None` if nobody answered it yet.
    #[must_use]
    pub fn get(&self, order_id: &str) -> Option<&Standing> {
        self.orders.get(order_id)
    }

    /// How many orders were answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// True if no order was answered yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Folds one event in.
    pub fn hear(&mut self, event: Told) {
        match event {
            Told::OrderPlaced(told) => self.answered(
                told.order_id,
                told.customer_id,
                Some(told.total),
                Stage::Placed,
                told.request_digest,
                told.occurred_at,
            ),
            Told::OrderRejected(told) => {
                let stage = Stage::Rejected { reason: told.reason, detail: told.detail };
                self.answered(told.order_id, told.customer_id, None, stage, told.request_digest, told.occurred_at);
            }
            Told::OrderPaid(told) => self.moved(&told.order_id, Stage::Paid, told.occurred_at),
            Told::OrderPicking(told) => self.moved(&told.order_id, Stage::Picking, told.occurred_at),
            Told::OrderShipped(told) => {
                let stage = Stage::Shipped { carrier: told.carrier, tracking_number: told.tracking_number };
                self.moved(&told.order_id, stage, told.occurred_at);
            }
            Told::OrderCompleted(told) => {
                let stage = Stage::Completed { points_awarded: told.points_awarded };
                self.moved(&told.order_id, stage, told.occurred_at);
            }
            Told::OrderCancelled(told) => {
                let stage = Stage::Cancelled { reason: told.reason, detail: told.detail };
                self.moved(&told.order_id, stage, told.occurred_at);
                self.cancellation(&told.order_id, None, told.occurred_at);
            }
            Told::OrderDelayed(told) => {
                self.change(&told.order_id, told.occurred_at, |standing| standing.delayed = Some(told.reason));
            }
            Told::OrderCancellationRequested(told) => {
                self.cancellation(&told.order_id, Some(Cancellation::Requested), told.occurred_at);
            }
            Told::OrderCancellationRefused(told) => {
                let refused = Cancellation::Refused { reason: told.reason };
                self.cancellation(&told.order_id, Some(refused), told.occurred_at);
            }
        }
    }

    fn answered(
        &mut self,
        order_id: String,
        customer_id: String,
        total: Option<Money>,
        stage: Stage,
        request_digest: String,
        at: i64,
    ) {
        let standing = Standing {
            customer_id,
            total,
            stage,
            delayed: None,
            cancellation: None,
            placed_at: at,
            changed_at: at,
            request_digest,
        };
        self.orders.insert(order_id, standing);
    }

    fn moved(&mut self, order_id: &str, stage: Stage, at: i64) {
        let is_late = matches!(stage, Stage::Placed | Stage::Paid | Stage::Picking);
        self.change(order_id, at, |standing| {
            standing.stage = stage;
            standing.delayed.take_if(|_| !is_late);
        });
    }

    fn cancellation(&mut self, order_id: &str, cancellation: Option<Cancellation>, at: i64) {
        self.change(order_id, at, |standing| standing.cancellation = cancellation);
    }

    fn change(&mut self, order_id: &str, at: i64, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.orders.get_mut(order_id) {
            change(standing);
            standing.changed_at = at;
        }
    }
}

impl Projection for Standings {
    fn apply(&mut self, record: &LogRecord<'_>) {
        // A body that cannot be read was counted where it was decoded.
        if let Some(decoded) = record.decoded()
            && let Ok(Some(event)) = self.vocabulary.read(&decoded)
        {
            self.hear(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ORDER: &str = "order-1";

    fn placed() -> Told {
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

    fn shown(events: impl IntoIterator<Item = Told>) -> serde_json::Value {
        let mut standings = Standings::new("musiccorp");
        for event in events {
            standings.hear(event);
        }
        serde_json::to_value(standings.get(ORDER)).unwrap()
    }

    #[test]
    fn an_order_shows_how_far_it_got() {
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
        assert_eq!(shown([placed(), shipped.into()]), expected);
    }

    #[test]
    fn a_rejected_order_shows_why() {
        let rejected = OrderRejected {
            order_id: ORDER.to_owned(),
            customer_id: "customer-1".to_owned(),
            reason: RejectReason::UnknownSku,
            detail: "nobody lists the sku LP-9".to_owned(),
            request_digest: "d".to_owned(),
            occurred_at: 1,
        };
        let expected = json!({
            "customer_id": "customer-1",
            "status": "rejected",
            "reason": "UNKNOWN_SKU",
            "detail": "nobody lists the sku LP-9",
            "placed_at": 1,
            "changed_at": 1,
        });
        assert_eq!(shown([rejected.into()]), expected);
    }

    #[test]
    fn a_request_to_cancel_is_shown_until_the_order_is_cancelled() {
        let order_id = || ORDER.to_owned();
        let requested = Told::from(OrderCancellationRequested { order_id: order_id(), occurred_at: 2 });
        let reason = "the parcel is packed".to_owned();
        let refused = OrderCancellationRefused { order_id: order_id(), reason, occurred_at: 3 };
        let (reason, detail) = (CancelReason::CustomerRequest, "the customer asked".to_owned());
        let cancelled = OrderCancelled { order_id: order_id(), reason, detail, occurred_at: 4 };
        let cancellation = |events: Vec<Told>| shown([placed()].into_iter().chain(events))["cancellation"].take();
        assert_eq!(cancellation(vec![]), json!(null));
        assert_eq!(cancellation(vec![requested.clone()]), json!({ "status": "requested" }));
        let expected = json!({ "status": "refused", "reason": "the parcel is packed" });
        assert_eq!(cancellation(vec![requested.clone(), refused.into()]), expected);
        assert_eq!(cancellation(vec![requested, cancelled.into()]), json!(null));
    }

    #[test]
    fn an_order_that_nobody_answered_is_not_shown() {
        let paid = OrderPaid { order_id: ORDER.to_owned(), occurred_at: 2 };
        assert_eq!(shown([paid.into()]), json!(null));
    }
}
