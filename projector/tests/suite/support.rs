//! Stories to fold: records as an order's services would leave them, with JSON bodies behind the frame.

use projector::{
    Declaration, View,
    record::{Bodies, Body, BodyError, Record},
};
use uuid::Uuid;

/// Everything of one record, owned.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at_ms: i64,
    pub(crate) key: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) value: Vec<u8>,
}

/// Opens the bodies that [`Log`] writes.
pub(crate) struct JsonBodies;

impl Bodies for JsonBodies {
    fn open(&self, value: &[u8]) -> Result<Body, BodyError> {
        let fields: serde_json::Value = serde_json::from_slice(value.get(5..).unwrap_or_default())
            .map_err(|error| BodyError::Unreadable(error.to_string()))?;
        let type_name = fields["type"].as_str().unwrap_or("unnamed").to_owned();
        Ok(Body { type_name, fields })
    }
}

impl Said {
    pub(crate) fn fold_into(&self, view: &mut View) {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let record = Record {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            at_ms: self.at_ms,
            key: Some(self.key.as_bytes()),
            headers: &headers,
            value: Some(&self.value),
            readable: true,
        };
        view.fold(&record, self.topic.starts_with("dlq."), &JsonBodies).expect("bodies are at hand");
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }
}

/// Several topics that are written to in turn, one partition each.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) said: Vec<Said>,
    sequences: std::collections::BTreeMap<(String, String), u32>,
    offsets: std::collections::BTreeMap<String, i64>,
}

/// In the past, as brokers ask of records: one from the future is refused.
pub(crate) const START_MS: i64 = 1_700_000_000_000;

