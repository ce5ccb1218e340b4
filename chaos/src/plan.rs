//! The plan of a run: faults drawn from a seed, in order, with pauses. Pure: the same seed and parameters give the same plan.
//!
//! The plan tracks which instances will run, so that the target of every fault exists.

use std::{collections::BTreeMap, fmt};

use dacapo::rng::SeededRng;

/// The services that faults hit; each may have several instances.
pub const FAULTED_SERVICES: [&str; 7] =
    ["order-processor", "warehouse", "payment", "loyalty", "notifications", "customers", "catalogue"];

/// The maximum number of instances of a service.
const MAX_INSTANCES: usize = 3;

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// The service.
    pub service: &'static str,
    /// The number of the instance, from 0; never reused.
    pub number: usize,
    /// Whether it has a stable name.
    pub is_named: bool,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unnamed = if self.is_named { "" } else { " (unnamed)" };
        write!(f, "{}-{}{unnamed}", self.service, self.number)
    }
}

/// The parameters of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanParameters {
    /// The seed.
    pub seed: u64,
    /// How many faults.
    pub faults: usize,
    /// How long an unresponsive group member keeps its partitions, in milliseconds.
    pub session_ms: u64,
    /// Instances of each service at the start.
    pub instances: usize,
    /// Whether the broker may be killed.
    pub kills_broker: bool,
}

/// The kinds of faults, as the report counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// An instance is killed (SIGKILL), then started.
    Kill,
    /// An instance is suspended (SIGSTOP) for longer than its session, then resumed.
    Freeze,
    /// An instance is killed, its local store is deleted, and it is started.
    StoreDeleted,
    /// An instance is killed, its local store is damaged, and it is started.
    StoreDamaged,
    /// The connections of an instance to the broker are closed, and new ones refused.
    Disconnect,
    /// The connections of an instance are frozen: nothing passes, then everything does.
    Stall,
    /// Requests of an instance pass and responses do not; then the connections are closed.
    ResponsesLost,
    /// The connections of an instance are closed, and its next metadata requests get a response without brokers.
    NoBrokers,
    /// The broker is killed (SIGKILL), then started on the same data.
    BrokerKill,
    /// The broker is suspended (SIGSTOP), then resumed.
    BrokerFreeze,
    /// The registry is unreachable.
    RegistryDown,
    /// The stubs of the gateway, picking and the courier are killed, then started on the same journal.
    StubsDown,
    /// An instance is added.
    Added,
    /// An instance is stopped (SIGTERM) and removed.
    Removed,
    /// Every instance of a service is stopped and started, one after the other.
    RollingRestart,
}

/// How often each kind is in the deck that faults are drawn from.
const DECK: [(FaultKind, usize); 15] = [
    (FaultKind::Kill, 4),
    (FaultKind::Freeze, 3),
    (FaultKind::StoreDeleted, 1),
    (FaultKind::StoreDamaged, 1),
    (FaultKind::Disconnect, 1),
    (FaultKind::Stall, 1),
    (FaultKind::ResponsesLost, 1),
    (FaultKind::NoBrokers, 1),
    (FaultKind::BrokerKill, 2),
    (FaultKind::BrokerFreeze, 1),
    (FaultKind::RegistryDown, 1),
    (FaultKind::StubsDown, 1),
    (FaultKind::Added, 1),
    (FaultKind::Removed, 1),
    (FaultKind::RollingRestart, 1),
];

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "kill -9",
            Self::Freeze => "frozen past its session",
            Self::StoreDeleted => "killed, store deleted",
            Self::StoreDamaged => "killed, store damaged",
            Self::Disconnect => "connections closed",
            Self::Stall => "connections frozen",
            Self::ResponsesLost => "responses lost",
            Self::NoBrokers => "metadata without brokers",
            Self::BrokerKill => "broker kill -9",
            Self::BrokerFreeze => "broker frozen",
            Self::RegistryDown => "registry down",
            Self::StubsDown => "gateway and courier down",
            Self::Added => "instance added",
            Self::Removed => "instance removed",
            Self::RollingRestart => "rolling restart",
        })
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: FaultKind,
    /// Its target.
    pub target: FaultTarget,
    /// How long it lasts, in milliseconds.
    pub lasts_ms: u64,
}

/// The target of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultTarget {
    /// One instance.
    One(Instance),
    /// These instances of one service, one after the other.
    Each(Vec<Instance>),
    /// Infrastructure that all instances use.
    All,
}

/// A fault with its timing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFault {
    /// The pause before it, in milliseconds.
    pub pause_ms: u64,
    /// The fault.
    pub fault: Fault,
    /// Whether the next fault begins before this one ends.
    pub overlaps: bool,
}

