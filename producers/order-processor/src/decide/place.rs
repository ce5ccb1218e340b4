//! Placing an order: the rules for a valid order, and the answer to a repeated request.

use std::collections::BTreeSet;

use runtime::TimestampMs;

use super::refused;
use crate::{
    events::{Event, Money, OrderLine, OrderPlaced, OrderRejected, RejectReason},
    evolve::{OrderPhase, State},
    inbox::{PlaceOrder, RequestedLine},
};

/// The most lines of one order.
pub const MAX_LINES: usize = 200;
/// The most copies of one album in one order.
pub const MAX_QUANTITY: i32 = 1_000;
/// The highest total of one order, in minor units of its currency.
pub const MAX_TOTAL_MINOR: i64 = 100_000_000;

/// A request is answered once. A repeated request causes no event, because its answer is in the log. A different request under
/// the same order id is refused.
pub(super) fn place(state: &State, command: &PlaceOrder, at: TimestampMs) -> Vec<Event> {
    if state.phase != OrderPhase::Unplaced {
        return if state.request_digest == command.request_digest {
            Vec::new()
        } else {
            vec![refuse(command, "the order id belongs to another request", at)]
        };
    }
    vec![match accept(command, at) {
        Ok(placed) => placed.into(),
        Err(Refusal::Rejected(reason, detail)) => OrderRejected {
            order_id: command.order_id.clone(),
            customer_id: command.customer_id.clone(),
            reason,
            detail,
            request_digest: command.request_digest.clone(),
            occurred_at: at,
        }
        .into(),
        Err(Refusal::Malformed(reason)) => refuse(command, reason, at),
    }]
}

fn refuse(command: &PlaceOrder, reason: impl Into<String>, at: TimestampMs) -> Event {
    refused(&command.order_id, "PlaceOrder", reason, at)
}

/// Why the order is not placed.
enum Refusal {
    /// A rule of the shop. The customer may read it.
    Rejected(RejectReason, String),
    /// The edge never sends such a command.
    Malformed(String),
}

fn accept(command: &PlaceOrder, at: TimestampMs) -> Result<OrderPlaced, Refusal> {
    well_formed(command)?;
    let reject = |reason, detail: String| Err(Refusal::Rejected(reason, detail));
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
    let lines = command.lines.iter().map(priced).collect::<Result<Vec<_>, Refusal>>()?;
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

/// Repeats the checks of the edge, because operators can send commands too.
fn well_formed(command: &PlaceOrder) -> Result<(), Refusal> {
    if command.lines.is_empty() {
        return Err(Refusal::Malformed("the order has no lines".to_owned()));
    }
    let mut skus = BTreeSet::new();
    for line in &command.lines {
        if line.quantity < 1 {
            return Err(Refusal::Malformed(format!(
                "a line needs at least one copy; {} of {} were requested",
                line.quantity, line.sku
            )));
        }
        if !skus.insert(&line.sku) {
            return Err(Refusal::Malformed(format!("the sku {} is in two lines", line.sku)));
        }
    }
    Ok(())
}

fn priced(line: &RequestedLine) -> Result<OrderLine, Refusal> {
    let sku = &line.sku;
    let Some(album) = &line.album else {
        return Err(Refusal::Rejected(RejectReason::UnknownSku, format!("the catalogue does not list the sku {sku}")));
    };
    let Some(unit_price) = &album.unit_price else {
        return Err(Refusal::Rejected(RejectReason::PriceGone, format!("{sku} is no longer sold")));
    };
    if unit_price.amount_minor < 1 {
        return Err(Refusal::Malformed(format!("the price of {sku} is {}", unit_price.amount_minor)));
    }
    if line.quantity > MAX_QUANTITY {
        let detail = format!("{} copies of {sku}, at most {MAX_QUANTITY}", line.quantity);
        return Err(Refusal::Rejected(RejectReason::TooLarge, detail));
    }
    let amount_minor = unit_price.amount_minor.checked_mul(i64::from(line.quantity)).ok_or_else(total_too_large)?;
    Ok(OrderLine {
        sku: sku.clone(),
        title: album.title.clone(),
        artist: album.artist.clone(),
        quantity: line.quantity,
        unit_price: unit_price.clone(),
        line_total: Money { amount_minor, currency: unit_price.currency.clone() },
    })
}

fn sum(lines: &[OrderLine]) -> Result<Money, Refusal> {
    let Some((first, others)) = lines.split_first() else {
        return Err(Refusal::Malformed("the order has no lines".to_owned()));
    };
    let mut total = first.line_total.clone();
    for line in others {
        let money = &line.line_total;
        if money.currency != total.currency {
            let detail = format!("{} and {} in one order", total.currency, money.currency);
            return Err(Refusal::Rejected(RejectReason::MixedCurrencies, detail));
        }
        total.amount_minor = total.amount_minor.checked_add(money.amount_minor).ok_or_else(total_too_large)?;
    }
    if total.amount_minor > MAX_TOTAL_MINOR { Err(total_too_large()) } else { Ok(total) }
}

fn total_too_large() -> Refusal {
    Refusal::Rejected(RejectReason::TooLarge, format!("the total is above {MAX_TOTAL_MINOR} minor units"))
}
