//! How an order is placed: what makes it good, and what a repeated request is answered.

use std::collections::BTreeSet;

use runtime::TimestampMs;

use super::refused;
use crate::{
    events::{Event, Money, OrderLine, OrderPlaced, OrderRejected, RejectReason},
    evolve::{State, Status},
    inbox::{PlaceOrder, RequestedLine},
};

/// The most lines that one order may have.
pub const MAX_LINES: usize = 200;
/// The most copies of one album that one order may have.
pub const MAX_QUANTITY: i32 = 1_000;
/// The most that one order may cost, in minor units of its currency.
pub const MAX_TOTAL_MINOR: i64 = 100_000_000;

/// A request is answered once. Asked again it is silence, because the answer stands in the log; asked otherwise it is refused.
pub(super) fn place(state: &State, command: &PlaceOrder, at: TimestampMs) -> Vec<Event> {
    if state.status != Status::Unplaced {
        return if state.request_digest == command.request_digest {
            Vec::new()
        } else {
            vec![no(command, "another request was answered under this order id", at)]
        };
    }
    vec![match accept(command, at) {
        Ok(placed) => placed.into(),
        Err(No::Rejected(reason, detail)) => OrderRejected {
            order_id: command.order_id.clone(),
            customer_id: command.customer_id.clone(),
            reason,
            detail,
            request_digest: command.request_digest.clone(),
            occurred_at: at,
        }
        .into(),
        Err(No::Malformed(reason)) => no(command, reason, at),
    }]
}

fn no(command: &PlaceOrder, reason: impl Into<String>, at: TimestampMs) -> Event {
    refused(&command.order_id, "PlaceOrder", reason, at)
}

/// Why there is no order.
enum No {
    /// A rule of the shop: the customer may read it.
    Rejected(RejectReason, String),
    /// No edge of ours sends such a command.
    Malformed(String),
}

fn accept(command: &PlaceOrder, at: TimestampMs) -> Result<OrderPlaced, No> {
    well_formed(command)?;
    let reject = |reason, detail: String| Err(No::Rejected(reason, detail));
    let contact = match &command.customer {
        None => return reject(RejectReason::UnknownCustomer, format!("no customer {}", command.customer_id)),
        Some(customer) if customer.forgotten => {
            return reject(RejectReason::CustomerForgotten, format!("customer {} was forgotten", command.customer_id));
        }
        Some(customer) => customer.contact.clone(),
    };
    if command.lines.len() > MAX_LINES {
        return reject(RejectReason::TooLarge, format!("{} lines, at most {MAX_LINES}", command.lines.len()));
    }
    let lines = command.lines.iter().map(priced).collect::<Result<Vec<_>, No>>()?;
    let total = sum(&lines)?;
    Ok(OrderPlaced {
        order_id: command.order_id.clone(),
        customer_id: command.customer_id.clone(),
        contact,
        ship_to: command.ship_to.clone(),
        lines,
        total,
        payment_method: command.payment_method.clone(),
        request_digest: command.request_digest.clone(),
        occurred_at: at,
    })
}

/// What the edge checks before it asks. Commands also come from operators, so it is checked again here.
fn well_formed(command: &PlaceOrder) -> Result<(), No> {
    if command.lines.is_empty() {
        return Err(No::Malformed("the order has no lines".to_owned()));
    }
    let mut skus = BTreeSet::new();
    for line in &command.lines {
        if line.quantity < 1 {
            return Err(No::Malformed(format!("{} copies of {} make no line", line.quantity, line.sku)));
        }
        if !skus.insert(&line.sku) {
            return Err(No::Malformed(format!("the sku {} stands in two lines", line.sku)));
        }
    }
    Ok(())
}

fn priced(line: &RequestedLine) -> Result<OrderLine, No> {
    let sku = &line.sku;
    let Some(album) = &line.album else {
        return Err(No::Rejected(RejectReason::UnknownSku, format!("nobody lists the sku {sku}")));
    };
    let Some(unit_price) = &album.unit_price else {
        return Err(No::Rejected(RejectReason::PriceGone, format!("{sku} is no longer sold")));
    };
    if unit_price.amount_minor < 1 {
        return Err(No::Malformed(format!("the price of {sku} is {}", unit_price.amount_minor)));
    }
    if line.quantity > MAX_QUANTITY {
        let detail = format!("{} copies of {sku}, at most {MAX_QUANTITY}", line.quantity);
        return Err(No::Rejected(RejectReason::TooLarge, detail));
    }
    let amount_minor = unit_price.amount_minor.checked_mul(i64::from(line.quantity)).ok_or_else(too_dear)?;
    Ok(OrderLine {
        sku: sku.clone(),
        title: album.title.clone(),
        artist: album.artist.clone(),
        quantity: line.quantity,
        unit_price: unit_price.clone(),
        line_total: Money { amount_minor, currency: unit_price.currency.clone() },
    })
}

fn sum(lines: &[OrderLine]) -> Result<Money, No> {
    let Some((first, others)) = lines.split_first() else {
        return Err(No::Malformed("the order has no lines".to_owned()));
    };
    let mut total = first.line_total.clone();
    for line in others {
        let money = &line.line_total;
        if money.currency != total.currency {
            let detail = format!("{} and {} in one order", total.currency, money.currency);
            return Err(No::Rejected(RejectReason::MixedCurrencies, detail));
        }
        total.amount_minor = total.amount_minor.checked_add(money.amount_minor).ok_or_else(too_dear)?;
    }
    if total.amount_minor > MAX_TOTAL_MINOR { Err(too_dear()) } else { Ok(total) }
}

fn too_dear() -> No {
    No::Rejected(RejectReason::TooLarge, format!("the total is above {MAX_TOTAL_MINOR} minor units"))
}
