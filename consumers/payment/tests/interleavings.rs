//! Random interleavings of every fact, every answer and their repeats, against a model of the gateway: one outcome per key, and
//! nothing captured after a void. The gateway may refuse refunds and answer after the deadline. The order-processor cancels
//! abandoned orders, and an operator retries refused refunds. In every order of events money is taken at most once, a cancelled
//! order ends exactly once, and the gateway keeps exactly what the customer owes.

use std::collections::BTreeMap;

use payment::{
    Payment,
    effects::GatewayCall,
    events::{Event, Money},
    evolve::State,
    inbox::{GatewayAnswered, GatewayOutcome, GatewayRequest, RetryRefund},
    reads::{Input, OrderCancelled, OrderPlaced, StockReserved},
};
use proptest::prelude::*;
use runtime::{
    Decider, Effect as _, TimerFired,
    testing::{NOW_MS, received_at},
};

const ORDER: &str = "order-1";
const PAYMENT: Payment = Payment { charge_deadline_ms: 1_000 };

/// One step of a schedule. The number selects one of the candidates.
#[derive(Debug, Clone)]
enum Step {
    /// A fact is received, for the first time or again.
    Receive(usize),
    /// A pending call is sent. It may arrive at the gateway much later.
    Send(usize),
    /// A call arrives at the gateway.
    Arrive(usize),
    /// An answer is received, for the first time or again.
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..64_usize).prop_map(Step::Receive),
        (0..64_usize).prop_map(Step::Send),
        (0..64_usize).prop_map(Step::Arrive),
        (0..64_usize).prop_map(Step::Answer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn money_is_taken_once_and_a_cancelled_order_ends_once(
        schedule in prop::collection::vec(step(), 0..40),
        cancelled: bool,
        too_late: bool,
        gateway_declines: bool,
        refusals in 0..3_usize,
        amount_minor in prop_oneof![Just(0_i64), Just(-5), 1..10_000_i64],
    ) {
        let mut model = Model::new(cancelled, too_late, amount_minor);
        model.gateway = Gateway { declines: gateway_declines, refusals, ..Gateway::default() };
        for step in &schedule {
            model.run(step);
            model.check_at_every_moment()?;
        }
        model.settle();
        model.check_at_every_moment()?;
        model.check_in_the_end(cancelled, gateway_declines, amount_minor)?;
    }
}

struct Model {
    state: State,
    events: Vec<Event>,
    facts: Vec<Input>,
    sent: Vec<GatewayCall>,
    answers: Vec<GatewayAnswered>,
    gateway: Gateway,
}

