//! MusicCorp's external services: the payment gateway, picking, the courier, the mail server. Each recognises repeated requests
//! by their key, and keeps an account of what it did, with which the events are compared.

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

use crate::{driver::ExternalService, random::SeededRandom};

/// What the gateway has captured and refunded for an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayAccount {
    /// Captured amounts.
    pub captured: Vec<i64>,
    /// Refunded amounts.
    pub refunded: Vec<i64>,
}

/// The outcome of a charge at the gateway.
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
    refunds: BTreeMap<String, Option<String>>,
    accounts: BTreeMap<String, GatewayAccount>,
}

/// The tokens that the gateway declines.
pub(super) const DECLINED: &str = "tok-declined";

impl Gateway {
    /// What was captured and refunded for an order.
    #[must_use]
    pub fn account(&self, order_id: &str) -> GatewayAccount {
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

    /// Pays back, or refuses at random. A retry of the operator has another key, so it is a new request.
    fn refund(&mut self, key: &str, order_id: &str, amount: i64, random: &mut SeededRandom) -> Option<String> {
        if let Some(known) = self.refunds.get(key) {
            return known.clone();
        }
        let refund = (!random.permille(200)).then(|| format!("refund-{}", self.refunds.len()));
        if refund.is_some() {
            self.accounts.entry(order_id.to_owned()).or_default().refunded.push(amount);
        }
        self.refunds.insert(key.to_owned(), refund.clone());
        refund
    }
}

impl ExternalService<Payment> for Gateway {
    fn call(
        &mut self,
        key: &str,
        due: &Due<payment::effects::GatewayCall>,
        random: &mut SeededRandom,
    ) -> Result<Answer<<Payment as Decider>::Command>, Unanswered> {
        use payment::effects::GatewayCall;
        let order_id = due.key.as_str();
        Ok(match &due.effect {
            GatewayCall::Charge { request_key, amount, payment_method } => {
                let charge = self.charge(key, order_id, amount.amount_minor, payment_method);
                charged(GatewayRequest::Charge, order_id, request_key, charge)
            }
            GatewayCall::Void { charge_key } => {
                let charge = self.charges.entry(charge_key.clone()).or_insert(Charge::Voided).clone();
                charged(GatewayRequest::Void, order_id, charge_key, charge)
            }
            GatewayCall::Refund { request_key, amount, .. } => {
                let answered = answered(GatewayRequest::Refund, order_id, request_key);
                match self.refund(key, order_id, amount.amount_minor, random) {
                    Some(refund) => Answer {
                        outcome: format!("refunded {refund}"),
                        command: GatewayAnswered {
                            outcome: GatewayOutcome::Refunded,
                            refund_id: Some(refund),
                            ..answered
                        }
                        .into(),
                    },
                    None => Answer {
                        outcome: "refused".to_owned(),
                        command: GatewayAnswered {
                            outcome: GatewayOutcome::Refused,
                            reason: Some("the account is closed".to_owned()),
                            ..answered
                        }
                        .into(),
                    },
                }
            }
        })
    }
}

fn answered(request: GatewayRequest, order_id: &str, request_key: &str) -> GatewayAnswered {
    GatewayAnswered {
        order_id: order_id.to_owned(),
        request_key: request_key.to_owned(),
        request,
        outcome: GatewayOutcome::Voided,
        payment_id: None,
        refund_id: None,
        reason: None,
    }
}

fn charged(
    request: GatewayRequest,
    order_id: &str,
    request_key: &str,
    charge: Charge,
) -> Answer<<Payment as Decider>::Command> {
    let answered = answered(request, order_id, request_key);
    let (outcome, command) = match charge {
        Charge::Captured(payment) => {
            let outcome = format!("captured {payment}");
            let payment_id = Some(payment);
            (outcome, GatewayAnswered { outcome: GatewayOutcome::Captured, payment_id, ..answered })
        }
        Charge::Declined => {
            let reason = Some("the card is blocked".to_owned());
            ("declined".to_owned(), GatewayAnswered { outcome: GatewayOutcome::Declined, reason, ..answered })
        }
        Charge::Voided => ("voided".to_owned(), answered),
    };
    Answer { outcome, command: command.into() }
}

/// Picking and the courier.
#[derive(Debug, Default)]
pub struct PickingAndCourier {
    picks: BTreeMap<String, PickResult>,
    attempts: BTreeMap<String, Parcel>,
    dispatches: BTreeMap<String, u32>,
    /// The orders with an item that is not on the shelf.
    pub lost: std::collections::BTreeSet<String>,
}

impl PickingAndCourier {
    /// How many parcels of an order the courier has taken.
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

