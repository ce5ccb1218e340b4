//! The calls of the warehouse to picking and to the courier, repeated until they answer. A definite answer goes to the inbox.
//! Any other reply is no answer, and the call is repeated under the same key.

use runtime::{
    Answer, Due, Perform, Unanswered,
    external_service::{ExternalService, ExternalServiceError, ServiceReply},
};
use serde::{Deserialize, Serialize};

use crate::{
    Warehouse,
    events::{Address, ItemLine},
    evolve::{AttemptStatus, FulfilmentPhase, State},
    inbox::{Command, CourierAnswer, CourierOutcome, PickOutcome, PickResult},
};

/// A call to picking or to the courier.
#[derive(Debug, Clone, PartialEq)]
pub enum WarehouseCall {
    /// To picking: pick and pack.
    Pick {
        /// The order.
        order_id: String,
        /// What to pick.
        lines: Vec<ItemLine>,
    },
    /// To the courier: take the parcel.
    Dispatch {
        /// The order.
        order_id: String,
        /// The parcel.
        parcel_id: String,
        /// Where it goes.
        ship_to: Address,
        /// The number of the attempt. Each attempt is a call of its own.
        attempt: i32,
    },
    /// To the courier: withdraw an attempt, or return what became of the parcel.
    Withdraw {
        /// The order.
        order_id: String,
        /// The parcel.
        parcel_id: String,
        /// The number of the attempt.
        attempt: i32,
    },
}

/// The idempotency key of an attempt to dispatch.
fn dispatch_key(order_id: &str, attempt: i32) -> String {
    match attempt {
        1 => format!("dispatch-{order_id}"),
        _ => format!("dispatch-{order_id}-{attempt}"),
    }
}

impl runtime::Effect for WarehouseCall {
    fn key(&self) -> String {
        match self {
            Self::Pick { order_id, .. } => format!("pick-{order_id}"),
            Self::Dispatch { order_id, attempt, .. } => dispatch_key(order_id, *attempt),
            Self::Withdraw { order_id, attempt, .. } => format!("withdrawal-of-{}", dispatch_key(order_id, *attempt)),
        }
    }
}

