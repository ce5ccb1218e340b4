//! What will happen: faults drawn from a seed, in an order, with pauses. Pure: the same seed and terms draw the same plan.
//!
//! The plan keeps track of which instances there will be, so that every fault finds what it strikes.

use std::{collections::BTreeMap, fmt};

use dacapo::draws::Draws;

/// The services that faults strike, and of which there may be several instances.
pub const STRUCK: [&str; 7] =
    ["order-processor", "warehouse", "payment", "loyalty", "notifications", "customers", "catalogue"];

/// Of one service there are never more instances than this.
const MOST_INSTANCES: usize = 3;

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// The service.
    pub service: &'static str,
    /// The number of the instance, from 0; never given twice.
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

/// What a plan is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The seed.
    pub seed: u64,
    /// How many faults.
    pub faults: usize,
    /// How long a silent member keeps its partitions, in milliseconds.
    pub session_ms: u64,
    /// Instances of each service in the beginning.
    pub instances: usize,
    /// Whether the broker is ours to kill.
    pub kills_broker: bool,
}

/// The kinds of faults, as the report counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9` of an instance, then a start.
    Kill,
    /// SIGSTOP of an instance for longer than its session, then SIGCONT.
    Freeze,
    /// `kill -9`, the local store deleted, a start.
    StoreDeleted,
    /// `kill -9`, the local store damaged, a start.
    StoreDamaged,
    /// The connections of an instance to the broker closed, and new ones refused.
    Cut,
    /// The connections of an instance frozen: nothing passes, then everything does.
    Stall,
    /// Requests of an instance pass and answers do not; then the connections are closed.
    Deaf,
    /// An instance's connections closed, and whoever comes back is told that the cluster has no broker.
    Nameless,
    /// `kill -9` of the broker, then a start on the same data.
    BrokerKill,
    /// SIGSTOP of the broker, then SIGCONT.
    BrokerFreeze,
    /// The registry gone.
    Registry,
    /// The gateway, the floor and the courier killed, then started on the same journal.
    Outside,
    /// An instance more.
    Added,
    /// An instance stopped (SIGTERM), for good.
    Retired,
    /// Every instance of a service stopped and started, one after the other.
    Rolled,
}

/// How often each kind lies in the deck that plans are dealt from.
const DECK: [(Kind, usize); 15] = [
    (Kind::Kill, 4),
    (Kind::Freeze, 3),
    (Kind::StoreDeleted, 1),
    (Kind::StoreDamaged, 1),
    (Kind::Cut, 1),
    (Kind::Stall, 1),
    (Kind::Deaf, 1),
    (Kind::Nameless, 1),
    (Kind::BrokerKill, 2),
    (Kind::BrokerFreeze, 1),
    (Kind::Registry, 1),
    (Kind::Outside, 1),
    (Kind::Added, 1),
    (Kind::Retired, 1),
    (Kind::Rolled, 1),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "kill -9",
            Self::Freeze => "frozen past its session",
            Self::StoreDeleted => "killed, store deleted",
            Self::StoreDamaged => "killed, store damaged",
            Self::Cut => "connections cut",
            Self::Stall => "connections frozen",
            Self::Deaf => "answers lost, then cut",
            Self::Nameless => "told of no broker",
            Self::BrokerKill => "broker kill -9",
            Self::BrokerFreeze => "broker frozen",
            Self::Registry => "registry gone",
            Self::Outside => "gateway and courier gone",
            Self::Added => "instance added",
            Self::Retired => "instance stopped for good",
            Self::Rolled => "rolling restart",
        })
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// What it strikes.
    pub target: Target,
    /// How long it lasts, in milliseconds.
    pub lasts_ms: u64,
}

/// What a fault strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One instance.
    One(Instance),
    /// These instances of one service, one after the other.
    Each(Vec<Instance>),
    /// Everybody.
    All,
}

/// A fault in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long nothing happens before it, in milliseconds.
    pub pause_ms: u64,
    /// The fault.
    pub fault: Fault,
    /// Whether the next one comes before this one is over.
    pub overlaps: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, target, lasts_ms } = &self.fault;
        write!(f, "after {:>5} ms  {kind:<26}", self.pause_ms)?;
        match target {
            Target::One(instance) => write!(f, "{instance}")?,
            Target::Each(instances) => write!(f, "{}, {} instances", instances[0].service, instances.len())?,
            Target::All => f.write_str("everybody")?,
        }
        if *lasts_ms > 0 {
            write!(f, ", for {lasts_ms} ms")?;
        }
        f.write_str(if self.overlaps { ", and before that is over:" } else { "" })
    }
}

