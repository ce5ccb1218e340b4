//! The operations of customers, clerks and operators on MusicCorp. The schedule draws when each is applied.
//!
//! A new kind of operation is a variant of [`Operation`], a line in [`draw`] and an arm of [`apply`].

use catalogue::{
    Catalogue,
    events::Money as Price,
    inbox::{ChangePrice, ListAlbum},
};
use customers::{
    Customers,
    events::Contact,
    inbox::{ForgetCustomer, RegisterCustomer, VerifyCustomer},
};
use order_processor::{
    OrderProcessor,
    events::Address,
    inbox::{CancelOrder, GiveUpOrder, PlaceOrder},
    request::{LineRequest, OrderRequest},
};
use payment::{Payment, inbox::RetryRefund};
use uuid::Uuid;
use warehouse::{
    Warehouse,
    inbox::{ReceiveGoods, RetryDispatch},
};

use super::{
    HttpLookups,
    external::DECLINED,
    tally::{Ring, Tally},
};
use crate::{driver::Violation, random::SeededRandom, workload::Client};

/// One operation.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// The shop lists an album.
    List { sku: String, price_minor: i64 },
    /// An album's price changes, or it is no longer sold.
    Reprice { sku: String, price_minor: Option<i64> },
    /// Goods arrive.
    Receive { sku: String, delivery_id: String, quantity: i32 },
    /// A customer registers.
    Register { customer_id: String },
    /// A customer follows the link in the welcome mail.
    Verify { customer_id: String },
    /// A customer wants to be forgotten.
    Forget { customer_id: String },
    /// An amount is added to an account of the tally.
    Ring { account: String, amount_minor: i64 },
    /// A customer wants an order cancelled.
    Cancel { order_id: Uuid },
    /// An operator gives up an order.
    GiveUp { order_id: Uuid },
    /// An operator retries a dispatch, perhaps one that is not abandoned.
    RetryDispatch { order_id: Uuid },
    /// An operator retries a refund, perhaps one that has not failed.
    RetryRefund { order_id: Uuid },
    /// A customer places an order. Every attempt sends what the first one has looked up.
    Order { order_id: Uuid, request: OrderRequest, is_lost: bool, sent: Option<Box<PlaceOrder>> },
}

impl Operation {
    /// The account of the tally to which it adds, and the amount, if any.
    pub(super) fn rung(&self) -> Option<(String, i64)> {
        match self {
            Self::Ring { account, amount_minor } => Some((account.clone(), *amount_minor)),
            _ => None,
        }
    }
}

const SKUS: [&str; 4] = ["blue", "thriller", "kind", "rumours"];
const CUSTOMERS: [&str; 3] = ["ada", "bob", "cyd"];
/// An album that is not listed, and a customer who is not registered.
const UNLISTED: &str = "unlisted";
const UNREGISTERED: &str = "nobody";

