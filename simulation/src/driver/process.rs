//! A process: one instance of a service with one worker. It dies, stands still, stops, and starts again from the log.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use runtime::{
    Decider,
    core::turn::{Carried, Now},
};

use super::{
    Kit, Violation, World,
    attempt::{Attempt, Progress, Report},
    incarnation::{End, Incarnation, Progress as Went},
    store::Store,
};
use crate::faults::Fault;

/// A process.
pub(crate) struct Process<D: Decider> {
    name: String,
    /// It has a stable name: its place in the group and its transactional id outlive it.
    is_named: bool,
    /// How far its clock is off.
    skew_ms: i64,
    store: Store,
    incarnation: Option<Incarnation<D>>,
    attempts: Vec<Attempt<D>>,
    incarnations: u64,
    carried: Carried,
    down_until_ms: i64,
    still_until_ms: i64,
}

impl<D: Decider> Process<D> {
    pub(crate) fn new(name: String, world: &mut World) -> Self {
        Self {
            name,
            is_named: world.chance.permille(600),
            skew_ms: world.chance.within(-1_500..=1_500),
            store: Store::default(),
            incarnation: None,
            attempts: Vec::new(),
            incarnations: 0,
            carried: Carried::default(),
            down_until_ms: world.now_ms + world.chance.within(0..=50),
            still_until_ms: 0,
        }
    }

    fn instance(&self) -> Option<&str> {
        self.is_named.then_some(self.name.as_str())
    }

    fn now(&self, world: &World) -> Now {
        Now { wall_ms: world.now_ms + self.skew_ms, elapsed: Duration::from_millis(world.now_ms.unsigned_abs()) }
    }

    fn is_awake(&self, world: &World) -> bool {
        world.now_ms >= self.down_until_ms && world.now_ms >= self.still_until_ms
    }

    /// One step of its loop. Answers whether anything was done.
    pub(crate) fn step(&mut self, kit: &Kit<D>, world: &mut World) -> Result<bool, Violation> {
        if !self.is_awake(world) {
            return Ok(false);
        }
        let now = self.now(world);
        let Some(incarnation) = &mut self.incarnation else { return Ok(self.start(kit, world)) };
        let went = incarnation.step(kit, &mut self.store, world, (&self.name, now))?;
        self.attempts.append(&mut incarnation.begun);
        match went {
            Went::Idle => Ok(false),
            Went::Worked => {
                self.inject_faults(kit, world);
                Ok(true)
            }
            Went::Ended(end) => {
                self.ended(kit, world, &end)?;
                Ok(true)
            }
            Went::Stopped => {
                world.trace.tell(None, || format!("{} has stopped", self.name));
                self.attempts.clear();
                self.end(kit, world, 100..=1_000);
                Ok(true)
            }
        }
    }

    fn ended(&mut self, kit: &Kit<D>, world: &mut World, end: &End) -> Result<(), Violation> {
        match end {
            End::Failed(_) => {}
            End::Turn(error) => {
                world.trace.sometimes("a state is lost because evolve fails");
                self.carried.ended(error);
            }
            End::LogLoss(loss) if self.store.is_ahead() => {
                // As in production: the worker stops for good, an operator sees that the log is whole, and deletes the store.
                world.trace.sometimes("a store ahead of its log is refused");
                world.trace.tell(None, || format!("{} refuses its store: {loss}", self.name));
                self.store.lose();
            }
            End::LogLoss(loss) => return Err(Violation::new("no log loses anything", loss.clone())),
        }
        world.trace.tell(None, || format!("{} starts again from the log: {end:?}", self.name));
        self.end(kit, world, 200..=1_500);
        Ok(())
    }

    /// What may befall it after a step.
    fn inject_faults(&mut self, kit: &Kit<D>, world: &mut World) {
        let Some(incarnation) = &mut self.incarnation else { return };
        if world.strikes(Fault::Crash, &self.name) {
            if incarnation.is_ending_transaction() {
                world.trace.sometimes("a process dies at the end of a transaction");
            } else if incarnation.is_in_transaction() {
                world.trace.sometimes("a process dies in a transaction");
            }
            self.crash(world);
        } else if world.strikes(Fault::Pause, &self.name) {
            self.still_until_ms = world.now_ms + world.faults.extent().within(300..=9_000);
        } else if world.strikes(Fault::Stop, &self.name) {
            incarnation.turn.stop();
        } else if world.strikes(Fault::Rebalance, D::NAME) {
            let now_ms = world.now_ms;
            world.cluster.group(kit.group).shuffle(now_ms);
        }
    }

    /// Dies as by kill -9, and is started again after a while.
    fn crash(&mut self, world: &mut World) {
        self.incarnation = None;
        self.carried = Carried::default();
        self.attempts.clear();
        self.store.crash();
        self.down_until_ms = world.now_ms + world.chance.within(50..=4_000);
        if world.strikes(Fault::StoreLost, &self.name) {
            self.store.lose();
        } else if world.strikes(Fault::StoreOld, &self.name) {
            self.store.age();
        } else if world.strikes(Fault::StoreCorrupt, &self.name) {
            self.store.damage(world.faults.extent());
        }
    }

