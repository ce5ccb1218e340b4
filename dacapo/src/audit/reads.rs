//! The events that the audit consumes, with only the fields that it needs. It shares no type with the services.

use serde::Deserialize;

macro_rules! event_types {
    ($( $Name:ident { $( $field:ident: $Type:ty ),* $(,)? } )*) => { $(
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        pub(crate) struct $Name { $( pub(crate) $field: $Type, )* }
    )* };
}

event_types! {
    Money { amount_minor: i64, currency: String }

    OrderPlaced { order_id: String, total: Money }
    OrderRejected { order_id: String }
    OrderCompleted { order_id: String, total: Money }
    OrderCancellationRequested { order_id: String, request: i32 }
    OrderCancellationRefused { order_id: String, request: i32 }
    OrderCancelled { order_id: String }

    PaymentRequested { order_id: String, amount: Money }
    PaymentTaken { order_id: String, amount: Money }
    PaymentDeclined { order_id: String }
    PaymentAbandoned { order_id: String }
    PaymentVoided { order_id: String }
    PaymentRefunded { order_id: String, amount: Money }

    CancellationAccepted { order_id: String, request: i32 }
    CancellationRefused { order_id: String, request: i32 }
    DispatchAbandoned { order_id: String }
    OrderDispatched { order_id: String }
    StockReleased { order_id: String }
    GoodsReceived { sku: String, quantity: i32 }
    ItemHeld { sku: String, order_id: String, quantity: i32 }
    ItemShort { sku: String, free: i32 }
    ItemFreed { sku: String, order_id: String, quantity: i32 }
    ItemShipped { sku: String, order_id: String, quantity: i32 }
    StockWrittenOff { sku: String, order_id: String, quantity: i32 }

    PointsAwarded { order_id: String }
}

runtime::consumes! {
    /// The events that the audit adds up.
    pub(crate) enum AuditedEvent {
        events of "order-processor" {
            OrderPlaced, OrderRejected, OrderCompleted, OrderCancellationRequested, OrderCancellationRefused, OrderCancelled,
        }
        events of "payment" {
            PaymentRequested, PaymentTaken, PaymentDeclined, PaymentAbandoned, PaymentVoided, PaymentRefunded,
        }
        events of "warehouse" {
            CancellationAccepted, CancellationRefused, DispatchAbandoned, OrderDispatched, StockReleased, GoodsReceived, ItemHeld, ItemShort, ItemFreed, ItemShipped, StockWrittenOff,
        }
        events of "loyalty" { PointsAwarded }
    }
}