/// Draws the operations of one run: albums, goods and customers first, then orders, with cancellations and other changes among
/// them.
pub(super) fn draw(random: &mut SeededRandom) -> Vec<Operation> {
    let (skus, customers) = (1 + random.index(SKUS.len()), 1 + random.index(CUSTOMERS.len()));
    let mut operations = Vec::new();
    for (at, sku) in SKUS[..skus].iter().enumerate() {
        operations.push(Operation::List { sku: (*sku).to_owned(), price_minor: random.within(1..=4_000) });
        for delivery in 0..1 + random.below(2) {
            let delivery_id = format!("delivery-{at}-{delivery}");
            let quantity = i32::try_from(random.within(1..=6)).unwrap_or(1);
            operations.push(Operation::Receive { sku: (*sku).to_owned(), delivery_id, quantity });
        }
    }
    operations.extend(CUSTOMERS[..customers].iter().map(|id| Operation::Register { customer_id: (*id).to_owned() }));
    if random.permille(300) {
        // Many amounts for one account at once: when its timer is due, some of them may still be unread.
        let account = (*random.pick(&CUSTOMERS)).to_owned();
        let rings = 3 + random.below(10);
        let amounts = (0..rings).map(|_| random.within(1..=50)).collect::<Vec<_>>();
        let ring = |amount_minor| Operation::Ring { account: account.clone(), amount_minor };
        operations.extend(amounts.into_iter().map(ring));
    }
    if random.permille(300) {
        let sku = (*random.pick(&SKUS[..skus])).to_owned();
        for price_minor in 0..3 + random.within(0..=9) {
            operations.push(Operation::Reprice { sku: sku.clone(), price_minor: Some(5_000 + price_minor) });
        }
    }
    let orders = *random.pick(&[1, 1, 2, 2, 3, 4, 6, 8]);
    for number in 0..orders {
        operations.push(order(number, skus, customers, random));
        let customer_id = (*random.pick(&CUSTOMERS)).to_owned();
        let sku = (*random.pick(&SKUS)).to_owned();
        let order_id = order_id(random.below(number + 1));
        match random.below(10) {
            0 | 1 => operations.push(Operation::Cancel { order_id }),
            2 => operations.push(Operation::GiveUp { order_id }),
            3 => operations.push(Operation::RetryDispatch { order_id }),
            4 => operations.push(Operation::RetryRefund { order_id }),
            _ => {}
        }
        match random.below(14) {
            4 | 5 => operations.push(Operation::Ring { account: customer_id, amount_minor: random.within(1..=50) }),
            0 => operations.push(Operation::Forget { customer_id }),
            1 => operations.push(Operation::Verify { customer_id }),
            2 => operations.push(Operation::Reprice { sku, price_minor: Some(random.within(1..=4_000)) }),
            3 => operations.push(Operation::Reprice { sku, price_minor: None }),
            _ => {}
        }
    }
    operations
}

fn order(number: u64, skus: usize, customers: usize, random: &mut SeededRandom) -> Operation {
    let most = i64::try_from(skus).unwrap_or(1);
    let first = random.index(skus);
    let count = usize::try_from(random.within(1..=most)).unwrap_or(1);
    let mut lines: Vec<LineRequest> = (0..count)
        .map(|at| LineRequest {
            sku: SKUS[(first + at) % skus].to_owned(),
            quantity: i32::try_from(random.within(1..=3)).unwrap_or(1),
        })
        .collect();
    if random.permille(40) {
        lines.push(LineRequest { sku: UNLISTED.to_owned(), quantity: 1 });
    }
    let customer_id =
        if random.permille(40) { UNREGISTERED.to_owned() } else { (*random.pick(&CUSTOMERS[..customers])).to_owned() };
    let request = OrderRequest {
        customer_id,
        ship_to: Address {
            street: "Lane 1".to_owned(),
            city: "Leeds".to_owned(),
            postcode: "LS1".to_owned(),
            country: "GB".to_owned(),
        },
        lines,
        payment_method: if random.permille(200) { DECLINED } else { "tok-visa" }.to_owned(),
    };
    let is_lost = random.permille(200);
    Operation::Order { order_id: order_id(number), request, is_lost, sent: None }
}

fn order_id(number: u64) -> Uuid {
    Uuid::from_u128(0x0d00_0000 + u128::from(number))
}

/// Acts as an operator on an order that has settled but needs attention. Returns whether anything was done.
pub(super) fn operate(order_id: &str, sent_before: usize, client: &mut Client<'_>) -> Result<bool, Violation> {
    let last = |client: &Client<'_>, service: &str, of: &[&str]| {
        let events = client
            .events_of(service)
            .into_iter()
            .filter(|(_, _, stored)| stored.key.as_deref() == Some(order_id.as_bytes()));
        let names = events.filter_map(|(_, _, stored)| Some(stored.header("ce_type")?.rsplit('.').next()?.to_owned()));
        names.filter(|name| of.contains(&name.as_str())).last().unwrap_or_default()
    };
    client.for_operation(2_000_000 + sent_before);
    let about = order_id.to_owned();
    if last(client, "payment", &["RefundFailed", "RefundRequested", "PaymentRefunded"]) == "RefundFailed" {
        client.sometimes("an operator retries a refund");
        return client.send::<Payment>(order_id, RetryRefund { order_id: about });
    }
    let dispatch = last(
        client,
        "warehouse",
        &["DispatchAbandoned", "DispatchRequested", "OrderDispatched", "CancellationAccepted", "ReleaseStarted"],
    );
    if dispatch != "DispatchAbandoned" {
        return Ok(false);
    }
    if client.random().permille(600) {
        client.sometimes("an operator retries a dispatch");
        client.send::<Warehouse>(order_id, RetryDispatch { order_id: about })
    } else {
        client.sometimes("an operator gives up an order");
        client.send::<OrderProcessor>(order_id, GiveUpOrder { order_id: about, reason: "nobody takes it".to_owned() })
    }
}

