//! Random interleavings of every fact, command, answer and their repeats, with several orders competing for the same items.
//!
//! The model preserves what a partitioned log preserves: commands from one entity to another arrive in order. Everything else
//! arrives in any order, any number of times. For every schedule: stock is conserved at every step, held quantities are never below
//! zero, an order is picked and dispatched at most once and released exactly once if cancelled, and nothing is left held for an
//! ended order. ShipItem and WriteOffItem are not repeated: see `decide::stock_item` for how their repeats are recognised.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use runtime::{
    Decider, TimerFired,
    testing::{NOW_MS, received_at},
};
use warehouse::{
    Warehouse,
    effects::WarehouseCall,
    events::{Address, Event, ItemLine},
    evolve::State,
    inbox::{Command, CourierAnswer, CourierOutcome, PickOutcome, PickResult, ReceiveGoods, RetryDispatch},
    reads::{self, Input, OrderCancellationRequested, OrderCancelled, OrderLine, OrderPaid, OrderPlaced},
};

const SKUS: [&str; 3] = ["sku-a", "sku-b", "sku-c"];
/// Abandons a dispatch after two attempts.
const WAREHOUSE: Warehouse = Warehouse { courier_deadline_ms: 1_000, dispatch_pause_ms: 500, dispatch_attempts: 2 };

#[derive(Debug, Clone)]
struct Order {
    lines: Vec<(usize, i32)>,
    paid: bool,
    cancelled: bool,
    /// Its cancellation is requested; it is cancelled if the warehouse accepts.
    asked_to_cancel: bool,
    /// The number of attempts to dispatch that the courier refuses.
    refusals: i32,
    /// The items that picking will miss, by sku; possibly more than the order holds.
    missing: Vec<(usize, i32)>,
}

/// One step of a schedule. The number selects one of the candidates.
#[derive(Debug, Clone)]
enum Step {
    /// A fact or a delivery is received.
    Receive(usize),
    /// The oldest message between two entities arrives.
    Arrive(usize),
    /// An earlier input is received again.
    Repeat(usize),
    /// The outside model is asked what is pending; it may be asked twice.
    Call(usize),
    /// A timer fires.
    Wake(usize),
}

