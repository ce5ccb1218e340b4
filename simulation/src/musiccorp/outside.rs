//! MusicCorp's outside world: the payment gateway, the picking floor, the courier, the mail server. Each tells repeated requests by
//! their key and keeps a book of what it did, against which the events are held.

use std::collections::BTreeMap;

use notifications::{Notifications, effects::SendMail, inbox::MailSent};
use payment::{
    Payment,
    inbox::{GatewayAnswered, GatewayOutcome, GatewayRequest},
};
use runtime::{Answer, Decider, Due, Unanswered};
use warehouse::{
    Warehouse,
    events::ItemLine,
    inbox::{CourierAnswer, CourierOutcome, PickOutcome, PickResult},
};

use crate::{chance::Chance, driver::Outside};

/// What became of an order's money at the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Captured amounts.
    pub captured: Vec<i64>,
    /// Refunded amounts.
    pub refunded: Vec<i64>,
}

/// What the gateway knows of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Charge {
    Captured(String),
    Declined,
    Voided,
}

/// The payment gateway.
#[derive(Debug, Default)]
pub struct Gateway {
    charges: BTreeMap<String, Charge>,
    refunds: BTreeMap<String, String>,
    accounts: BTreeMap<String, Account>,
}

/// The tokens that the gateway declines.
pub(super) const DECLINED: &str = "tok-declined";

impl Gateway {
    /// What became of an order's money.
    #[must_use]
    pub fn account(&self, order_id: &str) -> Account {
        self.accounts.get(order_id).cloned().unwrap_or_default()
    }

    fn charge(&mut self, key: &str, order_id: &str, amount: i64, token: &str) -> Charge {
        if let Some(known) = self.charges.get(key) {
            return known.clone();
        }
        let charge = if token == DECLINED {
            Charge::Declined
        } else {
            self.accounts.entry(order_id.to_owned()).or_default().captured.push(amount);
            Charge::Captured(format!("payment-{}", self.charges.len()))
        };
        self.charges.insert(key.to_owned(), charge.clone());
        charge
    }

    fn refund(&mut self, key: &str, order_id: &str, amount: i64) -> String {
        if let Some(known) = self.refunds.get(key) {
            return known.clone();
        }
        self.accounts.entry(order_id.to_owned()).or_default().refunded.push(amount);
        let refund = format!("refund-{}", self.refunds.len());
        self.refunds.insert(key.to_owned(), refund.clone());
        refund
    }
}

impl Outside<Payment> for Gateway {
    fn ask(
        &mut self,
        key: &str,
        due: &Due<payment::effects::Effect>,
        _: &mut Chance,
    ) -> Result<Answer<<Payment as Decider>::Command>, Unanswered> {
        use payment::effects::Effect;
        let order_id = due.key.clone();
        let (mut payment_id, mut refund_id, mut reason) = (None, None, None);
        let (request, request_key, outcome, told) = match &due.effect {
            Effect::Charge { request_key, amount, payment_method } => {
                let charge = self.charge(key, &order_id, amount.amount_minor, payment_method);
                (GatewayRequest::Charge, request_key, charge, None)
            }
            Effect::Void { charge_key } => {
                let charge = self.charges.entry(charge_key.clone()).or_insert(Charge::Voided).clone();
                (GatewayRequest::Void, charge_key, charge, None)
            }
            Effect::Refund { request_key, amount, .. } => {
                let refund = self.refund(key, &order_id, amount.amount_minor);
                (GatewayRequest::Refund, request_key, Charge::Voided, Some(refund))
            }
        };
        let (outcome, told) = match (told, outcome) {
            (Some(refund), _) => {
                refund_id = Some(refund.clone());
                (GatewayOutcome::Refunded, format!("refunded {refund}"))
            }
            (None, Charge::Captured(payment)) => {
                payment_id = Some(payment.clone());
                (GatewayOutcome::Captured, format!("captured {payment}"))
            }
            (None, Charge::Declined) => {
                reason = Some("the card is blocked".to_owned());
                (GatewayOutcome::Declined, "declined".to_owned())
            }
            (None, Charge::Voided) => (GatewayOutcome::Voided, "voided".to_owned()),
        };
        let request_key = request_key.clone();
        let command = GatewayAnswered { order_id, request_key, request, outcome, payment_id, refund_id, reason };
        Ok(Answer { outcome: told, command: command.into() })
    }
}

