//! The decisions of notifications. Pure.
//!
//! | received | first time | again | after CustomerForgotten |
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

/// The namespace of notification ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1c_8f0e_52a7_4b39_9c64_e0b7_31d8_a5f2);

/// The id of the one notification of a kind for an order or a customer. It names files and mails, so it has no text of an
/// event.
#[must_use]
pub fn notification_id(entity: &str, kind: NotificationKind) -> String {
    Uuid::new_v5(&NAMESPACE, format!("{kind:?} {entity}").as_bytes()).to_string()
}

/// Decides the events of an input.
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
            let recipient = Recipient { customer_id: &fact.customer_id, order_id: None, contact: &fact.contact };
            request(state, NotificationKind::Welcome, &recipient, at, || templates::welcome(fact))
        }
        Input::OrderPaid(fact) => {
            let recipient = Recipient::order(&fact.order_id, &fact.customer_id, &fact.contact);
            request(state, NotificationKind::OrderPaid, &recipient, at, || templates::order_paid(fact))
        }
        Input::OrderDelayed(fact) => {
            let recipient = Recipient::order(&fact.order_id, &fact.customer_id, &fact.contact);
            request(state, NotificationKind::OrderDelayed, &recipient, at, || templates::order_delayed(fact))
        }
        Input::OrderShipped(fact) => {
            let recipient = Recipient::order(&fact.order_id, &fact.customer_id, &fact.contact);
            request(state, NotificationKind::OrderShipped, &recipient, at, || templates::order_shipped(fact))
        }
        Input::OrderCancellationRefused(fact) if fact.requested_by == CancelRequester::Customer => {
            let recipient = Recipient::order(&fact.order_id, &fact.customer_id, &fact.contact);
            request(state, NotificationKind::OrderCancellationRefused, &recipient, at, || {
                templates::order_cancellation_refused(fact)
            })
        }
        Input::OrderCancellationRefused(_) => None,
        Input::OrderCancelled(fact) => {
            let recipient = Recipient::order(&fact.order_id, &fact.customer_id, &fact.contact);
            request(state, NotificationKind::OrderCancelled, &recipient, at, || templates::order_cancelled(fact))
        }
    };
    Decision { events: event.into_iter().collect(), commands: Vec::new() }
}

/// The recipient of a mail, and the order it is about.
struct Recipient<'a> {
    customer_id: &'a str,
    order_id: Option<&'a str>,
    contact: &'a reads::Contact,
}

impl<'a> Recipient<'a> {
    fn order(order_id: &'a str, customer_id: &'a str, contact: &'a reads::Contact) -> Self {
        Self { customer_id, order_id: Some(order_id), contact }
    }
}

fn request(
    state: &State,
    kind: NotificationKind,
    recipient: &Recipient<'_>,
    at: TimestampMs,
    mail: impl FnOnce() -> Mail,
) -> Option<Event> {
    let notification_id = notification_id(recipient.order_id.unwrap_or(recipient.customer_id), kind);
    if state.stopped || state.knows(&notification_id) {
        return None;
    }
    let Mail { subject, body } = mail();
    Some(
        NotificationRequested {
            notification_id,
            customer_id: recipient.customer_id.to_owned(),
            order_id: recipient.order_id.map(str::to_owned),
            kind,
            to: Contact { name: recipient.contact.name.clone(), email: recipient.contact.email.clone() },
            subject,
            body,
            occurred_at: at,
        }
        .into(),
    )
}

/// An answer that is not pending any more causes no event.
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