fn order() -> impl Strategy<Value = Order> {
    let lines = prop::collection::vec((0..SKUS.len(), 1..4_i32), 0..4);
    let missing = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec((0..SKUS.len(), 1..3_i32), 1..3)];
    (lines, any::<bool>(), any::<bool>(), any::<bool>(), 0..6_i32, missing).prop_map(
        |(lines, paid, cancelled, asked_to_cancel, refusals, missing)| Order {
            lines,
            paid,
            cancelled,
            asked_to_cancel,
            refusals,
            missing,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..1_000_usize;
    prop_oneof![
        2 => at().prop_map(Step::Receive),
        6 => at().prop_map(Step::Arrive),
        2 => at().prop_map(Step::Repeat),
        2 => at().prop_map(Step::Call),
        1 => at().prop_map(Step::Wake),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stock_is_conserved_and_every_order_ends_once(
        orders in prop::collection::vec(order(), 1..4),
        deliveries in prop::collection::vec((0..SKUS.len(), 1..6_i32), 0..5),
        schedule in prop::collection::vec(step(), 0..160),
    ) {
        let mut model = Model::new(&orders, &deliveries);
        for step in &schedule {
            model.run(step);
            model.check_at_every_moment()?;
        }
        model.settle();
        model.check_at_every_moment()?;
        for (number, order) in orders.iter().enumerate() {
            model.check_in_the_end(&order_id(number), order)?;
        }
    }
}

#[derive(Default)]
struct Model {
    orders: Vec<Order>,
    states: BTreeMap<String, State>,
    events: Vec<Event>,
    /// Facts and deliveries that were not received yet.
    outstanding: Vec<Input>,
    /// Commands in transit, in order for each sender and receiver.
    in_transit: BTreeMap<(String, String), VecDeque<Input>>,
    received: Vec<Input>,
    /// The answer of the courier to each attempt of an order; it never changes.
    courier: BTreeMap<(String, i32), CourierOutcome>,
}

impl Model {
    fn new(orders: &[Order], deliveries: &[(usize, i32)]) -> Self {
        let mut model = Self { orders: orders.to_vec(), ..Self::default() };
        for (number, &(sku, quantity)) in deliveries.iter().enumerate() {
            let delivery = ReceiveGoods { sku: SKUS[sku].into(), delivery_id: format!("d-{number}"), quantity };
            model.outstanding.push(delivery.into());
        }
        for (number, order) in orders.iter().enumerate() {
            let order_id = order_id(number);
            let line = |&(sku, quantity): &(usize, i32)| OrderLine { sku: SKUS[sku].into(), quantity };
            let lines = order.lines.iter().map(line).collect();
            let placed = OrderPlaced { order_id: order_id.clone(), ship_to: address(), lines };
            model.outstanding.push(placed.into());
            if order.paid {
                model.outstanding.push(OrderPaid { order_id: order_id.clone() }.into());
            }
            if order.asked_to_cancel {
                let asked = OrderCancellationRequested { order_id: order_id.clone(), request: 1 };
                model.outstanding.push(asked.into());
            }
            if order.cancelled {
                model.outstanding.push(OrderCancelled { order_id }.into());
            }
        }
        model
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Receive(at) if !self.outstanding.is_empty() => {
                let fact = self.outstanding.remove(at % self.outstanding.len());
                self.receive(fact);
            }
            Step::Arrive(at) if !self.in_transit.is_empty() => {
                let route = self.in_transit.keys().nth(at % self.in_transit.len()).unwrap().clone();
                self.arrive(&route);
            }
            Step::Repeat(at) if !self.received.is_empty() => {
                let again = self.received[at % self.received.len()].clone();
                self.receive(again);
            }
            Step::Call(at) => self.call(at),
            Step::Wake(at) => self.wake(at),
            _ => {}
        }
    }

    /// Delivers everything that is outstanding, until nothing is in transit or pending.
    fn settle(&mut self) {
        while self.is_busy() {
            for fact in std::mem::take(&mut self.outstanding) {
                self.receive(fact);
            }
            while let Some(route) = self.in_transit.keys().next().cloned() {
                self.arrive(&route);
            }
            if self.pending().is_empty() {
                self.wake(0);
            }
            self.call(0);
        }
    }

    fn pending(&self) -> Vec<WarehouseCall> {
        self.states.values().flat_map(|state| WAREHOUSE.pending(state)).collect()
    }

    /// Fires one of the timers that are set.
    fn wake(&mut self, at: usize) {
        let timers = self.states.iter().filter_map(|(key, state)| Some((key.clone(), WAREHOUSE.wake_at(state)?)));
        let timers: Vec<(String, i64)> = timers.collect();
        let Some((key, due_at)) = at.checked_rem(timers.len()).map(|at| timers[at].clone()) else { return };
        self.receive_as(&key, TimerFired { due_at }.into());
    }

    fn is_busy(&self) -> bool {
        !self.outstanding.is_empty()
            || !self.in_transit.is_empty()
            || self
                .states
                .values()
                .any(|state| !WAREHOUSE.pending(state).is_empty() || WAREHOUSE.wake_at(state).is_some())
    }

    fn arrive(&mut self, route: &(String, String)) {
        let queue = self.in_transit.get_mut(route).unwrap();
        let input = queue.pop_front().unwrap();
        if queue.is_empty() {
            self.in_transit.remove(route);
        }
        self.receive(input);
    }

    fn receive(&mut self, input: Input) {
        if !matches!(input, Input::ShipItem(_) | Input::WriteOffItem(_)) {
            self.received.push(input.clone());
        }
        let key = entity(&input);
        self.receive_as(&key, input);
    }

    fn receive_as(&mut self, key: &str, input: Input) {
        let state = self.states.entry(key.to_owned()).or_default();
        let decision = WAREHOUSE.decide(state, &received_at(NOW_MS, key, input));
        for event in decision.events {
            *state = WAREHOUSE.evolve(std::mem::take(state), &event);
            // The order-processor cancels an order whose cancellation the warehouse accepted.
            if let Event::CancellationAccepted(accepted) = &event {
                self.outstanding.push(OrderCancelled { order_id: accepted.order_id.clone() }.into());
            }
            // An operator retries an abandoned dispatch.
            if let Event::DispatchAbandoned(abandoned) = &event {
                self.outstanding.push(RetryDispatch { order_id: abandoned.order_id.clone() }.into());
            }
            self.events.push(event);
        }
        for send in decision.commands {
            self.send(key.to_owned(), send.key, send.command);
        }
    }

    fn send(&mut self, from: String, to: String, command: Command) {
        let input = into_input(command);
        assert_eq!(entity(&input), to, "a command goes to the entity it is about");
        self.in_transit.entry((from, to)).or_default().push_back(input);
    }

    fn call(&mut self, at: usize) {
        let pending = self.pending();
        let Some(effect) = at.checked_rem(pending.len()).map(|at| pending[at].clone()) else { return };
        match effect {
            WarehouseCall::Pick { order_id, .. } => {
                let missing = &self.orders[order_number(&order_id)].missing;
                let result = pick_result(&order_id, missing);
                self.send("floor".to_owned(), order_id, result.into());
            }
            WarehouseCall::Dispatch { order_id, parcel_id, ship_to, attempt } => {
                assert_eq!(ship_to, address());
                let refused = attempt <= self.orders[order_number(&order_id)].refusals;
                let outcome = if refused { CourierOutcome::Refused } else { CourierOutcome::Dispatched };
                self.courier_answers(order_id, parcel_id, attempt, outcome);
            }
            WarehouseCall::Withdraw { order_id, parcel_id, attempt } => {
                self.courier_answers(order_id, parcel_id, attempt, CourierOutcome::Withdrawn);
            }
        }
    }

    fn courier_answers(&mut self, order_id: String, parcel_id: String, attempt: i32, outcome: CourierOutcome) {
        let outcome = *self.courier.entry((order_id.clone(), attempt)).or_insert(outcome);
        let answer = CourierAnswer {
            order_id: order_id.clone(),
            outcome,
            parcel_id: Some(parcel_id),
            carrier: Some("Northwind Parcels".to_owned()),
            tracking_number: Some("NW1".to_owned()),
            attempt,
            reason: None,
        };
        self.send("courier".to_owned(), order_id, answer.into());
    }

    fn check_at_every_moment(&self) -> Result<(), TestCaseError> {
        for (sku, item) in self.states.iter().filter_map(|(key, state)| Some((key, state.item.as_deref()?))) {
            prop_assert!(item.free >= 0, "{sku}: {item:?}");
            prop_assert!(item.held.values().all(|&pieces| pieces > 0), "{sku}: {item:?}");
            let accounted = item.free + item.held_in_all() + item.shipped + item.written_off;
            prop_assert_eq!(item.received(), accounted, "{}: {:?}", sku, item);
        }
        for number in 0..self.orders.len() {
            let events = self.events_of(&order_id(number));
            for once in [
                "ReservationStarted",
                "StockReserved",
                "StockShort",
                "PickingStarted",
                "OrderPackaged",
                "PackagingFailed",
                "OrderDispatched",
                "CancellationAccepted",
                "CancellationRefused",
                "ReleaseStarted",
                "StockReleased",
            ] {
                let times = events.iter().filter(|name| **name == once).count();
                prop_assert!(times <= 1, "{once} was produced {times} times: {events:?}");
            }
        }
        Ok(())
    }

    fn check_in_the_end(&self, order_id: &str, order: &Order) -> Result<(), TestCaseError> {
        let events = self.events_of(order_id);
        let has = |name: &str| events.contains(&name);
        let still_held: i64 = self
            .states
            .values()
            .filter_map(|state| state.item.as_deref()?.held.get(order_id))
            .map(|&pieces| i64::from(pieces))
            .sum();
        let shipped = self.pieces(order_id, |event| match event {
            Event::ItemShipped(shipped) => Some((&shipped.order_id, shipped.quantity)),
            _ => None,
        });
        let wanted: i64 = order.lines.iter().map(|&(_, quantity)| i64::from(quantity)).sum();
        let agreed = has("CancellationAccepted");
        prop_assert!(!(agreed && has("CancellationRefused")), "two answers: {events:?}");
        prop_assert!(!(agreed && has("OrderDispatched")), "sent and cancelled: {events:?}");
        if order.asked_to_cancel && !order.cancelled {
            prop_assert!(agreed || has("CancellationRefused"), "no answer: {events:?}");
        }
        let cancelled = order.cancelled || agreed;
        prop_assert_eq!(has("StockReleased"), cancelled, "{:?}", events);
        prop_assert_eq!(shipped, if has("OrderDispatched") { wanted } else { 0 }, "{:?}", events);
        let taken =
            self.courier.iter().filter(|((of, _), outcome)| of == order_id && **outcome == CourierOutcome::Dispatched);
        prop_assert_eq!(taken.count(), usize::from(has("OrderDispatched")), "what the courier has: {:?}", events);
        prop_assert!(has("StockReserved") || has("StockShort") || cancelled, "neither held nor short: {events:?}");
        if cancelled || has("OrderDispatched") {
            prop_assert_eq!(still_held, 0, "left held: {:?}", events);
        }
        if order.paid && !cancelled && has("StockReserved") {
            prop_assert!(has("OrderDispatched") || has("PackagingFailed"), "stuck: {events:?}");
        }
        if has("StockReserved") && !cancelled && !has("OrderDispatched") {
            prop_assert_eq!(still_held, wanted, "all or nothing: {:?}", events);
        }
        Ok(())
    }

    fn pieces(&self, order_id: &str, of: fn(&Event) -> Option<(&String, i32)>) -> i64 {
        let matching = self.events.iter().filter_map(of).filter(|(of, _)| *of == order_id);
        matching.map(|(_, pieces)| i64::from(pieces)).sum()
    }

    /// The names of the events of an order.
    fn events_of(&self, order_id: &str) -> Vec<&'static str> {
        use runtime::Message as _;
        let is_of = |event: &&Event| match event {
            Event::ReservationStarted(e) => e.order_id == order_id,
            Event::StockReserved(e) => e.order_id == order_id,
            Event::StockShort(e) => e.order_id == order_id,
            Event::PickingStarted(e) => e.order_id == order_id,
            Event::OrderPackaged(e) => e.order_id == order_id,
            Event::PackagingFailed(e) => e.order_id == order_id,
            Event::OrderDispatched(e) => e.order_id == order_id,
            Event::CancellationAccepted(e) => e.order_id == order_id,
            Event::CancellationRefused(e) => e.order_id == order_id,
            Event::ReleaseStarted(e) => e.order_id == order_id,
            Event::StockReleased(e) => e.order_id == order_id,
            _ => false,
        };
        self.events.iter().filter(is_of).map(|event| event.record().name).collect()
    }
}