impl fmt::Display for PlannedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, target, lasts_ms } = &self.fault;
        write!(f, "after {:>5} ms  {kind:<26}", self.pause_ms)?;
        match target {
            FaultTarget::One(instance) => write!(f, "{instance}")?,
            FaultTarget::Each(instances) => write!(f, "{}, {} instances", instances[0].service, instances.len())?,
            FaultTarget::All => f.write_str("all instances")?,
        }
        if *lasts_ms > 0 {
            write!(f, ", for {lasts_ms} ms")?;
        }
        f.write_str(if self.overlaps { ", overlapping the next:" } else { "" })
    }
}

/// The plan of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The instances that run at the start.
    pub initial_instances: Vec<Instance>,
    /// The faults.
    pub faults: Vec<PlannedFault>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, planned) in self.faults.iter().enumerate() {
            writeln!(f, "{:>4}  {planned}", index + 1)?;
        }
        Ok(())
    }
}

impl Plan {
    /// Draws the plan.
    #[must_use]
    pub fn draw(parameters: &PlanParameters) -> Self {
        let mut generator = PlanGenerator::new(parameters);
        let initial_instances = generator.instances.values().flatten().cloned().collect();
        let mut faults: Vec<PlannedFault> = Vec::new();
        for _ in 0..parameters.faults {
            let before = faults.last().filter(|planned| planned.overlaps).map(|planned| planned.fault.clone());
            let planned = generator.next_fault(before.as_ref());
            faults.push(planned);
        }
        if let Some(last) = faults.last_mut() {
            last.overlaps = false;
        }
        Self { initial_instances, faults }
    }
}

struct PlanGenerator {
    parameters: PlanParameters,
    rng: SeededRng,
    deck: Vec<FaultKind>,
    instances: BTreeMap<&'static str, Vec<Instance>>,
    next_number: usize,
}

impl PlanGenerator {
    fn new(parameters: &PlanParameters) -> Self {
        let of =
            |service| (0..parameters.instances).map(|number| Instance { service, number, is_named: true }).collect();
        let instances = FAULTED_SERVICES.into_iter().map(|service| (service, of(service))).collect();
        Self {
            parameters: *parameters,
            rng: SeededRng::new(parameters.seed, 0),
            deck: Vec::new(),
            instances,
            next_number: parameters.instances,
        }
    }

    /// The next fault. Faults that overlap hit different services.
    fn next_fault(&mut self, before: Option<&Fault>) -> PlannedFault {
        let pause_ms = 200 + self.rng.below(1_000);
        let fault = loop {
            let kind = self.next_kind();
            let fits = |fault: &Fault| before.is_none_or(|before| are_apart(before, fault));
            // A kind that does not fit returns with the next shuffle.
            if let Some(fault) = self.fault(kind).filter(fits) {
                break fault;
            }
        };
        self.apply(&fault);
        let overlaps = self.rng.below(5) == 0 && before.is_none();
        PlannedFault { pause_ms, fault, overlaps }
    }

    fn next_kind(&mut self) -> FaultKind {
        if self.deck.is_empty() {
            let kinds = DECK.iter().flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times));
            self.deck = kinds.filter(|kind| self.parameters.kills_broker || !is_of_broker(*kind)).collect();
            for last in (1..self.deck.len()).rev() {
                let other = self.rng.below(last as u64 + 1);
                self.deck.swap(last, usize::try_from(other).unwrap_or(last));
            }
        }
        self.deck.pop().unwrap_or(FaultKind::Kill)
    }

    fn fault(&mut self, kind: FaultKind) -> Option<Fault> {
        let session = self.parameters.session_ms;
        let (target, lasts_ms) = match kind {
            // The instance starts at once, or after its session has ended and others have taken over.
            FaultKind::Kill => (self.one(), self.rng.below(2) * session * 3 / 2 + self.rng.below(500)),
            FaultKind::Freeze => (self.one(), session * 3 / 2 + self.rng.below(session)),
            FaultKind::StoreDeleted | FaultKind::StoreDamaged => (self.one(), 100 + self.rng.below(500)),
            FaultKind::Disconnect | FaultKind::Stall | FaultKind::ResponsesLost | FaultKind::NoBrokers => {
                (self.one(), 300 + self.rng.below(session * 2))
            }
            FaultKind::BrokerKill => (FaultTarget::All, 100 + self.rng.below(1_500)),
            FaultKind::BrokerFreeze | FaultKind::RegistryDown | FaultKind::StubsDown => {
                (FaultTarget::All, 500 + self.rng.below(2_500))
            }
            FaultKind::Added => (FaultTarget::One(self.another()?), 0),
            FaultKind::Removed => (FaultTarget::One(self.spare()?), 0),
            FaultKind::RollingRestart => (FaultTarget::Each(self.service().1.clone()), 0),
        };
        Some(Fault { kind, target, lasts_ms })
    }

    fn service(&mut self) -> (&'static str, &Vec<Instance>) {
        let service = FAULTED_SERVICES[self.below(FAULTED_SERVICES.len())];
        (service, &self.instances[service])
    }

    fn one(&mut self) -> FaultTarget {
        let service = self.service().0;
        let at = self.below(self.instances[service].len());
        FaultTarget::One(self.instances[service][at].clone())
    }

    fn another(&mut self) -> Option<Instance> {
        let (service, instances) = self.service();
        if instances.len() >= MAX_INSTANCES {
            return None;
        }
        let (number, is_named) = (self.next_number, self.rng.below(2) == 0);
        Some(Instance { service, number, is_named })
    }

    fn spare(&mut self) -> Option<Instance> {
        let (service, instances) = self.service();
        if instances.len() < 2 {
            return None;
        }
        let at = self.below(self.instances[service].len());
        Some(self.instances[service][at].clone())
    }

    fn apply(&mut self, fault: &Fault) {
        let FaultTarget::One(instance) = &fault.target else { return };
        let instances = self.instances.entry(instance.service).or_default();
        match fault.kind {
            FaultKind::Added => {
                instances.push(instance.clone());
                self.next_number += 1;
            }
            FaultKind::Removed => instances.retain(|other| other != instance),
            _ => {}
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or_default()
    }
}

