//! Random interleavings of every fact, every answer and their repeats, against a model of a gateway that keeps its promises:
//! one outcome per key, nothing captured after a void. It may refuse refunds, and its answers may come after the deadline. The
//! owner of the order cancels what is abandoned, and an operator asks for a refused refund again. Whatever the order, money is
//! taken at most once, a cancelled order ends exactly once, and what the gateway kept is what the customer owes.

use std::collections::BTreeMap;

use payment::{
    Payment,
    effects::Effect,
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

/// One step of a schedule. The number chooses among what there is to choose from.
#[derive(Debug, Clone)]
enum Step {
    /// A fact is heard, for the first time or again.
    Hear(usize),
    /// What is pending is sent off: it may reach the gateway much later.
    Launch(usize),
    /// A request reaches the gateway.
    Reach(usize),
    /// An answer is heard, for the first time or again.
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..64_usize).prop_map(Step::Hear),
        (0..64_usize).prop_map(Step::Launch),
        (0..64_usize).prop_map(Step::Reach),
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
        let mut world = World::new(cancelled, too_late, amount_minor);
        world.gateway = Gateway { declines: gateway_declines, refusals, ..Gateway::default() };
        for step in &schedule {
            world.take(step);
            world.check_at_every_moment()?;
        }
        world.settle();
        world.check_at_every_moment()?;
        world.check_in_the_end(cancelled, gateway_declines, amount_minor)?;
    }
}

struct World {
    state: State,
    events: Vec<Event>,
    facts: Vec<Input>,
    launched: Vec<Effect>,
    answers: Vec<GatewayAnswered>,
    gateway: Gateway,
}

impl World {
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
        Self { state: State::default(), events: vec![], facts, launched: vec![], answers: vec![], gateway }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Hear(at) => self.hear(self.facts[at % self.facts.len()].clone()),
            Step::Launch(at) => {
                let pending = PAYMENT.pending(&self.state);
                self.launched.extend(chosen(&pending, *at).cloned());
            }
            Step::Reach(at) => {
                let answer = chosen(&self.launched, *at).cloned().map(|effect| self.gateway.asked(&effect));
                self.answers.extend(answer);
            }
            Step::Answer(at) => {
                if let Some(answer) = chosen(&self.answers, *at).cloned() {
                    self.hear(answer.into());
                }
            }
        }
    }

    /// Everything that is still to come comes, and the gateway answers all that it is asked.
    fn settle(&mut self) {
        for _ in 0..8 {
            for fact in self.facts.clone() {
                self.hear(fact);
            }
            for effect in PAYMENT.pending(&self.state) {
                let answer = self.gateway.asked(&effect);
                self.hear(answer.into());
            }
        }
        for answer in self.answers.clone() {
            self.hear(answer.into());
        }
    }

    fn hear(&mut self, input: Input) {
        let decision = PAYMENT.decide(&self.state, &received_at(NOW_MS, ORDER, input));
        assert!(decision.commands.is_empty(), "payment has one kind of entity, so nobody to send to");
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

    fn said(&self, which: fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| which(event)).count()
    }

    fn ends(&self) -> usize {
        self.said(|event| {
            matches!(event, Event::PaymentDeclined(_) | Event::PaymentVoided(_) | Event::PaymentRefunded(_))
        })
    }

    fn check_at_every_moment(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.said(|event| matches!(event, Event::PaymentRequested(_))) <= 1);
        prop_assert!(self.said(|event| matches!(event, Event::PaymentTaken(_))) <= 1, "taken twice: {:?}", self.events);
        prop_assert!(self.said(|event| matches!(event, Event::PaymentAbandoned(_))) <= 1);
        let refused = self.said(|event| matches!(event, Event::RefundFailed(_)));
        prop_assert!(self.said(|event| matches!(event, Event::RefundRequested(_))) <= 1 + refused);
        prop_assert!(self.ends() <= 1, "ended twice: {:?}", self.events);
        Ok(())
    }

    fn check_in_the_end(&self, cancelled: bool, declines: bool, amount: i64) -> Result<(), TestCaseError> {
        prop_assert!(PAYMENT.pending(&self.state).is_empty(), "still pending in {:?}", self.state);
        let refused = amount < 0 || (declines && amount > 0);
        let abandoned = self.said(|event| matches!(event, Event::PaymentAbandoned(_))) > 0;
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

/// A gateway that gives one outcome per key, for ever.
#[derive(Default)]
struct Gateway {
    declines: bool,
    /// How many refunds it refuses before it makes one.
    refusals: usize,
    by_key: BTreeMap<String, (GatewayOutcome, i64)>,
}

impl Gateway {
    fn asked(&mut self, effect: &Effect) -> GatewayAnswered {
        let (request, key, outcome) = match effect {
            Effect::Charge { request_key, amount, .. } => {
                let outcome = if self.declines {
                    (GatewayOutcome::Declined, 0)
                } else {
                    (GatewayOutcome::Captured, amount.amount_minor)
                };
                (GatewayRequest::Charge, request_key, outcome)
            }
            Effect::Void { charge_key } => (GatewayRequest::Void, charge_key, (GatewayOutcome::Voided, 0)),
            Effect::Refund { request_key, amount, .. } => {
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