impl Log {
    /// Says an event about an order. `event` is `service/Record` or `service/Record:value`, the value being its kind or reason.
    pub(crate) fn say(&mut self, order: &str, at_ms: i64, event: &str) -> &mut Self {
        let cause = self.said.iter().rev().find(|said| said.key == order).and_then(|said| header(said, "ce_id"));
        let (service, rest) = event.split_once('/').expect("service/Record");
        let (record, value) = rest.split_once(':').unwrap_or((rest, ""));
        let topic = format!("musiccorp.{service}.events");
        let offset = self.offsets.entry(topic.clone()).or_default();
        let sequence = self.sequences.entry((order.to_owned(), service.to_owned())).or_default();
        *sequence += 1;
        let full_name = format!("com.musiccorp.{}.{record}", service.replace('-', "_"));
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{order}/{event}/{sequence}").as_bytes());
        let mut headers = vec![
            ("content-type", "application/avro".to_owned()),
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", id.to_string()),
            ("ce_source", format!("/musiccorp/{service}")),
            ("ce_type", full_name.clone()),
            ("ce_correlationid", order.to_owned()),
            ("ce_sequence", sequence.to_string()),
            ("ce_build", "test".to_owned()),
        ];
        headers.extend(cause.map(|cause| ("ce_causationid", cause)));
        let body = serde_json::json!({"type": full_name, "order_id": order, "kind": value, "reason": value});
        let mut bytes = vec![0, 0, 0, 0, 7];
        bytes.extend(body.to_string().into_bytes());
        self.said.push(Said {
            topic,
            partition: 0,
            offset: *offset,
            at_ms: START_MS + at_ms,
            key: order.to_owned(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            value: bytes,
        });
        // Transaction markers take offsets too.
        *offset += 2;
        self
    }

    /// Says several events, ten milliseconds apart.
    pub(crate) fn tell(&mut self, order: &str, events: &[&str]) -> &mut Self {
        let start_ms = i64::try_from(self.said.len()).expect("few") * 10;
        for (at_ms, event) in (start_ms..).step_by(10).zip(events) {
            self.say(order, at_ms, event);
        }
        self
    }

    /// A copy of what was said last, in a dead-letter topic.
    pub(crate) fn bury_last(&mut self, group: &str) -> &mut Self {
        let mut letter = self.said.last().expect("something was said").clone();
        letter.topic = format!("dlq.{group}");
        letter.offset = 0;
        letter.at_ms += 5;
        self.said.push(letter.with_header("__dlq.errors.group", group));
        self
    }

    pub(crate) fn view(&self) -> View {
        folded(&self.said)
    }
}

pub(crate) fn header(said: &Said, name: &str) -> Option<String> {
    said.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

pub(crate) fn shipped() -> Vec<Declaration> {
    Declaration::shipped().expect("the shipped declarations are in order")
}

/// A view of these records, committed at the last one's time.
pub(crate) fn folded<'a>(said: impl IntoIterator<Item = &'a Said>) -> View {
    let mut view = View::new(&shipped(), 1).expect("the shipped declarations go together");
    let mut last_ms = 0;
    for said in said {
        said.fold_into(&mut view);
        last_ms = last_ms.max(said.at_ms);
    }
    view.commit(last_ms);
    view
}

pub(crate) const COMPLETED: [&str; 21] = [
    "order-processor/OrderPlaced",
    "payment/PaymentAwaited",
    "warehouse/ReservationStarted",
    "warehouse/LineHeld",
    "warehouse/StockReserved",
    "payment/PaymentRequested",
    "payment/PaymentTaken",
    "order-processor/OrderPaid",
    "notifications/NotificationRequested:ORDER_PAID",
    "warehouse/PickingStarted",
    "order-processor/OrderPicking",
    "notifications/CustomerNotified:ORDER_PAID",
    "warehouse/OrderPackaged",
    "warehouse/OrderDispatched",
    "order-processor/OrderShipped",
    "notifications/NotificationRequested:ORDER_SHIPPED",
    "loyalty/PointsAwarded",
    "order-processor/OrderCompleted",
    "notifications/CustomerNotified:ORDER_SHIPPED",
    "warehouse/ItemShipped",
    "elsewhere/OrderAudited",
];

pub(crate) const LOST: [&str; 19] = [
    "order-processor/OrderPlaced",
    "warehouse/ReservationStarted",
    "warehouse/StockReserved",
    "payment/PaymentRequested",
    "payment/PaymentTaken",
    "order-processor/OrderPaid",
    "notifications/NotificationRequested:ORDER_PAID",
    "notifications/CustomerNotified:ORDER_PAID",
    "warehouse/PickingStarted",
    "warehouse/PackagingFailed",
    "order-processor/OrderCancelled:LOST_AT_PACKAGING",
    "payment/RefundRequested",
    "warehouse/ReleaseStarted",
    "warehouse/StockWrittenOff",
    "warehouse/StockReleased",
    "notifications/NotificationRequested:ORDER_CANCELLED",
    "payment/PaymentRefunded",
    "notifications/CustomerNotified:ORDER_CANCELLED",
    "elsewhere/OrderAudited",
];

pub(crate) const SHORT: [&str; 9] = [
    "order-processor/OrderPlaced",
    "payment/PaymentAwaited",
    "warehouse/ReservationStarted",
    "warehouse/StockShort",
    "order-processor/OrderCancelled:OUT_OF_STOCK",
    "warehouse/StockReleased",
    "payment/PaymentVoided",
    "notifications/NotificationRequested:ORDER_CANCELLED",
    "notifications/CustomerNotified:ORDER_CANCELLED",
];

pub(crate) const DECLINED: [&str; 9] = [
    "order-processor/OrderPlaced",
    "warehouse/ReservationStarted",
    "warehouse/StockReserved",
    "payment/PaymentRequested",
    "payment/PaymentDeclined",
    "order-processor/OrderCancelled:PAYMENT_DECLINED",
    "warehouse/StockReleased",
    "notifications/NotificationRequested:ORDER_CANCELLED",
    "notifications/CustomerNotified:ORDER_CANCELLED",
];
