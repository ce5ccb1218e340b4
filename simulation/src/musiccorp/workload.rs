//! What customers and clerks do to MusicCorp: a deed is one thing that somebody does, at a time that the schedule draws.
//!
//! A new kind of deed is a variant of [`Deed`], a line in [`draw`] and an arm of [`act`].

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
    Window,
    outside::DECLINED,
    tally::{Ring, Tally},
};
use crate::{chance::Chance, driver::Violation, history::Hand};

/// One thing that somebody does.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// The shop lists an album.
    List { sku: String, price_minor: i64 },
    /// An album's price changes, or it is no longer sold.
    Reprice { sku: String, price_minor: Option<i64> },
    /// Goods arrive.
    Receive { sku: String, delivery_id: String, quantity: i32 },
    /// Somebody registers.
    Register { customer_id: String },
    /// Somebody follows the link in the welcome mail.
    Verify { customer_id: String },
    /// Somebody wants to be forgotten.
    Forget { customer_id: String },
    /// Somebody adds to an account of the tally.
    Ring { account: String, amount_minor: i64 },
    /// The customer wants an order cancelled.
    Cancel { order_id: Uuid },
    /// An operator gives an order up.
    GiveUp { order_id: Uuid },
    /// An operator has a dispatch tried again, perhaps one that nobody has abandoned.
    RetryDispatch { order_id: Uuid },
    /// An operator has a refund tried again, perhaps one that nobody has refused.
    RetryRefund { order_id: Uuid },
    /// Somebody orders. What was looked up at the first attempt travels with every further one.
    Order { order_id: Uuid, request: OrderRequest, is_lost: bool, sent: Option<Box<PlaceOrder>> },
}

impl Deed {
    /// What it adds to which account of the tally, if anything.
    pub(super) fn rung(&self) -> Option<(String, i64)> {
        match self {
            Self::Ring { account, amount_minor } => Some((account.clone(), *amount_minor)),
            _ => None,
        }
    }
}

const SKUS: [&str; 4] = ["blue", "thriller", "kind", "rumours"];
const CUSTOMERS: [&str; 3] = ["ada", "bob", "cyd"];
/// What nobody lists, and whom nobody knows.
const UNLISTED: &str = "unlisted";
const NOBODY: &str = "nobody";

/// Draws the deeds of one history: the shop is furnished first, orders follow, and now and then somebody changes their mind.
pub(super) fn draw(chance: &mut Chance) -> Vec<Deed> {
    let (skus, customers) = (1 + chance.index(SKUS.len()), 1 + chance.index(CUSTOMERS.len()));
    let mut deeds = Vec::new();
    for (at, sku) in SKUS[..skus].iter().enumerate() {
        deeds.push(Deed::List { sku: (*sku).to_owned(), price_minor: chance.within(1..=4_000) });
        for delivery in 0..1 + chance.below(2) {
            let delivery_id = format!("delivery-{at}-{delivery}");
            let quantity = i32::try_from(chance.within(1..=6)).unwrap_or(1);
            deeds.push(Deed::Receive { sku: (*sku).to_owned(), delivery_id, quantity });
        }
    }
    deeds.extend(CUSTOMERS[..customers].iter().map(|id| Deed::Register { customer_id: (*id).to_owned() }));
    if chance.permille(300) {
        // Many to one account at once: when its timer is due, some of them may still be unread.
        let account = (*chance.pick(&CUSTOMERS)).to_owned();
        let rings = 3 + chance.below(10);
        let amounts = (0..rings).map(|_| chance.within(1..=50)).collect::<Vec<_>>();
        let ring = |amount_minor| Deed::Ring { account: account.clone(), amount_minor };
        deeds.extend(amounts.into_iter().map(ring));
    }
    if chance.permille(300) {
        let sku = (*chance.pick(&SKUS[..skus])).to_owned();
        for price_minor in 0..3 + chance.within(0..=9) {
            deeds.push(Deed::Reprice { sku: sku.clone(), price_minor: Some(5_000 + price_minor) });
        }
    }
    let orders = *chance.pick(&[1, 1, 2, 2, 3, 4, 6, 8]);
    for number in 0..orders {
        deeds.push(order(number, skus, customers, chance));
        let customer_id = (*chance.pick(&CUSTOMERS)).to_owned();
        let sku = (*chance.pick(&SKUS)).to_owned();
        let order_id = order_id(chance.below(number + 1));
        match chance.below(10) {
            0 | 1 => deeds.push(Deed::Cancel { order_id }),
            2 => deeds.push(Deed::GiveUp { order_id }),
            3 => deeds.push(Deed::RetryDispatch { order_id }),
            4 => deeds.push(Deed::RetryRefund { order_id }),
            _ => {}
        }
        match chance.below(14) {
            4 | 5 => deeds.push(Deed::Ring { account: customer_id, amount_minor: chance.within(1..=50) }),
            0 => deeds.push(Deed::Forget { customer_id }),
            1 => deeds.push(Deed::Verify { customer_id }),
            2 => deeds.push(Deed::Reprice { sku, price_minor: Some(chance.within(1..=4_000)) }),
            3 => deeds.push(Deed::Reprice { sku, price_minor: None }),
            _ => {}
        }
    }
    deeds
}