/// Applies an operation. Returns false if its outcome is unknown: it is applied again.
pub(super) fn apply(
    operation: &mut Operation,
    http_lookups: &mut HttpLookups,
    client: &mut Client<'_>,
) -> Result<bool, Violation> {
    let euros = |amount_minor: i64| Price { amount_minor, currency: "EUR".to_owned() };
    match operation {
        Operation::List { sku, price_minor } => {
            let (title, artist) = (format!("The {sku} album"), "Somebody".to_owned());
            let price = Some(euros(*price_minor));
            client.send::<Catalogue>(sku, ListAlbum { sku: sku.clone(), title, artist, price })
        }
        Operation::Reprice { sku, price_minor } => {
            let new_price = price_minor.map(euros);
            client.send::<Catalogue>(sku, ChangePrice { sku: sku.clone(), new_price })
        }
        Operation::Receive { sku, delivery_id, quantity } => {
            let goods = ReceiveGoods { sku: sku.clone(), delivery_id: delivery_id.clone(), quantity: *quantity };
            client.send::<Warehouse>(sku, goods)
        }
        Operation::Register { customer_id } => {
            let contact = Contact { name: customer_id.clone(), email: format!("{customer_id}@example.org") };
            let command = RegisterCustomer { customer_id: customer_id.clone(), contact, marketing_consent: false };
            client.send::<Customers>(customer_id, command)
        }
        Operation::Verify { customer_id } => {
            client.send::<Customers>(customer_id, VerifyCustomer { customer_id: customer_id.clone() })
        }
        Operation::Forget { customer_id } => {
            client.send::<Customers>(customer_id, ForgetCustomer { customer_id: customer_id.clone() })
        }
        Operation::Ring { account, amount_minor } => {
            client.send::<Tally>(account, Ring { account: account.clone(), amount_minor: *amount_minor })
        }
        Operation::Cancel { order_id } => {
            let command =
                CancelOrder { order_id: order_id.to_string(), reason: "a present for somebody else".to_owned() };
            client.send::<OrderProcessor>(&order_id.to_string(), command)
        }
        Operation::GiveUp { order_id } => {
            let command = GiveUpOrder { order_id: order_id.to_string(), reason: String::new() };
            client.send::<OrderProcessor>(&order_id.to_string(), command)
        }
        Operation::RetryDispatch { order_id } => {
            client.send::<Warehouse>(&order_id.to_string(), RetryDispatch { order_id: order_id.to_string() })
        }
        Operation::RetryRefund { order_id } => {
            client.send::<Payment>(&order_id.to_string(), RetryRefund { order_id: order_id.to_string() })
        }
        Operation::Order { order_id, request, sent, .. } => place_order(*order_id, request, sent, http_lookups, client),
    }
}

/// Places an order with what the look-ups have. Returns false if the customer comes back later.
fn place_order(
    order_id: Uuid,
    request: &OrderRequest,
    sent: &mut Option<Box<PlaceOrder>>,
    http_lookups: &mut HttpLookups,
    client: &mut Client<'_>,
) -> Result<bool, Violation> {
    let command = match sent {
        Some(command) => command,
        None => {
            // Most customers order what the look-ups already have; some order earlier.
            let known = http_lookups.catch_up(client);
            let mut skus = request.lines.iter().map(|line| &line.sku);
            let are_listed = skus.all(|sku| sku == UNLISTED || known.knows_album(sku));
            let is_known = request.customer_id == UNREGISTERED || known.knows_customer(&request.customer_id);
            let mut orders_early = || client.random().permille(1);
            if !(are_listed && is_known || orders_early()) {
                return Ok(false);
            }
            sent.insert(Box::new(known.resolve(order_id, request)))
        }
    };
    client.send::<OrderProcessor>(&order_id.to_string(), (**command).clone())
}
