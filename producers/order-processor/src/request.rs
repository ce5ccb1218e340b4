//! The body of `POST /orders`, checked field by field, and the digest that identifies it.
//!
//! This module knows the form of a valid order, but no customers or albums. A request that passes is answered by an event.

use runtime::request::{FieldError, FieldErrors, Fields};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    decide::{MAX_LINES, MAX_QUANTITY},
    events::Address,
};

/// The most characters of a customer id or sku.
const MAX_ID_CHARS: usize = 128;
/// The most characters of one field of an address.
const MAX_ADDRESS_CHARS: usize = 200;
/// The most characters of a reason for a cancellation.
const MAX_REASON_CHARS: usize = 500;
/// The longest idempotency key.
pub const MAX_KEY_BYTES: usize = 200;

/// The namespace of request digests.
const DIGESTS: Uuid = Uuid::from_u128(0xa8c3_5d17_20f6_4e9b_b74d_681f_c3e2_05d9);

/// A well-formed request for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderRequest {
    /// The customer.
    pub customer_id: String,
    /// Where the parcel goes.
    pub ship_to: Address,
    /// The requested albums, each sku once.
    pub lines: Vec<LineRequest>,
    /// The gateway's token for the means of payment.
    pub payment_method: String,
}

/// One line of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineRequest {
    /// The album's stock keeping unit.
    pub sku: String,
    /// The number of copies.
    pub quantity: i32,
}

impl OrderRequest {
    /// Parses a body.
    ///
    /// # Errors
    /// Every fault, with its position.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<FieldError>> {
        Self::read(&runtime::request::parse(body).map_err(|fault| vec![fault])?)
    }

    /// Reads a body that was parsed as JSON.
    ///
    /// # Errors
    /// Every fault, with its position.
    pub fn read(body: &Value) -> Result<Self, Vec<FieldError>> {
        let faults = FieldErrors::default();
        let order = {
            let fields = faults.object(body, &["customer_id", "ship_to", "lines", "payment_method"]);
            Self {
                customer_id: fields.text("customer_id", MAX_ID_CHARS),
                ship_to: address(&fields.object("ship_to", &["street", "city", "postcode", "country"])),
                lines: lines(&fields),
                payment_method: fields.text("payment_method", MAX_ID_CHARS),
            }
        };
        faults.finish(order)
    }

    /// Identifies this request: equal requests have equal digests, regardless of their JSON formatting.
    #[must_use]
    pub fn digest(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("strings, numbers and lists are always valid JSON");
        Uuid::new_v5(&DIGESTS, &canonical).to_string()
    }
}

/// The reason for a cancellation in the body of `POST /orders/{id}/cancel`; without a body there is no reason.
///
/// # Errors
/// Every fault, with its position.
pub fn cancellation_reason(body: Option<&Value>) -> Result<String, Vec<FieldError>> {
    let Some(body) = body else { return Ok(String::new()) };
    let faults = FieldErrors::default();
    let reason = faults.object(body, &["reason"]).optional_text("reason", MAX_REASON_CHARS);
    faults.finish(reason.unwrap_or_default())
}

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

fn address(fields: &Fields<'_>) -> Address {
    let address = Address {
        street: fields.text("street", MAX_ADDRESS_CHARS),
        city: fields.text("city", MAX_ADDRESS_CHARS),
        postcode: fields.text("postcode", 20),
        country: fields.text("country", 2),
    };
    let is_code = address.country.len() == 2 && address.country.bytes().all(|b| b.is_ascii_uppercase());
    if !address.country.is_empty() && !is_code {
        fields.error("country", "must be a code of two capital letters, such as DE");
    }
    address
}

