//! What payment asks of the gateway, until it answers. A definite answer enters the inbox; anything else is none, and is asked
//! again under the same key.

use runtime::{
    Answer, Due, Perform, Unanswered,
    external_service::{ExternalService, ExternalServiceError, ServiceReply},
};
use serde::{Deserialize, Serialize};

use crate::{
    Payment,
    events::Money,
    evolve::{State, Terms},
    inbox::{Command, GatewayAnswered, GatewayOutcome, GatewayRequest},
};

/// A request to the payment gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Charge the customer.
    Charge {
        /// The charge's idempotency key.
        request_key: String,
        /// How much.
        amount: Money,
        /// The token to charge.
        payment_method: String,
    },
    /// See to it that a charge is never captured, or learn what became of it.
    Void {
        /// The charge's idempotency key.
        charge_key: String,
    },
    /// Pay back what was captured.
    Refund {
        /// The refund's idempotency key.
        request_key: String,
        /// The gateway's name for the payment.
        payment_id: String,
        /// How much.
        amount: Money,
    },
}

impl runtime::Effect for Effect {
    fn key(&self) -> String {
        match self {
            Self::Charge { request_key, .. } | Self::Refund { request_key, .. } => request_key.clone(),
            Self::Void { charge_key } => format!("void-of-{charge_key}"),
        }
    }
}

/// What is asked and not yet answered.
#[must_use]
pub fn pending(state: &State) -> Vec<Effect> {
    match state {
        State::Charging { terms: Terms { amount, payment_method, .. }, request_key, .. } => vec![Effect::Charge {
            request_key: request_key.clone(),
            amount: amount.clone(),
            payment_method: payment_method.clone(),
        }],
        State::Voiding { request_key, .. } => vec![Effect::Void { charge_key: request_key.clone() }],
        State::Refunding { amount, payment_id, request_key, .. } => vec![Effect::Refund {
            request_key: request_key.clone(),
            payment_id: payment_id.clone(),
            amount: amount.clone(),
        }],
        _ => Vec::new(),
    }
}

/// Where the payment gateway is, where that is not the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the payment gateway. [default: http://localhost:8090]
    #[arg(long, env = "DACAPO_GATEWAY_URL", value_name = "URL")]
    pub gateway_url: Option<String>,
    /// How long the gateway may take to answer a charge before the payment is abandoned, in milliseconds. [default: 900000]
    #[arg(long, env = "DACAPO_CHARGE_DEADLINE_MS", value_name = "MS")]
    pub charge_deadline_ms: Option<u32>,
}

/// Where the simulated outside world stands.
const DEFAULT_URL: &str = "http://localhost:8090";

/// Asks the payment gateway over HTTP.
#[derive(Debug, Clone)]
pub struct Gateway {
    gateway: ExternalService,
}

impl Gateway {
    /// Asks the gateway at an address.
    ///
    /// # Errors
    /// The address is not understood.
    pub fn at(url: &str) -> Result<Self, ExternalServiceError> {
        Ok(Self { gateway: ExternalService::at(url)? })
    }

    /// Asks the gateway where the settings say it is.
    ///
    /// # Errors
    /// The address is not understood.
    pub fn of(settings: &Settings) -> Result<Self, ExternalServiceError> {
        Self::at(settings.gateway_url.as_deref().unwrap_or(DEFAULT_URL))
    }
}

impl Perform<Payment> for Gateway {
    async fn perform(&self, due: Due<Effect>) -> Result<Answer<Command>, Unanswered> {
        let order_id = &due.key;
        let (request, key, reply) = match &due.effect {
            Effect::Charge { request_key, amount, payment_method } => {
                let Money { amount_minor, currency } = amount;
                let body = ChargeRequest { order_id, amount_minor: *amount_minor, currency, payment_method };
                (GatewayRequest::Charge, request_key, self.gateway.post("charges", request_key, &body).await?)
            }
            Effect::Void { charge_key } => {
                let body = VoidRequest { order_id };
                (GatewayRequest::Void, charge_key, self.gateway.post("voids", charge_key, &body).await?)
            }
            Effect::Refund { request_key, payment_id, amount } => {
                let Money { amount_minor, currency } = amount;
                let body = RefundRequest { payment_id, order_id, amount_minor: *amount_minor, currency };
                (GatewayRequest::Refund, request_key, self.gateway.post("refunds", request_key, &body).await?)
            }
        };
        answer(order_id, request, key, &reply)
    }
}

/// The definite answer that a reply is, if it is one to what was asked.
fn answer(
    order_id: &str,
    request: GatewayRequest,
    key: &str,
    reply: &ServiceReply,
) -> Result<Answer<Command>, Unanswered> {
    let (mut payment_id, mut refund_id, mut reason) = (None, None, None);
    let (outcome, told) = match (request, definite(reply)?) {
        (GatewayRequest::Charge | GatewayRequest::Void, GatewayReply::Captured { payment_id: id })
            if !id.is_empty() =>
        {
            let told = format!("captured {id}");
            payment_id = Some(id);
            (GatewayOutcome::Captured, told)
        }
        (GatewayRequest::Charge | GatewayRequest::Void, GatewayReply::Declined { reason: why }) => {
            reason = Some(why);
            (GatewayOutcome::Declined, "declined".to_owned())
        }
        (GatewayRequest::Charge | GatewayRequest::Void, GatewayReply::Voided) => {
            (GatewayOutcome::Voided, "voided".to_owned())
        }
        (GatewayRequest::Refund, GatewayReply::Refunded { refund_id: id }) if !id.is_empty() => {
            let told = format!("refunded {id}");
            refund_id = Some(id);
            (GatewayOutcome::Refunded, told)
        }
        (GatewayRequest::Refund, GatewayReply::Refused { reason: why }) => {
            reason = Some(why);
            (GatewayOutcome::Refused, "refused".to_owned())
        }
        _ => return Err(reply.unexpected()),
    };
    let (order_id, request_key) = (order_id.to_owned(), key.to_owned());
    let command = GatewayAnswered { order_id, request_key, request, outcome, payment_id, refund_id, reason };
    Ok(Answer { outcome: told, command: command.into() })
}

/// 402 says that a charge is declined, 409 that a refund is refused, and nothing else; all that went well is 200.
fn definite(reply: &ServiceReply) -> Result<GatewayReply, Unanswered> {
    let definite = reply.json()?;
    match (reply.status(), &definite) {
        (200, _) | (402, GatewayReply::Declined { .. }) | (409, GatewayReply::Refused { .. }) => Ok(definite),
        _ => Err(reply.unexpected()),
    }
}

/// What the gateway is asked to charge.
#[derive(Serialize)]
struct ChargeRequest<'a> {
    order_id: &'a str,
    amount_minor: i64,
    currency: &'a str,
    payment_method: &'a str,
}

/// What the gateway is asked to void: the charge of the same idempotency key.
#[derive(Serialize)]
struct VoidRequest<'a> {
    order_id: &'a str,
}

/// What the gateway is asked to pay back.
#[derive(Serialize)]
struct RefundRequest<'a> {
    payment_id: &'a str,
    order_id: &'a str,
    amount_minor: i64,
    currency: &'a str,
}

/// What the gateway may answer.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum GatewayReply {
    Captured {
        payment_id: String,
    },
    Declined {
        #[serde(default)]
        reason: String,
    },
    Voided,
    Refunded {
        refund_id: String,
    },
    Refused {
        #[serde(default)]
        reason: String,
    },
}
