//! The texts of the mails, one function per kind. Text of an event stays on its line and is not interpreted.

use crate::reads::{
    CancelReason, Contact, CustomerRegistered, Money, OrderCancellationRefused, OrderCancelled, OrderDelayed,
    OrderLine, OrderPaid, OrderShipped,
};

/// A mail without a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The subject line.
    pub subject: String,
    /// The plain text.
    pub body: String,
}

/// A customer registered.
pub fn welcome(fact: &CustomerRegistered) -> Mail {
    let text = "welcome to MusicCorp. Please follow the link on your account page to verify this address.";
    Mail { subject: "Welcome to MusicCorp".to_owned(), body: render(&fact.contact, text, &[]) }
}

/// The money for an order was taken.
pub fn order_paid(fact: &OrderPaid) -> Mail {
    let text = format!("we received {} for your order {}:", money(&fact.total), line(&fact.order_id));
    Mail { subject: "We received your payment".to_owned(), body: render(&fact.contact, &text, &fact.lines) }
}

/// The courier has not taken the parcel of an order yet.
pub fn order_delayed(fact: &OrderDelayed) -> Mail {
    let text = format!(
        "the courier has not taken the parcel of your order {} yet. We keep trying; you need not do anything:",
        line(&fact.order_id)
    );
    Mail { subject: "Your records are delayed".to_owned(), body: render(&fact.contact, &text, &fact.lines) }
}

/// The parcel of an order is with the courier.
pub fn order_shipped(fact: &OrderShipped) -> Mail {
    let (carrier, number) = (line(&fact.carrier), line(&fact.tracking_number));
    let text = format!("{carrier} has the parcel of your order {}; its number is {number}:", line(&fact.order_id));
    Mail { subject: "Your records are on their way".to_owned(), body: render(&fact.contact, &text, &fact.lines) }
}

/// A request to cancel an order was refused.
pub fn order_cancellation_refused(fact: &OrderCancellationRefused) -> Mail {
    let (order_id, reason) = (line(&fact.order_id), line(&fact.reason));
    let text = format!("it was too late to cancel your order {order_id}: {reason}. It comes as you ordered it:");
    Mail { subject: "Your order could not be cancelled".to_owned(), body: render(&fact.contact, &text, &fact.lines) }
}

/// An order will not be fulfilled.
pub fn order_cancelled(fact: &OrderCancelled) -> Mail {
    let why = match fact.reason {
        CancelReason::OutOfStock => "we do not have enough of it in stock",
        CancelReason::PaymentDeclined => "your payment was declined",
        CancelReason::PaymentAbandoned => "your payment could not be completed in time",
        CancelReason::LostAtPackaging => "we could not find all of it when we packed your parcel",
        CancelReason::CustomerRequest => "you asked us to",
        CancelReason::Unknown => "we cannot fulfil it",
    };
    let text = format!(
        "we cancelled your order {}, because {why}. Whatever you paid for it is paid back:",
        line(&fact.order_id)
    );
    Mail { subject: "Your order was cancelled".to_owned(), body: render(&fact.contact, &text, &fact.lines) }
}

fn render(to: &Contact, text: &str, lines: &[OrderLine]) -> String {
    let mut body = format!("Hello {},\n\n{text}\n\n", line(&to.name));
    for item in lines {
        body.push_str(&format!("  {} x {}, {}\n", item.quantity, line(&item.title), line(&item.artist)));
    }
    if !lines.is_empty() {
        body.push('\n');
    }
    body.push_str("MusicCorp\n");
    body
}

/// Text of an event, on one line.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// An amount for a person. All currencies of the shop have two decimals.
fn money(money: &Money) -> String {
    let minor = money.amount_minor.unsigned_abs();
    let sign = if money.amount_minor < 0 { "-" } else { "" };
    format!("{sign}{}.{:02} {}", minor / 100, minor % 100, line(&money.currency))
}
