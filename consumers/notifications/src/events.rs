//! What notifications says: every event on its own topic, as its schema has it.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// What notifications says.
    pub enum Event in "../../schemas" {
        events of "notifications" {
            NotificationRequested = 2,
            CustomerNotified = 2,
            NotificationAbandoned = 2,
            NotificationsStopped = 1,
        }
    }
}

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotificationKind {
    /// Somebody registered.
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
    /// Something that a later version tells of.
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

/// A customer is to be told something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRequested {
    /// The notification.
    pub notification_id: String,
    /// The customer it is for.
    pub customer_id: String,
    /// The order it is about, if any.
    pub order_id: Option<String>,
    /// What it is about.
    pub kind: NotificationKind,
    /// Whom the mail is for.
    pub to: Contact,
    /// The mail's subject line.
    pub subject: String,
    /// The mail's plain text.
    pub body: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// The mail was handed over at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerNotified {
    /// The notification.
    pub notification_id: String,
    /// The customer it is for.
    pub customer_id: String,
    /// The order it is about, if any.
    pub order_id: Option<String>,
    /// What it is about.
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
    /// What it is about.
    pub kind: NotificationKind,
    /// What the mail server or the address said.
    pub reason: String,
    /// When it was decided.
    pub occurred_at: i64,
}

/// A customer was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationsStopped {
    /// The customer.
    pub customer_id: String,
    /// When it was decided.
    pub occurred_at: i64,
}