fn order(number: u64, skus: usize, customers: usize, chance: &mut Chance) -> Deed {
    let most = i64::try_from(skus).unwrap_or(1);
    let first = chance.index(skus);
    let count = usize::try_from(chance.within(1..=most)).unwrap_or(1);
    let mut lines: Vec<LineRequest> = (0..count)
        .map(|at| LineRequest {
            sku: SKUS[(first + at) % skus].to_owned(),
            quantity: i32::try_from(chance.within(1..=3)).unwrap_or(1),
        })
        .collect();
    if chance.permille(40) {
        lines.push(LineRequest { sku: UNLISTED.to_owned(), quantity: 1 });
    }
    let customer_id =
        if chance.permille(40) { NOBODY.to_owned() } else { (*chance.pick(&CUSTOMERS[..customers])).to_owned() };
    let request = OrderRequest {
        customer_id,
        ship_to: Address {
            street: "Lane 1".to_owned(),
            city: "Leeds".to_owned(),
            postcode: "LS1".to_owned(),
            country: "GB".to_owned(),
        },
        lines,
        payment_method: if chance.permille(200) { DECLINED } else { "tok-visa" }.to_owned(),
    };
    let is_lost = chance.permille(200);
    Deed::Order { order_id: order_id(number), request, is_lost, sent: None }
}

fn order_id(number: u64) -> Uuid {
    Uuid::from_u128(0x0d00_0000 + u128::from(number))
}

/// What an operator does about an order that nothing moves any more. Answers whether that was anything.
pub(super) fn tend(order_id: &str, tended: usize, hand: &mut Hand<'_>) -> Result<bool, Violation> {
    let last = |hand: &Hand<'_>, service: &str, of: &[&str]| {
        let events = hand
            .events_of(service)
            .into_iter()
            .filter(|(_, _, stored)| stored.key.as_deref() == Some(order_id.as_bytes()));
        let names = events.filter_map(|(_, _, stored)| Some(stored.header("ce_type")?.rsplit('.').next()?.to_owned()));
        names.filter(|name| of.contains(&name.as_str())).last().unwrap_or_default()
    };
    hand.for_deed(2_000_000 + tended);
    let about = order_id.to_owned();
    if last(hand, "payment", &["RefundFailed", "RefundRequested", "PaymentRefunded"]) == "RefundFailed" {
        hand.sometimes("an operator has a refund tried again");
        return hand.send::<Payment>(order_id, RetryRefund { order_id: about });
    }
    let dispatch = last(
        hand,
        "warehouse",
        &["DispatchAbandoned", "DispatchRequested", "OrderDispatched", "CancellationAccepted", "ReleaseStarted"],
    );
    if dispatch != "DispatchAbandoned" {
        return Ok(false);
    }
    if hand.chance().permille(600) {
        hand.sometimes("an operator has a dispatch tried again");
        hand.send::<Warehouse>(order_id, RetryDispatch { order_id: about })
    } else {
        hand.sometimes("an operator gives an order up");
        hand.send::<OrderProcessor>(order_id, GiveUpOrder { order_id: about, reason: "nobody takes it".to_owned() })
    }
}