/// The picking floor and the courier.
#[derive(Debug, Default)]
pub struct FloorAndCourier {
    picks: BTreeMap<String, PickResult>,
    parcels: BTreeMap<String, String>,
    dispatches: BTreeMap<String, u32>,
    /// Orders of which something is not on the shelf.
    pub lost: std::collections::BTreeSet<String>,
}

impl FloorAndCourier {
    /// How many parcels of an order are on their way.
    #[must_use]
    pub fn dispatched(&self, order_id: &str) -> u32 {
        self.dispatches.get(order_id).copied().unwrap_or(0)
    }

    fn pick(&mut self, key: &str, order_id: &str, lines: &[ItemLine]) -> PickResult {
        if let Some(known) = self.picks.get(key) {
            return known.clone();
        }
        let nothing = PickResult {
            order_id: order_id.to_owned(),
            outcome: PickOutcome::Packaged,
            parcel_id: None,
            missing: Vec::new(),
            detail: None,
        };
        let result = match lines.first() {
            Some(line) if self.lost.contains(order_id) => PickResult {
                outcome: PickOutcome::Missing,
                missing: vec![ItemLine { sku: line.sku.clone(), quantity: 1 }],
                detail: Some("the shelf is empty".to_owned()),
                ..nothing
            },
            _ => PickResult { parcel_id: Some(format!("parcel-{}", self.picks.len())), ..nothing },
        };
        self.picks.insert(key.to_owned(), result.clone());
        result
    }

    fn dispatch(&mut self, key: &str, order_id: &str) -> String {
        if let Some(known) = self.parcels.get(key) {
            return known.clone();
        }
        *self.dispatches.entry(order_id.to_owned()).or_default() += 1;
        let number = format!("track-{}", self.parcels.len());
        self.parcels.insert(key.to_owned(), number.clone());
        number
    }
}

impl Outside<Warehouse> for FloorAndCourier {
    fn ask(
        &mut self,
        key: &str,
        due: &Due<warehouse::effects::Effect>,
        _: &mut Chance,
    ) -> Result<Answer<<Warehouse as Decider>::Command>, Unanswered> {
        use warehouse::effects::Effect;
        Ok(match &due.effect {
            Effect::Pick { order_id, lines } => {
                let result = self.pick(key, order_id, lines);
                let outcome = match &result.parcel_id {
                    Some(parcel) => format!("packaged {parcel}"),
                    None => "missing".to_owned(),
                };
                Answer { outcome, command: result.into() }
            }
            Effect::Dispatch { order_id, parcel_id, .. } => {
                let number = self.dispatch(key, order_id);
                Answer {
                    outcome: format!("dispatched swift {number}"),
                    command: CourierAnswer {
                        order_id: order_id.clone(),
                        outcome: CourierOutcome::Dispatched,
                        parcel_id: Some(parcel_id.clone()),
                        carrier: Some("swift".to_owned()),
                        tracking_number: Some(number),
                    }
                    .into(),
                }
            }
        })
    }
}

/// The mail server: it takes everything, and tells nobody apart, as mail servers do.
#[derive(Debug, Default)]
pub struct Mail {
    /// How often each notification went out.
    pub sent: BTreeMap<String, u32>,
}

impl Outside<Notifications> for Mail {
    fn ask(
        &mut self,
        _: &str,
        due: &Due<SendMail>,
        _: &mut Chance,
    ) -> Result<Answer<<Notifications as Decider>::Command>, Unanswered> {
        let notification_id = due.effect.notification_id.clone();
        *self.sent.entry(notification_id.clone()).or_default() += 1;
        let message_id = due.effect.message_id();
        Ok(Answer { outcome: "sent".to_owned(), command: MailSent { notification_id, message_id }.into() })
    }
}
