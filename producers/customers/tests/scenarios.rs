//! The decisions of customers. Every input is handled twice.

use customers::{
    Customers,
    decide::{MAX_EMAIL_CHARS, MAX_NAME_CHARS, fault},
    events::{CommandRefused, Contact, CustomerForgotten, CustomerRegistered, CustomerVerified},
    evolve::State,
    inbox::{ForgetCustomer, RegisterCustomer, VerifyCustomer},
    reads::Input,
};
use runtime::{
    Decider, Received,
    testing::{NOW_MS, Scenario, received},
};

const ID: &str = "customer-1";

fn contact(name: &str, email: &str) -> Contact {
    Contact { name: name.to_owned(), email: email.to_owned() }
}

fn ines() -> Contact {
    contact("Inés Calderón", "ines.calderon@example.org")
}

fn register_with(contact: Contact) -> Received<Input> {
    received(ID, RegisterCustomer { customer_id: ID.to_owned(), contact, marketing_consent: false })
}

fn register() -> Received<Input> {
    register_with(ines())
}

fn verify() -> Received<Input> {
    received(ID, VerifyCustomer { customer_id: ID.to_owned() })
}

fn forget() -> Received<Input> {
    received(ID, ForgetCustomer { customer_id: ID.to_owned() })
}

fn customer_registered() -> CustomerRegistered {
    CustomerRegistered { customer_id: ID.to_owned(), contact: ines(), marketing_consent: false, occurred_at: NOW_MS }
}

fn customer_verified() -> CustomerVerified {
    CustomerVerified { customer_id: ID.to_owned(), contact: ines(), occurred_at: NOW_MS }
}

fn customer_forgotten() -> CustomerForgotten {
    CustomerForgotten { customer_id: ID.to_owned(), occurred_at: NOW_MS }
}

fn refused(command: &str, reason: &str) -> CommandRefused {
    CommandRefused {
        entity_id: ID.to_owned(),
        command: command.to_owned(),
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

fn unknown() -> Scenario<Customers> {
    Scenario::of(Customers)
}

fn registered() -> Scenario<Customers> {
    unknown().given([customer_registered()])
}

fn verified() -> Scenario<Customers> {
    registered().given([customer_verified()])
}

fn forgotten() -> Scenario<Customers> {
    verified().given([customer_forgotten()])
}

#[test]
fn a_new_customer_is_registered() {
    unknown().when(&register()).then([customer_registered()]);
}

#[test]
fn a_repeated_registration_causes_no_event() {
    registered().when(&register()).then_nothing();
    verified().when(&register()).then_nothing();
}

#[test]
fn a_registration_with_other_data_is_refused() {
    let other = register_with(contact("Inés C.", "ines.calderon@example.org"));
    let refusal = refused("RegisterCustomer", "the customer is registered already, with other data");
    registered().when(&other).then([refusal.clone()]);
    verified().when(&other).then([refusal]);
}

#[test]
fn a_registration_with_an_invalid_contact_is_refused() {
    unknown().when(&register_with(contact("", "a@b.example"))).then([refused("RegisterCustomer", "name is empty")]);
    unknown()
        .when(&register_with(contact("Inés", "nowhere")))
        .then([refused("RegisterCustomer", "email is not a mail address")]);
}

#[test]
fn a_registered_customer_is_verified() {
    registered().when(&verify()).then([customer_verified()]);
}

#[test]
fn a_verified_customer_is_not_verified_again() {
    verified().when(&verify()).then_nothing();
}

#[test]
fn an_unknown_customer_cannot_be_verified_or_forgotten() {
    unknown().when(&verify()).then([refused("VerifyCustomer", "the customer id is unknown")]);
    unknown().when(&forget()).then([refused("ForgetCustomer", "the customer id is unknown")]);
}

#[test]
fn a_registered_customer_is_forgotten_and_their_data_is_dropped() {
    for scenario in [registered(), verified()] {
        let after = scenario.when(&forget()).then([customer_forgotten()]).and();
        assert_eq!(after.state(), &State::Forgotten);
    }
}

#[test]
fn a_forgotten_customer_stays_forgotten() {
    forgotten().when(&forget()).then_nothing();
    forgotten().when(&register()).then([refused("RegisterCustomer", "the customer was forgotten")]);
    forgotten().when(&verify()).then([refused("VerifyCustomer", "the customer was forgotten")]);
}

#[test]
fn an_input_belongs_to_the_customer_that_its_body_names() {
    for input in [register(), verify(), forget()] {
        let misrouted = Received { key: "somebody-else".to_owned(), ..input };
        assert_eq!(Customers.entity(&misrouted), ID);
    }
}

#[test]
fn a_contact_is_checked_field_by_field() {
    assert_eq!(fault(&ines()), None);
    assert_eq!(fault(&contact(&"x".repeat(MAX_NAME_CHARS), "a@b.example")), None);
    let long_mail = format!("{}@b.example", "a".repeat(MAX_EMAIL_CHARS));
    let faults = [
        (contact(" ", "a@b.example"), "name", "is empty"),
        (contact(&"x".repeat(MAX_NAME_CHARS + 1), "a@b.example"), "name", "has more than 200 characters"),
        (contact("Inés\r\nBcc: x@y.example", "a@b.example"), "name", "has a control character"),
        (contact("Inés", ""), "email", "is empty"),
        (contact("Inés", &long_mail), "email", "has more than 254 characters"),
        (contact("Inés", "a@b@c"), "email", "is not a mail address"),
        (contact("Inés", "@b.example"), "email", "is not a mail address"),
        (contact("Inés", "a@"), "email", "is not a mail address"),
        (contact("Inés", "a b@c.example"), "email", "is not a mail address"),
    ];
    for (contact, field, what) in faults {
        assert_eq!(fault(&contact), Some((field, what.to_owned())), "{contact:?}");
    }
}
