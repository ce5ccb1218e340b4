//! Effects on their way: asked of the outside world, answered, and the answer appended to the inbox, each at its own time.
//!
//! They run beside the loop. One that was begun goes on when its process has thrown its life away, and ends with the process.

use std::{rc::Rc, sync::Arc};

use runtime::{
    Decider, Due,
    core::{DueEffect, partition_of},
    envelope::{Envelope, answer_id},
};

use super::{Kit, Violation, World, transaction::headers_of};
use crate::{
    cluster::{Place, Stored},
    faults::Fault,
    mutant::Mutant,
};

enum Stage<D: Decider> {
    Asking(Due<D::Effect>),
    Answered(Rc<Stored>),
}

/// One attempt at an effect.
pub(crate) struct Attempt<D: Decider> {
    /// The life that began it.
    life: u64,
    partition: i32,
    key: Arc<str>,
    at_ms: i64,
    stage: Stage<D>,
}

/// How an attempt ended, for the life that began it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) life: u64,
    pub(crate) partition: i32,
    pub(crate) key: Arc<str>,
    pub(crate) answered: bool,
}

impl<D: Decider> Attempt<D> {
    pub(crate) fn begin(life: u64, effect: DueEffect<D::Effect>, world: &mut World) -> Self {
        let DueEffect { partition, effect_key, due } = effect;
        if due.attempt > 0 {
            world.trace.sometimes("an effect is tried again");
        }
        let at_ms = world.now_ms + world.chance.within(1..=400);
        Self { life, partition, key: effect_key, at_ms, stage: Stage::Asking(due) }
    }

    pub(crate) fn at_ms(&self) -> i64 {
        self.at_ms
    }

    /// Goes on. Answers a report once it has ended.
    pub(crate) fn step(mut self, kit: &Kit<D>, world: &mut World, whom: &str) -> Result<Progress<D>, Violation> {
        let stored = match self.stage {
            Stage::Asking(ref due) => match ask(kit, world, (&self.key, due), whom)? {
                Some(stored) => {
                    self.at_ms = world.now_ms + world.chance.within(1..=400);
                    self.stage = Stage::Answered(stored);
                    return Ok(Progress::GoesOn(self));
                }
                None => return Ok(Progress::Ended(self.report(false))),
            },
            Stage::Answered(ref stored) => Rc::clone(stored),
        };
        let entity = stored.key.as_deref().unwrap_or_default();
        let place = Place { topic: kit.inputs[0], partition: partition_of(entity, kit.contract.partitions) };
        let is_known = world.append(place, Rc::clone(&stored), whom);
        if is_known && world.strikes(Fault::AnswerTwice, whom) {
            let at_ms = world.now_ms + world.faults.extent().within(1..=20_000);
            world.cluster.serve_later(at_ms, crate::cluster::Request::Append { place, record: stored });
        }
        Ok(Progress::Ended(self.report(is_known)))
    }

    fn report(self, answered: bool) -> Report {
        Report { life: self.life, partition: self.partition, key: self.key, answered }
    }
}

/// How far an attempt is.
pub(crate) enum Progress<D: Decider> {
    GoesOn(Attempt<D>),
    Ended(Report),
}

fn ask<D: Decider>(
    kit: &Kit<D>,
    world: &mut World,
    (key, due): (&str, &Due<D::Effect>),
    whom: &str,
) -> Result<Option<Rc<Stored>>, Violation> {
    if !kit.truth.borrow_mut().was_due(&world.cluster.log, key)? {
        let what = format!("{whom} carries out {key}, which nothing that was said has made due");
        return Err(Violation::new("an effect follows what was committed", what));
    }
    if world.strikes(Fault::AskLost, whom) {
        return Ok(None);
    }
    *kit.asked.borrow_mut() += 1;
    let asked_under =
        if world.is(Mutant::NoIdempotencyKey) { format!("{key} {}", world.chance.draw()) } else { key.to_owned() };
    let answered = kit.outside.borrow_mut().ask(&asked_under, due, &mut world.chance);
    world.trace.tell(Some(&due.correlation_id), || match &answered {
        Ok(answer) => format!("{whom} asks {key}: {}", answer.outcome),
        Err(unanswered) => format!("{whom} asks {key}: no answer ({unanswered})"),
    });
    let Ok(answer) = answered else { return Ok(None) };
    if world.strikes(Fault::AnswerLost, whom) {
        return Ok(None);
    }
    let mut value = Vec::new();
    let full_name = kit
        .contract
        .writers()
        .encode(&answer.command, &mut value)
        .map_err(|e| Violation::new("an answer can be written", format!("{key}: {e}")))?;
    let id = answer_id(D::NAME, key, &answer.outcome);
    let envelope = Envelope::new(id, kit.contract.source.clone(), full_name.clone(), world.now_ms)
        .about(due.key.as_str())
        .correlated(due.correlation_id.as_str());
    let envelope = Envelope { build: Some(kit.contract.build.clone()), ..envelope };
    let (key, value) = (Some(due.key.clone().into_bytes()), Some(value));
    Ok(Some(Rc::new(Stored { timestamp_ms: world.now_ms, key, value, headers: headers_of(&envelope) })))
}
