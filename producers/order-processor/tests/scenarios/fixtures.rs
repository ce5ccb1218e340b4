//! Commands, facts, events and scenarios of one order.

use order_processor::{
    OrderProcessor,
    events::{
        Address, AttentionNeed, CancelReason, CancelRequester, CommandRefused, Contact, Money, NotedFact,
        OrderCancellationRefused, OrderCancellationRequested, OrderCancelled, OrderCompleted, OrderDelayed,
        OrderFactNoted, OrderLine, OrderNeedsAttention, OrderPaid, OrderPicking, OrderPlaced, OrderShipped,
    },
    inbox::{CancelOrder, GiveUpOrder, PlaceOrder, RequestedLine, ResolvedAlbum, ResolvedCustomer},
    reads::{
        CancellationAccepted, CancellationRefused, DispatchAbandoned, DispatchDelayed, Input, OrderDispatched,
        PackagingFailed, PaymentAbandoned, PaymentDeclined, PaymentTaken, PickingStarted, PointsAwarded, RefundFailed,
        StockShort,
    },
};
use runtime::{
    Received,
    testing::{NOW_MS, Scenario, received},
};

pub(crate) const ORDER: &str = "order-1";

pub(crate) fn eur(amount_minor: i64) -> Money {
    Money { amount_minor, currency: "EUR".to_owned() }
}

pub(crate) fn contact() -> Contact {
    Contact { name: "Inés Calderón".to_owned(), email: "ines.calderon@example.org".to_owned() }
}

pub(crate) fn ship_to() -> Address {
    Address {
        street: "Lindenstraße 14".to_owned(),
        city: "Leipzig".to_owned(),
        postcode: "04105".to_owned(),
        country: "DE".to_owned(),
    }
}

pub(crate) fn wanted(sku: &str, quantity: i32, unit_price: Option<Money>) -> RequestedLine {
    let album = ResolvedAlbum { title: "Blue".to_owned(), artist: "Joni Mitchell".to_owned(), unit_price };
    RequestedLine { sku: sku.to_owned(), quantity, album: Some(album) }
}

pub(crate) fn place_order() -> PlaceOrder {
    PlaceOrder {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        customer: Some(ResolvedCustomer { contact: contact(), forgotten: false }),
        ship_to: ship_to(),
        lines: vec![wanted("LP-1", 1, Some(eur(2499))), wanted("LP-2", 2, Some(eur(1999)))],
        payment_method: "card-ok".to_owned(),
        request_digest: "digest-1".to_owned(),
    }
}

pub(crate) fn sold(sku: &str, quantity: i32, unit: i64) -> OrderLine {
    OrderLine {
        sku: sku.to_owned(),
        title: "Blue".to_owned(),
        artist: "Joni Mitchell".to_owned(),
        quantity,
        unit_price: eur(unit),
        line_total: eur(unit * i64::from(quantity)),
    }
}

pub(crate) fn lines() -> Vec<OrderLine> {
    vec![sold("LP-1", 1, 2499), sold("LP-2", 2, 1999)]
}