impl Model {
    fn new(cancelled: bool, too_late: bool, amount_minor: i64) -> Self {
        let total = Money { amount_minor, currency: "EUR".to_owned() };
        let (order_id, customer_id) = (ORDER.to_owned(), "customer-1".to_owned());
        let payment_method = "card-ok".to_owned();
        let mut facts = vec![
            OrderPlaced { order_id: order_id.clone(), customer_id, total, payment_method }.into(),
            StockReserved { order_id: order_id.clone() }.into(),
        ];
        if cancelled {
            facts.push(OrderCancelled { order_id, detail: "out of stock".to_owned() }.into());
        }
        if too_late {
            facts.push(TimerFired { due_at: NOW_MS + i64::from(PAYMENT.charge_deadline_ms) }.into());
        }
        let gateway = Gateway::default();
        Self { state: State::default(), events: vec![], facts, sent: vec![], answers: vec![], gateway }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Receive(at) => self.receive(self.facts[at % self.facts.len()].clone()),
            Step::Send(at) => {
                let pending = PAYMENT.pending(&self.state);
                self.sent.extend(chosen(&pending, *at).cloned());
            }
            Step::Arrive(at) => {
                let answer = chosen(&self.sent, *at).cloned().map(|effect| self.gateway.handle(&effect));
                self.answers.extend(answer);
            }
            Step::Answer(at) => {
                if let Some(answer) = chosen(&self.answers, *at).cloned() {
                    self.receive(answer.into());
                }
            }
        }
    }

    /// Delivers everything that is outstanding; the gateway answers every call.
    fn settle(&mut self) {
        for _ in 0..8 {
            for fact in self.facts.clone() {
                self.receive(fact);
            }
            for effect in PAYMENT.pending(&self.state) {
                let answer = self.gateway.handle(&effect);
                self.receive(answer.into());
            }
        }
        for answer in self.answers.clone() {
            self.receive(answer.into());
        }
    }

    fn receive(&mut self, input: Input) {
        let decision = PAYMENT.decide(&self.state, &received_at(NOW_MS, ORDER, input));
        assert!(decision.commands.is_empty(), "payment has one kind of entity and sends no commands");
        for event in decision.events {
            self.state = PAYMENT.evolve(std::mem::take(&mut self.state), &event);
            let order_id = ORDER.to_owned();
            match &event {
                Event::PaymentAbandoned(abandoned) => {
                    self.facts.push(OrderCancelled { order_id, detail: abandoned.reason.clone() }.into());
                }
                Event::RefundFailed(_) => self.facts.push(RetryRefund { order_id }.into()),
                _ => {}
            }
            self.events.push(event);
        }
    }

    fn count(&self, which: fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| which(event)).count()
    }

    fn ends(&self) -> usize {
        self.count(|event| {
            matches!(event, Event::PaymentDeclined(_) | Event::PaymentVoided(_) | Event::PaymentRefunded(_))
        })
    }

    fn check_at_every_moment(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.count(|event| matches!(event, Event::PaymentRequested(_))) <= 1);
        prop_assert!(
            self.count(|event| matches!(event, Event::PaymentTaken(_))) <= 1,
            "taken twice: {:?}",
            self.events
        );
        prop_assert!(self.count(|event| matches!(event, Event::PaymentAbandoned(_))) <= 1);
        let refused = self.count(|event| matches!(event, Event::RefundFailed(_)));
        prop_assert!(self.count(|event| matches!(event, Event::RefundRequested(_))) <= 1 + refused);
        prop_assert!(self.ends() <= 1, "ended twice: {:?}", self.events);
        Ok(())
    }

    fn check_in_the_end(&self, cancelled: bool, declines: bool, amount: i64) -> Result<(), TestCaseError> {
        prop_assert!(PAYMENT.pending(&self.state).is_empty(), "still pending in {:?}", self.state);
        let refused = amount < 0 || (declines && amount > 0);
        let abandoned = self.count(|event| matches!(event, Event::PaymentAbandoned(_))) > 0;
        let ended = cancelled || refused || abandoned;
        prop_assert_eq!(self.ends(), usize::from(ended), "{:?}", self.events);
        let owed = if ended { 0 } else { amount };
        prop_assert_eq!(self.gateway.kept(), owed, "the gateway keeps what the customer owes");
        prop_assert_eq!(self.taken_and_not_refunded(), owed, "and the events say so");
        Ok(())
    }

    fn taken_and_not_refunded(&self) -> i64 {
        let amounts = self.events.iter().map(|event| match event {
            Event::PaymentTaken(taken) => taken.amount.amount_minor,
            Event::PaymentRefunded(refunded) => -refunded.amount.amount_minor,
            _ => 0,
        });
        amounts.sum()
    }
}

fn chosen<T>(from: &[T], at: usize) -> Option<&T> {
    from.get(at.checked_rem(from.len())?)
}

/// A gateway with one outcome per key.
#[derive(Default)]
struct Gateway {
    declines: bool,
    /// The number of refunds that it refuses before it makes one.
    refusals: usize,
    by_key: BTreeMap<String, (GatewayOutcome, i64)>,
}

impl Gateway {
    fn handle(&mut self, effect: &GatewayCall) -> GatewayAnswered {
        let (request, key, outcome) = match effect {
            GatewayCall::Charge { request_key, amount, .. } => {
                let outcome = if self.declines {
                    (GatewayOutcome::Declined, 0)
                } else {
                    (GatewayOutcome::Captured, amount.amount_minor)
                };
                (GatewayRequest::Charge, request_key, outcome)
            }
            GatewayCall::Void { charge_key } => (GatewayRequest::Void, charge_key, (GatewayOutcome::Voided, 0)),
            GatewayCall::Refund { request_key, amount, .. } => {
                let refused = self.by_key.values().filter(|(outcome, _)| *outcome == GatewayOutcome::Refused).count();
                let outcome = if refused < self.refusals {
                    (GatewayOutcome::Refused, 0)
                } else {
                    (GatewayOutcome::Refunded, -amount.amount_minor)
                };
                (GatewayRequest::Refund, request_key, outcome)
            }
        };
        assert!(!effect.key().is_empty());
        let (outcome, _) = *self.by_key.entry(key.clone()).or_insert(outcome);
        GatewayAnswered {
            order_id: ORDER.to_owned(),
            request_key: key.clone(),
            request,
            outcome,
            payment_id: (outcome == GatewayOutcome::Captured).then(|| "pay-1".to_owned()),
            refund_id: (outcome == GatewayOutcome::Refunded).then(|| "ref-1".to_owned()),
            reason: None,
        }
    }

    fn kept(&self) -> i64 {
        self.by_key.values().map(|(_, amount)| amount).sum()
    }
}
