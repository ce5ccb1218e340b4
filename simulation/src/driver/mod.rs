//! The simulated driver: it executes the steps of the production core on the simulated cluster, as `runtime::worker` does on
//! Kafka. What is done when is decided by the core, in both. Between any two steps a process may die.

mod attempt;
mod client;
mod filter;
mod incarnation;
mod moody;
mod process;
mod recovery;
mod store;
mod transaction;
pub(crate) mod truth;

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

use runtime::{Answer, Decider, Due, Unanswered, codec::Readers, core::ServiceContract, envelope::Position};

use self::truth::Truth;
pub(crate) use self::{
    moody::{AskedBy, Mood, Moody},
    process::Process,
    transaction::headers_of,
};
use crate::{
    chance::Chance,
    cluster::{Cluster, Place, Request},
    faults::{Fault, Faults},
    mutant::Mutant,
    registry::{self, Registry},
    trace::Trace,
};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise, in a few words.
    pub promise: &'static str,
    /// What broke it.
    pub what: String,
}

impl Violation {
    /// A broken promise.
    pub fn new(promise: &'static str, what: impl Into<String>) -> Self {
        Self { promise, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// The outside world of one service: what its effects ask. It must tell repeated requests by their key, as a real one would.
pub trait Outside<D: Decider> {
    /// Does what is asked, once per `key`, and answers.
    ///
    /// # Errors
    /// No definite answer; it is asked again.
    fn ask(&mut self, key: &str, due: &Due<D::Effect>, chance: &mut Chance) -> Result<Answer<D::Command>, Unanswered>;
}

/// The outside world of a service that asks nothing of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl<D: Decider> Outside<D> for Nobody {
    fn ask(&mut self, key: &str, _: &Due<D::Effect>, _: &mut Chance) -> Result<Answer<D::Command>, Unanswered> {
        Err(Unanswered::new(format!("nobody answers {key}")))
    }
}

/// Everything that the processes of one history share.
pub struct World {
    /// The true time, in milliseconds since the epoch.
    pub now_ms: i64,
    /// What the schedule is drawn from.
    pub chance: Chance,
    /// What goes wrong.
    pub faults: Faults,
    /// The logs and the groups.
    pub cluster: Cluster,
    /// What happened.
    pub trace: Trace,
    pub(crate) registry: Arc<Registry>,
    pub(crate) mutant: Option<Mutant>,
    /// Where records lie that nobody can read.
    pub(crate) poisons: BTreeSet<Position>,
    /// How often an operator has acted on what is parked.
    pub(crate) operated: u64,
}

impl World {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Asks whether a fault strikes, and tells of it.
    pub(crate) fn strikes(&mut self, fault: Fault, whom: &str) -> bool {
        let strikes = self.faults.strikes(fault);
        if strikes {
            self.trace.mix_number(fault as u64 + 1_000);
            self.trace.sometimes(fault.name());
            let number = self.faults.fired().last().map_or(0, |(number, _)| *number);
            self.trace.tell(None, || format!("FAULT {number} {} strikes {whom}", fault.name()));
        }
        strikes
    }

    /// Appends a record in no transaction, as a producer does that tries again until it is told that the record lies there: so it
    /// may lie there more than once. Answers whether it was told so.
    pub(crate) fn append(&mut self, place: Place, record: Rc<crate::cluster::Stored>, whom: &str) -> bool {
        let request = Request::Append { place, record };
        if self.strikes(Fault::RequestLost, whom) {
            return false;
        }
        if self.strikes(Fault::RequestLate, whom) {
            let at_ms = self.now_ms + self.faults.extent().within(100..=6_000);
            self.cluster.serve_later(at_ms, request);
            return false;
        }
        self.cluster.serve(&request, self.now_ms, &mut self.trace);
        if self.strikes(Fault::Duplicate, whom) {
            self.cluster.serve(&request, self.now_ms, &mut self.trace);
        }
        !self.strikes(Fault::ReplyLost, whom)
    }
}

/// What the processes of one service share.
pub(crate) struct Kit<D: Decider> {
    pub(crate) decider: D,
    pub(crate) mood: Mood,
    pub(crate) contract: ServiceContract,
    pub(crate) readers: Readers,
    pub(crate) outside: Rc<RefCell<dyn Outside<D>>>,
    pub(crate) truth: RefCell<Truth<D>>,
    pub(crate) group: usize,
    /// The numbers of the input topics, in the contract's order: the first is the own inbox.
    pub(crate) inputs: Vec<usize>,
    pub(crate) events: usize,
    pub(crate) letters: usize,
    pub(crate) parked: usize,
    pub(crate) asked: RefCell<u64>,
}

impl<D: Decider> Kit<D> {
    /// The schemas as a process sees them that has just started: it knows none.
    pub(crate) fn fresh_readers(&self, world: &World) -> Readers {
        registry::readers(&self.readers, &world.registry)
    }
}