    fn end(&mut self, kit: &Kit<D>, world: &mut World, pause_ms: std::ops::RangeInclusive<i64>) {
        let member = self.incarnation.take().and_then(|incarnation| incarnation.client.member());
        if let (Some(member), false) = (member, self.is_named) {
            let now_ms = world.now_ms;
            world.cluster.group(kit.group).leave(member, now_ms);
        }
        self.down_until_ms = world.now_ms + world.chance.within(pause_ms);
    }

    /// Fresh clients: the producer before is fenced, and what it left open aborted.
    fn start(&mut self, kit: &Kit<D>, world: &mut World) -> bool {
        let id: Rc<str> = match self.instance() {
            Some(name) => format!("{}.{name}", D::NAME).into(),
            None => format!("{}.{}.{}", D::NAME, self.name, self.incarnations).into(),
        };
        let Some(session) = world.cluster.begin_session(&id, &mut world.trace) else { return false };
        self.incarnations += 1;
        let now = self.now(world);
        self.incarnation = Some(Incarnation::begin(kit, world, self.incarnations, session, (&self.carried, now)));
        true
    }

    /// One step of what runs beside its loop: reports to the group, effects.
    pub(crate) fn step_beside(&mut self, kit: &Kit<D>, world: &mut World) -> Result<bool, Violation> {
        if !self.is_awake(world) {
            return Ok(false);
        }
        let mut worked = false;
        if let Some(incarnation) = &mut self.incarnation {
            let instance = self.is_named.then_some(self.name.as_str());
            let now_ms = world.now_ms;
            worked = incarnation.client.step(world.cluster.group(kit.group), instance, now_ms);
        }
        let due = self.attempts.iter().position(|attempt| attempt.at_ms() <= world.now_ms);
        if let Some(due) = due {
            match self.attempts.swap_remove(due).step(kit, world, &self.name)? {
                Progress::GoesOn(attempt) => self.attempts.push(attempt),
                Progress::Ended(report) => self.report(report, world),
            }
            worked = true;
        }
        Ok(worked)
    }

    fn report(&mut self, report: Report, world: &mut World) {
        match &mut self.incarnation {
            Some(incarnation) if incarnation.number == report.life => {
                if report.answered && incarnation.turn.machine().task(report.partition).is_none() {
                    world.trace.sometimes("an effect is answered after its partition is gone");
                }
                incarnation.reports.push_back(report);
            }
            _ => world.trace.sometimes("an effect is answered after its life is over"),
        }
    }

    /// From now on nothing stands still.
    pub(crate) fn wake(&mut self, world: &World) {
        self.still_until_ms = 0;
        self.down_until_ms = self.down_until_ms.min(world.now_ms + 100);
    }

    /// Ends, and finds nothing in its store when it starts again.
    pub(crate) fn wipe(&mut self, kit: &Kit<D>, world: &mut World) {
        self.end(kit, world, 10..=50);
        self.attempts.clear();
        self.store.lose();
    }

    /// What keeps it from being quiet, if anything.
    pub(crate) fn unrest(&self, kit: &Kit<D>, world: &World) -> Option<String> {
        let unrest = match &self.incarnation {
            None => Some("it is down".to_owned()),
            Some(_) if !self.attempts.is_empty() => Some("effects are under way".to_owned()),
            Some(incarnation) => incarnation.unrest(kit, world, self.now(world)),
        };
        unrest.map(|what| format!("{}: {what}", self.name))
    }

    /// Holds every state it has against the true ones; adds the partitions it decides.
    pub(crate) fn compare(&self, kit: &Kit<D>, owners: &mut BTreeMap<i32, u32>) -> Result<(), Violation> {
        let Some(incarnation) = &self.incarnation else { return Ok(()) };
        for task in incarnation.tasks() {
            *owners.entry(task.partition()).or_default() += 1;
            kit.truth.borrow().compare(task, &self.name)?;
        }
        Ok(())
    }

    /// True if its queues are within their bounds.
    pub(crate) fn is_bounded(&self) -> bool {
        self.incarnation.as_ref().is_none_or(Incarnation::is_bounded)
    }

    /// The next moment at which something is due.
    pub(crate) fn next_due(&self, world: &World) -> Option<i64> {
        if !self.is_awake(world) {
            return Some(self.down_until_ms.max(self.still_until_ms));
        }
        let attempts = self.attempts.iter().map(Attempt::at_ms);
        let now = self.now(world);
        let incarnation = self.incarnation.as_ref().and_then(|incarnation| incarnation.next_due(now));
        attempts.chain(incarnation.map(|at_ms| at_ms - self.skew_ms)).min()
    }
}