/// Everything that will happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The instances that run in the beginning.
    pub begins_with: Vec<Instance>,
    /// The faults.
    pub steps: Vec<Step>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>4}  {step}", index + 1)?;
        }
        Ok(())
    }
}

impl Plan {
    /// Draws the plan.
    #[must_use]
    pub fn draw(terms: &Terms) -> Self {
        let mut dealer = Dealer::new(terms);
        let begins_with = dealer.cast.values().flatten().cloned().collect();
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..terms.faults {
            let before = steps.last().filter(|step| step.overlaps).map(|step| step.fault.clone());
            let step = dealer.step(before.as_ref());
            steps.push(step);
        }
        if let Some(last) = steps.last_mut() {
            last.overlaps = false;
        }
        Self { begins_with, steps }
    }
}

struct Dealer {
    terms: Terms,
    draws: Draws,
    deck: Vec<Kind>,
    cast: BTreeMap<&'static str, Vec<Instance>>,
    next_number: usize,
}

impl Dealer {
    fn new(terms: &Terms) -> Self {
        let of = |service| (0..terms.instances).map(|number| Instance { service, number, is_named: true }).collect();
        let cast = STRUCK.into_iter().map(|service| (service, of(service))).collect();
        Self { terms: *terms, draws: Draws::new(terms.seed, 0), deck: Vec::new(), cast, next_number: terms.instances }
    }

    /// The next fault. One that comes before another is over strikes another service, and the ground not at all.
    fn step(&mut self, before: Option<&Fault>) -> Step {
        let pause_ms = 200 + self.draws.below(1_000);
        let fault = loop {
            let kind = self.deal();
            let fits = |fault: &Fault| before.is_none_or(|before| are_apart(before, fault));
            // What does not fit lies in the deck again the next time it is mixed.
            if let Some(fault) = self.fault(kind).filter(fits) {
                break fault;
            }
        };
        self.enter(&fault);
        let overlaps = self.draws.below(5) == 0 && before.is_none();
        Step { pause_ms, fault, overlaps }
    }

    fn deal(&mut self) -> Kind {
        if self.deck.is_empty() {
            let kinds = DECK.iter().flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times));
            self.deck = kinds.filter(|kind| self.terms.kills_broker || !is_of_broker(*kind)).collect();
            for last in (1..self.deck.len()).rev() {
                let other = self.draws.below(last as u64 + 1);
                self.deck.swap(last, usize::try_from(other).unwrap_or(last));
            }
        }
        self.deck.pop().unwrap_or(Kind::Kill)
    }

    fn fault(&mut self, kind: Kind) -> Option<Fault> {
        let session = self.terms.session_ms;
        let (target, lasts_ms) = match kind {
            // Back at once, or after the session has ended and others have taken over.
            Kind::Kill => (self.one(), self.draws.below(2) * session * 3 / 2 + self.draws.below(500)),
            Kind::Freeze => (self.one(), session * 3 / 2 + self.draws.below(session)),
            Kind::StoreDeleted | Kind::StoreDamaged => (self.one(), 100 + self.draws.below(500)),
            Kind::Cut | Kind::Stall | Kind::Deaf | Kind::Nameless => (self.one(), 300 + self.draws.below(session * 2)),
            Kind::BrokerKill => (Target::All, 100 + self.draws.below(1_500)),
            Kind::BrokerFreeze | Kind::Registry | Kind::Outside => (Target::All, 500 + self.draws.below(2_500)),
            Kind::Added => (Target::One(self.another()?), 0),
            Kind::Retired => (Target::One(self.spare()?), 0),
            Kind::Rolled => (Target::Each(self.service().1.clone()), 0),
        };
        Some(Fault { kind, target, lasts_ms })
    }

    fn service(&mut self) -> (&'static str, &Vec<Instance>) {
        let service = STRUCK[self.below(STRUCK.len())];
        (service, &self.cast[service])
    }

    fn one(&mut self) -> Target {
        let service = self.service().0;
        let at = self.below(self.cast[service].len());
        Target::One(self.cast[service][at].clone())
    }

    fn another(&mut self) -> Option<Instance> {
        let (service, instances) = self.service();
        if instances.len() >= MOST_INSTANCES {
            return None;
        }
        let (number, is_named) = (self.next_number, self.draws.below(2) == 0);
        Some(Instance { service, number, is_named })
    }

    fn spare(&mut self) -> Option<Instance> {
        let (service, instances) = self.service();
        if instances.len() < 2 {
            return None;
        }
        let at = self.below(self.cast[service].len());
        Some(self.cast[service][at].clone())
    }

    fn enter(&mut self, fault: &Fault) {
        let Target::One(instance) = &fault.target else { return };
        let instances = self.cast.entry(instance.service).or_default();
        match fault.kind {
            Kind::Added => {
                instances.push(instance.clone());
                self.next_number += 1;
            }
            Kind::Retired => instances.retain(|other| other != instance),
            _ => {}
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draws.below(bound as u64)).unwrap_or_default()
    }
}

