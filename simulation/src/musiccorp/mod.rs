//! MusicCorp under simulation: all of its services, its outside world, what customers and clerks do, and what must hold.

mod oracle;
mod outside;
mod tally;
mod workload;

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use catalogue::Catalogue;
use customers::Customers;
use loyalty::Loyalty;
use notifications::Notifications;
use oracle::Books;
use order_processor::{OrderProcessor, lookups::Lookups};
use payment::Payment;
use runtime::projection::{LogRecord, Projection as _};
use warehouse::Warehouse;

pub use outside::{Account, FloorAndCourier, Gateway, Mail};
pub use tally::{Tally, TallyState};
use workload::Deed;

use crate::{
    cast::Cast,
    chance::Chance,
    driver::{Nobody, Outside, Violation},
    history::{Finale, Hand, Play, Positions, Scenario},
    trace::Trace,
};

/// The system that the schema files are written for.
pub const SYSTEM: &str = "musiccorp";

/// MusicCorp.
#[derive(Debug, Clone, Copy, Default)]
pub struct MusicCorp;

impl Scenario for MusicCorp {
    fn begin(&self, cast: &mut Cast<'_>, chance: &mut Chance) -> Box<dyn Play> {
        let performance = Performance {
            deeds: workload::draw(chance),
            window: Window::default(),
            books: Books::default(),
            gateway: Rc::default(),
            floor: Rc::default(),
            mail: Rc::default(),
            begun: BTreeSet::new(),
            tended: 0,
        };
        cast.play(Customers, Nobody);
        cast.play(Catalogue, Nobody);
        cast.play(OrderProcessor, Nobody);
        cast.play_with(patient_warehouse(chance), Rc::clone(&performance.floor) as Rc<RefCell<dyn Outside<Warehouse>>>);
        let payment = Payment { charge_deadline_ms: *chance.pick(&[800, 2_500, 60_000]) };
        cast.play_with(payment, Rc::clone(&performance.gateway) as Rc<RefCell<dyn Outside<Payment>>>);
        cast.play(Loyalty, Nobody);
        cast.play_with(Notifications, Rc::clone(&performance.mail) as Rc<RefCell<dyn Outside<Notifications>>>);
        cast.play(Tally, Nobody);
        for deed in &performance.deeds {
            if let Deed::Order { order_id, is_lost: true, .. } = deed {
                performance.floor.borrow_mut().lost.insert(order_id.to_string());
            }
        }
        Box::new(performance)
    }
}

struct Performance {
    deeds: Vec<Deed>,
    window: Window,
    books: Books,
    gateway: Rc<RefCell<Gateway>>,
    floor: Rc<RefCell<FloorAndCourier>>,
    mail: Rc<RefCell<Mail>>,
    /// The deeds that were begun.
    begun: BTreeSet<usize>,
    /// How often an operator has acted.
    tended: usize,
}

/// How long it waits for the courier, and how often it asks, differs from history to history.
fn patient_warehouse(chance: &mut Chance) -> Warehouse {
    Warehouse {
        courier_deadline_ms: *chance.pick(&[800, 2_500, 60_000]),
        dispatch_pause_ms: *chance.pick(&[50, 400]),
        dispatch_attempts: *chance.pick(&[1, 2, 3]),
    }
}

impl Play for Performance {
    fn deeds(&self) -> Vec<String> {
        self.deeds.iter().map(|deed| format!("{deed:?}")).collect()
    }

    fn act(&mut self, deed: usize, hand: &mut Hand<'_>) -> Result<bool, Violation> {
        self.begun.insert(deed);
        workload::act(&mut self.deeds[deed], &mut self.window, hand)
    }

    fn tend(&mut self, hand: &mut Hand<'_>) -> Result<bool, Violation> {
        let before = self.tended;
        for deed in &self.deeds {
            if let Deed::Order { order_id, .. } = deed {
                self.tended += usize::from(workload::tend(&order_id.to_string(), self.tended, hand)?);
            }
        }
        Ok(self.tended > before)
    }

    fn check(&mut self, view: &Finale<'_>, trace: &mut Trace) -> Result<(), Violation> {
        let rung: Vec<(String, i64)> = self.begun.iter().filter_map(|deed| self.deeds[*deed].rung()).collect();
        let outside = (&*self.gateway.borrow(), &*self.floor.borrow(), &*self.mail.borrow());
        oracle::check(view, &mut self.books, outside, &rung, trace)
    }
}

/// What the edge looks up: who the customers are and what albums cost.
struct Window {
    lookups: Lookups,
    next: Positions,
}

impl Default for Window {
    fn default() -> Self {
        Self { lookups: Lookups::new(SYSTEM), next: Positions::new() }
    }
}

impl Window {
    /// What it would find now.
    fn now(&mut self, hand: &Hand<'_>) -> &Lookups {
        for service in ["customers", "catalogue"] {
            let name = runtime::message::topic(SYSTEM, service, runtime::Channel::Events).into();
            for (place, offset, stored) in hand.events_since(service, &mut self.next) {
                let decoded = hand.workshop().readers().decode(stored.value.as_deref(), None).ok();
                let record = LogRecord::new(&name, place.partition, offset, stored.timestamp_ms);
                self.lookups.apply(&record.with_content(stored.key.as_deref(), None, stored.value.as_deref(), decoded));
            }
        }
        &self.lookups
    }
}

/// What must be seen at least once in ten thousand seeds: else the simulation has lost its teeth.
pub const SEEN_SOMETIMES: &[&str] = &[
    "crash",
    "pause",
    "stop",
    "request lost",
    "written but error",
    "written late",
    "duplicate",
    "rebalance",
    "offsets lost",
    "store lost",
    "store old",
    "store corrupt",
    "registry down",
    "registry lag",
    "ask lost",
    "answer lost",
    "answer twice",
    "poison",
    "mistake",
    "mended",
    "leap",
    "a damaged checkpoint is thrown away",
    "a late request of a dead producer is fenced",
    "a partition is held for a schema",
    "a process dies at the end of a transaction",
    "a process dies in a transaction",
    "a partition is held for a decider that fails",
    "a partition that was held is well again",
    "a record that cost a state is tried alone",
    "a record that cost a state rests before it is tried again",
    "a store ahead of its log is refused",
    "an entity is evicted from memory",
    "an entity is loaded from the store",
    "days pass, and every offset is committed again",
    "a recovery begins at a checkpoint",
    "a recovery ends when its partition is somebody else's",
    "a recovery waits at its barrier",
    "a recovery waits for a schema",
    "a recovery waits for offsets to be stable",
    "a request that was given up is carried out late",
    "a timer fires",
    "a timer waits for input that was there first",
    "a transaction that nobody ends is aborted",
    "an account is closed by a timer",
    "an effect is answered after its life is over",
    "an effect is tried again",
    "a state is lost because evolve fails",
    "an operator gives a parked record up",
    "an operator has a parked record tried again",
    "an operator gives an order up",
    "an operator has a dispatch tried again",
    "an operator has a refund tried again",
    "an order is cancelled because the customer asked",
    "an order is cancelled because the gateway was silent",
    "an order is given up",
    "an order is cancelled for lack of money",
    "an order is cancelled for lack of stock",
    "an order is completed",
    "an order is lost at packaging",
    "an order is rejected",
    "everything is rebuilt from the logs",
    "input positions are recovered from the own log",
    "late offsets of a member that is none any more are refused",
    "offsets of a member that was put out are refused",
    "offsets of an old generation are refused",
    "partitions are revoked while positions wait to be committed",
];
