//! The events of notifications, as their schemas define them.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The events that notifications produces.
    pub enum Event in "../../schemas" {
        events of "notifications" {
            NotificationRequested = 2,
            CustomerNotified = 2,
            NotificationAbandoned = 2,
            NotificationsStopped = 1,
        }
    }
}

/// The kind of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotificationKind {
    /// A customer registered.
    Welcome,
    /// The money for an order was taken.
    OrderPaid,
    /// A parcel is with the courier.
    OrderShipped,
    /// An order will not be fulfilled.
    OrderCancelled,
    /// The courier does not take a parcel yet.
    OrderDelayed,
    /// It was too late to cancel an order.
    OrderCancellationRefused,
    /// A kind that only a later version knows.
    #[serde(other)]
    Unknown,
}

/// How a customer is addressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The name as the customer wrote it.
    pub name: String,
    /// The address that mail goes to.
    pub email: String,
}

/// A notification of a customer was requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRequested {
    /// The notification.
    pub notification_id: String,
    /// The customer it is for.
    pub customer_id: String,
    /// The order it is about, if any.
    pub order_id: Option<String>,
    /// Its kind.
    pub kind: NotificationKind,
    /// The recipient.
    pub to: Contact,
    /// The mail's subject line.
    pub subject: String,
    /// The mail's plain text.
    pub body: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The mail was sent at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerNotified {
    /// The notification.
    pub notification_id: String,
    /// The customer it is for.
    pub customer_id: String,
    /// The order it is about, if any.
    pub order_id: Option<String>,
    /// Its kind.
    pub kind: NotificationKind,
    /// The mail's Message-ID.
    pub message_id: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The mail can never be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationAbandoned {
    /// The notification.
    pub notification_id: String,
    /// The customer it is for.
    pub customer_id: String,
    /// The order it is about, if any.
    pub order_id: Option<String>,
    /// Its kind.
    pub kind: NotificationKind,
    /// The reason of the mail server, or the fault of the address.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// Notifications of a forgotten customer stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationsStopped {
    /// The customer.
    pub customer_id: String,
    /// When it was decided.
    pub occurred_at: i64,
}