fn is_of_broker(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::BrokerKill | FaultKind::BrokerFreeze)
}

fn are_apart(one: &Fault, other: &Fault) -> bool {
    let service = |fault: &Fault| match &fault.target {
        FaultTarget::One(instance) => Some(instance.service),
        FaultTarget::Each(instances) => instances.first().map(|instance| instance.service),
        FaultTarget::All => None,
    };
    match (service(one), service(other)) {
        (Some(one), Some(other)) => one != other,
        // A clean stop needs the infrastructure, so it does not overlap a fault of the infrastructure.
        (None, Some(_)) => !matches!(other.kind, FaultKind::Removed | FaultKind::RollingRestart),
        (Some(_), None) => !matches!(one.kind, FaultKind::Removed | FaultKind::RollingRestart),
        (None, None) => one.kind != other.kind && !(is_of_broker(one.kind) && is_of_broker(other.kind)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PARAMETERS: PlanParameters =
        PlanParameters { seed: 7, faults: 120, session_ms: 6_000, instances: 2, kills_broker: true };

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_gives_another() {
        assert_eq!(Plan::draw(&PARAMETERS), Plan::draw(&PARAMETERS));
        assert_ne!(Plan::draw(&PARAMETERS), Plan::draw(&PlanParameters { seed: 8, ..PARAMETERS }));
    }

    #[test]
    fn every_kind_is_drawn_and_an_external_broker_gets_no_faults() {
        let kinds = |parameters| {
            Plan::draw(parameters).faults.iter().map(|planned| planned.fault.kind).collect::<BTreeSet<_>>()
        };
        assert_eq!(kinds(&PARAMETERS).len(), DECK.len());
        let external = kinds(&PlanParameters { kills_broker: false, ..PARAMETERS });
        assert!(!external.iter().any(|kind| is_of_broker(*kind)) && external.len() == DECK.len() - 2);
    }

    #[test]
    fn every_target_exists_and_every_service_keeps_an_instance() {
        for seed in 0..200 {
            let plan = Plan::draw(&PlanParameters { seed, ..PARAMETERS });
            let mut running: BTreeSet<Instance> = plan.initial_instances.iter().cloned().collect();
            for PlannedFault { fault, .. } in &plan.faults {
                match (&fault.target, fault.kind) {
                    (FaultTarget::One(added), FaultKind::Added) => {
                        assert!(running.insert(added.clone()), "seed {seed}: {added}");
                    }
                    (FaultTarget::One(removed), FaultKind::Removed) => {
                        assert!(running.remove(removed), "seed {seed}: {removed}");
                    }
                    (FaultTarget::One(one), _) => assert!(running.contains(one), "seed {seed}: {one}"),
                    (FaultTarget::Each(each), _) => {
                        assert!(each.iter().all(|one| running.contains(one)), "seed {seed}");
                    }
                    (FaultTarget::All, _) => {}
                }
                assert!(
                    FAULTED_SERVICES.iter().all(|service| running.iter().any(|one| one.service == *service)),
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn a_frozen_instance_stays_frozen_longer_than_its_session() {
        let frozen =
            Plan::draw(&PARAMETERS).faults.into_iter().filter(|planned| planned.fault.kind == FaultKind::Freeze);
        assert!(frozen.into_iter().all(|planned| planned.fault.lasts_ms > PARAMETERS.session_ms));
    }
}
