//! Records to fold, as the services of an order would write them, with JSON bodies behind the frame.

use projector::{
    Declaration, SagaView,
    record::{BodyDecoder, BodyError, DecodedBody, ProjectedRecord},
};
use uuid::Uuid;

/// One record, owned.
#[derive(Debug, Clone)]
pub(crate) struct TestRecord {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at_ms: i64,
    pub(crate) key: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) value: Vec<u8>,
}

/// Decodes the bodies that [`Log`] writes.
pub(crate) struct JsonBodyDecoder;

impl BodyDecoder for JsonBodyDecoder {
    fn decode(&self, value: &[u8]) -> Result<DecodedBody, BodyError> {
        let fields: serde_json::Value = serde_json::from_slice(value.get(5..).unwrap_or_default())
            .map_err(|error| BodyError::Unreadable(error.to_string()))?;
        let type_name = fields["type"].as_str().unwrap_or("unnamed").to_owned();
        Ok(DecodedBody { type_name, fields })
    }
}

impl TestRecord {
    pub(crate) fn fold_into(&self, view: &mut SagaView) {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let record = ProjectedRecord {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            at_ms: self.at_ms,
            key: Some(self.key.as_bytes()),
            headers: &headers,
            value: Some(&self.value),
            readable: true,
        };
        view.fold(&record, self.topic.starts_with("dlq."), &JsonBodyDecoder).expect("bodies are available");
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

/// Several topics with one partition each.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<TestRecord>,
    sequences: std::collections::BTreeMap<(String, String), u32>,
    offsets: std::collections::BTreeMap<String, i64>,
}

/// In the past, because a broker refuses records from the future.
pub(crate) const START_MS: i64 = 1_700_000_000_000;

impl Log {
    /// Appends an event of an order. `event` is `service/Record` or `service/Record:value`; the value is its kind or reason.
    pub(crate) fn append(&mut self, order: &str, at_ms: i64, event: &str) -> &mut Self {
        let cause =
            self.records.iter().rev().find(|record| record.key == order).and_then(|record| header(record, "ce_id"));
        let (service, rest) = event.split_once('/').expect("service/ProjectedRecord");
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
        self.records.push(TestRecord {
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

    /// Appends several events, ten milliseconds apart.
    pub(crate) fn append_all(&mut self, order: &str, events: &[&str]) -> &mut Self {
        let start_ms = i64::try_from(self.records.len()).expect("few") * 10;
        for (at_ms, event) in (start_ms..).step_by(10).zip(events) {
            self.append(order, at_ms, event);
        }
        self
    }

    /// Appends a copy of the last record to a dead-letter topic.
    pub(crate) fn dead_letter_last(&mut self, group: &str) -> &mut Self {
        let mut copy = self.records.last().expect("the log has a record").clone();
        copy.topic = format!("dlq.{group}");
        copy.offset = 0;
        copy.at_ms += 5;
        self.records.push(copy.with_header("__dlq.errors.group", group));
        self
    }

    pub(crate) fn view(&self) -> SagaView {
        folded(&self.records)
    }
}

pub(crate) fn header(record: &TestRecord, name: &str) -> Option<String> {
    record.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

pub(crate) fn shipped() -> Vec<Declaration> {
    Declaration::shipped().expect("the shipped declarations are in order")
}

/// A view of these records, committed at the time of the last one.
pub(crate) fn folded<'a>(record: impl IntoIterator<Item = &'a TestRecord>) -> SagaView {
    let mut view = SagaView::new(&shipped(), 1).expect("the shipped declarations go together");
    let mut last_ms = 0;
    for record in record {
        record.fold_into(&mut view);
        last_ms = last_ms.max(record.at_ms);
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
