//! A process: one instance of a service with one worker. It crashes, is paused, stops, and starts again from the log.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use runtime::{
    Decider,
    core::turn::{Carried, Now},
};

use super::{
    ServiceContext, Violation, World,
    effect_attempt::{AttemptProgress, EffectAttempt, EffectReport},
    incarnation::{Incarnation, IncarnationEnd, IncarnationProgress},
    store::Store,
};
use crate::{faults::Fault, simulated_run::retention::UnreadTruncation};

/// A process.
pub(crate) struct Process<D: Decider> {
    name: String,
    /// Its membership in the group and its transactional id survive a restart.
    has_stable_name: bool,
    /// How far its clock is ahead of the true time.
    skew_ms: i64,
    store: Store,
    incarnation: Option<Incarnation<D>>,
    attempts: Vec<EffectAttempt<D>>,
    incarnations: u64,
    carried: Carried,
    down_until_ms: i64,
    paused_until_ms: i64,
}

impl<D: Decider> Process<D> {
    pub(crate) fn new(name: String, world: &mut World) -> Self {
        Self {
            name,
            has_stable_name: world.random.permille(600),
            skew_ms: world.random.within(-1_500..=1_500),
            store: Store::default(),
            incarnation: None,
            attempts: Vec::new(),
            incarnations: 0,
            carried: Carried::default(),
            down_until_ms: world.now_ms + world.random.within(0..=50),
            paused_until_ms: 0,
        }
    }

    fn instance(&self) -> Option<&str> {
        self.has_stable_name.then_some(self.name.as_str())
    }

    fn now(&self, world: &World) -> Now {
        Now { wall_ms: world.now_ms + self.skew_ms, elapsed: Duration::from_millis(world.now_ms.unsigned_abs()) }
    }

    fn is_awake(&self, world: &World) -> bool {
        world.now_ms >= self.down_until_ms && world.now_ms >= self.paused_until_ms
    }

    /// One step of its loop. Returns whether anything was done.
    pub(crate) fn step(&mut self, service: &ServiceContext<D>, world: &mut World) -> Result<bool, Violation> {
        if !self.is_awake(world) {
            return Ok(false);
        }
        let now = self.now(world);
        let Some(incarnation) = &mut self.incarnation else { return Ok(self.start(service, world)) };
        let progress = incarnation.step(service, &mut self.store, world, (&self.name, now))?;
        self.attempts.append(&mut incarnation.begun);
        match progress {
            IncarnationProgress::Idle => Ok(false),
            IncarnationProgress::Worked => {
                self.inject_faults(service, world);
                Ok(true)
            }
            IncarnationProgress::Ended(end) => {
                self.ended(service, world, &end)?;
                Ok(true)
            }
            IncarnationProgress::Stopped => {
                world.trace.note(None, || format!("{} has stopped", self.name));
                self.attempts.clear();
                self.end(service, world, 100..=1_000);
                Ok(true)
            }
        }
    }

    fn ended(&mut self, service: &ServiceContext<D>, world: &mut World, end: &IncarnationEnd) -> Result<(), Violation> {
        match end {
            IncarnationEnd::Failed(_) => {}
            IncarnationEnd::Turn(error) => {
                world.trace.sometimes("a state is lost because evolve fails");
                self.carried.ended(error);
            }
            IncarnationEnd::LogLoss(loss)
                if world.unread_truncation.as_ref().is_some_and(|unread| unread.is_named_by(loss)) =>
            {
                UnreadTruncation::accept(world);
            }
            IncarnationEnd::LogLoss(loss) if self.store.is_ahead() && loss.starts_with("own log") => {
                // As in production, the worker stops for good; an operator sees that the log is complete, and deletes the store.
                world.trace.sometimes("a store ahead of its log is refused");
                world.trace.note(None, || format!("{} refuses its store: {loss}", self.name));
                self.store.clear();
            }
            IncarnationEnd::LogLoss(loss) => return Err(Violation::new("no log loses records", loss.clone())),
        }
        world.trace.note(None, || format!("{} starts again from the log: {end:?}", self.name));
        self.end(service, world, 200..=1_500);
        Ok(())
    }

    /// Injects the faults that may occur after a step.
    fn inject_faults(&mut self, service: &ServiceContext<D>, world: &mut World) {
        let Some(incarnation) = &mut self.incarnation else { return };
        if world.injects(Fault::Crash, &self.name) {
            if incarnation.is_ending_transaction() {
                world.trace.sometimes("a process crashes at the end of a transaction");
            } else if incarnation.is_in_transaction() {
                world.trace.sometimes("a process crashes in a transaction");
            }
            self.crash(world);
        } else if world.injects(Fault::Pause, &self.name) {
            self.paused_until_ms = world.now_ms + world.faults.extent().within(300..=9_000);
        } else if world.injects(Fault::Stop, &self.name) {
            incarnation.turn.stop();
        } else if world.injects(Fault::Rebalance, D::NAME) {
            let now_ms = world.now_ms;
            world.cluster.group(service.group).shuffle(now_ms);
        }
    }

