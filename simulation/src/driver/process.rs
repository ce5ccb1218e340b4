//! A process: one instance of a service with one worker. It dies, stands still, stops, and starts again from the log.

use std::{collections::BTreeMap, rc::Rc};

use runtime::{Decider, envelope::Position};

use super::{
    Kit, Violation, World,
    attempt::{Attempt, Progress, Report},
    life::{Life, LifeEnd, Step},
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
    life: Option<Life<D>>,
    attempts: Vec<Attempt<D>>,
    lives: u64,
    /// Records over which a state was lost, and how often.
    suspects: BTreeMap<Position, u32>,
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
            life: None,
            attempts: Vec::new(),
            lives: 0,
            suspects: BTreeMap::new(),
            down_until_ms: world.now_ms + world.chance.within(0..=50),
            still_until_ms: 0,
        }
    }

    fn instance(&self) -> Option<&str> {
        self.is_named.then_some(self.name.as_str())
    }

    fn now_ms(&self, world: &World) -> i64 {
        world.now_ms + self.skew_ms
    }

    fn is_awake(&self, world: &World) -> bool {
        world.now_ms >= self.down_until_ms && world.now_ms >= self.still_until_ms
    }

    /// One step of its loop. Answers whether anything was done.
    pub(crate) fn step(&mut self, kit: &Kit<D>, world: &mut World) -> Result<bool, Violation> {
        if !self.is_awake(world) {
            return Ok(false);
        }
        let now_ms = self.now_ms(world);
        let Some(life) = &mut self.life else { return Ok(self.start(kit, world)) };
        let step = life.step(kit, &mut self.store, world, (&self.name, now_ms))?;
        self.attempts.append(&mut life.begun);
        match step {
            Step::Idle => Ok(false),
            Step::Worked => {
                self.suffer(kit, world);
                Ok(true)
            }
            Step::Ended(LifeEnd(reason)) => {
                if let Some(place) = life.broken.take() {
                    *self.suspects.entry(place).or_default() += 1;
                }
                world.trace.tell(None, || format!("{} starts again from the log: {reason}", self.name));
                self.end(kit, world, 200..=1_500);
                Ok(true)
            }
            Step::Stopped => {
                world.trace.tell(None, || format!("{} has stopped", self.name));
                self.attempts.clear();
                self.end(kit, world, 100..=1_000);
                Ok(true)
            }
        }
    }

    /// What may befall it after a step.
    fn suffer(&mut self, kit: &Kit<D>, world: &mut World) {
        let Some(life) = &mut self.life else { return };
        if world.strikes(Fault::Crash, &self.name) {
            if life.is_ending_transaction() {
                world.trace.sometimes("a process dies at the end of a transaction");
            } else if life.is_in_transaction() {
                world.trace.sometimes("a process dies in a transaction");
            }
            self.crash(world);
        } else if world.strikes(Fault::Pause, &self.name) {
            self.still_until_ms = world.now_ms + world.faults.extent().within(300..=9_000);
        } else if world.strikes(Fault::Stop, &self.name) {
            life.is_stopping = true;
        } else if world.strikes(Fault::Rebalance, D::NAME) {
            let now_ms = world.now_ms;
            world.cluster.group(kit.group).shuffle(now_ms);
        }
    }

    /// Dies as by kill -9, and is started again after a while.
    fn crash(&mut self, world: &mut World) {
        self.life = None;
        self.suspects.clear();
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
        let member = self.life.take().and_then(|life| life.client.member());
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
            None => format!("{}.{}.{}", D::NAME, self.name, self.lives).into(),
        };
        let Some(session) = world.cluster.begin_session(&id, &mut world.trace) else { return false };
        self.lives += 1;
        self.life = Some(Life::begin(kit, world, self.lives, session, &self.suspects));
        true
    }

    /// One step of what runs beside its loop: reports to the group, effects.
    pub(crate) fn step_beside(&mut self, kit: &Kit<D>, world: &mut World) -> Result<bool, Violation> {
        if !self.is_awake(world) {
            return Ok(false);
        }
        let mut worked = false;
        if let Some(life) = &mut self.life {
            let instance = self.is_named.then_some(self.name.as_str());
            let now_ms = world.now_ms;
            worked = life.client.step(world.cluster.group(kit.group), instance, now_ms);
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
        match &mut self.life {
            Some(life) if life.number == report.life => {
                if report.answered && life.machine.task(report.partition).is_none() {
                    world.trace.sometimes("an effect is answered after its partition is gone");
                }
                life.reports.push_back(report);
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
        let unrest = match &self.life {
            None => Some("it is down".to_owned()),
            Some(_) if !self.attempts.is_empty() => Some("effects are under way".to_owned()),
            Some(life) => life.unrest(kit, world),
        };
        unrest.map(|what| format!("{}: {what}", self.name))
    }

    /// Holds every state it has against the true ones; adds the partitions it decides.
    pub(crate) fn compare(&self, kit: &Kit<D>, owners: &mut BTreeMap<i32, u32>) -> Result<(), Violation> {
        let Some(life) = &self.life else { return Ok(()) };
        for task in life.machine.tasks() {
            *owners.entry(task.partition()).or_default() += 1;
            kit.truth.borrow().compare(task.partition(), &task.states(), &self.name)?;
        }
        Ok(())
    }

    /// True if its queues are within their bounds.
    pub(crate) fn is_bounded(&self) -> bool {
        self.life.as_ref().is_none_or(|life| life.machine.in_flight() <= super::life::IN_FLIGHT_AT_MOST)
    }

    /// The next moment at which something is due.
    pub(crate) fn next_due(&self, world: &World) -> Option<i64> {
        if !self.is_awake(world) {
            return Some(self.down_until_ms.max(self.still_until_ms));
        }
        let attempts = self.attempts.iter().map(Attempt::at_ms);
        let life = self.life.as_ref().and_then(Life::next_due).map(|at_ms| at_ms - self.skew_ms);
        attempts.chain(life).min()
    }
}
