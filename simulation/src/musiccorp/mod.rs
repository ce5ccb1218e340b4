//! MusicCorp under simulation: its services, its external services, its workload, and the promises that must hold.

mod external;
mod operations;
mod oracle;
mod tally;

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use catalogue::Catalogue;
use customers::Customers;
use loyalty::Loyalty;
use notifications::Notifications;
use oracle::Totals;
use order_processor::{OrderProcessor, lookups::Lookups};
use payment::Payment;
use runtime::projection::{LogRecord, Projection as _};
use warehouse::Warehouse;

pub use external::{Gateway, GatewayAccount, MailServer, PickingAndCourier};
use operations::Operation;
pub use tally::{Tally, TallyState};

use crate::{
    driver::{ExternalService, NoExternalService, Violation},
    random::SeededRandom,
    setup::ScenarioSetup,
    trace::Trace,
    workload::{Client, ReadPositions, Scenario, Snapshot, Workload},
};

/// The system that the schema files are written for.
pub const SYSTEM: &str = "musiccorp";

/// MusicCorp.
#[derive(Debug, Clone, Copy, Default)]
pub struct MusicCorp;

impl Scenario for MusicCorp {
    fn begin(&self, setup: &mut ScenarioSetup<'_>, random: &mut SeededRandom) -> Box<dyn Workload> {
        let workload = MusicCorpWorkload {
            operations: operations::draw(random),
            http_lookups: HttpLookups::default(),
            totals: Totals::default(),
            gateway: Rc::default(),
            picking: Rc::default(),
            mail: Rc::default(),
            applied: BTreeSet::new(),
            operator_commands: 0,
        };
        setup.add_service(Customers, NoExternalService);
        setup.add_service(Catalogue, NoExternalService);
        setup.add_service(OrderProcessor, NoExternalService);
        setup.add_service_with(
            draw_warehouse(random),
            Rc::clone(&workload.picking) as Rc<RefCell<dyn ExternalService<Warehouse>>>,
        );
        let payment = Payment { charge_deadline_ms: *random.pick(&[800, 2_500, 60_000]) };
        setup.add_service_with(payment, Rc::clone(&workload.gateway) as Rc<RefCell<dyn ExternalService<Payment>>>);
        setup.add_service(Loyalty, NoExternalService);
        setup.add_service_with(
            Notifications,
            Rc::clone(&workload.mail) as Rc<RefCell<dyn ExternalService<Notifications>>>,
        );
        setup.add_service(Tally, NoExternalService);
        for operation in &workload.operations {
            if let Operation::Order { order_id, is_lost: true, .. } = operation {
                workload.picking.borrow_mut().lost.insert(order_id.to_string());
            }
        }
        Box::new(workload)
    }
}

struct MusicCorpWorkload {
    operations: Vec<Operation>,
    http_lookups: HttpLookups,
    totals: Totals,
    gateway: Rc<RefCell<Gateway>>,
    picking: Rc<RefCell<PickingAndCourier>>,
    mail: Rc<RefCell<MailServer>>,
    /// The operations that were applied at least once.
    applied: BTreeSet<usize>,
    /// How many commands an operator has sent.
    operator_commands: usize,
}

/// A warehouse with a patience that differs from run to run.
fn draw_warehouse(random: &mut SeededRandom) -> Warehouse {
    Warehouse {
        courier_deadline_ms: *random.pick(&[800, 2_500, 60_000]),
        dispatch_pause_ms: *random.pick(&[50, 400]),
        dispatch_attempts: *random.pick(&[1, 2, 3]),
    }
}

impl Workload for MusicCorpWorkload {
    fn operations(&self) -> Vec<String> {
        self.operations.iter().map(|operation| format!("{operation:?}")).collect()
    }

    fn apply(&mut self, operation: usize, client: &mut Client<'_>) -> Result<bool, Violation> {
        self.applied.insert(operation);
        operations::apply(&mut self.operations[operation], &mut self.http_lookups, client)
    }