    /// Crashes as by kill -9, and is started again after a while.
    fn crash(&mut self, world: &mut World) {
        self.incarnation = None;
        self.carried = Carried::default();
        self.attempts.clear();
        self.store.crash();
        self.down_until_ms = world.now_ms + world.random.within(50..=4_000);
        if world.injects(Fault::StoreLost, &self.name) {
            self.store.clear();
        } else if world.injects(Fault::StoreOld, &self.name) {
            self.store.restore_old();
        } else if world.injects(Fault::StoreCorrupt, &self.name) {
            self.store.damage(world.faults.extent());
        }
    }

    fn end(&mut self, service: &ServiceContext<D>, world: &mut World, pause_ms: std::ops::RangeInclusive<i64>) {
        let member = self.incarnation.take().and_then(|incarnation| incarnation.client.member());
        if let (Some(member), false) = (member, self.has_stable_name) {
            let now_ms = world.now_ms;
            world.cluster.group(service.group).leave(member, now_ms);
        }
        self.down_until_ms = world.now_ms + world.random.within(pause_ms);
    }

    /// Starts with new clients: the previous producer is fenced, and its open transaction aborted.
    fn start(&mut self, service: &ServiceContext<D>, world: &mut World) -> bool {
        let id: Rc<str> = match self.instance() {
            Some(name) => format!("{}.{name}", D::NAME).into(),
            None => format!("{}.{}.{}", D::NAME, self.name, self.incarnations).into(),
        };
        let Some(session) = world.cluster.begin_session(&id, &mut world.trace) else { return false };
        self.incarnations += 1;
        let now = self.now(world);
        self.incarnation = Some(Incarnation::begin(service, world, self.incarnations, session, (&self.carried, now)));
        true
    }

    /// One step of what runs beside its loop: a heartbeat, an effect.
    pub(crate) fn step_background(
        &mut self,
        service: &ServiceContext<D>,
        world: &mut World,
    ) -> Result<bool, Violation> {
        if !self.is_awake(world) {
            return Ok(false);
        }
        let mut worked = false;
        if let Some(incarnation) = &mut self.incarnation {
            let instance = self.has_stable_name.then_some(self.name.as_str());
            let now_ms = world.now_ms;
            worked = incarnation.client.step(world.cluster.group(service.group), instance, now_ms);
        }
        let due = self.attempts.iter().position(|attempt| attempt.at_ms() <= world.now_ms);
        if let Some(due) = due {
            match self.attempts.swap_remove(due).step(service, world, &self.name)? {
                AttemptProgress::Continues(attempt) => self.attempts.push(attempt),
                AttemptProgress::Ended(report) => self.report(report, world),
            }
            worked = true;
        }
        Ok(worked)
    }

    fn report(&mut self, report: EffectReport, world: &mut World) {
        match &mut self.incarnation {
            Some(incarnation) if incarnation.number == report.incarnation => {
                if report.answered && incarnation.turn.machine().task(report.partition).is_none() {
                    world.trace.sometimes("an effect is answered after its partition was revoked");
                }
                incarnation.reports.push_back(report);
            }
            _ => world.trace.sometimes("an effect is answered after its incarnation has ended"),
        }
    }

    /// Ends a pause, and starts the process again soon if it is down.
    pub(crate) fn resume(&mut self, world: &World) {
        self.paused_until_ms = 0;
        self.down_until_ms = self.down_until_ms.min(world.now_ms + 100);
    }

    /// Ends, and starts again after a moment.
    pub(crate) fn restart(&mut self, service: &ServiceContext<D>, world: &mut World) {
        self.end(service, world, 10..=50);
        self.attempts.clear();
    }

    /// Restarts with an empty store.
    pub(crate) fn wipe(&mut self, service: &ServiceContext<D>, world: &mut World) {
        self.restart(service, world);
        self.store.clear();
    }

    /// Why it has not settled, if it has not.
    pub(crate) fn unsettled_reason(&self, service: &ServiceContext<D>, world: &World) -> Option<String> {
        let reason = match &self.incarnation {
            None => Some("it is down".to_owned()),
            Some(_) if !self.attempts.is_empty() => Some("effects are in flight".to_owned()),
            Some(incarnation) => incarnation.unsettled_reason(service, world, self.now(world)),
        };
        reason.map(|reason| format!("{}: {reason}", self.name))
    }

    /// Compares every state in memory with the reference fold, and counts the partitions that it decides.
    pub(crate) fn compare(
        &self,
        service: &ServiceContext<D>,
        owners: &mut BTreeMap<i32, u32>,
    ) -> Result<(), Violation> {
        let Some(incarnation) = &self.incarnation else { return Ok(()) };
        for task in incarnation.tasks() {
            *owners.entry(task.partition()).or_default() += 1;
            service.reference.borrow().compare(task, &self.name)?;
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
            return Some(self.down_until_ms.max(self.paused_until_ms));
        }
        let attempts = self.attempts.iter().map(EffectAttempt::at_ms);
        let now = self.now(world);
        let incarnation = self.incarnation.as_ref().and_then(|incarnation| incarnation.next_due(now));
        attempts.chain(incarnation.map(|at_ms| at_ms - self.skew_ms)).min()
    }
}