fn is_of_broker(kind: Kind) -> bool {
    matches!(kind, Kind::BrokerKill | Kind::BrokerFreeze)
}

fn are_apart(one: &Fault, other: &Fault) -> bool {
    let service = |fault: &Fault| match &fault.target {
        Target::One(instance) => Some(instance.service),
        Target::Each(instances) => instances.first().map(|instance| instance.service),
        Target::All => None,
    };
    match (service(one), service(other)) {
        (Some(one), Some(other)) => one != other,
        // Something that everybody stands on, and an instance that needs it meanwhile. A stop must end well, which it cannot then.
        (None, Some(_)) => !matches!(other.kind, Kind::Retired | Kind::Rolled),
        (Some(_), None) => !matches!(one.kind, Kind::Retired | Kind::Rolled),
        (None, None) => one.kind != other.kind && !(is_of_broker(one.kind) && is_of_broker(other.kind)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TERMS: Terms = Terms { seed: 7, faults: 120, session_ms: 6_000, instances: 2, kills_broker: true };

    #[test]
    fn the_same_seed_draws_the_same_plan_and_another_seed_another_one() {
        assert_eq!(Plan::draw(&TERMS), Plan::draw(&TERMS));
        assert_ne!(Plan::draw(&TERMS), Plan::draw(&Terms { seed: 8, ..TERMS }));
    }

    #[test]
    fn every_kind_is_dealt_and_a_foreign_broker_is_left_alone() {
        let kinds = |terms| Plan::draw(terms).steps.iter().map(|step| step.fault.kind).collect::<BTreeSet<_>>();
        assert_eq!(kinds(&TERMS).len(), DECK.len());
        let foreign = kinds(&Terms { kills_broker: false, ..TERMS });
        assert!(!foreign.iter().any(|kind| is_of_broker(*kind)) && foreign.len() == DECK.len() - 2);
    }

    #[test]
    fn every_fault_finds_what_it_strikes_and_somebody_is_always_left() {
        for seed in 0..200 {
            let plan = Plan::draw(&Terms { seed, ..TERMS });
            let mut there: BTreeSet<Instance> = plan.begins_with.iter().cloned().collect();
            for Step { fault, .. } in &plan.steps {
                match (&fault.target, fault.kind) {
                    (Target::One(added), Kind::Added) => assert!(there.insert(added.clone()), "seed {seed}: {added}"),
                    (Target::One(gone), Kind::Retired) => assert!(there.remove(gone), "seed {seed}: {gone}"),
                    (Target::One(struck), _) => assert!(there.contains(struck), "seed {seed}: {struck}"),
                    (Target::Each(struck), _) => assert!(struck.iter().all(|one| there.contains(one)), "seed {seed}"),
                    (Target::All, _) => {}
                }
                assert!(STRUCK.iter().all(|service| there.iter().any(|one| one.service == *service)), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_frozen_instance_stays_frozen_longer_than_its_session() {
        let frozen = Plan::draw(&TERMS).steps.into_iter().filter(|step| step.fault.kind == Kind::Freeze);
        assert!(frozen.into_iter().all(|step| step.fault.lasts_ms > TERMS.session_ms));
    }
}
