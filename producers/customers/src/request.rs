//! The body of `POST /customers`, checked field by field.

use runtime::request::{FieldError, FieldErrors};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    decide::{MAX_EMAIL_CHARS, MAX_NAME_CHARS, fault},
    events::Contact,
    inbox::RegisterCustomer,
};

/// The longest idempotency key.
const MAX_KEY_BYTES: usize = 200;

/// The fault of an idempotency key, if there is one.
#[must_use]
pub fn key_fault(key: &str) -> Option<String> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        Some(format!("must have 1 to {MAX_KEY_BYTES} bytes, not {}", key.len()))
    } else if key.chars().any(char::is_control) {
        Some("must not have control characters".to_owned())
    } else {
        None
    }
}

/// Reads a registration.
///
/// # Errors
/// Every fault, with its position.
pub fn registration(body: &Value, customer_id: Uuid) -> Result<RegisterCustomer, Vec<FieldError>> {
    let faults = FieldErrors::default();
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
    let command = faults.finish(command)?;
    match fault(&command.contact) {
        None => Ok(command),
        Some((field, what)) => Err(vec![FieldError { pointer: format!("/{field}"), detail: what }]),
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
    fn a_valid_registration_is_read_and_consent_defaults_to_false() {
        let id = Uuid::from_u128(7);
        let command = registration(&json!({ "name": "Inés", "email": "ines@example.org" }), id).unwrap();
        let contact = Contact { name: "Inés".to_owned(), email: "ines@example.org".to_owned() };
        assert_eq!(command, RegisterCustomer { customer_id: id.to_string(), contact, marketing_consent: false });
    }

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(pointers(&json!({})), ["/name", "/email"]);
        assert_eq!(pointers(&json!({ "name": "Inés", "email": "nowhere" })), ["/email"]);
        assert_eq!(pointers(&json!({ "name": "a\nb", "email": "a@b.example" })), ["/name"]);
        assert_eq!(pointers(&json!({ "name": "Inés", "email": "a@b.example", "age": 7 })), ["/age"]);
    }
}
