//! The bodies of `POST /albums` and `PUT /albums/{sku}/price`, checked field by field.

use runtime::request::{FieldError, FieldErrors, Fields};
use serde_json::Value;

use crate::{
    decide::{MAX_PRICE_MINOR, MAX_SKU_CHARS, MAX_TEXT_CHARS, fault, price_fault},
    events::Money,
    inbox::{ChangePrice, ListAlbum},
};

/// Reads a listing.
///
/// # Errors
/// Every fault, with its position.
pub fn listing(body: &Value) -> Result<ListAlbum, Vec<FieldError>> {
    let faults = FieldErrors::default();
    let command = {
        let fields = faults.object(body, &["sku", "title", "artist", "price"]);
        ListAlbum {
            sku: fields.text("sku", MAX_SKU_CHARS),
            title: fields.text("title", MAX_TEXT_CHARS),
            artist: fields.text("artist", MAX_TEXT_CHARS),
            price: price(&fields),
        }
    };
    let command = faults.finish(command)?;
    checked(fault(&command), command)
}

/// Reads a new price for a sku: `{"price": {...}}`, or `{"price": null}` to stop selling.
///
/// # Errors
/// Every fault, with its position.
pub fn new_price(body: &Value, sku: &str) -> Result<ChangePrice, Vec<FieldError>> {
    let faults = FieldErrors::default();
    let new_price = price(&faults.object(body, &["price"]));
    if body.get("price").is_none() {
        faults.add("/price", "is missing; null stops selling");
    }
    let command = faults.finish(ChangePrice { sku: sku.to_owned(), new_price })?;
    checked(command.new_price.as_ref().and_then(price_fault), command)
}

fn price(fields: &Fields<'_>) -> Option<Money> {
    let price = fields.optional_object("price", &["amount_minor", "currency"])?;
    Some(Money { amount_minor: price.whole("amount_minor", 1..=MAX_PRICE_MINOR), currency: price.text("currency", 3) })
}

/// Reports a fault that the decider would find as a fault of the body.
fn checked<T>(fault: Option<(&'static str, String)>, command: T) -> Result<T, Vec<FieldError>> {
    match fault {
        None => Ok(command),
        Some((field, detail)) => Err(vec![FieldError { pointer: format!("/{}", field.replace('.', "/")), detail }]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers<T: std::fmt::Debug>(read: Result<T, Vec<FieldError>>) -> Vec<String> {
        read.expect_err("the body is faulty").into_iter().map(|fault| fault.pointer).collect()
    }

    fn eur(amount_minor: i64) -> Option<Money> {
        Some(Money { amount_minor, currency: "EUR".to_owned() })
    }

    #[test]
    fn a_valid_listing_is_read_with_or_without_a_price() {
        let mut body = json!({ "sku": "LP-1", "title": "Blue", "artist": "Joni Mitchell" });
        assert_eq!(listing(&body).unwrap().price, None);
        body["price"] = json!({ "amount_minor": 1999, "currency": "EUR" });
        assert_eq!(listing(&body).unwrap().price, eur(1999));
    }

    #[test]
    fn every_fault_of_a_listing_is_reported() {
        assert_eq!(pointers(listing(&json!({}))), ["/sku", "/title", "/artist"]);
        let body = |price: Value| json!({ "sku": "LP-1", "title": "Blue", "artist": "Joni Mitchell", "price": price });
        assert_eq!(pointers(listing(&body(json!({ "amount_minor": 0, "currency": "EUR" })))), ["/price/amount_minor"]);
        assert_eq!(pointers(listing(&body(json!({ "amount_minor": 1, "currency": "eur" })))), ["/price/currency"]);
        assert_eq!(pointers(listing(&body(json!(19.99)))), ["/price"]);
        assert_eq!(pointers(listing(&json!({ "sku": "a/b", "title": "x", "artist": "y" }))), ["/sku"]);
    }

    #[test]
    fn a_price_is_changed_or_removed_only_explicitly() {
        let body = json!({ "price": { "amount_minor": 1999, "currency": "EUR" } });
        assert_eq!(new_price(&body, "LP-1").unwrap().new_price, eur(1999));
        assert_eq!(new_price(&json!({ "price": null }), "LP-1").unwrap().new_price, None);
        assert_eq!(pointers(new_price(&json!({}), "LP-1")), ["/price"]);
        assert_eq!(pointers(new_price(&json!({ "cost": 1 }), "LP-1")), ["/cost", "/price"]);
    }
}