    fn operate(&mut self, client: &mut Client<'_>) -> Result<bool, Violation> {
        let before = self.operator_commands;
        for operation in &self.operations {
            if let Operation::Order { order_id, .. } = operation {
                self.operator_commands +=
                    usize::from(operations::operate(&order_id.to_string(), self.operator_commands, client)?);
            }
        }
        Ok(self.operator_commands > before)
    }

    fn check(&mut self, snapshot: &Snapshot<'_>, trace: &mut Trace) -> Result<(), Violation> {
        let rung: Vec<(String, i64)> =
            self.applied.iter().filter_map(|operation| self.operations[*operation].rung()).collect();
        let external = (&*self.gateway.borrow(), &*self.picking.borrow(), &*self.mail.borrow());
        oracle::check(snapshot, &mut self.totals, external, &rung, trace)
    }
}

/// The look-ups of the HTTP API: the customers, and the prices of albums.
struct HttpLookups {
    lookups: Lookups,
    next: ReadPositions,
}

impl Default for HttpLookups {
    fn default() -> Self {
        Self { lookups: Lookups::new(SYSTEM), next: ReadPositions::new() }
    }
}

impl HttpLookups {
    /// The look-ups as of now.
    fn catch_up(&mut self, client: &Client<'_>) -> &Lookups {
        for service in ["customers", "catalogue"] {
            let name = runtime::message::topic(SYSTEM, service, runtime::Channel::Events).into();
            for (topic_partition, offset, stored) in client.events_since(service, &mut self.next) {
                let decoded = client.fixtures().readers().decode(stored.value.as_deref(), None).ok();
                let record = LogRecord::new(&name, topic_partition.partition, offset, stored.timestamp_ms);
                self.lookups.apply(&record.with_content(stored.key.as_deref(), None, stored.value.as_deref(), decoded));
            }
        }
        &self.lookups
    }
}

/// The situations that must occur at least once in ten thousand seeds: otherwise the simulation no longer tests what it must.
pub const SEEN_SOMETIMES: &[&str] = &[
    "crash",
    "pause",
    "stop",
    "request lost",
    "reply lost",
    "request late",
    "duplicate",
    "rebalance",
    "offsets lost",
    "store lost",
    "store old",
    "store corrupt",
    "registry down",
    "registry lag",
    "call lost",
    "answer lost",
    "answer twice",
    "poison record",
    "decider bug",
    "bug fixed",
    "time jump",
    "a malformed checkpoint is discarded",
    "a late request of a fenced producer is refused",
    "a partition is paused until a schema is available",
    "a process crashes at the end of a transaction",
    "a process crashes in a transaction",
    "a partition is paused because its decider fails",
    "a paused partition has recovered",
    "a record that lost a state is decided in a batch of its own",
    "a record that lost a state waits before its retry",
    "a service whose unread input was deleted is refused by name",
    "a store ahead of its log is refused",
    "an entity is evicted from memory",
    "an entity is loaded from the store",
    "days pass, and every offset is committed again",
    "a recovery starts at a checkpoint",
    "a recovery ends after its partition was reassigned",
    "a recovery waits at its barrier",
    "a recovery waits for a schema",
    "a recovery waits for offsets to be stable",
    "a late request takes effect",
    "a timer fires",
    "a timer waits for earlier input",
    "an abandoned transaction is aborted",
    "an account is closed by a timer",
    "an effect is answered after its incarnation has ended",
    "an effect is retried",
    "a state is lost because evolve fails",
    "an operator drops a parked record",
    "an operator retries a parked record",
    "an operator gives up an order",
    "an operator retries a dispatch",
    "an operator retries a refund",
    "an order is cancelled because the customer asked",
    "an order is cancelled because the gateway did not answer",
    "an order is given up",
    "an order is cancelled because the payment was declined",
    "an order is cancelled because stock was short",
    "an order is completed",
    "an order is lost at packaging",
    "an order is rejected",
    "every store is rebuilt from the logs",
    "inboxes that were consumed are deleted, and no service is refused",
    "input positions are recovered from the own log",
    "late offsets of a former member are refused",
    "offsets of a removed member are refused",
    "partitions are revoked before their positions are committed",
];
