//! Notifications: owns the mails to customers. Key: the order, or the customer.
//!
//! - **Consumes** customers: CustomerRegistered, CustomerForgotten · order-processor: OrderPaid, OrderDelayed, OrderShipped,
//!   OrderCancelled, OrderCancellationRefused.
//! - **Inbox** MailSent, MailRefused: the results of its mails.
//! - **Produces** NotificationRequested, then CustomerNotified or NotificationAbandoned; NotificationsStopped.
//! - **Remembers** the mails that are due, and which notifications were answered.
//! - **Compensates** nothing: a mail cannot be recalled, so a cancelled order causes another mail.
//! - **Personal data** name, mail address and the mails' text, in its events, and in its state while a mail is due.
//!   CustomerForgotten drops the welcome mail if it is still due, and prevents further ones; the mails of an open order continue
//!   until the order ends, because they are part of it. The mail folder is not cleared.

use std::borrow::Cow;

use runtime::{
    Config, Decider, Decision, Received,
    service::{self, Program, Running, StartError},
};

use crate::effects::Mailer;

pub mod decide;
pub mod effects;
pub mod events;
pub mod evolve;
mod folder;
pub mod inbox;
pub mod reads;
pub mod templates;

/// The decider of notifications.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notifications;

impl Decider for Notifications {
    const NAME: &'static str = "notifications";
    type State = evolve::State;
    type Input = reads::Input;
    type Event = events::Event;
    type Command = inbox::Command;
    type Effect = effects::SendMail;

    fn entity<'a>(&self, input: &'a Received<Self::Input>) -> Cow<'a, str> {
        reads::entity_of(input)
    }

    fn decide(&self, state: &Self::State, input: &Received<Self::Input>) -> Decision<Self::Event, Self::Command> {
        decide::decide(state, input)
    }

    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State {
        evolve::evolve(state, event)
    }

    fn pending(&self, state: &Self::State) -> Vec<Self::Effect> {
        effects::pending(state)
    }
}

/// Starts the service.
///
/// # Errors
/// The service cannot start, and waiting does not help.
pub async fn service(config: Config, mailer: Mailer) -> Result<Running, StartError> {
    service::start(config, Notifications, mailer, axum::Router::new()).await
}

/// The service as a program. The `notifications` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(Notifications::NAME, "Sends mail to customers", |config, settings: effects::Settings| async move {
        Ok(service(config, Mailer::of(&settings)?).await?)
    })
}