    /// The courier takes the parcel, or refuses. An attempt that was withdrawn before it arrived takes nothing.
    fn dispatch(&mut self, key: &str, order_id: &str, random: &mut SeededRandom) -> Parcel {
        if let Some(known) = self.attempts.get(key) {
            return known.clone();
        }
        let parcel = if random.permille(250) {
            Parcel::Refused
        } else {
            *self.dispatches.entry(order_id.to_owned()).or_default() += 1;
            Parcel::Taken(format!("track-{}", self.attempts.len()))
        };
        self.attempts.insert(key.to_owned(), parcel.clone());
        parcel
    }
}

/// The outcome of one dispatch attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Parcel {
    Taken(String),
    Refused,
    Withdrawn,
}

impl ExternalService<Warehouse> for PickingAndCourier {
    fn call(
        &mut self,
        key: &str,
        due: &Due<warehouse::effects::WarehouseCall>,
        random: &mut SeededRandom,
    ) -> Result<Answer<<Warehouse as Decider>::Command>, Unanswered> {
        use warehouse::effects::WarehouseCall;
        Ok(match &due.effect {
            WarehouseCall::Pick { order_id, lines } => {
                let result = self.pick(key, order_id, lines);
                let outcome = match &result.parcel_id {
                    Some(parcel) => format!("packaged {parcel}"),
                    None => "missing".to_owned(),
                };
                Answer { outcome, command: result.into() }
            }
            WarehouseCall::Dispatch { order_id, parcel_id, attempt, .. } => {
                courier_answer(order_id, parcel_id, *attempt, self.dispatch(key, order_id, random))
            }
            WarehouseCall::Withdraw { order_id, parcel_id, attempt } => {
                let of = key.strip_prefix("withdrawal-of-").unwrap_or(key).to_owned();
                let parcel = self.attempts.entry(of).or_insert(Parcel::Withdrawn).clone();
                courier_answer(order_id, parcel_id, *attempt, parcel)
            }
        })
    }
}

fn courier_answer(
    order_id: &str,
    parcel_id: &str,
    attempt: i32,
    parcel: Parcel,
) -> Answer<<Warehouse as Decider>::Command> {
    let answer = CourierAnswer {
        order_id: order_id.to_owned(),
        outcome: CourierOutcome::Withdrawn,
        parcel_id: Some(parcel_id.to_owned()),
        carrier: None,
        tracking_number: None,
        attempt,
        reason: None,
    };
    let (outcome, command) = match parcel {
        Parcel::Taken(number) => (
            format!("dispatched swift {number}"),
            CourierAnswer {
                outcome: CourierOutcome::Dispatched,
                carrier: Some("swift".to_owned()),
                tracking_number: Some(number),
                ..answer
            },
        ),
        Parcel::Refused => {
            let reason = Some("no room in the van".to_owned());
            ("refused".to_owned(), CourierAnswer { outcome: CourierOutcome::Refused, reason, ..answer })
        }
        Parcel::Withdrawn => ("withdrawn".to_owned(), answer),
    };
    Answer { outcome, command: command.into() }
}

/// The mail server. It accepts every request, even a repeated one, as mail servers do.
#[derive(Debug, Default)]
pub struct MailServer {
    /// How often each notification went out.
    pub sent: BTreeMap<String, u32>,
}

impl ExternalService<Notifications> for MailServer {
    fn call(
        &mut self,
        _: &str,
        due: &Due<SendMail>,
        _: &mut SeededRandom,
    ) -> Result<Answer<<Notifications as Decider>::Command>, Unanswered> {
        let notification_id = due.effect.notification_id.clone();
        *self.sent.entry(notification_id.clone()).or_default() += 1;
        let message_id = due.effect.message_id();
        Ok(Answer { outcome: "sent".to_owned(), command: MailSent { notification_id, message_id }.into() })
    }
}
