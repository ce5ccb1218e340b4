//! How notifications decides. Pure.
//!
//! | heard | first time | again | after CustomerForgotten |
//! |---|---|---|---|
//! | CustomerRegistered, OrderPaid, OrderDelayed, OrderShipped, OrderCancelled | NotificationRequested | – | – |
//! | OrderCancellationRefused, if the customer had asked | NotificationRequested | – | – |
//! | MailSent | CustomerNotified | – | – |
//! | MailRefused | NotificationAbandoned | – | – |
//! | CustomerForgotten | NotificationsStopped | – | – |

use runtime::{Decision, Received, TimestampMs};
use uuid::Uuid;

use crate::{
    events::{
        Contact, CustomerNotified, Event, NotificationAbandoned, NotificationKind, NotificationRequested,
        NotificationsStopped,
    },
    evolve::State,
    inbox::Command,
    reads::{self, CancelRequester, Input},
    templates::{self, Mail},
};

/// What notification ids are made under.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1c_8f0e_52a7_4b39_9c64_e0b7_31d8_a5f2);

/// The id of the one notification of a kind about an order or a customer. It names files and mails, so nothing of an event's text
/// is in it.
#[must_use]
pub fn notification_id(entity: &str, kind: NotificationKind) -> String {
    Uuid::new_v5(&NAMESPACE, format!("{kind:?} {entity}").as_bytes()).to_string()
}

/// Decides what comes of an input.
pub fn decide(state: &State, input: &Received<Input>) -> Decision<Event, Command> {
    let at = input.at_ms;
    let event = match &input.body {
        Input::CustomerForgotten(fact) if !state.stopped => {
            Some(NotificationsStopped { customer_id: fact.customer_id.clone(), occurred_at: at }.into())
        }
        Input::CustomerForgotten(_) => None,
        Input::MailSent(answer) => sent(state, &answer.notification_id, &answer.message_id, at),
        Input::MailRefused(answer) => refused(state, &answer.notification_id, &answer.reason, at),
        Input::CustomerRegistered(fact) => {
            let about = About { customer_id: &fact.customer_id, order_id: None, contact: &fact.contact };
            tell(state, NotificationKind::Welcome, &about, at, || templates::welcome(fact))
        }
        Input::OrderPaid(fact) => {
            let about = About::order(&fact.order_id, &fact.customer_id, &fact.contact);
            tell(state, NotificationKind::OrderPaid, &about, at, || templates::order_paid(fact))
        }
        Input::OrderDelayed(fact) => {
            let about = About::order(&fact.order_id, &fact.customer_id, &fact.contact);
            tell(state, NotificationKind::OrderDelayed, &about, at, || templates::order_delayed(fact))
        }
        Input::OrderShipped(fact) => {
            let about = About::order(&fact.order_id, &fact.customer_id, &fact.contact);
            tell(state, NotificationKind::OrderShipped, &about, at, || templates::order_shipped(fact))
        }
        Input::OrderCancellationRefused(fact) if fact.requested_by == CancelRequester::Customer => {
            let about = About::order(&fact.order_id, &fact.customer_id, &fact.contact);
            tell(state, NotificationKind::OrderCancellationRefused, &about, at, || {
                templates::order_cancellation_refused(fact)
            })
        }
        Input::OrderCancellationRefused(_) => None,
        Input::OrderCancelled(fact) => {
            let about = About::order(&fact.order_id, &fact.customer_id, &fact.contact);
            tell(state, NotificationKind::OrderCancelled, &about, at, || templates::order_cancelled(fact))
        }
    };
    Decision { events: event.into_iter().collect(), commands: Vec::new() }
}

/// Whom a mail is for and what it is about.
struct About<'a> {
    customer_id: &'a str,
    order_id: Option<&'a str>,
    contact: &'a reads::Contact,
}

impl<'a> About<'a> {
    fn order(order_id: &'a str, customer_id: &'a str, contact: &'a reads::Contact) -> Self {
        Self { customer_id, order_id: Some(order_id), contact }
    }
}

fn tell(
    state: &State,
    kind: NotificationKind,
    about: &About<'_>,
    at: TimestampMs,
    mail: impl FnOnce() -> Mail,
) -> Option<Event> {
    let notification_id = notification_id(about.order_id.unwrap_or(about.customer_id), kind);
    if state.stopped || state.knows(&notification_id) {
        return None;
    }
    let Mail { subject, body } = mail();
    Some(
        NotificationRequested {
            notification_id,
            customer_id: about.customer_id.to_owned(),
            order_id: about.order_id.map(str::to_owned),
            kind,
            to: Contact { name: about.contact.name.clone(), email: about.contact.email.clone() },
            subject,
            body,
            occurred_at: at,
        }
        .into(),
    )
}

/// An answer that nobody awaits any more is silence.
fn sent(state: &State, notification_id: &str, message_id: &str, at: TimestampMs) -> Option<Event> {
    let mail = state.due.get(notification_id)?;
    Some(
        CustomerNotified {
            notification_id: notification_id.to_owned(),
            customer_id: mail.customer_id.clone(),
            order_id: mail.order_id.clone(),
            kind: mail.kind,
            message_id: message_id.to_owned(),
            occurred_at: at,
        }
        .into(),
    )
}

fn refused(state: &State, notification_id: &str, reason: &str, at: TimestampMs) -> Option<Event> {
    let mail = state.due.get(notification_id)?;
    Some(
        NotificationAbandoned {
            notification_id: notification_id.to_owned(),
            customer_id: mail.customer_id.clone(),
            order_id: mail.order_id.clone(),
            kind: mail.kind,
            reason: reason.to_owned(),
            occurred_at: at,
        }
        .into(),
    )
}