fn pick_result(order_id: &str, missing: &[(usize, i32)]) -> PickResult {
    let line = |&(sku, quantity): &(usize, i32)| ItemLine { sku: SKUS[sku].into(), quantity };
    PickResult {
        order_id: order_id.to_owned(),
        outcome: if missing.is_empty() { PickOutcome::Packaged } else { PickOutcome::Missing },
        parcel_id: missing.is_empty().then(|| format!("parcel-{order_id}")),
        missing: missing.iter().map(line).collect(),
        detail: None,
    }
}

fn into_input(command: Command) -> Input {
    match command {
        Command::ReceiveGoods(body) => body.into(),
        Command::HoldItem(body) => body.into(),
        Command::FreeItem(body) => body.into(),
        Command::ShipItem(body) => body.into(),
        Command::WriteOffItem(body) => body.into(),
        Command::HoldResult(body) => body.into(),
        Command::FreeResult(body) => body.into(),
        Command::WriteOffResult(body) => body.into(),
        Command::PickResult(body) => body.into(),
        Command::CourierAnswer(body) => body.into(),
        Command::RetryDispatch(body) => body.into(),
    }
}

fn entity(input: &Input) -> String {
    reads::entity(&received_at(NOW_MS, "", input.clone())).into_owned()
}

fn order_id(number: usize) -> String {
    format!("order-{number}")
}

fn order_number(order_id: &str) -> usize {
    order_id.trim_start_matches("order-").parse().unwrap()
}

fn address() -> Address {
    let [street, city, postcode, country] = ["Lindenstraße 14", "Leipzig", "04105", "DE"].map(str::to_owned);
    Address { street, city, postcode, country }
}
