//! The simulated driver: it executes the steps of the production core on the simulated cluster, as `runtime::worker` executes
//! them on Kafka. The core decides what happens when, in both. Between any two steps a process may crash.

mod effect_attempt;
mod faulty;
mod filter;
mod group_client;
mod incarnation;
mod process;
mod recovery;
pub(crate) mod reference_fold;
mod store;
mod transaction;

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

use runtime::{Answer, Decider, Due, Unanswered, codec::Readers, core::ServiceContract, envelope::Position};

use self::reference_fold::ReferenceFold;
pub(crate) use self::{
    faulty::{DeciderBugs, FaultyCaller, FaultyDecider},
    process::Process,
    transaction::headers_of,
};
use crate::{
    cluster::{Cluster, Request, TopicPartition},
    faults::{Fault, Faults},
    mutant::Mutant,
    random::SeededRandom,
    registry::{self, SimulatedRegistry},
    simulated_run::retention::UnreadTruncation,
    trace::Trace,
};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise, in a few words.
    pub promise: &'static str,
    /// What broke it.
    pub what: String,
}

impl Violation {
    /// A violation of this promise.
    pub fn new(promise: &'static str, what: impl Into<String>) -> Self {
        Self { promise, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// The external service that the effects of one service call. It must recognise repeated requests by their key, as a real one
/// does.
pub trait ExternalService<D: Decider> {
    /// Carries out the request once per `key`, and answers it.
    ///
    /// # Errors
    /// There is no definite answer; the request is repeated.
    fn call(
        &mut self,
        key: &str,
        due: &Due<D::Effect>,
        random: &mut SeededRandom,
    ) -> Result<Answer<D::Command>, Unanswered>;
}

/// The external service of a service without effects.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExternalService;

impl<D: Decider> ExternalService<D> for NoExternalService {
    fn call(&mut self, key: &str, _: &Due<D::Effect>, _: &mut SeededRandom) -> Result<Answer<D::Command>, Unanswered> {
        Err(Unanswered::new(format!("no external service answers {key}")))
    }
}

/// Everything that the processes of one run share.
pub struct World {
    /// The true time, in milliseconds since the epoch.
    pub now_ms: i64,
    /// The random numbers of the schedule.
    pub random: SeededRandom,
    /// The faults.
    pub faults: Faults,
    /// The logs and the groups.
    pub cluster: Cluster,
    /// What happened.
    pub trace: Trace,
    pub(crate) registry: Arc<SimulatedRegistry>,
    pub(crate) mutant: Option<Mutant>,
    /// The positions of the records that cannot be read.
    pub(crate) poison_records: BTreeSet<Position>,
    /// An unread record that retention has deleted.
    pub(crate) unread_truncation: Option<UnreadTruncation>,
    /// How often an operator has acted on parked records.
    pub(crate) operator_actions: u64,
}

impl World {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Returns whether a fault is injected here, and adds it to the trace.
    pub(crate) fn injects(&mut self, fault: Fault, target: &str) -> bool {
        let injects = self.faults.injects(fault);
        if injects {
            self.trace.mix_number(fault as u64 + 1_000);
            self.trace.sometimes(fault.name());
            let number = self.faults.injected().last().map_or(0, |(number, _)| *number);
            self.trace.note(None, || format!("FAULT {number} at {target}: {}", fault.name()));
        }
        injects
    }

    /// Appends a record outside a transaction. Returns whether the append was acknowledged; if not, the sender tries again, so
    /// the record may be appended more than once.
    pub(crate) fn append(
        &mut self,
        topic_partition: TopicPartition,
        record: Rc<crate::cluster::StoredRecord>,
        sender: &str,
    ) -> bool {
        let request = Request::Append { topic_partition, record };
        if self.injects(Fault::RequestLost, sender) {
            return false;
        }
        if self.injects(Fault::RequestLate, sender) {
            let at_ms = self.now_ms + self.faults.extent().within(100..=6_000);
            self.cluster.handle_later(at_ms, request);
            return false;
        }
        self.cluster.handle(&request, self.now_ms, &mut self.trace);
        if self.injects(Fault::Duplicate, sender) {
            self.cluster.handle(&request, self.now_ms, &mut self.trace);
        }
        !self.injects(Fault::ReplyLost, sender)
    }
}

/// What the processes of one service share.
pub(crate) struct ServiceContext<D: Decider> {
    pub(crate) decider: D,
    pub(crate) bugs: DeciderBugs,
    pub(crate) contract: ServiceContract,
    pub(crate) readers: Readers,
    pub(crate) external: Rc<RefCell<dyn ExternalService<D>>>,
    pub(crate) reference: RefCell<ReferenceFold<D>>,
    pub(crate) group: usize,
    /// The numbers of the input topics, in the order of the contract: the first one is the own inbox.
    pub(crate) inputs: Vec<usize>,
    pub(crate) events: usize,
    pub(crate) dead_letters: usize,
    pub(crate) parked: usize,
    pub(crate) calls: RefCell<u64>,
}

impl<D: Decider> ServiceContext<D> {
    /// The readers of a process that has just started: it knows no schema.
    pub(crate) fn fresh_readers(&self, world: &World) -> Readers {
        registry::readers(&self.readers, &world.registry)
    }
}
