//! The decisions of customers. Pure; [`State`] has the table of transitions.

use runtime::{Decision, Received, TimestampMs};

use crate::{
    events::{CommandRefused, Contact, CustomerForgotten, CustomerRegistered, CustomerVerified, Event},
    evolve::{Profile, State},
    inbox::{Command, ForgetCustomer, RegisterCustomer, VerifyCustomer},
    reads::Input,
};

/// The most characters of a name.
pub const MAX_NAME_CHARS: usize = 200;
/// The most characters of a mail address: the limit of SMTP.
pub const MAX_EMAIL_CHARS: usize = 254;

/// Decides the events of an input.
pub fn decide(state: &State, input: &Received<Input>) -> Decision<Event, Command> {
    let at = input.at_ms;
    let event = match &input.body {
        Input::RegisterCustomer(command) => register(state, command, at),
        Input::VerifyCustomer(command) => verify(state, command, at),
        Input::ForgetCustomer(command) => forget(state, command, at),
    };
    Decision { events: event.into_iter().collect(), commands: Vec::new() }
}

fn register(state: &State, command: &RegisterCustomer, at: TimestampMs) -> Option<Event> {
    let RegisterCustomer { customer_id, contact, marketing_consent } = command;
    let refuse = |reason: &str| Some(refused(customer_id, "RegisterCustomer", reason, at));
    match state {
        State::Forgotten => refuse("the customer was forgotten"),
        State::Registered(profile) | State::Verified(profile) => {
            let same = Profile { contact: contact.clone(), marketing_consent: *marketing_consent } == *profile;
            if same { None } else { refuse("the customer is registered already, with other data") }
        }
        State::Unknown => match fault(contact) {
            Some((field, what)) => refuse(&format!("{field} {what}")),
            None => Some(
                CustomerRegistered {
                    customer_id: customer_id.clone(),
                    contact: contact.clone(),
                    marketing_consent: *marketing_consent,
                    occurred_at: at,
                }
                .into(),
            ),
        },
    }
}

fn verify(state: &State, command: &VerifyCustomer, at: TimestampMs) -> Option<Event> {
    let customer_id = &command.customer_id;
    match state {
        State::Registered(profile) => Some(
            CustomerVerified { customer_id: customer_id.clone(), contact: profile.contact.clone(), occurred_at: at }
                .into(),
        ),
        State::Verified(_) => None,
        State::Unknown => Some(refused(customer_id, "VerifyCustomer", "the customer id is unknown", at)),
        State::Forgotten => Some(refused(customer_id, "VerifyCustomer", "the customer was forgotten", at)),
    }
}

fn forget(state: &State, command: &ForgetCustomer, at: TimestampMs) -> Option<Event> {
    let customer_id = &command.customer_id;
    match state {
        State::Registered(_) | State::Verified(_) => {
            Some(CustomerForgotten { customer_id: customer_id.clone(), occurred_at: at }.into())
        }
        State::Forgotten => None,
        State::Unknown => Some(refused(customer_id, "ForgetCustomer", "the customer id is unknown", at)),
    }
}

/// The fault of a contact, if there is one: the field and the fault.
#[must_use]
pub fn fault(contact: &Contact) -> Option<(&'static str, String)> {
    let text = |value: &str, most: usize| {
        if value.trim().is_empty() {
            Some("is empty".to_owned())
        } else if value.chars().count() > most {
            Some(format!("has more than {most} characters"))
        } else if value.chars().any(char::is_control) {
            Some("has a control character".to_owned())
        } else {
            None
        }
    };
    if let Some(what) = text(&contact.name, MAX_NAME_CHARS) {
        return Some(("name", what));
    }
    if let Some(what) = text(&contact.email, MAX_EMAIL_CHARS) {
        return Some(("email", what));
    }
    let looks_like_mail = match contact.email.split_once('@') {
        Some((local, domain)) => {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@') && !contact.email.contains(' ')
        }
        None => false,
    };
    if looks_like_mail { None } else { Some(("email", "is not a mail address".to_owned())) }
}

fn refused(customer_id: &str, command: &str, reason: &str, at: TimestampMs) -> Event {
    CommandRefused {
        entity_id: customer_id.to_owned(),
        command: command.to_owned(),
        reason: reason.to_owned(),
        occurred_at: at,
    }
    .into()
}