/// Does a deed. False: nobody knows whether it arrived; it is done again.
pub(super) fn act(deed: &mut Deed, window: &mut Window, hand: &mut Hand<'_>) -> Result<bool, Violation> {
    let euros = |amount_minor: i64| Price { amount_minor, currency: "EUR".to_owned() };
    match deed {
        Deed::List { sku, price_minor } => {
            let (title, artist) = (format!("The {sku} album"), "Somebody".to_owned());
            let price = Some(euros(*price_minor));
            hand.send::<Catalogue>(sku, ListAlbum { sku: sku.clone(), title, artist, price })
        }
        Deed::Reprice { sku, price_minor } => {
            let new_price = price_minor.map(euros);
            hand.send::<Catalogue>(sku, ChangePrice { sku: sku.clone(), new_price })
        }
        Deed::Receive { sku, delivery_id, quantity } => {
            let goods = ReceiveGoods { sku: sku.clone(), delivery_id: delivery_id.clone(), quantity: *quantity };
            hand.send::<Warehouse>(sku, goods)
        }
        Deed::Register { customer_id } => {
            let contact = Contact { name: customer_id.clone(), email: format!("{customer_id}@example.org") };
            let command = RegisterCustomer { customer_id: customer_id.clone(), contact, marketing_consent: false };
            hand.send::<Customers>(customer_id, command)
        }
        Deed::Verify { customer_id } => {
            hand.send::<Customers>(customer_id, VerifyCustomer { customer_id: customer_id.clone() })
        }
        Deed::Forget { customer_id } => {
            hand.send::<Customers>(customer_id, ForgetCustomer { customer_id: customer_id.clone() })
        }
        Deed::Ring { account, amount_minor } => {
            hand.send::<Tally>(account, Ring { account: account.clone(), amount_minor: *amount_minor })
        }
        Deed::Cancel { order_id } => {
            let command =
                CancelOrder { order_id: order_id.to_string(), reason: "a present for somebody else".to_owned() };
            hand.send::<OrderProcessor>(&order_id.to_string(), command)
        }
        Deed::GiveUp { order_id } => {
            let command = GiveUpOrder { order_id: order_id.to_string(), reason: String::new() };
            hand.send::<OrderProcessor>(&order_id.to_string(), command)
        }
        Deed::RetryDispatch { order_id } => {
            hand.send::<Warehouse>(&order_id.to_string(), RetryDispatch { order_id: order_id.to_string() })
        }
        Deed::RetryRefund { order_id } => {
            hand.send::<Payment>(&order_id.to_string(), RetryRefund { order_id: order_id.to_string() })
        }
        Deed::Order { order_id, request, sent, .. } => place_order(*order_id, request, sent, window, hand),
    }
}

/// Places an order with what the shop knows by then, which is the same each time it is sent.
fn place_order(
    order_id: Uuid,
    request: &OrderRequest,
    sent: &mut Option<Box<PlaceOrder>>,
    window: &mut Window,
    hand: &mut Hand<'_>,
) -> Result<bool, Violation> {
    let command = match sent {
        Some(command) => command,
        None => {
            // Most customers look at the shop before they order; some are faster than it.
            let known = window.now(hand);
            let mut skus = request.lines.iter().map(|line| &line.sku);
            let is_furnished = skus.all(|sku| sku == UNLISTED || known.knows_album(sku));
            let is_known = request.customer_id == NOBODY || known.knows_customer(&request.customer_id);
            let mut is_hasty = || hand.chance().permille(1);
            if !(is_furnished && is_known || is_hasty()) {
                return Ok(false);
            }
            sent.insert(Box::new(known.resolve(order_id, request)))
        }
    };
    hand.send::<OrderProcessor>(&order_id.to_string(), (**command).clone())
}
