//! The state of an order or a customer: the fold of its own events.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::events::{Contact, Event, NotificationKind};

/// What is remembered of one order or customer.
///
/// ```text
///  a notification:  (none) ──> due ──> answered
///                               └────> dropped, once the customer is forgotten
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Mails that were requested and not answered yet.
    pub due: BTreeMap<String, DueMail>,
    /// Notifications that were answered or dropped. They are not requested again.
    pub answered: BTreeSet<String>,
    /// True if the customer was forgotten.
    pub stopped: bool,
}

/// A mail to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueMail {
    /// The customer it is for.
    pub customer_id: String,
    /// The order it is about, if any.
    pub order_id: Option<String>,
    /// Its kind.
    pub kind: NotificationKind,
    /// Its recipient.
    pub to: Contact,
    /// Its subject line.
    pub subject: String,
    /// Its plain text.
    pub body: String,
    /// When it was requested: the date of the mail, the same for every attempt.
    pub requested_at: i64,
}

/// Applies one event. Total: an event is never rejected.
pub fn evolve(mut state: State, event: &Event) -> State {
    match event {
        Event::NotificationRequested(requested) => {
            let mail = DueMail {
                customer_id: requested.customer_id.clone(),
                order_id: requested.order_id.clone(),
                kind: requested.kind,
                to: requested.to.clone(),
                subject: requested.subject.clone(),
                body: requested.body.clone(),
                requested_at: requested.occurred_at,
            };
            state.due.insert(requested.notification_id.clone(), mail);
        }
        Event::CustomerNotified(notified) => state.answer(&notified.notification_id),
        Event::NotificationAbandoned(abandoned) => state.answer(&abandoned.notification_id),
        Event::NotificationsStopped(_) => {
            let dropped = std::mem::take(&mut state.due);
            state.answered.extend(dropped.into_keys());
            state.stopped = true;
        }
    }
    state
}

impl State {
    fn answer(&mut self, notification_id: &str) {
        self.due.remove(notification_id);
        self.answered.insert(notification_id.to_owned());
    }

    /// True if a notification was requested before.
    #[must_use]
    pub fn knows(&self, notification_id: &str) -> bool {
        self.due.contains_key(notification_id) || self.answered.contains(notification_id)
    }
}
