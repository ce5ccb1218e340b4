//! What the warehouse asks of the outside world, until it answers: the picking floor to pick, the courier to take the parcel.
//! A definite answer enters the inbox; anything else is none, and is asked again under the same key.

use runtime::{
    Answer, Due, Perform, Unanswered,
    external_service::{ExternalService, ExternalServiceError, ServiceReply},
};
use serde::{Deserialize, Serialize};

use crate::{
    Warehouse,
    events::{Address, ItemLine},
    evolve::{Attempt, Phase, State},
    inbox::{Command, CourierAnswer, CourierOutcome, PickOutcome, PickResult},
};

/// A request to the outside world.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// To the picking floor: pick and pack.
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
        /// Which attempt; each is a request of its own.
        attempt: i32,
    },
    /// To the courier: see to it that an attempt never takes the parcel, or tell what became of it.
    Withdraw {
        /// The order.
        order_id: String,
        /// The parcel.
        parcel_id: String,
        /// Which attempt.
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

impl runtime::Effect for Effect {
    fn key(&self) -> String {
        match self {
            Self::Pick { order_id, .. } => format!("pick-{order_id}"),
            Self::Dispatch { order_id, attempt, .. } => dispatch_key(order_id, *attempt),
            Self::Withdraw { order_id, attempt, .. } => format!("withdrawal-of-{}", dispatch_key(order_id, *attempt)),
        }
    }
}

/// What is asked and not yet answered.
#[must_use]
pub fn pending(state: &State) -> Vec<Effect> {
    let Some(order) = &state.fulfilment else { return Vec::new() };
    let order_id = order.order_id.clone();
    match (&order.phase, &order.ship_to) {
        (Phase::Picking, _) => vec![Effect::Pick { order_id, lines: order.item_lines() }],
        (Phase::Packaged { parcel_id, dispatch }, Some(ship_to)) => {
            let (parcel_id, attempt) = (parcel_id.clone(), dispatch.number);
            match dispatch.attempt {
                // The parcel of a cancelled order is called back.
                Attempt::Asked { .. } if !order.is_cancelled() => {
                    vec![Effect::Dispatch { order_id, parcel_id, ship_to: ship_to.clone(), attempt }]
                }
                Attempt::Asked { .. } | Attempt::Withdrawing => vec![Effect::Withdraw { order_id, parcel_id, attempt }],
                Attempt::Pausing { .. } | Attempt::Abandoned => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// Where the picking floor and the courier are, where that is not the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the picking floor. [default: http://localhost:8090]
    #[arg(long, env = "DACAPO_FLOOR_URL", value_name = "URL")]
    pub floor_url: Option<String>,
    /// Address of the courier. [default: http://localhost:8090]
    #[arg(long, env = "DACAPO_COURIER_URL", value_name = "URL")]
    pub courier_url: Option<String>,
    /// How long the courier may take to answer an attempt before it is withdrawn, in milliseconds. [default: 300000]
    #[arg(long, env = "DACAPO_COURIER_DEADLINE_MS", value_name = "MS")]
    pub courier_deadline_ms: Option<u32>,
    /// How long after a failed attempt to dispatch the next one comes, in milliseconds; doubled each time. [default: 60000]
    #[arg(long, env = "DACAPO_DISPATCH_PAUSE_MS", value_name = "MS")]
    pub dispatch_pause_ms: Option<u32>,
    /// How many attempts to dispatch are made before an operator is needed. [default: 5]
    #[arg(long, env = "DACAPO_DISPATCH_ATTEMPTS", value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub dispatch_attempts: Option<u8>,
}

/// Where the simulated outside world stands.
const DEFAULT_URL: &str = "http://localhost:8090";

/// Asks the picking floor and the courier over HTTP.
#[derive(Debug, Clone)]
pub struct FloorAndCourier {
    floor: ExternalService,
    courier: ExternalService,
}

impl FloorAndCourier {
    /// Asks the floor and the courier at these addresses.
    ///
    /// # Errors
    /// An address is not understood.
    pub fn at(floor_url: &str, courier_url: &str) -> Result<Self, ExternalServiceError> {
        let floor = ExternalService::at(floor_url)?;
        let courier = floor.with_address(courier_url)?;
        Ok(Self { floor, courier })
    }

    /// Asks the floor and the courier where the settings say they are.
    ///
    /// # Errors
    /// An address is not understood.
    pub fn of(settings: &Settings) -> Result<Self, ExternalServiceError> {
        let url = |setting: &Option<String>| setting.clone().unwrap_or_else(|| DEFAULT_URL.to_owned());
        Self::at(&url(&settings.floor_url), &url(&settings.courier_url))
    }

    async fn pick(&self, key: &str, order_id: &str, lines: &[ItemLine]) -> Result<Answer<Command>, Unanswered> {
        let reply = self.floor.post("picks", key, &PickRequest { order_id, lines }).await?;
        let result = |outcome| PickResult {
            order_id: order_id.to_owned(),
            outcome,
            parcel_id: None,
            missing: Vec::new(),
            detail: None,
        };
        match ok(&reply)? {
            FloorReply::Packaged { parcel_id } if parcel_id.is_empty() => Err(reply.unexpected()),
            FloorReply::Packaged { parcel_id } => Ok(Answer {
                outcome: format!("packaged {parcel_id}"),
                command: PickResult { parcel_id: Some(parcel_id), ..result(PickOutcome::Packaged) }.into(),
            }),
            FloorReply::Missing { missing, detail } => Ok(Answer {
                outcome: missing
                    .iter()
                    .fold("missing".to_owned(), |text, line| format!("{text} {}*{}", line.quantity, line.sku)),
                command: PickResult { missing, detail: Some(detail), ..result(PickOutcome::Missing) }.into(),
            }),
        }
    }
}

impl Perform<Warehouse> for FloorAndCourier {
    async fn perform(&self, due: Due<Effect>) -> Result<Answer<Command>, Unanswered> {
        let key = runtime::Effect::key(&due.effect);
        match &due.effect {
            Effect::Pick { order_id, lines } => self.pick(&key, order_id, lines).await,
            Effect::Dispatch { order_id, parcel_id, ship_to, attempt } => {
                let reply = self.courier.post("parcels", &key, &ParcelRequest { parcel_id, order_id, ship_to }).await?;
                courier_answer(&reply, order_id, parcel_id, *attempt)
            }
            Effect::Withdraw { order_id, parcel_id, attempt } => {
                let key = dispatch_key(order_id, *attempt);
                let reply = self.courier.post("withdrawals", &key, &WithdrawalRequest { parcel_id, order_id }).await?;
                courier_answer(&reply, order_id, parcel_id, *attempt)
            }
        }
    }
}

/// The courier's definite answer, the same whether the parcel was to be taken or the attempt withdrawn: what counts is what became
/// of the parcel.
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
            let told = format!("dispatched {carrier} {number}");
            answer.outcome = CourierOutcome::Dispatched;
            answer.carrier = Some(carrier);
            answer.tracking_number = Some(number);
            told
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

/// What the floor is asked.
#[derive(Serialize)]
struct PickRequest<'a> {
    order_id: &'a str,
    lines: &'a [ItemLine],
}

/// What the floor may answer.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum FloorReply {
    Packaged {
        parcel_id: String,
    },
    Missing {
        missing: Vec<ItemLine>,
        #[serde(default)]
        detail: String,
    },
}

/// What the courier is asked.
#[derive(Serialize)]
struct ParcelRequest<'a> {
    parcel_id: &'a str,
    order_id: &'a str,
    ship_to: &'a Address,
}

/// What the courier is asked to forget: the attempt of the same idempotency key.
#[derive(Serialize)]
struct WithdrawalRequest<'a> {
    parcel_id: &'a str,
    order_id: &'a str,
}

/// What the courier may answer.
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