pub(crate) fn order_placed() -> OrderPlaced {
    OrderPlaced {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        ship_to: ship_to(),
        lines: lines(),
        total: eur(6497),
        payment_method: "card-ok".to_owned(),
        request_digest: "digest-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn order_paid() -> OrderPaid {
    OrderPaid {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        total: eur(6497),
        payment_id: "pay-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn order_picking() -> OrderPicking {
    OrderPicking {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        lines: lines(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn order_shipped() -> OrderShipped {
    OrderShipped {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        ship_to: ship_to(),
        lines: lines(),
        total: eur(6497),
        carrier: "Parcelwing".to_owned(),
        tracking_number: "PW-1".to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn order_completed() -> OrderCompleted {
    OrderCompleted {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        lines: lines(),
        total: eur(6497),
        points_awarded: 64,
        occurred_at: NOW_MS,
    }
}

pub(crate) fn order_cancelled(reason: CancelReason, detail: &str) -> OrderCancelled {
    OrderCancelled {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        total: eur(6497),
        reason,
        detail: detail.to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn cancel_requested(request: i32) -> OrderCancellationRequested {
    OrderCancellationRequested {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        request,
        requested_by: CancelRequester::Customer,
        reason: "bought twice".to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn cancel_refused(request: i32, reason: &str) -> OrderCancellationRefused {
    OrderCancellationRefused {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        request,
        requested_by: CancelRequester::Customer,
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn command_refused(command: &str, reason: &str) -> CommandRefused {
    CommandRefused {
        entity_id: ORDER.to_owned(),
        command: command.to_owned(),
        reason: reason.to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn noted(fact: NotedFact) -> OrderFactNoted {
    let order_id = ORDER.to_owned();
    OrderFactNoted { order_id, fact, carrier: None, tracking_number: None, points: None, occurred_at: NOW_MS }
}

pub(crate) fn payment_taken() -> Received<Input> {
    received(ORDER, PaymentTaken { order_id: ORDER.to_owned(), payment_id: "pay-1".to_owned() })
}

pub(crate) fn picking_started() -> Received<Input> {
    received(ORDER, PickingStarted { order_id: ORDER.to_owned() })
}

pub(crate) fn dispatched() -> Received<Input> {
    let (carrier, tracking_number) = ("Parcelwing".to_owned(), "PW-1".to_owned());
    received(ORDER, OrderDispatched { order_id: ORDER.to_owned(), carrier, tracking_number })
}

pub(crate) fn points_awarded() -> Received<Input> {
    received("customer-1", PointsAwarded { order_id: ORDER.to_owned(), points: 64 })
}

pub(crate) fn stock_short() -> Received<Input> {
    received(ORDER, StockShort { order_id: ORDER.to_owned(), sku: "LP-2".to_owned(), wanted: 2, free: 1 })
}

pub(crate) fn payment_declined() -> Received<Input> {
    received(ORDER, PaymentDeclined { order_id: ORDER.to_owned(), reason: "insufficient funds".to_owned() })
}

pub(crate) fn packaging_failed() -> Received<Input> {
    received(ORDER, PackagingFailed { order_id: ORDER.to_owned(), detail: "LP-2 was not on the shelf".to_owned() })
}

pub(crate) fn cancel() -> Received<Input> {
    received(ORDER, CancelOrder { order_id: ORDER.to_owned(), reason: "bought twice".to_owned() })
}

pub(crate) fn cancel_accepted(request: i32) -> Received<Input> {
    received(ORDER, CancellationAccepted { order_id: ORDER.to_owned(), request })
}

pub(crate) fn cancel_too_late(request: i32) -> Received<Input> {
    let reason = "the parcel is packed".to_owned();
    received(ORDER, CancellationRefused { order_id: ORDER.to_owned(), request, reason })
}

pub(crate) fn give_up() -> Received<Input> {
    received(ORDER, GiveUpOrder { order_id: ORDER.to_owned(), reason: "no courier goes there".to_owned() })
}

pub(crate) fn payment_abandoned() -> Received<Input> {
    received(ORDER, PaymentAbandoned { order_id: ORDER.to_owned(), reason: "no answer in time".to_owned() })
}

pub(crate) fn refund_failed(attempt: i32) -> Received<Input> {
    received(ORDER, RefundFailed { order_id: ORDER.to_owned(), attempt, reason: "the card is closed".to_owned() })
}

pub(crate) fn dispatch_delayed(reason: &str) -> Received<Input> {
    received(ORDER, DispatchDelayed { order_id: ORDER.to_owned(), reason: reason.to_owned() })
}

pub(crate) fn dispatch_abandoned(attempt: i32) -> Received<Input> {
    received(ORDER, DispatchAbandoned { order_id: ORDER.to_owned(), attempt, reason: "no van has room".to_owned() })
}

pub(crate) fn order_delayed() -> OrderDelayed {
    OrderDelayed {
        order_id: ORDER.to_owned(),
        customer_id: "customer-1".to_owned(),
        contact: contact(),
        lines: lines(),
        reason: "no van has room".to_owned(),
        occurred_at: NOW_MS,
    }
}

pub(crate) fn needs_attention(need: AttentionNeed, attempt: i32, detail: &str) -> OrderNeedsAttention {
    OrderNeedsAttention { order_id: ORDER.to_owned(), need, attempt, detail: detail.to_owned(), occurred_at: NOW_MS }
}

pub(crate) fn new() -> Scenario<OrderProcessor> {
    Scenario::of(OrderProcessor)
}

pub(crate) fn placed() -> Scenario<OrderProcessor> {
    new().given([order_placed()])
}

pub(crate) fn paid() -> Scenario<OrderProcessor> {
    placed().given([order_paid()])
}

pub(crate) fn picking() -> Scenario<OrderProcessor> {
    paid().given([order_picking()])
}

pub(crate) fn shipped() -> Scenario<OrderProcessor> {
    picking().given([order_shipped()])
}