/// The calls that are pending in a state.
#[must_use]
pub fn pending(state: &State) -> Vec<WarehouseCall> {
    let Some(order) = &state.fulfilment else { return Vec::new() };
    let order_id = order.order_id.clone();
    match (&order.phase, &order.ship_to) {
        (FulfilmentPhase::Picking, _) => vec![WarehouseCall::Pick { order_id, lines: order.item_lines() }],
        (FulfilmentPhase::Packaged { parcel_id, dispatch }, Some(ship_to)) => {
            let (parcel_id, attempt) = (parcel_id.clone(), dispatch.number);
            match dispatch.attempt {
                // The parcel of a cancelled order is withdrawn.
                AttemptStatus::Requested { .. } if !order.is_cancelled() => {
                    vec![WarehouseCall::Dispatch { order_id, parcel_id, ship_to: ship_to.clone(), attempt }]
                }
                AttemptStatus::Requested { .. } | AttemptStatus::Withdrawing => {
                    vec![WarehouseCall::Withdraw { order_id, parcel_id, attempt }]
                }
                AttemptStatus::Pausing { .. } | AttemptStatus::Abandoned => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// The addresses of picking and the courier, and the deadlines, where they are not the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the picking service [default: http://localhost:8090]
    #[arg(long, env = "DACAPO_PICKING_URL", value_name = "URL")]
    pub picking_url: Option<String>,
    /// Address of the courier [default: http://localhost:8090]
    #[arg(long, env = "DACAPO_COURIER_URL", value_name = "URL")]
    pub courier_url: Option<String>,
    /// Time in which the courier must answer an attempt before it is withdrawn, in milliseconds [default: 300000]
    #[arg(long, env = "DACAPO_COURIER_DEADLINE_MS", value_name = "MS")]
    pub courier_deadline_ms: Option<u32>,
    /// Pause after a failed attempt to dispatch, in milliseconds; doubled after each further one [default: 60000]
    #[arg(long, env = "DACAPO_DISPATCH_PAUSE_MS", value_name = "MS")]
    pub dispatch_pause_ms: Option<u32>,
    /// Number of attempts to dispatch before an operator is needed [default: 5]
    #[arg(long, env = "DACAPO_DISPATCH_ATTEMPTS", value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub dispatch_attempts: Option<u8>,
}

/// The default address: that of the stubs.
const DEFAULT_URL: &str = "http://localhost:8090";

/// Calls picking and the courier over HTTP.
#[derive(Debug, Clone)]
pub struct PickingAndCourier {
    picking: ExternalService,
    courier: ExternalService,
}

impl PickingAndCourier {
    /// Picking and the courier at these addresses.
    ///
    /// # Errors
    /// An address is invalid.
    pub fn at(picking_url: &str, courier_url: &str) -> Result<Self, ExternalServiceError> {
        let picking = ExternalService::at(picking_url)?;
        let courier = picking.with_address(courier_url)?;
        Ok(Self { picking, courier })
    }

    /// Picking and the courier at the addresses of the settings.
    ///
    /// # Errors
    /// An address is invalid.
    pub fn of(settings: &Settings) -> Result<Self, ExternalServiceError> {
        let url = |setting: &Option<String>| setting.clone().unwrap_or_else(|| DEFAULT_URL.to_owned());
        Self::at(&url(&settings.picking_url), &url(&settings.courier_url))
    }

    async fn pick(&self, key: &str, order_id: &str, lines: &[ItemLine]) -> Result<Answer<Command>, Unanswered> {
        let reply = self.picking.post("picks", key, &PickRequest { order_id, lines }).await?;
        let result = |outcome| PickResult {
            order_id: order_id.to_owned(),
            outcome,
            parcel_id: None,
            missing: Vec::new(),
            detail: None,
        };
        match ok(&reply)? {
            PickingReply::Packaged { parcel_id } if parcel_id.is_empty() => Err(reply.unexpected()),
            PickingReply::Packaged { parcel_id } => Ok(Answer {
                outcome: format!("packaged {parcel_id}"),
                command: PickResult { parcel_id: Some(parcel_id), ..result(PickOutcome::Packaged) }.into(),
            }),
            PickingReply::Missing { missing, detail } => Ok(Answer {
                outcome: missing
                    .iter()
                    .fold("missing".to_owned(), |text, line| format!("{text} {}*{}", line.quantity, line.sku)),
                command: PickResult { missing, detail: Some(detail), ..result(PickOutcome::Missing) }.into(),
            }),
        }
    }
}

impl Perform<Warehouse> for PickingAndCourier {
    async fn perform(&self, due: Due<WarehouseCall>) -> Result<Answer<Command>, Unanswered> {
        let key = runtime::Effect::key(&due.effect);
        match &due.effect {
            WarehouseCall::Pick { order_id, lines } => self.pick(&key, order_id, lines).await,
            WarehouseCall::Dispatch { order_id, parcel_id, ship_to, attempt } => {
                let reply = self.courier.post("parcels", &key, &ParcelRequest { parcel_id, order_id, ship_to }).await?;
                courier_answer(&reply, order_id, parcel_id, *attempt)
            }
            WarehouseCall::Withdraw { order_id, parcel_id, attempt } => {
                let key = dispatch_key(order_id, *attempt);
                let reply = self.courier.post("withdrawals", &key, &WithdrawalRequest { parcel_id, order_id }).await?;
                courier_answer(&reply, order_id, parcel_id, *attempt)
            }
        }
    }
}

/// The definite answer of the courier, the same for a dispatch and for a withdrawal: only the result for the parcel counts.
fn courier_answer(
    reply: &ServiceReply,
    order_id: &str,
    parcel_id: &str,
    attempt: i32,
) -> Result<Answer<Command>, Unanswered> {
    let mut answer = CourierAnswer {
        order_id: order_id.to_owned(),
        outcome: CourierOutcome::Unknown,
        parcel_id: Some(parcel_id.to_owned()),
        carrier: None,
        tracking_number: None,
        attempt,
        reason: None,
    };
    let CourierReply { status, carrier, tracking_number, reason } = reply.json()?;
    let outcome = match (reply.status(), status.as_deref(), carrier, tracking_number) {
        (200, None | Some("taken"), Some(carrier), Some(number)) if !carrier.is_empty() && !number.is_empty() => {
            let summary = format!("dispatched {carrier} {number}");
            answer.outcome = CourierOutcome::Dispatched;
            answer.carrier = Some(carrier);
            answer.tracking_number = Some(number);
            summary
        }
        (200, Some("withdrawn"), ..) => {
            answer.outcome = CourierOutcome::Withdrawn;
            "withdrawn".to_owned()
        }
        (409, Some("refused"), ..) => {
            answer.outcome = CourierOutcome::Refused;
            answer.reason = reason;
            "refused".to_owned()
        }
        _ => return Err(reply.unexpected()),
    };
    Ok(Answer { outcome, command: answer.into() })
}

/// The body of a call to picking.
#[derive(Serialize)]
struct PickRequest<'a> {
    order_id: &'a str,
    lines: &'a [ItemLine],
}

/// The replies of picking.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum PickingReply {
    Packaged {
        parcel_id: String,
    },
    Missing {
        missing: Vec<ItemLine>,
        #[serde(default)]
        detail: String,
    },
}

/// The body of a dispatch.
#[derive(Serialize)]
struct ParcelRequest<'a> {
    parcel_id: &'a str,
    order_id: &'a str,
    ship_to: &'a Address,
}

/// The body of a withdrawal of the attempt with the same idempotency key.
#[derive(Serialize)]
struct WithdrawalRequest<'a> {
    parcel_id: &'a str,
    order_id: &'a str,
}

/// The replies of the courier.
#[derive(Deserialize)]
struct CourierReply {
    status: Option<String>,
    carrier: Option<String>,
    tracking_number: Option<String>,
    reason: Option<String>,
}

fn ok<T: serde::de::DeserializeOwned>(reply: &ServiceReply) -> Result<T, Unanswered> {
    if reply.status() == 200 { reply.json() } else { Err(reply.unexpected()) }
}