fn lines(fields: &Fields<'_>) -> Vec<LineRequest> {
    let items = fields.objects("lines", 1..=MAX_LINES, &["sku", "quantity"]);
    let mut lines: Vec<LineRequest> = Vec::with_capacity(items.len());
    for item in items {
        let quantity = item.whole("quantity", 1..=i64::from(MAX_QUANTITY));
        let line = LineRequest {
            sku: item.text("sku", MAX_ID_CHARS),
            quantity: i32::try_from(quantity).unwrap_or(MAX_QUANTITY),
        };
        if !line.sku.is_empty() && lines.iter().any(|other| other.sku == line.sku) {
            item.error("sku", "is in an earlier line too; add the quantity there");
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid() -> Value {
        json!({
            "customer_id": "customer-0001",
            "ship_to": { "street": "Lindenstraße 14", "city": "Leipzig", "postcode": "04105", "country": "DE" },
            "lines": [{ "sku": "LP-1", "quantity": 1 }, { "sku": "LP-2", "quantity": 2 }],
            "payment_method": "card-ok",
        })
    }

    fn faults_with(change: impl Fn(&mut Value)) -> Vec<(String, String)> {
        let mut body = valid();
        change(&mut body);
        let faults = OrderRequest::read(&body).expect_err("the request is faulty");
        faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
    }

    #[track_caller]
    fn one_fault(pointer: &str, detail: &str, change: impl Fn(&mut Value)) {
        assert_eq!(faults_with(change), [(pointer.to_owned(), detail.to_owned())]);
    }

    #[test]
    fn a_valid_order_is_read() {
        let order = OrderRequest::read(&valid()).unwrap();
        assert_eq!(order.lines[1], LineRequest { sku: "LP-2".to_owned(), quantity: 2 });
        assert_eq!(OrderRequest::parse(valid().to_string().as_bytes()), Ok(order));
    }

    #[test]
    fn every_fault_is_reported() {
        one_fault("/customer_id", "is missing", |b| drop(b.as_object_mut().unwrap().remove("customer_id")));
        one_fault("/lines", "must have 1 to 200 entries, not 0", |b| b["lines"] = json!([]));
        one_fault("/lines", "must have 1 to 200 entries, not 10000", |b| {
            b["lines"] = json!(vec![json!({ "sku": "LP-1", "quantity": 1 }); 10_000]);
        });
        one_fault("/lines/0/quantity", "must be a whole number from 1 to 1000, not 0", |b| {
            b["lines"][0]["quantity"] = json!(0);
        });
        one_fault("/lines/1/quantity", "must be a whole number from 1 to 1000, not 99999999999", |b| {
            b["lines"][1]["quantity"] = json!(99_999_999_999_i64);
        });
        one_fault("/lines/1/sku", "is in an earlier line too; add the quantity there", |b| {
            b["lines"][1]["sku"] = json!("LP-1");
        });
        one_fault("/ship_to/street", "must have at most 200 characters, not 5000", |b| {
            b["ship_to"]["street"] = json!("x".repeat(5000));
        });
        for country in ["de", "D", "É"] {
            one_fault("/ship_to/country", "must be a code of two capital letters, such as DE", |b| {
                b["ship_to"]["country"] = json!(country);
            });
        }
        one_fault("/coupon", "is not known here; known are customer_id, ship_to, lines, payment_method", |b| {
            b["coupon"] = json!("free");
        });
    }

    #[test]
    fn several_faults_are_reported_at_once() {
        let faults = faults_with(|b| {
            b["payment_method"] = json!(5);
            b["lines"][0]["quantity"] = json!(-1);
        });
        assert_eq!(faults.len(), 2);
    }

    #[test]
    fn a_digest_depends_on_the_request_and_not_on_its_formatting() {
        let digest = |body: &str| OrderRequest::parse(body.as_bytes()).unwrap().digest();
        let compact = valid().to_string();
        let spaced = serde_json::to_string_pretty(&valid()).unwrap();
        assert_eq!(digest(&compact), digest(&spaced));
        assert_ne!(digest(&compact), digest(&compact.replace("\"quantity\":2", "\"quantity\":3")));
    }

    #[test]
    fn a_cancellation_may_give_a_reason() {
        assert_eq!(cancellation_reason(None), Ok(String::new()));
        assert_eq!(cancellation_reason(Some(&json!({}))), Ok(String::new()));
        assert_eq!(cancellation_reason(Some(&json!({ "reason": "too late" }))), Ok("too late".to_owned()));
        for bad in [json!([]), json!({ "reason": 1 }), json!({ "reason": "x".repeat(501) }), json!({ "why": "" })] {
            assert!(cancellation_reason(Some(&bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_a_short_string() {
        assert_eq!(key_fault("any text"), None);
        for key in ["", &"x".repeat(MAX_KEY_BYTES + 1), "a\nb"] {
            assert!(key_fault(key).is_some(), "{key:?}");
        }
    }
}
