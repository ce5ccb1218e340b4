//! What a person sends: the body of `POST /customers`, checked field by field, and the id that is made of its key.

use runtime::request::{Fault, Faults};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    decide::{MAX_EMAIL_CHARS, MAX_NAME_CHARS, fault},
    events::Contact,
    inbox::RegisterCustomer,
};

/// What customer ids are made under, from idempotency keys.
const CUSTOMER_IDS: Uuid = Uuid::from_u128(0x5be2_71c4_0d9a_4f38_a6c1_92e7_0b54_d83f);

/// The customer that an idempotency key stands for.
#[must_use]
pub fn customer_id(key: &str) -> Uuid {
    Uuid::new_v5(&CUSTOMER_IDS, key.as_bytes())
}

/// Reads a registration.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn registration(body: &Value, customer_id: Uuid) -> Result<RegisterCustomer, Vec<Fault>> {
    let faults = Faults::default();
    let command = {
        let fields = faults.object(body, &["name", "email", "marketing_consent"]);
        RegisterCustomer {
            customer_id: customer_id.to_string(),
            contact: Contact {
                name: fields.text("name", MAX_NAME_CHARS),
                email: fields.text("email", MAX_EMAIL_CHARS),
            },
            marketing_consent: fields.flag("marketing_consent", false),
        }
    };
    let command = faults.verdict(command)?;
    match fault(&command.contact) {
        None => Ok(command),
        Some((field, what)) => Err(vec![Fault { pointer: format!("/{field}"), detail: what }]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(body: &Value) -> Vec<String> {
        let faults = registration(body, Uuid::nil()).expect_err("the body is faulty");
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_good_registration_is_read_and_consent_is_not_assumed() {
        let id = customer_id("key-1");
        let command = registration(&json!({ "name": "Inés", "email": "ines@example.org" }), id).unwrap();
        let contact = Contact { name: "Inés".to_owned(), email: "ines@example.org".to_owned() };
        assert_eq!(command, RegisterCustomer { customer_id: id.to_string(), contact, marketing_consent: false });
    }

    #[test]
    fn every_fault_is_named() {
        assert_eq!(pointers(&json!({})), ["/name", "/email"]);
        assert_eq!(pointers(&json!({ "name": "Inés", "email": "nowhere" })), ["/email"]);
        assert_eq!(pointers(&json!({ "name": "a\nb", "email": "a@b.example" })), ["/name"]);
        assert_eq!(pointers(&json!({ "name": "Inés", "email": "a@b.example", "age": 7 })), ["/age"]);
    }
}
